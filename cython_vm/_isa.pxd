# cython: language_level=3
"""Operation codes, outcome codes and the packed row of a machine state, for the kernels."""

from libc.stdint cimport uint8_t


cdef enum OpCode:
    NEXT = 0
    PREV = 1
    INC = 2
    DEC = 3
    PUT = 4
    GET = 5
    WHILE = 6
    ENDW = 7
    STOP = 8
    N_OPS = 9


cdef enum OutcomeCode:
    RAN = 0
    HALTED = 1
    ARRAY_OVERFLOW = 2
    ARRAY_UNDERFLOW = 3
    VALUE_OVERFLOW = 4
    VALUE_UNDERFLOW = 5
    OUTPUT_FULL = 6
    INPUT_EMPTY = 7
    N_OUTCOMES = 8


# A state is one packed row of bytes: four counters, the program, then the cells and the two buffers.
# Buffer slots past the length, and the padding up to `stride`, are 0, so that equal states are equal rows.
# A padded machine's row also holds its own four sizes; program slots past its own are STOP, cells 0.
cdef enum Column:
    INSTRUCTION_PTR = 0
    ARRAY_PTR = 1
    INPUT_LENGTH = 2
    OUTPUT_LENGTH = 3
    PROGRAM = 4


cdef struct Geometry:
    int n_instructions
    int n_cells
    int n_input
    int n_output
    int max_value
    int cells           # first column of the cells
    int input
    int output
    int sizes           # first column of a row's own sizes; 0 where all rows have those of the machine
    int stride          # bytes a row


cdef enum Size:
    SIZE_INSTRUCTIONS = 0   # n_instructions − 1, so that 256 fits a byte
    SIZE_CELLS = 1          # n_cells − 1
    SIZE_INPUT = 2
    SIZE_OUTPUT = 3


cdef Geometry geometry(object spec)


cdef inline void fit(Geometry* g, const uint8_t* row) noexcept nogil:
    """Take over a row's own sizes, where rows have such; what starts where stays."""
    if g.sizes:
        g.n_instructions = row[g.sizes + <int>SIZE_INSTRUCTIONS] + 1
        g.n_cells = row[g.sizes + <int>SIZE_CELLS] + 1
        g.n_input = row[g.sizes + <int>SIZE_INPUT]
        g.n_output = row[g.sizes + <int>SIZE_OUTPUT]


cdef inline int partner(const uint8_t* program, int n, int at) noexcept nogil:
    """The slot of the bracket that matches the one in slot `at`, or -1 (no bracket there, or unmatched)."""
    cdef int depth = 0, i = at, way
    if program[at] == WHILE:
        way = 1
    elif program[at] == ENDW:
        way = -1
    else:
        return -1
    while 0 <= i < n:
        if program[i] == WHILE:
            depth += 1
        elif program[i] == ENDW:
            depth -= 1
        if depth == 0:
            return i
        i += way
    return -1
