/* Mutexes, plain and recursive, on the lock word.
 *
 * How deep a recursive one is held stands beside the word and is touched by the owner alone; it means nothing while the
 * word names nobody, so a death needs no repair of it. */
#include <errno.h>
#include <stdlib.h>

#include "ipc/memory/kill-point.h"
#include "ipc/sync/mutex.h"

static uint64_t mutex_bytes(const struct drover_arena *a, const uint64_t parameters[ARENA_PARAMETERS]) {
        (void)a;
        (void)parameters;
        return sizeof(struct layout_mutex);
}

static bool mutex_repair(const struct object *o, const struct dead *dead) {
        return lock_repair(&((struct layout_mutex *)o->at)->lock, dead);
}

static void mutex_remove(const struct object *o) { lock_remove(&((struct layout_mutex *)o->at)->lock); }

const struct object_kind mutex_kind = {
        .name = "mutex",
        .bytes = mutex_bytes,
        .repair = mutex_repair,
        .remove = mutex_remove,
        .has_lock = true,
};

const struct object_kind recursive_mutex_kind = {
        .name = "recursive mutex",
        .bytes = mutex_bytes,
        .repair = mutex_repair,
        .remove = mutex_remove,
        .has_lock = true,
};

void mutex_init(struct drover_mutex *m, const struct object *o, struct layout_lock *lock, bool is_recursive) {
        *m = (struct drover_mutex){
                .object = *o,
                .lock = lock,
                .identity = o->arena->identity,
                .is_recursive = is_recursive,
        };
}

int drover_mutex_open(drover_arena *arena, const char *name, unsigned flags, drover_mutex **ret_mutex) {
        if (flags & ~(unsigned)DROVER_RECURSIVE)
                return -EINVAL;
        const uint64_t parameters[ARENA_PARAMETERS] = {0};
        void *handle;
        int r = object_open(arena, name, flags & DROVER_RECURSIVE ? OBJECT_RECURSIVE_MUTEX : OBJECT_MUTEX, parameters,
                            sizeof(struct drover_mutex), &handle);
        if (r < 0)
                return r;
        struct drover_mutex *m = handle;
        mutex_init(m, &m->object, m->object.at, flags & DROVER_RECURSIVE);
        *ret_mutex = m;
        return 0;
}

drover_mutex *drover_mutex_free(drover_mutex *mutex) {
        object_close(mutex);
        return NULL;
}

static uint32_t mutex_depth(const struct drover_mutex *m) {
        return atomic_load_explicit(&m->lock->depth, memory_order_relaxed);
}

static void mutex_set_depth(struct drover_mutex *m, uint32_t depth) {
        atomic_store_explicit(&m->lock->depth, depth, memory_order_relaxed);
}

/* The word was not free. */
static __attribute__((noinline)) int mutex_lock_slow(struct drover_mutex *m, uint64_t self, uint64_t deadline_ns) {
        if (m->is_recursive && lock_is_held(m->lock, self)) {
                uint32_t depth = mutex_depth(m);
                if (depth >= INT32_MAX)
                        return -EOVERFLOW;
                mutex_set_depth(m, depth + 1);
                return atomic_load_explicit(&m->lock->word, memory_order_relaxed) & LOCK_OWNERDEAD ? -EOWNERDEAD : 0;
        }
        int r = lock_acquire(m->lock, &m->object, &m->spin, deadline_ns);
        if (r == 0 || r == -EOWNERDEAD)
                mutex_set_depth(m, 1);
        return r;
}

int drover_mutex_lock(drover_mutex *mutex, uint64_t deadline_ns) {
        uint64_t self = mutex_self(mutex);
        if (__builtin_expect(!lock_take(mutex->lock, self), 0))
                return mutex_lock_slow(mutex, self, deadline_ns);
        KILL_POINT("mutex-taken");
        if (mutex->is_recursive)
                mutex_set_depth(mutex, 1);
        return 0;
}

/* There is more to it than giving back a word that nobody waits for. */
static __attribute__((noinline)) int mutex_unlock_slow(struct drover_mutex *m, uint64_t self) {
        if (m->is_recursive && lock_is_held(m->lock, self) && mutex_depth(m) > 1) {
                mutex_set_depth(m, mutex_depth(m) - 1);
                return 0;
        }
        return lock_release(m->lock, self);
}

int drover_mutex_unlock(drover_mutex *mutex) {
        uint64_t self = mutex_self(mutex);
        if (__builtin_expect(mutex->is_recursive || !lock_give(mutex->lock, self), 0))
                return mutex_unlock_slow(mutex, self);
        KILL_POINT("mutex-given");
        return 0;
}

int drover_mutex_consistent(drover_mutex *mutex) { return lock_consistent(mutex->lock, mutex_self(mutex)); }

int mutex_yield(struct drover_mutex *m) {
        uint64_t self = mutex_self(m);
        if (!lock_is_held(m->lock, self))
                return -EPERM;
        uint32_t depth = m->is_recursive ? mutex_depth(m) : 1;
        int r = lock_release(m->lock, self);
        return r < 0 ? r : depth > 0 && depth <= INT32_MAX ? (int)depth : 1;
}

int mutex_regain(struct drover_mutex *m, int depth) {
        /* To break a cycle here would break the caller's invariant: another one is chosen. */
        int r = lock_regain(m->lock, &m->object, &m->spin);
        if (m->is_recursive && r != -EIDRM)
                mutex_set_depth(m, (uint32_t)depth);
        return r;
}
