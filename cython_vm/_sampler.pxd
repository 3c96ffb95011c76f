# cython: language_level=3
"""What drawing states takes, and drawing a block of them, for the kernels that go on with them."""

from libc.stdint cimport uint8_t, uint64_t

from cython_vm._isa cimport Geometry


cdef enum Strata:
    BY_OUTCOME = 0          # rows of strata: op, outcome, branch (-1: any)
    BY_LOOP_DEPTH = 1       # loops around instruction_ptr, its number among `depths`, unused
    BY_JUMP_DISTANCE = 2    # slots from the bracket at instruction_ptr to its partner (0: no bracket), unused, unused


cdef enum:
    LANES = 32              # rows of a block
    PITCH_MORE = 8          # rows of a block lie `stride` and so many bytes apart
    BLOCK_BYTES = 33280     # LANES of the longest


cdef struct Choices:
    const uint64_t* thresholds  # [slots left, loops open, 2]: see _programs_table in sampling.py
    const double* per_op        # [slots left, loops open]


cdef struct Plan:
    Geometry g                  # of the row being drawn
    uint64_t key                # the mixed seed
    int n_slots                 # instructions of the longest program
    Choices closing             # so that all loops are closed at the end
    const uint64_t* depth_thresholds  # [depths, slots left, loops open, 2]: so that as many are open at the end
    const double* depth_per_op
    const uint64_t* places      # [depths, instruction_ptr]: cumulative shares of the pointer's slot
    int n_depths                # loops open, at most, and one
    const uint8_t* choices      # opcodes: WHILE, ENDW, then the n_plain others
    int n_plain
    bint stops
    int split                   # a Split
    int attempts                # redraws before a row is given up
    const int* smallest         # [4] sizes of a padded machine's rows: uniform between these and the machine's
    const int* largest
    Strata by
    int n_strata                # 0: the natural distribution
    const signed char* strata   # [n_strata, 3]
    const uint64_t* strata_thresholds


cdef class Stream:
    cdef Plan plan
    cdef readonly object spec, strata
    cdef readonly int split, by
    cdef tuple arrays


# Rows of the stream into `block`, n ≤ LANES: numbers[0] … numbers[n − 1]; where that is NULL, start … start + n − 1.
# Returns the first that was given up and its stratum (-1: none), or -1. A padded row leaves its own sizes in the plan.
cdef int draw_block(
    Plan* plan, uint64_t start, const uint64_t* numbers, int n, uint8_t* block, int* stratum
) noexcept nogil
