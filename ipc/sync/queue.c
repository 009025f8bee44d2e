/* Queues: what a caller sees. The words and their order are the business of queue-cells.c.
 *
 * put: claim a cell, copy, publish, signal `items`. get: lease a cell, copy, signal `room`; done at once in a simple
 * queue, or by a handle that was opened so. A handle remembers the cells it leased, so that task_done needs no ticket;
 * that memory is private, and a death takes it along with the leases.
 *
 * Closing is a word that producers look at after they claimed and consumers before they look (Q1 ~ Q2): so an item
 * whose put returned 0 is never left behind.
 *
 * A joiner waits for one cell that is in use and says which: only its end wakes the joiner, who then looks for another.
 * Several joiners share the place, so one that leaves wakes the rest. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/memory/kill-point.h"
#include "ipc/sync/queue.h"

static uint32_t queue_cells(uint64_t capacity) {
        uint32_t n = 4;
        while (n < 2 * capacity)
                n *= 2;
        return n;
}

static uint64_t queue_align(uint64_t bytes) { return (bytes + LAYOUT_LINE - 1) & ~(uint64_t)(LAYOUT_LINE - 1); }

/* Where the items begin: after the words and their meta words, at a line. */
static uint64_t queue_items_offset(uint64_t capacity) {
        return queue_align(sizeof(struct layout_queue) + queue_cells(capacity) * 2 * sizeof(uint64_t));
}

static uint64_t queue_bytes(const struct drover_arena *a, const uint64_t parameters[ARENA_PARAMETERS]) {
        (void)a;
        uint64_t capacity = parameters[0], item = parameters[1], order = parameters[2];
        if (capacity == 0 || capacity > ARENA_MAX_CELLS / 2 || item == 0 || item > ARENA_MAX_ITEM ||
            order < DROVER_QUEUE_FIFO || order > DROVER_QUEUE_SIMPLE)
                return 0;
        return queue_items_offset(capacity) + queue_cells(capacity) * queue_align(item);
}

/* Of the dead: what they were writing is void, what they had leased comes back. */
static bool queue_repair_cell(_Atomic uint64_t *cell, const struct dead *dead) {
        uint64_t word = atomic_load_explicit(cell, memory_order_acquire);
        for (uint32_t i = 0; i < QUEUE_SPARE_TRIES && dead_has_number(dead, cell_participant(word)); i++) {
                unsigned state = cell_state(word) == CELL_LEASED ? CELL_RETURNED : CELL_FREE;
                if (atomic_compare_exchange_weak_explicit(cell, &word, CELL_WORD(state, 0, cell_position(word)),
                                                          memory_order_seq_cst, memory_order_acquire))
                        return true;
        }
        return false;
}

static bool queue_repair(const struct object *o, const struct dead *dead) {
        struct layout_queue *shared = o->at;
        bool was_any = lock_repair(&shared->lock, dead);
        for (uint32_t i = 0; i < queue_cells(o->parameters[0]); i++)
                was_any |= queue_repair_cell(&shared->cells[i], dead);
        /* Always: an earlier repair may have died before it said so, or a consumer with a vain scan. */
        queue_mark_returned(shared);
        gate_broadcast(&shared->items);
        gate_broadcast(&shared->room);
        gate_broadcast(&shared->done);
        return was_any;
}

static void queue_remove(const struct object *o) {
        struct layout_queue *shared = o->at;
        atomic_fetch_or_explicit(&shared->ends, QUEUE_REMOVED, memory_order_seq_cst);
        lock_remove(&shared->lock);
        gate_broadcast(&shared->items);
        gate_broadcast(&shared->room);
        gate_broadcast(&shared->done);
}

const struct object_kind queue_kind = {
        .name = "queue",
        .bytes = queue_bytes,
        .repair = queue_repair,
        .remove = queue_remove,
        .has_lock = true,
};

int drover_queue_open(drover_arena *arena, const char *name, uint32_t capacity, uint32_t item_bytes, unsigned order,
                      drover_queue **ret_queue) {
        bool is_done_at_get = order & DROVER_QUEUE_DONE_AT_GET;
        order &= ~(unsigned)DROVER_QUEUE_DONE_AT_GET;
        const uint64_t parameters[ARENA_PARAMETERS] = {capacity, item_bytes, order};
        void *handle;
        int r = object_open(arena, name, OBJECT_QUEUE, parameters, sizeof(struct drover_queue), &handle);
        if (r < 0)
                return r;
        struct drover_queue *q = handle;
        q->shared = q->object.at;
        q->capacity = (uint32_t)q->object.parameters[0];
        q->item_bytes = (uint32_t)q->object.parameters[1];
        q->order = (unsigned)q->object.parameters[2];
        q->is_done_at_get = is_done_at_get || q->order == DROVER_QUEUE_SIMPLE;
        q->n_cells = queue_cells(q->capacity);
        q->participant = arena->participant + 1;
        q->cells = q->shared->cells;
        q->meta = q->cells + q->n_cells;
        q->items = (uint8_t *)q->shared + queue_items_offset(q->capacity);
        q->stride = queue_align(q->item_bytes);
        q->leases = calloc(q->n_cells, sizeof *q->leases);
        if (!q->leases) {
                object_close(q);
                return -ENOMEM;
        }
        pthread_mutex_init(&q->mutex, NULL);
        *ret_queue = q;
        return 0;
}

