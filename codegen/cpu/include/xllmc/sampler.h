// Sampling: from logits to a token and its log-probabilities, one row per request.
//
// KERNELS  sample, token_logprob
// Chain    log-sum-exp: the maximum, then exp(x - max) summed in blocks of 4096 (lanes in float32, blocks in double, in
//          order). Everything of a row is computed by one thread from that row alone.
//
// The order of the adjustments, which is vLLM's and OpenAI's:
//   1. mask: ids whose bit is 0 cannot be sampled            5. temperature
//   2. logit bias is added                                   6. min_p: keep p >= min_p * (largest p)
//   3. repetition penalty, on ids of prompt and output       7. top_k: keep the k largest, ties by the lower id
//   4. frequency and presence penalties, on ids of output    8. top_p: keep the fewest, largest first, that hold top_p of
//                                                               what is left; the one that crosses the bound is kept
// and then the largest logit / temperature + Gumbel noise wins. Temperature 0 takes the largest adjusted logit; ties go to
// the lower id.
#pragma once
#include "philox.h"
#include "worker.h"

extern "C" {

// The settings of one row. Ranges index the arrays given to `sample`; an empty range is none.
typedef struct {
    uint64_t seed;
    int64_t sample_index;        // which of the answers to one request
    int64_t position;            // of the token to be sampled
    float temperature;           // 0: greedy
    float top_p;                 // 1: off
    float min_p;                 // 0: off
    float repetition_penalty;    // 1: off
    float presence_penalty;      // 0: off
    float frequency_penalty;     // 0: off
    int32_t top_k;               // 0: off
    int32_t history_start;       // history[start, prompt) is the prompt, history[prompt, stop) the output so far
    int32_t history_prompt;
    int32_t history_stop;
    int32_t bias_start;
    int32_t bias_stop;
    int32_t mask_row;            // of the bitmask, or -1
    int32_t top_logprobs;        // 0..20
} xllmc_sampling_row;
}
static_assert(sizeof(xllmc_sampling_row) == 80);

namespace xllmc {

constexpr int max_top_logprobs = 20;
constexpr int token_not_a_number = -1;  // the logits hold a NaN or +inf
constexpr int token_none_allowed = -2;  // the mask, or a bias of -inf, leaves no token

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

// The arrays that rows index into. `bitmask` has (V + 31) / 32 words a row, bit i % 32 of word i / 32 allowing id i.
struct SamplingData {
    const int32_t* history;
    const int32_t* bias_ids;
    const float* bias_values;
    const uint32_t* bitmask;
};

// Steps 1 to 4: the logits as adjusted for sampling. `counts` [V] is scratch memory of any content.
inline void adjust(const xllmc_sampling_row& row, const SamplingData& data, const float* logits, float* out,
                   int32_t* counts, int64_t V) {
    if (row.mask_row >= 0) {
        const uint32_t* words = data.bitmask + row.mask_row * ((V + 31) / 32);
        for_vocabulary(V, [&](int64_t i, int n) {
            const Mask16 allowed = mask_of(words[i / 32] >> (i % 32) & 0xffff);
            store_some(out + i, select(allowed, logits_at(logits, i, n), set1(-INFINITY)), n);
        });
    } else {
        memcpy(out, logits, size_t(V) * 4);
    }
    for (int i = row.bias_start; i < row.bias_stop; i++)
        if (int64_t id = data.bias_ids[i]; id >= 0 && id < V) out[id] += data.bias_values[i];

    if (row.repetition_penalty == 1 && row.presence_penalty == 0 && row.frequency_penalty == 0) return;
    const int32_t* history = data.history;
    auto known = [&](int i) { return history[i] >= 0 && history[i] < V; };
    for (int i = row.history_start; i < row.history_stop; i++)
        if (known(i)) counts[history[i]] = 0;
    for (int i = row.history_prompt; i < row.history_stop; i++)
        if (known(i)) counts[history[i]]++;
    for (int i = row.history_start; i < row.history_stop; i++) {
        if (!known(i) || counts[history[i]] < 0) continue;
        float& logit = out[history[i]];
        int32_t& count = counts[history[i]];
        logit = logit > 0 ? logit / row.repetition_penalty : logit * row.repetition_penalty;
        if (count > 0) logit -= row.frequency_penalty * float(count) + row.presence_penalty;
        count = -1;  // done
    }
}

// Steps 6 to 8 find the last of the kept candidates in the order (larger value, lower id).
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

// z[V]: adjusted logits / temperature, of which `top` is the largest. `candidates` [V] is scratch memory.
inline Cutoff find_cutoff(const xllmc_sampling_row& row, const float* z, float top, Histogram& histogram,
                          Candidate* candidates, int64_t V) {
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
                    if (Candidate{last.value, last.id}.before({cutoff.value, cutoff.id})) cutoff = {last.value, last.id};
                    break;
                }
                left -= mass;
            }
        }
    }
    return cutoff;
}

