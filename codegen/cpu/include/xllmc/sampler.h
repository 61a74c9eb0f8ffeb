// Sampling: from logits to a token and its log-probabilities, one row per request.
//
// KERNELS  sample (token_logprob is in logprob.h)
// Chain    as in logprob.h and candidates.h: everything of a row is computed by one thread from that row alone.
//
// The order of the adjustments, which is vLLM's and OpenAI's:
//   1. mask: ids whose bit is 0 cannot be sampled
//   2. logit bias is added
//   3. repetition penalty, on ids of prompt and output
//   4. frequency and presence penalties, on ids of the output
//   5. temperature
//   6. min_p: keep p >= min_p * (largest p)
//   7. top_k: keep the k largest, ties by the lower id
//   8. top_p: keep the fewest, largest first, that hold top_p of what is left; the one that crosses the bound is kept
// and then the largest logit / temperature + Gumbel noise wins. Temperature 0 takes the largest adjusted logit; ties go
// to the lower id.
#pragma once
#include "candidates.h"
#include "philox.h"

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
constexpr int token_none_allowed = -2;  // the mask, or a bias of -inf, leaves no token

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
        // z + noise > best asks for E < exp(z - best), and v < E: most vectors need no logarithm. The margin is far
        // above any rounding.
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
        const Cutoff cutoff = find_cutoff({row.min_p, row.top_k, row.top_p}, z, top.value, histogram, candidates, V);
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
// logprobs: of the token in the raw distribution; with the temperature only (that of 1 where it is 0); in the
// distribution that was sampled (0 where greedy). top_ids, top_values [R, 20]: the raw distribution's largest
// log-probabilities, largest first, ties by the lower id, filled up with -1 and -inf.
inline void sample(const float* logits, const xllmc_sampling_row* rows, const int32_t* history,
                   const int32_t* bias_ids, const float* bias_values, const uint32_t* bitmask, int32_t* tokens,
                   float* logprobs, int32_t* top_ids, float* top_values, int64_t R, int64_t V,
                   const xllmc_worker& worker) {
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

}  // namespace xllmc
