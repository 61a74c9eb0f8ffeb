// Elementary functions and activations on sixteen lanes, about 1-2 ulp of float32.
//
// KERNELS  exp log tanh erf sigmoid sin cos pow power; silu gelu_tanh gelu_erf relu; functors
//          of the activations.
// Chain    every lane runs the same polynomial, so a value's bits do not depend on its place in a row.
#pragma once
#include <math.h>

#include "simd.h"

namespace xllmc {

// exp(0) is exactly 1, exp(-inf) exactly 0. Polynomial of Cephes' expf over [-ln2/2, ln2/2].
XLLMC_INLINE F16 exp(F16 x) {
    x = min(set1(89.0f), max(set1(-104.0f), x));
    F16 n = round(x * set1(1.44269504088896341f));
    F16 r = fnma(n, set1(0.693147182464599609375f), x);
    r = fnma(n, set1(-1.904654323148236e-9f), r);
    F16 p = set1(1.9875691500e-4f);
    p = fma(p, r, set1(1.3981999507e-3f));
    p = fma(p, r, set1(8.3334519073e-3f));
    p = fma(p, r, set1(4.1665795894e-2f));
    p = fma(p, r, set1(1.6666665459e-1f));
    p = fma(p, r, set1(5.0000001201e-1f));
    p = fma(p, r * r, r) + set1(1.0f);
#if XLLMC_AVX512
    return {_mm512_scalef_ps(p.v, n.v)};
#else
    // In two steps, as 2^n itself may be out of range where the result is not.
    I16 exponent = to_int(n), half = shift_right_signed<1>(exponent);
    F16 first = as_float(shift_left<23>(half + set1_int(127)));
    F16 second = as_float(shift_left<23>(exponent - half + set1_int(127)));
    return p * first * second;
#endif
}

// log(0) is -inf, log of a negative NaN. Polynomial of Cephes' logf over [sqrt(1/2), sqrt(2)].
XLLMC_INLINE F16 log(F16 x) {
    Mask16 tiny = less(x, set1(1.17549435e-38f));
    F16 scaled = select(tiny, x * set1(8388608.0f), x);
    I16 bits = as_int(scaled);
    I16 exponent = shift_right_signed<23>(bits - set1_int(0x3f3504f3));
    F16 e = to_float(exponent) - select(tiny, set1(23.0f), zero());
    F16 f = as_float(bits - shift_left<23>(exponent)) - set1(1.0f);
    F16 z = f * f;
    F16 p = set1(7.0376836292e-2f);
    p = fma(p, f, set1(-1.1514610310e-1f));
    p = fma(p, f, set1(1.1676998740e-1f));
    p = fma(p, f, set1(-1.2420140846e-1f));
    p = fma(p, f, set1(1.4249322787e-1f));
    p = fma(p, f, set1(-1.6668057665e-1f));
    p = fma(p, f, set1(2.0000714765e-1f));
    p = fma(p, f, set1(-2.4999993993e-1f));
    p = fma(p, f, set1(3.3333331174e-1f));
    p = fma(e, set1(-2.12194440e-4f), p * f * z);
    F16 y = fma(e, set1(0.693359375f), f + fma(z, set1(-0.5f), p));
    y = select(equal(x, set1(INFINITY)), x, y);
    y = select(equal(x, zero()), set1(-INFINITY), y);
    return select(greater_equal(x, zero()), y, set1(NAN));
}

XLLMC_INLINE F16 with_sign_of(F16 magnitude, F16 sign) {
    return as_float(as_int(magnitude) | (as_int(sign) & set1_int(0x80000000)));
}

XLLMC_INLINE F16 tanh(F16 x) {
    F16 t = abs(x), z = x * x;
    F16 p = set1(-5.70498872745e-3f);
    p = fma(p, z, set1(2.06390887954e-2f));
    p = fma(p, z, set1(-5.37397155531e-2f));
    p = fma(p, z, set1(1.33314422036e-1f));
    p = fma(p, z, set1(-3.33332819422e-1f));
    F16 small = fma(p * z, x, x);
    F16 large = set1(1.0f) - set1(2.0f) / (exp(t + t) + set1(1.0f));
    return select(less(t, set1(0.625f)), small, with_sign_of(large, x));
}

// Two polynomials, below and above 475/512, after N. Juffa's erff.
XLLMC_INLINE F16 erf(F16 x) {
    F16 t = min(set1(10.0f), abs(x)), s = t * t;
    F16 r = fma(set1(-1.72853470e-5f), t, set1(3.83197126e-4f));
    F16 u = fma(set1(-3.88396438e-3f), t, set1(2.42546219e-2f));
    r = fma(r, s, u);
    r = fma(r, t, set1(-1.06777877e-1f));
    r = fma(r, t, set1(-6.34846687e-1f));
    r = fma(r, t, set1(-1.28717512e-1f));
    F16 large = set1(1.0f) - exp(fma(r, t, -t));
    F16 p = set1(-5.96761703e-4f);
    p = fma(p, s, set1(4.99119423e-3f));
    p = fma(p, s, set1(-2.67681349e-2f));
    p = fma(p, s, set1(1.12819925e-1f));
    p = fma(p, s, set1(-3.76125336e-1f));
    p = fma(p, s, set1(1.28379166e-1f));
    return select(less(t, set1(0.927734375f)), fma(p, x, x), with_sign_of(large, x));
}

XLLMC_INLINE F16 sigmoid(F16 x) { return set1(1.0f) / (set1(1.0f) + exp(-x)); }

// x without -inf, whose product with an activation's zero would be NaN.
XLLMC_INLINE F16 finite_below(F16 x) { return max(set1(-3.402823466e38f), x); }

XLLMC_INLINE F16 silu(F16 x) { return finite_below(x) * sigmoid(x); }
XLLMC_INLINE F16 relu(F16 x) { return maximum(x, zero()); }

// x/2 * (1 + tanh(u)) with u = sqrt(2/pi) * (x + 0.044715 x^3), as x * sigmoid(2u).
XLLMC_INLINE F16 gelu_tanh(F16 x) {
    F16 u = x * fma(x * x, set1(2 * 0.7978845608028654f * 0.044715f), set1(2 * 0.7978845608028654f));
    return finite_below(x) * sigmoid(u);
}
XLLMC_INLINE F16 gelu_erf(F16 x) {
    return set1(0.5f) * finite_below(x) * (set1(1.0f) + erf(x * set1(0.70710678118654752f)));
}
// x * sigmoid(1.702 x), CLIP's approximation.

// Functions without a vector form: lane by lane through the double of libm.
template <class Function> XLLMC_INLINE F16 lane_by_lane(F16 x, Function function) {
    alignas(64) float buffer[lanes];
    store(buffer, x);
    for (int i = 0; i < lanes; i++) buffer[i] = float(function(double(buffer[i])));
    return load(buffer);
}
inline F16 sin(F16 x) { return lane_by_lane(x, [](double v) { return ::sin(v); }); }
inline F16 cos(F16 x) { return lane_by_lane(x, [](double v) { return ::cos(v); }); }

// x^n by repeated squaring.
template <int n> XLLMC_INLINE F16 power(F16 x) {
    if constexpr (n < 0) return set1(1.0f) / power<-n>(x);
    else if constexpr (n == 0) return set1(1.0f);
    else if constexpr (n == 1) return x;
    else if constexpr (n % 2) return power<n - 1>(x) * x;
    else return power<n / 2>(x) * power<n / 2>(x);
}

// x^exponent, the usual exponents by multiplication (a constant exponent leaves one branch).
XLLMC_INLINE F16 pow(F16 x, float exponent) {
    if (exponent == 0.0f) return set1(1.0f);
    if (exponent == 1.0f) return x;
    if (exponent == 2.0f) return power<2>(x);
    if (exponent == 3.0f) return power<3>(x);
    if (exponent == 4.0f) return power<4>(x);
    if (exponent == -1.0f) return set1(1.0f) / x;
    if (exponent == 0.5f) return sqrt(x);
    if (exponent == -0.5f) return rsqrt(x);
    return lane_by_lane(x, [=](double v) { return ::pow(v, double(exponent)); });
}

// Activations as types, for templates.
struct Identity { XLLMC_INLINE F16 operator()(F16 x) const { return x; } };
struct Silu { XLLMC_INLINE F16 operator()(F16 x) const { return silu(x); } };
struct GeluTanh { XLLMC_INLINE F16 operator()(F16 x) const { return gelu_tanh(x); } };
struct GeluErf { XLLMC_INLINE F16 operator()(F16 x) const { return gelu_erf(x); } };
struct Relu { XLLMC_INLINE F16 operator()(F16 x) const { return relu(x); } };
struct Tanh { XLLMC_INLINE F16 operator()(F16 x) const { return tanh(x); } };
struct Sigmoid { XLLMC_INLINE F16 operator()(F16 x) const { return sigmoid(x); } };

}  // namespace xllmc
