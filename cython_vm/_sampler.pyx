# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Random states, one stream of random numbers a row, so that batch size and threads change nothing."""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy, memset

from cython_vm._isa cimport *
from cython_vm._machine cimport *
from cython_vm._rng cimport *


cdef struct Plan:
    Geometry g
    const uint64_t* thresholds  # [slots left, loops open, 2]: see _programs_table in sampling.py
    const double* per_op        # [slots left, loops open]
    int n_depths
    const uint8_t* choices      # opcodes: WHILE, ENDW, then the n_plain others
    int n_plain
    bint stops
    int split                   # 0 all, 1 train, 2 evaluation
    int attempts                # redraws before a row is given up


cdef inline void draw_program(Rng* rng, const Plan* plan, uint8_t* program) noexcept nogil:
    """Uniform over all valid programs: each choice with the share of the completions that it leaves open."""
    cdef int k, depth = 0, other, last = plan.g.n_instructions - 1
    cdef Py_ssize_t at
    cdef bint opens, brackets
    cdef uint64_t u
    cdef Rng local = rng[0]  # in registers while the program is written
    for k in range(last):
        at = <Py_ssize_t>(last - k) * plan.n_depths + depth
        u = draw(&local) >> 1
        opens = u < plan.thresholds[2 * at]
        brackets = u < plan.thresholds[2 * at + 1]
        depth += 2 * opens - brackets
        other = <int>(<double><int64_t>(u - plan.thresholds[2 * at + 1]) * plan.per_op[at])
        other = other if other < plan.n_plain else plan.n_plain - 1
        program[k] = plan.choices[2 - opens - brackets + (0 if brackets else other)]
    program[last] = STOP
    rng[0] = local


cdef inline int draw_length(Rng* rng, int n) noexcept nogil:
    """A buffer's length: uniform over 0 … n, geometric (1/2, cut at n), empty or full, as the lowest two bits say."""
    cdef int lengths[4]
    cdef uint64_t word = draw(rng)
    lengths[0] = share(word, n + 1)
    lengths[1] = trailing_zeros((word >> 2) | (<uint64_t>1 << 62))
    lengths[1] = lengths[1] if lengths[1] < n else n
    lengths[2] = 0
    lengths[3] = n
    return lengths[word & 3]


cdef inline void draw_values(Rng* rng, const Plan* plan, uint8_t* s) noexcept nogil:
    """Cells and buffer contents, up to the buffers' lengths.

    Each of the three blocks takes one of four shapes: uniform draws a, the smaller of a and b, the larger, or their
    mean with halves rounded up or down at random.
    """
    cdef uint8_t drawn[4][776]
    cdef uint8_t a[8]
    cdef uint8_t b[8]
    cdef uint8_t c[8]
    cdef const Geometry* g = &plan.g
    cdef Rng local = rng[0]
    cdef uint64_t shapes = draw(&local), low_bits = 0x0101010101010101U, mask = low_bits * <uint64_t>g.max_value
    cdef int n = g.n_cells + g.n_input + g.n_output, k, j
    for k in range(0, n, 8):
        store_word(a, draw(&local) & mask)
        store_word(b, draw(&local) & mask)
        store_word(c, draw(&local) & low_bits)
        for j in range(8):
            drawn[0][k + j] = a[j]
            drawn[1][k + j] = a[j] if a[j] < b[j] else b[j]
            drawn[2][k + j] = a[j] if a[j] > b[j] else b[j]
            drawn[3][k + j] = <uint8_t>((a[j] + b[j] + c[j]) >> 1)
    rng[0] = local
    memcpy(s + g.cells, drawn[shapes & 3], g.n_cells)
    memcpy(s + g.input, drawn[(shapes >> 2) & 3] + g.n_cells, s[<int>INPUT_LENGTH])
    memcpy(s + g.output, drawn[(shapes >> 4) & 3] + g.n_cells + g.n_input, s[<int>OUTPUT_LENGTH])


cdef inline bint in_split(const Plan* plan, const uint8_t* program) noexcept nogil:
    if plan.split == 0:
        return True
    return (hash_program(program, plan.g.n_instructions) % 20 == 0) == (plan.split == 2)


