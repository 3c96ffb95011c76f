from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

class Kind(IntEnum):
    FREE = 0
    DATA = 1
    HALT = 2
    ADC = 3
    SBB = 4
    ADD = 5
    DIV = 6
    MOD = 7
    CMP = 8
    COPY = 9
    ORDER = 10
    POINT = 11
    STEP = 12
    NEXT = 13
    LEFT = 14
    RIGHT = 15
    JUMP = 16
    NEW = 17
    DROP = 18

class Fate(IntEnum):
    RAN = 0
    HALTED = 1
    NOT_AN_OPERATOR = 2
    VALUE_OVERFLOW = 3
    POINTER_OVERFLOW = 4
    OUT_OF_MEMORY = 5
    BAD_FREE = 6

def step_rows(
    s: int,
    n_values: int,
    base: int,
    rows: NDArray[np.int32],
    do: NDArray[np.int32],
    seen: NDArray[np.int32],
) -> None: ...
def run_rows(
    s: int,
    n_values: int,
    base: int,
    rows: NDArray[np.int32],
    limit: NDArray[np.int64],
    n_steps: NDArray[np.int64],
    outcome: NDArray[np.uint8],
) -> None: ...
def record_rows(s: int, n_values: int, base: int, rows: NDArray[np.int32], out: NDArray[np.int32]) -> None: ...
