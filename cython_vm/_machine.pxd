# cython: language_level=3
"""The equations of one step, as inline C functions that the kernels share."""

from libc.stdint cimport int16_t, uint8_t, uint64_t
from libc.string cimport memcpy, memmove

from cython_vm._isa cimport *
from cython_vm._rng cimport mix64


# The variables of one step, in causal order: rows of the latents and of `do`.
cdef enum Name:
    V_INSTRUCTION_PTR = 0
    V_OP = 1
    V_ARRAY_PTR = 2
    V_OPERAND = 3
    V_JUMP_TARGET = 4
    V_INPUT_HEAD = 5
    V_OUTPUT_LENGTH = 6
    V_OUTCOME = 7
    V_BRANCH_TAKEN = 8
    V_RESULT = 9
    V_EMITTED = 10
    V_NEXT_INSTRUCTION_PTR = 11
    V_NEXT_ARRAY_PTR = 12
    N_VARIABLES = 13


cdef struct Do:
    const int16_t* values[13]   # one value a row for each variable that is set, NULL for the others


cdef inline int given(const Do* do, Name name, Py_ssize_t row, int value) noexcept nogil:
    """The value that `do` sets, else the one computed."""
    if do != NULL and do.values[<int>name] != NULL:
        return do.values[<int>name][row]
    return value


cdef inline int decide(const Geometry* g, const int* v) noexcept nogil:
    """The outcome, from the fetched variables."""
    cdef int op = v[<int>V_OP]
    if op == NEXT:
        return ARRAY_OVERFLOW if v[<int>V_ARRAY_PTR] == g.n_cells - 1 else RAN
    if op == PREV:
        return ARRAY_UNDERFLOW if v[<int>V_ARRAY_PTR] == 0 else RAN
    if op == INC:
        return VALUE_OVERFLOW if v[<int>V_OPERAND] == g.max_value else RAN
    if op == DEC:
        return VALUE_UNDERFLOW if v[<int>V_OPERAND] == 0 else RAN
    if op == PUT:
        return OUTPUT_FULL if v[<int>V_OUTPUT_LENGTH] == g.n_output else RAN
    if op == GET:
        return INPUT_EMPTY if v[<int>V_INPUT_HEAD] < 0 else RAN
    if op == STOP:
        return HALTED
    return RAN


