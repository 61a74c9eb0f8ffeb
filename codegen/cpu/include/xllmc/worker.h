// How a kernel shares its work among the pool's threads, and the memory a thread keeps for itself.
//
// KERNELS  take, Span / share, scratch
#pragma once
#include <stdint.h>
#include <stdlib.h>

#include "abi.h"

namespace xllmc {

// The first of `count` tasks that this thread takes in turn. Tasks past the end mean that all are taken.
inline int64_t take(const xllmc_worker& worker, int64_t count = 1) {
    return __atomic_fetch_add(worker.next, count, __ATOMIC_RELAXED);
}

struct Span {
    int64_t begin, end;
};

// This thread's even, contiguous share of `items`.
inline Span share(const xllmc_worker& worker, int64_t items) {
    return {items * worker.index / worker.count, items * (worker.index + 1) / worker.count};
}

struct Scratch {
    void* memory = nullptr;
    size_t bytes = 0;
    ~Scratch() { free(memory); }
};

// Memory of this thread, aligned to 64 bytes and at least `bytes` long; its content is undefined. A later call may move
// it, so a kernel asks once.
inline void* scratch(size_t bytes) {
    static thread_local Scratch own;
    if (own.bytes < bytes) {
        free(own.memory);
        own.bytes = (bytes + 4095) / 4096 * 4096;
        own.memory = aligned_alloc(4096, own.bytes);
        if (!own.memory) abort();
    }
    return own.memory;
}

}  // namespace xllmc
