/* One channel in one process: what client and worker do with a slot word. Where its memories lie and who may write them
 * is channel-memory.c's; the broker's transitions stand in channel-recovery.c.
 *
 * Invariants: a slot changes state by one CAS whose owner PROTOCOL.md names. An address is computed from the private
 * geometry and a checked index, never from shared memory. A word is loaded once; a loop over words that a peer can
 * rewrite has a bound.
 *
 * Wake-ups of the client are two pairs of seq_cst accesses, as in bell.c:
 *
 *   D1 channel_announce   done bit set  | done_wait read  ~ D2
 *   D2 channel_wait_begin done_wait set | the done bits read */
#include <errno.h>
#include <string.h>

#include "ipc/channel/channel.h"
#include "ipc/memory/doorbell.h"
#include "ipc/memory/event.h"
#include "ipc/memory/kill-point.h"

enum {
        CHANNEL_MAX_TRIES = 64, /* of a CAS that only a change of flags makes fail */
        CHANNEL_SPARE_HINTS = 1024,
};

/* ---- slot word ---- */

uint64_t channel_word(const struct channel *c, uint32_t slot) {
        return atomic_load_explicit(&c->slots[slot].word, memory_order_acquire);
}

bool channel_cas(const struct channel *c, uint32_t slot, uint64_t expected, uint64_t desired) {
        return atomic_compare_exchange_strong_explicit(&c->slots[slot].word, &expected, desired, memory_order_acq_rel,
                                                       memory_order_acquire);
}

static bool channel_is_live(const void *user, uint32_t slot, uint16_t generation) {
        const struct channel *c = user;
        if (slot >= c->geometry.n_slots)
                return false;
        uint64_t word = channel_word(c, slot);
        return slot_state(word) == SLOT_QUEUED && (uint16_t)slot_generation(word) == generation;
}

int channel_push(struct channel *c, uint32_t slot, uint32_t generation, uint32_t priority) {
        uint32_t first = priority < LAYOUT_PRIORITIES ? priority : LAYOUT_PRIORITY_DEFAULT;
        int r = ring_push(&c->ring[first], slot, generation, channel_is_live, c);
        /* Full of doubled hints: any other ring will do, a claimer goes by the slot word. */
        for (uint32_t i = 0; r == -EAGAIN && i < LAYOUT_PRIORITIES; i++)
                if (i != first)
                        r = ring_push(&c->ring[i], slot, generation, channel_is_live, c);
        return r;
}

/* ---- client ---- */

int channel_begin(const struct channel *c, uint32_t slot) {
        uint64_t word = channel_word(c, slot);
        if (slot_state(word) != SLOT_FREE)
                return -EBUSY;
        unsigned owner = c->role == CHANNEL_BROKER ? SLOT_OWNER_BROKER : SLOT_OWNER_CLIENT;
        uint64_t next = SLOT_WORD(SLOT_FILLING, 0, 0, owner, slot_generation(word) + 1);
        int r = channel_cas(c, slot, word, next) ? 0 : -EBUSY;
        KILL_POINT("slot-filling");
        return r;
}

int channel_mark_fds(const struct channel *c, uint32_t slot) {
        uint64_t word = channel_word(c, slot);
        if (slot_state(word) != SLOT_FILLING || !channel_cas(c, slot, word, word | (uint64_t)SLOT_HAS_FDS << 4))
                return -EPROTO;
        return 0;
}

static void channel_count_submitted(const struct channel *c) {
        /* One writer: no need to pay for a locked add. */
        uint64_t n = atomic_load_explicit(&c->head->submitted, memory_order_relaxed);
        atomic_store_explicit(&c->head->submitted, n + 1, memory_order_relaxed);
}

/* FILLING → QUEUED. -EBUSY; else *ret_queued, the word as it stands now, and what the push says. */
static int channel_queue(struct channel *c, uint32_t slot, uint32_t priority, uint64_t *ret_queued) {
        uint64_t word = channel_word(c, slot);
        uint64_t queued =
                SLOT_WORD(SLOT_QUEUED, slot_flags(word) & SLOT_HAS_FDS, 1, SLOT_OWNER_NONE, slot_generation(word));
        /* release: partner is the claimer's CAS; job line and payload stand before QUEUED. */
        if (slot_state(word) != SLOT_FILLING || !channel_cas(c, slot, word, queued))
                return -EBUSY;
        KILL_POINT("slot-queued");
        *ret_queued = queued;
        return channel_push(c, slot, slot_generation(queued), priority);
}

