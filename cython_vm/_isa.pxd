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
    int stride          # bytes a row


cdef Geometry geometry(object spec)


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
