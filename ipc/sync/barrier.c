/* Barriers: one word for the phase, one per party for who has arrived.
 *
 * Arriving is one CAS on the first place that has not this phase's number: so places fill in order, the place is the
 * index of arrival, and who takes the last one knows that all are there. It runs the action and ends the phase by one
 * CAS of the word. A phase ends once: by that, or broken by a timeout, an abort, a death; a reset ends it too and
 * begins the next. How the last 32 phases ended is kept in the word, for waiters that were slow to look.
 *
 * An arrival that comes late, into a phase that a reset has ended, does no harm: its place counts for nothing, and the
 * word tells the late one. A place is never taken from a newer phase.
 *
 * A party that dies before it arrives would be waited for in vain, so whoever has a handle is a member, and the death
 * of a member breaks the barrier. */
#include <errno.h>
#include <stdlib.h>

#include "ipc/memory/event.h"
#include "ipc/memory/kill-point.h"
#include "ipc/memory/wait-watch.h"
#include "ipc/sync/arena/arena.h"

enum { BARRIER_MAX_TRIES = 100000, BARRIER_HISTORY = 32 };
#define BARRIER_PHASES UINT32_C(0x7fffffff)

struct drover_barrier {
        struct object object;
        struct layout_barrier *shared;
        _Atomic uint64_t *arrivals; /* one per party */
        uint32_t parties;
        int (*action)(void *user);
        void *user;
};

static uint64_t barrier_arrivals_offset(const struct drover_arena *a) {
        return (sizeof(struct layout_barrier) + a->n_participants * sizeof(uint32_t) + 7) / 8 * 8;
}

static uint64_t barrier_bytes(const struct drover_arena *a, const uint64_t parameters[ARENA_PARAMETERS]) {
        uint64_t n = parameters[0];
        return n > 0 && n <= ARENA_MAX_PARTIES ? barrier_arrivals_offset(a) + n * sizeof(uint64_t) : 0;
}

static uint64_t barrier_word(const struct layout_barrier *b) {
        return atomic_load_explicit(&b->word, memory_order_acquire);
}

static uint32_t barrier_phase(uint64_t word) { return (uint32_t)word >> 1; }

/* What stands in the place of somebody who has arrived in this phase. */
static uint32_t barrier_tag(uint64_t word) { return (barrier_phase(word) + 1) & BARRIER_PHASES; }

static uint64_t barrier_next(uint64_t word, bool is_broken) {
        uint64_t history = (uint32_t)(word >> 32 << 1) | is_broken;
        return history << 32 | (uint32_t)((barrier_phase(word) + 1) << 1);
}

static void barrier_wake(struct layout_barrier *b) { event_wake((_Atomic uint32_t *)&b->word, INT32_MAX); }

/* Ends the phase that `word` is in. false: it has ended. */
static bool barrier_end(struct layout_barrier *b, uint64_t word, uint64_t next) {
        if (!atomic_compare_exchange_strong_explicit(&b->word, &word, next, memory_order_acq_rel, memory_order_relaxed))
                return false;
        KILL_POINT("barrier-ended");
        barrier_wake(b);
        return true;
}

static bool barrier_break(struct layout_barrier *b) {
        uint64_t word = barrier_word(b);
        for (unsigned i = 0; i < BARRIER_MAX_TRIES && !(word & BARRIER_BROKEN); i++, word = barrier_word(b))
                if (barrier_end(b, word, word | BARRIER_BROKEN))
                        return true;
        return false;
}

static bool barrier_repair(const struct object *o, const struct dead *dead) {
        struct layout_barrier *b = o->at;
        bool was_any = false;
        for (uint32_t i = 0; i < o->arena->n_participants; i++) {
                if (!dead_has(dead, i) || atomic_load_explicit(&b->members[i], memory_order_acquire) == 0)
                        continue;
                if (!was_any) /* before it is forgotten who was a member */
                        barrier_break(b);
                atomic_store_explicit(&b->members[i], 0, memory_order_release);
                was_any = true;
        }
        barrier_wake(b);
        return was_any;
}

