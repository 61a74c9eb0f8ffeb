// The one inner product of this library: rows of a left operand against a panel of 32 columns. Matrix products use it
// with panels of packed weights, attention with pages of keys.
//
// KERNELS  stage (left rows made ready), panel_product
// Chain    float: fma over K in order. bf16 with AVX512-BF16: VDPBF16PS over pairs of K in order. bf16 without: for
//          each pair of K in order, fma of the even then of the odd element, in float32. Each starts at +0, and is the
//          same for every number of rows.
//
// A panel is what recipe.pack_panels makes: float [K][32], bf16 [ceil(K/2)][32][2].
#pragma once
#include "simd.h"

namespace xllmc {

constexpr int panel_columns = 32;

// Rows in the largest register tile: more would not leave registers for the panel (a widened bf16 takes two).
template <class T> constexpr int tile_rows = XLLMC_AVX512 ? 12 : sizeof(T) == 2 ? 2 : 3;

// The left operand in scratch memory: what one step of the chain broadcasts is contiguous, and the stride between rows
// is no power of two, so that the rows of a tile do not meet in one set of the cache.
template <class T> struct Staged;
template <> struct Staged<float> {
    using element = float;
    static constexpr int steps(int k) { return k; }
    static constexpr int elements(int k) { return k; }
};
template <> struct Staged<bf16> {
#if defined(__AVX512BF16__)
    using element = uint32_t;  // a pair of bf16
    static constexpr int elements(int k) { return (k + 1) / 2; }
#else
    using element = float;
    static constexpr int elements(int k) { return (k + 1) / 2 * 2; }
#endif
    static constexpr int steps(int k) { return (k + 1) / 2; }
};

// Elements between two staged rows of K.
template <class T> constexpr int staged_stride(int k) { return (Staged<T>::elements(k) + 15) / 16 * 16 + 16; }
template <class T> constexpr int64_t panel_bytes(int k) { return int64_t(Staged<T>::steps(k)) * 128; }

template <class T> inline void stage(const T* row, typename Staged<T>::element* out, int k) {
    if constexpr (sizeof(*out) == sizeof(T)) {
        memcpy(out, row, size_t(k) * sizeof(T));
    } else {
#if defined(__AVX512BF16__)
        if (k % 2) out[k / 2] = row[k - 1].bits;
        memcpy(out, row, size_t(k / 2 * 2) * sizeof(T));
#else
        int i = 0;
        for (; i + lanes <= k; i += lanes) store(out + i, load(row + i));
        for (; i < k; i++) out[i] = float(row[i]);
        if (k % 2) out[k] = 0;
#endif
    }
}

template <class T, int rows>
__attribute__((noinline)) void panel_tile(const typename Staged<T>::element* left, int64_t stride, const void* panel,
                                          int steps, float* out) {
    F16 sum[rows][2];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = zero();
    const char* p = static_cast<const char*>(panel);
    // No prefetch instructions: the panel is one forward stream, which the hardware follows faster without.
    for (int s = 0; s < steps; s++, p += 128) {
        if constexpr (sizeof(T) == 4) {
            F16 w0 = load(reinterpret_cast<const float*>(p)), w1 = load(reinterpret_cast<const float*>(p) + lanes);
#pragma GCC unroll 12
            for (int r = 0; r < rows; r++) {
                F16 x = set1(left[r * stride + s]);
                sum[r][0] = fma(w0, x, sum[r][0]);
                sum[r][1] = fma(w1, x, sum[r][1]);
            }
        } else {
#if defined(__AVX512BF16__)
            __m512bh w0 = (__m512bh)_mm512_loadu_si512(p), w1 = (__m512bh)_mm512_loadu_si512(p + 64);
#pragma GCC unroll 12
            for (int r = 0; r < rows; r++) {
                auto x = (__m512bh)_mm512_set1_epi32(int32_t(left[r * stride + s]));
                sum[r][0].v = _mm512_dpbf16_ps(sum[r][0].v, w0, x);
                sum[r][1].v = _mm512_dpbf16_ps(sum[r][1].v, w1, x);
            }
#else
            for (int odd = 0; odd < 2; odd++) {
                I16 w0 = load(static_cast<const void*>(p)), w1 = load(static_cast<const void*>(p + 64));
                F16 v0 = as_float(odd ? w0 & set1_int(0xffff0000) : shift_left<16>(w0));
                F16 v1 = as_float(odd ? w1 & set1_int(0xffff0000) : shift_left<16>(w1));
#pragma GCC unroll 12
                for (int r = 0; r < rows; r++) {
                    F16 x = set1(left[r * stride + 2 * s + odd]);
                    sum[r][0] = fma(v0, x, sum[r][0]);
                    sum[r][1] = fma(v1, x, sum[r][1]);
                }
            }
#endif
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        store(out + r * panel_columns, sum[r][0]);
        store(out + r * panel_columns + lanes, sum[r][1]);
    }
}

// out[r][32] = left row r x panel, for 1..tile_rows<T> rows.
template <class T, int n = 1>
inline void panel_product(int rows, const typename Staged<T>::element* left, int64_t stride, const void* panel,
                          int steps, float* out) {
    if constexpr (n < tile_rows<T>) {
        if (rows != n) return panel_product<T, n + 1>(rows, left, stride, panel, steps, out);
    }
    panel_tile<T, n>(left, stride, panel, steps, out);
}

// Rows [begin, begin + size) of the `index`-th of the fewest, most even tiles that hold `rows`.
struct Tile {
    int begin, size;
};
template <class T> inline int tile_count(int rows) { return (rows + tile_rows<T> - 1) / tile_rows<T>; }
template <class T> inline Tile tile_of(int rows, int index) {
    int count = tile_count<T>(rows), begin = rows * index / count;
    return {begin, rows * (index + 1) / count - begin};
}

}  // namespace xllmc