drover_queue *drover_queue_free(drover_queue *queue) {
        if (queue) {
                pthread_mutex_destroy(&queue->mutex);
                free(queue->leases);
        }
        object_close(queue);
        return NULL;
}

/* ---- put ---- */

struct queue_call {
        struct drover_queue *queue;
        uint64_t deadline_ns;
        uint32_t cell;
};

static int queue_try_claim(void *user) {
        struct queue_call *call = user;
        struct drover_queue *q = call->queue;
        int end = queue_end(q);
        if (end < 0)
                return end;
        int r = queue_claim(q, call->deadline_ns, &call->cell);
        if (r < 0 || (end = queue_end(q)) == 0) /* Q2: after the claim */
                return r;
        uint64_t word = queue_word(q, call->cell);
        queue_cas(q, call->cell, word, CELL_WORD(CELL_FREE, 0, cell_position(word)));
        gate_signal(&q->shared->items, INT32_MAX); /* consumers may wait for this very cell */
        gate_signal(&q->shared->done, INT32_MAX);
        return end;
}

int drover_queue_put_priority(drover_queue *queue, uint32_t priority, const void *data, size_t bytes,
                              uint64_t deadline_ns) {
        if (bytes > queue->item_bytes)
                return -EMSGSIZE;
        struct queue_call call = {.queue = queue, .deadline_ns = deadline_ns};
        int r = gate_wait(&queue->shared->room, &queue->object, &queue->spin_room, deadline_ns, queue_try_claim, &call);
        if (r < 0)
                return r;
        memcpy(queue_item(queue, call.cell), data, bytes);
        atomic_store_explicit(&queue->meta[call.cell], (uint64_t)priority << 32 | bytes, memory_order_relaxed);
        KILL_POINT("queue-written");
        uint64_t word = queue_word(queue, call.cell);
        if (cell_state(word) != CELL_WRITING || cell_participant(word) != queue->participant ||
            !queue_cas(queue, call.cell, word, CELL_WORD(CELL_QUEUED, 0, cell_position(word))))
                return -EPROTO; /* nobody but us may touch it */
        KILL_POINT("queue-published");
        gate_signal(&queue->shared->items, 1);
        /* The baton: one get makes room for several when the head was held up by a slow producer, or passes what was
         * passed over, but wakes one of us. */
        if ((atomic_load_explicit(&queue->shared->room.word, memory_order_seq_cst) & GATE_SLEEPERS) &&
            queue_has_more_room(queue))
                gate_wake(&queue->shared->room, 1);
        return 0;
}

int drover_queue_put(drover_queue *queue, const void *data, size_t bytes, uint64_t deadline_ns) {
        return drover_queue_put_priority(queue, 0, data, bytes, deadline_ns);
}

/* ---- get ---- */

static int queue_try_lease(void *user) {
        struct queue_call *call = user;
        int end = queue_end(call->queue);
        return end == -EIDRM ? end : queue_lease(call->queue, call->deadline_ns, &call->cell);
}

/* One item less in use. */
static void queue_signal_end(struct drover_queue *q, uint32_t cell) {
        gate_signal(&q->shared->room, 1);
        if (atomic_load_explicit(&q->shared->done.word, memory_order_seq_cst) & GATE_SLEEPERS) {
                uint32_t watched = atomic_load_explicit(&q->shared->watched, memory_order_seq_cst);
                if (watched == 0 || watched == cell + 1)
                        gate_wake(&q->shared->done, INT32_MAX);
        }
}

static void queue_remember(struct drover_queue *q, uint32_t cell) {
        pthread_mutex_lock(&q->mutex);
        q->leases[(q->first_lease + q->n_leases) & (q->n_cells - 1)] = cell;
        if (q->n_leases < q->n_cells)
                q->n_leases++;
        pthread_mutex_unlock(&q->mutex);
}

