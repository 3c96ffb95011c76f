"""Programs that run for long, at their start: a uniform program stops after about two steps."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cython_vm._long_runs import long_run_rows
from cython_vm.arguments import check_choice, check_kind, whole_number
from cython_vm.sampling import row_numbers
from cython_vm.spec import MachineSpec
from cython_vm.splits import SPLITS
from cython_vm.states import States

_ATTEMPTS = 1_000_000  # programs drawn for a row before it is given up


def sample_long_runs(
    spec: MachineSpec,
    n: int,
    *,
    n_steps: int | tuple[int, int],
    required: int = 0,
    seed: int,
    start: int = 0,
    split: str = "all",
    rows: ArrayLike | None = None,
) -> States:
    """Rows start … start + n − 1 of a stream of states at the start of runs of n_steps or more, where slots allow it.

    n_steps: a number, or the (smallest, largest) of which every row draws its own, uniformly.
    required: programs whose run is shorter than these steps are drawn again.
    split: by `program_hash % 20`, as in `sample`.
    rows: integers [n], the numbers of the rows to draw in place of start … start + n − 1, in any order.

    Distribution: the input is full in seven rows of eight, its values uniform or the smaller of two uniform ones. The
    program is written piece by piece while it runs. A piece is one instruction (with probability 1/4 the one before
    once more), or a whole loop: a drain, a transfer to one or two cells, a walk, an echo, a loop in a loop, or random
    instructions. How often each piece is drawn is drawn anew for every program. A piece that freezes, or runs for more
    than 4 × n_steps, is taken back. One piece in 1,024 is the last, and then, half the time, may freeze. What is left
    of the program is STOP (INC, where only the last slot may hold STOP).

    Row i depends only on (spec, n_steps, required, seed, start + i, split).
    Raises ValueError on bad arguments, a padded machine, and a split without programs.
    """
    check_kind("spec", spec, MachineSpec)
    check_choice("split", split, SPLITS)
    n, start = whole_number("n", n, high=2**63 - 1), whole_number("start", start, high=2**63 - 1)
    seed = whole_number("seed", seed, high=2**64 - 1)
    fewest, most = n_steps if isinstance(n_steps, tuple) else (n_steps, n_steps)
    most = whole_number("n_steps", most, high=2**20)
    fewest = whole_number("the smallest n_steps", fewest, high=most)
    if spec.padded:
        raise ValueError("long runs are drawn for machines of one size; got a padded machine")
    required = whole_number("required", required, high=2**20)
    numbered = row_numbers(rows, n, start)
    packed = np.empty((n, spec.row_bytes), dtype=np.uint8)
    failed = long_run_rows(spec, seed, start, SPLITS.index(split), _ATTEMPTS, fewest, most, required, packed, numbered)
    if failed >= 0:
        long = f" that runs for {required} steps" if required else ""
        raise ValueError(f"found no program{long} in the {split!r} split of this small machine; use a larger one")
    return States.wrap(spec, packed)
