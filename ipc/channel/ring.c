/* The ready ring. Owns head, tail and cells of one ring and the order in which they change.
 *
 * Position p lives in cell p mod n and belongs to cycle p div n + 1; a cell holds the cycle of the last push into it,
 * so it tells by itself whether position p was written: cycle(p) = yes, cycle(p) - 1 = not yet. Cycles are compared for
 * equality modulo 2^32 only, so they may wrap. Head and tail never go back.
 *
 * Pushing is one CAS on the cell; advancing the tail is housekeeping that anybody finishes, so a death between the two
 * costs nothing. Consumers claim the slot (channel.c) and advance the head afterwards; a death between these leaves a
 * stale hint at the head that the next consumer, or a pusher that finds the ring full, steps over.
 *
 * Why the full check reads the head: the cell alone cannot tell whether the hint of the previous cycle was consumed.
 * Vyukov's queue, SCQ and NCQ know it from a second write of the consumer, which a kill can leave undone for ever.
 * The check may use an old head: it only ever errs towards full, and then the real one is read.
 *
 * Every word may be rewritten by a hostile peer at any time. Positions are masked with the private size, and every loop
 * has a bound that honest contention does not reach: each round but the last means that somebody else made progress. */
#include <errno.h>

#include "ipc/channel/ring.h"
#include "ipc/memory/kill-point.h"

enum { RING_MAX_TRIES = 1024 };

static inline uint32_t ring_cycle(const struct ring *r, uint64_t position) {
        return (uint32_t)(position >> r->cells_shift) + 1;
}

static inline _Atomic uint64_t *ring_cell(const struct ring *r, uint64_t position) {
        return &r->cells[position & (r->n_cells - 1)];
}

static inline uint64_t ring_pack(uint32_t cycle, uint32_t generation, uint32_t slot) {
        return (uint64_t)cycle << 32 | (uint64_t)(generation & 0xffff) << 16 | (slot & 0xffff);
}

static inline uint32_t ring_cell_cycle(uint64_t cell) { return (uint32_t)(cell >> 32); }

static inline struct ring_hint ring_unpack(uint64_t position, uint64_t cell) {
        return (struct ring_hint){
                .position = position,
                .slot = cell & 0xffff,
                .generation = cell >> 16 & 0xffff,
        };
}

/* release: partner is the acquire load of the tail in ring_push, so that who reads the new tail also reads the cell. */
static inline void ring_bump(_Atomic uint64_t *end, uint64_t from) {
        atomic_compare_exchange_strong_explicit(end, &from, from + 1, memory_order_acq_rel, memory_order_relaxed);
}

/* Is there room at `tail`? 0 yes, -EAGAIN full of live hints, -EBUSY something moved: look again. */
static int ring_make_room(struct ring *r, uint64_t tail,
                          bool (*is_live)(const void *user, uint32_t slot, uint16_t generation), const void *user) {
        /* Unsigned: a head_seen beyond an old tail makes a huge difference, and the real head is read. */
        if (tail - r->head_seen < r->n_cells)
                return 0;

        uint64_t head = atomic_load_explicit(&r->shared->head, memory_order_acquire);
        r->head_seen = head;
        if (tail - head < r->n_cells)
                return 0;
        if (head > tail)
                return -EBUSY;

        uint64_t cell = atomic_load_explicit(ring_cell(r, head), memory_order_acquire);
        if (ring_cell_cycle(cell) != ring_cycle(r, head))
                return -EBUSY;
        struct ring_hint hint = ring_unpack(head, cell);
        if (is_live(user, hint.slot, hint.generation))
                return -EAGAIN;
        KILL_POINT("ring-drop");
        ring_bump(&r->shared->head, head);
        return -EBUSY;
}

void ring_prefetch_push(const struct ring *r) {
        __builtin_prefetch(ring_cell(r, atomic_load_explicit(&r->shared->tail, memory_order_relaxed)), 1);
}

int ring_push(struct ring *r, uint32_t slot, uint32_t generation,
              bool (*is_live)(const void *user, uint32_t slot, uint16_t generation), const void *user) {
        for (unsigned i = 0; i < RING_MAX_TRIES; i++) {
                uint64_t tail = atomic_load_explicit(&r->shared->tail, memory_order_acquire);
                _Atomic uint64_t *cell = ring_cell(r, tail);
                uint64_t seen = atomic_load_explicit(cell, memory_order_acquire);
                uint32_t cycle = ring_cycle(r, tail);

                if (ring_cell_cycle(seen) == cycle) { /* written, but the tail was not moved: finish that push */
                        ring_bump(&r->shared->tail, tail);
                        continue;
                }
                if (ring_cell_cycle(seen) != cycle - 1) /* the tail we read is a whole cycle old */
                        continue;

                int room = ring_make_room(r, tail, is_live, user);
                if (room == -EAGAIN)
                        return -EAGAIN;
                if (room < 0)
                        continue;

                /* release: partner is the load in ring_peek; the slot's QUEUED stands before its hint. seq_cst:
                 * bell_ring looks for sleepers next (bell.c, S1). */
                if (atomic_compare_exchange_strong_explicit(cell, &seen, ring_pack(cycle, generation, slot),
                                                            memory_order_seq_cst, memory_order_relaxed)) {
                        KILL_POINT("ring-cell");
                        ring_bump(&r->shared->tail, tail);
                        return 0;
                }
        }
        return -EPROTO;
}

