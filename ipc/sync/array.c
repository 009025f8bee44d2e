/* Values and arrays: memory with a recursive lock beside it.
 *
 * Owns nothing of what the elements mean. They begin at a line, so 8-byte elements never straddle one and their atomic
 * access is what the processor makes it. */
#include <errno.h>
#include <stdlib.h>

#include "ipc/sync/mutex.h"

struct drover_array {
        struct object object;
        struct drover_mutex mutex;
        void *data;
        uint32_t element_bytes, n;
};

static uint64_t array_bytes(const struct drover_arena *a, const uint64_t parameters[ARENA_PARAMETERS]) {
        (void)a;
        uint64_t element = parameters[0], n = parameters[1];
        if (element == 0 || element > UINT32_MAX || n == 0 || n > UINT32_MAX || element * n > ARENA_MAX_BYTES)
                return 0;
        return sizeof(struct layout_array) + element * n;
}

static bool array_repair(const struct object *o, const struct dead *dead) {
        return lock_repair(&((struct layout_array *)o->at)->lock, dead);
}

static void array_remove(const struct object *o) { lock_remove(&((struct layout_array *)o->at)->lock); }

const struct object_kind array_kind = {
        .name = "array",
        .bytes = array_bytes,
        .repair = array_repair,
        .remove = array_remove,
        .has_lock = true,
};

int drover_array_open(drover_arena *arena, const char *name, uint32_t element_bytes, uint32_t n,
                      drover_array **ret_array) {
        const uint64_t parameters[ARENA_PARAMETERS] = {element_bytes, n};
        void *handle;
        int r = object_open(arena, name, OBJECT_ARRAY, parameters, sizeof(struct drover_array), &handle);
        if (r < 0)
                return r;
        struct drover_array *a = handle;
        struct layout_array *shared = a->object.at;
        mutex_init(&a->mutex, &a->object, &shared->lock, true);
        a->data = shared + 1;
        a->element_bytes = (uint32_t)a->object.parameters[0];
        a->n = (uint32_t)a->object.parameters[1];
        *ret_array = a;
        return 0;
}

drover_array *drover_array_free(drover_array *array) {
        object_close(array);
        return NULL;
}

void *drover_array_data(const drover_array *array) { return array->data; }

uint32_t drover_array_length(const drover_array *array) { return array->n; }

int drover_array_lock(drover_array *array, uint64_t deadline_ns) {
        return drover_mutex_lock(&array->mutex, deadline_ns);
}

int drover_array_unlock(drover_array *array) { return drover_mutex_unlock(&array->mutex); }

int drover_array_consistent(drover_array *array) { return drover_mutex_consistent(&array->mutex); }

static int array_at(const struct drover_array *a, uint32_t i, _Atomic uint64_t **ret) {
        if (a->element_bytes != sizeof(uint64_t))
                return -EINVAL;
        if (i >= a->n)
                return -ERANGE;
        if (atomic_load_explicit(&a->mutex.lock->word, memory_order_relaxed) & LOCK_REMOVED)
                return -EIDRM;
        *ret = (_Atomic uint64_t *)a->data + i;
        return 0;
}

int drover_array_load(const drover_array *array, uint32_t i, uint64_t *ret_value) {
        _Atomic uint64_t *at;
        int r = array_at(array, i, &at);
        if (r == 0)
                *ret_value = atomic_load(at);
        return r;
}

int drover_array_store(drover_array *array, uint32_t i, uint64_t value) {
        _Atomic uint64_t *at;
        int r = array_at(array, i, &at);
        if (r == 0)
                atomic_store(at, value);
        return r;
}

int drover_array_add(drover_array *array, uint32_t i, uint64_t value, uint64_t *ret_before) {
        _Atomic uint64_t *at;
        int r = array_at(array, i, &at);
        if (r < 0)
                return r;
        uint64_t before = atomic_fetch_add(at, value);
        if (ret_before)
                *ret_before = before;
        return 0;
}

int drover_array_compare_exchange(drover_array *array, uint32_t i, uint64_t *expected, uint64_t desired) {
        _Atomic uint64_t *at;
        int r = array_at(array, i, &at);
        return r < 0 ? r : atomic_compare_exchange_strong(at, expected, desired);
}
