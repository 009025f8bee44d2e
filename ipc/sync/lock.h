/* The lock word: one CAS to take, one to give back, nothing else while nobody competes. */
#pragma once

#include "ipc/memory/spin.h"
#include "ipc/sync/arena/arena.h"

/* For what is held as long as it takes to fill an object, by calls that have no deadline. */
#define LOCK_PATIENCE_NS UINT64_C(5000000000)

static inline bool lock_take(struct layout_lock *l, uint64_t self) {
        uint64_t expected = 0;
        /* acquire: partner is the release in lock_give */
        return atomic_compare_exchange_strong_explicit(&l->word, &expected, self, memory_order_acquire,
                                                       memory_order_relaxed);
}

static inline bool lock_give(struct layout_lock *l, uint64_t self) {
        return atomic_compare_exchange_strong_explicit(&l->word, &self, 0, memory_order_release, memory_order_relaxed);
}

static inline bool lock_is_held(const struct layout_lock *l, uint64_t self) {
        return owner_identity(atomic_load_explicit(&l->word, memory_order_relaxed)) == self;
}

/* 0; -EOWNERDEAD: taken, an owner died since the data was last consistent. Not taken: -EAGAIN (deadline 0), -ETIMEDOUT,
 * -EDEADLK (the caller has it already, or was chosen to break a cycle), -EIDRM (the object was removed). */
int lock_acquire(struct layout_lock *l, const struct object *o, struct spin *spin, uint64_t deadline_ns);
/* The same, waits as long as it must and is never chosen: 0, -EOWNERDEAD; -EIDRM, and not taken. */
int lock_regain(struct layout_lock *l, const struct object *o, struct spin *spin);
int lock_release(struct layout_lock *l, uint64_t self);    /* -EPERM: not the caller's */
int lock_consistent(struct layout_lock *l, uint64_t self); /* -EPERM; -EINVAL: nothing to say */
/* From now on nobody takes it: -EIDRM. Who has it gives it back. */
void lock_remove(struct layout_lock *l);
/* Makes every waiter look at its wait line. */
void lock_alarm(struct layout_lock *l);
bool lock_repair(struct layout_lock *l, const struct dead *dead);
