// Which candidates of a row remain after min_p, top_k and top_p: a threshold, found without sorting the vocabulary.
//
// KERNELS  find_cutoff, log_sum_kept
// Chain    masses are whole numbers of 2^-40, so their sums have no order; ties go to the lower id.
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

// Counts and masses of candidates by how far below the top they lie, so that only one bin has to be sorted.
struct Histogram {
    static constexpr int bins = 2048;
    static constexpr float bins_per_unit = 64;
    int64_t count[bins];
    uint64_t mass[bins];  // of exp(z - top), in 2^-40: whole numbers, so that their sums do not depend on the order

    static int bin_of(float below_top) {
        const float bin = below_top * bins_per_unit;
        return bin < bins - 1 ? int(bin) : bins - 1;
    }
    static uint64_t mass_of(float probability) { return uint64_t(double(probability) * 0x1p40); }
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

// z[V]: adjusted logits / temperature, of which `top` is the largest. `candidates` [V] is scratch memory.
inline Cutoff find_cutoff(const Truncation& row, const float* z, float top, Histogram& histogram, Candidate* candidates,
                          int64_t V) {
    Cutoff cutoff{row.min_p > 0 ? top + logf(row.min_p) : -INFINITY, INT32_MAX};
    const bool by_count = row.top_k > 0 && row.top_k < V, by_mass = row.top_p < 1;
    if (!by_count && !by_mass) return cutoff;

    memset(&histogram, 0, sizeof histogram);
    for_vocabulary(V, [&](int64_t i, int n) {
        const F16 v = logits_at(z, i, n);
        uint32_t kept = bits_of(greater_equal(v, set1(cutoff.value))) & bits_of(greater(v, set1(-INFINITY)));
        if (!kept) return;
        alignas(64) float below[lanes], probability[lanes];
        store(below, set1(top) - v), store(probability, exp(v - set1(top)));
        for (; kept; kept &= kept - 1) {
            const int lane = __builtin_ctz(kept), bin = Histogram::bin_of(below[lane]);
            histogram.count[bin]++;
            histogram.mass[bin] += Histogram::mass_of(probability[lane]);
        }
    });
    // The candidates of one bin, best first.
    auto sorted_bin = [&](int bin) {
        int64_t count = 0;
        const float from = float(bin) / Histogram::bins_per_unit;
        const float to = bin == Histogram::bins - 1 ? INFINITY : float(bin + 1) / Histogram::bins_per_unit;
        for_vocabulary(V, [&](int64_t i, int n) {
            const F16 v = logits_at(z, i, n), below = set1(top) - v;
            uint32_t kept = bits_of(greater_equal(v, set1(cutoff.value))) & bits_of(greater(v, set1(-INFINITY))) &
                            bits_of(greater_equal(below, set1(from))) & bits_of(less(below, set1(to)));
            for (; kept; kept &= kept - 1) {
                const int64_t id = i + __builtin_ctz(kept);
                candidates[count++] = {z[id], int32_t(id)};
            }
        });
        sort(candidates, count);
        return count;
    };
    auto mass_at = [&](int64_t i) {
        alignas(64) float probability[lanes];
        store(probability, exp(set1(candidates[i].value) - set1(top)));
        return Histogram::mass_of(probability[0]);
    };
    uint64_t total = 0;
    if (by_count) {
        int64_t left = row.top_k;
        int bin = 0;
        for (; bin < Histogram::bins && histogram.count[bin] < left; bin++) {
            left -= histogram.count[bin];
            total += histogram.mass[bin];
        }
        if (bin < Histogram::bins) {  // else there are fewer than k
            sorted_bin(bin);
            for (int64_t i = 0; i < left; i++) total += mass_at(i);
            cutoff = {candidates[left - 1].value, candidates[left - 1].id};
        }
    } else {
        for (uint64_t mass : histogram.mass) total += mass;
    }
    if (by_mass) {
        // At least one whole unit, so that the best candidate is always kept.
        double wanted = double(row.top_p) * double(total);
        uint64_t left = wanted < 1 ? 1 : uint64_t(wanted);
        int bin = 0;
        for (; bin < Histogram::bins && histogram.mass[bin] < left; bin++) left -= histogram.mass[bin];
        if (bin < Histogram::bins) {
            const int64_t count = sorted_bin(bin);
            for (int64_t i = 0; i < count; i++) {
                const uint64_t mass = mass_at(i);
                if (mass >= left) {
                    const Candidate& last = candidates[i];
                    if (last.before({cutoff.value, cutoff.id})) cutoff = {last.value, last.id};
                    break;
                }
                left -= mass;
            }
        }
    }
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
