# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Random states, one stream of random numbers a row, so that batch size and threads change nothing."""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memset

from cython_vm._isa cimport *
from cython_vm._machine cimport *
from cython_vm._rng cimport *


cdef struct Plan:
    Geometry g
    const uint64_t* thresholds  # [slots left, loops open, 8]: see programs_table in sampling.py
    int n_depths
    const uint8_t* choices      # [9]: the opcode of each choice
    bint stops
    int value_mask
    int split                   # 0 all, 1 train, 2 evaluation
    int attempts                # redraws before a row is given up


cdef enum Shape:
    UNIFORM = 0
    LOW_HEAVY = 1
    HIGH_HEAVY = 2
    BELL = 3


cdef inline void random_bytes(Rng* rng, uint8_t* out, int n) noexcept nogil:
    """At least n random bytes, the low byte of each word first on every machine."""
    cdef uint64_t word
    cdef int k, j
    for k in range(0, n, 8):
        word = draw(rng)
        for j in range(8):
            out[k + j] = <uint8_t>(word >> (8 * j))


cdef void draw_values(Rng* rng, uint8_t* out, int n, int mask, int shape) noexcept nogil:
    """n values: uniform, the smaller of two, the larger of two, or the mean of two (halves rounded up or down at random)."""
    cdef uint8_t a[264]
    cdef uint8_t b[264]
    cdef uint8_t c[264]
    cdef int k
    if n == 0:
        return
    random_bytes(rng, a, n)
    for k in range(n):
        a[k] &= mask
    if shape != UNIFORM:
        random_bytes(rng, b, n)
        for k in range(n):
            b[k] &= mask
    if shape == UNIFORM:
        for k in range(n):
            out[k] = a[k]
    elif shape == LOW_HEAVY:
        for k in range(n):
            out[k] = a[k] if a[k] < b[k] else b[k]
    elif shape == HIGH_HEAVY:
        for k in range(n):
            out[k] = a[k] if a[k] > b[k] else b[k]
    else:
        random_bytes(rng, c, n)
        for k in range(n):
            out[k] = <uint8_t>((a[k] + b[k] + (c[k] & 1)) >> 1)


cdef inline void draw_cells(Rng* rng, const Plan* plan, uint8_t* s) noexcept nogil:
    draw_values(rng, s + plan.g.cells, plan.g.n_cells, plan.value_mask, <int>(draw(rng) & 3))


cdef inline int draw_buffer(Rng* rng, const Plan* plan, uint8_t* values, int n) noexcept nogil:
    """Fill a buffer of n slots and return its length: uniform, geometric (1/2, cut at n), empty or full."""
    cdef uint64_t word = draw(rng)
    cdef int shape = word & 3, way = (word >> 2) & 3, length = 0
    if way == 0:
        length = below(rng, n + 1)
    elif way == 1:
        word >>= 4
        while length < n and length < 60 and word & 1:
            length += 1
            word >>= 1
    elif way == 3:
        length = n
    memset(values, 0, n)
    draw_values(rng, values, length, plan.value_mask, shape)
    return length


cdef inline void draw_program(Rng* rng, const Plan* plan, uint8_t* program) noexcept nogil:
    """Uniform over all valid programs: each choice with the share of the completions that it leaves open."""
    cdef int k, j, choice, depth = 0, last = plan.g.n_instructions - 1
    cdef const uint64_t* row
    cdef uint64_t u
    for k in range(last):
        row = plan.thresholds + (<Py_ssize_t>(last - k) * plan.n_depths + depth) * 8
        u = draw(rng) >> 1
        depth += (u < row[0]) - (row[0] <= u < row[1])
        choice = 0
        for j in range(8):
            choice += u >= row[j]
        program[k] = plan.choices[choice]
    program[last] = STOP


cdef inline bint in_split(const Plan* plan, const uint8_t* program) noexcept nogil:
    if plan.split == 0:
        return True
    return (hash_program(program, plan.g.n_instructions) % 20 == 0) == (plan.split == 2)


cdef bint draw_code(Rng* rng, const Plan* plan, uint8_t* s, int op) noexcept nogil:
    """instruction_ptr and program, redrawn until the split and the op under the pointer (-1: any) are those asked for."""
    cdef int attempt, ip, last = plan.g.n_instructions - 1
    for attempt in range(plan.attempts):
        ip = below(rng, last + 1)
        if op >= 0 and (ip == last) != (op == STOP) and (ip == last or not plan.stops):
            continue  # the last slot always, and with stops=False only the last slot, holds STOP
        draw_program(rng, plan, s + <int>PROGRAM)
        if (op < 0 or s[PROGRAM + ip] == op) and in_split(plan, s + <int>PROGRAM):
            s[<int>INSTRUCTION_PTR] = <uint8_t>ip
            return True
    return False


