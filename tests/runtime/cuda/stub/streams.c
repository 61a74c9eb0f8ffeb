// Streams, what is queued on them or captured from them, graphs, events and launches.
#include "stub.h"
#include <time.h>

typedef struct {
    size_t sourceX, sourceY;
    int source_kind;
    const void* source_host;
    Address source;
    void* source_array;
    size_t source_pitch;
    size_t targetX, targetY;
    int target_kind;
    void* target_host;
    Address target;
    void* target_array;
    size_t target_pitch;
    size_t width, height;
} Copy2D;

typedef struct Node {
    enum { KERNEL, COPY, RECTANGLE, RECORD } kind;
    const char* what;
    Entry* entry;
    unsigned grid[3], shared;
    int count;
    uint64_t* arguments;
    uint64_t target, source;
    size_t size;
    bool owned;  // the source is a copy that was made when it was queued
    Copy2D rectangle;
    Object* event;
    struct Node* next;
} Node;

typedef struct {
    Node* first;
    Node** last;
} Queue;

typedef struct {
    Queue queue, captured;
    bool capturing, broken;
} Stream;

typedef struct {
    struct timespec when;
    int queued;  // records that have not been carried out
    uint64_t stream;  // of the latest
} Event;

KernelHook kernel_hook;
static int captures;

bool capturing(void) { return captures > 0; }

static void clear(Queue* queue) {
    for (Node *node = queue->first, *next; node; node = next) {
        next = node->next;
        free(node->arguments);
        if (node->owned) free((void*)node->source);
        free(node);
    }
    *queue = (Queue){NULL, NULL};
}

static void append(Queue* queue, Node node) {
    Node* made = malloc(sizeof *made);
    *made = node;
    if (queue->first) *queue->last = made;
    else queue->first = made;
    queue->last = &made->next;
}

static Node copied(const Node* node) {
    Node made = *node;
    made.next = NULL;
    if (node->arguments) {
        made.arguments = malloc(8 * (size_t)node->count);
        memcpy(made.arguments, node->arguments, 8 * (size_t)node->count);
    }
    return made;
}

static bool touches(const char* what, uint64_t address, size_t size) {
    if (readable(address, size) || pinned((void*)address, size)) return true;
    fault(ILLEGAL_ADDRESS, "a copy has %s %lu of %zu bytes, which nobody has", what, address, size);
    return false;
}

static void listed(const Node* node, char* text, size_t room) {
    size_t length = 0;
    for (int i = 0; i < node->count; i++)
        length += (size_t)snprintf(text + length, room - length, "%s%lu", i ? ", " : "", node->arguments[i]);
}

static void run(Node* node) {
    char text[4096];
    switch (node->kind) {
        case KERNEL:
            listed(node, text, sizeof text);
            note("{\"run\": \"kernel\", \"kernel\": \"%s\", \"grid\": [%u, %u, %u], \"arguments\": [%s]}",
                 node->entry->name, node->grid[0], node->grid[1], node->grid[2], text);
            for (int i = 0; i + 2 < node->count; i++)
                if (!readable(node->arguments[i], 1))
                    fault(ILLEGAL_ADDRESS, "kernel %s is given %lu, which nobody has", node->entry->name, node->arguments[i]);
            if (poisonous_kernel && !strcmp(poisonous_kernel, node->entry->name)) poison = ILLEGAL_ADDRESS;
            else if (kernel_hook) kernel_hook(node->entry->name, node->count, node->arguments, node->grid);
            break;
        case COPY:
            note("{\"run\": \"copy\", \"what\": \"%s\", \"target\": %lu, \"source\": %lu, \"bytes\": %zu}", node->what,
                 node->target, node->owned ? 0 : node->source, node->size);
            if (touches("the target", node->target, node->size) &&
                (node->owned || touches("the source", node->source, node->size)))
                memmove((void*)node->target, (void*)node->source, node->size);
            break;
        case RECTANGLE: {
            Copy2D* c = &node->rectangle;
            note("{\"run\": \"copy2d\", \"target\": %lu, \"source\": %lu, \"width\": %zu, \"height\": %zu}", c->target,
                 c->source, c->width, c->height);
            for (size_t row = 0; row < c->height; row++) {
                Address target = c->target + row * c->target_pitch, source = c->source + row * c->source_pitch;
                if (readable(target, c->width) && readable(source, c->width))
                    memmove((void*)target, (void*)source, c->width);
                else
                    fault(ILLEGAL_ADDRESS, "a rectangle is copied from or to what nobody has");
            }
            break;
        }
        case RECORD: {
            Event* event = node->event->data;
            clock_gettime(CLOCK_MONOTONIC, &event->when);
            event->queued--;
        }
    }
}

