// What this machine gives at most: bandwidth of reading memory, and rate of multiply-adds held in registers.
//
//     limits THREADS            prints name, value and unit of each limit, tab-separated
//     limits THREADS curve      also the bandwidth of reading smaller working sets, over and over
//
// Each figure is the best of several rounds: a limit is what the machine can do, not what it does beside its neighbours.
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <chrono>
#include <functional>
#include <thread>
#include <vector>

static double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

static double best_seconds(int threads, int rounds, const std::function<void(int)>& work) {
    double best = 1e30;
    for (int r = 0; r < rounds; r++) {
        const double began = now();
        std::vector<std::thread> others;
        for (int t = 1; t < threads; t++) others.emplace_back(work, t);
        work(0);
        for (auto& thread : others) thread.join();
        best = std::min(best, now() - began);
    }
    return best;
}

static volatile int64_t sink;

static void read_all(const char* p, size_t bytes) {
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    for (size_t i = 0; i < bytes; i += 128) {
        a = _mm256_add_epi64(a, _mm256_load_si256((const __m256i*)(p + i)));
        b = _mm256_add_epi64(b, _mm256_load_si256((const __m256i*)(p + i + 32)));
        c = _mm256_add_epi64(c, _mm256_load_si256((const __m256i*)(p + i + 64)));
        d = _mm256_add_epi64(d, _mm256_load_si256((const __m256i*)(p + i + 96)));
    }
    a = _mm256_add_epi64(_mm256_add_epi64(a, b), _mm256_add_epi64(c, d));
    sink = _mm256_extract_epi64(a, 0);
}

#if defined(__AVX512F__)
#define REPEAT(I) \
    I(0) I(1) I(2) I(3) I(4) I(5) I(6) I(7) I(8) I(9) I(10) I(11)
// Twelve accumulators hide the latency of any of these instructions. Written as assembly, so that none is spilled.
#define LOOP(instruction)                                                                                       \
    static void spin_##instruction(int64_t n) {                                                                 \
        asm volatile("vpxorq %%zmm30,%%zmm30,%%zmm30\n vpxorq %%zmm31,%%zmm31,%%zmm31\n"                        \
                     "1:\n" REPEAT(ONE_##instruction) "dec %0\n jnz 1b\n"                                       \
                     : "+r"(n)::"zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5", "zmm6", "zmm7", "zmm8", "zmm9", \
                       "zmm10", "zmm11", "zmm30", "zmm31", "cc");                                               \
    }
#define ONE_vfmadd231ps(r) "vfmadd231ps %%zmm30,%%zmm31,%%zmm" #r "\n"
LOOP(vfmadd231ps)
#if defined(__AVX512BF16__)
#define ONE_vdpbf16ps(r) "vdpbf16ps %%zmm30,%%zmm31,%%zmm" #r "\n"
LOOP(vdpbf16ps)
#endif
#endif

#if !defined(__AVX512F__)
#define REPEAT(I) \
    I(0) I(1) I(2) I(3) I(4) I(5) I(6) I(7) I(8) I(9) I(10) I(11)
#define ONE_ymm(r) "vfmadd231ps %%ymm14,%%ymm15,%%ymm" #r "\n"
static void spin_ymm(int64_t n) {
    asm volatile("vpxor %%xmm14,%%xmm14,%%xmm14\n vpxor %%xmm15,%%xmm15,%%xmm15\n"
                 "1:\n" REPEAT(ONE_ymm) "dec %0\n jnz 1b\n"
                 : "+r"(n)::"xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
                   "xmm11", "xmm14", "xmm15", "cc");
}
#endif

int main(int count, char** arguments) {
    const int threads = atoi(arguments[1]);
    const size_t bytes = size_t(1) << 30, part = bytes / threads / 4096 * 4096;
    char* memory = (char*)mmap(nullptr, bytes + (2 << 20), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memory = (char*)((uintptr_t(memory) + (2 << 20) - 1) & ~uintptr_t((2 << 20) - 1));
    madvise(memory, bytes, MADV_HUGEPAGE);
    memset(memory, 1, bytes);
    double s = best_seconds(threads, 7, [&](int t) { read_all(memory + t * part, part); });
    printf("read bandwidth\t%.4g\tB/s\n", part * threads / s);
    for (size_t set = size_t(1) << 18; count > 2 && set <= bytes / 2; set *= 2) {
        const size_t own = set / threads / 4096 * 4096, turns = (size_t(1) << 28) / set + 1;
        s = best_seconds(threads, 5, [&](int t) {
            for (size_t i = 0; i < turns; i++) read_all(memory + t * own, own);
        });
        printf("read %zu\t%.4g\tB/s\n", set, double(own) * threads * turns / s);
    }
#if defined(__AVX512F__)
    const int64_t turns = 20'000'000;
    s = best_seconds(threads, 5, [&](int) { spin_vfmadd231ps(turns); });
    printf("fp32 peak\t%.4g\tFLOP/s\n", threads * turns * 12.0 * 32 / s);
#if defined(__AVX512BF16__)
    s = best_seconds(threads, 5, [&](int) { spin_vdpbf16ps(turns); });
    printf("bf16 peak\t%.4g\tFLOP/s\n", threads * turns * 12.0 * 64 / s);
#endif
#else
    const int64_t turns = 20'000'000;
    s = best_seconds(threads, 5, [&](int) { spin_ymm(turns); });
    printf("fp32 peak\t%.4g\tFLOP/s\n", threads * turns * 12.0 * 16 / s);
#endif
}
