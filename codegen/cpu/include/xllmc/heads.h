// The steps of qkv.h apart, for models whose projections do not come as one: rotary positions, and the cache's writes.
//
// KERNELS  rope<T, H, D, RD>, kv_write<T, Hkv, D, Dv>
// Chain    as in qkv.h: rotated in float32, one rounding to T.
#pragma once
#include "cache.h"
#include "qkv.h"

namespace xllmc {

// out[M, H, D] = x with the first RD elements of every head rotated by table[M, RD] (rope_table's).
template <class T, int H, int D, int RD>
void rope(const T* x, const float* table, T* out, int64_t M, const xllmc_worker& worker) {
    alignas(64) float head[D];
    for (auto [i, end] = share(worker, M * H); i < end; i++) {
        for_row<D>([&](int j, int n) { store_some(head + j, load_some(x + i * D + j, n), n); });
        rotate<RD>(head, table + i / H * RD);
        for_row<D>([&](int j, int n) { store_some(out + i * D + j, load_some(head + j, n), n); });
    }
}

// k[M, Hkv, D] and v[M, Hkv, Dv] to the cache at slots[M].
template <class T, int Hkv, int D, int Dv>
void kv_write(void* state, const T* k, const T* v, const int32_t* slots, int64_t M, const xllmc_worker& worker) {
    alignas(64) float head[D];
    for (auto [i, end] = share(worker, M * Hkv); i < end; i++) {
        const int h = int(i % Hkv);
        for_row<D>([&](int j, int n) { store_some(head + j, load_some(k + i * D + j, n), n); });
        Cache<T, Hkv, D, Dv>::write_key(state, slots[i / Hkv], h, head);
        Cache<T, Hkv, D, Dv>::write_value(state, slots[i / Hkv], h, v + i * Dv);
    }
}

}  // namespace xllmc
