// Which candidates of a row remain after min_p, top_k and top_p: a threshold, found without sorting the vocabulary.
//
// KERNELS  find_cutoff, log_sum_kept
// Chain    masses are summed as whole numbers, so their sums have no order; ties go to the lower id.
#pragma once
#include <limits.h>

#include "logprob.h"

namespace xllmc {

// The last of the kept candidates in the order (larger value, lower id).
struct Cutoff {
    float value;
    int32_t id;
    XLLMC_INLINE Mask16 keeps(F16 z, int64_t first_id) const {
        const int64_t ties = int64_t(id) + 1 - first_id;
        const uint32_t below = ties <= 0 ? 0 : ties >= lanes ? 0xffff : (1u << ties) - 1;
        return mask_of(bits_of(greater(z, set1(value))) | (bits_of(equal(z, set1(value))) & below));
    }
};

// The weight of the candidates by how far below the top they lie, so that only one bin has to be sorted.
struct Histogram {
    static constexpr int bins = 2048;
    uint64_t weight[bins];

    // 64 bins a unit; the last one holds all that is further down.
    static XLLMC_INLINE F16 bin_of(F16 z, float top) {
        return floor(min((set1(top) - z) * set1(64.0f), set1(float(bins - 1))));
    }
};

struct Candidate {
    float value;
    int32_t id;
    bool before(const Candidate& other) const {
        return value > other.value || (value == other.value && id < other.id);
    }
};

// Heap sort: in place, and no more than n log n whatever the logits.
inline void sort(Candidate* items, int64_t count) {
    auto sift = [&](int64_t at, int64_t end) {
        const Candidate item = items[at];
        for (int64_t child; (child = 2 * at + 1) < end; at = child) {
            if (child + 1 < end && items[child].before(items[child + 1])) child++;
            if (!item.before(items[child])) break;
            items[at] = items[child];
        }
        items[at] = item;
    };
    for (int64_t i = count / 2; i-- > 0;) sift(i, count);
    for (int64_t end = count; end-- > 1;) {
        const Candidate last = items[end];
        items[end] = items[0], items[0] = last;
        sift(0, end);
    }
}

// Applied in this order; 0, 0 and 1 are off.
struct Truncation {
    float min_p;
    int32_t top_k;
    float top_p;
};

// Calls body(z, id, lanes that are kept) for every vector of candidates that `cutoff` keeps some of, in order.
template <class Body> XLLMC_INLINE void for_kept(const float* z, const Cutoff& cutoff, int64_t V, Body body) {
    for_vocabulary(V, [&](int64_t i, int n) {
        const F16 v = logits_at(z, i, n);
        const uint32_t kept = bits_of(cutoff.keeps(v, i)) & bits_of(greater(v, set1(-INFINITY)));
        if (kept) body(v, i, kept);
    });
}

// Whole numbers of 2^-40, so that their sums do not depend on the order.
XLLMC_INLINE void masses_of(F16 z, float top, int64_t* out) {
    alignas(64) float probability[lanes];
    store(probability, exp(z - set1(top)));
    for (int i = 0; i < lanes; i++) out[i] = int64_t(double(probability[i]) * 0x1p40);
}

// The cutoff behind the best of the candidates kept so far, whose weights first reach a bound. A candidate weighs 1 and
// the bound is `amount`, or (by_mass) its probability and the bound is the share `amount` of what all of them weigh.
template <bool by_mass>
inline Cutoff best_within(double amount, const Cutoff& cutoff, const float* z, float top, Histogram& histogram,
                          Candidate* candidates, int64_t V) {
    memset(&histogram, 0, sizeof histogram);
    for_kept(z, cutoff, V, [&](F16 v, int64_t, uint32_t kept) {
        alignas(64) int32_t bin[lanes];
        int64_t mass[lanes];
        store(bin, to_int(Histogram::bin_of(v, top)));
        if constexpr (by_mass) masses_of(v, top, mass);
        for (; kept; kept &= kept - 1) {
            const int lane = __builtin_ctz(kept);
            histogram.weight[bin[lane]] += by_mass ? uint64_t(mass[lane]) : 1;
        }
    });
    if constexpr (by_mass) {
        uint64_t total = 0;
        for (uint64_t weight : histogram.weight) total += weight;
        amount = ::ceil(amount * double(total));
    }
    uint64_t left = amount < 1 ? 1 : uint64_t(amount);  // the best candidate is always kept
    int bin = 0;
    for (; bin < Histogram::bins && histogram.weight[bin] < left; bin++) left -= histogram.weight[bin];
    if (bin == Histogram::bins) return cutoff;  // all together do not reach the bound

    int64_t count = 0;
    for_kept(z, cutoff, V, [&](F16 v, int64_t first_id, uint32_t kept) {
        kept &= bits_of(equal(Histogram::bin_of(v, top), set1(float(bin))));
        for (; kept; kept &= kept - 1) {
            const int64_t id = first_id + __builtin_ctz(kept);
            candidates[count++] = {z[id], int32_t(id)};
        }
    });
    sort(candidates, count);
    for (int64_t i = 0; i < count; i++) {
        int64_t mass[lanes] = {1};
        if constexpr (by_mass) masses_of(set1(candidates[i].value), top, mass);
        if (uint64_t(mass[0]) >= left) return {candidates[i].value, candidates[i].id};
        left -= uint64_t(mass[0]);
    }
    return cutoff;
}

// z[V]: adjusted logits / temperature, of which `top` is the largest. `candidates` [V] is scratch memory.
inline Cutoff find_cutoff(const Truncation& row, const float* z, float top, Histogram& histogram, Candidate* candidates,
                          int64_t V) {
    Cutoff cutoff{row.min_p > 0 ? top + logf(row.min_p) : -INFINITY, INT32_MAX};
    if (row.top_k > 0 && row.top_k < V)
        cutoff = best_within<false>(row.top_k, cutoff, z, top, histogram, candidates, V);
    if (row.top_p < 1) cutoff = best_within<true>(row.top_p, cutoff, z, top, histogram, candidates, V);
    return cutoff;
}

// The log of the sum of exp(z - top) over the kept.
inline double log_sum_kept(const float* z, float top, const Cutoff& cutoff, int64_t V) {
    double total = 0;
    for (int64_t block = 0; block < V; block += 4096) {
        F16 sum = zero();
        const int64_t length = V - block < 4096 ? V - block : 4096;
        for_vocabulary(length, [&](int64_t i, int n) {
            const F16 v = logits_at(z + block, i, n);
            sum += select(cutoff.keeps(v, block + i), exp(v - set1(top)), zero());
        });
        total += double(reduce_add(sum));
    }
    return ::log(total);
}

}  // namespace xllmc
