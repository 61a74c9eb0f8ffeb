// Device memory, pinned memory, and addresses without memory behind them.
#include "stub.h"
#include <sys/mman.h>

static size_t total = 1ull << 30, used;
static const size_t PIECE = 2 << 20;
static const int UNWRITTEN = 0xff;  // no number in any float type

void stub_memory(size_t bytes) { total = bytes; }

size_t stub_used(void) { return used; }

Result cuMemGetInfo_(size_t* left, size_t* all) {
    ENTER("cuMemGetInfo");
    *left = total > used ? total - used : 0;
    *all = total;
    note("{\"call\": \"cuMemGetInfo\", \"free\": %zu}", *left);
    return leave(SUCCESS);
}

static Result forbidden(const char* name) {
    return fault(CAPTURE_UNSUPPORTED, "%s while a stream captures", name);
}

Result cuMemAlloc_(Address* out, size_t size) {
    ENTER("cuMemAlloc");
    if (capturing()) return leave(forbidden("cuMemAlloc"));
    if (!size) return leave(fault(INVALID_VALUE, "cuMemAlloc of nothing"));
    if (used + size > total) return leave(OUT_OF_MEMORY);
    used += size;
    *out = (Address)guarded_alloc(size);
    memset((void*)*out, UNWRITTEN, size);
    object_add(DEVICE, *out, size, NULL);
    note("{\"call\": \"cuMemAlloc\", \"address\": %lu, \"bytes\": %zu}", *out, size);
    return leave(SUCCESS);
}

Result cuMemFree_(Address address) {
    ENTER("cuMemFree");
    Object* found = object_find(DEVICE, address);
    if (!found) return leave(fault(INVALID_VALUE, "cuMemFree of what is not there, or not any more"));
    used -= found->size;
    guarded_free((void*)address, found->size);
    object_remove(found);
    note("{\"call\": \"cuMemFree\", \"address\": %lu}", address);
    return leave(SUCCESS);
}

Result cuMemHostAlloc_(void** out, size_t size, unsigned flags) {
    ENTER("cuMemHostAlloc");
    if (capturing()) return leave(forbidden("cuMemHostAlloc"));
    if (!size || flags) return leave(fault(INVALID_VALUE, "cuMemHostAlloc of %zu bytes, flags %u", size, flags));
    *out = guarded_alloc(size);
    memset(*out, UNWRITTEN, size);
    object_add(HOST, (uint64_t)*out, size, NULL);
    note("{\"call\": \"cuMemHostAlloc\", \"address\": %lu, \"bytes\": %zu}", (uint64_t)*out, size);
    return leave(SUCCESS);
}

Result cuMemFreeHost_(void* address) {
    ENTER("cuMemFreeHost");
    Object* found = object_find(HOST, (uint64_t)address);
    if (!found) return leave(fault(INVALID_VALUE, "cuMemFreeHost of what is not there, or not any more"));
    guarded_free(address, found->size);
    object_remove(found);
    note("{\"call\": \"cuMemFreeHost\", \"address\": %lu}", (uint64_t)address);
    return leave(SUCCESS);
}

// --- virtual memory management

typedef struct {
    int type, id;
} Location;

typedef struct {
    int type, handle_types;
    Location location;
    void* metadata;
    uint64_t flags;
} Properties;

typedef struct {
    Location location;
    int flags;
} Access;

static bool plain(const Properties* p) {
    return p->type == 1 && p->location.type == 1 && p->location.id == 0 && !p->handle_types && !p->flags;
}

Result cuMemGetAllocationGranularity_(size_t* out, const Properties* properties, int option) {
    ENTER("cuMemGetAllocationGranularity");
    if (!plain(properties) || option) return leave(fault(INVALID_VALUE, "granularity of other memory"));
    *out = PIECE;
    return leave(SUCCESS);
}

