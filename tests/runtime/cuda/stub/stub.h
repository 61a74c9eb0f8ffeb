// A stand-in for NVIDIA's driver, libcuda.so.1, on machines without one: it keeps a log of every call, holds device
// memory between pages that fault, and carries out what streams were given as late as a real device might.
//
// All calls take one lock. Work of a stream is queued, and done when somebody waits for it: so a buffer that is
// overwritten before its copy was waited for, or a result that is read too early, is seen. Or, if a test wants that, it
// is done at once: so an input that is written after its copy was queued is seen. Kernels are run by a hook.
#pragma once
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Result;  // CUresult
typedef uint64_t Address;  // CUdeviceptr

enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    ILLEGAL_ADDRESS = 700,
    LAUNCH_OUT_OF_RESOURCES = 701,
    CAPTURE_UNSUPPORTED = 900,
};

// What the driver has given out, and not got back.
typedef enum { DEVICE, HOST, RESERVED, MAPPED, PHYSICAL, MODULE, STREAM, EVENT, GRAPH, EXECUTABLE, CONTEXT } Kind;

typedef struct Object {
    Kind kind;
    uint64_t handle;  // an address, where it is memory
    size_t size;
    void* data;
    struct Object* next;
} Object;

Object* object_add(Kind kind, uint64_t handle, size_t size, void* data);
Object* object_find(Kind kind, uint64_t handle);
Object* object_around(Kind kind, uint64_t address, size_t size);  // that has all of these bytes
void object_remove(Object* object);
uint64_t new_handle(void);

// The log: one JSON object a line.
void note(const char* format, ...) __attribute__((format(printf, 1, 2)));
// A call that a driver would punish, now or later: noted, and `code` returned.
Result fault(Result code, const char* format, ...) __attribute__((format(printf, 2, 3)));

// Begins every call: takes the lock, and returns the error that a test wants of this call.
Result enter(const char* name);
Result leave(Result result);
#define ENTER(name) \
    do { \
        Result wanted_ = enter(name); \
        if (wanted_) return leave(wanted_); \
    } while (0)

void* guarded_alloc(size_t size);  // ends at a page that faults
void guarded_free(void* memory, size_t size);
bool readable(Address address, size_t size);  // device memory that a kernel or a copy may touch
bool pinned(const void* address, size_t size);

// A kernel of a cubin, as its ELF sections tell.
typedef struct {
    char name[256];
    int parameters;
    int bytes;  // of all parameters
    unsigned block;  // threads it must be launched with
    int shared_limit;
    bool loaded;
} Entry;

typedef struct {
    int architecture;
    int count;
    Entry* entries;
} Module;

bool parse_cubin(const uint8_t* image, Module* module);
void free_module(Module* module);

typedef void (*KernelHook)(const char* name, int count, const uint64_t* arguments, const unsigned* grid);
extern KernelHook kernel_hook;
extern int device_architecture;
extern __thread uint64_t current_context;  // of the calling thread
extern Result poison;  // what every call returns once the device has failed
extern const char* poisonous_kernel;
void drain(Object* stream);
bool capturing(void);
