# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""How the run of each row ends: halted, frozen, or in a cycle, found exactly; steps that differ by row; and hashes of
what a run shows and of what it reaches."""

from libc.stdint cimport int16_t, int64_t, uint8_t, uint64_t
from libc.string cimport memcmp, memcpy, memmove, memset

from cython_vm._isa cimport *
from cython_vm._machine cimport match_brackets
from cython_vm._rng cimport mix64

cdef enum:
    MAX_ROW = 2048  # above the longest packed row


cdef struct Path:
    # A run in progress: the state, where it stands, and what it did so far.
    const Geometry* g
    const int16_t* match    # the partner of every bracket
    uint8_t* state
    int64_t jumps           # back by ENDW
    uint8_t* visited        # a byte a slot, set where an instruction ran; NULL: not recorded


cdef inline int blocked(const Geometry* g, const uint8_t* t) noexcept nogil:
    """The outcome of the next step."""
    cdef int op = t[PROGRAM + t[<int>INSTRUCTION_PTR]], ap = t[<int>ARRAY_PTR]
    if op == NEXT:
        return ARRAY_OVERFLOW if ap == g.n_cells - 1 else RAN
    if op == PREV:
        return ARRAY_UNDERFLOW if ap == 0 else RAN
    if op == INC:
        return VALUE_OVERFLOW if t[g.cells + ap] == g.max_value else RAN
    if op == DEC:
        return VALUE_UNDERFLOW if t[g.cells + ap] == 0 else RAN
    if op == PUT:
        return OUTPUT_FULL if t[<int>OUTPUT_LENGTH] == g.n_output else RAN
    if op == GET:
        return INPUT_EMPTY if t[<int>INPUT_LENGTH] == 0 else RAN
    return HALTED if op == STOP else RAN


cdef inline int advance(Path* path) noexcept nogil:
    """One step in place; the outcome. A step that does not run changes nothing."""
    cdef const Geometry* g = path.g
    cdef uint8_t* t = path.state
    cdef int outcome = blocked(g, t), ip = t[<int>INSTRUCTION_PTR], op = t[PROGRAM + ip], left
    cdef uint8_t* cell = t + g.cells + t[<int>ARRAY_PTR]
    if outcome != RAN:
        return outcome
    if path.visited != NULL:
        path.visited[ip] = 1
    if op == NEXT:
        t[<int>ARRAY_PTR] += 1
    elif op == PREV:
        t[<int>ARRAY_PTR] -= 1
    elif op == INC:
        cell[0] += 1
    elif op == DEC:
        cell[0] -= 1
    elif op == PUT:
        t[g.output + t[<int>OUTPUT_LENGTH]] = cell[0]
        t[<int>OUTPUT_LENGTH] += 1
    elif op == GET:
        left = t[<int>INPUT_LENGTH] - 1
        cell[0] = t[g.input]
        memmove(t + g.input, t + g.input + 1, left)
        t[g.input + left] = 0
        t[<int>INPUT_LENGTH] = <uint8_t>left
    elif (cell[0] == 0) == (op == WHILE):
        path.jumps += op == ENDW
        ip = path.match[ip]
    t[<int>INSTRUCTION_PTR] = <uint8_t>(ip + 1)
    return RAN


cdef inline bint same(const Geometry* g, const uint8_t* a, const uint8_t* b) noexcept nogil:
    """Whether two states of one run are equal. The run never changes its program, and its buffers only by their ends:
    buffers of equal length are equal."""
    # Byte by byte: reading the counters as one word would wait for the byte just written.
    return (
        a[<int>INSTRUCTION_PTR] == b[<int>INSTRUCTION_PTR]
        and a[<int>ARRAY_PTR] == b[<int>ARRAY_PTR]
        and a[<int>INPUT_LENGTH] == b[<int>INPUT_LENGTH]
        and a[<int>OUTPUT_LENGTH] == b[<int>OUTPUT_LENGTH]
        and memcmp(a + g.cells, b + g.cells, g.n_cells) == 0
    )


cdef int64_t find_fate(
    Path* path, const uint8_t* first, int64_t limit, uint8_t* outcome, int64_t* cycle_start, int64_t* period
) noexcept nogil:
    """Run path.state, a copy of `first`, to its end, to the first state met twice, or to `limit`; the steps to there.

    R. P. Brent, "An improved Monte Carlo factorization algorithm", BIT 20, 1980: compare every state with one kept
    from an earlier step, and keep a later one at every power of two. Here one is also kept at `limit`: it lies on the
    cycle if any state up to there was met twice, so 2 × limit steps find every such cycle. Where the cycle begins is
    then found by two runs, `period` steps apart, that meet there; one that closes after `limit` is not reported.
    """
    cdef const Geometry* g = path.g
    cdef uint8_t kept[MAX_ROW]
    cdef uint8_t behind_state[MAX_ROW]
    cdef Path behind
    cdef int64_t steps = 0, kept_at = 0, keep_next = 1, jumps = 0, _k
    cycle_start[0] = period[0] = -1
    memcpy(kept, first, g.stride)
    while period[0] < 0:
        if steps == limit:
            outcome[0] = <uint8_t>blocked(g, path.state)
            if outcome[0] != RAN:
                return steps
            memcpy(kept, path.state, g.stride)
            kept_at, keep_next, jumps = steps, -1, path.jumps
            path.visited = NULL
        elif steps == keep_next:
            memcpy(kept, path.state, g.stride)
            kept_at, keep_next = steps, 2 * keep_next
        if steps - limit >= limit:
            break
        outcome[0] = <uint8_t>advance(path)
        if outcome[0] != RAN:
            if steps > limit:
                break
            return steps
        steps += 1
        if same(g, path.state, kept):
            period[0] = steps - kept_at
    outcome[0] = RAN
    if period[0] >= 0:
        path.visited = NULL  # every instruction up to there ran already
        behind = path[0]
        behind.state = behind_state
        memcpy(behind_state, first, g.stride)
        memcpy(path.state, first, g.stride)
        path.jumps = 0
        for _k in range(period[0]):
            advance(path)
        cycle_start[0] = 0
        while not same(g, path.state, behind_state):
            advance(path)
            advance(&behind)
            cycle_start[0] += 1
        if cycle_start[0] + period[0] <= limit:
            return cycle_start[0] + period[0]
        cycle_start[0] = period[0] = -1
    memcpy(path.state, kept, g.stride)  # the state at `limit`
    path.jumps = jumps
    return limit


def fate_rows(
    object spec,
    uint8_t[:, ::1] rows,
    int64_t limit,
    int64_t[::1] n_steps,
    uint8_t[::1] outcome,
    int64_t[::1] cycle_start,
    int64_t[::1] period,
    int64_t[::1] jumps,
    uint8_t[:, ::1] visited,
):
    """Run every row where it is to its end, to the first state met twice, or to `limit`.

    jumps [n]: how often an ENDW jumped back on the way; visited [n, n_instructions] or [0, 0] (not wanted), zeroed by
    the caller: which instructions ran.
    """
    cdef Geometry g = geometry(spec)
    cdef int16_t match[256]
    cdef uint8_t first[MAX_ROW]
    cdef Path path
    cdef bint visiting = visited.shape[0] == rows.shape[0] and rows.shape[0] > 0
    cdef Py_ssize_t i
    path.g, path.match = &g, match
    with nogil:
        for i in range(rows.shape[0]):
            fit(&g, &rows[i, 0])
            match_brackets(&rows[i, 0] + <int>PROGRAM, g.n_instructions, match)
            memcpy(first, &rows[i, 0], g.stride)
            path.state, path.jumps = &rows[i, 0], 0
            path.visited = &visited[i, 0] if visiting else NULL
            n_steps[i] = find_fate(&path, first, limit, &outcome[i], &cycle_start[i], &period[i])
            jumps[i] = path.jumps


def advance_rows(object spec, uint8_t[:, ::1] rows, const int64_t[::1] n_steps):
    """Run row i where it is for n_steps[i] steps, or to where it stops."""
    cdef Geometry g = geometry(spec)
    cdef int16_t match[256]
    cdef Path path
    cdef Py_ssize_t i
    cdef int64_t _k
    path.g, path.match, path.visited, path.jumps = &g, match, NULL, 0
    with nogil:
        for i in range(rows.shape[0]):
            fit(&g, &rows[i, 0])
            match_brackets(&rows[i, 0] + <int>PROGRAM, g.n_instructions, match)
            path.state = &rows[i, 0]
            for _k in range(n_steps[i]):
                if advance(&path) != RAN:
                    break


cdef enum:
    SHOWN_VALUE = 16    # words of a stream: opcodes, values, branches
    SHOWN_BRANCH = 512
    NOT_REACHED = 255   # no opcode


cdef inline uint64_t fold(uint64_t h, uint64_t word) noexcept nogil:
    """FNV-1a's step, folded on itself; one to one in h and, for words below 2^40, in the word."""
    h = (h ^ word) * <uint64_t>0x100000001B3U
    return h ^ (h >> 29)


