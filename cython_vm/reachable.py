"""Reachable states: those that a program meets while it runs, beside the states drawn at random by `sample`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cython_vm._fate import advance_rows
from cython_vm.arguments import check_kind, integers
from cython_vm.fate import Fate, Fates, check_steps, run_fate
from cython_vm.packing import block_columns
from cython_vm.sampling import sample
from cython_vm.spec import MachineSpec
from cython_vm.states import States

Exclusion = Literal["stuck", "frozen", "halted", "undecided"]
_CHUNK = 8192  # rows at a time
_ATTEMPTS = 2000  # programs drawn for a row before it is given up
_GAP = 200  # rows drawn in vain rather than begin another call


def start_states(states: States) -> States:
    """The same programs and inputs at the start of a run: both pointers 0, cells 0, output empty."""
    check_kind("states", states, States)
    rows, columns = states.rows.copy(), block_columns(states.spec)
    rows[:, [0, 1, 3]] = 0  # instruction_ptr, array_ptr, output_length
    rows[:, columns["cells"]] = 0
    rows[:, columns["output"]] = 0
    return States.wrap(states.spec, rows)


def advance(states: States, n_steps: NDArray[np.integer]) -> States:
    """Row i after n_steps[i] steps, or in its last state if it stops before. n_steps: integers [n], none negative."""
    check_kind("states", states, States)
    counts = integers("n_steps", n_steps)
    if counts.shape != (len(states),) or counts.dtype.kind not in "iu":
        raise ValueError(f"n_steps must be {len(states)} integers, one a row, got {counts.dtype} {list(counts.shape)}")
    for row in np.flatnonzero((counts < 0) | (counts > np.iinfo(np.int64).max))[:1]:
        raise ValueError(f"n_steps must be from 0 to 2^63 − 1, got {counts[row]} at row {row}")
    rows = states.rows.copy()
    advance_rows(states.spec, rows, np.ascontiguousarray(counts, dtype=np.int64))
    return States.wrap(states.spec, rows)


def sample_reachable(
    spec: MachineSpec,
    n: int,
    *,
    seed: int,
    start: int = 0,
    split: str = "all",
    max_steps: int = 1000,
    exclude: Collection[Exclusion] = (),
    steps_left: int = 0,
    sizes: Mapping[str, tuple[int, int]] | None = None,
) -> States:
    """Rows start … start + n − 1 of a stream of states met while running a random program from its start.

    Distribution: a program and an input are drawn as `sample` draws them and started (pointers 0, cells 0, output
    empty). Of the *different* states that the run meets, its first up to where it halts, freezes or first meets a state
    again, or up to max_steps, one is drawn uniformly. So every program counts the same, however long it runs.

    exclude: kinds of states that are left out before the draw; where none remains, program and input are drawn again.
        "stuck": states of runs that never end (two equal states within max_steps, found exactly: see `run_fate`);
        "frozen": the last state of a run that freezes;  "halted": the last state of a run that halts;
        "undecided": states of runs of which max_steps does not show how they end.

    steps_left: leave out the states of a run from which it makes fewer steps than these before it stops, or meets a
    state again, or max_steps are over.

    sizes: for a padded machine, as in `sample`.

    Row i depends only on (spec, seed, start + i, and the options). Raises ValueError on bad arguments, and
    where such states are not found in 2,000 programs for one row.
    """
    sample(spec, 0, seed=seed, start=start, split=split, sizes=sizes)  # complains about these arguments

    def begin(stream: int, first: int, count: int) -> States:
        return start_states(sample(spec, count, seed=stream, start=first, split=split, sizes=sizes))

    return draw_reachable(begin, n, seed=seed, start=start, max_steps=max_steps, exclude=exclude, steps_left=steps_left)


def draw_reachable(
    begin: Callable[[int, int, int], States],
    n: int,
    *,
    seed: int,
    start: int = 0,
    max_steps: int = 1000,
    exclude: Collection[Exclusion] = (),
    steps_left: int = 0,
) -> States:
    """As `sample_reachable`, for runs that begin in other states: begin(stream, first, count) gives the states in which
    rows first … first + count − 1 begin, each from (stream, its row number) alone. Every attempt is another stream."""
    known = get_args(Exclusion)
    try:
        unknown = isinstance(exclude, str) or any(not isinstance(kind, str) or kind not in known for kind in exclude)
    except TypeError:
        unknown = True
    if unknown:
        raise ValueError(f"exclude is a collection of {', '.join(known)}; got {exclude!r}")
    limit, n, left = check_steps("max_steps", max_steps), check_steps("n", n), check_steps("steps_left", steps_left)
    chunks = [
        _draw_chunk(begin, start + first, min(_CHUNK, n - first), seed, limit, frozenset(exclude), left)
        for first in range(0, n, _CHUNK)
    ]
    return States.concatenate(chunks) if chunks else begin(seed, start, 0)


def _draw_chunk(
    begin: Callable[[int, int, int], States],
    start: int,
    n: int,
    seed: int,
    limit: int,
    exclude: frozenset[Exclusion],
    steps_left: int,
) -> States:
    found: list[States] = []
    places: list[NDArray[np.int64]] = []
    pending = np.arange(n)
    for attempt in range(_ATTEMPTS):
        stream = int(_mix(np.uint64(seed) ^ _mix(np.uint64(attempt + 1))))
        groups, pending = np.split(pending, np.flatnonzero(np.diff(pending) > _GAP) + 1), pending[:0]
        for group in groups:
            first = int(group[0])
            begun = begin(stream, start + first, int(group[-1]) - first + 1)[group - first]
            allowed = _allowed(run_fate(begun, limit), exclude, steps_left)
            kept = allowed > 0
            steps = draw_steps(allowed, stream, start + group)
            found.append(advance(begun[kept], steps[kept]))
            places.append(group[kept])
            pending = np.concatenate([pending, group[~kept]])
        if len(pending) == 0:
            return States.concatenate(found)[np.argsort(np.concatenate(places))]
    excluded = ", ".join([*sorted(exclude), *([f"fewer than {steps_left} steps left"] if steps_left else [])])
    raise ValueError(
        f"found no reachable state but those excluded ({excluded}) in {_ATTEMPTS:,} programs "
        "for one row; exclude less, or use a larger machine"
    )


def _allowed(fates: Fates, exclude: frozenset[Exclusion], steps_left: int) -> NDArray[np.int64]:
    """How many states of each run may be drawn: its first so many, int64 [n]."""
    allowed = fates.n_states
    for name, fate in (("frozen", Fate.FROZE), ("halted", Fate.HALTED)):
        if name in exclude:
            allowed = allowed - (fates.fate == fate)
    for name, fate in (("stuck", Fate.LOOPS), ("undecided", Fate.UNDECIDED)):
        if name in exclude:
            allowed = np.where(fates.fate == fate, 0, allowed)
    return np.minimum(allowed, fates.n_states - steps_left)


def draw_steps(n_choices: NDArray[np.int64], seed: int, row: NDArray[np.integer]) -> NDArray[np.int64]:
    """For every row a number from 0 to n_choices − 1, uniform, from (seed, row) alone; 0 where there is no choice."""
    words = _mix(_mix(np.uint64(seed)) ^ _mix(row.astype(np.uint64)))
    shares = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return np.minimum((shares * n_choices).astype(np.int64), np.maximum(n_choices - 1, 0))


def _mix(words: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint64]:
    """One step of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) from every word, so that near words give far ones."""
    with np.errstate(over="ignore"):
        z = np.asarray(words, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
