// Rows picked by index: copies, so every form gives the same bits.
//
// KERNELS  embed (row-major table), embed_packed (a table packed as a matrix product's weights), take_rows
// Chain    none.
#pragma once
#include "panel.h"
#include "worker.h"

namespace xllmc {

// out[R, H] = x[rows[R], H]. Rows must be in range.
template <class T, int H>
void take_rows(const T* x, const int32_t* rows, T* out, int64_t R, const xllmc_worker& worker) {
    for (auto [r, end] = share(worker, R); r < end; r++) memcpy(out + r * H, x + int64_t(rows[r]) * H, H * sizeof(T));
}

// out[M, H] = table[ids[M], H]. Ids must be in range.
template <class T, int H>
void embed(const T* table, const int32_t* ids, T* out, int64_t M, const xllmc_worker& worker) {
    take_rows<T, H>(table, ids, out, M, worker);
}

// out[M, H] = row ids[M] of the matrix [V, H] that `packed` holds in panels. Ids must be in range.
template <class T, int H>
void embed_packed(const void* packed, const int32_t* ids, T* out, int64_t M, const xllmc_worker& worker) {
    constexpr int per_lane = 4 / sizeof(T);
    for (auto [m, end] = share(worker, M); m < end; m++) {
        const char* column = static_cast<const char*>(packed) + ids[m] / panel_columns * panel_bytes<T>(H) +
                             ids[m] % panel_columns * 4;
        T* to = out + m * H;
        for (int s = 0; s < H / per_lane; s++) memcpy(to + s * per_lane, column + s * 128, 4);
        if constexpr (H % per_lane) memcpy(to + H - 1, column + H / per_lane * 128, sizeof(T));
    }
}

}  // namespace xllmc