def hash_streams(object spec, uint8_t[:, ::1] rows, int64_t n_steps, uint64_t[::1] hashes):
    """The hash of what each run shows in at most n_steps instructions. The rows are run where they are.

    An instruction shows its op, and, if it ran, what GET read, what PUT wrote or whether WHILE or ENDW jumped.
    """
    cdef Geometry g = geometry(spec)
    cdef int16_t match[256]
    cdef Path path
    cdef uint8_t* t
    cdef uint64_t h
    cdef Py_ssize_t i
    cdef int64_t _k
    cdef int op, operand
    path.g, path.match, path.visited, path.jumps = &g, match, NULL, 0
    with nogil:
        for i in range(rows.shape[0]):
            fit(&g, &rows[i, 0])
            match_brackets(&rows[i, 0] + <int>PROGRAM, g.n_instructions, match)
            path.state = t = &rows[i, 0]
            h = 0xCBF29CE484222325U
            for _k in range(n_steps):
                op, operand = t[PROGRAM + t[<int>INSTRUCTION_PTR]], t[g.cells + t[<int>ARRAY_PTR]]
                h = fold(h, op)
                if advance(&path) != RAN:
                    break
                if op == PUT:
                    h = fold(h, SHOWN_VALUE + operand)
                elif op == GET:
                    h = fold(h, SHOWN_VALUE + t[g.cells + t[<int>ARRAY_PTR]])
                elif op == WHILE or op == ENDW:
                    h = fold(h, SHOWN_BRANCH + <int>((operand == 0) == (op == WHILE)))
            hashes[i] = mix64(h)