static bool eager;

// Whether work is done as soon as it is given.
void stub_eager(int wanted) { eager = wanted; }

void drain(Object* stream) {
    Stream* s = stream->data;
    for (Node* node = s->queue.first; node && !poison; node = node->next) run(node);
    clear(&s->queue);
}

static Result queue(const char* name, Object* stream, Node node) {
    if (!stream) return fault(INVALID_HANDLE, "%s on a stream that is not there", name);
    Stream* s = stream->data;
    append(s->capturing ? &s->captured : &s->queue, node);
    if (eager && !s->capturing) drain(stream);
    return SUCCESS;
}

// --- streams

Result cuStreamCreate_(uint64_t* out, unsigned flags) {
    ENTER("cuStreamCreate");
    if (flags != 1) return leave(fault(INVALID_VALUE, "a stream that waits for the null stream"));
    *out = new_handle();
    object_add(STREAM, *out, 0, calloc(1, sizeof(Stream)));
    return leave(SUCCESS);
}

Result cuStreamDestroy_(uint64_t handle) {
    ENTER("cuStreamDestroy");
    Object* stream = object_find(STREAM, handle);
    if (!stream) return leave(fault(INVALID_HANDLE, "cuStreamDestroy of what is not there"));
    drain(stream);
    free(stream->data);
    object_remove(stream);
    return leave(SUCCESS);
}

Result cuStreamSynchronize_(uint64_t handle) {
    ENTER("cuStreamSynchronize");
    Object* stream = object_find(STREAM, handle);
    if (!stream) return leave(fault(INVALID_HANDLE, "cuStreamSynchronize of what is not there"));
    Stream* s = stream->data;
    if (s->capturing) {
        s->broken = true;
        return leave(fault(CAPTURE_UNSUPPORTED, "cuStreamSynchronize while it captures"));
    }
    note("{\"call\": \"cuStreamSynchronize\"}");
    drain(stream);
    return leave(poison);
}

Result cuStreamBeginCapture_(uint64_t handle, int mode) {
    ENTER("cuStreamBeginCapture");
    Object* stream = object_find(STREAM, handle);
    if (!stream || mode != 1) return leave(fault(INVALID_VALUE, "cuStreamBeginCapture in mode %d", mode));
    Stream* s = stream->data;
    if (s->capturing) return leave(fault(CAPTURE_UNSUPPORTED, "cuStreamBeginCapture twice"));
    s->capturing = true;
    captures++;
    note("{\"call\": \"cuStreamBeginCapture\"}");
    return leave(SUCCESS);
}

Result cuStreamEndCapture_(uint64_t handle, uint64_t* out) {
    Result wanted = enter("cuStreamEndCapture");
    Object* stream = object_find(STREAM, handle);
    Stream* s = stream ? stream->data : NULL;
    if (!s || !s->capturing) return leave(fault(INVALID_VALUE, "cuStreamEndCapture without a beginning"));
    s->capturing = false;
    captures--;
    *out = 0;
    if (s->broken || wanted) {
        // It has ended all the same.
        clear(&s->captured);
        s->broken = false;
        return leave(wanted ? wanted : 901);  // CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
    }
    Queue* nodes = malloc(sizeof *nodes);
    *nodes = s->captured;
    s->captured = (Queue){NULL, NULL};
    *out = new_handle();
    object_add(GRAPH, *out, 0, nodes);
    note("{\"call\": \"cuStreamEndCapture\", \"graph\": %lu}", *out);
    return leave(SUCCESS);
}

// --- graphs

Result cuGraphInstantiate_(uint64_t* out, uint64_t handle, uint64_t flags) {
    ENTER("cuGraphInstantiate");
    Object* graph = object_find(GRAPH, handle);
    if (!graph || flags) return leave(fault(INVALID_VALUE, "cuGraphInstantiate"));
    Queue* nodes = calloc(1, sizeof *nodes);
    for (Node* node = ((Queue*)graph->data)->first; node; node = node->next) append(nodes, copied(node));
    *out = new_handle();
    object_add(EXECUTABLE, *out, 0, nodes);
    note("{\"call\": \"cuGraphInstantiate\", \"graph\": %lu, \"executable\": %lu}", handle, *out);
    return leave(SUCCESS);
}

static Result destroy(Kind kind, uint64_t handle, const char* name) {
    Object* found = object_find(kind, handle);
    if (!found) return fault(INVALID_HANDLE, "%s of what is not there, or not any more", name);
    clear(found->data);
    free(found->data);
    object_remove(found);
    return SUCCESS;
}

