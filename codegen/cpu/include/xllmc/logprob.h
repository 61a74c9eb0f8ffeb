// Log-probabilities of rows of logits.
//
// KERNELS  token_logprob; peak_of, log_sum_exp, largest
// Chain    log-sum-exp: the maximum, then exp(x - max) summed in blocks of 4096 (lanes in float32, blocks in double, in
//          order). A row is one thread's, and depends on nothing but itself.
#pragma once
#include "math.h"
#include "worker.h"

namespace xllmc {

constexpr int token_not_a_number = -1;  // the logits hold a NaN or +inf

template <class Body> XLLMC_INLINE void for_vocabulary(int64_t V, Body body) {
    int64_t i = 0;
    for (; i + lanes <= V; i += lanes) body(i, lanes);
    if (i < V) body(i, int(V - i));
}

// The vector at x + i, with -inf past its end.
XLLMC_INLINE F16 logits_at(const float* x, int64_t i, int n) {
    return n == lanes ? load(x + i) : select(tail_mask(n), load_tail(x + i, n), set1(-INFINITY));
}

// The largest value, and its lowest index; NaN if there is any.
struct Peak {
    float value;
    int32_t index;
};
inline Peak peak_of(const float* x, int64_t V) {
    F16 top = set1(-INFINITY);
    uint32_t nan = 0;
    for_vocabulary(V, [&](int64_t i, int n) {
        F16 v = logits_at(x, i, n);
        nan |= bits_of(is_nan(v));
        top = max(v, top);
    });
    if (nan) return {NAN, 0};
    const F16 value = set1(reduce_max(top));
    for (int64_t i = 0; i < V; i += lanes) {
        const int n = V - i < lanes ? int(V - i) : lanes;
        if (uint32_t hit = bits_of(equal(logits_at(x, i, n), value)))
            return {reduce_max(top), int32_t(i + __builtin_ctz(hit))};
    }
    return {NAN, 0};
}

// log(sum of exp((x - top) * inverse_temperature)).
inline double log_sum_exp(const float* x, int64_t V, float top, float inverse_temperature) {
    double total = 0;
    for (int64_t block = 0; block < V; block += 4096) {
        F16 sum0 = zero(), sum1 = zero();
        const int64_t length = V - block < 4096 ? V - block : 4096;
        for_vocabulary(length, [&](int64_t i, int n) {
            F16 e = exp((logits_at(x + block, i, n) - set1(top)) * set1(inverse_temperature));
            (i / lanes % 2 ? sum1 : sum0) += e;
        });
        total += double(reduce_add(sum0 + sum1));
    }
    return ::log(total);
}

// The `count` largest of x, largest first, ties by the lower index.
inline void largest(const float* x, int64_t V, int count, float* values, int32_t* ids) {
    int held = 0;
    for_vocabulary(V, [&](int64_t i, int n) {
        const F16 v = logits_at(x, i, n);
        uint32_t better = held < count ? (1u << n) - 1 : bits_of(greater(v, set1(values[count - 1])));
        for (; better; better &= better - 1) {
            const int64_t id = i + __builtin_ctz(better);
            if (held == count && !(x[id] > values[count - 1])) continue;
            int at = held < count ? held++ : count - 1;
            for (; at > 0 && values[at - 1] < x[id]; at--) values[at] = values[at - 1], ids[at] = ids[at - 1];
            values[at] = x[id], ids[at] = int32_t(id);
        }
    });
}

// out[R] = log-probability of targets[R] in the raw distribution of logits[R, V]; NaN where a logit is NaN or +inf, or
// the target is out of range. best[R], if not null: the largest logit's lowest id, or token_not_a_number.
inline void token_logprob(const float* logits, const int32_t* targets, float* out, int32_t* best, int64_t R, int64_t V,
                          const xllmc_worker& worker) {
    for (int64_t r; (r = take(worker)) < R;) {
        const float* x = logits + r * V;
        const Peak top = peak_of(x, V);
        const bool valid = top.value < INFINITY;
        const bool in_range = targets[r] >= 0 && targets[r] < V;
        out[r] = NAN;
        if (valid && in_range)
            out[r] = float(double(x[targets[r]]) - double(top.value) - log_sum_exp(x, V, top.value, 1));
        if (best) best[r] = valid ? top.index : token_not_a_number;
    }
}

}  // namespace xllmc
