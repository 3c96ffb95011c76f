# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The slot machine's steps, in batches: rows laid out as `slots.py` says, operators as `slots_reference.py`."""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memcpy


cpdef enum Kind:
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


cpdef enum Fate:
    RAN = 0
    HALTED = 1
    NOT_AN_OPERATOR = 2
    VALUE_OVERFLOW = 3
    POINTER_OVERFLOW = 4
    OUT_OF_MEMORY = 5
    BAD_FREE = 6


cdef enum:
    SEEN_OP = 0
    SEEN_ADDRESS = 1
    SEEN_X = 4
    SEEN_Y = 5
    SEEN_RESULT = 6
    SEEN_BRANCH = 7
    SEEN_NEXT_PC = 8
    SEEN_OUTCOME = 9
    N_SEEN = 10


cdef struct Sizes:
    int s
    int n_values
    int base


cdef inline int order(int a, int b) noexcept nogil:
    return 0 if a == b else (1 if a < b else 2)


cdef int advance(const Sizes* z, int32_t* t, const int32_t* do, int32_t* seen) noexcept nogil:
    """One step of the row in `t` where it is; with `do`, quantities that are set (-1: not); returns the outcome."""
    cdef int s = z.s, base = z.base
    cdef int32_t* kinds = t
    cdef int32_t* nexts = t + s
    cdef int32_t* contents = t + 4 * s
    cdef int32_t* registers = t + 5 * s
    cdef int pc = registers[0], carry = registers[1], free = registers[2]
    cdef int op = kinds[pc], mode = contents[pc] & 7
    cdef int address[3]
    cdef int i, x, y, total, fate = RAN, result = -1, pointer = -1, branch = -1, next_pc
    if do != NULL and do[SEEN_OP] >= 0:
        op = do[SEEN_OP]
    for i in range(3):
        address[i] = t[(1 + i) * s + pc]
        if mode >> i & 1:
            address[i] = nexts[address[i]]
        if do != NULL and do[SEEN_ADDRESS + i] >= 0:
            address[i] = do[SEEN_ADDRESS + i]
    x, y = contents[address[0]], contents[address[1]]
    if do != NULL and do[SEEN_X] >= 0:
        x = do[SEEN_X]
    if do != NULL and do[SEEN_Y] >= 0:
        y = do[SEEN_Y]
    if op == ADC or op == SBB:
        if x >= base or y >= base:
            fate = VALUE_OVERFLOW
        else:
            total = x + y + carry if op == ADC else x - y - carry
            carry = total >= base if op == ADC else total < 0
            result = (total + base) % base
    elif op == ADD:
        if x + y >= z.n_values:
            fate = VALUE_OVERFLOW
        else:
            result = x + y
    elif op == DIV:
        result = x / base
    elif op == MOD:
        result = x % base
    elif op == CMP:
        result = order(x, y)
    elif op == COPY:
        result = x
    elif op == ORDER:
        result = order(nexts[address[0]], nexts[address[1]])
    elif op == POINT:
        pointer = address[0]
    elif op == STEP:
        pointer = address[0] + 1
        if pointer == s:
            fate = POINTER_OVERFLOW
    elif op == NEXT or op == LEFT or op == RIGHT:
        pointer = t[(1 + op - NEXT) * s + address[0]]
    elif op == JUMP:
        branch = x == y
        if do != NULL and do[SEEN_BRANCH] >= 0:
            branch = do[SEEN_BRANCH]
    elif op == NEW:
        if free == 0:
            fate = OUT_OF_MEMORY
        pointer = free
    elif op == DROP:
        if kinds[address[0]] != DATA or address[0] == 0:
            fate = BAD_FREE
    else:
        fate = HALTED if op == HALT else NOT_AN_OPERATOR
    if result >= 0 and do != NULL and do[SEEN_RESULT] >= 0:
        result = do[SEEN_RESULT]
    next_pc = address[2] if branch == 1 else pc + 1
    if fate == RAN and do != NULL and do[SEEN_NEXT_PC] >= 0:
        next_pc = do[SEEN_NEXT_PC]
    if fate == RAN and next_pc == s:
        fate = POINTER_OVERFLOW
    if seen != NULL:
        seen[SEEN_OP] = op
        for i in range(3):
            seen[SEEN_ADDRESS + i] = address[i]
        seen[SEEN_X], seen[SEEN_Y] = x, y
        seen[SEEN_RESULT], seen[SEEN_BRANCH] = result, branch
        seen[SEEN_NEXT_PC] = next_pc if fate == RAN else -1
        seen[SEEN_OUTCOME] = fate
    if fate != RAN:
        return fate
    if op == NEW:
        registers[2] = nexts[free]
        kinds[free] = DATA
        for i in range(1, 5):
            t[i * s + free] = 0
    elif op == DROP:
        kinds[address[0]] = FREE
        nexts[address[0]] = free
        registers[2] = address[0]
    if result >= 0:
        contents[address[2]] = result
    elif pointer >= 0:
        nexts[address[2]] = pointer
    registers[0], registers[1] = next_pc, carry
    return RAN


def step_rows(
    int s, int n_values, int base, int32_t[:, ::1] rows, const int32_t[:, ::1] do, int32_t[:, ::1] seen
):
    """One step of every row where it is; what is set by `do` [n, 9] (-1: nothing), what was met into `seen` [n, 10]."""
    cdef Sizes z
    cdef Py_ssize_t i
    z.s, z.n_values, z.base = s, n_values, base
    with nogil:
        for i in range(rows.shape[0]):
            advance(&z, &rows[i, 0], &do[i, 0], &seen[i, 0])


def run_rows(
    int s, int n_values, int base, int32_t[:, ::1] rows, const int64_t[::1] limit, int64_t[::1] n_steps,
    uint8_t[::1] outcome
):
    """Run every row where it is, at most `limit` steps each: how many ran, and what the next one would do."""
    cdef Sizes z
    cdef Py_ssize_t i
    cdef int64_t done
    cdef int fate
    z.s, z.n_values, z.base = s, n_values, base
    with nogil:
        for i in range(rows.shape[0]):
            done, fate = 0, RAN
            while done < limit[i]:
                fate = advance(&z, &rows[i, 0], NULL, NULL)
                if fate != RAN:
                    break
                done += 1
            n_steps[i], outcome[i] = done, <uint8_t>fate


def record_rows(int s, int n_values, int base, int32_t[:, ::1] rows, int32_t[:, :, ::1] out):
    """Every state of a run, out [n, steps + 1, width], the first as it is given; frozen rows stay as they are."""
    cdef Sizes z
    cdef Py_ssize_t i, j, width = rows.shape[1]
    z.s, z.n_values, z.base = s, n_values, base
    with nogil:
        for i in range(rows.shape[0]):
            memcpy(&out[i, 0, 0], &rows[i, 0], width * sizeof(int32_t))
            for j in range(1, out.shape[1]):
                advance(&z, &rows[i, 0], NULL, NULL)
                memcpy(&out[i, j, 0], &rows[i, 0], width * sizeof(int32_t))
