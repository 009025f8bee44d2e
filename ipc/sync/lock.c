/* The slow ways of the lock word.
 *
 * Waiters sleep on the word's low half: flags, participant and eight bits of the sub-owner. Whoever is about to sleep
 * has set LOCK_WAITERS in the very value it sleeps on, so an owner that gives back sees it and wakes one. Who was woken
 * (or may have been) takes the word with LOCK_WAITERS set, because others may sleep still: at worst one vain wake-up
 * per contended phase.
 *
 * A waiter that gives up was not woken: event_wait tells the two apart, and a victim of lock_find_cycle looks at the
 * word once more before it leaves. A giver that dies between its CAS and the wake, or a woken waiter that dies before
 * its CAS, leaves sleepers beside a free lock: lock_repair wakes all, also where the dead held nothing.
 *
 * The word of an object that was removed is given back, but not taken: LOCK_REMOVED is in the value that a waiter would
 * sleep on, and stays for ever, so that waiters and those who come later find it, at no cost for a word that is free.
 *
 * Generations and numbers make "is it mine" one comparison. A dead owner's word is changed by the repairer alone; no
 * waiter ever decides that an owner is dead. */
#include <errno.h>

#include "ipc/memory/event.h"
#include "ipc/memory/kill-point.h"
#include "ipc/memory/wait-watch.h"
#include "ipc/sync/lock.h"

enum { LOCK_MAX_TRIES = 100000 };

static _Atomic uint32_t *lock_futex(struct layout_lock *l) { return (_Atomic uint32_t *)&l->word; }

static bool lock_is_free(const struct layout_lock *l) {
        return owner_identity(atomic_load_explicit(&l->word, memory_order_relaxed)) == 0;
}

#ifdef DROVER_WATCHED_WAITS
static uint64_t lock_look(const void *user, uint64_t before_ns) {
        const struct layout_lock *l = user;
        uint64_t word = atomic_load_explicit(&l->word, memory_order_acquire);
        return owner_identity(word) == 0 ? word | UINT64_C(1) << 63 : 0;
}
#endif

/* Takes a word that nobody owns, with what its flags say. 0, -EOWNERDEAD: taken; -EAGAIN: somebody was faster. */
static int lock_take_flagged(struct layout_lock *l, uint64_t word, uint64_t self, unsigned flags) {
        uint64_t desired = self | owner_flags(word) | flags;
        if (!atomic_compare_exchange_strong_explicit(&l->word, &word, desired, memory_order_acquire,
                                                     memory_order_relaxed))
                return -EAGAIN;
        KILL_POINT("lock-taken");
        return desired & LOCK_OWNERDEAD ? -EOWNERDEAD : 0;
}

static void lock_spin(struct layout_lock *l, struct spin *spin, uint64_t deadline_ns) {
        struct spin_round round = spin_begin(spin, deadline_ns);
        bool is_free = false;
        spin_hold_back();
        while (!is_free && spin_step(&round))
                is_free = lock_is_free(l);
        spin_end(spin, &round, is_free);
}

static int lock_wait(struct layout_lock *l, struct spin *spin, struct wait *w) {
        uint64_t self = arena_self(w->arena);
        unsigned flags = 0, n_spins = 0;
        int r;
        do {
                uint64_t word = atomic_load_explicit(&l->word, memory_order_relaxed);
                r = -EAGAIN;
                if (word & LOCK_REMOVED)
                        r = -EIDRM;
                else if (owner_identity(word) == 0)
                        r = lock_take_flagged(l, word, self, flags);
                else if (w->deadline_ns == 0)
                        break;
                else if (owner_identity(word) == self)
                        r = -EDEADLK;
                else if (n_spins++ == 0)
                        lock_spin(l, spin, w->deadline_ns);
                else if ((word & LOCK_WAITERS) ||
                         atomic_compare_exchange_strong_explicit(&l->word, &word, word | LOCK_WAITERS,
                                                                 memory_order_relaxed, memory_order_relaxed)) {
                        KILL_POINT("lock-flagged");
                        flags = LOCK_WAITERS;
                        WAIT_LOOK("lock", lock_look, l);
                        r = wait_sleep(w, lock_futex(l), (uint32_t)word | LOCK_WAITERS);
                        if (r == 0)
                                r = -EAGAIN;
                        KILL_POINT("lock-woken");
                }
        } while (r == -EAGAIN);
        wait_end(w);
        return r;
}

int lock_acquire(struct layout_lock *l, const struct object *o, struct spin *spin, uint64_t deadline_ns) {
        struct wait w = WAIT(o->arena, o->index, deadline_ns);
        return lock_wait(l, spin, &w);
}

int lock_regain(struct layout_lock *l, const struct object *o, struct spin *spin) {
        struct wait w = WAIT(o->arena, o->index, DROVER_FOREVER);
        w.is_firm = true;
        return lock_wait(l, spin, &w);
}

int lock_release(struct layout_lock *l, uint64_t self) {
        uint64_t word = atomic_load_explicit(&l->word, memory_order_relaxed);
        do {
                if (owner_identity(word) != self)
                        return -EPERM;
        } while (!atomic_compare_exchange_weak_explicit(&l->word, &word, word & (LOCK_OWNERDEAD | LOCK_REMOVED),
                                                        memory_order_release, memory_order_relaxed));
        KILL_POINT("lock-given");
        if (word & LOCK_WAITERS)
                event_wake(lock_futex(l), 1);
        KILL_POINT("lock-waked");
        return 0;
}

int lock_consistent(struct layout_lock *l, uint64_t self) {
        uint64_t word = atomic_load_explicit(&l->word, memory_order_relaxed);
        do {
                if (owner_identity(word) != self)
                        return -EPERM;
                if (!(word & LOCK_OWNERDEAD))
                        return -EINVAL;
        } while (!atomic_compare_exchange_weak_explicit(&l->word, &word, word & ~(uint64_t)LOCK_OWNERDEAD,
                                                        memory_order_relaxed, memory_order_relaxed));
        return 0;
}

void lock_alarm(struct layout_lock *l) {
        /* A waiter that has looked at its line but does not sleep yet is to find another word than it saw. */
        uint64_t word = atomic_load_explicit(&l->word, memory_order_relaxed);
        for (unsigned i = 0; i < LOCK_MAX_TRIES && owner_identity(word) != 0; i++)
                if (atomic_compare_exchange_weak_explicit(&l->word, &word, word ^ LOCK_LOOK, memory_order_acq_rel,
                                                          memory_order_relaxed))
                        break;
        event_wake(lock_futex(l), INT32_MAX);
}

bool lock_repair(struct layout_lock *l, const struct dead *dead) {
        bool was_held = false;
        uint64_t word = atomic_load_explicit(&l->word, memory_order_relaxed);
        for (unsigned i = 0; i < LOCK_MAX_TRIES && dead_has_number(dead, owner_participant(word)) && !was_held; i++)
                /* release, acquire: what the dead one wrote is seen by the next owner by way of us */
                was_held =
                        atomic_compare_exchange_weak_explicit(&l->word, &word, LOCK_OWNERDEAD | (word & LOCK_REMOVED),
                                                              memory_order_acq_rel, memory_order_relaxed);
        event_wake(lock_futex(l), INT32_MAX);
        return was_held;
}

void lock_remove(struct layout_lock *l) {
        /* seq_cst: R1 of a rwlock's readers. Who is about to sleep finds another word than it saw */
        atomic_fetch_or_explicit(&l->word, LOCK_REMOVED, memory_order_seq_cst);
        event_wake(lock_futex(l), INT32_MAX);
}
