// The driver, its device and its modules, and by which names the functions are found.
#include "stub.h"

int device_architecture = 90;
__thread uint64_t current_context;
static const int SHARED_OPTIN = 232448;

Result cuInit_(unsigned flags) {
    ENTER("cuInit");
    return leave(flags ? INVALID_VALUE : SUCCESS);
}

Result cuDriverGetVersion_(int* out) { return *out = 13000, SUCCESS; }

Result cuDeviceGetCount_(int* out) {
    ENTER("cuDeviceGetCount");
    *out = device_architecture ? 1 : 0;
    return leave(SUCCESS);
}

Result cuDeviceGet_(int* out, int ordinal) {
    ENTER("cuDeviceGet");
    *out = 0;
    return leave(ordinal ? INVALID_VALUE : SUCCESS);
}

Result cuDeviceGetName_(char* out, int length, int device) {
    ENTER("cuDeviceGetName");
    snprintf(out, (size_t)length, "Stub %d", device);
    return leave(SUCCESS);
}

Result cuDeviceGetAttribute_(int* out, int attribute, int device) {
    ENTER("cuDeviceGetAttribute");
    switch (attribute) {
        case 75: *out = device_architecture / 10; break;
        case 76: *out = device_architecture % 10; break;
        case 97: *out = SHARED_OPTIN; break;
        default: return leave(fault(INVALID_VALUE, "attribute %d of device %d is not known here", attribute, device));
    }
    return leave(SUCCESS);
}

Result cuDevicePrimaryCtxRetain_(uint64_t* out, int device) {
    ENTER("cuDevicePrimaryCtxRetain");
    *out = 0xc0;
    object_add(CONTEXT, *out, (size_t)device, NULL);
    return leave(SUCCESS);
}

Result cuDevicePrimaryCtxRelease_(int device) {
    ENTER("cuDevicePrimaryCtxRelease");
    Object* found = object_find(CONTEXT, 0xc0);
    if (!found || device) return leave(fault(INVALID_VALUE, "cuDevicePrimaryCtxRelease without a context"));
    object_remove(found);
    return leave(SUCCESS);
}

Result cuCtxSetCurrent_(uint64_t context) {
    ENTER("cuCtxSetCurrent");
    if (context && !object_find(CONTEXT, context)) return leave(fault(INVALID_HANDLE, "cuCtxSetCurrent of no context"));
    current_context = context;
    return leave(SUCCESS);
}

Result cuGetErrorString_(int code, const char** out) {
    *out = code == OUT_OF_MEMORY     ? "out of memory"
           : code == ILLEGAL_ADDRESS ? "an illegal memory access was encountered"
           : code == INVALID_IMAGE   ? "device kernel image is invalid"
                                     : "an error of the stub";
    return SUCCESS;
}

Result cuModuleLoadData_(uint64_t* out, const void* image) {
    ENTER("cuModuleLoadData");
    Module* module = malloc(sizeof *module);
    if (!parse_cubin(image, module)) {
        free(module);
        return leave(INVALID_IMAGE);
    }
    if (module->architecture != device_architecture) {
        free_module(module);
        return leave(209);  // CUDA_ERROR_NO_BINARY_FOR_GPU
    }
    *out = new_handle();
    object_add(MODULE, *out, 0, module);
    note("{\"call\": \"cuModuleLoadData\"}");
    return leave(SUCCESS);
}

Result cuModuleUnload_(uint64_t handle) {
    ENTER("cuModuleUnload");
    Object* found = object_find(MODULE, handle);
    if (!found) return leave(fault(INVALID_HANDLE, "cuModuleUnload of what is not there"));
    free_module(found->data);
    object_remove(found);
    return leave(SUCCESS);
}

