"""Slot machines: what is planned, executed and both, by size, and interchange on their own state at any step.

1. Plan exact: every field of every slot, and where the free list begins, is the likeliest. Execution given the true
   plan: the memory after every step is the symbolic machine's, and the answer is right. Both: the answer is right from
   the controller's own plan.
2. How sharp: the least probability that a plan gives to the true entry of a field, and the counter's entropy.
3. Interchange: at an executed step of base, the carry, a content, a pointer or the counter takes the value that it has
   at that step of source; the rest of the run is judged by the world's `do` there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from interp.models import resize
from interp.models.slot_memory import N_KINDS
from interp.results import Aggregation, Control, IntervalKind, Method, Metric, wilson_interval
from interp.runs import Run
from interp.tasks import TASKS
from interp.training.slot_presets import resized_for

SEED = 20_017
PLANNED, EXECUTED, BOTH = "plan", "execution of the true plan", "plan and execution"
_AT_ONCE = 50  # examples in memory together


def size_rows(run: Run, sizes: tuple[int, ...], *, n: int, progress: Any = lambda *_: None) -> list[dict[str, Any]]:
    """Plan exact, execution given the true plan, and both, on `n` held-out inputs of exactly each size."""
    rows, world = [], run.config.world
    for number, size in enumerate(sizes):
        progress(number, len(sizes), f"size {size}")
        larger = world.changed(size=size, least=size)  # type: ignore[attr-defined]
        task = TASKS[run.config.task](larger)
        model = resize(run.model, resized_for(run.config.model, larger)).eval()
        found = {name: np.zeros(0, dtype=bool) for name in (PLANNED, EXECUTED, BOTH)}
        shares = np.zeros(0)
        for start in range(0, n, _AT_ONCE):
            batch = task.sample(min(_AT_ONCE, n - start), seed=SEED, start=start)
            exact, share = plan_exact(model, task, batch)
            parts = {PLANNED: exact, EXECUTED: executed_exact(model, task, batch)}
            with torch.no_grad():
                parts[BOTH] = task.right(model.answer(task, batch), batch)
            found = {name: np.concatenate([each, parts[name]]) for name, each in found.items()}
            shares = np.concatenate([shares, share])
        for name, right in found.items():
            low, high = wilson_interval(int(right.sum()), n)
            rows.append(
                {
                    "method": Method.GREEDY, "metric": Metric.EXACT_MATCH, "part": name, "stratum": f"size {size}",
                    "time": size, "estimate": float(right.mean()), "ci_low": low, "ci_high": high,
                    "interval_kind": IntervalKind.WILSON, "aggregation": Aggregation.MEAN, "n": n,
                }
            )  # fmt: skip
        rows.append(
            {
                "method": Method.GREEDY, "metric": Metric.CONFIDENCE, "part": PLANNED, "stratum": f"size {size}",
                "time": size, "estimate": float(shares.min()), "aggregation": Aggregation.MINIMUM, "n": n,
            }
        )  # fmt: skip
    return rows


@torch.no_grad()
def plan_exact(model: Any, task: Any, batch: Any) -> tuple[np.ndarray, np.ndarray]:
    """Whether each plan's likeliest fields are the true ones, bool [n], and the least probability of a true field."""
    plan, memory = model(batch.tokens, returned="plan"), task.memories(batch)
    s = model.cfg.n_slots
    true = memory.split([s, s, s, s, s, 1, 1, 1], dim=1)
    logits = (plan.kinds, *plan.pointers.unbind(1), plan.contents, plan.free[:, None])
    exact, least = torch.ones(len(memory), dtype=torch.bool), torch.ones(len(memory))
    for each, target in zip(logits, (*true[:5], true[7]), strict=True):
        exact &= (each.argmax(-1) == target).all(1)
        least = torch.minimum(least, F.softmax(each, -1).gather(-1, target[..., None])[..., 0].amin(1).float())
    return exact.numpy(), least.numpy()


