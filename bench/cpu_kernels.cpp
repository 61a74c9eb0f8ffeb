// Measures the CPU kernels at the shapes of one model, as one launch list over weights larger than any cache.
// Usage: cpu_kernels THREADS. Prints one line per figure: name, value, unit, separated by tabs.
#include <stdio.h>
#include <sys/mman.h>

#include <algorithm>
#include <vector>

#include "xllmc/attention.h"
#include "xllmc/gemm.h"
#include "xllmc/norm.h"
#include "xllmc/pool.h"
#include "xllmc/qkv.h"
#include "xllmc/sampler.h"

using namespace xllmc;

// Qwen3-0.6B.
constexpr int layers = 28, hidden = 1024, inner = 3072, Hq = 16, Hkv = 8, D = 128, vocabulary = 151936;
constexpr int qkv_columns = (Hq + 2 * Hkv) * D;

#define KERNEL(name) static void name(const xllmc_arg* a, const xllmc_worker* w)

using T = XLLMC_BENCH_TYPE;

template <class OutT, int N, int K, class E = Identity, bool gated = false>
void product(const xllmc_arg* a, const xllmc_worker* w) {
    linear<T, OutT, N, K, E, gated>(static_cast<T*>(a[0].p), a[1].p, nullptr, static_cast<OutT*>(a[2].p), a[3].i, *w);
}
KERNEL(norm) {
    add_rms_norm<T, T, hidden>(static_cast<T*>(a[0].p), static_cast<T*>(a[0].p), static_cast<T*>(a[1].p),
                               static_cast<T*>(a[2].p), static_cast<T*>(a[2].p), a[3].i, 1e-6f, *w);
}
KERNEL(write_qkv) {
    qkv_write<T, Hq, Hkv, D, D, D>(static_cast<T*>(a[0].p), static_cast<T*>(a[1].p), static_cast<T*>(a[1].p), 1e-6f,
                                   static_cast<float*>(a[2].p), static_cast<int32_t*>(a[3].p), static_cast<T*>(a[4].p),
                                   a[5].p, a[6].i, *w);
}
KERNEL(attend) {
    paged_attention<T, Hq, Hkv, D, D>(static_cast<T*>(a[0].p), a[1].p, static_cast<int32_t*>(a[2].p),
                                      static_cast<int32_t*>(a[3].p), static_cast<int32_t*>(a[4].p),
                                      static_cast<T*>(a[5].p), a[6].i, a[7].i, 0.088f, 0, *w);
}
KERNEL(draw) {
    sample(static_cast<float*>(a[0].p), static_cast<xllmc_sampling_row*>(a[1].p), nullptr, nullptr, nullptr, nullptr,
           static_cast<int32_t*>(a[2].p), static_cast<float*>(a[3].p), static_cast<int32_t*>(a[4].p),
           static_cast<float*>(a[5].p), a[6].i, vocabulary, *w);
}
KERNEL(read_memory) {
    auto [i, end] = share(*w, a[1].i / 256);
    const char* p = static_cast<const char*>(a[0].p);
    I16 sum[4] = {set1_int(0), set1_int(0), set1_int(0), set1_int(0)};
    for (; i < end; i++)
        for (int j = 0; j < 4; j++) sum[j] = sum[j] + load(static_cast<const void*>(p + i * 256 + j * 64));
    store(static_cast<char*>(a[2].p) + w->index * 64, sum[0] + sum[1] + sum[2] + sum[3]);
}
// Register-only panel products: what the arithmetic alone allows.
KERNEL(compute) {
    static thread_local typename Staged<T>::element left[tile_rows<T> * 512] = {};
    static thread_local float panel[32 * 64] = {}, sums[tile_rows<T> * panel_columns];
    for (int64_t i = 0; i < a[0].i; i++) panel_product<T>(tile_rows<T>, left, 512, panel, 64, sums);
}
KERNEL(nothing) { (void)a, (void)w; }

struct List {
    std::vector<xllmc_launch> launches;
    std::vector<std::vector<xllmc_operand>> operands;
    std::vector<void*> bases;

