// Causal attention over the paged cache, for prefill, decode and any mixture of both.
//
// KERNELS  paged_attention<T, Hq, Hkv, D, Dv, Window>
// Chain    a row (one token, one head) visits its pages in order of absolute position. Per page, in float32:
//          s = panel_product(q, keys) * scale, softcapped, -inf where not visible; m' = max(m, max s);
//          p = exp(s - m'); l = l * exp(m - m') + p[0..15] + p[16..31] in lanes; o = o * exp(m - m') and then one fma
//          per visible position in order. At the end o / reduce_add(l), rounded once. Rows are tiled for reuse of keys
//          and values only: no row's arithmetic depends on its tile. Keys that are not visible are multiplied
//          and masked, values never, so stale pages may hold anything.
#pragma once
#include "cache.h"
#include "math.h"
#include "worker.h"

namespace xllmc {

// o[r] = o[r] * decay[r] + sum over j in [begin, end) of p[r][j] * values[j], for `rows` rows and `vectors` x 16
// columns.
template <class T, int rows, int vectors, int Dv>
XLLMC_INLINE void value_columns(const float* p, const T* values, int begin, int end, const float* decay, float* o,
                                int o_stride, int column) {
    const int tail = Dv - column < vectors * lanes ? Dv % lanes : lanes;  // of the last vector
    F16 sum[rows][vectors];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) sum[r][v] = load(o + r * o_stride + column + v * lanes) * set1(decay[r]);
    for (int j = begin; j < end; j++) {
        F16 value[vectors];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            const T* from = values + j * Dv + column + v * lanes;
            value[v] = Dv % lanes && v == vectors - 1 ? load_some(from, tail) : load(from);
        }
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            F16 weight = set1(p[r * page_tokens + j]);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) sum[r][v] = fma(weight, value[v], sum[r][v]);
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) store(o + r * o_stride + column + v * lanes, sum[r][v]);
}

template <class T, int rows, int Dv>
__attribute__((noinline)) void value_tile(const float* p, const T* values, int begin, int end, const float* decay,
                                          float* o, int o_stride) {
    constexpr int all = (Dv + lanes - 1) / lanes;
    constexpr int widest = !XLLMC_AVX512 ? 2 : rows <= 6 ? 4 : 2;
    int vector = 0;
    for (; vector + widest <= all; vector += widest)
        value_columns<T, rows, widest, Dv>(p, values, begin, end, decay, o, o_stride, vector * lanes);
    if constexpr (all % widest != 0)
        for (; vector < all; vector++)
            value_columns<T, rows, 1, Dv>(p, values, begin, end, decay, o, o_stride, vector * lanes);
}

// The rows of a tile in register tiles of a few sizes.
template <class T, int Dv>
inline void add_values(int rows, const float* p, const T* values, int begin, int end, const float* decay, float* o,
                       int o_stride) {
    while (rows > 0) {
        int size = rows >= 12 ? 12 : rows >= 8 ? 8 : rows >= 6 ? 6 : rows >= 4 ? 4 : rows >= 3 ? 3 : rows >= 2 ? 2 : 1;
        if (size > tile_rows<T>) size = tile_rows<T>;
        switch (size) {
            case 1: value_tile<T, 1, Dv>(p, values, begin, end, decay, o, o_stride); break;
            case 2: value_tile<T, 2, Dv>(p, values, begin, end, decay, o, o_stride); break;
            case 3: value_tile<T, 3, Dv>(p, values, begin, end, decay, o, o_stride); break;
#if XLLMC_AVX512
            case 4: value_tile<T, 4, Dv>(p, values, begin, end, decay, o, o_stride); break;
            case 6: value_tile<T, 6, Dv>(p, values, begin, end, decay, o, o_stride); break;
            case 8: value_tile<T, 8, Dv>(p, values, begin, end, decay, o, o_stride); break;
            case 12: value_tile<T, 12, Dv>(p, values, begin, end, decay, o, o_stride); break;
#endif
        }
        rows -= size, p += size * page_tokens, decay += size, o += size * o_stride;
    }
}

