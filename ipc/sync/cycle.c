/* Finds who waits for whom in a circle, and breaks it.
 *
 * A wait line leads to an object, its lock word to an owner, the owner to its own wait line, and so on. The words are
 * read one after the other while everything moves, so a circle that was read need not have existed. It is read twice:
 * if every wait word is the same both times, every one of these threads was inside its wait from its first reading to
 * its second, and could not give back a lock; so the lock words, read in between, were all true at once.
 *
 * Every thread waits for at most one thing and every lock has at most one owner, so a walk needs no memory but its
 * path; it is cut off at the number of lines, whatever a hostile peer writes. Readers of a rwlock, permits and items
 * have no single owner: a walk ends there. */
#include <string.h>

#include "ipc/sync/lock.h"

struct cycle_step {
        uint32_t line, object;
        uint64_t wait, since_ns;
};

static bool cycle_read(struct drover_arena *a, uint32_t line, struct cycle_step *ret) {
        const struct layout_wait *l = &a->shared->waits[line];
        uint64_t wait = atomic_load_explicit(&l->wait, memory_order_acquire), object = wait & WAIT_OBJECT_MASK;
        if (object == 0 || object > ARENA_OBJECTS + 1)
                return false;
        *ret = (struct cycle_step){
                .line = line,
                .object = (uint32_t)object - 1,
                .wait = wait,
                .since_ns = atomic_load_explicit(&l->since_ns, memory_order_relaxed),
        };
        return true;
}

/* The line in which `owner` waits; ARENA_WAITS if it does not. */
static uint32_t cycle_line_of(const struct drover_arena *a, uint64_t owner) {
        uint32_t line = 0;
        while (line < ARENA_WAITS && atomic_load_explicit(&a->shared->waits[line].owner, memory_order_acquire) != owner)
                line++;
        return line;
}

/* Who holds what the step waits for: the step in which that one waits. false: nobody, or it does not wait, or it is the
 * waiter itself, which has just got it. */
static bool cycle_next(struct drover_arena *a, const struct cycle_step *from, struct cycle_step *ret) {
        const struct layout_lock *lock = wait_lock(a, from->object);
        if (!lock)
                return false;
        uint64_t owner = owner_identity(atomic_load_explicit(&lock->word, memory_order_acquire));
        if (owner == 0)
                return false;
        uint32_t line = cycle_line_of(a, owner);
        return line < ARENA_WAITS && line != from->line && cycle_read(a, line, ret);
}

static bool cycle_still(const struct drover_arena *a, const struct cycle_step *steps, uint32_t n) {
        for (uint32_t i = 0; i < n; i++)
                if (atomic_load_explicit(&a->shared->waits[steps[i].line].wait, memory_order_acquire) != steps[i].wait)
                        return false;
        return true;
}

/* The steps from `line` back to `line`; 0 if they do not come back. */
static uint32_t cycle_walk(struct drover_arena *a, uint32_t line, struct cycle_step steps[static ARENA_WAITS]) {
        if (!cycle_read(a, line, &steps[0]))
                return 0;
        for (uint32_t n = 1; n <= ARENA_WAITS; n++) {
                struct cycle_step next;
                if (!cycle_next(a, &steps[n - 1], &next))
                        return 0;
                if (next.line == line)
                        return next.wait == steps[0].wait && cycle_still(a, steps, n) ? n : 0;
                if (n == ARENA_WAITS)
                        return 0;
                steps[n] = next;
        }
        return 0;
}

static void cycle_break(struct drover_arena *a, const struct cycle_step *steps, uint32_t n) {
        uint32_t youngest = 0;
        for (uint32_t i = 0; i < n; i++) {
                if (steps[i].wait & WAIT_VICTIM) /* chosen before, it is only slow */
                        return;
                if (steps[i].since_ns > steps[youngest].since_ns)
                        youngest = i;
        }
        const struct cycle_step *s = &steps[youngest];
        uint64_t wait = s->wait;
        if (!atomic_compare_exchange_strong_explicit(&a->shared->waits[s->line].wait, &wait, wait | WAIT_VICTIM,
                                                     memory_order_acq_rel, memory_order_relaxed))
                return;
        struct layout_lock *lock = wait_lock(a, s->object);
        if (lock)
                lock_alarm(lock);
}

int drover_arena_find_cycle(drover_arena *arena, struct drover_wait_info *infos, size_t n) {
        struct cycle_step steps[ARENA_WAITS];
        for (uint32_t line = 0; line < ARENA_WAITS; line++) {
                uint32_t length = cycle_walk(arena, line, steps);
                if (length == 0)
                        continue;
                for (uint32_t i = 0; i < length && i < n; i++)
                        wait_describe(arena, steps[i].line, steps[i].object, &infos[i]);
                cycle_break(arena, steps, length);
                return (int)length;
        }
        return 0;
}
