// A persistent thread pool that walks a list of launches. Include it in exactly one source file of a kernel library: it
// defines the library's exported functions.
//
// KERNELS  xllmc_abi_version, xllmc_isa, xllmc_pool_create, xllmc_pool_destroy, xllmc_run
#pragma once
#include <immintrin.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "abi.h"

namespace xllmc {

constexpr int max_operands = 64;
constexpr int max_threads = 1024;
constexpr int barrier_spins = 2000;         // about 20 microseconds before the core is offered to others
constexpr double idle_spin_seconds = 80e-6;  // a worker between two runs, before it sleeps
constexpr unsigned default_float_control = 0x1f80;

inline double now() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

// The arguments of xllmc_run. Written before `generation` grows, read after.
struct Run {
    const xllmc_launch* launches;
    int64_t count;
    void* const* bases;
    const int64_t* symbols;
    double* seconds;
    double started;
};

struct Pool {
    Run run;
    int32_t threads;
    int32_t started;
    pthread_t* handles;
    int32_t busy;

    alignas(64) uint32_t generation;
    uint32_t sleepers;
    bool stopping;
    alignas(64) int32_t arrived;
    alignas(64) uint32_t phase;
    alignas(64) int64_t next;
};

struct PoolThread {
    Pool* pool;
    int32_t index;
};

// Waits until all threads are here. The last one resets `next` for the launch that follows.
inline void meet(Pool* pool) {
    if (pool->threads == 1) {
        pool->next = 0;
        return;
    }
    const uint32_t phase = __atomic_load_n(&pool->phase, __ATOMIC_RELAXED);
    if (__atomic_add_fetch(&pool->arrived, 1, __ATOMIC_ACQ_REL) == pool->threads) {
        __atomic_store_n(&pool->next, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&pool->arrived, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&pool->phase, phase + 1, __ATOMIC_RELEASE);
        return;
    }
    for (int spin = 0; __atomic_load_n(&pool->phase, __ATOMIC_ACQUIRE) == phase; spin++) {
        if (spin < barrier_spins) _mm_pause();
        else sched_yield();
    }
}

inline void resolve(const xllmc_launch& launch, void* const* bases, const int64_t* symbols, xllmc_arg* arguments) {
    for (int32_t i = 0; i < launch.operand_count; i++) {
        const xllmc_operand& operand = launch.operands[i];
        switch (operand.kind) {
            case XLLMC_POINTER: arguments[i].p = static_cast<char*>(bases[operand.base]) + operand.value; break;
            case XLLMC_SYMBOL: arguments[i].i = symbols[operand.base]; break;
            case XLLMC_INTEGER: arguments[i].i = operand.value; break;
            default: memcpy(&arguments[i].f, &operand.value, sizeof(double));
        }
    }
}

inline void walk(Pool* pool, int32_t index) {
    // Copies: once the last launch is done, the caller may already be handing over its next list.
    const Run run = pool->run;
    double* seconds = index == 0 ? run.seconds : nullptr;
    xllmc_worker worker{index, pool->threads, &pool->next};
    xllmc_arg arguments[max_operands];
    double before = run.started;
    for (int64_t i = 0; i < run.count; i++) {
        resolve(run.launches[i], run.bases, run.symbols, arguments);
        run.launches[i].kernel(arguments, &worker);
        meet(pool);
        if (seconds) {
            double after = now();
            seconds[i] = after - before;
            before = after;
        }
    }
}

// Waits for a generation other than `seen`: spins for a while, then sleeps.
inline void await_generation(Pool* pool, uint32_t seen) {
    double deadline = now() + idle_spin_seconds;
    do {
        for (int spin = 0; spin < 64; spin++) {
            if (__atomic_load_n(&pool->generation, __ATOMIC_ACQUIRE) != seen) return;
            _mm_pause();
        }
    } while (now() < deadline);
    __atomic_add_fetch(&pool->sleepers, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&pool->generation, __ATOMIC_SEQ_CST) == seen)
        syscall(SYS_futex, &pool->generation, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
    __atomic_sub_fetch(&pool->sleepers, 1, __ATOMIC_SEQ_CST);
}

inline void announce(Pool* pool) {
    __atomic_add_fetch(&pool->generation, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&pool->sleepers, __ATOMIC_SEQ_CST))
        syscall(SYS_futex, &pool->generation, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

inline void* work(void* argument) {
    PoolThread self = *static_cast<PoolThread*>(argument);
    delete static_cast<PoolThread*>(argument);
    _mm_setcsr(default_float_control);  // a thread inherits its creator's, which may flush denormals
    for (uint32_t seen = 0;; seen++) {
        await_generation(self.pool, seen);
        if (self.pool->stopping) return nullptr;
        walk(self.pool, self.index);
    }
}

}  // namespace xllmc

XLLMC_EXPORT int32_t xllmc_abi_version() { return XLLMC_ABI_VERSION; }

// The instruction set this library was compiled for.
XLLMC_EXPORT const char* xllmc_isa() {
#if defined(__AVX512BF16__) && defined(__AVX512VNNI__)
    return "x86-64-v4-bf16";
#elif defined(__AVX512F__)
    return "x86-64-v4";
#else
    return "x86-64-v3";
#endif
}

XLLMC_EXPORT void xllmc_pool_destroy(void* handle) {
    auto* pool = static_cast<xllmc::Pool*>(handle);
    if (!pool) return;
    pool->stopping = true;
    xllmc::announce(pool);
    for (int32_t i = 0; i < pool->started; i++) pthread_join(pool->handles[i], nullptr);
    delete[] pool->handles;
    delete pool;
}

// A pool of `threads` threads, the caller of xllmc_run being the first of them; null if they cannot be had.
XLLMC_EXPORT void* xllmc_pool_create(int32_t threads) {
    if (threads < 1 || threads > xllmc::max_threads) return nullptr;
    auto* pool = new xllmc::Pool{};
    pool->threads = threads;
    pool->handles = new pthread_t[size_t(threads)];
    for (int32_t i = 1; i < threads; i++) {
        auto* thread = new xllmc::PoolThread{pool, i};
        if (pthread_create(&pool->handles[pool->started], nullptr, xllmc::work, thread)) {
            delete thread;
            xllmc_pool_destroy(pool);
            return nullptr;
        }
        pool->started++;
    }
    return pool;
}

// Runs the launches in order. `seconds`, if not null, receives the time of each. Returns 0; 1 if a launch has too many
// operands; 2 if the pool is already running a list (from another thread).
XLLMC_EXPORT int32_t xllmc_run(void* handle, const xllmc_launch* launches, int64_t count, void* const* bases,
                               const int64_t* symbols, double* seconds) {
    auto* pool = static_cast<xllmc::Pool*>(handle);
    for (int64_t i = 0; i < count; i++)
        if (launches[i].operand_count > xllmc::max_operands) return 1;
    if (__atomic_exchange_n(&pool->busy, 1, __ATOMIC_ACQUIRE)) return 2;
    unsigned float_control = _mm_getcsr();
    _mm_setcsr(xllmc::default_float_control);
    pool->run = {launches, count, bases, symbols, seconds, seconds ? xllmc::now() : 0};
    if (count && pool->threads > 1) xllmc::announce(pool);
    xllmc::walk(pool, 0);
    _mm_setcsr(float_control);
    __atomic_store_n(&pool->busy, 0, __ATOMIC_RELEASE);
    return 0;
}
