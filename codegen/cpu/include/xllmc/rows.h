// One row at a time, sixteen elements at once: what norms and generated loops are made of.
//
// KERNELS  for_row, row_sum, row_max; element; load_ints, store_ints
// Chain    row_sum, row_max: four accumulators of 16 lanes take the vectors in turn; (0+1)+(2+3), then the lanes in
//          reduce_add's (reduce_max's) order.
#pragma once
#include <math.h>

#include "simd.h"

namespace xllmc {

// body(vector at i, count) over a row of H elements.
template <int H, class Body> XLLMC_INLINE void for_row(Body body) {
    for (int i = 0; i + lanes <= H; i += lanes) body(i, lanes);
    if constexpr (H % lanes) body(H - H % lanes, H % lanes);
}

// The sum over i < H of term(vector at i, count), lanes past H being zero.
template <int H, class Term> XLLMC_INLINE float row_sum(Term term) {
    F16 sum[4] = {zero(), zero(), zero(), zero()};
    int i = 0;
    for (; i + 4 * lanes <= H; i += 4 * lanes)
        for (int j = 0; j < 4; j++) sum[j] += term(i + j * lanes, lanes);
    for (int j = 0; i < H; i += lanes, j++) sum[j] += term(i, H - i < lanes ? H - i : lanes);
    return reduce_add((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

// The largest over i < H of term(vector at i, count), lanes past H being -inf; NaN if any is NaN, as in torch.
template <int H, class Term> XLLMC_INLINE float row_max(Term term) {
    const F16 least = set1(-INFINITY);
    F16 top[4] = {least, least, least, least};
    int i = 0;
    for (; i + 4 * lanes <= H; i += 4 * lanes)
        for (int j = 0; j < 4; j++) top[j] = maximum(top[j], term(i + j * lanes, lanes));
    for (int j = 0; i < H; i += lanes, j++) top[j] = maximum(top[j], term(i, H - i < lanes ? H - i : lanes));
    const F16 all = maximum(maximum(top[0], top[1]), maximum(top[2], top[3]));
    return any(is_nan(all)) ? NAN : reduce_max(all);
}

// The first `count` lanes of x, and `rest` in the others.
XLLMC_INLINE F16 keep(F16 x, int count, float rest) {
    return count >= lanes ? x : select(tail_mask(count), x, set1(rest));
}

// The first lane of x, in all lanes.
XLLMC_INLINE F16 element(F16 x) {
    alignas(64) float buffer[lanes];
    store(buffer, x);
    return set1(buffer[0]);
}

// Integers as floats and back: exact below 2^24.
XLLMC_INLINE F16 load_ints(const int32_t* p, int count) {
    return to_float(as_int(load_some(reinterpret_cast<const float*>(p), count)));
}
XLLMC_INLINE void store_ints(int32_t* p, F16 x, int count) {
    store_some(reinterpret_cast<float*>(p), as_float(to_int(x)), count);
}

}  // namespace xllmc