static void barrier_remove(const struct object *o) {
        struct layout_barrier *b = o->at;
        atomic_store_explicit(&b->is_removed, 1, memory_order_seq_cst);
        barrier_break(b);
        barrier_wake(b);
}

const struct object_kind barrier_kind = {
        .name = "barrier",
        .bytes = barrier_bytes,
        .repair = barrier_repair,
        .remove = barrier_remove,
};

int drover_barrier_open(drover_arena *arena, const char *name, uint32_t parties, drover_barrier **ret_barrier) {
        const uint64_t parameters[ARENA_PARAMETERS] = {parties};
        void *handle;
        int r = object_open(arena, name, OBJECT_BARRIER, parameters, sizeof(struct drover_barrier), &handle);
        if (r < 0)
                return r;
        struct drover_barrier *b = handle;
        b->shared = b->object.at;
        b->arrivals = (_Atomic uint64_t *)((uint8_t *)b->object.at + barrier_arrivals_offset(arena));
        b->parties = (uint32_t)b->object.parameters[0];
        atomic_fetch_add_explicit(&b->shared->members[arena->participant], 1, memory_order_acq_rel);
        *ret_barrier = b;
        return 0;
}

drover_barrier *drover_barrier_free(drover_barrier *barrier) {
        if (barrier && arena_is_mapped(barrier->object.arena))
                atomic_fetch_sub_explicit(&barrier->shared->members[barrier->object.arena->participant], 1,
                                          memory_order_acq_rel);
        object_close(barrier);
        return NULL;
}

void drover_barrier_set_action(drover_barrier *barrier, int (*action)(void *user), void *user) {
        barrier->action = action;
        barrier->user = user;
}

/* -EPIPE of a barrier that was removed, which breaks it: after the word was read. */
static int barrier_say(const struct drover_barrier *b, int r) {
        return r == -EPIPE && atomic_load_explicit(&b->shared->is_removed, memory_order_seq_cst) != 0 ? -EIDRM : r;
}

static uint32_t barrier_place_tag(const struct drover_barrier *b, uint32_t place) {
        return (uint32_t)(atomic_load_explicit(&b->arrivals[place], memory_order_acquire) >> 32);
}

/* Takes the next place. Its index; -EAGAIN: all are taken; -ESTALE: the phase is over. */
static int barrier_arrive(struct drover_barrier *b, uint64_t word) {
        uint32_t tag = barrier_tag(word);
        uint64_t mine = (uint64_t)tag << 32 | (b->object.arena->participant + 1);
        for (uint32_t i = 0; i < b->parties; i++) {
                uint64_t seen = atomic_load_explicit(&b->arrivals[i], memory_order_acquire);
                do {
                        /* 31 bits, so that half of the numbers are newer */
                        int32_t age = (int32_t)(((uint32_t)(seen >> 32) - tag) << 1);
                        if (age > 0)
                                return -ESTALE;
                        if (age == 0)
                                break;
                        if (atomic_compare_exchange_weak_explicit(&b->arrivals[i], &seen, mine, memory_order_acq_rel,
                                                                  memory_order_acquire)) {
                                KILL_POINT("barrier-arrived");
                                return (int)i;
                        }
                } while (true);
        }
        return -EAGAIN;
}

/* How the phase of `was` ended, read off `word`: 0 or -EPIPE; -EAGAIN: it has not. */
static int barrier_outcome(uint64_t was, uint64_t word) {
        uint32_t distance = (barrier_phase(word) - barrier_phase(was)) & BARRIER_PHASES;
        if (distance == 0)
                return word & BARRIER_BROKEN ? -EPIPE : -EAGAIN;
        return distance <= BARRIER_HISTORY && !(word >> (32 + distance - 1) & 1) ? 0 : -EPIPE;
}

