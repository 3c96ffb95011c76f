"""How evolved programs differ from uniform ones, in numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cython_vm.behaviour import behaviour_of, draw_inputs, draw_programs
from cython_vm.evolution import ProgramArchive
from cython_vm.fate import check_steps

Records = NDArray[np.void]

METRICS: dict[str, tuple[str, Callable[[Records], NDArray], Callable[[Records], NDArray] | None]] = {
    "halts": ("share of runs that halt", lambda b: b["halts"], None),
    "loops_for_ever": ("share of runs that provably never end", lambda b: b["loops_for_ever"], None),
    "freezes": ("share of the other runs, which freeze", lambda b: 1 - b["halts"] - b["loops_for_ever"], None),
    "steps": ("steps to the halt, mean over runs that halt", lambda b: b["steps"] * b["halts"], lambda b: b["halts"]),
    "loop_iterations": (
        "jumps back, mean over runs that halt",
        lambda b: b["loop_iterations"] * b["halts"],
        lambda b: b["halts"],
    ),
    "executed": ("share of a program's instructions that some run executes", lambda b: b["executed"], None),
    "reads": ("share of programs that read, and halt then", lambda b: b["reads"] > 0, None),
    "prints": ("share of programs that print, and halt then", lambda b: b["prints"] > 0, None),
    "loops": ("share of programs that jump back, and halt then", lambda b: b["loop_iterations"] > 0, None),
    "varying_loops": (
        "share whose number of jumps back depends on the input",
        lambda b: b["distinct_iterations"] > 1,
        None,
    ),
    "varying_output": ("share whose output depends on the input", lambda b: b["distinct_outputs"] > 1, None),
    "distinct_outputs": ("different outputs on the panel, mean over programs", lambda b: b["distinct_outputs"], None),
    "functions": (
        "different input-output functions a program",
        lambda b: 1 / _multiplicity(b["function"]),
        None,
    ),
}
"""Name → (meaning, numerator of each program, denominator of each program; None = 1)."""

COMPARISON = np.dtype(
    [
        ("programs", "U8"),  # "evolved" or "uniform"
        ("metric", "U16"),  # a name of METRICS
        ("estimate", "f8"),
        ("ci_low", "f8"),  # 95 %, bootstrap over programs
        ("ci_high", "f8"),
        ("n", "i8"),  # programs
    ]
)


def compare_with_uniform(
    archive: ProgramArchive,
    *,
    n_programs: int = 2000,
    n_inputs: int = 16,
    seed: int = 0,
    split: str = "all",
    max_steps: int = 1000,
) -> NDArray[np.void]:
    """Rows of `COMPARISON`: every metric for members of the archive and for programs drawn uniformly.

    Both run on the same full inputs, none of which the search judged programs by. n_programs members are drawn without
    replacement (all of them, if there are no more), as many uniform programs as that. "freezes" counts what neither
    halted nor was shown to loop within max_steps. Raises ValueError if the archive has no member in `split`.
    """
    for name, value in (("n_programs", n_programs), ("n_inputs", n_inputs), ("max_steps", max_steps)):
        if check_steps(name, value) < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    members = archive.members(split)
    if len(members) == 0:
        raise ValueError(f"the archive holds no program of the {split!r} split; evolve more generations")
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(members)[:n_programs]
    # The panel of the search is rows 0 … n_inputs − 1 of its stream; these lie far behind them.
    inputs = draw_inputs(archive.spec, n_inputs, seed=archive.config.seed, start=2**40 + seed * n_inputs)
    populations = {
        "evolved": archive.programs[chosen],
        "uniform": draw_programs(archive.spec, len(chosen), seed=seed, split=split),
    }
    rows = []
    for population, programs in populations.items():
        behaviour = behaviour_of(archive.spec, programs, inputs, max_steps=max_steps)
        rows += [(population, *row, len(programs)) for row in _estimates(behaviour, rng)]
    return np.array(rows, dtype=COMPARISON)


def _multiplicity(values: NDArray) -> NDArray[np.int64]:
    """How often each value occurs, [n]."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return counts[which]


def _estimates(
    behaviour: Records, rng: np.random.Generator, n_resamples: int = 1000
) -> list[tuple[str, float, float, float]]:
    """(metric, estimate, ends of the 95 % percentile interval from resampled programs).

    How many of the programs share a function is counted once, before resampling: a resample repeats programs.
    """
    n = len(behaviour)
    above = np.stack([np.broadcast_to(top(behaviour), n) for _, top, _ in METRICS.values()], axis=1).astype(float)
    below = np.stack([np.ones(n) if base is None else base(behaviour) for _, _, base in METRICS.values()], axis=1)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=n_resamples).astype(float)
    with np.errstate(invalid="ignore"):  # 0 / 0, where no run halts, is NaN: there is no such mean
        estimates = above.sum(axis=0) / below.sum(axis=0)
        low, high = np.nanquantile((weights @ above) / (weights @ below), (0.025, 0.975), axis=0)
    return list(zip(METRICS, estimates.tolist(), low.tolist(), high.tolist(), strict=True))
