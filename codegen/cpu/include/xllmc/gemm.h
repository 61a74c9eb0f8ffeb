// Matrix products with packed weights, and what is fused behind them.
//
// KERNELS  linear<T, OutT, N, K, Activation, gated>
// Chain    panel_product's over all of K, then in float32: (+ bias), (activation), (gate * up), (epilogue), and one
//          rounding at the store. Never split over threads, never dependent on M.
#pragma once
#include "math.h"
#include "panel.h"
#include "worker.h"

namespace xllmc {

// The rows that a thread stages at once: as many as leave room for a panel in the second-level cache.
template <class T> constexpr int rows_per_block(int k) {
    constexpr int budget = 512 * 1024;
    int rows = budget / (staged_stride<T>(k) * 4) / 12 * 12;
    return rows < 48 ? 48 : rows > 240 ? 240 : rows;
}

// The epilogue that does nothing. An epilogue is given a vector of values, their row, the first one's column, and how
// many columns are left there; what it returns is stored.
struct Plain {
    XLLMC_INLINE F16 operator()(F16 x, int64_t, int, int) const { return x; }
};

// out[M, N] = epilogue(activation(x[M, K] * weights^T + bias[N])). Activation: a functor F16(F16) of math.h.
//
// packed: pack_panels of [N, K]. With `gated`, of the interleaving by 16 rows of a gate and an up projection, both [N,
// K]: out[M, N] = epilogue(activation(gate) * up). bias: in the order of the packed rows (with `gated`, interleaved
// too), or null.
template <class T, class OutT, int N, int K, class Activation = Identity, bool gated = false, class Epilogue = Plain>
void linear(const T* x, const void* packed, const T* bias, OutT* out, int64_t M, const xllmc_worker& worker,
            Epilogue epilogue = {}) {
    using Element = typename Staged<T>::element;
    constexpr int stride = staged_stride<T>(K);
    constexpr int steps = Staged<T>::steps(K);
    constexpr int columns = gated ? lanes : panel_columns;  // of `out`, in one panel
    constexpr int64_t panels = (N + columns - 1) / columns;
    if (M <= 0) return;

    const int64_t blocks = (M + rows_per_block<T>(K) - 1) / rows_per_block<T>(K);
    const int64_t group = panels >= 32 * worker.count ? 4 : panels >= 16 * worker.count ? 2 : 1;
    const int64_t groups = (panels + group - 1) / group;
    auto* left = static_cast<Element*>(scratch(size_t((M + blocks - 1) / blocks) * stride * sizeof(Element)));
    alignas(64) float sums[tile_rows<T> * panel_columns];

    int64_t staged_block = -1, first_row = 0;
    int rows = 0;
    for (int64_t task; (task = take(worker)) < blocks * groups;) {
        if (int64_t block = task / groups; block != staged_block) {
            staged_block = block;
            first_row = M * block / blocks;
            rows = int(M * (block + 1) / blocks - first_row);
            for (int r = 0; r < rows; r++) stage(x + (first_row + r) * K, left + int64_t(r) * stride, K);
        }
        int64_t panel = task % groups * group;
        int64_t last = panel + group < panels ? panel + group : panels;
        for (; panel < last; panel++) {
            const char* weights = static_cast<const char*>(packed) + panel * panel_bytes<T>(K);
            const int column = int(panel) * columns;
            F16 bias0 = zero(), bias1 = zero();
            if (bias) {
                constexpr int64_t total = gated ? panels * panel_columns : N;
                const int64_t left_over = total - panel * panel_columns;
                bias0 = load_some(bias + panel * panel_columns, int(left_over));
                if (left_over > lanes) bias1 = load_some(bias + panel * panel_columns + lanes, int(left_over) - lanes);
            }
            for (int t = 0; t < tile_count<T>(rows); t++) {
                const Tile tile = tile_of<T>(rows, t);
                panel_product<T>(tile.size, left + int64_t(tile.begin) * stride, stride, weights, steps, sums);
                for (int r = 0; r < tile.size; r++) {
                    const int64_t row = first_row + tile.begin + r;
                    F16 value0 = load(sums + r * panel_columns), value1 = load(sums + r * panel_columns + lanes);
                    if (bias) value0 += bias0, value1 += bias1;
                    OutT* to = out + row * N + column;
                    if constexpr (gated) {
                        store_some(to, epilogue(Activation{}(value0) * value1, row, column, N - column), N - column);
                    } else {
                        store_some(to, epilogue(Activation{}(value0), row, column, N - column), N - column);
                        if (N - column > lanes) {
                            const int second = column + lanes, rest = N - second;
                            store_some(to + lanes, epilogue(Activation{}(value1), row, second, rest), rest);
                        }
                    }
                }
            }
        }
    }
}

}  // namespace xllmc