/* The last to arrive. */
static int barrier_complete(struct drover_barrier *b, uint64_t word) {
        if (barrier_word(b->shared) != word)
                return -EPIPE;
        struct drover_arena *a = b->object.arena;
        arena_ref(a);
        int r = b->action ? b->action(b->user) : 0;
        if (arena_leave(a) < 0)
                return -EBUSY;
        KILL_POINT("barrier-acted");
        if (r < 0) {
                barrier_end(b->shared, word, word | BARRIER_BROKEN);
                return r;
        }
        return barrier_end(b->shared, word, barrier_next(word, false)) ? 0 : -EPIPE;
}

/* Sleeps until the phase of `was` has ended. */
static int barrier_sleep(struct drover_barrier *b, uint64_t was, uint64_t deadline_ns, bool has_arrived) {
        struct wait w = WAIT(b->object.arena, b->object.index, deadline_ns);
        int r;
        do {
                uint64_t word = barrier_word(b->shared);
                r = barrier_outcome(was, word);
                if (r != -EAGAIN)
                        break;
                WAIT_LOOK("barrier", NULL, NULL);
                r = wait_sleep(&w, (_Atomic uint32_t *)&b->shared->word, (uint32_t)word);
                if (r < 0) {
                        if (!has_arrived || barrier_end(b->shared, word, word | BARRIER_BROKEN))
                                break;
                        r = barrier_outcome(was, barrier_word(b->shared));
                        break;
                }
                r = -EAGAIN;
        } while (r == -EAGAIN);
        wait_end(&w);
        return r;
}

/* Would the next to arrive be the last? */
static bool barrier_lacks_one(const struct drover_barrier *b, uint64_t word) {
        return barrier_place_tag(b, b->parties - 1) != barrier_tag(word) &&
               (b->parties == 1 || barrier_place_tag(b, b->parties - 2) == barrier_tag(word));
}

int drover_barrier_wait(drover_barrier *barrier, uint64_t deadline_ns) {
        for (unsigned i = 0; i < BARRIER_MAX_TRIES; i++) {
                uint64_t word = barrier_word(barrier->shared);
                if (word & BARRIER_BROKEN)
                        return barrier_say(barrier, -EPIPE);
                if (deadline_ns == 0 && !barrier_lacks_one(barrier, word))
                        return -EAGAIN;
                int place = barrier_arrive(barrier, word), r;
                if (place == -ESTALE && barrier_word(barrier->shared) == word)
                        break; /* an arrival in a phase that nobody has begun */
                if (place == -ESTALE)
                        continue;
                if (place == -EAGAIN) { /* the last one is at its action; the next phase is ours */
                        r = deadline_ns == 0 ? -EAGAIN : barrier_sleep(barrier, word, deadline_ns, false);
                        if (r < 0 && r != -EPIPE)
                                return r;
                        continue;
                }
                r = place == (int)barrier->parties - 1 ? barrier_complete(barrier, word)
                                                       : barrier_sleep(barrier, word, deadline_ns, true);
                return r < 0 ? barrier_say(barrier, r) : place;
        }
        return -EPROTO;
}

int drover_barrier_reset(drover_barrier *barrier) {
        for (unsigned i = 0; i < BARRIER_MAX_TRIES; i++) {
                uint64_t word = barrier_word(barrier->shared);
                if ((word & BARRIER_BROKEN) && barrier_say(barrier, -EPIPE) == -EIDRM)
                        return -EIDRM;
                if (barrier_end(barrier->shared, word, barrier_next(word, true)))
                        return 0;
        }
        return -EPROTO;
}

int drover_barrier_abort(drover_barrier *barrier) {
        barrier_break(barrier->shared);
        return barrier_say(barrier, -EPIPE) == -EIDRM ? -EIDRM : 0;
}

uint32_t drover_barrier_parties(const drover_barrier *barrier) { return barrier->parties; }

uint32_t drover_barrier_waiting(const drover_barrier *barrier) {
        uint64_t word = barrier_word(barrier->shared);
        uint32_t n = 0;
        while (!(word & BARRIER_BROKEN) && n < barrier->parties && barrier_place_tag(barrier, n) == barrier_tag(word))
                n++;
        return n;
}

bool drover_barrier_is_broken(const drover_barrier *barrier) { return barrier_word(barrier->shared) & BARRIER_BROKEN; }