    struct Value {
        xllmc_operand operand;
        void* pointer;
        Value(void* p) : operand{XLLMC_POINTER, 0, 0}, pointer(p) {}
        Value(int64_t i) : operand{XLLMC_INTEGER, 0, i}, pointer(nullptr) {}
    };
    void add(xllmc_kernel kernel, std::vector<Value> values) {
        std::vector<xllmc_operand> bound;
        for (Value& v : values) {
            if (v.operand.kind == XLLMC_POINTER) v.operand.base = int32_t(bases.size()), bases.push_back(v.pointer);
            bound.push_back(v.operand);
        }
        operands.push_back(bound);
        launches.push_back({kernel, operands.back().data(), int32_t(bound.size()), 0});
    }
    // The seconds of each launch in the run whose total was smallest.
    std::vector<double> best(void* pool, int runs) {
        std::vector<double> seconds(launches.size()), fastest;
        double least = 1e9;
        for (int i = 0; i < runs; i++) {
            xllmc_run(pool, launches.data(), int64_t(launches.size()), bases.data(), nullptr, seconds.data());
            double total = 0;
            for (double s : seconds) total += s;
            if (total < least) least = total, fastest = seconds;
        }
        return fastest;
    }
};

static char* memory(int64_t bytes) {
    void* p = mmap(nullptr, size_t(bytes + 8192), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) abort();
    return static_cast<char*>(p);
}

// Small values of both signs.
static T* values(int64_t count) {
    T* p = reinterpret_cast<T*>(memory(count * int64_t(sizeof(T))));
    uint32_t state = 1;
    for (int64_t i = 0; i < count; i++) {
        state = state * 1664525 + 1013904223;
        p[i] = T(float(int32_t(state) >> 8) * 0x1p-27f);
    }
    return p;
}

static void report(const char* name, double value, const char* unit) { printf("%s\t%.4g\t%s\n", name, value, unit); }

static double sum(const std::vector<double>& seconds) {
    double total = 0;
    for (double s : seconds) total += s;
    return total;
}

struct Product {
    const char* name;
    xllmc_kernel kernel;
    int n, k;  // rows and columns of the weights

    int64_t bytes() const { return int64_t(n) * k * int64_t(sizeof(T)); }
};
static const Product products[] = {
    {"qkv", product<T, qkv_columns, hidden>, qkv_columns, hidden},
    {"attention output", product<T, hidden, Hq * D>, hidden, Hq * D},
    {"gate and up", product<T, inner, hidden, Silu, true>, 2 * inner, hidden},
    {"down", product<T, hidden, inner>, hidden, inner},
};