int channel_commit(struct channel *c, uint32_t slot, uint32_t priority) {
        uint64_t queued;
        int r = channel_queue(c, slot, priority, &queued);
        if (r == -EBUSY)
                return -EPROTO;
        /* No hint, so normally nobody saw it. If somebody did all the same, it is accepted. */
        if (r < 0 && channel_cas(c, slot, queued, SLOT_WORD(SLOT_FREE, 0, 0, SLOT_OWNER_NONE, slot_generation(queued))))
                return r;
        channel_count_submitted(c);
        return 0;
}

int channel_accept(struct channel *c, uint32_t slot, uint32_t priority) {
        uint64_t queued;
        int r = channel_queue(c, slot, priority, &queued);
        if (r != -EBUSY)
                channel_count_submitted(c);
        return r;
}

int channel_commit_delayed(const struct channel *c, uint32_t slot) {
        uint64_t word = channel_word(c, slot);
        if (slot_state(word) != SLOT_FILLING)
                return -EPROTO;
        unsigned flags = slot_flags(word) & SLOT_HAS_FDS;
        uint64_t delayed = SLOT_WORD(SLOT_DELAYED, flags, 1, SLOT_OWNER_NONE, slot_generation(word));
        if (!channel_cas(c, slot, word, delayed))
                return -EPROTO;
        KILL_POINT("slot-delayed");
        atomic_fetch_add_explicit(&c->head->submitted, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&c->head->delayed, 1, memory_order_release);
        return 0;
}

int channel_free(const struct channel *c, uint32_t slot) {
        uint64_t word = channel_word(c, slot);
        if (!slot_is_verdict(word))
                return -EINVAL;
        if (slot_flags(word) & SLOT_QUARANTINE)
                return -EBUSY;
        uint64_t free_word = SLOT_WORD(SLOT_FREE, 0, 0, SLOT_OWNER_NONE, slot_generation(word));
        return channel_cas(c, slot, word, free_word) ? 0 : -EBUSY;
}

static void channel_set_done(const struct channel *c, uint32_t slot) {
        atomic_fetch_or_explicit(&c->done[slot / 64], UINT64_C(1) << (slot & 63), memory_order_seq_cst);
}

int channel_cancel(const struct channel *c, uint32_t slot) {
        for (unsigned i = 0; i < CHANNEL_MAX_TRIES; i++) {
                uint64_t word = channel_word(c, slot);
                switch (slot_state(word)) {
                case SLOT_QUEUED:
                case SLOT_DELAYED:
                        if (!channel_cas(c, slot, word,
                                         SLOT_WORD(SLOT_CANCELLED, slot_flags(word), slot_attempt(word),
                                                   SLOT_OWNER_NONE, slot_generation(word))))
                                break;
                        atomic_fetch_add_explicit(&c->head->cancelled, 1, memory_order_relaxed);
                        channel_set_done(c, slot);
                        return SLOT_QUEUED;
                case SLOT_RUNNING:
                        if (slot_flags(word) & SLOT_CANCEL || channel_cas(c, slot, word, word | SLOT_CANCEL << 4))
                                return SLOT_RUNNING;
                        break;
                default:
                        return slot_is_verdict(word) ? (int)slot_state(word) : -EINVAL;
                }
        }
        return -EINVAL;
}

uint64_t channel_take_done(const struct channel *c, uint32_t word_index) {
        _Atomic uint64_t *word = &c->done[word_index];
        /* The load spares the workers' cache line an exchange for nothing; it is also D2's second look. */
        if (atomic_load_explicit(word, memory_order_seq_cst) == 0)
                return 0;
        uint64_t bits = atomic_exchange_explicit(word, 0, memory_order_seq_cst);
        KILL_POINT("done-taken");
        return c->geometry.n_slots < 64 ? bits & ((UINT64_C(1) << c->geometry.n_slots) - 1) : bits;
}

uint32_t channel_wait_begin(const struct channel *c, enum done_wait how) {
        /* The seq first. An announcer of an earlier verdict may take done_wait at once; its bump must then make the
         * coming sleep return, because nobody will know of it any more. */
        uint32_t seen = atomic_load_explicit(&c->head->done_seq, memory_order_acquire);
        KILL_POINT("wait-seen");
        atomic_store_explicit(&c->head->done_wait, how, memory_order_seq_cst); /* D2 ~ D1 */
        KILL_POINT("wait-set");
        return seen;
}

