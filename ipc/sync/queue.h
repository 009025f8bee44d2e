/* A queue as its parts see it: queue.c (calls), queue-cells.c (the words). */
#pragma once

#include <errno.h>
#include <pthread.h>

#include "ipc/sync/lock.h"
#include "ipc/sync/wait/gate.h"

struct drover_queue {
        struct object object;
        struct layout_queue *shared;
        _Atomic uint64_t *cells, *meta;
        uint8_t *items;
        size_t stride;
        uint32_t capacity, item_bytes, n_cells, participant; /* n_cells: a power of two; participant: index + 1 */
        unsigned order;                                      /* enum drover_queue_flag */
        bool is_done_at_get;                                 /* this handle leases nothing */
        _Atomic uint64_t head_seen;                          /* never beyond the true head */
        struct spin spin_items, spin_room, spin_done, spin_lock;

        pthread_mutex_t mutex; /* of what follows: the cells this handle leased, in order */
        uint32_t *leases, n_leases, first_lease;
};

static inline unsigned cell_state(uint64_t word) { return word & 0xf; }
static inline uint32_t cell_participant(uint64_t word) { return word >> 4 & 0xffff; }
static inline uint64_t cell_position(uint64_t word) { return word >> 20; }

static inline uint8_t *queue_item(const struct drover_queue *q, uint32_t cell) { return q->items + cell * q->stride; }
static inline uint64_t queue_word(const struct drover_queue *q, uint32_t cell) {
        return atomic_load_explicit(&q->cells[cell], memory_order_acquire);
}

/* seq_cst: each of these may be a publication that a gate's flag is read after. */
static inline bool queue_cas(struct drover_queue *q, uint32_t cell, uint64_t expected, uint64_t desired) {
        return atomic_compare_exchange_strong_explicit(&q->cells[cell], &expected, desired, memory_order_seq_cst,
                                                       memory_order_acquire);
}

/* -EIDRM: removed; -ESHUTDOWN: closed; 0. */
static inline int queue_end(const struct drover_queue *q) {
        uint32_t ends = atomic_load_explicit(&q->shared->ends, memory_order_seq_cst);
        return ends & QUEUE_REMOVED ? -EIDRM : ends & QUEUE_CLOSED ? -ESHUTDOWN : 0;
}

/* How often to go round when others were faster: each time they made progress, and a hostile peer gets bounded work. */
enum { QUEUE_SPARE_TRIES = 1024 };

/* FREE → WRITING(me). 0 and the cell; -EAGAIN: no room. The deadline is for the lock of LIFO and priority, whose errors
 * these two pass on. */
int queue_claim(struct drover_queue *q, uint64_t deadline_ns, uint32_t *ret_cell);
/* After a claim: would another find room? */
bool queue_has_more_room(struct drover_queue *q);
/* QUEUED | RETURNED → LEASED(me). 0 and the cell; -EAGAIN: nothing; -ESHUTDOWN: nothing, and nothing will come. */
int queue_lease(struct drover_queue *q, uint64_t deadline_ns, uint32_t *ret_cell);
/* LEASED(me) → FREE | RETURNED. */
bool queue_end_lease(struct drover_queue *q, uint32_t cell, enum cell_state state);
/* There is a RETURNED cell, perhaps. */
void queue_mark_returned(struct layout_queue *shared);
