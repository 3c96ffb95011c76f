# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Programs that run for long: each is written while it runs, and what would freeze is taken back and drawn anew."""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy, memset

from cython_vm._isa cimport *
from cython_vm._machine cimport *
from cython_vm._rng cimport *
from cython_vm._splits cimport belongs

cdef enum:
    MAX_ROW = 2048      # above the longest packed row
    LOOP = WHILE        # a whole loop, among the pieces that are drawn
    N_PIECES = 7        # NEXT PREV INC DEC PUT GET, and LOOP
    TRIES = 64          # pieces drawn in vain before a program ends early
    DEEPEST = 2         # loops inside a loop
    ENDS_EARLY = 1024   # one piece in so many is the last; half of these may freeze


cdef struct Writer:
    Geometry g
    uint8_t* row        # the state, with the program as far as it is written
    int written         # slots of the program so far; the run stands there
    int last            # the last slot, which holds STOP
    bint full           # no slot was left for what should be written
    bint io
    int64_t steps       # of the run so far
    int64_t longest     # steps of one piece
    int shares[7]       # how often each piece is drawn


cdef inline void put(Writer* w, int op) noexcept nogil:
    if w.written == w.last:
        w.full = True
        return
    w.row[PROGRAM + w.written] = <uint8_t>op
    w.written += 1


cdef inline void move(Writer* w, int by) noexcept nogil:
    cdef int _k
    for _k in range(by if by > 0 else -by):
        put(w, NEXT if by > 0 else PREV)


cdef inline int pick_piece(Writer* w, Rng* rng, int n_pieces) noexcept nogil:
    """One of the first n_pieces, by their shares."""
    cdef int total = 0, piece
    for piece in range(n_pieces):
        total += w.shares[piece]
    total = share(draw(rng), total)
    for piece in range(n_pieces):
        total -= w.shares[piece]
        if total < 0:
            return piece
    return 0


cdef inline int distance(uint64_t word) noexcept nogil:
    """From −3 to 3, not 0."""
    cdef int by = 1 + share(word << 8, 3)
    return by if word & 1 else -by


cdef void write_loop(Writer* w, Rng* rng, int depth) noexcept nogil:
    """A loop: a drain, a transfer to other cells, a walk to the next 0, an echo, a loop in a loop, or anything."""
    cdef uint64_t word = draw(rng)
    cdef int shape = word & 7, at = 0, by, op, _k
    cdef bint first = (word >> 3) & 1
    put(w, WHILE)
    if (word >> 4) & 3 == 0 and w.io:
        put(w, PUT)
    if shape == 5 and depth == DEEPEST:
        shape = 1
    if shape == 0:
        put(w, DEC)
    elif shape <= 2:
        if first:
            put(w, DEC)
        for _k in range(1 + ((word >> 6) & 1)):
            by = distance(draw(rng))
            move(w, by)
            at += by
            put(w, INC)
            if (word >> 7) & 3 == 0:
                put(w, INC)
        move(w, -at)
        if not first:
            put(w, DEC)
    elif shape == 3:
        put(w, NEXT if first else PREV)
    elif shape == 4 and w.io:
        put(w, GET)
    elif shape == 5:
        by = distance(draw(rng))
        put(w, DEC)
        move(w, by)
        write_loop(w, rng, depth + 1)
        move(w, -by)
    else:
        for _k in range(1 + ((word >> 6) & 3)):
            op = pick_piece(w, rng, LOOP)
            at += (op == NEXT) - (op == PREV)
            put(w, op)
        if (word >> 8) & 3:
            move(w, -at)
        if (word >> 10) & 3:
            put(w, DEC)
    put(w, ENDW)


cdef bint execute(Writer* w) noexcept nogil:
    """Run to the end of what is written; False if that takes too long, or freezes before."""
    cdef uint8_t after[MAX_ROW]
    cdef int v[13]
    cdef int64_t steps = 0
    while w.row[<int>INSTRUCTION_PTR] < w.written:
        transition(&w.g, w.row, after, v, NULL, 0)
        if v[<int>V_OUTCOME] != RAN or steps == w.longest:
            return False
        memcpy(w.row, after, w.g.stride)
        steps += 1
    w.steps += steps
    return True