// Rows of one kv head: a few neighbouring tokens of one sequence times the heads of the group.
template <class T, int Hq, int Hkv, int D, int Dv, int Window> struct AttentionTile {
    static constexpr int group = Hq / Hkv;
    static constexpr int tokens = group >= 24 ? 1 : 24 / group;
    static constexpr int max_rows = tokens * group;
    static constexpr int padded_rows = (max_rows + lanes - 1) / lanes * lanes;
    static constexpr int q_stride = staged_stride<T>(D);
    static constexpr int o_stride = (Dv + lanes - 1) / lanes * lanes;
    using Pages = Cache<T, Hkv, D, Dv>;

    alignas(64) typename Staged<T>::element q[max_rows * q_stride];
    alignas(64) float o[max_rows * o_stride];
    alignas(64) float p[max_rows * page_tokens];  // scores, then their weights
    alignas(64) float decay[padded_rows];
    float peak[max_rows];
    F16 total[max_rows];
    int begin[max_rows], end[max_rows];  // what is visible of the current page

    void start(const T* queries, int64_t token, int kv_head, int rows) {
        for (int r = 0; r < rows; r++) {
            stage(queries + ((token + r / group) * Hq + kv_head * group + r % group) * D, q + r * q_stride, D);
            peak[r] = -INFINITY;
            total[r] = zero();
            for (int i = 0; i < o_stride; i += lanes) store(o + r * o_stride + i, zero());
        }
    }

    static int first_visible(int position) { return Window > 0 && position >= Window ? position - Window + 1 : 0; }

    enum Sight { nothing, part, whole };

    // Finds the visible part of page `page` for each row; what the tile sees of it as a whole.
    Sight look(const int32_t* positions, int rows, int page) {
        bool any = false, all = true;
        for (int r = 0; r < rows; r++) {
            const int position = positions[r / group], offset = page * page_tokens;
            const int from = first_visible(position) - offset, to = position + 1 - offset;
            begin[r] = from < 0 ? 0 : from;
            end[r] = to > page_tokens ? page_tokens : to;
            any = any || begin[r] < end[r];
            all = all && begin[r] == 0 && end[r] == page_tokens;
        }
        return all ? whole : any ? part : nothing;
    }

    void visit(const T* page, int kv_head, int rows, Sight sight, float scale, float softcap) {
        const T* keys = page + Pages::keys(kv_head);
        const T* values = page + Pages::values(kv_head);
        for (int t = 0; t < tile_count<T>(rows); t++) {
            const Tile tile = tile_of<T>(rows, t);
            panel_product<T>(tile.size, q + tile.begin * q_stride, q_stride, keys, Staged<T>::steps(D),
                             p + tile.begin * page_tokens);
        }
        for (int r = 0; r < rows; r++) {
            decay[r] = 0;
            if (begin[r] >= end[r]) continue;
            F16 s0 = load(p + r * page_tokens) * set1(scale), s1 = load(p + r * page_tokens + lanes) * set1(scale);
            if (softcap > 0) {
                s0 = set1(softcap) * tanh(s0 / set1(softcap));
                s1 = set1(softcap) * tanh(s1 / set1(softcap));
            }
            if (sight != whole) {
                const uint64_t visible = (uint64_t(1) << end[r]) - (uint64_t(1) << begin[r]);
                s0 = select(mask_of(uint32_t(visible) & 0xffff), s0, set1(-INFINITY));
                s1 = select(mask_of(uint32_t(visible) >> 16), s1, set1(-INFINITY));
            }
            store(p + r * page_tokens, s0), store(p + r * page_tokens + lanes, s1);
            const float top = reduce_max(max(s0, s1)), old = peak[r];
            peak[r] = top > old ? top : old;
            decay[r] = old - peak[r];
        }
        for (int r = 0; r < rows; r += lanes) store(decay + r, exp(load(decay + r)));
        for (int r = 0; r < rows; r++) {
            if (begin[r] >= end[r]) continue;
            F16 p0 = exp(load(p + r * page_tokens) - set1(peak[r]));
            F16 p1 = exp(load(p + r * page_tokens + lanes) - set1(peak[r]));
            store(p + r * page_tokens, p0), store(p + r * page_tokens + lanes, p1);
            total[r] = total[r] * set1(decay[r]) + p0 + p1;
        }
        if (sight == whole) {
            add_values<T, Dv>(rows, p, values, 0, page_tokens, decay, o, o_stride);
            return;
        }
        for (int r = 0; r < rows; r += group)  // a token's heads see the same
            if (begin[r] < end[r])
                add_values<T, Dv>(group, p + r * page_tokens, values, begin[r], end[r], decay + r, o + r * o_stride,
                                  o_stride);
    }

    void finish(T* out, int64_t token, int kv_head, int rows) {
        for (int r = 0; r < rows; r++) {
            T* to = out + ((token + r / group) * Hq + kv_head * group + r % group) * Dv;
            F16 sum = set1(reduce_add(total[r]));
            for (int i = 0; i < Dv; i += lanes) store_some(to + i, load(o + r * o_stride + i) / sum, Dv - i);
        }
    }
};

