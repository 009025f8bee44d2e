/* The ready ring: a bounded hint queue of (slot, generation) that no SIGKILL can wedge.
 *
 * The slot table is the truth, a ring entry only says where to look: it may be lost, doubled or stale
 * without harm. Consumers claim the slot first (a CAS on its word) and advance the head afterwards
 * ("claim-then-advance"), so a death between the two leaves a stale hint, never a lost job. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "ipc/layout.h"

struct ring {
        struct layout_ring *shared;
        _Atomic uint64_t *cells;
        uint32_t n_cells;     /* private, power of two */
        uint32_t cells_shift; /* which one */
        uint64_t head_seen;   /* private, a head seen earlier: spares the pusher the consumers' cache line */
};

struct ring_hint {
        uint64_t position; /* for ring_advance */
        uint32_t slot;
        uint16_t generation;
};

/* The cell of the next push, asked for ahead of it: consumers that wait look at it. */
void ring_prefetch_push(const struct ring *r);

/* Appends a hint. `is_live` is asked about the hint at the head when the ring looks full: stale ones are dropped.
 * 0, or -EAGAIN when full of live hints; -EPROTO when the words make no sense (a hostile peer): bounded work always. */
int ring_push(struct ring *r, uint32_t slot, uint32_t generation,
              bool (*is_live)(const void *user, uint32_t slot, uint16_t generation), const void *user);

/* The hint at the head, without taking it. true if there is one. Bounded: false also when the words make no sense. */
bool ring_peek(const struct ring *r, struct ring_hint *ret);

/* The hint behind `hint`, if it is written already: to be fetched ahead of time, and for nothing else. */
bool ring_peek_next(const struct ring *r, const struct ring_hint *hint, struct ring_hint *ret);

/* The hint at a position; false if that was not written. */
bool ring_look(const struct ring *r, uint64_t position, struct ring_hint *ret);

/* Moves the head past a hint that was claimed or found stale. Anybody may. */
void ring_advance(const struct ring *r, const struct ring_hint *hint);

/* May lie by a hint in flight; never says empty while a completed push stands. */
bool ring_is_empty(const struct ring *r);

/* ---- broker: after a worker's death, which may have written anything here ---- */

/* Do head, tail and cells fit together, and name slots below `n_slots`? Others may push and claim meanwhile. */
bool ring_is_sane(const struct ring *r, uint32_t n_slots);
/* Begins anew, empty, at a position that nobody can have seen: `chance` is to be another number each time. Whoever is
 * in the middle of a push or a claim does no harm; afterwards every QUEUED slot needs a new hint. */
void ring_reset(struct ring *r, uint64_t chance);
