// Small instantiations of every kernel, for the tests beside this file.
#include "xllmc/attention.h"
#include "xllmc/embedding.h"
#include "xllmc/gemm.h"
#include "xllmc/norm.h"
#include "xllmc/pool.h"
#include "xllmc/qkv.h"
#include "xllmc/rope.h"
#include "xllmc/sampler.h"

using namespace xllmc;

#define KERNEL(name) XLLMC_EXPORT void name(const xllmc_arg* a, const xllmc_worker* w)
#define P(T, i) static_cast<T*>(a[i].p)
#define C(T, i) static_cast<const T*>(a[i].p)

// Pointwise functions: (x, out, rows, columns).
#define POINTWISE(name, expression)                                                              \
    KERNEL(name) {                                                                               \
        const int64_t columns = a[3].i;                                                          \
        for (auto [m, end] = share(*w, a[2].i); m < end; m++)                                    \
            for (int64_t i = 0; i < columns; i += lanes) {                                       \
                const int n = int(columns - i < lanes ? columns - i : lanes);                    \
                const F16 x = load_some(C(float, 0) + m * columns + i, n);                       \
                store_some(P(float, 1) + m * columns + i, expression, n);                        \
            }                                                                                    \
    }
POINTWISE(pointwise_exp, exp(x))
POINTWISE(pointwise_log, log(x))
POINTWISE(pointwise_tanh, tanh(x))
POINTWISE(pointwise_erf, erf(x))
POINTWISE(pointwise_sigmoid, sigmoid(x))
POINTWISE(pointwise_silu, silu(x))
POINTWISE(pointwise_gelu_tanh, gelu_tanh(x))
POINTWISE(pointwise_gelu_erf, gelu_erf(x))
POINTWISE(pointwise_sin, sin(x))
POINTWISE(pointwise_pow, pow(x, 0.75f))
POINTWISE(pointwise_cube, power<3>(x))
POINTWISE(pointwise_rsqrt, rsqrt(x))
POINTWISE(pointwise_round_bf16, round_bf16(x))
POINTWISE(pointwise_maximum, maximum(x, set1(0.5f)))

KERNEL(reduce_rows) {
    for (auto [m, end] = share(*w, a[2].i); m < end; m++) P(float, 1)[m] = reduce_add(load(C(float, 0) + m * 16));
}

KERNEL(count_tasks) {
    for (int64_t i; (i = take(*w)) < a[1].i;) __atomic_fetch_add(P(int64_t, 0) + i, 1, __ATOMIC_RELAXED);
}

template <class T, class OutT, int N, int K, class E = Identity, bool gated = false>
void run_linear(const xllmc_arg* a, const xllmc_worker* w) {
    linear<T, OutT, N, K, E, gated>(C(T, 0), a[1].p, C(T, 2), P(OutT, 3), a[4].i, *w);
}

#define FOR_TYPE(T, suffix)                                                                                            \
    KERNEL(linear_##suffix) { run_linear<T, T, 97, 65>(a, w); }                                                        \
    KERNEL(linear_to_float_##suffix) { run_linear<T, float, 97, 65>(a, w); }                                           \
    KERNEL(linear_gelu_##suffix) { run_linear<T, float, 64, 300, GeluTanh>(a, w); }                                    \
    KERNEL(linear_gated_##suffix) { run_linear<T, float, 40, 64, Silu, true>(a, w); }                                  \
    KERNEL(rms_norm_##suffix) { rms_norm<T, T, 200>(C(T, 0), C(T, 1), P(T, 2), a[3].i, float(a[4].f), *w); }           \
    KERNEL(rms_norm_float_weight_##suffix) {                                                                           \
        rms_norm<T, float, 72>(C(T, 0), C(float, 1), P(T, 2), a[3].i, float(a[4].f), *w);                              \
    }                                                                                                                  \
    KERNEL(add_rms_norm_##suffix) {                                                                                    \
        add_rms_norm<T, T, 200>(C(T, 0), C(T, 1), C(T, 2), P(T, 3), P(T, 4), a[5].i, float(a[6].f), *w);               \
    }                                                                                                                  \
    KERNEL(layer_norm_##suffix) {                                                                                      \
        layer_norm<T, T, 200>(C(T, 0), C(T, 1), C(T, 2), P(T, 3), a[4].i, float(a[5].f), *w);                          \
    }                                                                                                                  \
    KERNEL(add_layer_norm_##suffix) {                                                                                  \
        add_layer_norm<T, T, 200>(C(T, 0), C(T, 1), C(T, 2), C(T, 3), P(T, 4), P(T, 5), a[6].i, float(a[7].f), *w);    \
    }                                                                                                                  \
    KERNEL(embed_##suffix) { embed<T, 65>(C(T, 0), C(int32_t, 1), P(T, 2), a[3].i, *w); }                              \
    KERNEL(embed_packed_##suffix) { embed_packed<T, 65>(a[0].p, C(int32_t, 1), P(T, 2), a[3].i, *w); }                 \
    KERNEL(qkv_plain_##suffix) { run_qkv<T, 3, 1, 20, 12, 0>(a, w); }                                                  \
    KERNEL(qkv_rope_##suffix) { run_qkv<T, 4, 2, 32, 32, 24>(a, w); }                                                  \
    KERNEL(attention_##suffix) { run_attention<T, 4, 2, 32, 32, 0>(a, w); }                                            \
    KERNEL(attention_narrow_##suffix) { run_attention<T, 3, 1, 20, 12, 0>(a, w); }                                     \
    KERNEL(attention_window_##suffix) { run_attention<T, 4, 4, 16, 80, 40>(a, w); }

template <class T, int Hq, int Hkv, int D, int Dv, int RD> void run_qkv(const xllmc_arg* a, const xllmc_worker* w) {
    qkv_write<T, Hq, Hkv, D, Dv, RD>(C(T, 0), C(T, 1), C(T, 2), float(a[3].f), C(float, 4), C(int32_t, 5), P(T, 6),
                                     a[7].p, a[8].i, *w);
}
template <class T, int Hq, int Hkv, int D, int Dv, int Window>
void run_attention(const xllmc_arg* a, const xllmc_worker* w) {
    paged_attention<T, Hq, Hkv, D, Dv, Window>(C(T, 0), a[1].p, C(int32_t, 2), C(int32_t, 3), C(int32_t, 4), P(T, 5),
                                               a[6].i, a[7].i, float(a[8].f), float(a[9].f), *w);
}
FOR_TYPE(float, f32)
FOR_TYPE(bf16, bf16)

KERNEL(rope) { rope_table<24>(C(int32_t, 0), C(float, 1), float(a[2].f), P(float, 3), a[4].i, *w); }

KERNEL(sample_rows) {
    sample(C(float, 0), C(xllmc_sampling_row, 1), C(int32_t, 2), C(int32_t, 3), C(float, 4), C(uint32_t, 5),
           P(int32_t, 6), P(float, 7), P(int32_t, 8), P(float, 9), a[10].i, a[11].i, *w);
}
KERNEL(score_tokens) {
    token_logprob(C(float, 0), C(int32_t, 1), P(float, 2), P(int32_t, 3), a[4].i, a[5].i, *w);
}
