import numpy as np
from numpy.typing import NDArray

from cython_vm.spec import MachineSpec

class Stream:
    spec: MachineSpec
    strata: NDArray[np.int8]
    split: int
    by: int
    def __init__(
        self,
        spec: MachineSpec,
        seed: int,
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
    ) -> None: ...
    def rows(
        self, start: int, rows: NDArray[np.uint8], numbers: NDArray[np.uint64] | None = None
    ) -> tuple[int, int]: ...
