// Random numbers that depend on their coordinates alone: Philox4x32-10 (Salmon et al., 2011).
//
// KERNELS  philox, uniform, gumbel
// Chain    a pure function of (seed, sample index, position, token id).
#pragma once
#include "math.h"

namespace xllmc {

// Where a row's random numbers come from. `sample` tells the answers to one request apart.
struct RandomRow {
    uint64_t seed;
    uint64_t sample;
    uint64_t position;
};

// Sixty-four words for token ids 64*block .. 64*block + 63: out[w], lane l is id 64*block + 16*w + l.
//
// Counter words: (16*block + l, position, sample, high halves of position << 16 ^ sample); key: the seed.
XLLMC_INLINE void philox(const RandomRow& row, uint32_t block, I16 out[4]) {
    I16 c0 = set1_int(block * 16) + iota();
    I16 c1 = set1_int(uint32_t(row.position)), c2 = set1_int(uint32_t(row.sample));
    I16 c3 = set1_int(uint32_t(row.position >> 32) << 16 ^ uint32_t(row.sample >> 32));
    uint32_t k0 = uint32_t(row.seed), k1 = uint32_t(row.seed >> 32);
    for (int round = 0; round < 10; round++) {
        I16 high0, low0, high1, low1;
        multiply_wide(c0, set1_int(0xD2511F53), high0, low0);
        multiply_wide(c2, set1_int(0xCD9E8D57), high1, low1);
        c0 = high1 ^ c1 ^ set1_int(k0), c1 = low1;
        c2 = high0 ^ c3 ^ set1_int(k1), c3 = low0;
        k0 += 0x9E3779B9, k1 += 0xBB67AE85;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

// (bits + 1/2) / 2^32, finely spaced near 0 and always below 1.
XLLMC_INLINE F16 uniform(I16 bits) {
    // In two exact halves: a lane is a signed integer to the converter.
    F16 high = to_float(shift_right<16>(bits)), low = to_float(bits & set1_int(0xffff)) + set1(0.5f);
    F16 v = fma(high, set1(0x1p-16f), low * set1(0x1p-32f));
    return min(v, set1(1.0f - 0x1p-24f));
}

// No noise is above this: -log(2^-33), rounded up.
constexpr float gumbel_max = 22.9f;

// Gumbel noise from a uniform v: -log(E) with E = -log(1 - v) exponential, so that large noise comes from small v.
XLLMC_INLINE F16 gumbel(F16 v) {
    // log(1 - v) by Kahan's correction of the rounding of 1 - v.
    F16 w = set1(1.0f) - v;
    F16 e = select(equal(w, set1(1.0f)), v, log(w) * v / (w - set1(1.0f)));
    return -log(e);
}

}  // namespace xllmc