// The winner among the kept: the largest z + noise, ties by the lower id.
inline int32_t gumbel_winner(const RandomRow& random, const float* z, const Cutoff& cutoff, int64_t V) {
    float best = -INFINITY;
    int32_t winner = token_none_allowed;
    for (int64_t block = 0; block < V; block += 64) {
        // No noise could make these the winner: their bits are not even drawn.
        F16 top = set1(-INFINITY);
        for (int64_t i = block; i < block + 64 && i < V; i += lanes)
            top = max(top, logits_at(z, i, V - i < lanes ? int(V - i) : lanes));
        const float reach = reduce_max(top);
        if (!(reach + gumbel_max >= best) || reach < cutoff.value || reach == -INFINITY) continue;
        I16 words[4];
        philox(random, uint32_t(block / 64), words);
        // z + noise > best asks for E < exp(z - best), and v < E: most vectors need no logarithm. The margin is far above
        // any rounding.
        const F16 bound = exp(set1(reach - best + 1e-4f + 1e-6f * fabsf(best)));
        for (int w = 0; w < 4 && block + w * lanes < V; w++) {
            const int64_t i = block + w * lanes;
            const F16 v = logits_at(z, i, V - i < lanes ? int(V - i) : lanes);
            const F16 u = uniform(words[w]);
            if (best > -INFINITY && !any(less(u, bound))) continue;
            const F16 noisy = select(cutoff.keeps(v, i), v + gumbel(u), set1(-INFINITY));
            const float value = reduce_max(noisy);
            if (value > best) {
                best = value;
                winner = int32_t(i + __builtin_ctz(bits_of(equal(noisy, set1(value)))));
            }
        }
    }
    return winner;
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

struct SamplingResult {
    int32_t* token;
    float* logprobs;
    int32_t* top_ids;
    float* top_values;
};

inline void sample_row(const xllmc_sampling_row& row, const SamplingData& data, const float* logits, int64_t V,
                       const SamplingResult& result, float* z, int32_t* counts, Candidate* candidates,
                       Histogram& histogram) {
    for (int i = 0; i < 3; i++) result.logprobs[i] = NAN;
    for (int i = 0; i < max_top_logprobs; i++) result.top_ids[i] = -1, result.top_values[i] = -INFINITY;
    const Peak raw = peak_of(logits, V);
    if (!(raw.value < INFINITY)) {
        *result.token = token_not_a_number;
        return;
    }
    const double raw_sum = log_sum_exp(logits, V, raw.value, 1);
    if (row.top_logprobs > 0) {
        const int wanted = row.top_logprobs < max_top_logprobs ? row.top_logprobs : max_top_logprobs;
        const int count = wanted < V ? wanted : int(V);
        largest(logits, V, count, result.top_values, result.top_ids);
        for (int i = 0; i < count; i++)
            result.top_values[i] = float(double(result.top_values[i]) - double(raw.value) - raw_sum);
    }

    adjust(row, data, logits, z, counts, V);
    Peak top = peak_of(z, V);
    if (!(top.value > -INFINITY && top.value < INFINITY)) {
        *result.token = top.value == -INFINITY ? token_none_allowed : token_not_a_number;
        return;
    }
    const bool greedy = row.temperature <= 0;
    const float inverse = greedy ? 1 : 1 / row.temperature;
    int32_t token = top.index;
    double sampled = 0;
    if (!greedy) {
        if (inverse != 1)
            for_vocabulary(V, [&](int64_t i, int n) { store_some(z + i, load_some(z + i, n) * set1(inverse), n); });
        top.value *= inverse;
        const Cutoff cutoff = find_cutoff(row, z, top.value, histogram, candidates, V);
        token = gumbel_winner({row.seed, uint64_t(row.sample_index), uint64_t(row.position)}, z, cutoff, V);
        sampled = double(z[token]) - double(top.value) - log_sum_kept(z, top.value, cutoff, V);
    }
    const double drop = double(logits[token]) - double(raw.value);
    const double warm_sum = inverse == 1 ? raw_sum : log_sum_exp(logits, V, raw.value, inverse);
    *result.token = token;
    result.logprobs[0] = float(drop - raw_sum);
    result.logprobs[1] = float(drop * double(inverse) - warm_sum);
    result.logprobs[2] = float(sampled);
}

// logits[R, V] -> tokens[R], or token_not_a_number or token_none_allowed, with logprobs[R, 3] NaN.
//
// logprobs: of the token in the raw distribution; with the temperature only (that of 1 where it is 0); in the distribution
// that was sampled (0 where greedy). top_ids, top_values [R, 20]: the raw distribution's largest log-probabilities, largest
// first, ties by the lower id, filled up with -1 and -inf.
inline void sample(const float* logits, const xllmc_sampling_row* rows, const int32_t* history, const int32_t* bias_ids,
                   const float* bias_values, const uint32_t* bitmask, int32_t* tokens, float* logprobs, int32_t* top_ids,
                   float* top_values, int64_t R, int64_t V, const xllmc_worker& worker) {
    const int64_t padded = (V + lanes - 1) / lanes * lanes;
    char* memory = static_cast<char*>(scratch(sizeof(Histogram) + size_t(padded) * (4 + 4 + sizeof(Candidate))));
    auto* histogram = reinterpret_cast<Histogram*>(memory);
    auto* z = reinterpret_cast<float*>(memory + sizeof(Histogram));
    auto* counts = reinterpret_cast<int32_t*>(z + padded);
    auto* candidates = reinterpret_cast<Candidate*>(counts + padded);
    for (int64_t r; (r = take(worker)) < R;)
        sample_row(rows[r], {history, bias_ids, bias_values, bitmask}, logits + r * V, V,
                   {tokens + r, logprobs + r * 3, top_ids + r * max_top_logprobs, top_values + r * max_top_logprobs}, z,
                   counts, candidates, *histogram);
}

// out[R] = log-probability of targets[R] in the raw distribution of logits[R, V]; NaN where a logit is NaN or +inf, or the
// target is out of range. best[R], if not null: the largest logit's lowest id, or token_not_a_number.
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
