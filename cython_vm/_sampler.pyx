# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Random states, one stream of random numbers a row, so that batch size and threads change nothing."""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy, memset

from cython_vm._isa cimport *
from cython_vm._lanes cimport row_lanes
from cython_vm._machine cimport *
from cython_vm._rng cimport *
from cython_vm._splits cimport IN_ALL, IN_EVALUATION, IN_VALIDATION, belongs


cdef inline int fill(
    Rng* rng, const Plan* plan, const Choices* table, int n, int depth, uint8_t* program
) noexcept nogil:
    """n slots, uniform over all ways to fill them: each choice with the share of the completions that it leaves open.

    Returns how many loops are open after them.
    """
    cdef int k, other
    cdef Py_ssize_t at
    cdef bint opens, brackets
    cdef uint64_t u
    cdef Rng local = rng[0]  # in registers while the program is written
    for k in range(n):
        at = <Py_ssize_t>(n - k) * plan.n_depths + depth
        u = draw(&local) >> 1
        opens = u < table.thresholds[2 * at]
        brackets = u < table.thresholds[2 * at + 1]
        depth += 2 * opens - brackets
        other = <int>(<double><int64_t>(u - table.thresholds[2 * at + 1]) * table.per_op[at])
        other = other if other < plan.n_plain else plan.n_plain - 1
        program[k] = plan.choices[2 - opens - brackets + (0 if brackets else other)]
    rng[0] = local
    return depth


cdef inline void draw_program(Rng* rng, const Plan* plan, uint8_t* program) noexcept nogil:
    """Uniform over all valid programs."""
    cdef int last = plan.g.n_instructions - 1
    fill(rng, plan, &plan.closing, last, 0, program)
    memset(program + last, STOP, plan.n_slots - last)


cdef inline int draw_at_depth(Rng* rng, const Plan* plan, uint8_t* program, int depth, int which) noexcept nogil:
    """A program, and the slot of the pointer, uniform over all pairs where `depth` loops are open at the slot."""
    cdef Choices table
    cdef int ip = 0, last = plan.n_slots - 1
    cdef uint64_t u = draw(rng) >> 1
    cdef const uint64_t* places = plan.places + <Py_ssize_t>which * plan.n_slots
    cdef Py_ssize_t size = <Py_ssize_t>plan.n_slots * plan.n_depths
    while ip < last and u >= places[ip]:
        ip += 1
    table.thresholds = plan.depth_thresholds + which * size * 2
    table.per_op = plan.depth_per_op + which * size
    fill(rng, plan, &table, ip, 0, program)
    fill(rng, plan, &plan.closing, last - ip, depth, program + ip)
    program[last] = STOP
    return ip


cdef inline int draw_at_distance(Rng* rng, const Plan* plan, uint8_t* program, int distance) noexcept nogil:
    """A program, and a bracket of it, uniform over all pairs where the partner is `distance` slots away.

    Such a pair is a program of what is outside, one of what is inside, and where the one is put into the other.
    """
    cdef uint8_t outside[256]
    cdef int n_outside = plan.n_slots - 2 - distance
    cdef uint64_t word = draw(rng)
    cdef int at = share(word, n_outside + 1)
    fill(rng, plan, &plan.closing, n_outside, 0, outside)
    memcpy(program, outside, at)
    program[at] = WHILE
    fill(rng, plan, &plan.closing, distance - 1, 0, program + at + 1)
    program[at + distance] = ENDW
    memcpy(program + at + distance + 1, outside + at, n_outside - at)
    program[plan.n_slots - 1] = STOP
    return at + distance * <int>(word & 1)


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
    return plan.split == IN_ALL or belongs(hash_program(program, plan.n_slots), plan.split)


cdef inline void draw_sizes(Rng* rng, Plan* plan, uint8_t* s) noexcept nogil:
    """The row's own sizes, where rows have such, each uniform between its smallest and its largest."""
    cdef int size, drawn
    if not plan.g.sizes:
        return
    for size in range(4):
        drawn = plan.smallest[size] + share(draw(rng), plan.largest[size] - plan.smallest[size] + 1)
        s[plan.g.sizes + size] = <uint8_t>(drawn - (size <= <int>SIZE_CELLS))
    fit(&plan.g, s)


