"""Interchange on what a slot machine holds: does the rest of the run follow the symbolic machine?

At an executed step of base, the carry, a content, a pointer or the counter takes what it is in source, as the model's
own memory holds it, one-hot or soft; the rest of the run is judged by the world's `do` there.

    changes, same   source is seven steps ahead, so that pointers and counters differ: answers that the exchange should
                    change, and those that it should leave; of the former also those that soft execution has right
                    in base
    same value      source at the same step, where the variable is what it is in base: the answer must stay
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from interp.models.slot_memory import N_KINDS
from interp.results import Control, Method, Metric
from interp.runs import Run
from interp.studies.slot_runs import SEED, executing, share

SOFT, RIGHT = "soft execution", "changes, base right"
_LAST_STEP = 5  # of base; the second place's digits are added at step 6
_LATER = 7  # steps by which source is ahead: a place and an instruction


def interchange_rows(
    run: Run, *, n_pairs: int, execution: Literal["hard", "soft"] = "hard"
) -> Iterator[dict[str, Any]]:
    """IIA of what the machine holds at every step up to the second place's sum, beside the run without an exchange.

    The controller writes its own plan; with `plan_given` the true one is run. A soft machine is also held against
    exchanges of equal values.
    """
    task, world = run.task, run.config.world
    model = executing(run, run.config.model, execution)  # type: ignore[arg-type]
    base, source = (task.sample(n_pairs, seed=SEED + each) for each in (1, 2))
    places = _places(model, world)
    memory = task.memories(source) if model.cfg.plan_given else None
    with torch.no_grad():
        hooks = {hook for hook, _ in places.values()}
        _, cache = model.run_with_cache(source.tokens, names_filter=list(hooks), memory=memory)
        unpatched = model.answer(task, base).numpy()
    plain = world.answer(base.examples).values

    def swapped(variable: str, at: int, later: int) -> np.ndarray:
        """The answers with what source holds `later` steps after step `at`."""
        hook, where = places[variable]
        index = (slice(None), at - (hook != "hook_pc"), *where)
        given = cache[hook][(index[0], index[1] + later, *where)]
        with torch.no_grad(), model.hooks(fwd_hooks=[(hook, partial(_put, given=given, index=index))]):
            return model.answer(task, base).numpy()

    part = {"part": SOFT} if execution == "soft" else {}
    for at in range(1, _LAST_STEP + 1):
        for variable, (hook, _) in places.items():
            key = {
                "method": Method.FULL_VECTOR, "metric": Metric.IIA, "site": hook, "variable": variable, "time": at,
                "pair_design": "independent", **part,
            }  # fmt: skip
            values = world.read(source.examples, variable, at + _LATER)
            expected = world.answer(base.examples, do={variable: values}, at=at)
            changes = (expected.values != plain).any(axis=1)
            for control, answers in ((None, swapped(variable, at, _LATER)), (Control.UNPATCHED, unpatched)):
                right = (answers == expected.values).all(axis=1)
                strata = {"changes": changes, "same": ~changes}
                if execution == "soft":  # it errs by itself; also where it does not
                    strata[RIGHT] = changes & (unpatched == plain).all(axis=1)
                for stratum, members in strata.items():
                    if (members := members & expected.valid).any():
                        yield {**key, "control": control, "stratum": stratum, **share(right[members])}
            if execution == "soft":
                own, theirs = (world.read(each.examples, variable, at) for each in (base, source))
                if (alike := (own == theirs) & (own >= 0)).any():
                    right = (swapped(variable, at, 0) == plain).all(axis=1)
                    yield {**key, "control": Control.SAME_VALUE, "stratum": "same", **share(right[alike])}


def _put(act: Tensor, hook: Any, given: Tensor, index: Any) -> Tensor:
    """The activation with one part taken from another run."""
    act = act.clone()
    act[index] = given
    return act


def _places(model: Any, world: Any) -> dict[str, tuple[str, Any]]:
    """What is exchanged: by the world's variable the hook, and what of its activation, beside batch and step."""
    s, v, names = model.cfg.n_slots, model.cfg.n_values, world.program.names
    digit, pointer = names.index("a[1]"), names.index("q")
    return {
        "carry": ("hook_registers", (slice(0, 2),)),
        f"content[{digit}]": ("hook_memory", (digit, slice(-v, None))),
        f"next[{pointer}]": ("hook_memory", (pointer, slice(N_KINDS, N_KINDS + s))),
        "pc": ("hook_pc", (slice(None),)),
    }
