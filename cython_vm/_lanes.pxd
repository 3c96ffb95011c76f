# cython: language_level=3
"""Many rows of the natural distribution side by side: slot after slot, each for all rows of a block.

The numbers and the order in which a row takes them are those of the row-by-row functions of `_sampler.pyx`. What
differs is what waits for what: neighbouring rows depend on nothing of each other, so the processor works on several at
once, in vectors where it has them, and no branch depends on what is drawn.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from cython_vm._isa cimport *
from cython_vm._rng cimport *
from cython_vm._sampler cimport LANES, Plan


cdef extern from *:
    """
    #include <stdint.h>
    #define TAPE_LANES 32
    #if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__GLIBC__) \\
        && !defined(__SANITIZE_ADDRESS__)
    #define TAPE_VECTORS __attribute__((target_clones("avx2", "default")))  /* chosen when the module is loaded */
    #else
    #define TAPE_VECTORS
    #endif

    typedef struct { uint64_t s0[TAPE_LANES], s1[TAPE_LANES], s2[TAPE_LANES], s3[TAPE_LANES]; } TapeLanes;

    /* The next word of every generator: xoshiro256++, see _rng.pxd. */
    TAPE_VECTORS static void tape_draw_lanes(TapeLanes* restrict g, uint64_t* restrict words) {
        for (int i = 0; i < TAPE_LANES; i++) {
            uint64_t s0 = g->s0[i], s1 = g->s1[i], s2 = g->s2[i], s3 = g->s3[i], sum = s0 + s3, t = s1 << 17;
            words[i] = ((sum << 23) | (sum >> 41)) + s0;
            s2 ^= s0;
            s3 ^= s1;
            g->s1[i] = s1 ^ s2;
            g->s0[i] = s0 ^ s3;
            g->s2[i] = s2 ^ t;
            g->s3[i] = (s3 << 45) | (s3 >> 19);
        }
    }

    /* Eight values a lane in each of the four shapes, from words a and b; halves of the mean go up where c says so. */
    TAPE_VECTORS static void tape_shapes(
        const uint64_t* restrict a, const uint64_t* restrict b, const uint64_t* restrict c, uint64_t mask,
        uint64_t (*restrict drawn)[TAPE_LANES]
    ) {
        const uint64_t ones = 0x0101010101010101U;
        for (int i = 0; i < TAPE_LANES; i++) {
            uint64_t x = a[i] & mask, y = b[i] & mask;
            drawn[0][i] = x;
            drawn[1][i] = y;
            drawn[3][i] = (x & y) + (((x ^ y) >> 1) & (127 * ones)) + ((x ^ y) & c[i] & ones);
        }
        const uint8_t* p = (const uint8_t*)drawn[0];
        uint8_t *least = (uint8_t*)drawn[1], *most = (uint8_t*)drawn[2];
        for (int i = 0; i < 8 * TAPE_LANES; i++) {
            uint8_t x = p[i], y = least[i];
            least[i] = x < y ? x : y;
            most[i] = x < y ? y : x;
        }
    }
    """
    ctypedef struct Lanes "TapeLanes":
        uint64_t s0[32]
        uint64_t s1[32]
        uint64_t s2[32]
        uint64_t s3[32]

    void draw_lanes "tape_draw_lanes"(Lanes* lanes, uint64_t* words) noexcept nogil
    void shapes "tape_shapes"(
        const uint64_t* a, const uint64_t* b, const uint64_t* c, uint64_t mask, uint64_t (*drawn)[32]
    ) noexcept nogil


cdef inline void seed_lanes(
    Lanes* lanes, uint64_t key, uint64_t start, const uint64_t* numbers, int n
) noexcept nogil:
    """The generators of n rows by their numbers, the last of them again in the lanes that are left; or, where `numbers`
    is NULL, of rows start … start + 31."""
    cdef Rng rng
    cdef int i
    for i in range(LANES):
        seed_row(&rng, key, start + <uint64_t>i if numbers == NULL else numbers[i if i < n else n - 1])
        lanes.s0[i], lanes.s1[i], lanes.s2[i], lanes.s3[i] = rng.s0, rng.s1, rng.s2, rng.s3


cdef inline void program_lanes(
    Lanes* lanes, const Plan* plan, uint8_t* rows, Py_ssize_t pitch
) noexcept nogil:
    """Uniform over all valid programs: `draw_program` of every row."""
    cdef uint64_t words[32]
    cdef Py_ssize_t at[32]  # of (slots left, loops open) in the tables
    cdef const uint64_t* thresholds = plan.closing.thresholds
    cdef const double* per_op = plan.closing.per_op
    cdef uint8_t choices[16]
    cdef int i, k, other, which, n_plain = plan.n_plain, last = plan.g.n_instructions - 1
    cdef int opens, brackets
    cdef Py_ssize_t n_depths = plan.n_depths
    cdef uint64_t u, second
    cdef uint8_t* program = rows + <int>PROGRAM
    memcpy(choices, plan.choices, 2 + n_plain)
    for i in range(LANES):
        at[i] = last * n_depths
        program[i * pitch + last] = STOP
    for k in range(last):
        draw_lanes(lanes, words)
        for i in range(LANES):
            u = words[i] >> 1
            second = thresholds[2 * at[i] + 1]
            opens = u < thresholds[2 * at[i]]
            brackets = u < second
            other = <int>(<double><int64_t>(u - second) * per_op[at[i]])
            other = 2 + (other if other < n_plain else n_plain - 1)
            which = (other & (brackets - 1)) | ((1 - opens) & -brackets)
            program[i * pitch + k] = choices[which]
            at[i] += 2 * opens - brackets - n_depths


cdef inline void value_lanes(Lanes* lanes, const Plan* plan, uint8_t* rows, Py_ssize_t pitch) noexcept nogil:
    """`draw_values` of every row, whose buffers' lengths are drawn. Writes up to 7 bytes past the last slot."""
    cdef uint64_t shape[32]
    cdef uint64_t a[32]
    cdef uint64_t b[32]
    cdef uint64_t c[32]
    cdef uint64_t drawn[4][32]
    cdef uint64_t mask = 0x0101010101010101U * <uint64_t>plan.g.max_value
    cdef uint64_t in_cells, in_input, in_output, word
    cdef int i, k, cells = plan.g.n_cells, buffers = cells + plan.g.n_input
    cdef uint8_t* s
    draw_lanes(lanes, shape)
    for k in range(0, buffers + plan.g.n_output, 8):
        draw_lanes(lanes, a)
        draw_lanes(lanes, b)
        draw_lanes(lanes, c)
        shapes(a, b, c, mask, drawn)
        in_cells = first_bytes(cells - k)
        in_input = first_bytes(buffers - k) & ~in_cells
        in_output = ~first_bytes(buffers - k)
        for i in range(LANES):
            s = rows + i * pitch
            word = drawn[shape[i] & 3][i] & in_cells
            word |= drawn[(shape[i] >> 2) & 3][i] & in_input & first_bytes(cells + s[<int>INPUT_LENGTH] - k)
            word |= drawn[(shape[i] >> 4) & 3][i] & in_output & first_bytes(buffers + s[<int>OUTPUT_LENGTH] - k)
            store_word(s + plan.g.cells + k, word)


