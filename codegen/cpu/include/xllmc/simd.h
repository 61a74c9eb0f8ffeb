// Sixteen float lanes, whatever the instruction set: one zmm register (x86-64-v4), or two ymm (x86-64-v3).
//
// KERNELS  F16 / I16 / Mask16 with arithmetic, masked-tail loads and stores of float and bf16, fixed-order reductions.
// Chain    reduce_add: lane i + lane i+8, then +4, +2, +1; the same on every instruction set.
#pragma once
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define XLLMC_INLINE inline __attribute__((always_inline))

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#define XLLMC_AVX512 1
#else
#define XLLMC_AVX512 0
#endif

namespace xllmc {

constexpr int lanes = 16;

// The upper half of a float32. Rounds to nearest, ties to even; every NaN becomes the quiet NaN 0x7fc0.
struct bf16 {
    uint16_t bits;
    bf16() = default;
    explicit bf16(float value) {
        uint32_t b;
        memcpy(&b, &value, 4);
        bits = value != value ? 0x7fc0 : uint16_t((b + 0x7fff + ((b >> 16) & 1)) >> 16);
    }
    explicit operator float() const {
        uint32_t b = uint32_t(bits) << 16;
        float value;
        memcpy(&value, &b, 4);
        return value;
    }
};

#if XLLMC_AVX512

struct F16 { __m512 v; };
struct I16 { __m512i v; };
struct Mask16 { __mmask16 v; };
#define XLLMC_UNARY(R, name, A, e512, e256) \
    XLLMC_INLINE R name(A a_) { auto a = a_.v; return {e512}; }
#define XLLMC_BINARY(R, name, A, e512, e256) \
    XLLMC_INLINE R name(A a_, A b_) { auto a = a_.v, b = b_.v; return {e512}; }
#define XLLMC_TERNARY(name, e512, e256) \
    XLLMC_INLINE F16 name(F16 a_, F16 b_, F16 c_) { auto a = a_.v, b = b_.v, c = c_.v; return {e512}; }
#define XLLMC_COMPARE(R, name, A, e512, e256) XLLMC_BINARY(R, name, A, e512, e256)

#else

struct F16 { __m256 lo, hi; };
struct I16 { __m256i lo, hi; };
struct Mask16 { __m256 lo, hi; };
#define XLLMC_UNARY(R, name, A, e512, e256)                       \
    XLLMC_INLINE R name(A a_) {                                   \
        auto half = [](auto a) { return e256; };                  \
        return {half(a_.lo), half(a_.hi)};                        \
    }
#define XLLMC_BINARY(R, name, A, e512, e256)                      \
    XLLMC_INLINE R name(A a_, A b_) {                             \
        auto half = [](auto a, auto b) { return e256; };          \
        return {half(a_.lo, b_.lo), half(a_.hi, b_.hi)};          \
    }
#define XLLMC_TERNARY(name, e512, e256)                           \
    XLLMC_INLINE F16 name(F16 a_, F16 b_, F16 c_) {               \
        auto half = [](auto a, auto b, auto c) { return e256; };  \
        return {half(a_.lo, b_.lo, c_.lo), half(a_.hi, b_.hi, c_.hi)}; \
    }
#define XLLMC_COMPARE(R, name, A, e512, e256) XLLMC_BINARY(R, name, A, e512, e256)

#endif

// clang-format off
XLLMC_BINARY(F16, operator+, F16, _mm512_add_ps(a, b), _mm256_add_ps(a, b))
XLLMC_BINARY(F16, operator-, F16, _mm512_sub_ps(a, b), _mm256_sub_ps(a, b))
XLLMC_BINARY(F16, operator*, F16, _mm512_mul_ps(a, b), _mm256_mul_ps(a, b))
XLLMC_BINARY(F16, operator/, F16, _mm512_div_ps(a, b), _mm256_div_ps(a, b))
// min and max give their second operand when either is NaN.
XLLMC_BINARY(F16, min, F16, _mm512_min_ps(a, b), _mm256_min_ps(a, b))
XLLMC_BINARY(F16, max, F16, _mm512_max_ps(a, b), _mm256_max_ps(a, b))
XLLMC_UNARY(F16, sqrt, F16, _mm512_sqrt_ps(a), _mm256_sqrt_ps(a))
XLLMC_UNARY(F16, operator-, F16, _mm512_xor_ps(a, _mm512_set1_ps(-0.0f)), _mm256_xor_ps(a, _mm256_set1_ps(-0.0f)))
XLLMC_UNARY(F16, abs, F16, _mm512_andnot_ps(_mm512_set1_ps(-0.0f), a), _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a))
XLLMC_UNARY(F16, floor, F16, _mm512_roundscale_ps(a, 9), _mm256_round_ps(a, 9))
XLLMC_UNARY(F16, ceil, F16, _mm512_roundscale_ps(a, 10), _mm256_round_ps(a, 10))
XLLMC_UNARY(F16, round, F16, _mm512_roundscale_ps(a, 8), _mm256_round_ps(a, 8))  // ties to even
XLLMC_TERNARY(fma, _mm512_fmadd_ps(a, b, c), _mm256_fmadd_ps(a, b, c))     // a*b + c
XLLMC_TERNARY(fnma, _mm512_fnmadd_ps(a, b, c), _mm256_fnmadd_ps(a, b, c))  // c - a*b

