// What lies between the joint projection and attention: norm of the heads, rotary positions, and the cache's new
// entries.
//
// KERNELS  qkv_write<T, Hq, Hkv, D, Dv, RD, W>
// Chain    per head in float32: rms norm as in norm.h, then x1*cos - x2*sin and x2*cos + x1*sin (products rounded),
//          then one rounding to T.
#pragma once
#include "cache.h"
#include "norm.h"

namespace xllmc {

// Rotates the first RD elements of `head` in place: halves (x[i], x[i + RD/2]) by the angles of `row`, [cos | sin].
template <int RD> XLLMC_INLINE void rotate(float* head, const float* row) {
    constexpr int half = RD / 2;
    for_row<half>([&](int i, int n) {
        F16 x1 = load_some(head + i, n), x2 = load_some(head + half + i, n);
        F16 cos = load_some(row + i, n), sin = load_some(row + half + i, n);
        store_some(head + i, x1 * cos - x2 * sin, n);
        store_some(head + half + i, x2 * cos + x1 * sin, n);
    });
}

// qkv[M, (Hq + Hkv) * D + Hkv * Dv], heads of q, then k, then v: q to q_out[M, Hq, D], k and v to the cache at
// slots[M].
//
// q_weight[D], k_weight[D]: of an rms norm of each head of q and k, or null for none. RD: elements that are rotated by
// table[M, RD] (rope_table's), or 0 for none.
template <class T, int Hq, int Hkv, int D, int Dv, int RD = 0, class W = T>
void qkv_write(const T* qkv, const W* q_weight, const W* k_weight, float eps, const float* table, const int32_t* slots,
               T* q_out, void* state, int64_t M, const xllmc_worker& worker) {
    static_assert(RD <= D && RD % 2 == 0);
    constexpr int heads = Hq + 2 * Hkv;
    constexpr int row = (Hq + Hkv) * D + Hkv * Dv;
    alignas(64) float head[D];
    for (auto [i, end] = share(worker, M * heads); i < end; i++) {
        const int64_t m = i / heads;
        const int h = int(i % heads);
        if (h >= Hq + Hkv) {
            const int v = h - Hq - Hkv;
            Cache<T, Hkv, D, Dv>::write_value(state, slots[m], v, qkv + m * row + (Hq + Hkv) * D + v * Dv);
            continue;
        }
        const T* x = qkv + m * row + h * D;
        if (const W* weight = h < Hq ? q_weight : k_weight) rms_norm_row<D>(x, weight, head, eps);
        else for_row<D>([&](int j, int n) { store_some(head + j, load_some(x + j, n), n); });
        if constexpr (RD > 0) rotate<RD>(head, table + m * RD);
        if (h >= Hq) {
            Cache<T, Hkv, D, Dv>::write_key(state, slots[m], h - Hq, head);
        } else {
            T* to = q_out + (m * Hq + h) * D;
            for_row<D>([&](int j, int n) { store_some(to + j, load_some(head + j, n), n); });
        }
    }
}

}  // namespace xllmc
