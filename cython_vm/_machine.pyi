import numpy as np
from numpy.typing import NDArray

from cython_vm.spec import MachineSpec

STEP_NAMES: tuple[str, ...]
NO_OUTCOME: int

def step_rows(
    spec: MachineSpec,
    rows: NDArray[np.uint8],
    next_rows: NDArray[np.uint8],
    outcome: NDArray[np.uint8],
    latents: NDArray[np.int16],
) -> None: ...
def step_rows_do(
    spec: MachineSpec,
    rows: NDArray[np.uint8],
    next_rows: NDArray[np.uint8],
    outcome: NDArray[np.uint8],
    latents: NDArray[np.int16],
    valid: NDArray[np.uint8],
    columns: NDArray[np.intp],
    roots: NDArray[np.int16],
    forbidden: NDArray[np.uint8],
    names: tuple[int, ...],
    values: NDArray[np.int16],
) -> None: ...
def hash_rows(spec: MachineSpec, rows: NDArray[np.uint8], hashes: NDArray[np.uint64]) -> None: ...