def hash_reachable(object spec, const uint8_t[:, ::1] rows, int64_t n_steps, uint64_t[::1] hashes):
    """The hash of each state without the instructions that its run does not reach in at most n_steps.

    The instruction that halts or freezes is reached.
    """
    cdef Geometry g = geometry(spec)
    cdef int16_t match[256]
    cdef uint8_t reached[256]
    cdef uint8_t state[MAX_ROW]
    cdef Path path
    cdef uint64_t h
    cdef Py_ssize_t i
    cdef int64_t _k
    cdef int slot, column, n_slots = g.n_instructions
    path.g, path.match, path.visited, path.jumps = &g, match, NULL, 0
    path.state = state
    with nogil:
        for i in range(rows.shape[0]):
            fit(&g, &rows[i, 0])
            match_brackets(&rows[i, 0] + <int>PROGRAM, g.n_instructions, match)
            memcpy(state, &rows[i, 0], g.stride)
            memset(reached, 0, n_slots)
            for _k in range(n_steps):
                reached[state[<int>INSTRUCTION_PTR]] = 1
                if advance(&path) != RAN:
                    break
            h = 0xCBF29CE484222325U
            for column in range(g.stride):
                slot = column - PROGRAM
                h = fold(h, NOT_REACHED if 0 <= slot < n_slots and not reached[slot] else rows[i, column])
            hashes[i] = mix64(h)
