from typing import Any

import numpy as np
from numpy.typing import NDArray

from cython_vm.spec import MachineSpec

def encode_rows(spec: MachineSpec, rows: NDArray[np.uint8], op_ids: NDArray[Any], tokens: NDArray[Any]) -> None: ...
def decode_rows(
    spec: MachineSpec, tokens: NDArray[np.int32], op_of: NDArray[np.uint8], rows: NDArray[np.uint8]
) -> tuple[int, int, int]: ...
