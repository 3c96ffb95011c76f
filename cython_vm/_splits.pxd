# cython: language_level=3
"""Which split a hash belongs to, for the kernels. The numbers are places in SPLITS of splits.py."""

from libc.stdint cimport uint64_t


cdef enum Split:
    IN_ALL = 0
    IN_TRAINING = 1     # not evaluation: what runs before the validation split learned from
    IN_EVALUATION = 2
    IN_VALIDATION = 3
    IN_FIT = 4          # neither evaluation nor validation


cdef inline bint belongs(uint64_t hash, int split) noexcept nogil:
    """Whether the unit of this hash is in the split."""
    cdef int part
    if split == IN_ALL:
        return True
    part = <int>(hash % 20)
    if split == IN_TRAINING:
        return part != 0
    if split == IN_FIT:
        return part > 1
    return part == (split == IN_VALIDATION)  # evaluation is part 0, validation part 1