cdef inline bint transition(
    const Geometry* g, const uint8_t* s, uint8_t* t, int* v, const Do* do, Py_ssize_t row
) noexcept nogil:
    """Write the next state of `s` to `t` and every variable to `v`; False, and no `t`, where `do` leaves no value.

    Called with do = NULL the compiler drops every branch that only `do` needs.
    """
    cdef int ip = s[<int>INSTRUCTION_PTR], ap = s[<int>ARRAY_PTR], length = s[<int>OUTPUT_LENGTH], op, match, at, left
    cdef bint ran

    # Fetch.
    op = s[PROGRAM + ip]
    match = -1
    if op == WHILE or op == ENDW:
        match = partner(s + <int>PROGRAM, g.n_instructions, ip)
    v[<int>V_INSTRUCTION_PTR] = ip
    v[<int>V_ARRAY_PTR] = ap
    v[<int>V_OP] = op = given(do, V_OP, row, op)
    v[<int>V_OPERAND] = given(do, V_OPERAND, row, s[g.cells + ap])
    v[<int>V_JUMP_TARGET] = given(do, V_JUMP_TARGET, row, match + 1 if match >= 0 else -1)
    v[<int>V_INPUT_HEAD] = given(do, V_INPUT_HEAD, row, s[g.input] if s[<int>INPUT_LENGTH] > 0 else -1)
    v[<int>V_OUTPUT_LENGTH] = given(do, V_OUTPUT_LENGTH, row, length)

    # Decide.
    v[<int>V_OUTCOME] = given(do, V_OUTCOME, row, decide(g, v))
    v[<int>V_BRANCH_TAKEN] = -1
    if op == WHILE:
        v[<int>V_BRANCH_TAKEN] = v[<int>V_OPERAND] == 0
    elif op == ENDW:
        v[<int>V_BRANCH_TAKEN] = v[<int>V_OPERAND] != 0
    v[<int>V_BRANCH_TAKEN] = given(do, V_BRANCH_TAKEN, row, v[<int>V_BRANCH_TAKEN])

    # Result.
    ran = v[<int>V_OUTCOME] == RAN
    v[<int>V_RESULT] = s[g.cells + ap]
    v[<int>V_EMITTED] = -1
    v[<int>V_NEXT_INSTRUCTION_PTR] = ip
    v[<int>V_NEXT_ARRAY_PTR] = ap
    if ran:
        if op == NEXT:
            v[<int>V_NEXT_ARRAY_PTR] = ap + 1
        elif op == PREV:
            v[<int>V_NEXT_ARRAY_PTR] = ap - 1
        elif op == INC:
            v[<int>V_RESULT] = v[<int>V_OPERAND] + 1
        elif op == DEC:
            v[<int>V_RESULT] = v[<int>V_OPERAND] - 1
        elif op == PUT:
            v[<int>V_EMITTED] = v[<int>V_OPERAND]
        elif op == GET:
            v[<int>V_RESULT] = v[<int>V_INPUT_HEAD]
        v[<int>V_NEXT_INSTRUCTION_PTR] = v[<int>V_JUMP_TARGET] if v[<int>V_BRANCH_TAKEN] == 1 else ip + 1
    v[<int>V_RESULT] = given(do, V_RESULT, row, v[<int>V_RESULT])
    v[<int>V_EMITTED] = given(do, V_EMITTED, row, v[<int>V_EMITTED])
    v[<int>V_NEXT_INSTRUCTION_PTR] = given(do, V_NEXT_INSTRUCTION_PTR, row, v[<int>V_NEXT_INSTRUCTION_PTR])
    v[<int>V_NEXT_ARRAY_PTR] = given(do, V_NEXT_ARRAY_PTR, row, v[<int>V_NEXT_ARRAY_PTR])

    at = v[<int>V_OUTPUT_LENGTH]
    if do != NULL:
        if ran and op == STOP:
            return False
        if not 0 <= v[<int>V_RESULT] <= g.max_value or not 0 <= v[<int>V_NEXT_ARRAY_PTR] < g.n_cells:
            return False
        if not 0 <= v[<int>V_NEXT_INSTRUCTION_PTR] < g.n_instructions:
            return False
        if v[<int>V_EMITTED] >= 0 and (at >= g.n_output or at > length):
            return False

    # The next state.
    memcpy(t, s, g.stride)
    t[<int>INSTRUCTION_PTR] = <uint8_t>v[<int>V_NEXT_INSTRUCTION_PTR]
    t[<int>ARRAY_PTR] = <uint8_t>v[<int>V_NEXT_ARRAY_PTR]
    t[g.cells + ap] = <uint8_t>v[<int>V_RESULT]
    if ran and op == GET and s[<int>INPUT_LENGTH] > 0:
        left = s[<int>INPUT_LENGTH] - 1
        memmove(t + g.input, t + g.input + 1, left)
        t[g.input + left] = 0
        t[<int>INPUT_LENGTH] = <uint8_t>left
    if v[<int>V_EMITTED] >= 0:
        t[g.output + at] = <uint8_t>v[<int>V_EMITTED]
        if at == length:
            t[<int>OUTPUT_LENGTH] = <uint8_t>(length + 1)
    return True


cdef inline void match_brackets(const uint8_t* program, int n, int16_t* match) noexcept nogil:
    """The partner of every bracket of a program, in one pass."""
    cdef int16_t opened[256]
    cdef int depth = 0, slot
    for slot in range(n):
        if program[slot] == WHILE:
            opened[depth] = <int16_t>slot
            depth += 1
        elif program[slot] == ENDW and depth > 0:
            depth -= 1
            match[slot] = opened[depth]
            match[opened[depth]] = <int16_t>slot


cdef inline uint64_t hash_program(const uint8_t* program, int n) noexcept nogil:
    """FNV-1a over the opcodes, then the finaliser of SplitMix64."""
    cdef uint64_t h = 0xCBF29CE484222325U, prime = 0x100000001B3U
    cdef int i
    for i in range(n):
        h = (h ^ program[i]) * prime
    return mix64(h)


cdef inline void hash_programs(
    const uint8_t* programs, Py_ssize_t pitch, int n_slots, int n, uint64_t* hashes
) noexcept nogil:
    """`hash_program` of n rows, four at a time, as each has to wait for its own products: up to three more are written
    to `hashes`."""
    cdef uint64_t h[4]
    cdef const uint8_t* at[4]
    cdef int i, j, k
    for i in range(0, n, 4):
        for j in range(4):
            h[j] = 0xCBF29CE484222325U
            at[j] = programs + (i + j if i + j < n else i) * pitch
        for k in range(n_slots):
            for j in range(4):
                h[j] = (h[j] ^ at[j][k]) * <uint64_t>0x100000001B3U
        for j in range(4):
            hashes[i + j] = mix64(h[j])