Result cuModuleGetFunction_(Entry** out, uint64_t handle, const char* name) {
    ENTER("cuModuleGetFunction");
    Object* found = object_find(MODULE, handle);
    if (!found) return leave(fault(INVALID_HANDLE, "cuModuleGetFunction of no module"));
    Module* module = found->data;
    for (int i = 0; i < module->count; i++)
        if (!strcmp(module->entries[i].name, name)) return *out = &module->entries[i], leave(SUCCESS);
    return leave(NOT_FOUND);
}

Result cuFuncSetAttribute_(Entry* entry, int attribute, int value) {
    ENTER("cuFuncSetAttribute");
    if (attribute != 8 || value > SHARED_OPTIN) return leave(fault(INVALID_VALUE, "cuFuncSetAttribute %d", attribute));
    entry->shared_limit = value;
    note("{\"call\": \"cuFuncSetAttribute\", \"kernel\": \"%s\", \"value\": %d}", entry->name, value);
    return leave(SUCCESS);
}

Result cuFuncLoad_(Entry* entry) {
    ENTER("cuFuncLoad");
    if (capturing()) return leave(fault(CAPTURE_UNSUPPORTED, "cuFuncLoad while a stream captures"));
    entry->loaded = true;
    note("{\"call\": \"cuFuncLoad\", \"kernel\": \"%s\"}", entry->name);
    return leave(SUCCESS);
}

#define FUNCTIONS(X)                                                                                                  \
    X(cuInit) X(cuDriverGetVersion) X(cuDeviceGetCount) X(cuDeviceGet) X(cuDeviceGetName) X(cuDeviceGetAttribute)     \
    X(cuDevicePrimaryCtxRetain) X(cuDevicePrimaryCtxRelease) X(cuCtxSetCurrent) X(cuGetErrorString)                   \
    X(cuModuleLoadData) X(cuModuleUnload) X(cuModuleGetFunction) X(cuFuncSetAttribute) X(cuMemGetInfo) X(cuMemAlloc)  \
    X(cuMemFree) X(cuMemHostAlloc) X(cuMemFreeHost) X(cuMemGetAllocationGranularity) X(cuMemAddressReserve)           \
    X(cuMemAddressFree) X(cuMemCreate) X(cuMemRelease) X(cuMemMap) X(cuMemUnmap) X(cuMemSetAccess) X(cuStreamCreate)  \
    X(cuStreamDestroy) X(cuStreamSynchronize) X(cuStreamBeginCapture) X(cuStreamEndCapture) X(cuGraphDestroy)         \
    X(cuGraphExecDestroy) X(cuGraphUpload) X(cuGraphLaunch) X(cuMemcpyHtoDAsync) X(cuMemcpyDtoHAsync)                 \
    X(cuMemcpyDtoDAsync) X(cuMemcpy2DAsync) X(cuEventCreate) X(cuEventDestroy) X(cuEventRecord) X(cuEventSynchronize) \
    X(cuEventElapsedTime) X(cuLaunchKernel) X(cuFuncLoad)

#define DECLARE(name) extern Result name##_();
FUNCTIONS(DECLARE)
extern Result cuGraphInstantiate_();

static const struct {
    const char* name;
    void* function;
} TABLE[] = {
#define ROW(name) {#name, (void*)name##_},
    FUNCTIONS(ROW){"cuGraphInstantiate", (void*)cuGraphInstantiate_},
    {"cuGraphInstantiateWithFlags", (void*)cuGraphInstantiate_},
};

Result cuGetProcAddress_v2(const char* name, void** out, int version, uint64_t flags, int* found) {
    (void)version, (void)flags;
    for (size_t i = 0; i < sizeof TABLE / sizeof *TABLE; i++)
        if (!strcmp(TABLE[i].name, name)) {
            if (found) *found = 0;
            return *out = TABLE[i].function, SUCCESS;
        }
    *out = !strcmp(name, "cuGetProcAddress") ? (void*)cuGetProcAddress_v2 : NULL;
    if (found) *found = *out ? 0 : 1;
    return *out ? SUCCESS : NOT_FOUND;
}