cdef inline uint64_t first_bytes(int n) noexcept nogil:
    """A word whose first n bytes are 255 and the others 0; n may lie outside of 0 … 8. No branch."""
    n &= ~(n >> 31)
    n -= (n - 8) & ~((n - 8) >> 31)
    return ~((~<uint64_t>0 << (4 * n)) << (4 * n))


cdef inline void row_lanes(
    const Plan* plan, uint64_t start, const uint64_t* numbers, int n, uint8_t* rows, Py_ssize_t pitch
) noexcept nogil:
    """32 rows of the stream, as `seed_lanes` says, `pitch` bytes apart: at least 7 more than a row has."""
    cdef Lanes lanes
    cdef uint64_t ip[32]
    cdef uint64_t ap[32]
    cdef uint64_t given[32]
    cdef uint64_t written[32]
    cdef uint8_t* s
    cdef int i
    for i in range(LANES):
        store_word(rows + i * pitch + plan.g.stride - 8, 0)  # what pads a row to whole words
    seed_lanes(&lanes, plan.key, start, numbers, n)
    draw_lanes(&lanes, ip)
    program_lanes(&lanes, plan, rows, pitch)
    draw_lanes(&lanes, ap)
    draw_lanes(&lanes, given)
    draw_lanes(&lanes, written)
    for i in range(LANES):
        s = rows + i * pitch
        s[<int>INSTRUCTION_PTR] = <uint8_t>share(ip[i], plan.g.n_instructions)
        s[<int>ARRAY_PTR] = <uint8_t>share(ap[i], plan.g.n_cells)
        s[<int>INPUT_LENGTH] = <uint8_t>length_of(given[i], plan.g.n_input)
        s[<int>OUTPUT_LENGTH] = <uint8_t>length_of(written[i], plan.g.n_output)
    value_lanes(&lanes, plan, rows, pitch)
