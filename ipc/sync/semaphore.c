/* Semaphores that anybody may post: one number, and a gate for those who find it 0.
 *
 * A unit belongs to nobody: what a dead process posted stays, what it took is gone. Mutual exclusion wants a mutex,
 * a bounded number of users permits. */
#include <errno.h>
#include <stdlib.h>

#include "ipc/memory/kill-point.h"
#include "ipc/sync/wait/gate.h"

struct drover_semaphore {
        struct object object;
        struct layout_semaphore *shared;
        struct spin spin;
};

static uint64_t semaphore_bytes(const struct drover_arena *a, const uint64_t parameters[ARENA_PARAMETERS]) {
        (void)a;
        return parameters[0] <= (uint64_t)INT32_MAX + 1 ? sizeof(struct layout_semaphore) : 0;
}

static void semaphore_init(void *at, const uint64_t parameters[ARENA_PARAMETERS]) {
        struct layout_semaphore *s = at;
        if (parameters[0] > 0)
                atomic_store_explicit(&s->value, (uint32_t)(parameters[0] - 1), memory_order_relaxed);
}

static bool semaphore_repair(const struct object *o, const struct dead *dead) {
        (void)dead;
        gate_broadcast(&((struct layout_semaphore *)o->at)->gate);
        return false;
}

static void semaphore_remove(const struct object *o) {
        struct layout_semaphore *s = o->at;
        atomic_fetch_or_explicit(&s->value, SEMAPHORE_REMOVED, memory_order_seq_cst);
        gate_broadcast(&s->gate);
}

const struct object_kind semaphore_kind = {
        .name = "semaphore",
        .bytes = semaphore_bytes,
        .init = semaphore_init,
        .repair = semaphore_repair,
        .remove = semaphore_remove,
};

int drover_semaphore_open(drover_arena *arena, const char *name, uint32_t value, drover_semaphore **ret_semaphore) {
        if (value > INT32_MAX)
                return -EINVAL;
        const uint64_t parameters[ARENA_PARAMETERS] = {value > 0 ? (uint64_t)value + 1 : 0};
        void *handle;
        int r = object_open(arena, name, OBJECT_SEMAPHORE, parameters, sizeof(struct drover_semaphore), &handle);
        if (r < 0)
                return r;
        struct drover_semaphore *s = handle;
        s->shared = s->object.at;
        *ret_semaphore = s;
        return 0;
}

drover_semaphore *drover_semaphore_free(drover_semaphore *semaphore) {
        object_close(semaphore);
        return NULL;
}

static int semaphore_take(void *user) {
        struct layout_semaphore *s = ((struct drover_semaphore *)user)->shared;
        uint32_t value = atomic_load_explicit(&s->value, memory_order_seq_cst);
        while (value > 0 && !(value & SEMAPHORE_REMOVED))
                if (atomic_compare_exchange_weak_explicit(&s->value, &value, value - 1, memory_order_seq_cst,
                                                          memory_order_seq_cst))
                        return 0;
        return value & SEMAPHORE_REMOVED ? -EIDRM : -EAGAIN;
}

int drover_semaphore_wait(drover_semaphore *semaphore, uint64_t deadline_ns) {
        int r = gate_wait(&semaphore->shared->gate, &semaphore->object, &semaphore->spin, deadline_ns, semaphore_take,
                          semaphore);
        KILL_POINT("semaphore-taken");
        return r;
}

int drover_semaphore_post(drover_semaphore *semaphore, uint32_t n) {
        struct layout_semaphore *s = semaphore->shared;
        uint32_t value = atomic_load_explicit(&s->value, memory_order_relaxed);
        if (n == 0)
                return 0;
        do {
                if (value & SEMAPHORE_REMOVED)
                        return -EIDRM;
                if (n > INT32_MAX - value)
                        return -EOVERFLOW;
        } while (!atomic_compare_exchange_weak_explicit(&s->value, &value, value + n, memory_order_seq_cst,
                                                        memory_order_relaxed));
        KILL_POINT("semaphore-posted");
        gate_signal(&s->gate, (int)n);
        return 0;
}

uint32_t drover_semaphore_value(const drover_semaphore *semaphore) {
        return atomic_load_explicit(&semaphore->shared->value, memory_order_acquire) & ~SEMAPHORE_REMOVED;
}
