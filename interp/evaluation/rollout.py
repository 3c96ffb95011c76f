"""Rollout: a model runs whole programs on its own predictions, until it first departs from the machine.

1. Programs of the evaluation split start with pointers 0, cells 0 and an empty output, and a random input.
2. The model's answer to a state is its next state to answer; the machine steps beside it.
3. A program ends where the machine stands still or meets a state again: a deterministic model that was right there
   is right for ever, so such a program counts as followed to the limit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cython_vm import (
    MachineSpec,
    Op,
    Outcome,
    ProgramArchive,
    States,
    encode,
    program_hash,
    run_fate,
    sample,
    sample_evolved,
    start_states,
    step,
)
from interp.results import Aggregation, IntervalKind, Method, Metric, wilson_interval
from interp.tasks import Task
from interp.training.tally import Tally

_SHOWN_STEPS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 100)


@dataclass(frozen=True, eq=False)
class Rollout:
    """How far a model followed n programs. Arrays are [n]."""

    programs: str  # where they come from, in words of one row's stratum: long or evolved
    max_steps: int
    n_steps: NDArray[np.int64]  # different steps that the program has within the limit
    departed: NDArray[np.int64]  # the number of the first wrong step, from 1; 0: none
    op: NDArray[np.int64]  # number of the op at the first wrong step; -1: none
    outcome: NDArray[np.int64]  # number of the machine's outcome there; -1: none

    def __len__(self) -> int:
        return len(self.departed)

    def survival(self, steps: int) -> float:
        """Share of the programs that are followed without an error for so many steps."""
        return float(((self.departed == 0) | (self.departed > steps)).mean())

    def rows(self) -> list[dict[str, Any]]:
        """Survival after 1, 2, 3, 5 … steps (`stratum` "long: 20 steps"), and first errors by op and outcome."""
        n = len(self)
        common = {
            "method": Method.GREEDY,
            "aggregation": Aggregation.MEAN,
            "interval_kind": IntervalKind.WILSON,
            "n": n,
        }
        rows: list[dict[str, Any]] = []
        for steps in [k for k in _SHOWN_STEPS if k < self.max_steps] + [self.max_steps]:
            low, high = wilson_interval(round(self.survival(steps) * n), n)
            own = {"metric": Metric.SURVIVAL, "stratum": f"{self.programs}: {steps} steps"}
            rows.append({**common, **own, "estimate": self.survival(steps), "ci_low": low, "ci_high": high})
        causes = Tally()
        for op, outcome in sorted({*zip(self.op.tolist(), self.outcome.tolist(), strict=True)} - {(-1, -1)}):
            share = float(((self.op == op) & (self.outcome == outcome)).mean())
            stratum = f"{self.programs}: {Outcome(outcome).name}"
            causes.add([{"metric": Metric.DEPARTURE, "op": Op(op).name, "stratum": stratum, "estimate": share, "n": n}])
        return rows + [{**common, **row} for row in causes.rows()]


def long_programs(spec: MachineSpec, n: int, *, seed: int, max_steps: int = 100, pool: int = 2**18) -> States:
    """The starts of the `n` programs that run longest of `pool` drawn uniformly from the evaluation split.

    A uniform program runs two steps; among so many there are long ones. Length is the number of different states
    within `max_steps`; the programs are all different. There are fewer than n where the machine has fewer that move.

    Raises:
        ValueError: n is below 1, or no held-out program of the machine makes a step.
    """
    if n < 1:
        raise ValueError(f"a rollout needs at least 1 program, got {n}")
    starts = start_states(sample(spec, pool, seed=seed, split="evaluation"))
    lengths = run_fate(starts, max_steps).n_states
    order = np.argsort(-lengths, kind="stable")
    _, firsts = np.unique(program_hash(starts)[order], return_index=True)
    chosen = order[np.sort(firsts)][:n]
    chosen = chosen[lengths[chosen] > 1]
    if not len(chosen):
        raise ValueError("no held-out program of this machine makes a step")
    return starts[chosen]


def evolved_programs(archive: ProgramArchive, spec: MachineSpec, n: int, *, seed: int) -> States:
    """The starts of `n` evolved programs of the evaluation split, each with a random input.

    Raises:
        ValueError: the archive belongs to another machine, or holds no program of the split.
    """
    if archive.spec != spec:
        raise ValueError(f"the archive's programs are for {archive.spec}, but the model was trained on {spec}")
    return sample_evolved(archive, n, seed=seed, split="evaluation", at="start")


def rollout(
    model: Callable[[Tensor], Tensor],
    task: Task,
    starts: States,
    *,
    programs: str,
    max_steps: int = 100,
    batch_size: int = 512,
    progress: Callable[[int, int], None] | None = None,
) -> Rollout:
    """Let the model run each program on its own predictions for up to `max_steps` steps.

    Args:
        model, task: a task whose answer is the next state.
        starts: where the programs begin, one a row.
        programs: what they are, in a word that names the rows of the result.
        max_steps: the limit.
        batch_size: programs a forward pass.
        progress: called with (steps done, max_steps).

    Raises:
        ValueError: max_steps is below 1, or there are no programs.
    """
    if max_steps < 1 or not len(starts):
        raise ValueError(f"expected programs and max_steps from 1, got {len(starts)} programs and {max_steps}")
    needed = np.minimum(run_fate(starts, max_steps).n_states, max_steps)
    departed, op, outcome = np.zeros(len(starts), np.int64), *np.full((2, len(starts)), -1)
    alive, states, tokens = np.arange(len(starts)), starts, encode(starts).astype(np.int64)
    unknown = task.spec.layout.slice("outcome") if task.spec.outcome_token else slice(0)
    for k in range(1, max_steps + 1):
        going = needed[alive] >= k
        alive, states, tokens = alive[going], states[going], tokens[going]
        if not len(alive):
            break
        with torch.inference_mode():
            parts = [task.predict(model, part) for part in torch.from_numpy(tokens).split(batch_size)]
        answer = torch.cat(parts)
        transition = step(states)
        right = task.exact(answer, transition.next)
        lost = alive[~right]
        departed[lost], op[lost], outcome[lost] = k, transition.latents["op"][~right], transition.outcome[~right]
        heading = tokens[:, unknown]  # an outcome token is what the model says, not what it is asked
        alive, states, tokens = alive[right], transition.next[right], answer.cpu().numpy()[right]
        tokens[:, unknown] = heading[right]
        if progress is not None:
            progress(k, max_steps)
    if progress is not None:
        progress(max_steps, max_steps)
    return Rollout(programs, max_steps, needed, departed, op, outcome)
