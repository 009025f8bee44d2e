/* The words of a queue: which cell a producer fills and a consumer takes.
 *
 * Position p belongs to cell p mod n. A cell's word carries the position that was last decided for it, so it tells by
 * itself whether p was: position(word) >= p. Positions are decided in order, by one CAS of the cell:
 *
 *     FREE(older) → WRITING(me, p)                       p is mine
 *     LEASED(older) → LEASED(p), RETURNED likewise       p is passed over: the cell is still in use
 *
 * and never twice, so a stale producer cannot fill a position that consumers went past. Head and tail are hints: they
 * lag, anybody moves them on over what is decided (tail) or no longer waits to be taken (head), and a death before that
 * costs nothing. Nothing is ever found by counting.
 *
 *     WRITING(p) → QUEUED(p) → LEASED(me, p) → FREE(p)
 *     of the dead, by repair:   WRITING → FREE,  LEASED → RETURNED → LEASED …
 *
 * The bound: p is filled only while p - head < capacity, and the head passes only what is not WRITING or QUEUED, so
 * never more than `capacity` are queued. There are twice as many cells, for items that are leased.
 *
 * Returned items lie behind the head. `returned` says that there may be some; consumers then scan, and take it back by
 * a CAS that a new return makes fail. A consumer goes past a WRITING cell (its producer may be stopped) but does not
 * move the head over it: order is kept for each producer.
 *
 * LIFO and priority have no head: they scan under a lock, with the same transitions, so its death needs no repair. */
#include <errno.h>

#include "ipc/memory/kill-point.h"
#include "ipc/sync/queue.h"

enum { QUEUE_TRY_LOCK_MS = 100 };

/* a - b of positions, which wrap. */
static int64_t queue_difference(uint64_t a, uint64_t b) { return (int64_t)((a - b) << 20) >> 20; }

static uint32_t queue_cell_of(const struct drover_queue *q, uint64_t position) {
        return (uint32_t)position & (q->n_cells - 1);
}

static uint64_t queue_next(uint64_t position) { return (position + 1) & CELL_POSITION_MASK; }

/* release: partners are the acquire loads of head and tail, so that who reads the new one also reads the cells. */
static void queue_move(_Atomic uint64_t *end, uint64_t from, uint64_t to) {
        if (from != to)
                atomic_compare_exchange_strong_explicit(end, &from, to, memory_order_acq_rel, memory_order_relaxed);
}

/* ---- FIFO ---- */

/* Moves the head on over what nobody will take from there, for a producer that finds the queue full. */
static uint64_t queue_push_head(struct drover_queue *q) {
        uint64_t from = atomic_load_explicit(&q->shared->head, memory_order_acquire) & CELL_POSITION_MASK, head = from;
        for (uint32_t i = 0; i < q->n_cells; i++) {
                uint64_t word = queue_word(q, queue_cell_of(q, head));
                int64_t ahead = queue_difference(cell_position(word), head);
                unsigned state = cell_state(word);
                if (ahead < 0 || (ahead == 0 && (state == CELL_WRITING || state == CELL_QUEUED)))
                        break;
                head = queue_next(head);
        }
        queue_move(&q->shared->head, from, head);
        return head;
}

static bool queue_has_room(struct drover_queue *q, uint64_t position) {
        uint64_t head = atomic_load_explicit(&q->head_seen, memory_order_relaxed);
        int64_t n = queue_difference(position, head);
        if (n >= 0 && n < q->capacity)
                return true;
        head = atomic_load_explicit(&q->shared->head, memory_order_acquire) & CELL_POSITION_MASK;
        if (queue_difference(position, head) >= q->capacity)
                head = queue_push_head(q);
        atomic_store_explicit(&q->head_seen, head, memory_order_relaxed);
        return queue_difference(position, head) < q->capacity;
}

static int queue_claim_next(struct drover_queue *q, uint32_t *ret_cell) {
        for (uint32_t i = 0; i < 2 * q->n_cells + QUEUE_SPARE_TRIES; i++) {
                uint64_t tail = atomic_load_explicit(&q->shared->tail, memory_order_acquire) & CELL_POSITION_MASK;
                uint32_t cell = queue_cell_of(q, tail);
                uint64_t word = queue_word(q, cell), position = cell_position(word);
                if (queue_difference(position, tail) >= 0) { /* decided, but the tail was not moved */
                        queue_move(&q->shared->tail, tail, queue_next(position));
                        continue;
                }
                if (!queue_has_room(q, tail))
                        return -EAGAIN;
                unsigned state = cell_state(word);
                if (state == CELL_LEASED || state == CELL_RETURNED) {
                        queue_cas(q, cell, word, CELL_WORD(state, cell_participant(word), tail));
                        continue;
                }
                if (state != CELL_FREE)
                        return -EAGAIN;
                if (!queue_cas(q, cell, word, CELL_WORD(CELL_WRITING, q->participant, tail)))
                        continue;
                KILL_POINT("queue-claimed");
                queue_move(&q->shared->tail, tail, queue_next(tail));
                KILL_POINT("queue-tail");
                *ret_cell = cell;
                return 0;
        }
        return -EAGAIN;
}