cdef inline bint outcome_is(const Plan* plan, const uint8_t* s, int outcome) noexcept nogil:
    cdef int v[13]
    v[<int>V_OP] = s[PROGRAM + s[<int>INSTRUCTION_PTR]]
    v[<int>V_ARRAY_PTR] = s[<int>ARRAY_PTR]
    v[<int>V_OPERAND] = s[plan.g.cells + s[<int>ARRAY_PTR]]
    v[<int>V_INPUT_HEAD] = 0 if s[<int>INPUT_LENGTH] > 0 else -1
    v[<int>V_OUTPUT_LENGTH] = s[<int>OUTPUT_LENGTH]
    return decide(&plan.g, v) == outcome


cdef bint draw_data(Rng* rng, const Plan* plan, uint8_t* s, int op, int outcome, int branch) noexcept nogil:
    """Pointer, cells and buffers. With an outcome asked for (not -1), the part that decides it is redrawn until it fits.

    array_ptr, cells, input and output are independent, so redrawing only the parts that decide the outcome gives the
    same distribution as redrawing everything.
    """
    cdef const Geometry* g = &plan.g
    cdef int attempt, operand
    s[<int>INPUT_LENGTH] = <uint8_t>draw_buffer(rng, plan, s + g.input, g.n_input)
    s[<int>OUTPUT_LENGTH] = <uint8_t>draw_buffer(rng, plan, s + g.output, g.n_output)
    s[<int>ARRAY_PTR] = <uint8_t>below(rng, g.n_cells)
    draw_cells(rng, plan, s)
    if outcome < 0:
        return True
    for attempt in range(plan.attempts):
        operand = s[g.cells + s[<int>ARRAY_PTR]]
        if outcome_is(plan, s, outcome):
            if branch < 0 or branch == ((operand == 0) == (op == WHILE)):
                return True
        if op == NEXT or op == PREV:
            s[<int>ARRAY_PTR] = <uint8_t>below(rng, g.n_cells)
        elif op == PUT:
            s[<int>OUTPUT_LENGTH] = <uint8_t>draw_buffer(rng, plan, s + g.output, g.n_output)
        elif op == GET:
            s[<int>INPUT_LENGTH] = <uint8_t>draw_buffer(rng, plan, s + g.input, g.n_input)
        else:
            s[<int>ARRAY_PTR] = <uint8_t>below(rng, g.n_cells)
            draw_cells(rng, plan, s)
    return False


def sample_rows(
    object spec,
    uint64_t seed,
    uint64_t start,
    int split,
    int attempts,
    const uint64_t[:, :, ::1] thresholds,
    const uint8_t[::1] choices,
    const uint64_t[::1] strata_thresholds,
    const signed char[:, ::1] strata,
    uint8_t[:, ::1] rows,
):
    """Fill rows start, start + 1, … of the stream of `seed`. Returns the first row given up and its stratum, or (-1, -1).

    strata [k, 3]: op, outcome, branch (-1: any), stratum j taken where 63 random bits fall below strata_thresholds[j] first.
    """
    cdef Plan plan
    cdef Rng rng
    cdef uint64_t key = mix64(seed + 0x9E3779B97F4A7C15U), u
    cdef Py_ssize_t i, n = rows.shape[0], failed = -1
    cdef int j = 0, n_strata = strata.shape[0], op = -1, outcome = -1, branch = -1
    cdef uint8_t* s
    plan.g = geometry(spec)
    plan.thresholds = &thresholds[0, 0, 0]
    plan.n_depths = thresholds.shape[1]
    plan.choices = &choices[0]
    plan.stops = spec.stops
    plan.value_mask = spec.max_value
    plan.split = split
    plan.attempts = attempts
    with nogil:
        for i in range(n):
            seed_row(&rng, key, start + <uint64_t>i)
            s = &rows[i, 0]
            memset(s, 0, plan.g.stride)
            if n_strata:
                u = draw(&rng) >> 1
                j = 0
                while j < n_strata - 1 and u >= strata_thresholds[j]:
                    j += 1
                op = strata[j, 0]
                outcome = strata[j, 1]
                branch = strata[j, 2]
            if not draw_code(&rng, &plan, s, op) or not draw_data(&rng, &plan, s, op, outcome, branch):
                failed = i
                break
    if failed >= 0:
        return failed, j
    return -1, -1