void channel_wait_end(const struct channel *c) {
        /* No order needed: who still sees the old value wakes for nothing. */
        if (atomic_load_explicit(&c->head->done_wait, memory_order_relaxed) != DONE_NOBODY)
                atomic_store_explicit(&c->head->done_wait, DONE_NOBODY, memory_order_relaxed);
}

/* ---- worker ---- */

struct channel_claimer {
        uint32_t channel_index, worker;
        uint64_t now_ns;
        _Atomic uint64_t *record;
        int done_fd;
};

/* A line that another CPU wrote last takes 0.1 to 0.2 µs to come, a job is half a dozen of them, and each locked
 * instruction waits for all: so those of the next job are asked for while this one runs. */
static void channel_prefetch_next(const struct channel *c, const struct ring *ring, const struct ring_hint *hint) {
        struct ring_hint next;
        if (!ring_peek_next(ring, hint, &next) || next.slot >= c->geometry.n_slots)
                return;
        __builtin_prefetch(&c->slots[next.slot], 1);
        __builtin_prefetch(channel_job(c, next.slot));
        __builtin_prefetch(channel_payload(c, next.slot));
        __builtin_prefetch(channel_result(c, next.slot), 1);
        __builtin_prefetch(channel_result_data(c, next.slot), 1);
}

/* Tries the slot a hint names. CHANNEL_CLAIMED, CHANNEL_EMPTY (stale, overdue or somebody else's), -EPROTO. */
static int channel_claim_hint(const struct channel *c, const struct channel_claimer *w, const struct ring *ring,
                              const struct ring_hint *hint, uint64_t *ret_word) {
        uint32_t slot = hint->slot;
        if (slot >= c->geometry.n_slots) /* never written by an honest peer */
                return -EPROTO;

        uint64_t word = channel_word(c, slot);
        if (slot_state(word) != SLOT_QUEUED || (uint16_t)slot_generation(word) != hint->generation) {
                ring_advance(ring, hint);
                return CHANNEL_EMPTY;
        }

        /* Before the CAS, also for EXPIRED: the broker must find what a dead worker was about to announce. release of
         * the CAS keeps the order; a record whose CAS failed does no harm, the slot names another owner. */
        uint64_t record = (uint64_t)slot_generation(word) << 32 | (uint64_t)(w->channel_index & 0xffff) << 16 | slot;
        atomic_store_explicit(w->record, record, memory_order_relaxed);
        KILL_POINT("claim-record");

        uint64_t deadline_ns = __atomic_load_n(&channel_job(c, slot)->queue_deadline_ns, __ATOMIC_RELAXED);
        bool is_overdue = deadline_ns != 0 && w->now_ns >= deadline_ns && slot_attempt(word) <= 1;
        unsigned state = is_overdue ? SLOT_EXPIRED : SLOT_RUNNING;
        uint64_t next = SLOT_WORD(state, slot_flags(word), slot_attempt(word), w->worker + SLOT_OWNER_WORKER0,
                                  slot_generation(word));
        bool won = channel_cas(c, slot, word, next); /* the linearization point */
        KILL_POINT("claim-slot");
        if (won)
                channel_prefetch_next(c, ring, hint);
        ring_advance(ring, hint);
        KILL_POINT("claim-head");
        if (!won)
                return CHANNEL_EMPTY;
        if (is_overdue) {
                atomic_fetch_add_explicit(&c->head->expired, 1, memory_order_relaxed);
                channel_announce(c, slot, w->done_fd);
                return CHANNEL_EMPTY;
        }
        *ret_word = next;
        return CHANNEL_CLAIMED;
}

