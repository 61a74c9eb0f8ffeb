// Tables for rotary positions: one for all layers of a step.
//
// KERNELS  rope_table
// Chain    angle = float(position) * inv_freq in float32; cos and sin in double, times scale, rounded to float32.
#pragma once
#include <math.h>

#include "worker.h"

namespace xllmc {

// out[T, RD] = cos of RD/2 angles, then their sin. positions[T], inv_freq[RD/2].
template <int RD>
void rope_table(const int32_t* positions, const float* inv_freq, float scale, float* out, int64_t T,
                const xllmc_worker& worker) {
    for (auto [t, end] = share(worker, T); t < end; t++) {
        for (int i = 0; i < RD / 2; i++) {
            double angle = double(float(positions[t]) * inv_freq[i]);
            out[t * RD + i] = float(::cos(angle) * double(scale));
            out[t * RD + RD / 2 + i] = float(::sin(angle) * double(scale));
        }
    }
}

}  // namespace xllmc
