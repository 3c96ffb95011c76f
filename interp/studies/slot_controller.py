"""Where a controller has the plan before it is written: what probes read of a slot's content, and what exchanges move.

A controller reads the whole prompt at once, so that "before" means in an earlier layer, or at another position. One
program's instructions and pointers are the same in every run, and a position's role says them from the embedding on;
what differs from run to run are the contents of the inputs' slots. So it is asked of the second input: where, in
residual streams, does a linear probe read it (beside its controls), and where does the answer follow source's when the
stream is exchanged: in the prompt at its token, behind the prompt, at an instruction, at the slot before, at the slot
itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from interp.interventions.sweep import Interchange, interchange_answers
from interp.probing.sweep import probe_sweep
from interp.results import Control, Method, Metric
from interp.runs import Run
from interp.studies.slot_runs import SEED, hardened, share

_BATCH = 100  # pairs run at once


def asked_of(world: Any) -> tuple[str, list[str]]:
    """The input that is asked about, and the positions: its token, "=", the first instruction, the slot before its
    own, its own."""
    slot = world.program.inputs[1]
    return world.input_names[1], [world.input_names[1], "=", "memory[1]", f"memory[{slot - 1}]", f"memory[{slot}]"]


def controller_probes(run: Run, *, n: int) -> list[dict[str, Any]]:
    """Accuracy of ridge probes for the input, by layer and position, with every control of the sweep."""
    variable, places = asked_of(run.config.world)
    sweep = probe_sweep(
        run.model, run.task, untrained=run.untrained_model(), variables=[variable], positions=places,
        methods=["ridge"], n=n, seed=SEED,
    )  # fmt: skip
    return sweep.rows


def controller_swaps(run: Run, *, n_pairs: int) -> Iterator[dict[str, Any]]:
    """IIA of the residual stream for the input, by layer and position, beside the run alone and equal values."""
    task, world = run.task, run.config.world
    variable, places = asked_of(world)
    model = hardened(run, run.config.model)  # type: ignore[arg-type]
    base, source = (task.sample(n_pairs, seed=SEED + each) for each in (3, 4))
    own, theirs = (world.read(each.examples, variable) for each in (base, source))
    expected = world.answer(base.examples, do={variable: theirs}).values
    changes = (expected != world.answer(base.examples).values).any(axis=1)
    positions = torch.from_numpy(task.answer_positions).expand(n_pairs, -1)
    sites = [(hook, place) for hook in model.residual_hooks() for place in places]
    exchanges = [Interchange(hook, *(task.resolve(place, each) for each in (base, source))) for hook, place in sites]
    answers = interchange_answers(
        model, base.tokens, source.tokens, exchanges, positions=positions, batch_size=_BATCH
    ).numpy()
    right = (answers == expected).all(axis=-1)  # [sites + 1, pairs]
    for (hook, place), swapped in zip(sites, right[:-1], strict=True):
        key = {
            "method": Method.FULL_VECTOR, "metric": Metric.IIA, "site": hook, "position": place, "variable": variable,
            "pair_design": "independent",
        }  # fmt: skip
        groups = ((None, "changes", changes, swapped), (Control.UNPATCHED, "changes", changes, right[-1]))
        for control, stratum, members, found in (*groups, (Control.SAME_VALUE, "same", own == theirs, swapped)):
            if members.any():
                yield {**key, "control": control, "stratum": stratum, **share(found[members])}
