# cython: language_level=3
"""Random numbers: xoshiro256++, one generator a row, seeded with SplitMix64.

xoshiro256++: D. Blackman and S. Vigna, "Scrambled linear pseudorandom number generators", ACM TOMS 47(4), 2021.
SplitMix64: G. L. Steele, D. Lea and C. H. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014; the
authors of xoshiro recommend it for seeding. The 64-bit mixer is its finaliser (variant 13 of D. Stafford).
"""

from libc.stdint cimport uint8_t, uint64_t


cdef extern from *:
    """
    #include <string.h>
    #if defined(_MSC_VER)
    #include <intrin.h>
    static __inline int tape_trailing_zeros(unsigned __int64 x) {
        unsigned long at;
        _BitScanForward64(&at, x);
        return at;
    }
    #else
    #define tape_trailing_zeros(x) __builtin_ctzll(x)
    #endif
    static inline void tape_store_word(unsigned char* out, unsigned long long word) {
    #if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        word = __builtin_bswap64(word);
    #endif
        memcpy(out, &word, 8);
    }
    """
    int trailing_zeros "tape_trailing_zeros"(uint64_t x) noexcept nogil  # x is not 0
    void store_word "tape_store_word"(uint8_t* out, uint64_t word) noexcept nogil   # the lowest byte first, everywhere


cdef struct Rng:
    uint64_t s0
    uint64_t s1
    uint64_t s2
    uint64_t s3


cdef inline uint64_t mix64(uint64_t z) noexcept nogil:
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU
    return z ^ (z >> 31)


cdef inline uint64_t rotl(uint64_t x, int k) noexcept nogil:
    return (x << k) | (x >> (64 - k))


cdef inline void seed_row(Rng* rng, uint64_t key, uint64_t row) noexcept nogil:
    """The generator of one row, from the mixed seed; the row number is mixed too, so that rows start far apart."""
    cdef uint64_t gamma = 0x9E3779B97F4A7C15U
    cdef uint64_t state = mix64(key ^ mix64(row + gamma))
    state += gamma
    rng.s0 = mix64(state)
    state += gamma
    rng.s1 = mix64(state)
    state += gamma
    rng.s2 = mix64(state)
    state += gamma
    rng.s3 = mix64(state)


cdef inline uint64_t draw(Rng* rng) noexcept nogil:
    """The next 64 random bits."""
    cdef uint64_t result = rotl(rng.s0 + rng.s3, 23) + rng.s0
    cdef uint64_t t = rng.s1 << 17
    rng.s2 ^= rng.s0
    rng.s3 ^= rng.s1
    rng.s1 ^= rng.s2
    rng.s0 ^= rng.s3
    rng.s2 ^= t
    rng.s3 = rotl(rng.s3, 45)
    return result


cdef inline int share(uint64_t word, int n) noexcept nogil:
    """An integer from 0 to n − 1, n ≤ 256, from the top 56 bits; every probability is within 2^-56 of 1/n."""
    return <int>(((word >> 8) * <uint64_t>n) >> 56)


cdef inline int length_of(uint64_t word, int n) noexcept nogil:
    """A buffer's length: uniform over 0 … n, geometric (1/2, cut at n), empty or full, as the lowest two bits say."""
    cdef int lengths[4]  # looked up: which of them it is cannot be predicted
    lengths[0] = share(word, n + 1)
    lengths[1] = trailing_zeros((word >> 2) | (<uint64_t>1 << 62))
    lengths[1] = lengths[1] if lengths[1] < n else n
    lengths[2] = 0
    lengths[3] = n
    return lengths[word & 3]