bool ring_peek(const struct ring *r, struct ring_hint *ret) {
        for (unsigned i = 0; i < RING_MAX_TRIES; i++) {
                /* seq_cst: this is also the second look of somebody about to sleep (bell.c, S3 to S5). */
                uint64_t head = atomic_load_explicit(&r->shared->head, memory_order_seq_cst);
                uint64_t cell = atomic_load_explicit(ring_cell(r, head), memory_order_seq_cst);
                uint32_t cycle = ring_cycle(r, head);

                if (ring_cell_cycle(cell) == cycle) {
                        *ret = ring_unpack(head, cell);
                        return true;
                }
                if (ring_cell_cycle(cell) == cycle - 1)
                        return false;
        }
        return false;
}

bool ring_peek_next(const struct ring *r, const struct ring_hint *hint, struct ring_hint *ret) {
        uint64_t position = hint->position + 1;
        uint64_t cell = atomic_load_explicit(ring_cell(r, position), memory_order_relaxed);
        *ret = ring_unpack(position, cell);
        return ring_cell_cycle(cell) == ring_cycle(r, position);
}

bool ring_look(const struct ring *r, uint64_t position, struct ring_hint *ret) {
        uint64_t cell = atomic_load_explicit(ring_cell(r, position), memory_order_acquire);
        if (ring_cell_cycle(cell) != ring_cycle(r, position))
                return false;
        *ret = ring_unpack(position, cell);
        return true;
}

void ring_advance(const struct ring *r, const struct ring_hint *hint) { ring_bump(&r->shared->head, hint->position); }

bool ring_is_empty(const struct ring *r) {
        struct ring_hint hint;
        return !ring_peek(r, &hint);
}

/* The position at or behind `head` that lives in cell `i`. */
static uint64_t ring_position(const struct ring *r, uint64_t head, uint32_t i) {
        return head + ((i - head) & (r->n_cells - 1));
}

/* A consumer may be one ahead of the tail: of a cell that was written, and the tail not moved yet. */
static bool ring_ends_fit(const struct ring *r) {
        uint64_t before = atomic_load_explicit(&r->shared->head, memory_order_seq_cst);
        uint64_t tail = atomic_load_explicit(&r->shared->tail, memory_order_seq_cst);
        uint64_t after = atomic_load_explicit(&r->shared->head, memory_order_seq_cst);
        return before <= tail + 1 && after + r->n_cells >= tail && after + r->n_cells > after;
}

static bool ring_cell_fits(const struct ring *r, uint32_t i, uint32_t n_slots) {
        uint64_t head = atomic_load_explicit(&r->shared->head, memory_order_seq_cst);
        uint64_t tail_before = atomic_load_explicit(&r->shared->tail, memory_order_seq_cst);
        uint64_t position = ring_position(r, head, i);
        uint64_t cell = atomic_load_explicit(ring_cell(r, position), memory_order_seq_cst);
        uint64_t tail = atomic_load_explicit(&r->shared->tail, memory_order_seq_cst);
        uint32_t cycle = ring_cycle(r, position);
        if (ring_cell_cycle(cell) == cycle)
                return position <= tail && (cell & 0xffff) < n_slots;
        if (ring_cell_cycle(cell) == cycle - 1 && position >= tail_before)
                return true;
        return atomic_load_explicit(&r->shared->head, memory_order_seq_cst) > position; /* it was passed meanwhile */
}

bool ring_is_sane(const struct ring *r, uint32_t n_slots) {
        if (!ring_ends_fit(r))
                return false;
        for (uint32_t i = 0; i < r->n_cells; i++)
                if (!ring_cell_fits(r, i, n_slots))
                        return false;
        return ring_ends_fit(r);
}

void ring_reset(struct ring *r, uint64_t chance) {
        /* A CAS of theirs on a cell, head or tail expects what was read before, and no such value comes again: nobody
         * has seen this cycle or these positions. Half of all positions lie ahead, which no ring ever uses up. */
        uint64_t base = (chance * UINT64_C(0x9e3779b97f4a7c15)) >> 1 & ~(uint64_t)(r->n_cells - 1);
        for (uint32_t i = 0; i < r->n_cells; i++)
                atomic_store_explicit(&r->cells[i], ring_pack(ring_cycle(r, base) - 1, 0, 0), memory_order_seq_cst);
        atomic_store_explicit(&r->shared->tail, base, memory_order_seq_cst);
        atomic_store_explicit(&r->shared->head, base, memory_order_seq_cst);
        r->head_seen = base;
}
