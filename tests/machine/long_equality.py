"""Long run outside the suite: the kernels against `cython_vm.reference` on millions of random transitions.

    python tests/machine/long_equality.py --transitions 10000000 --seed 0

Each round draws a machine (sizes to 256, every switch) and a batch of its states, half of them with every op × outcome
as likely as any other, and compares every row: the next state, every variable, the outcome and `valid`, as they are and
under `do` of one to four variables; then whole runs, state by state; then records made in one pass against rows drawn
one by one, stepped, encoded and hashed. The first difference ends the run with everything
that is needed to repeat it. Round k depends on (seed, k) alone.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table

from cython_vm import (
    VARIABLES,
    MachineSpec,
    Op,
    Outcome,
    States,
    encode,
    labelled_records,
    program_hash,
    reference,
    run,
    sample,
    sample_records,
    step,
    strata_weights,
)

BATCH = 512
EDGES = {"n_instructions": 256, "n_cells": 256, "n_input": 255, "n_output": 255}
SETTABLE = [name for name, variable in VARIABLES.items() if variable.settable]
FAMILIES: dict[str, Callable[[MachineSpec], int]] = {
    "instruction[i]": lambda spec: spec.n_instructions,
    "cell[i]": lambda spec: spec.n_cells,
    "input[i]": lambda spec: spec.n_input,
    "output[i]": lambda spec: spec.n_output,
    "next_cell[i]": lambda spec: spec.n_cells,
}


def main(transitions: int = 10_000_000, seed: int = 0, first_round: int = 0, padded: bool = False) -> None:
    """Compare at least this many single steps, half of them under `do`, and as many runs as come with them.

    Args:
        transitions: how many steps.
        seed: of every round.
        first_round: where to go on.
        padded: rows of different sizes in every batch.
    """
    counts: Counter[str] = Counter()
    strata: Counter[tuple[str, str]] = Counter()
    machines: set[MachineSpec] = set()
    started = time.perf_counter()
    with Progress(*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn()) as progress:
        task = progress.add_task("transitions", total=transitions)
        k = first_round
        while counts["step"] + counts["step, do"] < transitions:
            machines.add(one_round(seed, k, padded, counts, strata))
            progress.update(task, completed=counts["step"] + counts["step, do"])
            k += 1
    seconds = time.perf_counter() - started
    table = Table("op", "outcome", "steps without do", title="no difference")
    for (op, outcome), n in sorted(strata.items(), key=lambda item: (Op[item[0][0]], item[0][1])):
        table.add_row(op, outcome, f"{n:,}")
    console = Console()
    console.print(table)
    console.print(", ".join(f"{n:,} {what}" for what, n in counts.items()))
    console.print(f"{len(machines):,} machines, rounds {first_round} to {k - 1} of seed {seed}, {seconds:,.0f} s")


def one_round(seed: int, k: int, padded: bool, counts: Counter[str], strata: Counter[tuple[str, str]]) -> MachineSpec:
    """One machine: a batch of plain steps, the same batch under `do`, and a few runs."""
    rng = np.random.default_rng([seed, k])
    spec = dataclasses.replace(draw_spec(rng), padded=padded)
    states = draw_states(spec, rng)
    for (op, outcome), n in compare_steps(states, {}).items():
        strata[Op(op).name, Outcome(outcome).name] += n
    counts["step"] += len(states)
    do = draw_do(states, rng)
    invalid = compare_steps(states, do)[-1, -1]
    counts["step, do"] += len(states)
    counts["of these without a value"] += invalid
    counts["run"] += compare_runs(states[:32], int(rng.integers(0, 60)))
    split = "train" if spec.n_instructions > 6 and rng.random() < 0.5 else "all"
    counts["record"] += compare_records(spec, int(rng.integers(0, 2**63)), split)
    return spec


def draw_spec(rng: np.random.Generator) -> MachineSpec:
    """Small machines mostly, up to the largest; each size is drawn by itself, so that extremes meet.

    Three in ten are padded: every row has sizes of its own.
    """
    sizes = {}
    for name, largest in EDGES.items():
        lowest = 1 if name in ("n_instructions", "n_cells") else 0
        high = rng.choice([6, 20, largest], p=[0.7, 0.25, 0.05])
        sizes[name] = int(high) if rng.random() < 0.1 else int(rng.integers(lowest, high + 1))
    io, loops, stops = (bool(rng.random() < 0.75) for _ in range(3))
    padded = bool(rng.random() < 0.3)
    return MachineSpec(**sizes, bits=int(rng.integers(1, 9)), io=io, loops=loops, stops=stops, padded=padded)


def draw_states(spec: MachineSpec, rng: np.random.Generator) -> States:
    """Half natural, half with every op × outcome × branch that can occur as likely as any other."""
    seeds = rng.integers(0, 2**63, 2).tolist()
    few = not spec.padded or spec.n_instructions <= 20  # padded rows are redrawn whole until they fit a stratum
    weights = strata_weights(spec, branches=True) if few else None
    stratified = sample(spec, BATCH // 2, seed=seeds[1], weights=weights)
    return States.concatenate([sample(spec, BATCH // 2, seed=seeds[0]), stratified])


def draw_do(states: States, rng: np.random.Generator) -> dict[str, NDArray[np.int64]]:
    """One to four variables with values of their ranges, one in twenty of them undefined."""
    spec, do = states.spec, {}
    for name in rng.choice(SETTABLE, size=rng.integers(1, 5), replace=False).tolist():
        size = FAMILIES[name](spec) if name in FAMILIES else 1
        if size:
            values = rng.integers(0, VARIABLES[name].n_values(spec), len(states))
            concrete = name.replace("[i]", f"[{rng.integers(size)}]")
            do[concrete] = np.where(rng.random(len(states)) < 0.05, -1, values)
    return do


def compare_steps(states: States, do: Mapping[str, NDArray[np.int64]]) -> Counter[tuple[int, int]]:
    """Compare one step of every row; returns how many rows had each (op, outcome), (−1, −1) where no value exists."""
    spec, transition = states.spec, step(states, do)
    names = list(transition.latents)
    latents = np.stack([transition.latents[name] for name in names], axis=1).tolist()
    rows = zip(
        plain_states(states),
        plain_states(transition.next),
        transition.valid.tolist(),
        transition.outcome.tolist(),
        latents,
        np.stack(list(do.values()), axis=1).tolist() if do else [()] * len(states),
        strict=True,
    )
    seen: Counter[tuple[int, int]] = Counter()
    for state, after, valid, outcome, values, set_to in rows:
        row_do = dict(zip(do, set_to, strict=True))
        try:
            wanted, variables = reference.step(spec, state, row_do)
            expected = (wanted, True, variables["outcome"], [undefined(variables[name]) for name in names])
        except reference.NoValue:
            expected = (state, False, 255, [-1] * len(names))
        got = (after, valid, outcome, values)
        if got != expected:
            raise AssertionError(f"{spec}\n{state}\ndo {row_do}\nkernel    {got}\nreference {expected}\nof {names}")
        seen[(values[names.index("op")], outcome) if valid else (-1, -1)] += 1
    if not padding_is_zero(transition.next):
        raise AssertionError(f"{spec}: a state whose empty buffer slots are not 0")
    return seen


def compare_runs(states: States, n_steps: int) -> int:
    """Compare runs, every state on the way; returns how many states were compared."""
    trace = run(states, n_steps)
    last = run(states, n_steps, keep="last")
    compared = 0
    for row, state in enumerate(plain_states(states)):
        wanted = reference.run(states.spec, state, n_steps)
        got = plain_states(trace.row(row))
        if got != wanted or plain_states(last.final[row]) != wanted[-1:] or last.n_steps[row] != len(wanted) - 1:
            raise AssertionError(f"{states.spec}\n{state}\nrun of {n_steps}\nkernel    {got}\nreference {wanted}")
        compared += len(wanted)
    return compared


def compare_records(spec: MachineSpec, seed: int, split: str) -> int:
    """Compare records of a stream with what its rows give one after the other; returns how many were compared."""
    records = sample_records(spec, BATCH, seed=seed, split=split)
    states = sample(spec, BATCH, seed=seed, split=split)
    few = range(0, BATCH, 37)  # a row by itself is drawn another way than many at once
    alone = States.concatenate([sample(spec, 1, seed=seed, start=row, split=split) for row in few])
    after = step(states)
    wanted = {"program_hash": program_hash(states), **after.latents, "state": encode(states)}
    wanted["next_state"] = encode(after.next)
    for name, values in wanted.items():
        if not np.array_equal(records[name], values):
            raise AssertionError(f"{spec}, seed {seed}, split {split}: records differ in {name}")
    if alone != states[np.array(few)] or labelled_records(states).tobytes() != records.tobytes():
        raise AssertionError(f"{spec}, seed {seed}, split {split}: rows drawn together and alone differ")
    return len(records)


def plain_states(states: States) -> list[reference.State]:
    """A batch as the reference's states, through the public arrays."""
    ops, sizes = tuple(Op), {name: size.tolist() for name, size in states.sizes.items()}
    return [
        reference.State(
            ip,
            tuple(ops[op] for op in program[:n_instructions]),
            ap,
            tuple(cells[:n_cells]),
            tuple(given[:n]),
            tuple(written[:m]),
            n_input,
            n_output,
        )
        for ip, program, ap, cells, given, n, written, m, n_instructions, n_cells, n_input, n_output in zip(
            states.instruction_ptr.tolist(),
            states.program.tolist(),
            states.array_ptr.tolist(),
            states.cells.tolist(),
            states.input.tolist(),
            states.input_length.tolist(),
            states.output.tolist(),
            states.output_length.tolist(),
            sizes["n_instructions"],
            sizes["n_cells"],
            sizes["n_input"],
            sizes["n_output"],
            strict=True,
        )
    ]


def padding_is_zero(states: States) -> bool:
    spec = states.spec
    beyond_input = np.arange(spec.n_input) >= states.input_length[:, None]
    beyond_output = np.arange(spec.n_output) >= states.output_length[:, None]
    return not (states.input[beyond_input].any() or states.output[beyond_output].any())


def undefined(value: int | None) -> int:
    return -1 if value is None else value


if __name__ == "__main__":
    tyro.cli(main)