// out[M, Hq, Dv] = softmax(softcap(scale * q k)) v for q[M, Hq, D] of S sequences, M = query_starts[S]: tokens
// query_starts[s] .. query_starts[s+1] belong to sequence s, whose pages are block_table[s, 0..B). The token at
// position p sees positions max(0, p - Window + 1) .. p of its sequence (all before it if Window is 0), its own
// included: write the cache first. softcap 0 is none. Pages that no token sees are not touched; their entries may be
// -1.
template <class T, int Hq, int Hkv, int D, int Dv, int Window = 0>
void paged_attention(const T* q, const void* state, const int32_t* block_table, const int32_t* query_starts,
                     const int32_t* positions, T* out, int64_t S, int64_t B, float scale, float softcap,
                     const xllmc_worker& worker) {
    static_assert(Hq % Hkv == 0);
    using Rows = AttentionTile<T, Hq, Hkv, D, Dv, Window>;
    // Heads of a page lie one after another, and memory is read fastest in long runs: where a sequence has few rows, a
    // task is several heads, as long as there are tasks for all threads.
    int neighbours = Hkv;
    while (neighbours > 1 && (Hkv % neighbours || S * (Hkv / neighbours) < 2 * worker.count)) neighbours--;
    auto* tiles = static_cast<Rows*>(scratch(sizeof(Rows) * size_t(neighbours)));

    int64_t task = take(worker), first_task = 0;
    for (int64_t s = 0; s < S; s++) {
        const int64_t length = query_starts[s + 1] - query_starts[s];
        const int64_t parts = (length + Rows::tokens - 1) / Rows::tokens;
        const int heads = length * Rows::group <= 8 ? neighbours : 1;
        const int64_t tasks = parts * (Hkv / heads);
        for (; task < first_task + tasks; task = take(worker)) {
            const int kv_head = int((task - first_task) / parts) * heads;
            const int64_t part = parts - 1 - (task - first_task) % parts;  // the longest first
            const int64_t token = query_starts[s] + part * Rows::tokens;
            const int64_t left = query_starts[s + 1] - token;
            const int tokens = int(left < Rows::tokens ? left : Rows::tokens), rows = tokens * Rows::group;
            int low = positions[token], high = low;
            for (int t = 1; t < tokens; t++) {
                low = positions[token + t] < low ? positions[token + t] : low;
                high = positions[token + t] > high ? positions[token + t] : high;
            }
            for (int h = 0; h < heads; h++) tiles[h].start(q, token, kv_head + h, rows);
            for (int page = Rows::first_visible(low) / page_tokens; page <= high / page_tokens; page++) {
                for (int h = 0; h < heads; h++) {
                    const auto sight = tiles[h].look(positions + token, rows, page);
                    if (sight == Rows::nothing) break;
                    tiles[h].visit(Rows::Pages::page(state, block_table[s * B + page]), kv_head + h, rows, sight, scale,
                                   softcap);
                }
            }
            for (int h = 0; h < heads; h++) tiles[h].finish(out, token, kv_head + h, rows);
        }
        first_task += tasks;
    }
}

}  // namespace xllmc
