// The paged cache of keys and values of one layer.
//
// A page holds 32 positions: keys first, per head [D][32] (float) or [D/2][32][2] (bf16: a panel of panel.h, with
// positions for columns), then values, per head [32][Dv] row-major. slot = page * 32 + position % 32.
#pragma once
#include "panel.h"

namespace xllmc {

constexpr int page_tokens = 32;
static_assert(page_tokens == panel_columns);

template <class T, int Hkv, int D, int Dv> struct Cache {
    static_assert(D % 2 == 0, "keys are stored in pairs along the head");
    static constexpr int64_t page_elements = int64_t(Hkv) * (D + Dv) * page_tokens;

    static T* page(void* state, int64_t page) { return static_cast<T*>(state) + page * page_elements; }
    static const T* page(const void* state, int64_t page) {
        return static_cast<const T*>(state) + page * page_elements;
    }
    static constexpr int64_t keys(int head) { return int64_t(head) * D * page_tokens; }
    static constexpr int64_t values(int head) { return keys(Hkv) + int64_t(head) * Dv * page_tokens; }

    // Stores a key of `head`, rounded to T, at `slot`.
    static void write_key(void* state, int64_t slot, int head, const float* key) {
        const int64_t position = slot % page_tokens;
        T* to = page(state, slot / page_tokens) + keys(head);
        if constexpr (sizeof(T) == 4) {
            for (int d = 0; d < D; d++) to[d * page_tokens + position] = key[d];
        } else {
            alignas(64) T row[(D + 15) / 16 * 16];
            for (int d = 0; d < D; d += lanes) store(row + d, load_some(key + d, D - d));
            for (int d = 0; d < D; d += 2) memcpy(to + d * page_tokens + position * 2, row + d, 4);
        }
    }

    // Stores a value of `head` at `slot`.
    static void write_value(void* state, int64_t slot, int head, const T* value) {
        memcpy(page(state, slot / page_tokens) + values(head) + slot % page_tokens * Dv, value, Dv * sizeof(T));
    }
};

}  // namespace xllmc
