/* Reader-writer locks: a lock word for the writer, a number of its own for each reading process.
 *
 * A reader raises its process's number, then looks at the writer's word; a writer takes its word, then waits for all
 * numbers to be 0. Both are seq_cst, so at least one of two that meet sees the other: R1 ~ W1. A reader that sees a
 * writer takes its number back and waits; so a writer that waits keeps new readers out.
 *
 * There is no count that several processes share: a dead process's number is set to 0 with all of its readers. A writer
 * that died leaves LOCK_OWNERDEAD: readers are told and kept out until a writer has called consistent. */
#include <errno.h>
#include <stdlib.h>

#include "ipc/memory/kill-point.h"
#include "ipc/sync/lock.h"
#include "ipc/sync/wait/gate.h"

struct drover_rwlock {
        struct object object;
        struct layout_rwlock *shared;
        _Atomic uint64_t *mine; /* this process's number */
        struct spin spin_readers, spin_writers;
};

static uint64_t rwlock_bytes(const struct drover_arena *a, const uint64_t parameters[ARENA_PARAMETERS]) {
        (void)parameters;
        return sizeof(struct layout_rwlock) + a->n_participants * sizeof(struct layout_readers);
}

static bool rwlock_repair(const struct object *o, const struct dead *dead) {
        struct layout_rwlock *l = o->at;
        bool was_any = lock_repair(&l->writer, dead);
        for (uint32_t i = 0; i < o->arena->n_participants; i++)
                if (dead_has(dead, i))
                        was_any |= atomic_exchange_explicit(&l->readers[i].n, 0, memory_order_seq_cst) > 0;
        gate_broadcast(&l->drained);
        gate_broadcast(&l->opened);
        return was_any;
}

static void rwlock_alarm(const struct object *o) {
        struct layout_rwlock *l = o->at;
        lock_alarm(&l->writer);
        gate_broadcast(&l->opened); /* readers do not sleep at the word */
}

static void rwlock_remove(const struct object *o) {
        struct layout_rwlock *l = o->at;
        lock_remove(&l->writer);
        gate_broadcast(&l->drained);
        gate_broadcast(&l->opened);
}

const struct object_kind rwlock_kind = {
        .name = "rwlock",
        .bytes = rwlock_bytes,
        .repair = rwlock_repair,
        .remove = rwlock_remove,
        .has_lock = true,
        .alarm = rwlock_alarm,
};

int drover_rwlock_open(drover_arena *arena, const char *name, drover_rwlock **ret_rwlock) {
        const uint64_t parameters[ARENA_PARAMETERS] = {0};
        void *handle;
        int r = object_open(arena, name, OBJECT_RWLOCK, parameters, sizeof(struct drover_rwlock), &handle);
        if (r < 0)
                return r;
        struct drover_rwlock *l = handle;
        l->shared = l->object.at;
        l->mine = &l->shared->readers[arena->participant].n;
        *ret_rwlock = l;
        return 0;
}

drover_rwlock *drover_rwlock_free(drover_rwlock *rwlock) {
        object_close(rwlock);
        return NULL;
}

/* Never below 0: one unlock too many, beside another thread's, must not leave a number that no writer waits out. */
static int rwlock_leave(struct drover_rwlock *l) {
        uint64_t n = atomic_load_explicit(l->mine, memory_order_relaxed);
        do {
                if (n == 0)
                        return -EPERM;
        } while (
                !atomic_compare_exchange_weak_explicit(l->mine, &n, n - 1, memory_order_seq_cst, memory_order_relaxed));
        KILL_POINT("rwlock-left");
        gate_signal(&l->shared->drained, INT32_MAX);
        return 0;
}

/* May a reader be in? 0, -EAGAIN, -EOWNERDEAD, -EIDRM. */
static int rwlock_state(const struct drover_rwlock *l) {
        uint64_t word = atomic_load_explicit(&l->shared->writer.word, memory_order_seq_cst);
        if (word & LOCK_REMOVED)
                return -EIDRM;
        if (owner_identity(word) != 0)
                return -EAGAIN;
        return word & LOCK_OWNERDEAD ? -EOWNERDEAD : 0;
}

static int rwlock_try_read(void *user) {
        struct drover_rwlock *l = user;
        int r = rwlock_state(l);
        if (r < 0)
                return r;
        atomic_fetch_add_explicit(l->mine, 1, memory_order_seq_cst);
        KILL_POINT("rwlock-entered");
        r = rwlock_state(l); /* R1 ~ W1 */
        if (r < 0)
                rwlock_leave(l);
        return r;
}

int drover_rwlock_read(drover_rwlock *rwlock, uint64_t deadline_ns) {
        return gate_wait(&rwlock->shared->opened, &rwlock->object, &rwlock->spin_readers, deadline_ns, rwlock_try_read,
                         rwlock);
}

static int rwlock_is_drained(void *user) {
        const struct drover_rwlock *l = user;
        if (atomic_load_explicit(&l->shared->writer.word, memory_order_seq_cst) & LOCK_REMOVED)
                return -EIDRM;
        for (uint32_t i = 0; i < l->object.arena->n_participants; i++)
                if (atomic_load_explicit(&l->shared->readers[i].n, memory_order_seq_cst) > 0)
                        return -EAGAIN;
        return 0;
}

static void rwlock_open_again(struct drover_rwlock *l) {
        lock_release(&l->shared->writer, arena_self(l->object.arena));
        atomic_thread_fence(memory_order_seq_cst); /* the release was a publication: G2 */
        gate_signal(&l->shared->opened, INT32_MAX);
}

int drover_rwlock_write(drover_rwlock *rwlock, uint64_t deadline_ns) {
        int r = lock_acquire(&rwlock->shared->writer, &rwlock->object, &rwlock->spin_writers, deadline_ns);
        if (r < 0 && r != -EOWNERDEAD)
                return r;
        atomic_thread_fence(memory_order_seq_cst); /* W1 ~ R1 */
        KILL_POINT("rwlock-closed");
        int drained = gate_wait(&rwlock->shared->drained, &rwlock->object, &rwlock->spin_writers, deadline_ns,
                                rwlock_is_drained, rwlock);
        if (drained < 0) {
                rwlock_open_again(rwlock);
                return drained;
        }
        return r;
}

int drover_rwlock_unlock(drover_rwlock *rwlock) {
        if (lock_is_held(&rwlock->shared->writer, arena_self(rwlock->object.arena))) {
                rwlock_open_again(rwlock);
                return 0;
        }
        return rwlock_leave(rwlock);
}

int drover_rwlock_consistent(drover_rwlock *rwlock) {
        return lock_consistent(&rwlock->shared->writer, arena_self(rwlock->object.arena));
}
