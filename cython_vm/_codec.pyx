# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Packed rows to token ids and back."""

from libc.stdint cimport int32_t, uint8_t
from libc.string cimport memcpy, memset

from cython_vm._isa cimport *

cdef enum Fault:
    NO_FAULT = 0
    BAD_PUNCTUATION = 1     # another token where a brace or bracket belongs
    BAD_BIT = 2             # neither 0 nor 1 in a one-hot block
    NO_POINTER = 3          # no 1 in a one-hot block
    TWO_POINTERS = 4
    BAD_OPCODE = 5
    BAD_LAST = 6            # the last instruction is not STOP
    EARLY_STOP = 7          # STOP before the last slot with stops=False
    UNMATCHED_ENDW = 8
    UNMATCHED_WHILE = 9
    BAD_CELL = 10
    BAD_BUFFER = 11         # neither a number nor the buffer's padding
    GAP = 12                # a number after the padding


def encode_rows(object spec, const uint8_t[:, ::1] rows, const token_t[::1] op_ids, token_t[:, ::1] tokens):
    """Token ids of every row; `op_ids` [9] maps opcodes to ids.

    Bytes are read and written in whole words of 8 slots; what is too much lies in the next row and is overwritten
    when its turn comes. The last two rows, which have no room after them, go through buffers of their own.
    """
    cdef Geometry g = geometry(spec)
    cdef token_t number = spec.token_id("NUM_0"), eoi = spec.token_id("EOI"), eoo = spec.token_id("EOO")
    cdef uint8_t[1056] row
    cdef token_t[1600] state
    cdef const uint8_t* s
    cdef token_t* x
    cdef Py_ssize_t i, n = rows.shape[0], size = tokens.shape[1] * sizeof(token_t)
    with nogil:
        for i in range(n):
            s = &rows[i, 0]
            x = &tokens[i, 0]
            if i >= n - 2:
                memcpy(row, s, g.stride)
                s = row
                x = state
            state_tokens(x, s, &g, &op_ids[0], number, eoi, eoo)
            if i >= n - 2:
                memcpy(&tokens[i, 0], state, size)


def decode_rows(
    object spec, const int32_t[:, ::1] tokens, const uint8_t[::1] op_of, uint8_t[:, ::1] rows
):
    """Rows from token ids; `op_of` [n_ops] maps id − 6 to opcodes.

    Returns (row, position, fault) of the first fault, row -1 when there is none.
    """
    cdef Geometry g = geometry(spec)
    cdef int number = spec.token_id("NUM_0"), eoi = spec.token_id("EOI"), eoo = spec.token_id("EOO")
    cdef int n_ops = op_of.shape[0], at = 0, fault = NO_FAULT
    cdef bint stops = spec.stops or spec.padded  # what lies beyond a padded row is STOP here; checked by the caller
    cdef Py_ssize_t i
    cdef const int32_t* x
    cdef uint8_t* s
    with nogil:
        for i in range(tokens.shape[0]):
            x = &tokens[i, 0]
            s = &rows[i, 0]
            memset(s, 0, g.stride)
            at = 0
            fault = expect(x, &at, OPEN_STATE)
            if not fault:
                fault = read_pointer(x, &at, g.n_instructions, s + <int>INSTRUCTION_PTR)
            if not fault:
                fault = read_program(x, &at, &g, &op_of[0], n_ops, stops, s + <int>PROGRAM)
            if not fault:
                fault = read_pointer(x, &at, g.n_cells, s + <int>ARRAY_PTR)
            if not fault:
                fault = read_numbers(x, &at, g.n_cells, number, g.max_value, -1, s + g.cells, NULL)
            if not fault:
                fault = read_numbers(
                    x, &at, g.n_input, number, g.max_value, eoi, s + g.input, s + <int>INPUT_LENGTH
                )
            if not fault:
                fault = read_numbers(
                    x, &at, g.n_output, number, g.max_value, eoo, s + g.output, s + <int>OUTPUT_LENGTH
                )
            if not fault:
                fault = expect(x, &at, CLOSE_STATE)
            if fault:
                break
    if fault:
        return i, at, fault
    return -1, 0, NO_FAULT


cdef inline int expect(const int32_t* x, int* at, int token) noexcept nogil:
    if x[at[0]] != token:
        return BAD_PUNCTUATION
    at[0] += 1
    return NO_FAULT


cdef int read_pointer(const int32_t* x, int* at, int n, uint8_t* pointer) noexcept nogil:
    cdef int k, found = -1
    if expect(x, at, OPEN_BLOCK):
        return BAD_PUNCTUATION
    for k in range(n):
        if x[at[0]] == BIT_1:
            if found >= 0:
                return TWO_POINTERS
            found = k
        elif x[at[0]] != BIT_0:
            return BAD_BIT
        at[0] += 1
    if found < 0:
        at[0] -= n
        return NO_POINTER
    pointer[0] = <uint8_t>found
    return expect(x, at, CLOSE_BLOCK)


cdef int read_program(
    const int32_t* x, int* at, const Geometry* g, const uint8_t* op_of, int n_ops, bint stops, uint8_t* program
) noexcept nogil:
    cdef int k, token, opened = 0, first
    if expect(x, at, OPEN_BLOCK):
        return BAD_PUNCTUATION
    first = at[0]
    for k in range(g.n_instructions):
        token = x[at[0]] - FIRST_OP
        if not 0 <= token < n_ops:
            return BAD_OPCODE
        program[k] = op_of[token]
        if program[k] == STOP and not stops and k < g.n_instructions - 1:
            return EARLY_STOP
        if program[k] != STOP and k == g.n_instructions - 1:
            return BAD_LAST
        if program[k] == WHILE:
            opened += 1
        elif program[k] == ENDW:
            opened -= 1
            if opened < 0:
                return UNMATCHED_ENDW
        at[0] += 1
    if opened:
        for k in range(g.n_instructions):
            if program[k] == WHILE and partner(program, g.n_instructions, k) < 0:
                at[0] = first + k
                return UNMATCHED_WHILE
    return expect(x, at, CLOSE_BLOCK)


cdef int read_numbers(
    const int32_t* x, int* at, int n, int number, int max_value, int padding, uint8_t* values, uint8_t* length
) noexcept nogil:
    cdef int k, value
    cdef bint ended = False
    if expect(x, at, OPEN_BLOCK):
        return BAD_PUNCTUATION
    for k in range(n):
        value = x[at[0]] - number
        if 0 <= value <= max_value:
            if ended:
                return GAP
            values[k] = <uint8_t>value
            if length != NULL:
                length[0] += 1
        elif length != NULL and x[at[0]] == padding:
            ended = True
        else:
            return BAD_CELL if length == NULL else BAD_BUFFER
        at[0] += 1
    return expect(x, at, CLOSE_BLOCK)