static bool queue_lease_word(struct drover_queue *q, uint32_t cell, uint64_t word) {
        return queue_cas(q, cell, word, CELL_WORD(CELL_LEASED, q->participant, cell_position(word)));
}

/* The oldest item that came back from the dead. */
static bool queue_lease_returned(struct drover_queue *q, uint32_t *ret_cell) {
        for (uint32_t n = 0; n < QUEUE_SPARE_TRIES; n++) {
                uint32_t hint = atomic_load_explicit(&q->shared->returned, memory_order_seq_cst), best = q->n_cells;
                uint64_t best_word = 0;
                for (uint32_t i = 0; (hint & 1) && i < q->n_cells; i++) {
                        uint64_t word = queue_word(q, i);
                        if (cell_state(word) != CELL_RETURNED ||
                            (best < q->n_cells && queue_difference(cell_position(word), cell_position(best_word)) > 0))
                                continue;
                        best = i;
                        best_word = word;
                }
                if (best == q->n_cells) {
                        KILL_POINT("queue-scanned");
                        if (hint & 1)
                                atomic_compare_exchange_strong(&q->shared->returned, &hint, hint & ~1u);
                        return false;
                }
                if (queue_lease_word(q, best, best_word)) {
                        *ret_cell = best;
                        return true;
                }
        }
        return false;
}

/* Before taking an item behind cells that were WRITING: was one of them published since? Then its producer may have put
 * the later item as well, and the earlier goes first. If none was, the later item is of another thread. */
static bool queue_find_earlier(const struct drover_queue *q, uint64_t from, uint64_t to, uint64_t *ret) {
        uint64_t at = from;
        for (uint32_t i = 0; i < q->n_cells && queue_difference(to, at) > 0; i++, at = queue_next(at)) {
                uint64_t word = queue_word(q, queue_cell_of(q, at));
                if (cell_state(word) == CELL_QUEUED && cell_position(word) == at) {
                        *ret = at;
                        return true;
                }
        }
        return false;
}

static int queue_lease_next(struct drover_queue *q, uint32_t *ret_cell) {
        /* Before the cells: a producer that found the queue open has its cell WRITING by now (Q1 ~ Q2). */
        bool is_closed = queue_end(q) < 0, is_blocked = false;
        if ((atomic_load_explicit(&q->shared->returned, memory_order_seq_cst) & 1) && queue_lease_returned(q, ret_cell))
                return 0;

        uint64_t from = atomic_load_explicit(&q->shared->head, memory_order_acquire) & CELL_POSITION_MASK, at = from,
                 head = from; /* where the first WRITING cell is, or the end */
        int r = -EAGAIN;
        for (uint32_t i = 0; i < 4 * q->n_cells + QUEUE_SPARE_TRIES && r < 0; i++) {
                uint32_t cell = queue_cell_of(q, at);
                uint64_t word = queue_word(q, cell);
                int64_t ahead = queue_difference(cell_position(word), at);
                if (ahead < 0)
                        break;
                if (ahead == 0 && cell_state(word) == CELL_QUEUED) {
                        if (is_blocked && queue_find_earlier(q, head, at, &at))
                                continue;
                        if (!queue_lease_word(q, cell, word))
                                continue;
                        KILL_POINT("queue-leased");
                        *ret_cell = cell;
                        r = 0;
                }
                if (ahead == 0 && cell_state(word) == CELL_WRITING) {
                        is_blocked = true;
                        KILL_POINT("queue-passed");
                }
                at = ahead == 0 ? queue_next(at) : (cell_position(word) - q->n_cells + 1) & CELL_POSITION_MASK;
                if (!is_blocked)
                        head = at;
        }
        queue_move(&q->shared->head, from, head);
        KILL_POINT("queue-head");
        return r < 0 && is_closed && !is_blocked ? -ESHUTDOWN : r;
}

/* ---- LIFO and priority ---- */

/* A try waits a moment for the lock, because whoever has it goes on at once. A call that waits never says -EAGAIN
 * before it has looked: it would sleep beside an item that was put meanwhile, if the owner of the lock is stopped. */
static int queue_lock(struct drover_queue *q, uint64_t deadline_ns) {
        uint64_t moment = drover_deadline_in(UINT64_C(1000000) * QUEUE_TRY_LOCK_MS);
        int r = lock_acquire(&q->shared->lock, &q->object, &q->spin_lock, deadline_ns > moment ? deadline_ns : moment);
        if (r == -EOWNERDEAD)
                r = lock_consistent(&q->shared->lock, arena_self(q->object.arena));
        return r < 0 && r != -EIDRM && deadline_ns == 0 ? -EAGAIN : r;
}

