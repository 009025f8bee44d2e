/* Finds who waits for whom in a circle, and breaks it.
 *
 * A wait line leads to an object, its lock word to an owner, the owner to its own wait line, and so on. The words are
 * read one after the other while everything moves, so a circle that was read need not have existed. So when it is
 * closed, all of it is read again: first every lock word and whose each line is, then every wait word. If those are as
 * they were, each of these threads was inside its wait since before any of the lock words was read, until after the
 * last; it could not give back a lock meanwhile, so they were all true at once. (The first reading of a lock word does
 * not count: its owner may have given it back before its own wait was first read.)
 *
 * A thread has one number in its process and an identity in each arena, so an owner in one arena may wait in another.
 * Which participants are one process only a broker's books tell: the pids in the memory are the participants' own word.
 *
 * Every thread waits for at most one thing and every lock has at most one owner, so a walk needs no memory but its
 * path. Searching lines is what costs, so that is counted, and a search ends when it has looked too often, whatever a
 * hostile peer writes. Readers of a rwlock, permits and items have no owner that alone could give them back: a walk
 * ends there. */
#include "ipc/sync/wait/cycle.h"

#include <string.h>

#include "ipc/sync/lock.h"

struct cycle_search {
        const struct cycle_books *books;
        struct cycle_step *steps;
        struct cycle_budget *budget;
};

static bool cycle_may_look(struct cycle_search *s) {
        bool is_left = s->budget->n_looks > 0;
        s->budget->n_looks -= is_left;
        return is_left;
}

static bool cycle_read(const struct cycle_place *place, uint32_t line, uint64_t waiter, struct cycle_step *ret) {
        const struct layout_wait *l = &place->arena->shared->waits[line];
        uint64_t wait = atomic_load_explicit(&l->wait, memory_order_acquire), object = wait & WAIT_OBJECT_MASK;
        if (object == 0 || object > place->arena->n_objects + 1)
                return false;
        *ret = (struct cycle_step){
                .place = *place,
                .line = line,
                .object = (uint32_t)object - 1,
                .wait = wait,
                .since_ns = atomic_load_explicit(&l->since_ns, memory_order_relaxed),
                .waiter = waiter,
        };
        return true;
}

/* The line in which `owner` waits; ARENA_WAITS if it does not. */
static uint32_t cycle_line_of(struct cycle_search *s, const struct drover_arena *a, uint64_t owner) {
        if (!cycle_may_look(s))
                return ARENA_WAITS;
        uint32_t line = 0;
        while (line < ARENA_WAITS && atomic_load_explicit(&a->shared->waits[line].owner, memory_order_acquire) != owner)
                line++;
        return line;
}

static uint16_t cycle_generation(const struct cycle_place *p) {
        return participant_generation(
                atomic_load_explicit(&p->arena->shared->participants[p->participant].word, memory_order_acquire));
}

/* The same thread's wait in another arena. */
static bool cycle_elsewhere(struct cycle_search *s, const struct cycle_place *place, uint64_t owner,
                            struct cycle_step *ret) {
        struct cycle_place other;
        if (!s->books->place || cycle_generation(place) != (uint16_t)(owner >> OWNER_GENERATION_SHIFT))
                return false;
        for (uint32_t i = 0; s->budget->n_looks > 0 && s->books->place(s->books->user, place, i, &other); i++) {
                uint64_t there = (uint64_t)(other.participant + 1) << OWNER_PARTICIPANT_SHIFT |
                                 (uint64_t)owner_sub(owner) << OWNER_SUB_SHIFT |
                                 (uint64_t)cycle_generation(&other) << OWNER_GENERATION_SHIFT;
                uint32_t line = cycle_line_of(s, other.arena, there);
                if (line < ARENA_WAITS && cycle_read(&other, line, there, ret))
                        return true;
        }
        return false;
}

static uint64_t cycle_holder(const struct cycle_step *s) {
        const struct layout_lock *lock = wait_lock(s->place.arena, s->object);
        return lock ? owner_identity(atomic_load_explicit(&lock->word, memory_order_acquire)) : 0;
}

/* Who holds what the step waits for: the step in which that one waits. false: nobody, or it does not wait, or it is the
 * waiter itself, which has just got it. */
static bool cycle_next(struct cycle_search *s, struct cycle_step *from, struct cycle_step *ret) {
        struct cycle_place place = from->place;
        uint64_t holder = from->holder = cycle_holder(from);
        uint32_t participant = owner_participant(holder);
        if (participant == 0 || participant > place.arena->n_participants || holder == from->waiter)
                return false;
        place.participant = participant - 1;
        uint32_t line = cycle_line_of(s, place.arena, holder);
        return (line < ARENA_WAITS && cycle_read(&place, line, holder, ret)) || cycle_elsewhere(s, &place, holder, ret);
}

