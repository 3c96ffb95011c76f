# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Packed rows to token ids and back."""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint64_t
from libc.string cimport memcpy, memset

from cython_vm._isa cimport *

ctypedef fused token_t:
    uint8_t
    uint16_t


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


cdef enum Token:
    OPEN_STATE = 0
    CLOSE_STATE = 1
    OPEN_BLOCK = 2
    CLOSE_BLOCK = 3
    BIT_0 = 4
    BIT_1 = 5
    FIRST_OP = 6


cdef extern from *:
    """
    #include <string.h>
    static inline unsigned long long tape_load(const unsigned char* at) {
        unsigned long long word;
        memcpy(&word, at, 8);
        return word;
    }
    static inline void tape_store(unsigned char* at, unsigned long long word) { memcpy(at, &word, 8); }
    """
    uint64_t load "tape_load"(const uint8_t* at) noexcept nogil
    void store "tape_store"(uint8_t* at, uint64_t word) noexcept nogil


cdef uint8_t[528] KEPT  # 256 bytes 255, then 0: KEPT + 256 − length masks the slots that a buffer holds
memset(KEPT, 0, 528)
memset(KEPT, 255, 256)

cdef uint64_t EACH_BYTE = 0x0101010101010101U


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
    cdef int k
    with nogil:
        for i in range(n):
            s = &rows[i, 0]
            x = &tokens[i, 0]
            if i >= n - 2:
                memcpy(row, s, g.stride)
                s = row
                x = state
            x[0] = OPEN_STATE
            x = one_hot(x + 1, s[<int>INSTRUCTION_PTR], g.n_instructions)
            x[0] = OPEN_BLOCK
            for k in range(g.n_instructions):
                x[1 + k] = op_ids[s[PROGRAM + k]]
            x += g.n_instructions + 1
            x[0] = CLOSE_BLOCK
            x = one_hot(x + 1, s[<int>ARRAY_PTR], g.n_cells)
            x = numbers(x, s + g.cells, g.n_cells, g.n_cells, number, number)
            x = numbers(x, s + g.input, s[<int>INPUT_LENGTH], g.n_input, number, eoi)
            x = numbers(x, s + g.output, s[<int>OUTPUT_LENGTH], g.n_output, number, eoo)
            x[0] = CLOSE_STATE
            if i >= n - 2:
                memcpy(&tokens[i, 0], state, size)


cdef inline token_t* one_hot(token_t* x, int at, int n) noexcept nogil:
    cdef int k
    x[0] = OPEN_BLOCK
    if token_t is uint8_t:
        for k in range(0, n, 8):
            store(x + 1 + k, BIT_0 * EACH_BYTE)
    else:
        for k in range(n):
            x[1 + k] = BIT_0
    x[1 + at] = BIT_1
    x[1 + n] = CLOSE_BLOCK
    return x + n + 2


cdef inline token_t* numbers(
    token_t* x, const uint8_t* values, int length, int n, token_t number, token_t padding
) noexcept nogil:
    cdef const uint8_t* kept = KEPT + 256 - length
    cdef uint64_t mask, add = number * EACH_BYTE, fill = padding * EACH_BYTE
    cdef int k
    x[0] = OPEN_BLOCK
    if token_t is uint8_t:
        for k in range(0, n, 8):
            mask = load(kept + k)
            store(x + 1 + k, ((load(values + k) & mask) + (add & mask)) | (fill & ~mask))
    else:
        for k in range(n):
            x[1 + k] = values[k] + number if k < length else padding
    x[1 + n] = CLOSE_BLOCK
    return x + n + 2


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
