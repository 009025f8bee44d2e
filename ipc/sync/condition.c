/* Conditions: a sequence that waiters sleep on and notifiers change.
 *
 * Waiters register (bit 0) and notifiers notify while they hold the mutex, so the two never meet half way: whoever
 * registered before a notification sleeps on the old sequence or finds it changed. The bit goes away when a notifier
 * sees that nobody is left asleep; nobody can register meanwhile.
 *
 * A woken waiter that dies before it looks takes a notification with it, a notifier that dies may have changed what
 * others wait for and told nobody: repair changes the sequence and wakes all, so a wait may end for nothing. Nobody is
 * woken for a process that detaches: it is in no call. But if it held the mutex, others must learn that. */
#include <errno.h>
#include <stdlib.h>

#include "ipc/memory/event.h"
#include "ipc/memory/kill-point.h"
#include "ipc/sync/mutex.h"

enum { CONDITION_SLEEPERS = 1, CONDITION_SEQUENCE = 2 };

struct drover_condition {
        struct object object;
        struct layout_condition *shared;
        struct drover_mutex *mutex;
};

/* The mutex: its entry + 1 32 | its generation 32, for an entry may be another object's later. */
static uint64_t condition_bytes(const struct drover_arena *a, const uint64_t parameters[ARENA_PARAMETERS]) {
        uint32_t mutex = (uint32_t)parameters[0];
        return mutex > 0 && mutex <= a->n_objects ? sizeof(struct layout_condition) : 0;
}

static bool condition_is_left_in_order(const struct object *o, const struct dead *dead) {
        struct drover_arena *a = o->arena;
        if (a->identity == 0 || !dead_has(dead, a->participant))
                return false;
        /* The mutex is repaired before or after its condition, as their entries lie. */
        const struct layout_lock *l = wait_lock(a, (uint32_t)o->parameters[0] - 1);
        uint64_t word = l ? atomic_load_explicit(&l->word, memory_order_acquire) : LOCK_OWNERDEAD;
        return !(word & LOCK_OWNERDEAD) && !dead_has_number(dead, owner_participant(word));
}

static bool condition_repair(const struct object *o, const struct dead *dead) {
        struct layout_condition *c = o->at;
        if (condition_is_left_in_order(o, dead))
                return false;
        atomic_fetch_add_explicit(&c->sequence, CONDITION_SEQUENCE, memory_order_acq_rel);
        event_wake(&c->sequence, INT32_MAX);
        return false;
}

static void condition_remove(const struct object *o) {
        struct layout_condition *c = o->at;
        atomic_store_explicit(&c->is_removed, 1, memory_order_seq_cst);
        atomic_fetch_add_explicit(&c->sequence, CONDITION_SEQUENCE, memory_order_seq_cst);
        event_wake(&c->sequence, INT32_MAX);
}

const struct object_kind condition_kind = {
        .name = "condition",
        .bytes = condition_bytes,
        .repair = condition_repair,
        .remove = condition_remove,
};

int drover_condition_open(drover_arena *arena, const char *name, drover_mutex *mutex,
                          drover_condition **ret_condition) {
        const uint64_t parameters[ARENA_PARAMETERS] = {(mutex->object.index + 1) | (uint64_t)mutex->object.generation
                                                                                           << 32};
        if (mutex->object.arena != arena)
                return -EINVAL;
        void *handle;
        int r = object_open(arena, name, OBJECT_CONDITION, parameters, sizeof(struct drover_condition), &handle);
        if (r < 0)
                return r;
        struct drover_condition *c = handle;
        c->shared = c->object.at;
        c->mutex = mutex;
        *ret_condition = c;
        return 0;
}

drover_condition *drover_condition_free(drover_condition *condition) {
        object_close(condition);
        return NULL;
}

static bool condition_is_removed(const struct drover_condition *c) {
        return atomic_load_explicit(&c->shared->is_removed, memory_order_seq_cst) != 0;
}

int drover_condition_wait(drover_condition *condition, uint64_t deadline_ns) {
        struct drover_mutex *m = condition->mutex;
        if (!lock_is_held(m->lock, mutex_self(m)))
                return -EPERM;
        if (deadline_ns == 0)
                return -EAGAIN;
        uint32_t seen =
                atomic_fetch_or_explicit(&condition->shared->sequence, CONDITION_SLEEPERS, memory_order_acq_rel) |
                CONDITION_SLEEPERS;
        KILL_POINT("condition-registered");
        if (condition_is_removed(condition)) /* after the sequence: who removes it later changes that */
                return -EIDRM;
        int depth = mutex_yield(m);
        if (depth < 0)
                return depth;
        KILL_POINT("condition-yielded");

        struct wait w = WAIT(condition->object.arena, condition->object.index, deadline_ns);
        int r;
        do
                r = wait_sleep(&w, &condition->shared->sequence, seen);
        while (r == 0 && atomic_load_explicit(&condition->shared->sequence, memory_order_acquire) == seen);
        wait_end(&w);
        KILL_POINT("condition-woken");
        int regained = mutex_regain(m, depth);
        return regained < 0 ? regained : condition_is_removed(condition) ? -EIDRM : r;
}

/* 1, 0; -EBUSY: it freed the arena, and nothing of this condition is there any more. */
static int condition_ask(struct drover_arena *a, bool (*is_true)(void *user), void *user) {
        arena_ref(a);
        bool is = is_true(user);
        int r = arena_leave(a);
        return r < 0 ? r : is;
}

int drover_condition_wait_for(drover_condition *condition, bool (*is_true)(void *user), void *user,
                              uint64_t deadline_ns) {
        struct drover_arena *a = condition->object.arena;
        struct drover_mutex *m = condition->mutex;
        if (!lock_is_held(m->lock, mutex_self(m)))
                return -EPERM;
        for (int r = 0;;) {
                int is = condition_ask(a, is_true, user);
                if (is != 0)
                        return is < 0 ? is : 0;
                if (r < 0) /* it could have come true while the mutex was taken again */
                        return r;
                r = drover_condition_wait(condition, deadline_ns);
                if (r < 0 && r != -ETIMEDOUT && r != -EDEADLK)
                        return r;
        }
}

int drover_condition_notify(drover_condition *condition, uint32_t n) {
        struct drover_mutex *m = condition->mutex;
        _Atomic uint32_t *sequence = &condition->shared->sequence;
        if (!lock_is_held(m->lock, mutex_self(m)))
                return -EPERM;
        if (condition_is_removed(condition))
                return -EIDRM;
        if (n == 0 || !(atomic_load_explicit(sequence, memory_order_acquire) & CONDITION_SLEEPERS))
                return 0;
        int limit = n > INT32_MAX ? INT32_MAX : (int)n;
        atomic_fetch_add_explicit(sequence, CONDITION_SEQUENCE, memory_order_acq_rel);
        KILL_POINT("condition-sequence");
        if (event_wake(sequence, limit) < limit) {
                KILL_POINT("condition-all");
                atomic_fetch_and_explicit(sequence, ~(uint32_t)CONDITION_SLEEPERS, memory_order_acq_rel);
        }
        KILL_POINT("condition-notified");
        return 0;
}

int drover_condition_notify_all(drover_condition *condition) { return drover_condition_notify(condition, UINT32_MAX); }
