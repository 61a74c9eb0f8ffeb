// The soft cap of a row.
//
// KERNELS  softcap_row
// Chain    none: every element by itself, in float32, rounded once when it is stored.
#pragma once
#include "xllmc/math.h"
#include "xllmc/rows.h"

namespace acme {

// y[W] = cap * tanh(x[W] / cap). y may be x.
template <int W, class T> XLLMC_INLINE void softcap_row(const T* x, T* y, float cap) {
    const xllmc::F16 limit = xllmc::set1(cap);
    xllmc::for_row<W>([&](int i, int count) {
        xllmc::store_some(y + i, xllmc::tanh(xllmc::load_some(x + i, count) / limit) * limit, count);
    });
}

}  // namespace acme
