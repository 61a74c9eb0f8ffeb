// The C interface of a kernel library: what the runtime calls, and what a kernel is given. Version 1.
#pragma once
#include <stdint.h>

#define XLLMC_ABI_VERSION 1
#define XLLMC_EXPORT extern "C" __attribute__((visibility("default")))

extern "C" {

// One bound operand of a launch: a pointer, an integer or a real.
typedef union {
    void* p;
    int64_t i;
    double f;
} xllmc_arg;

// The thread a kernel runs on. Work is split by `index` of `count`, or taken in turns from `*next`
// (zero at the start of every launch; take with an atomic add). Which thread does what never changes a result.
typedef struct {
    int32_t index;
    int32_t count;
    int64_t* next;
} xllmc_worker;

typedef void (*xllmc_kernel)(const xllmc_arg* args, const xllmc_worker* worker);

enum xllmc_operand_kind { XLLMC_POINTER = 0, XLLMC_SYMBOL = 1, XLLMC_INTEGER = 2, XLLMC_REAL = 3 };

// POINTER: bases[base] + value bytes. SYMBOL: symbols[base]. INTEGER: value. REAL: the double whose bits are value.
typedef struct {
    int32_t kind;
    int32_t base;
    int64_t value;
} xllmc_operand;

typedef struct {
    xllmc_kernel kernel;
    const xllmc_operand* operands;
    int32_t operand_count;
    int32_t reserved;
} xllmc_launch;
}
