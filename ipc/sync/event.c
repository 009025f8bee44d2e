/* Events: set or not, in one futex word with an epoch.
 *
 * The epoch rises with every set, so a waiter that was woken returns 0 even if somebody cleared the event before it
 * ran. A setter that dies between its CAS and the wake has changed the epoch: repair only needs to make sleepers look.
 */
#include <errno.h>
#include <stdlib.h>

#include "ipc/memory/event.h"
#include "ipc/memory/kill-point.h"
#include "ipc/memory/wait-watch.h"
#include "ipc/sync/arena/arena.h"

struct drover_event {
        struct object object;
        struct layout_event *shared;
};

static uint64_t event_bytes(const struct drover_arena *a, const uint64_t parameters[ARENA_PARAMETERS]) {
        (void)a;
        (void)parameters;
        return sizeof(struct layout_event);
}

static bool event_repair(const struct object *o, const struct dead *dead) {
        (void)dead;
        event_wake(&((struct layout_event *)o->at)->word, INT32_MAX);
        return false;
}

static void event_remove(const struct object *o) {
        _Atomic uint32_t *word = &((struct layout_event *)o->at)->word;
        atomic_fetch_or_explicit(word, EVENT_REMOVED, memory_order_seq_cst);
        event_wake(word, INT32_MAX);
}

const struct object_kind event_kind = {
        .name = "event",
        .bytes = event_bytes,
        .repair = event_repair,
        .remove = event_remove,
};

int drover_event_open(drover_arena *arena, const char *name, drover_event **ret_event) {
        const uint64_t parameters[ARENA_PARAMETERS] = {0};
        void *handle;
        int r = object_open(arena, name, OBJECT_EVENT, parameters, sizeof(struct drover_event), &handle);
        if (r < 0)
                return r;
        struct drover_event *e = handle;
        e->shared = e->object.at;
        *ret_event = e;
        return 0;
}

drover_event *drover_event_free(drover_event *event) {
        object_close(event);
        return NULL;
}

int drover_event_set(drover_event *event) {
        _Atomic uint32_t *word = &event->shared->word;
        uint32_t seen = atomic_load_explicit(word, memory_order_relaxed), next;
        do {
                if (seen & EVENT_REMOVED)
                        return -EIDRM;
                if (seen & EVENT_SET) {
                        /* what the caller did before is seen by whoever finds it set: a write, to be ordered by */
                        next = seen;
                        continue;
                }
                next = ((seen + EVENT_EPOCH) | EVENT_SET) & ~(uint32_t)EVENT_SLEEPERS;
        } while (!atomic_compare_exchange_weak_explicit(word, &seen, next, memory_order_release, memory_order_relaxed));
        KILL_POINT("event-set");
        if (!(seen & EVENT_SET) && (seen & EVENT_SLEEPERS))
                event_wake(word, INT32_MAX);
        return 0;
}

int drover_event_clear(drover_event *event) {
        uint32_t seen = atomic_fetch_and_explicit(&event->shared->word, ~(uint32_t)EVENT_SET, memory_order_acq_rel);
        return seen & EVENT_REMOVED ? -EIDRM : 0;
}

bool drover_event_is_set(const drover_event *event) {
        return atomic_load_explicit(&event->shared->word, memory_order_acquire) & EVENT_SET;
}

#ifdef DROVER_WATCHED_WAITS
static uint64_t event_look(const void *word, uint64_t before_ns) {
        uint32_t now = atomic_load_explicit((const _Atomic uint32_t *)word, memory_order_acquire);
        return now & EVENT_SET ? now : 0;
}
#endif

int drover_event_wait(drover_event *event, uint64_t deadline_ns) {
        _Atomic uint32_t *word = &event->shared->word;
        uint32_t seen = atomic_load_explicit(word, memory_order_acquire), epoch = seen / EVENT_EPOCH;
        struct wait w = WAIT(event->object.arena, event->object.index, deadline_ns);
        int r = 0;
        while (r == 0 && !(seen & (EVENT_SET | EVENT_REMOVED)) && seen / EVENT_EPOCH == epoch) {
                if (deadline_ns == 0)
                        return -EAGAIN;
                if (!(seen & EVENT_SLEEPERS) &&
                    !atomic_compare_exchange_weak_explicit(word, &seen, seen | EVENT_SLEEPERS, memory_order_acq_rel,
                                                           memory_order_acquire))
                        continue;
                KILL_POINT("event-sleeper");
                WAIT_LOOK("event", event_look, word);
                r = wait_sleep(&w, word, seen | EVENT_SLEEPERS);
                seen = atomic_load_explicit(word, memory_order_acquire);
        }
        wait_end(&w);
        if (seen & EVENT_REMOVED)
                return -EIDRM;
        return (seen & EVENT_SET) || seen / EVENT_EPOCH != epoch ? 0 : r;
}