cdef bint draw_code(Rng* rng, Plan* plan, uint8_t* s, const signed char* stratum) noexcept nogil:
    """Sizes, instruction_ptr and program, redrawn until the split and the stratum (NULL: any) are as asked."""
    cdef uint8_t* program = s + <int>PROGRAM
    cdef int _attempt, ip, last, op = -1, distance = -1, depth = -1
    if stratum != NULL and plan.by == BY_OUTCOME:
        op = stratum[0]
    elif stratum != NULL and plan.by == BY_LOOP_DEPTH:
        depth = <uint8_t>stratum[0]
    elif stratum != NULL:
        distance = <uint8_t>stratum[0]
    for _attempt in range(plan.attempts):
        draw_sizes(rng, plan, s)
        last = plan.g.n_instructions - 1
        if depth >= 0:
            ip = draw_at_depth(rng, plan, program, depth, <uint8_t>stratum[1])
        elif distance > 0:
            ip = draw_at_distance(rng, plan, program, distance)
        else:
            ip = share(draw(rng), last + 1)
            if op >= 0 and (ip == last) != (op == STOP) and (ip == last or not plan.stops):
                continue  # the last slot always, and with stops=False only the last slot, holds STOP
            draw_program(rng, plan, program)
            if op >= 0 and program[ip] != op:
                continue
            if distance == 0 and (program[ip] == WHILE or program[ip] == ENDW):
                continue
        if in_split(plan, program):
            s[<int>INSTRUCTION_PTR] = <uint8_t>ip
            return True
    return False


cdef inline bint is_as_asked(const Plan* plan, const uint8_t* s, int outcome, int branch) noexcept nogil:
    """Whether the outcome, and the branch unless it is -1, are those asked for."""
    cdef int v[13]
    v[<int>V_OP] = s[PROGRAM + s[<int>INSTRUCTION_PTR]]
    v[<int>V_ARRAY_PTR] = s[<int>ARRAY_PTR]
    v[<int>V_OPERAND] = s[plan.g.cells + s[<int>ARRAY_PTR]]
    v[<int>V_INPUT_HEAD] = 0 if s[<int>INPUT_LENGTH] > 0 else -1
    v[<int>V_OUTPUT_LENGTH] = s[<int>OUTPUT_LENGTH]
    if decide(&plan.g, v) != outcome:
        return False
    return branch < 0 or branch == ((v[<int>V_OPERAND] == 0) == (v[<int>V_OP] == WHILE))


cdef inline void draw_data(Rng* rng, const Plan* plan, uint8_t* s) noexcept nogil:
    """array_ptr, buffer lengths, then all values, into a row whose buffers are 0."""
    s[<int>ARRAY_PTR] = <uint8_t>share(draw(rng), plan.g.n_cells)
    s[<int>INPUT_LENGTH] = <uint8_t>length_of(draw(rng), plan.g.n_input)
    s[<int>OUTPUT_LENGTH] = <uint8_t>length_of(draw(rng), plan.g.n_output)
    draw_values(rng, plan, s)


cdef bint draw_data_for(Rng* rng, const Plan* plan, uint8_t* s, int outcome, int branch) noexcept nogil:
    """The same, redrawn until the outcome (and the branch, unless it is -1) are those asked for.

    What decides the outcome of one op is independent of the rest, so only that is redrawn: array_ptr, the length of a
    buffer, or array_ptr and all values. The distribution is that of redrawing everything.
    """
    cdef const Geometry* g = &plan.g
    cdef int _attempt, op = s[PROGRAM + s[<int>INSTRUCTION_PTR]]
    draw_data(rng, plan, s)
    for _attempt in range(plan.attempts):
        if is_as_asked(plan, s, outcome, branch):
            return True
        if op == PUT:
            s[<int>OUTPUT_LENGTH] = <uint8_t>length_of(draw(rng), g.n_output)
        elif op == GET:
            s[<int>INPUT_LENGTH] = <uint8_t>length_of(draw(rng), g.n_input)
        else:
            s[<int>ARRAY_PTR] = <uint8_t>share(draw(rng), g.n_cells)
        if op != NEXT and op != PREV:
            memset(s + g.input, 0, g.n_input + g.n_output)
            draw_values(rng, plan, s)
    return False


cdef bint draw_row(Rng* rng, Plan* plan, uint8_t* s, const signed char* stratum) noexcept nogil:
    """One state of a stratum, NULL for any; False if it was given up."""
    cdef int _attempt
    if not draw_code(rng, plan, s, stratum):
        return False
    if stratum == NULL or plan.by != BY_OUTCOME:
        draw_data(rng, plan, s)
        return True
    if not plan.g.sizes:
        return draw_data_for(rng, plan, s, stratum[1], stratum[2])
    for _attempt in range(plan.attempts):  # sizes decide too how likely the outcome is, so all is redrawn
        draw_data(rng, plan, s)
        if is_as_asked(plan, s, stratum[1], stratum[2]):
            return True
        memset(s + plan.g.cells, 0, plan.g.sizes - plan.g.cells)
        if not draw_code(rng, plan, s, stratum):
            return False
    return False


