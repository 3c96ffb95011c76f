import numpy as np
from numpy.typing import NDArray

from cython_vm._sampler import Stream
from cython_vm.spec import MachineSpec

class RecordFormat:
    def __init__(self, spec: MachineSpec, op_ids: NDArray[np.uint8]) -> None: ...
    def draw(self, stream: Stream, start: int, records: NDArray[np.uint8]) -> tuple[int, int]: ...
    def label(self, rows: NDArray[np.uint8], records: NDArray[np.uint8]) -> None: ...
