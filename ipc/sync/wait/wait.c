/* Wait lines: who waits for what, for those who ask why something takes so long.
 *
 * A thread that is about to sleep takes a free line (one CAS on its owner), says since when and for what, and leaves
 * the line when its call ends. The wait word carries a sequence that rises with every begin and end, so two equal reads
 * of it mean that the thread was inside one and the same call in between: that is what makes a found cycle a true one
 * (cycle.c). The victim of a cycle finds its flag in the same word before it sleeps, and again after each wake-up.
 *
 * If all lines are taken the wait is not published; it works all the same. */
#include <errno.h>

#include "ipc/memory/event.h"
#include "ipc/memory/kill-point.h"
#include "ipc/sync/arena/arena.h"

static uint64_t wait_next(uint64_t word, uint64_t object) {
        return ((word & ~(WAIT_OBJECT_MASK | WAIT_VICTIM | WAIT_FIRM)) + WAIT_SEQUENCE_ONE) | object;
}

static void wait_begin(struct wait *w) {
        uint64_t self = arena_self(w->arena);
        for (uint32_t i = 0; i < ARENA_WAITS; i++) {
                uint32_t line = (owner_sub(self) + w->arena->participant * 8 + i) % ARENA_WAITS;
                struct layout_wait *l = &w->arena->shared->waits[line];
                uint64_t nobody = 0;
                if (atomic_load_explicit(&l->owner, memory_order_relaxed) != 0 ||
                    !atomic_compare_exchange_strong_explicit(&l->owner, &nobody, self, memory_order_acq_rel,
                                                             memory_order_relaxed))
                        continue;
                KILL_POINT("wait-line");
                atomic_store_explicit(&l->since_ns, event_now_ns(), memory_order_relaxed);
                w->published = wait_next(atomic_load_explicit(&l->wait, memory_order_relaxed), w->object + 1);
                w->published |= w->is_firm ? WAIT_FIRM : 0;
                /* release: owner and since are older */
                atomic_store_explicit(&l->wait, w->published, memory_order_release);
                KILL_POINT("wait-published");
                w->line = line + 1;
                return;
        }
        w->line = ARENA_WAITS + 1; /* unseen */
}

static struct layout_wait *wait_line(const struct wait *w) {
        return w->line > 0 && w->line <= ARENA_WAITS ? &w->arena->shared->waits[w->line - 1] : NULL;
}

int wait_sleep(struct wait *w, const _Atomic uint32_t *word, uint32_t seen) {
        if (w->line == 0)
                wait_begin(w);
        struct layout_wait *l = wait_line(w);
        if (l && !w->is_firm && (atomic_load_explicit(&l->wait, memory_order_acquire) & WAIT_VICTIM))
                return -EDEADLK;
        int r = event_wait(word, seen, w->deadline_ns);
        KILL_POINT("wait-awake");
        return r == -EINTR ? 0 : r;
}

void wait_end(struct wait *w) {
        struct layout_wait *l = wait_line(w);
        if (!l)
                return;
        atomic_store_explicit(&l->wait, wait_next(w->published, 0), memory_order_release);
        KILL_POINT("wait-unpublished");
        atomic_store_explicit(&l->owner, 0, memory_order_release);
        w->line = 0;
}

void wait_repair(struct drover_arena *a, const struct dead *dead) {
        for (uint32_t i = 0; i < ARENA_WAITS; i++) {
                struct layout_wait *l = &a->shared->waits[i];
                uint64_t owner = atomic_load_explicit(&l->owner, memory_order_acquire);
                if (!dead_has_number(dead, owner_participant(owner)))
                        continue;
                uint64_t wait = atomic_load_explicit(&l->wait, memory_order_relaxed);
                atomic_store_explicit(&l->wait, wait_next(wait, 0), memory_order_release);
                atomic_compare_exchange_strong_explicit(&l->owner, &owner, 0, memory_order_acq_rel,
                                                        memory_order_relaxed);
        }
}