int main(int, char** argv) {
    const int threads = atoi(argv[1]);
    void* pool = xllmc_pool_create(threads);
    constexpr int max_rows = 512;
    T* weights[4];
    for (int i = 0; i < 4; i++) weights[i] = values(int64_t(layers) * products[i].n * products[i].k);
    T* head = values(int64_t(vocabulary) * hidden);
    T *x = values(max_rows * qkv_columns), *y = values(max_rows * 2 * inner);
    float* logits = reinterpret_cast<float*>(memory(int64_t(16) * vocabulary * 4));
    char* sink = memory(1 << 20);

    {
        List list;
        for (int i = 0; i < 4; i++)
            list.add(read_memory, {weights[i], products[i].bytes() * layers, sink});
        int64_t bytes = 0;
        for (const Product& p : products) bytes += p.bytes() * layers;
        report("read bandwidth", double(bytes) / sum(list.best(pool, 8)) / 1e9, "GB/s");
    }
    {
        List list;
        list.add(compute, {int64_t(20000)});
        report("peak", 2.0 * tile_rows<T> * 32 * 64 * (4 / sizeof(T)) * 20000 * threads / sum(list.best(pool, 8)) / 1e9,
               "GFLOP/s");
    }
    {
        List list;
        for (int i = 0; i < 1000; i++) list.add(nothing, {});
        report("launch", sum(list.best(pool, 20)) / 1000 * 1e6, "us");
    }
    for (int64_t M : {1, 2, 4, 8, 12, 16, 32, 64, 512}) {
        double flops = 0, bytes = 0, total = 0;
        for (int i = 0; i < 4; i++) {
            const Product& p = products[i];
            List list;
            const int repeats = M > 64 ? 4 : layers;
            for (int l = 0; l < repeats; l++) list.add(p.kernel, {x, weights[i] + int64_t(l) * p.n * p.k, y, M});
            const double seconds = sum(list.best(pool, M > 64 ? 3 : 6));
            const double f = 2.0 * double(M) * p.n * p.k * repeats, b = double(p.n) * p.k * sizeof(T) * repeats;
            flops += f, bytes += b, total += seconds;
            char name[80];
            snprintf(name, sizeof name, "M=%d %s", int(M), p.name);
            if (M == 1) report(name, b / seconds / 1e9, "GB/s");
            if (M >= 64) report(name, f / seconds / 1e9, "GFLOP/s");
        }
        char name[80];
        snprintf(name, sizeof name, "M=%d all", int(M));
        report(name, bytes / total / 1e9, "GB/s");
        report(name, flops / total / 1e9, "GFLOP/s");
    }

    // Whole steps: every layer of the model with its own weights, and a cache of its own.
    const auto step = [&](const char* name, int64_t S, int64_t length, int64_t context, int64_t rows_of_logits) {
        const int64_t M = S * length, B = (context + 31) / 32;
        const int64_t page = Cache<T, Hkv, D, D>::page_elements;
        T* cache = values(layers * S * B * page);
        std::vector<int32_t> table(size_t(S * B)), starts(size_t(S + 1)), positions(size_t(M), 0), slots(size_t(M), 0);
        for (int64_t i = 0; i < S * B; i++) table[size_t(i)] = int32_t(i);
        for (int64_t s = 0; s <= S; s++) starts[size_t(s)] = int32_t(s * length);
        for (int64_t m = 0; m < M; m++) {
            positions[size_t(m)] = int32_t(context - length + m % length);
            slots[size_t(m)] = int32_t(m / length * B * 32) + positions[size_t(m)];
        }
        std::vector<float> angles(size_t(M * D), 0.5f);
        T *hidden_rows = values(M * hidden), *qkv = values(M * qkv_columns), *q = values(M * Hq * D),
          *mixed = values(M * Hq * D), *gated = values(M * inner);
        List list;
        for (int l = 0; l < layers; l++) {
            T* state = cache + l * S * B * page;
            list.add(norm, {hidden_rows, x, hidden_rows, M});
            list.add(products[0].kernel, {hidden_rows, weights[0] + int64_t(l) * qkv_columns * hidden, qkv, M});
            list.add(write_qkv, {qkv, x, angles.data(), slots.data(), q, state, M});
            list.add(attend, {q, state, table.data(), starts.data(), positions.data(), mixed, S, B});
            list.add(products[1].kernel, {mixed, weights[1] + int64_t(l) * hidden * Hq * D, hidden_rows, M});
            list.add(norm, {hidden_rows, x, hidden_rows, M});
            list.add(products[2].kernel, {hidden_rows, weights[2] + int64_t(l) * 2 * inner * hidden, gated, M});
            list.add(products[3].kernel, {gated, weights[3] + int64_t(l) * hidden * inner, hidden_rows, M});
        }
        list.add(product<float, vocabulary, hidden>, {hidden_rows, head, logits, rows_of_logits});
        const auto seconds = list.best(pool, M > 64 ? 3 : 6);
        const char* kinds[] = {"norm", "qkv", "qkv_write", "attention", "output", "norm", "gate and up", "down"};
        double by_kind[8] = {};
        for (size_t i = 0; i + 1 < seconds.size(); i++) by_kind[i % 8] += seconds[i];
        char label[80];
        for (int i = 0; i < 8; i++) {
            snprintf(label, sizeof label, "%s: %s", name, kinds[i]);
            report(label, by_kind[i] * 1e3, "ms");
        }
        snprintf(label, sizeof label, "%s: logits", name);
        report(label, seconds.back() * 1e3, "ms");
        snprintf(label, sizeof label, "%s: step", name);
        report(label, sum(seconds) * 1e3, "ms");
        report(label, double(M) / sum(seconds), "tokens/s");
        munmap(cache, size_t(layers * S * B * page) * sizeof(T) + 8192);
    };
    step("decode, 1 sequence at 128", 1, 1, 128, 1);
    step("decode, 1 sequence at 2048", 1, 1, 2048, 1);
    step("decode, 8 sequences at 2048", 8, 1, 2048, 8);
    step("prefill 512", 1, 512, 512, 1);
    step("prefill 512 of 4096", 1, 512, 4096, 1);

    xllmc_sampling_row greedy{};
    greedy.top_p = greedy.repetition_penalty = 1, greedy.mask_row = -1;
    for (int64_t i = 0; i < vocabulary; i++) logits[i] = float((i * 2654435761u) % 100003) * 1e-4f;
    xllmc_sampling_row warm = greedy, cut = greedy;
    warm.temperature = 0.8f;
    cut.temperature = 0.8f, cut.top_p = 0.95f, cut.top_k = 50, cut.top_logprobs = 20;
    const std::pair<const char*, xllmc_sampling_row*> kinds[] = {
        {"sample, greedy", &greedy}, {"sample, temperature", &warm}, {"sample, top-k and top-p", &cut}};
    for (auto& [name, row] : kinds) {
        List list;
        list.add(draw, {logits, row, sink, sink + 64, sink + 128, sink + 256, int64_t(1)});
        report(name, sum(list.best(pool, 20)) * 1e3, "ms");
    }
    xllmc_pool_destroy(pool);
}
