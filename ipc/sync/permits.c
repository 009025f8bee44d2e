/* Permits: one word each, free or with the identity of its holder.
 *
 * There is no counter that could disagree with the words: taking is one CAS on a free one, giving back one on one's
 * own. A process holds permits as a whole; releasing prefers one that this thread took, so that lists tell the truth.
 */
#include <errno.h>
#include <stdlib.h>

#include "ipc/memory/kill-point.h"
#include "ipc/sync/wait/gate.h"

struct drover_permits {
        struct object object;
        struct layout_permits *shared;
        uint32_t n;
        _Atomic uint32_t next; /* where to look first; private */
        struct spin spin;
};

static uint64_t permits_bytes(const struct drover_arena *a, const uint64_t parameters[ARENA_PARAMETERS]) {
        (void)a;
        uint64_t n = parameters[0];
        return n > 0 && n <= ARENA_MAX_PERMITS ? sizeof(struct layout_permits) + n * sizeof(uint64_t) : 0;
}

static bool permits_repair(const struct object *o, const struct dead *dead) {
        struct layout_permits *p = o->at;
        bool was_any = false;
        for (uint64_t i = 0; i < o->parameters[0]; i++) {
                uint64_t lease = atomic_load_explicit(&p->leases[i], memory_order_acquire);
                if (dead_has_number(dead, owner_participant(lease)))
                        was_any |= atomic_compare_exchange_strong_explicit(&p->leases[i], &lease, 0,
                                                                           memory_order_seq_cst, memory_order_relaxed);
        }
        gate_broadcast(&p->gate);
        return was_any;
}

static void permits_remove(const struct object *o) {
        struct layout_permits *p = o->at;
        atomic_store_explicit(&p->is_removed, 1, memory_order_seq_cst);
        gate_broadcast(&p->gate);
}

const struct object_kind permits_kind = {
        .name = "permits",
        .bytes = permits_bytes,
        .repair = permits_repair,
        .remove = permits_remove,
};

int drover_permits_open(drover_arena *arena, const char *name, uint32_t n, drover_permits **ret_permits) {
        const uint64_t parameters[ARENA_PARAMETERS] = {n};
        void *handle;
        int r = object_open(arena, name, OBJECT_PERMITS, parameters, sizeof(struct drover_permits), &handle);
        if (r < 0)
                return r;
        struct drover_permits *p = handle;
        p->shared = p->object.at;
        p->n = (uint32_t)p->object.parameters[0];
        *ret_permits = p;
        return 0;
}

drover_permits *drover_permits_free(drover_permits *permits) {
        object_close(permits);
        return NULL;
}

static int permits_take(void *user) {
        struct drover_permits *p = user;
        uint64_t self = arena_self(p->object.arena);
        uint32_t from = atomic_load_explicit(&p->next, memory_order_relaxed);
        if (atomic_load_explicit(&p->shared->is_removed, memory_order_seq_cst) != 0)
                return -EIDRM;
        for (uint32_t i = 0; i < p->n; i++) {
                uint32_t k = (from + i) % p->n;
                uint64_t nobody = 0;
                if (atomic_load_explicit(&p->shared->leases[k], memory_order_seq_cst) != 0 ||
                    !atomic_compare_exchange_strong_explicit(&p->shared->leases[k], &nobody, self, memory_order_acq_rel,
                                                             memory_order_relaxed))
                        continue;
                KILL_POINT("permit-taken");
                atomic_store_explicit(&p->next, k + 1, memory_order_relaxed);
                return 0;
        }
        return -EAGAIN;
}

int drover_permits_acquire(drover_permits *permits, uint64_t deadline_ns) {
        return gate_wait(&permits->shared->gate, &permits->object, &permits->spin, deadline_ns, permits_take, permits);
}

/* Gives back one permit whose word, under `mask`, is the caller's. */
static bool permits_give(struct drover_permits *p, uint64_t self, uint64_t mask) {
        uint32_t from = atomic_load_explicit(&p->next, memory_order_relaxed) + p->n - 1;
        for (uint32_t i = 0; i < p->n; i++) {
                uint32_t k = (from - i % p->n + p->n) % p->n;
                uint64_t lease = atomic_load_explicit(&p->shared->leases[k], memory_order_relaxed);
                if (lease == 0 || (lease & mask) != (self & mask) ||
                    !atomic_compare_exchange_strong_explicit(&p->shared->leases[k], &lease, 0, memory_order_seq_cst,
                                                             memory_order_relaxed))
                        continue;
                KILL_POINT("permit-given");
                gate_signal(&p->shared->gate, 1);
                return true;
        }
        return false;
}

int drover_permits_release(drover_permits *permits) {
        uint64_t self = arena_self(permits->object.arena);
        uint64_t process = ~((uint64_t)OWNER_SUB_MASK << OWNER_SUB_SHIFT);
        if (permits_give(permits, self, UINT64_MAX) || permits_give(permits, self, process))
                return 0;
        return -EOVERFLOW;
}

uint32_t drover_permits_available(const drover_permits *permits) {
        uint32_t n = 0;
        for (uint32_t i = 0; i < permits->n; i++)
                n += atomic_load_explicit(&permits->shared->leases[i], memory_order_acquire) == 0;
        return n;
}