static bool cycle_is_same(const struct cycle_step *a, const struct cycle_step *b) {
        return a->place.arena == b->place.arena && a->line == b->line;
}

/* The second reading. */
static bool cycle_still(const struct cycle_step *steps, uint32_t n) {
        for (uint32_t i = 0; i < n; i++) {
                const struct layout_wait *l = &steps[i].place.arena->shared->waits[steps[i].line];
                if (cycle_holder(&steps[i]) != steps[i].holder ||
                    atomic_load_explicit(&l->owner, memory_order_acquire) != steps[i].waiter)
                        return false;
        }
        for (uint32_t i = 0; i < n; i++) {
                const struct layout_wait *l = &steps[i].place.arena->shared->waits[steps[i].line];
                if (atomic_load_explicit(&l->wait, memory_order_acquire) != steps[i].wait)
                        return false;
        }
        return true;
}

/* The circle that the walk from this line runs into, at the front of `steps`. */
static uint32_t cycle_walk(struct cycle_search *s, const struct cycle_place *from, uint32_t line, uint64_t waiter) {
        struct cycle_step *steps = s->steps;
        if (!cycle_read(from, line, waiter, &steps[0]))
                return 0;
        for (uint32_t n = 1; n <= CYCLE_MAX; n++) {
                struct cycle_step next;
                if (!cycle_next(s, &steps[n - 1], &next))
                        return 0;
                for (uint32_t i = 0; i < n; i++) {
                        if (!cycle_is_same(&steps[i], &next))
                                continue;
                        n -= i;
                        memmove(steps, steps + i, n * sizeof *steps);
                        return next.wait == steps[0].wait && cycle_still(steps, n) ? n : 0;
                }
                if (n < CYCLE_MAX)
                        steps[n] = next;
        }
        return 0;
}

uint32_t cycle_find(const struct cycle_books *books, const struct cycle_place *from, int32_t pid,
                    struct cycle_budget *budget, struct cycle_step steps[static CYCLE_MAX]) {
        struct cycle_search s = {.books = books, .steps = steps, .budget = budget};
        uint32_t n = 0;
        if (!cycle_may_look(&s))
                return 0;
        for (uint32_t line = 0; line < ARENA_WAITS && n == 0; line++) {
                uint64_t owner = atomic_load_explicit(&from->arena->shared->waits[line].owner, memory_order_acquire);
                if (pid == 0 || wait_pid(from->arena, owner) == pid)
                        n = cycle_walk(&s, from, line, owner);
        }
        return n;
}

uint32_t cycle_youngest(const struct cycle_step *steps, uint32_t n) {
        uint32_t youngest = n;
        for (uint32_t i = 0; i < n; i++)
                if (!(steps[i].wait & WAIT_FIRM) && (youngest == n || steps[i].since_ns > steps[youngest].since_ns))
                        youngest = i;
        return youngest;
}

static void cycle_alarm(struct drover_arena *a, uint32_t object) {
        struct object o;
        if (object == a->n_objects) {
                lock_alarm(&a->shared->directory);
                return;
        }
        users_enter(a, object); /* the victim may have left meanwhile, and the object be removed */
        if (object_look(a, object, &o) == 0 && !o.is_removed) {
                if (object_kind(o.type)->alarm)
                        object_kind(o.type)->alarm(&o);
                else if (object_kind(o.type)->has_lock)
                        lock_alarm(o.at);
        }
        users_leave(a, object);
}

void cycle_break(const struct cycle_step *steps, uint32_t n) {
        for (uint32_t i = 0; i < n; i++)
                if (steps[i].wait & WAIT_VICTIM) /* chosen before, it is only slow */
                        return;
        uint32_t youngest = cycle_youngest(steps, n);
        if (youngest == n)
                return;
        const struct cycle_step *s = &steps[youngest];
        struct drover_arena *a = s->place.arena;
        uint64_t wait = s->wait;
        if (!atomic_compare_exchange_strong_explicit(&a->shared->waits[s->line].wait, &wait, wait | WAIT_VICTIM,
                                                     memory_order_acq_rel, memory_order_relaxed))
                return;
        cycle_alarm(a, s->object);
}

int drover_arena_find_cycle(drover_arena *arena, struct drover_wait_info *infos, size_t n) {
        static const struct cycle_books none;
        struct cycle_step steps[CYCLE_MAX];
        const struct cycle_place here = {.arena = arena};
        struct cycle_budget budget = {CYCLE_MAX_LOOKS};
        uint32_t length = cycle_find(&none, &here, 0, &budget, steps);
        for (uint32_t i = 0; i < length && i < n; i++)
                wait_describe(arena, steps[i].line, steps[i].object, &infos[i]);
        cycle_break(steps, length);
        return (int)length;
}