int channel_claim(const struct channel *c, uint32_t channel_index, uint32_t worker, bool lowest_first, uint64_t now_ns,
                  _Atomic uint64_t *record, int done_fd, uint32_t *ret_slot, uint64_t *ret_word) {
        const struct channel_claimer w = {
                .channel_index = channel_index,
                .worker = worker,
                .now_ns = now_ns,
                .record = record,
                .done_fd = done_fd,
        };
        for (unsigned i = 0; i < LAYOUT_PRIORITIES; i++) {
                const struct ring *ring = &c->ring[lowest_first ? i : LAYOUT_PRIORITIES - 1 - i];
                /* Each hint but the last was stale or went to somebody else; more than this is nobody's honest ring. */
                uint32_t n_left = 2 * c->geometry.n_cells + CHANNEL_SPARE_HINTS;
                struct ring_hint hint;
                while (ring_peek(ring, &hint)) {
                        if (n_left-- == 0)
                                return -EPROTO;
                        int r = channel_claim_hint(c, &w, ring, &hint, ret_word);
                        if (r == CHANNEL_CLAIMED)
                                *ret_slot = hint.slot;
                        if (r != CHANNEL_EMPTY)
                                return r;
                }
        }
        return CHANNEL_EMPTY;
}

bool channel_has_work(const struct channel *c) {
        for (unsigned i = LAYOUT_PRIORITIES; i-- > 0;)
                if (!ring_is_empty(&c->ring[i]))
                        return true;
        return false;
}

int channel_finish(const struct channel *c, uint32_t slot, uint64_t claimed_word, enum slot_state verdict,
                   int done_fd) {
        uint64_t word = claimed_word;
        for (unsigned i = 0; i < CHANNEL_MAX_TRIES; i++) {
                uint64_t next = (word & ~UINT64_C(0xf)) | verdict;
                /* release: partner is the client's load of the word; the result stands before its verdict. */
                if (atomic_compare_exchange_strong_explicit(&c->slots[slot].word, &word, next, memory_order_acq_rel,
                                                            memory_order_acquire)) {
                        KILL_POINT("finish-word");
                        channel_announce(c, slot, done_fd);
                        return 0;
                }
                /* CANCEL may have been added meanwhile; anything else is a verdict that was not ours, also in another
                 * attempt: a worker has our index that a new broker started. */
                if (slot_state(word) != SLOT_RUNNING || slot_owner(word) != slot_owner(claimed_word) ||
                    slot_generation(word) != slot_generation(claimed_word) ||
                    slot_attempt(word) != slot_attempt(claimed_word))
                        return -ESTALE;
        }
        return -ESTALE;
}

int channel_postpone(const struct channel *c, uint32_t slot, uint64_t claimed_word) {
        for (unsigned i = 0; i < CHANNEL_MAX_TRIES; i++) {
                uint64_t word = channel_word(c, slot);
                if (slot_state(word) != SLOT_RUNNING || slot_owner(word) != slot_owner(claimed_word) ||
                    slot_generation(word) != slot_generation(claimed_word))
                        return -ESTALE;
                if (slot_flags(word) & SLOT_CANCEL)
                        return -ECANCELED;
                if (slot_attempt(word) >= LAYOUT_MAX_ATTEMPTS)
                        return -ERANGE;
                /* release, as in channel_finish: the failure's text and retry_at_ns stand before it. */
                if (!channel_cas(c, slot, word,
                                 SLOT_WORD(SLOT_DELAYED, slot_flags(word), slot_attempt(word) + 1, SLOT_OWNER_NONE,
                                           slot_generation(word))))
                        continue;
                KILL_POINT("postpone-word");
                atomic_fetch_add_explicit(&c->head->delayed, 1, memory_order_release);
                return 0;
        }
        return -ESTALE;
}

void channel_announce(const struct channel *c, uint32_t slot, int done_fd) {
        channel_set_done(c, slot); /* D1 ~ D2: either the client's second look finds the bit, or we see it wait */
        KILL_POINT("announce-bit");
        if (atomic_load_explicit(&c->head->done_wait, memory_order_seq_cst) == DONE_NOBODY)
                return;
        uint32_t wait = atomic_exchange_explicit(&c->head->done_wait, DONE_NOBODY, memory_order_seq_cst);
        KILL_POINT("announce-wait");
        if (wait == DONE_FUTEX) {
                atomic_fetch_add_explicit(&c->head->done_seq, 1, memory_order_seq_cst);
                KILL_POINT("announce-seq");
                event_wake(&c->head->done_seq, 1);
        } else if (wait == DONE_DOORBELL)
                doorbell_ring(done_fd);
}

void channel_broadcast(const struct channel *c, int done_fd) {
        event_broadcast(&c->head->done_seq);
        doorbell_ring(done_fd);
}