cdef bint draw_code(Rng* rng, const Plan* plan, uint8_t* s, int op) noexcept nogil:
    """instruction_ptr and program, redrawn until the split and the op under the pointer (-1: any) are as asked."""
    cdef int _attempt, ip, last = plan.g.n_instructions - 1
    for _attempt in range(plan.attempts):
        ip = share(draw(rng), last + 1)
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


cdef inline void draw_data(Rng* rng, const Plan* plan, uint8_t* s) noexcept nogil:
    """array_ptr, buffer lengths, then all values, into a row whose buffers are 0."""
    s[<int>ARRAY_PTR] = <uint8_t>share(draw(rng), plan.g.n_cells)
    s[<int>INPUT_LENGTH] = <uint8_t>draw_length(rng, plan.g.n_input)
    s[<int>OUTPUT_LENGTH] = <uint8_t>draw_length(rng, plan.g.n_output)
    draw_values(rng, plan, s)


cdef bint draw_data_for(Rng* rng, const Plan* plan, uint8_t* s, int outcome, int branch) noexcept nogil:
    """The same, redrawn until the outcome (and the branch, unless it is -1) are those asked for.

    What decides the outcome of one op is independent of the rest, so only that is redrawn: array_ptr, the length of a
    buffer, or array_ptr and all values. The distribution is that of redrawing everything.
    """
    cdef const Geometry* g = &plan.g
    cdef int _attempt, op = s[PROGRAM + s[<int>INSTRUCTION_PTR]]
    cdef bint zero
    draw_data(rng, plan, s)
    for _attempt in range(plan.attempts):
        if outcome_is(plan, s, outcome):
            zero = s[g.cells + s[<int>ARRAY_PTR]] == 0
            if branch < 0 or branch == (zero == (op == WHILE)):
                return True
        if op == PUT:
            s[<int>OUTPUT_LENGTH] = <uint8_t>draw_length(rng, g.n_output)
        elif op == GET:
            s[<int>INPUT_LENGTH] = <uint8_t>draw_length(rng, g.n_input)
        else:
            s[<int>ARRAY_PTR] = <uint8_t>share(draw(rng), g.n_cells)
        if op != NEXT and op != PREV:
            memset(s + g.input, 0, g.n_input + g.n_output)
            draw_values(rng, plan, s)
    return False


def sample_rows(
    object spec,
    uint64_t seed,
    uint64_t start,
    int split,
    int attempts,
    const uint64_t[:, :, ::1] thresholds,
    const double[:, ::1] per_op,
    const uint8_t[::1] choices,
    const uint64_t[::1] strata_thresholds,
    const signed char[:, ::1] strata,
    uint8_t[:, ::1] rows,
):
    """Fill rows start, start + 1, … of the stream of `seed`.

    Returns the first row given up and its stratum, or (-1, -1).

    strata [k, 3] are op, outcome, branch (-1: any); the first whose threshold passes 63 random bits is taken.
    """
    cdef Plan plan
    cdef Rng rng
    cdef uint64_t key = mix64(seed + 0x9E3779B97F4A7C15U), u
    cdef Py_ssize_t i, n = rows.shape[0], failed = -1
    cdef int j = 0, n_strata = strata.shape[0], op = -1, outcome = -1, branch = -1
    cdef bint drawn
    cdef uint8_t* s
    plan.g = geometry(spec)
    plan.thresholds = &thresholds[0, 0, 0]
    plan.per_op = &per_op[0, 0]
    plan.n_depths = thresholds.shape[1]
    plan.choices = &choices[0]
    plan.n_plain = <int>choices.shape[0] - 2
    plan.stops = spec.stops
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
            drawn = draw_code(&rng, &plan, s, op)
            if drawn and n_strata:
                drawn = draw_data_for(&rng, &plan, s, outcome, branch)
            elif drawn:
                draw_data(&rng, &plan, s)
            if not drawn:
                failed = i
                break
    if failed >= 0:
        return failed, j
    return -1, -1
