import numpy as np
from numpy.typing import NDArray

from cython_vm.spec import MachineSpec

def sample_rows(
    spec: MachineSpec,
    seed: int,
    start: int,
    split: int,
    attempts: int,
    thresholds: NDArray[np.uint64],
    per_op: NDArray[np.float64],
    choices: NDArray[np.uint8],
    by: int,
    strata_thresholds: NDArray[np.uint64],
    strata: NDArray[np.int8],
    depths: tuple[NDArray[np.uint64], NDArray[np.float64], NDArray[np.uint64]] | tuple[()],
    sizes: NDArray[np.intc],
    rows: NDArray[np.uint8],
) -> tuple[int, int]: ...
