// Rows picked by index: copies, so every form gives the same bits.
//
// KERNELS  embed (row-major table), embed_packed (a table packed as a matrix product's weights), take_rows;
//          embed_through, embed_packed_through: with an epilogue, as of gemm.h
// Chain    none; an epilogue in float32, with one rounding at the store.
#pragma once
#include "panel.h"
#include "rows.h"
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

// Row `id` of the matrix [V, H] that `packed` holds in panels.
template <class T, int H> inline void packed_row(const void* packed, int32_t id, T* out) {
    constexpr int per_lane = 4 / sizeof(T);
    const char* column =
        static_cast<const char*>(packed) + id / panel_columns * panel_bytes<T>(H) + id % panel_columns * 4;
    for (int s = 0; s < H / per_lane; s++) memcpy(out + s * per_lane, column + s * 128, 4);
    if constexpr (H % per_lane) memcpy(out + H - 1, column + H / per_lane * 128, sizeof(T));
}

// out[M, H] = row ids[M] of the matrix [V, H] that `packed` holds in panels. Ids must be in range.
template <class T, int H>
void embed_packed(const void* packed, const int32_t* ids, T* out, int64_t M, const xllmc_worker& worker) {
    for (auto [m, end] = share(worker, M); m < end; m++) packed_row<T, H>(packed, ids[m], out + m * H);
}

// out[M, H] = epilogue(table[ids[M], H]).
template <class T, class OutT, int H, class Epilogue>
void embed_through(const T* table, const int32_t* ids, OutT* out, int64_t M, const xllmc_worker& worker,
                   Epilogue epilogue) {
    for (auto [m, end] = share(worker, M); m < end; m++) {
        const T* from = table + int64_t(ids[m]) * H;
        for_row<H>([&](int i, int n) { store_some(out + m * H + i, epilogue(load_some(from + i, n), m, i, n), n); });
    }
}

// The same of a matrix in panels.
template <class T, class OutT, int H, class Epilogue>
void embed_packed_through(const void* packed, const int32_t* ids, OutT* out, int64_t M, const xllmc_worker& worker,
                          Epilogue epilogue) {
    T* from = static_cast<T*>(scratch(H * sizeof(T)));
    for (auto [m, end] = share(worker, M); m < end; m++) {
        packed_row<T, H>(packed, ids[m], from);
        for_row<H>([&](int i, int n) { store_some(out + m * H + i, epilogue(load_some(from + i, n), m, i, n), n); });
    }
}

}  // namespace xllmc