static void queue_unlock(struct drover_queue *q) { lock_release(&q->shared->lock, arena_self(q->object.arena)); }

static int queue_claim_any(struct drover_queue *q, uint64_t deadline_ns, uint32_t *ret_cell) {
        int r = queue_lock(q, deadline_ns);
        if (r < 0)
                return r;
        uint32_t vacant = q->n_cells, n_queued = 0;
        for (uint32_t i = 0; i < q->n_cells; i++) {
                unsigned state = cell_state(queue_word(q, i));
                if (state == CELL_FREE && vacant == q->n_cells)
                        vacant = i;
                n_queued += state == CELL_WRITING || state == CELL_QUEUED || state == CELL_RETURNED;
        }
        r = -EAGAIN;
        if (vacant < q->n_cells && n_queued < q->capacity) {
                uint64_t tail = atomic_load_explicit(&q->shared->tail, memory_order_relaxed) & CELL_POSITION_MASK;
                atomic_store_explicit(&q->shared->tail, queue_next(tail), memory_order_relaxed);
                if (queue_cas(q, vacant, queue_word(q, vacant), CELL_WORD(CELL_WRITING, q->participant, tail)))
                        r = 0;
                KILL_POINT("queue-claimed");
        }
        queue_unlock(q);
        if (r == 0)
                *ret_cell = vacant;
        return r;
}

/* Does the item in `word` go before the best so far? */
static bool queue_goes_first(const struct drover_queue *q, uint32_t cell, uint64_t word, uint32_t best,
                             uint64_t best_word) {
        int64_t age = queue_difference(cell_position(word), cell_position(best_word));
        if (q->order == DROVER_QUEUE_LIFO)
                return age > 0;
        uint32_t priority = (uint32_t)(atomic_load_explicit(&q->meta[cell], memory_order_relaxed) >> 32),
                 best_priority = (uint32_t)(atomic_load_explicit(&q->meta[best], memory_order_relaxed) >> 32);
        return priority != best_priority ? priority < best_priority : age < 0;
}

static int queue_lease_best(struct drover_queue *q, uint64_t deadline_ns, uint32_t *ret_cell) {
        bool is_closed = queue_end(q) < 0, is_blocked = false;
        int r = queue_lock(q, deadline_ns);
        if (r < 0)
                return r;
        uint32_t best = q->n_cells;
        uint64_t best_word = 0;
        for (uint32_t i = 0; i < q->n_cells; i++) {
                uint64_t word = queue_word(q, i);
                is_blocked |= cell_state(word) == CELL_WRITING;
                if (cell_state(word) != CELL_QUEUED && cell_state(word) != CELL_RETURNED)
                        continue;
                if (best < q->n_cells && !queue_goes_first(q, i, word, best, best_word))
                        continue;
                best = i;
                best_word = word;
        }
        r = is_closed && !is_blocked ? -ESHUTDOWN : -EAGAIN;
        if (best < q->n_cells)
                r = queue_lease_word(q, best, best_word) ? 0 : -EAGAIN;
        KILL_POINT("queue-leased");
        queue_unlock(q);
        if (r == 0)
                *ret_cell = best;
        return r;
}

/* ---- */

static bool queue_is_fifo(const struct drover_queue *q) {
        return q->order == DROVER_QUEUE_FIFO || q->order == DROVER_QUEUE_SIMPLE;
}

int queue_claim(struct drover_queue *q, uint64_t deadline_ns, uint32_t *ret_cell) {
        return queue_is_fifo(q) ? queue_claim_next(q, ret_cell) : queue_claim_any(q, deadline_ns, ret_cell);
}

bool queue_has_more_room(struct drover_queue *q) {
        return queue_is_fifo(q) &&
               queue_has_room(q, atomic_load_explicit(&q->shared->tail, memory_order_acquire) & CELL_POSITION_MASK);
}

int queue_lease(struct drover_queue *q, uint64_t deadline_ns, uint32_t *ret_cell) {
        return queue_is_fifo(q) ? queue_lease_next(q, ret_cell) : queue_lease_best(q, deadline_ns, ret_cell);
}

bool queue_end_lease(struct drover_queue *q, uint32_t cell, enum cell_state state) {
        for (uint32_t i = 0; i < QUEUE_SPARE_TRIES; i++) { /* a failure: a producer has passed over it */
                uint64_t word = queue_word(q, cell);
                if (cell_state(word) != CELL_LEASED || cell_participant(word) != q->participant)
                        return false;
                if (queue_cas(q, cell, word, CELL_WORD(state, 0, cell_position(word))))
                        return true;
        }
        return false;
}

void queue_mark_returned(struct layout_queue *shared) {
        /* Never back to an older value: who scanned in vain before this return must fail to take the mark away. */
        atomic_fetch_add_explicit(&shared->returned, 2, memory_order_seq_cst);
        atomic_fetch_or_explicit(&shared->returned, 1, memory_order_seq_cst);
}