cdef bint extend(Writer* w, Rng* rng) noexcept nogil:
    """Write one more piece and run it, or leave everything as it was."""
    cdef uint8_t kept[MAX_ROW]
    cdef int written = w.written, piece
    cdef uint64_t word = draw(rng)
    memcpy(kept, w.row, w.g.stride)
    w.full = False
    if word & 3 == 0 and written > 0 and w.row[PROGRAM + written - 1] <= DEC:
        put(w, w.row[PROGRAM + written - 1])  # once more: far walks, large values
    else:
        piece = pick_piece(w, rng, N_PIECES)
        if piece != LOOP:
            put(w, piece)
        elif w.row[w.g.cells + w.row[<int>ARRAY_PTR]] > 0 or (word >> 2) & 3 == 0:
            write_loop(w, rng, 0)
    if w.written > written and not w.full and execute(w):
        return True
    memcpy(w.row, kept, w.g.stride)
    w.written = written
    return False


cdef void draw_shares(Writer* w, Rng* rng, bint loops) noexcept nogil:
    """Every program has a taste of its own: a piece is up to three times as likely as in another, loops more so."""
    cdef int base[7]
    cdef int piece
    cdef uint64_t word
    base[:] = [8, 6, 8, 5, 9, 4, 2]
    for piece in range(LOOP):
        w.shares[piece] = base[piece] * (1 + share(draw(rng), 3)) * (w.io or piece < PUT)
    word = draw(rng) & 3
    w.shares[LOOP] = (base[LOOP] << word if word else 0) * loops


cdef void write_program(Writer* w, Rng* rng, int64_t n_steps, bint stops) noexcept nogil:
    """A program whose run takes n_steps, or as many as its slots allow; a few end before."""
    cdef uint64_t word
    cdef int tries = 0
    while w.steps < n_steps and w.written < w.last and tries < TRIES:
        word = draw(rng)
        if share(word, 256) == 0 and share(word << 8, ENDS_EARLY // 256) == 0:
            if (word >> 1) & 1:
                put(w, pick_piece(w, rng, LOOP))  # unseen: it may freeze
            break
        tries = 0 if extend(w, rng) else tries + 1
    memset(w.row + <int>PROGRAM + w.written, STOP if stops else INC, w.last - w.written)
    w.row[PROGRAM + w.last] = STOP


cdef void draw_input(Rng* rng, const Geometry* g, uint8_t* s) noexcept nogil:
    """Seven inputs in eight are full; half hold uniform values, half the smaller of two."""
    cdef uint64_t shape = draw(rng), word
    cdef int k, a, b, length = g.n_input
    if shape & 7 == 0:
        length = share(shape, g.n_input + 1)
    s[<int>INPUT_LENGTH] = <uint8_t>length
    for k in range(length):
        word = draw(rng)
        a = <int>(word & <uint64_t>g.max_value)
        b = <int>((word >> 8) & <uint64_t>g.max_value) if (shape >> 3) & 1 else a
        s[g.input + k] = <uint8_t>(a if a < b else b)


def long_run_rows(
    object spec,
    uint64_t seed,
    uint64_t start,
    int split,
    int attempts,
    int fewest,
    int most,
    int required,
    uint8_t[:, ::1] rows,
    const uint64_t[::1] numbers=None,
):
    """Fill rows start, start + 1, … of the stream of `seed`, or those of `numbers` [n], with states where runs start.

    Every program is written for a number of steps uniform from `fewest` to `most`, and drawn again if it
    does not make `required` steps to the end of what was written. split: a `Split`. Returns the first row given up, or
    -1.
    """
    cdef Writer w
    cdef Rng rng
    cdef uint64_t key = mix64(seed + 0xD1B54A32D192ED03U)
    cdef uint8_t begun[MAX_ROW]
    cdef Py_ssize_t i
    cdef int _attempt, n_steps = most, last = spec.n_instructions - 1
    cdef bint stops = spec.stops, loops = spec.loops, numbered = numbers is not None
    w.g = geometry(spec)
    w.io = spec.io
    w.last = last
    with nogil:
        for i in range(rows.shape[0]):
            seed_row(&rng, key, numbers[i] if numbered else start + <uint64_t>i)
            w.row = &rows[i, 0]
            for _attempt in range(attempts):
                if fewest < most:
                    n_steps = fewest + <int>(draw(&rng) % <uint64_t>(most - fewest + 1))
                w.longest = 4 * n_steps
                memset(w.row, 0, w.g.stride)
                draw_input(&rng, &w.g, w.row)
                draw_shares(&w, &rng, loops)
                memcpy(begun, w.row, w.g.stride)
                w.written, w.steps = 0, 0
                write_program(&w, &rng, n_steps, stops)
                if w.steps < required:
                    continue
                memcpy(begun + <int>PROGRAM, w.row + <int>PROGRAM, w.g.n_instructions)
                memcpy(w.row, begun, w.g.stride)
                if belongs(hash_program(w.row + <int>PROGRAM, w.g.n_instructions), split):
                    break
            else:
                with gil:
                    return i
    return -1
