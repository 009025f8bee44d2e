/* An eventcount for any number of sleepers of any process: how everybody but the owner of a lock word is waited for.
 *
 * waiter: gate_register, look again, wait_sleep. waker: publish with seq_cst, gate_signal. */
#pragma once

#include "ipc/memory/spin.h"
#include "ipc/sync/arena/arena.h"

static inline _Atomic uint32_t *gate_futex(struct layout_gate *g) { return (_Atomic uint32_t *)&g->word; }

/* Returns the sequence to sleep on. The caller looks again after it. */
uint32_t gate_register(struct layout_gate *g);

void gate_wake(struct layout_gate *g, int n);
/* After a publication, one seq_cst read-modify-write: wakes up to n who sleep. */
static inline void gate_signal(struct layout_gate *g, int n) {
        /* G2 ~ G1 (gate_register): either the waiter's second look sees what was published, or we see its flag. */
        if (atomic_load_explicit(&g->word, memory_order_seq_cst) & GATE_SLEEPERS)
                gate_wake(g, n);
}
/* Death rule: wakes all, whatever the flag says. */
void gate_broadcast(struct layout_gate *g);

/* Tries until `attempt` returns anything but -EAGAIN. That, or -EAGAIN (deadline 0), -ETIMEDOUT, -EDEADLK. */
int gate_wait(struct layout_gate *g, const struct object *o, struct spin *spin, uint64_t deadline_ns,
              int (*attempt)(void *user), void *user);