Result cuGraphDestroy_(uint64_t handle) {
    ENTER("cuGraphDestroy");
    return leave(destroy(GRAPH, handle, "cuGraphDestroy"));
}

Result cuGraphExecDestroy_(uint64_t handle) {
    ENTER("cuGraphExecDestroy");
    return leave(destroy(EXECUTABLE, handle, "cuGraphExecDestroy"));
}

Result cuGraphUpload_(uint64_t handle, uint64_t stream) {
    ENTER("cuGraphUpload");
    if (!object_find(EXECUTABLE, handle) || !object_find(STREAM, stream)) return leave(fault(INVALID_HANDLE, "cuGraphUpload"));
    note("{\"call\": \"cuGraphUpload\", \"executable\": %lu}", handle);
    return leave(SUCCESS);
}

Result cuGraphLaunch_(uint64_t handle, uint64_t stream) {
    ENTER("cuGraphLaunch");
    Object *graph = object_find(EXECUTABLE, handle), *target = object_find(STREAM, stream);
    if (!graph || !target || capturing()) return leave(fault(INVALID_HANDLE, "cuGraphLaunch"));
    note("{\"call\": \"cuGraphLaunch\", \"executable\": %lu}", handle);
    for (Node* node = ((Queue*)graph->data)->first; node; node = node->next)
        queue("cuGraphLaunch", target, copied(node));
    return leave(SUCCESS);
}

// --- copies

static Result copy(const char* name, uint64_t target, uint64_t source, size_t size, uint64_t stream, const void* host) {
    Object* found = object_find(STREAM, stream);
    bool captures_it = found && ((Stream*)found->data)->capturing;
    note("{\"call\": \"%s\", \"target\": %lu, \"source\": %lu, \"bytes\": %zu, \"captured\": %s}", name, target, source,
         size, captures_it ? "true" : "false");
    if (!size) return fault(INVALID_VALUE, "%s of nothing", name);
    Node node = {.kind = COPY, .what = name, .target = target, .source = source, .size = size};
    if (!host || pinned(host, size)) return queue(name, found, node);
    if (captures_it) return fault(CAPTURE_UNSUPPORTED, "%s captures memory that is not pinned", name);
    if (!found) return fault(INVALID_HANDLE, "%s on a stream that is not there", name);
    if ((uint64_t)host == source) {
        // Such memory is read before the call returns.
        node.source = (uint64_t)malloc(size);
        node.owned = true;
        memcpy((void*)node.source, host, size);
        return queue(name, found, node);
    }
    // And is written before the call returns.
    drain(found);
    if (readable(source, size)) memcpy((void*)target, (void*)source, size);
    else fault(ILLEGAL_ADDRESS, "%s from what nobody has", name);
    return poison;
}

Result cuMemcpyHtoDAsync_(Address target, const void* source, size_t size, uint64_t stream) {
    ENTER("cuMemcpyHtoDAsync");
    return leave(copy("cuMemcpyHtoDAsync", target, (uint64_t)source, size, stream, source));
}

Result cuMemcpyDtoHAsync_(void* target, Address source, size_t size, uint64_t stream) {
    ENTER("cuMemcpyDtoHAsync");
    return leave(copy("cuMemcpyDtoHAsync", (uint64_t)target, source, size, stream, target));
}

Result cuMemcpyDtoDAsync_(Address target, Address source, size_t size, uint64_t stream) {
    ENTER("cuMemcpyDtoDAsync");
    return leave(copy("cuMemcpyDtoDAsync", target, source, size, stream, NULL));
}

Result cuMemcpy2DAsync_(const Copy2D* rectangle, uint64_t stream) {
    ENTER("cuMemcpy2DAsync");
    const Copy2D* c = rectangle;
    if (c->source_kind != 2 || c->target_kind != 2 || c->sourceX || c->sourceY || c->targetX || c->targetY)
        return leave(fault(INVALID_VALUE, "cuMemcpy2DAsync of other than device memory"));
    if (c->width > c->source_pitch || c->width > c->target_pitch)
        return leave(fault(INVALID_VALUE, "cuMemcpy2DAsync of rows that overlap"));
    return leave(queue("cuMemcpy2DAsync", object_find(STREAM, stream), (Node){.kind = RECTANGLE, .rectangle = *c}));
}

// --- events

