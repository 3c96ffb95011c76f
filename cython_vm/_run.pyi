import numpy as np
from numpy.typing import NDArray

from cython_vm.spec import MachineSpec

def run_rows(
    spec: MachineSpec,
    rows: NDArray[np.uint8],
    limit: int,
    n_steps: NDArray[np.int64],
    outcome: NDArray[np.uint8],
) -> None: ...
def record_rows(
    spec: MachineSpec,
    rows: NDArray[np.uint8],
    n_steps: NDArray[np.int64],
    offsets: NDArray[np.int64],
    states: NDArray[np.uint8],
) -> None: ...
def count_iterations(
    spec: MachineSpec, states: NDArray[np.uint8], offsets: NDArray[np.int64], iteration: NDArray[np.int64]
) -> None: ...
