// What is given out, the log, and failures on demand.
#include "stub.h"
#include <sys/mman.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Object* objects;
static uint64_t handles = 0x1000;
static FILE* log_file;
static long calls, faults;
static char failing_name[64];
static long failing_in;
static Result failing_code;
Result poison;
const char* poisonous_kernel;
static char poisonous_name[256];
static const char* const KINDS[] = {"device memory", "host memory", "addresses", "mapping", "physical memory", "module",
                                    "stream", "event", "graph", "executable graph", "context"};

Object* object_add(Kind kind, uint64_t handle, size_t size, void* data) {
    Object* made = malloc(sizeof *made);
    *made = (Object){kind, handle, size, data, objects};
    return objects = made;
}

Object* object_find(Kind kind, uint64_t handle) {
    Object* found = objects;
    while (found && (found->kind != kind || found->handle != handle)) found = found->next;
    return found;
}

Object* object_around(Kind kind, uint64_t address, size_t size) {
    Object* found = objects;
    while (found && (found->kind != kind || address < found->handle || address + size > found->handle + found->size))
        found = found->next;
    return found;
}

void object_remove(Object* object) {
    Object** place = &objects;
    while (*place != object) place = &(*place)->next;
    *place = object->next;
    free(object);
}

uint64_t new_handle(void) { return handles += 16; }

void note(const char* format, ...) {
    if (!log_file) return;
    va_list arguments;
    va_start(arguments, format);
    vfprintf(log_file, format, arguments);
    va_end(arguments);
    fputc('\n', log_file);
}

Result fault(Result code, const char* format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    faults++;
    note("{\"fault\": \"%s\"}", text);
    return code;
}

static bool needs_context(const char* name) {
    return strncmp(name, "cuInit", 6) && strncmp(name, "cuDevice", 8) && strcmp(name, "cuCtxSetCurrent");
}

Result enter(const char* name) {
    pthread_mutex_lock(&lock);
    calls++;
    if (failing_in > 0 && !strcmp(name, failing_name) && --failing_in == 0) {
        note("{\"refused\": \"%s\", \"code\": %d}", name, failing_code);
        return failing_code;
    }
    if (needs_context(name) && !object_find(CONTEXT, current_context))
        return fault(INVALID_CONTEXT, "%s in a thread without a context", name);
    return poison;
}

Result leave(Result result) {
    pthread_mutex_unlock(&lock);
    return result;
}

static size_t page_size(void) { return (size_t)sysconf(_SC_PAGESIZE); }

static size_t whole_pages(size_t size) { return (size + page_size() - 1) / page_size() * page_size(); }

void* guarded_alloc(size_t size) {
    size_t body = whole_pages(size), page = page_size();
    uint8_t* region = mmap(NULL, body + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (region == MAP_FAILED) return NULL;
    mprotect(region + page, body, PROT_READ | PROT_WRITE);
    // As near to the end as the alignment that drivers promise allows.
    return region + page + body - (size + 255) / 256 * 256;
}

void guarded_free(void* memory, size_t size) {
    size_t page = page_size(), body = whole_pages(size);
    uint8_t* end = (uint8_t*)memory + (size + 255) / 256 * 256;
    munmap(end - body - page, body + 2 * page);
}

bool readable(Address address, size_t size) {
    if (object_around(DEVICE, address, size)) return true;
    // Mappings that stand side by side are one.
    while (size) {
        Object* part = object_around(MAPPED, address, 1);
        if (!part || !part->data) return false;
        size_t have = part->handle + part->size - address;
        if (have >= size) return true;
        address += have;
        size -= have;
    }
    return true;
}

bool pinned(const void* address, size_t size) { return object_around(HOST, (uint64_t)address, size) != NULL; }

// --- for tests, through ctypes

void stub_log(const char* path) {
    pthread_mutex_lock(&lock);
    if (log_file) fclose(log_file);
    log_file = path ? fopen(path, "w") : NULL;
    pthread_mutex_unlock(&lock);
}

void stub_flush(void) {
    pthread_mutex_lock(&lock);
    if (log_file) fflush(log_file);
    pthread_mutex_unlock(&lock);
}

void stub_mark(const char* what) {
    pthread_mutex_lock(&lock);
    note("{\"mark\": \"%s\"}", what);
    pthread_mutex_unlock(&lock);
}

// The next call but `skipped` of the function `name` returns `code`, and does nothing.
void stub_fail(const char* name, long skipped, int code) {
    pthread_mutex_lock(&lock);
    snprintf(failing_name, sizeof failing_name, "%s", name ? name : "");
    failing_in = name ? skipped + 1 : 0;
    failing_code = code;
    pthread_mutex_unlock(&lock);
}

// Running the kernel `name` breaks the device, until the next call with NULL.
void stub_poison(const char* name) {
    pthread_mutex_lock(&lock);
    snprintf(poisonous_name, sizeof poisonous_name, "%s", name ? name : "");
    poisonous_kernel = name ? poisonous_name : NULL;
    poison = SUCCESS;
    pthread_mutex_unlock(&lock);
}

void stub_hook(KernelHook hook) { kernel_hook = hook; }

void stub_architecture(int architecture) { device_architecture = architecture; }

long stub_calls(void) { return calls; }

long stub_faults(void) { return faults; }

// Notes what has not been given back, and counts it.
long stub_outstanding(void) {
    pthread_mutex_lock(&lock);
    long count = 0;
    for (Object* object = objects; object; object = object->next, count++)
        note("{\"outstanding\": \"%s\", \"handle\": %lu, \"bytes\": %zu}", KINDS[object->kind], object->handle,
             object->size);
    if (log_file) fflush(log_file);
    pthread_mutex_unlock(&lock);
    return count;
}
