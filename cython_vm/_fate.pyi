import numpy as np
from numpy.typing import NDArray

from cython_vm.spec import MachineSpec

def fate_rows(
    spec: MachineSpec,
    rows: NDArray[np.uint8],
    limit: int,
    n_steps: NDArray[np.int64],
    outcome: NDArray[np.uint8],
    cycle_start: NDArray[np.int64],
    period: NDArray[np.int64],
    jumps: NDArray[np.int64],
    visited: NDArray[np.uint8],
) -> None: ...
def advance_rows(spec: MachineSpec, rows: NDArray[np.uint8], n_steps: NDArray[np.int64]) -> None: ...
def hash_streams(spec: MachineSpec, rows: NDArray[np.uint8], n_steps: int, hashes: NDArray[np.uint64]) -> None: ...
def hash_reachable(spec: MachineSpec, rows: NDArray[np.uint8], n_steps: int, hashes: NDArray[np.uint64]) -> None: ...
