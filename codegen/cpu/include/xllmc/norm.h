// Normalisation of rows. T: the rows' element type, W: the weights', H: the row's length. Contiguous rows, so that
// heads are rows too: M = tokens * heads.
//
// KERNELS  rms_norm, add_rms_norm, layer_norm, add_layer_norm
// Chain    a row's sums are row_sum's. All in float32 with one rounding at the store; the `add_` forms store
//          round(x + residual) and normalise what they stored.
#pragma once
#include "rows.h"
#include "worker.h"

namespace xllmc {

template <int H, class T, class W, class OutT>
XLLMC_INLINE void rms_norm_row(const T* x, const W* weight, OutT* out, float eps) {
    float squares = row_sum<H>([&](int i, int n) {
        F16 v = load_some(x + i, n);
        return v * v;
    });
    F16 scale = rsqrt(set1(squares / float(H) + eps));
    for_row<H>([&](int i, int n) {
        store_some(out + i, load_some(x + i, n) * scale * load_some(weight + i, n), n);
    });
}

template <int H, class T, class W>
XLLMC_INLINE void layer_norm_row(const T* x, const W* weight, const W* bias, T* out, float eps) {
    F16 mean = set1(row_sum<H>([&](int i, int n) { return load_some(x + i, n); }) / float(H));
    float squares = row_sum<H>([&](int i, int n) {
        F16 d = load_some(x + i, n) - mean;
        d = n == lanes ? d : select(tail_mask(n), d, zero());
        return d * d;
    });
    F16 scale = rsqrt(set1(squares / float(H) + eps));
    for_row<H>([&](int i, int n) {
        F16 v = (load_some(x + i, n) - mean) * scale;
        if (weight) v *= load_some(weight + i, n);
        if (bias) v += load_some(bias + i, n);
        store_some(out + i, v, n);
    });
}

// sum = round(x + residual); may be stored over either.
template <int H, class T> XLLMC_INLINE void add_row(const T* x, const T* residual, T* sum) {
    for_row<H>([&](int i, int n) { store_some(sum + i, load_some(x + i, n) + load_some(residual + i, n), n); });
}

// out[M, H] = x / sqrt(mean(x^2) + eps) * weight[H]. out may be x.
template <class T, class W, int H>
void rms_norm(const T* x, const W* weight, T* out, int64_t M, float eps, const xllmc_worker& worker) {
    for (auto [m, end] = share(worker, M); m < end; m++) rms_norm_row<H>(x + m * H, weight, out + m * H, eps);
}

// sum[M, H] = x + residual; out[M, H] = rms_norm(sum). sum may be x or residual.
template <class T, class W, int H>
void add_rms_norm(const T* x, const T* residual, const W* weight, T* sum, T* out, int64_t M, float eps,
                  const xllmc_worker& worker) {
    for (auto [m, end] = share(worker, M); m < end; m++) {
        add_row<H>(x + m * H, residual + m * H, sum + m * H);
        rms_norm_row<H>(sum + m * H, weight, out + m * H, eps);
    }
}

// out[M, H] = (x - mean) / sqrt(variance + eps) * weight[H] + bias[H]; weight and bias may be null. out may be x.
template <class T, class W, int H>
void layer_norm(const T* x, const W* weight, const W* bias, T* out, int64_t M, float eps, const xllmc_worker& worker) {
    for (auto [m, end] = share(worker, M); m < end; m++)
        layer_norm_row<H>(x + m * H, weight, bias, out + m * H, eps);
}

// sum[M, H] = x + residual; out[M, H] = layer_norm(sum). sum may be x or residual.
template <class T, class W, int H>
void add_layer_norm(const T* x, const T* residual, const W* weight, const W* bias, T* sum, T* out, int64_t M, float eps,
                    const xllmc_worker& worker) {
    for (auto [m, end] = share(worker, M); m < end; m++) {
        add_row<H>(x + m * H, residual + m * H, sum + m * H);
        layer_norm_row<H>(sum + m * H, weight, bias, out + m * H, eps);
    }
}

}  // namespace xllmc