Result cuMemAddressReserve_(Address* out, size_t size, size_t alignment, Address wanted, uint64_t flags) {
    ENTER("cuMemAddressReserve");
    if (!size || size % PIECE || wanted || flags) return leave(fault(INVALID_VALUE, "cuMemAddressReserve of %zu", size));
    size_t spare = alignment > PIECE ? alignment : PIECE;
    uint8_t* region = mmap(NULL, size + spare, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (region == MAP_FAILED) return leave(OUT_OF_MEMORY);
    *out = ((Address)region + spare - 1) / spare * spare;
    object_add(RESERVED, *out, size, region);
    note("{\"call\": \"cuMemAddressReserve\", \"address\": %lu, \"bytes\": %zu}", *out, size);
    return leave(SUCCESS);
}

Result cuMemAddressFree_(Address address, size_t size) {
    ENTER("cuMemAddressFree");
    Object* found = object_find(RESERVED, address);
    if (!found || found->size != size) return leave(fault(INVALID_VALUE, "cuMemAddressFree of what was not reserved"));
    for (size_t at = 0; at < size; at += PIECE)
        if (object_around(MAPPED, address + at, 1)) return leave(fault(INVALID_VALUE, "cuMemAddressFree of mapped memory"));
    munmap(found->data, size + PIECE);
    object_remove(found);
    note("{\"call\": \"cuMemAddressFree\", \"address\": %lu}", address);
    return leave(SUCCESS);
}

Result cuMemCreate_(uint64_t* out, size_t size, const Properties* properties, uint64_t flags) {
    ENTER("cuMemCreate");
    if (!size || size % PIECE || !plain(properties) || flags) return leave(fault(INVALID_VALUE, "cuMemCreate"));
    if (used + size > total) return leave(OUT_OF_MEMORY);
    used += size;
    *out = new_handle();
    object_add(PHYSICAL, *out, size, NULL);
    note("{\"call\": \"cuMemCreate\", \"bytes\": %zu}", size);
    return leave(SUCCESS);
}

Result cuMemMap_(Address address, size_t size, size_t offset, uint64_t handle, uint64_t flags) {
    ENTER("cuMemMap");
    Object* physical = object_find(PHYSICAL, handle);
    if (!physical || physical->size != size || offset || flags) return leave(fault(INVALID_VALUE, "cuMemMap of other memory"));
    if (!object_around(RESERVED, address, size)) return leave(fault(INVALID_VALUE, "cuMemMap beyond what was reserved"));
    if (object_around(MAPPED, address, 1)) return leave(fault(INVALID_VALUE, "cuMemMap where memory is"));
    physical->data = object_add(MAPPED, address, size, NULL);
    note("{\"call\": \"cuMemMap\", \"address\": %lu, \"bytes\": %zu}", address, size);
    return leave(SUCCESS);
}

// The memory stays while it is mapped.
Result cuMemRelease_(uint64_t handle) {
    ENTER("cuMemRelease");
    Object* found = object_find(PHYSICAL, handle);
    if (!found) return leave(fault(INVALID_VALUE, "cuMemRelease of what is not there, or not any more"));
    if (!found->data) used -= found->size;
    object_remove(found);
    return leave(SUCCESS);
}

Result cuMemSetAccess_(Address address, size_t size, const Access* access, size_t count) {
    ENTER("cuMemSetAccess");
    Object* found = object_find(MAPPED, address);
    if (!found || found->size != size || count != 1 || access->location.type != 1 || access->flags != 3)
        return leave(fault(INVALID_VALUE, "cuMemSetAccess"));
    mprotect((void*)address, size, PROT_READ | PROT_WRITE);
    memset((void*)address, UNWRITTEN, size);
    found->data = found;
    return leave(SUCCESS);
}

Result cuMemUnmap_(Address address, size_t size) {
    ENTER("cuMemUnmap");
    Object* found = object_find(MAPPED, address);
    if (!found || found->size != size) return leave(fault(INVALID_VALUE, "cuMemUnmap of what is not mapped so"));
    mmap((void*)address, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    used -= size;
    object_remove(found);
    note("{\"call\": \"cuMemUnmap\", \"address\": %lu, \"bytes\": %zu}", address, size);
    return leave(SUCCESS);
}
