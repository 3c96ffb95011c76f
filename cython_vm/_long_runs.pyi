import numpy as np
from numpy.typing import NDArray

from cython_vm.spec import MachineSpec

def long_run_rows(
    spec: MachineSpec,
    seed: int,
    start: int,
    split: int,
    attempts: int,
    fewest: int,
    most: int,
    required: int,
    rows: NDArray[np.uint8],
    numbers: NDArray[np.uint64] | None = None,
) -> int: ...
