from enum import IntEnum

class Op(IntEnum):
    """The nine operations, in the order of the vocabulary."""

    NEXT = 0
    PREV = 1
    INC = 2
    DEC = 3
    PUT = 4
    GET = 5
    WHILE = 6
    ENDW = 7
    STOP = 8

class Outcome(IntEnum):
    """What a step did: RAN, or why the state stays as it is."""

    RAN = 0
    HALTED = 1
    ARRAY_OVERFLOW = 2
    ARRAY_UNDERFLOW = 3
    VALUE_OVERFLOW = 4
    VALUE_UNDERFLOW = 5
    OUTPUT_FULL = 6
    INPUT_EMPTY = 7

def row_stride(n_instructions: int, n_cells: int, n_input: int, n_output: int, padded: bool) -> int: ...
