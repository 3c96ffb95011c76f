# cython: language_level=3
"""Token ids of one packed row, in the default layout: inline, for the kernels that write them."""

from libc.stdint cimport uint8_t, uint16_t, uint64_t

from cython_vm._isa cimport *


ctypedef fused token_t:
    uint8_t
    uint16_t


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
    #define TAPE_8(x) x, x, x, x, x, x, x, x
    #define TAPE_64(x) TAPE_8(TAPE_8(x))
    static const unsigned char tape_kept[528] = {TAPE_64(255), TAPE_64(255), TAPE_64(255), TAPE_64(255)};
    #define TAPE_EACH_BYTE 0x0101010101010101ULL
    """
    uint64_t EACH_BYTE "TAPE_EACH_BYTE"
    uint64_t load "tape_load"(const uint8_t* at) noexcept nogil
    void store "tape_store"(uint8_t* at, uint64_t word) noexcept nogil
    const uint8_t* KEPT "tape_kept"  # 256 bytes 255, then 0: KEPT + 256 − length masks the slots that a buffer holds


cdef inline token_t* state_tokens(
    token_t* x, const uint8_t* s, const Geometry* g, const token_t* op_ids, token_t number, token_t eoi, token_t eoo
) noexcept nogil:
    """The tokens of a state; `op_ids` maps opcodes to ids. Returns what follows the last.

    Bytes are read and written in whole words of 8 slots: up to 7 more than are there.
    """
    cdef int k
    x[0] = OPEN_STATE
    x = one_hot(x + 1, s[<int>INSTRUCTION_PTR], g.n_instructions)
    x[0] = OPEN_BLOCK
    if token_t is uint8_t:
        for k in range(0, g.n_instructions, 8):
            store(x + 1 + k, op_tokens(load(s + <int>PROGRAM + k), op_ids))
    else:
        for k in range(g.n_instructions):
            x[1 + k] = op_ids[s[PROGRAM + k]]
    x += g.n_instructions + 1
    x[0] = CLOSE_BLOCK
    x = one_hot(x + 1, s[<int>ARRAY_PTR], g.n_cells)
    x = numbers(x, s + g.cells, g.n_cells, g.n_cells, number, number)
    x = numbers(x, s + g.input, s[<int>INPUT_LENGTH], g.n_input, number, eoi)
    x = numbers(x, s + g.output, s[<int>OUTPUT_LENGTH], g.n_output, number, eoo)
    x[0] = CLOSE_STATE
    return x + 1


cdef inline uint64_t op_tokens(uint64_t ops, const uint8_t* op_ids) noexcept nogil:
    """The ids of eight opcodes. Ids count up like opcodes; where a machine lacks PUT and GET, or WHILE and ENDW, what
    comes after them moves down: WHILE and ENDW (binary 011x), and STOP (1000)."""
    cdef uint64_t down_loops = <uint64_t>(FIRST_OP + WHILE - op_ids[<int>WHILE])
    cdef uint64_t down_stop = <uint64_t>(FIRST_OP + STOP - op_ids[<int>STOP])
    cdef uint64_t loops = (ops >> 1) & (ops >> 2) & EACH_BYTE, stop = (ops >> 3) & EACH_BYTE
    return ops + FIRST_OP * EACH_BYTE - down_loops * loops - down_stop * stop


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