cdef class Stream:
    """The rows of one seed: what is drawn, and the tables that drawing it takes.

    strata [k, 3] are rows as `by` says; the first whose threshold passes 63 random bits is taken. depths: thresholds,
    per_op and places of `_depths_table`, () where not asked for. sizes [2, 4]: smallest and largest of a padded row.
    """

    def __init__(
        self,
        object spec,
        uint64_t seed,
        int split,
        int attempts,
        const uint64_t[:, :, ::1] thresholds,
        const double[:, ::1] per_op,
        const uint8_t[::1] choices,
        int by,
        const uint64_t[::1] strata_thresholds,
        object strata,
        tuple depths,
        const int[:, ::1] sizes,
    ):
        cdef const uint64_t[:, :, :, ::1] depth_thresholds
        cdef const double[:, :, ::1] depth_per_op
        cdef const uint64_t[:, ::1] places
        cdef const signed char[:, ::1] strata_rows = strata
        cdef Plan* plan = &self.plan
        self.spec, self.split, self.by, self.strata = spec, split, by, strata
        self.arrays = (thresholds, per_op, choices, strata_thresholds, depths, sizes)  # kept alive
        plan.g = geometry(spec)
        plan.key = mix64(seed + 0x9E3779B97F4A7C15U)
        plan.n_slots = plan.g.n_instructions
        plan.closing.thresholds = &thresholds[0, 0, 0]
        plan.closing.per_op = &per_op[0, 0]
        plan.n_depths = <int>thresholds.shape[1]
        if depths:
            depth_thresholds, depth_per_op, places = depths
            plan.depth_thresholds = &depth_thresholds[0, 0, 0, 0]
            plan.depth_per_op = &depth_per_op[0, 0, 0]
            plan.places = &places[0, 0]
        plan.choices = &choices[0]
        plan.n_plain = <int>choices.shape[0] - 2
        plan.stops = spec.stops
        plan.split = split
        plan.attempts = attempts
        plan.smallest = &sizes[0, 0]
        plan.largest = &sizes[1, 0]
        plan.by = <Strata>by
        plan.n_strata = <int>strata_rows.shape[0]
        if plan.n_strata:
            plan.strata, plan.strata_thresholds = &strata_rows[0, 0], &strata_thresholds[0]

    def rows(self, uint64_t start, uint8_t[:, ::1] rows, const uint64_t[::1] numbers=None):
        """Fill rows start, start + 1, … of the stream, or those of `numbers` [n].

        Returns the first row given up and its stratum, or (-1, -1)."""
        cdef uint8_t block[BLOCK_BYTES]
        cdef Plan plan = self.plan  # padded rows change it as they come
        cdef Py_ssize_t i = 0, k, n = rows.shape[0], pitch = plan.g.stride + PITCH_MORE, failed = -1
        cdef int stratum = -1, size
        cdef const uint64_t* given = NULL
        if numbers is not None and n:
            given = &numbers[0]
        with nogil:
            while i < n and failed < 0:
                size = <int>(n - i if n - i < LANES else LANES)
                failed = draw_block(&plan, start + <uint64_t>i, given + i if given else NULL, size, block, &stratum)
                if failed >= 0:
                    failed += i
                else:
                    for k in range(size):
                        memcpy(&rows[i + k, 0], block + k * pitch, plan.g.stride)
                i += size
        return failed, stratum


cdef enum:
    FEW = 8     # fewer rows are drawn one by one


cdef int draw_block(
    Plan* plan, uint64_t start, const uint64_t* numbers, int n, uint8_t* block, int* stratum
) noexcept nogil:
    cdef Py_ssize_t pitch = plan.g.stride + PITCH_MORE
    cdef int i
    cdef bint rare = plan.split == IN_EVALUATION or plan.split == IN_VALIDATION  # most rows would be drawn in vain
    cdef bint natural = plan.n_strata == 0 and not plan.g.sizes and not rare and n >= FEW
    cdef uint8_t* s
    if natural:
        row_lanes(plan, start, numbers, n, block, pitch)
    for i in range(n):
        s = block + i * pitch
        if natural and in_split(plan, s + <int>PROGRAM):
            continue
        if not draw_one(plan, start + <uint64_t>i if numbers == NULL else numbers[i], s, stratum):
            return i
    return -1


cdef bint draw_one(Plan* plan, uint64_t row, uint8_t* s, int* stratum) noexcept nogil:
    """One row of the stream; False, and the number of its stratum (-1: none), if it was given up."""
    cdef Rng rng
    cdef uint64_t u
    cdef int j = 0
    cdef const signed char* asked = NULL
    seed_row(&rng, plan.key, row)
    memset(s, 0, plan.g.stride)
    stratum[0] = -1
    if plan.n_strata:
        u = draw(&rng) >> 1
        while j < plan.n_strata - 1 and u >= plan.strata_thresholds[j]:
            j += 1
        asked = plan.strata + 3 * <Py_ssize_t>j
        stratum[0] = j
    return draw_row(&rng, plan, s, asked)