XLLMC_COMPARE(Mask16, less, F16, _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), _mm256_cmp_ps(a, b, _CMP_LT_OQ))
XLLMC_COMPARE(Mask16, less_equal, F16, _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ), _mm256_cmp_ps(a, b, _CMP_LE_OQ))
XLLMC_COMPARE(Mask16, greater, F16, _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), _mm256_cmp_ps(a, b, _CMP_GT_OQ))
XLLMC_COMPARE(Mask16, greater_equal, F16, _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ), _mm256_cmp_ps(a, b, _CMP_GE_OQ))
XLLMC_COMPARE(Mask16, equal, F16, _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ), _mm256_cmp_ps(a, b, _CMP_EQ_OQ))
XLLMC_UNARY(Mask16, is_nan, F16, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), _mm256_cmp_ps(a, a, _CMP_UNORD_Q))

XLLMC_BINARY(I16, operator+, I16, _mm512_add_epi32(a, b), _mm256_add_epi32(a, b))
XLLMC_BINARY(I16, operator-, I16, _mm512_sub_epi32(a, b), _mm256_sub_epi32(a, b))
XLLMC_BINARY(I16, operator&, I16, _mm512_and_si512(a, b), _mm256_and_si256(a, b))
XLLMC_BINARY(I16, operator|, I16, _mm512_or_si512(a, b), _mm256_or_si256(a, b))
XLLMC_BINARY(I16, operator^, I16, _mm512_xor_si512(a, b), _mm256_xor_si256(a, b))
XLLMC_UNARY(F16, to_float, I16, _mm512_cvtepi32_ps(a), _mm256_cvtepi32_ps(a))
XLLMC_UNARY(I16, to_int, F16, _mm512_cvtps_epi32(a), _mm256_cvtps_epi32(a))  // to nearest, ties to even
XLLMC_UNARY(I16, as_int, F16, _mm512_castps_si512(a), _mm256_castps_si256(a))
XLLMC_UNARY(F16, as_float, I16, _mm512_castsi512_ps(a), _mm256_castsi256_ps(a))
template <int n> XLLMC_UNARY(I16, shift_left, I16, _mm512_slli_epi32(a, n), _mm256_slli_epi32(a, n))
template <int n> XLLMC_UNARY(I16, shift_right, I16, _mm512_srli_epi32(a, n), _mm256_srli_epi32(a, n))
template <int n> XLLMC_UNARY(I16, shift_right_signed, I16, _mm512_srai_epi32(a, n), _mm256_srai_epi32(a, n))
// clang-format on

#undef XLLMC_UNARY
#undef XLLMC_BINARY
#undef XLLMC_TERNARY
#undef XLLMC_COMPARE

// What differs between the two kinds of register.
#if XLLMC_AVX512

XLLMC_INLINE F16 set1(float x) { return {_mm512_set1_ps(x)}; }
XLLMC_INLINE I16 set1_int(uint32_t x) { return {_mm512_set1_epi32(int32_t(x))}; }
XLLMC_INLINE I16 iota() { return {_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)}; }
XLLMC_INLINE Mask16 mask_of(uint32_t bits) { return {__mmask16(bits)}; }
XLLMC_INLINE uint32_t bits_of(Mask16 m) { return m.v; }
XLLMC_INLINE F16 select(Mask16 m, F16 a, F16 b) { return {_mm512_mask_blend_ps(m.v, b.v, a.v)}; }
XLLMC_INLINE I16 select(Mask16 m, I16 a, I16 b) { return {_mm512_mask_blend_epi32(m.v, b.v, a.v)}; }

