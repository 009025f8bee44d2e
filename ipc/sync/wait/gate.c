/* The eventcount. Owns the order in which a gate's word changes; what is waited for is the caller's business.
 *
 *   G1 gate_register  flag set, registrations + 1 | the caller looks again      ~ G2
 *   G2 gate_signal    publication                 | flag read
 *
 * Both pairs are seq_cst. A waker that sees the flag changes the sequence before it wakes, so whoever registered but
 * does not sleep yet will not. It takes the flag away only if nobody was left to wake and nobody registered since: the
 * count of registrations makes that one CAS. So a flag may stand for nothing (one vain system call), never be missing.
 *
 * One wake-up is one waiter that looks again; that one may die before it looks, or have died: repair broadcasts. A
 * waiter that gives up did so without having been woken (futex(2) tells), or has looked again after it was. */
#include <errno.h>

#include "ipc/memory/event.h"
#include "ipc/memory/kill-point.h"
#include "ipc/memory/wait-watch.h"
#include "ipc/sync/wait/gate.h"

enum { GATE_MAX_TRIES = 100000 };
#define GATE_REGISTRATION (UINT64_C(1) << 32)

static uint64_t gate_next_sequence(uint64_t word) {
        return (word & ~(uint64_t)UINT32_MAX) | (uint32_t)((uint32_t)word + 1);
}

uint32_t gate_register(struct layout_gate *g) {
        uint64_t word = atomic_load_explicit(&g->word, memory_order_relaxed);
        while (!atomic_compare_exchange_weak_explicit(&g->word, &word, (word + GATE_REGISTRATION) | GATE_SLEEPERS,
                                                      memory_order_seq_cst, memory_order_relaxed))
                ;
        KILL_POINT("gate-registered");
        return (uint32_t)word;
}

void gate_wake(struct layout_gate *g, int n) {
        uint64_t word = atomic_load_explicit(&g->word, memory_order_relaxed), next;
        unsigned n_tries = 0;
        do {
                if (!(word & GATE_SLEEPERS) || ++n_tries > GATE_MAX_TRIES)
                        return;
                next = gate_next_sequence(word);
        } while (!atomic_compare_exchange_weak_explicit(&g->word, &word, next, memory_order_seq_cst,
                                                        memory_order_relaxed));
        KILL_POINT("gate-sequence");
        if (event_wake(gate_futex(g), n) < n) {
                KILL_POINT("gate-vain");
                atomic_compare_exchange_strong_explicit(&g->word, &next, next & ~GATE_SLEEPERS, memory_order_relaxed,
                                                        memory_order_relaxed);
        }
        KILL_POINT("gate-woken");
}

void gate_broadcast(struct layout_gate *g) {
        uint64_t word = atomic_load_explicit(&g->word, memory_order_relaxed);
        for (unsigned i = 0; i < GATE_MAX_TRIES; i++)
                if (atomic_compare_exchange_weak_explicit(&g->word, &word, gate_next_sequence(word),
                                                          memory_order_seq_cst, memory_order_relaxed))
                        break;
        event_wake(gate_futex(g), INT32_MAX);
}

int gate_wait(struct layout_gate *g, const struct object *o, struct spin *spin, uint64_t deadline_ns,
              int (*attempt)(void *user), void *user) {
        int r = attempt(user);
        if (r != -EAGAIN || deadline_ns == 0)
                return r;

        struct spin_round round = spin_begin(spin, deadline_ns);
        while (r == -EAGAIN && spin_step(&round))
                r = attempt(user);
        spin_end(spin, &round, r != -EAGAIN);
        if (r != -EAGAIN)
                return r;

        struct wait w = WAIT(o->arena, o->index, deadline_ns);
        for (;;) {
                uint32_t seen = gate_register(g);
                r = attempt(user);
                if (r != -EAGAIN) {
                        WAIT_FOUND();
                        break;
                }
                WAIT_GATE("gate", &g->word);
                r = wait_sleep(&w, gate_futex(g), seen);
                if (r < 0)
                        break;
        }
        wait_end(&w);
        return r;
}