int drover_queue_get(drover_queue *queue, void *buffer, size_t room, size_t *ret_bytes, uint64_t deadline_ns) {
        struct queue_call call = {.queue = queue, .deadline_ns = deadline_ns};
        int r = gate_wait(&queue->shared->items, &queue->object, &queue->spin_items, deadline_ns, queue_try_lease,
                          &call);
        if (r < 0)
                return r;
        size_t bytes = (uint32_t)atomic_load_explicit(&queue->meta[call.cell], memory_order_relaxed);
        if (bytes > queue->item_bytes)
                bytes = queue->item_bytes; /* a hostile peer's */
        *ret_bytes = bytes;
        if (bytes > room) {
                queue_end_lease(queue, call.cell, CELL_RETURNED);
                queue_mark_returned(queue->shared);
                gate_signal(&queue->shared->items, 1);
                return -EMSGSIZE;
        }
        memcpy(buffer, queue_item(queue, call.cell), bytes);
        KILL_POINT("queue-copied");
        if (queue->is_done_at_get) {
                queue_end_lease(queue, call.cell, CELL_FREE);
                KILL_POINT("queue-freed");
                queue_signal_end(queue, call.cell);
        } else {
                queue_remember(queue, call.cell);
                gate_signal(&queue->shared->room, 1);
        }
        return 0;
}

int drover_queue_task_done(drover_queue *queue) {
        if (queue_end(queue) == -EIDRM)
                return -EIDRM;
        pthread_mutex_lock(&queue->mutex);
        bool is_any = queue->n_leases > 0;
        uint32_t cell = queue->leases[queue->first_lease];
        if (is_any) {
                queue->first_lease = (queue->first_lease + 1) & (queue->n_cells - 1);
                queue->n_leases--;
        }
        pthread_mutex_unlock(&queue->mutex);
        if (!is_any || !queue_end_lease(queue, cell, CELL_FREE))
                return -EINVAL;
        KILL_POINT("queue-freed");
        queue_signal_end(queue, cell);
        return 0;
}

/* ---- the rest ---- */

/* No cell is in use: 0 and the sum of the positions that they stand for. */
static int queue_look_idle(struct drover_queue *q, uint64_t *ret_sum) {
        uint64_t sum = 0;
        for (uint32_t i = 0; i < q->n_cells; i++) {
                uint64_t word = queue_word(q, i);
                if (cell_state(word) != CELL_FREE) {
                        atomic_store_explicit(&q->shared->watched, i + 1, memory_order_seq_cst);
                        /* Q3: its end comes after this look, and then sees the place; or this look sees its end */
                        word = atomic_load_explicit(&q->cells[i], memory_order_seq_cst);
                        if (cell_state(word) != CELL_FREE)
                                return -EAGAIN;
                }
                sum += cell_position(word);
                KILL_POINT("queue-looked");
        }
        *ret_sum = sum;
        return 0;
}

/* Twice, because an item may put another behind the first look and be done before it. Every use of a cell moves its
 * position on: if none has moved, all were free between the two looks. */
static int queue_is_idle(void *user) {
        struct drover_queue *q = user;
        uint64_t before, after;
        if (queue_end(q) == -EIDRM)
                return -EIDRM;
        int r = queue_look_idle(q, &before);
        for (uint32_t i = 0; r == 0 && i < QUEUE_SPARE_TRIES; i++, before = after) {
                r = queue_look_idle(q, &after);
                if (r == 0 && before == after)
                        return 0;
        }
        if (r == 0) /* busy, yet nothing to watch: look again at once */
                gate_signal(&q->shared->done, INT32_MAX);
        return -EAGAIN;
}

int drover_queue_join(drover_queue *queue, uint64_t deadline_ns) {
        int r = gate_wait(&queue->shared->done, &queue->object, &queue->spin_done, deadline_ns, queue_is_idle, queue);
        gate_signal(&queue->shared->done, INT32_MAX);
        return r;
}

int drover_queue_close(drover_queue *queue) {
        uint32_t ends = atomic_fetch_or_explicit(&queue->shared->ends, QUEUE_CLOSED, memory_order_seq_cst); /* Q1 */
        KILL_POINT("queue-closed");
        gate_signal(&queue->shared->items, INT32_MAX);
        gate_signal(&queue->shared->room, INT32_MAX);
        return ends & QUEUE_REMOVED ? -EIDRM : 0;
}

uint32_t drover_queue_size(const drover_queue *queue) {
        uint32_t n = 0;
        for (uint32_t i = 0; i < queue->n_cells; i++) {
                unsigned state = cell_state(queue_word(queue, i));
                n += state == CELL_QUEUED || state == CELL_RETURNED;
        }
        return n;
}