XLLMC_INLINE F16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
XLLMC_INLINE void store(float* p, F16 x) { _mm512_storeu_ps(p, x.v); }
XLLMC_INLINE I16 load(const void* p) { return {_mm512_loadu_si512(p)}; }
XLLMC_INLINE void store(void* p, I16 x) { _mm512_storeu_si512(p, x.v); }
XLLMC_INLINE __mmask16 tail_bits(int n) { return __mmask16((1u << n) - 1); }
XLLMC_INLINE F16 load_tail(const float* p, int n) { return {_mm512_maskz_loadu_ps(tail_bits(n), p)}; }
XLLMC_INLINE void store_tail(float* p, F16 x, int n) { _mm512_mask_storeu_ps(p, tail_bits(n), x.v); }

XLLMC_INLINE F16 widen(__m256i halves) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16))};
}
XLLMC_INLINE __m256i narrow(I16 x) { return _mm512_cvtepi32_epi16(x.v); }
XLLMC_INLINE F16 load(const bf16* p) { return widen(_mm256_loadu_si256((const __m256i*)p)); }
XLLMC_INLINE F16 load_tail(const bf16* p, int n) { return widen(_mm256_maskz_loadu_epi16(tail_bits(n), p)); }

XLLMC_INLINE float reduce_add(F16 x) {
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_shuffle_ps(b, b, 1)));
}
XLLMC_INLINE float reduce_max(F16 x) {
    __m256 a = _mm256_max_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_shuffle_ps(b, b, 1)));
}
// The 64-bit products of unsigned 32-bit lanes, as their high and low halves.
XLLMC_INLINE void multiply_wide(I16 a, I16 b, I16& high, I16& low) {
    __m512i even = _mm512_mul_epu32(a.v, b.v);
    __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a.v, 32), _mm512_srli_epi64(b.v, 32));
    high.v = _mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
    low.v = _mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));
}

#else

XLLMC_INLINE F16 set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
XLLMC_INLINE I16 set1_int(uint32_t x) { return {_mm256_set1_epi32(int32_t(x)), _mm256_set1_epi32(int32_t(x))}; }
XLLMC_INLINE I16 iota() {
    return {_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15)};
}
XLLMC_INLINE Mask16 mask_of(uint32_t bits) {
    __m256i lo = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128), hi = _mm256_slli_epi32(lo, 8);
    __m256i all = _mm256_set1_epi32(int32_t(bits));
    return {_mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(all, lo), lo)),
            _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(all, hi), hi))};
}
XLLMC_INLINE uint32_t bits_of(Mask16 m) {
    return uint32_t(_mm256_movemask_ps(m.lo)) | uint32_t(_mm256_movemask_ps(m.hi)) << 8;
}
XLLMC_INLINE F16 select(Mask16 m, F16 a, F16 b) {
    return {_mm256_blendv_ps(b.lo, a.lo, m.lo), _mm256_blendv_ps(b.hi, a.hi, m.hi)};
}
XLLMC_INLINE I16 select(Mask16 m, I16 a, I16 b) { return as_int(select(m, as_float(a), as_float(b))); }

XLLMC_INLINE F16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
XLLMC_INLINE void store(float* p, F16 x) { _mm256_storeu_ps(p, x.lo), _mm256_storeu_ps(p + 8, x.hi); }
XLLMC_INLINE I16 load(const void* p) {
    return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)p + 1)};
}
XLLMC_INLINE void store(void* p, I16 x) {
    _mm256_storeu_si256((__m256i*)p, x.lo), _mm256_storeu_si256((__m256i*)p + 1, x.hi);
}
XLLMC_INLINE F16 load_tail(const float* p, int n) {
    Mask16 m = mask_of((1u << n) - 1);
    return {_mm256_maskload_ps(p, _mm256_castps_si256(m.lo)), _mm256_maskload_ps(p + 8, _mm256_castps_si256(m.hi))};
}
XLLMC_INLINE void store_tail(float* p, F16 x, int n) {
    Mask16 m = mask_of((1u << n) - 1);
    _mm256_maskstore_ps(p, _mm256_castps_si256(m.lo), x.lo);
    _mm256_maskstore_ps(p + 8, _mm256_castps_si256(m.hi), x.hi);
}