def executed_exact(model: Any, task: Any, batch: Any) -> np.ndarray:
    """Whether the machine, given the true memory, holds the symbolic contents, pointers, kinds and counter in the end,
    and answers right, bool [n]. `tests/models/test_slot_machine.py` holds it after every step."""
    memory, n_steps = task.memories(batch), int(task.n_steps(batch).max())
    with torch.no_grad():
        final = model(batch.tokens, memory=memory, returned="run", n_steps=n_steps).final
    s = model.cfg.n_slots
    kinds, following, left, right, contents, registers = task.trace(batch, n_steps)[:, -1].split([s] * 5 + [3], dim=1)
    pairs = [(final.kinds, kinds), (final.contents, contents), (final.pc, registers[:, 0])]
    pairs += list(zip(final.pointers.unbind(1), (following, left, right), strict=True))
    right = [(found.argmax(-1) == true).reshape(len(memory), -1).all(1) for found, true in pairs]
    return torch.stack(right).all(0).numpy()


def interchange_rows(run: Run, *, n_pairs: int, steps: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """IIA of what the machine holds after so many steps, running the controller's own plans."""
    model, task, world = run.model, run.task, run.config.world
    base, source = (task.sample(n_pairs, seed=SEED + each) for each in (1, 2))
    with torch.no_grad():
        _, cache = model.run_with_cache(source.tokens, names_filter=[hook for hook, _ in _places(model).values()])
        unpatched = model.answer(task, base).numpy()
    for at in steps:
        for part, (name, variable) in _variables(world).items():  # type: ignore[arg-type]
            hook, where = _places(model)[part]
            values = world.read(source.examples, variable, at)
            expected = world.answer(base.examples, do={variable: values}, at=at)
            valid = expected.valid
            if not valid.any():
                continue
            plain = world.answer(base.examples).values
            changes = (expected.values != plain).any(axis=1)

            def put(act: Tensor, hook: Any, at: int = at, where: Any = where) -> Tensor:
                act = act.clone()
                index = (slice(None), at if hook.name == "hook_pc" else at - 1, *where(world))
                act[index] = cache[hook.name][index]
                return act

            with torch.no_grad(), model.hooks(fwd_hooks=[(hook, put)]):
                swapped = model.answer(task, base).numpy()
            for control, answers in ((None, swapped), (Control.UNPATCHED, unpatched)):
                right = (answers == expected.values).all(axis=1)
                for stratum, members in (("changes", valid & changes), ("same", valid & ~changes)):
                    if count := int(members.sum()):
                        low, high = wilson_interval(int(right[members].sum()), count)
                        yield {
                            "method": Method.FULL_VECTOR, "metric": Metric.IIA, "control": control, "site": hook,
                            "variable": name, "part": variable, "time": at,
                            "stratum": stratum, "pair_design": "independent",
                            "estimate": float(right[members].mean()), "ci_low": low, "ci_high": high,
                            "interval_kind": IntervalKind.WILSON, "aggregation": Aggregation.MEAN, "n": count,
                        }  # fmt: skip


def _variables(world: Any) -> dict[str, tuple[str, str]]:
    """What is exchanged: by kind of part, its name in words and the world's variable."""
    names = world.program.names
    content, pointer = names.index("a[1]"), names.index("q")
    return {
        "carry": ("the carry", "carry"),
        "content": ("a digit in memory", f"content[{content}]"),
        "pointer": ("a pointer", f"next[{pointer}]"),
        "counter": ("the counter", "pc"),
    }


def _places(model: Any) -> dict[str, tuple[str, Any]]:
    """Hook of each kind of part, and what of an activation it is, beside batch and step."""
    s, v = model.cfg.n_slots, model.cfg.n_values
    return {
        "carry": ("hook_registers", lambda world: (slice(0, 2),)),
        "content": ("hook_memory", lambda world: (world.program.names.index("a[1]"), slice(-v, None))),
        "pointer": ("hook_memory", lambda world: (world.program.names.index("q"), slice(N_KINDS, N_KINDS + s))),
        "counter": ("hook_pc", lambda world: (slice(None),)),
    }