Result cuEventCreate_(uint64_t* out, unsigned flags) {
    ENTER("cuEventCreate");
    if (flags & ~2u) return leave(fault(INVALID_VALUE, "cuEventCreate with flags %u", flags));
    *out = new_handle();
    object_add(EVENT, *out, flags, calloc(1, sizeof(Event)));
    return leave(SUCCESS);
}

Result cuEventDestroy_(uint64_t handle) {
    ENTER("cuEventDestroy");
    Object* event = object_find(EVENT, handle);
    if (!event) return leave(fault(INVALID_HANDLE, "cuEventDestroy of what is not there"));
    if (((Event*)event->data)->queued) return leave(fault(INVALID_HANDLE, "cuEventDestroy of a queued event"));
    free(event->data);
    object_remove(event);
    return leave(SUCCESS);
}

Result cuEventRecord_(uint64_t handle, uint64_t stream) {
    ENTER("cuEventRecord");
    Object* event = object_find(EVENT, handle);
    if (!event || capturing()) return leave(fault(INVALID_HANDLE, "cuEventRecord"));
    ((Event*)event->data)->queued++;
    ((Event*)event->data)->stream = stream;
    return leave(queue("cuEventRecord", object_find(STREAM, stream), (Node){.kind = RECORD, .event = event}));
}

// All that the stream was given before the event is done, and what came later too.
Result cuEventSynchronize_(uint64_t handle) {
    ENTER("cuEventSynchronize");
    Object* event = object_find(EVENT, handle);
    if (!event || capturing()) return leave(fault(INVALID_HANDLE, "cuEventSynchronize"));
    Event* e = event->data;
    if (e->queued && object_find(STREAM, e->stream)) drain(object_find(STREAM, e->stream));
    return leave(poison);
}

Result cuEventElapsedTime_(float* out, uint64_t first, uint64_t second) {
    ENTER("cuEventElapsedTime");
    Object *a = object_find(EVENT, first), *b = object_find(EVENT, second);
    if (!a || !b || a->size || b->size) return leave(fault(INVALID_HANDLE, "cuEventElapsedTime without times"));
    Event *from = a->data, *to = b->data;
    if (from->queued || to->queued) return leave(fault(600, "cuEventElapsedTime before the events happened"));
    *out = (float)(to->when.tv_sec - from->when.tv_sec) * 1e3f + (float)(to->when.tv_nsec - from->when.tv_nsec) / 1e6f;
    return leave(SUCCESS);
}

// --- kernels

Result cuLaunchKernel_(Entry* entry, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                       unsigned shared, uint64_t stream, void** parameters, void** extra) {
    ENTER("cuLaunchKernel");
    Object* found = object_find(STREAM, stream);
    if (!gx || !gy || !gz || gy > 65535 || gz > 65535)
        return leave(fault(INVALID_VALUE, "kernel %s has a grid of %u, %u, %u", entry->name, gx, gy, gz));
    if (bx != entry->block || by != 1 || bz != 1)
        return leave(fault(INVALID_VALUE, "kernel %s wants %u threads, got %u", entry->name, entry->block, bx));
    if ((int)shared > entry->shared_limit)
        return leave(fault(INVALID_VALUE, "kernel %s may have %d bytes of shared memory, got %u", entry->name,
                           entry->shared_limit, shared));
    if (!entry->loaded) return leave(fault(INVALID_VALUE, "kernel %s is launched before it is loaded", entry->name));
    if (extra || entry->parameters * 8 != entry->bytes)
        return leave(fault(INVALID_VALUE, "kernel %s has parameters that are no pointers", entry->name));
    Node node = {.kind = KERNEL, .entry = entry, .grid = {gx, gy, gz}, .shared = shared, .count = entry->parameters};
    node.arguments = malloc(8 * (size_t)node.count);
    for (int i = 0; i < node.count; i++) {
        memcpy(&node.arguments[i], parameters[i], 8);
        bool scratch = i + 2 >= node.count;
        if (scratch ? node.arguments[i] != 0 : node.arguments[i] % 16 != 0 || !node.arguments[i])
            fault(INVALID_VALUE, "argument %d of kernel %s is %lu", i, entry->name, node.arguments[i]);
    }
    char text[4096];
    listed(&node, text, sizeof text);
    bool captures_it = found && ((Stream*)found->data)->capturing;
    note("{\"call\": \"cuLaunchKernel\", \"kernel\": \"%s\", \"grid\": [%u, %u, %u], \"block\": %u, \"shared\": %u, "
         "\"arguments\": [%s], \"captured\": %s}",
         entry->name, gx, gy, gz, bx, shared, text, captures_it ? "true" : "false");
    return leave(queue("cuLaunchKernel", found, node));
}