XLLMC_INLINE F16 widen(__m256i halves) {
    __m256i lo = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(halves));
    __m256i hi = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(halves, 1));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(lo, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(hi, 16))};
}
XLLMC_INLINE __m256i narrow(I16 x) {
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(x.lo, x.hi), 0xd8);
}
XLLMC_INLINE F16 load(const bf16* p) { return widen(_mm256_loadu_si256((const __m256i*)p)); }
XLLMC_INLINE F16 load_tail(const bf16* p, int n) {
    alignas(32) uint16_t buffer[16] = {};
    memcpy(buffer, p, size_t(n) * 2);
    return widen(_mm256_load_si256((const __m256i*)buffer));
}

XLLMC_INLINE float reduce_add(F16 x) {
    __m256 a = _mm256_add_ps(x.lo, x.hi);
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_shuffle_ps(b, b, 1)));
}
XLLMC_INLINE float reduce_max(F16 x) {
    __m256 a = _mm256_max_ps(x.lo, x.hi);
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_shuffle_ps(b, b, 1)));
}
XLLMC_INLINE void multiply_wide(I16 a, I16 b, I16& high, I16& low) {
    auto half = [](__m256i a, __m256i b, __m256i& high, __m256i& low) {
        __m256i even = _mm256_mul_epu32(a, b);
        __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32));
        high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
        low = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
    };
    half(a.lo, b.lo, high.lo, low.lo), half(a.hi, b.hi, high.hi, low.hi);
}

#endif

XLLMC_INLINE F16& operator+=(F16& a, F16 b) { return a = a + b; }
XLLMC_INLINE F16& operator*=(F16& a, F16 b) { return a = a * b; }
XLLMC_INLINE Mask16 tail_mask(int n) { return mask_of((1u << n) - 1); }
XLLMC_INLINE bool any(Mask16 m) { return bits_of(m) != 0; }
XLLMC_INLINE F16 zero() { return set1(0.0f); }
XLLMC_INLINE F16 rsqrt(F16 x) { return set1(1.0f) / sqrt(x); }

// The larger (smaller) of two values; NaN if either is NaN, as in torch.
XLLMC_INLINE F16 maximum(F16 a, F16 b) { return select(is_nan(a), a, max(a, b)); }
XLLMC_INLINE F16 minimum(F16 a, F16 b) { return select(is_nan(a), a, min(a, b)); }

// The bits of bf16(x), in the upper half of each lane; the lower half is zero.
XLLMC_INLINE I16 bf16_bits(F16 x) {
    I16 b = as_int(x);
    I16 rounded = b + set1_int(0x7fff) + (shift_right<16>(b) & set1_int(1));
    return select(is_nan(x), set1_int(0x7fc00000), rounded & set1_int(0xffff0000));
}
XLLMC_INLINE F16 round_bf16(F16 x) { return as_float(bf16_bits(x)); }

XLLMC_INLINE void store(bf16* p, F16 x) { _mm256_storeu_si256((__m256i*)p, narrow(shift_right<16>(bf16_bits(x)))); }
XLLMC_INLINE void store_tail(bf16* p, F16 x, int n) {
    __m256i halves = narrow(shift_right<16>(bf16_bits(x)));
#if XLLMC_AVX512
    _mm256_mask_storeu_epi16(p, tail_bits(n), halves);
#else
    memcpy(p, &halves, size_t(n) * 2);
#endif
}

// Rounds to the element type T and widens again.
template <class T> XLLMC_INLINE F16 round_to(F16 x);
template <> XLLMC_INLINE F16 round_to<float>(F16 x) { return x; }
template <> XLLMC_INLINE F16 round_to<bf16>(F16 x) { return round_bf16(x); }

// `count` lanes (1..16) at p: the plain form when all are there.
template <class T> XLLMC_INLINE F16 load_some(const T* p, int count) {
    return count >= lanes ? load(p) : load_tail(p, count);
}
template <class T> XLLMC_INLINE void store_some(T* p, F16 x, int count) {
    if (count >= lanes) store(p, x);
    else store_tail(p, x, count);
}

}  // namespace xllmc
