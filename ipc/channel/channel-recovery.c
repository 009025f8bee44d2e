/* The broker's side of a channel: verdicts of its own and what it does for the dead.
 *
 * Every step is one CAS that names exactly what it expects, so each may be repeated, also by a restarted broker, and
 * none can hit a job that went on meanwhile: the worker that finishes first wins, and then the step does nothing. The
 * words belong to a client that may rewrite them at will, so no loop waits for them to settle.
 *
 * Nothing here wakes anybody, decides whether a job gets another attempt, or believes an attempt number. */
#include <errno.h>

#include "ipc/channel/channel.h"

enum { CHANNEL_MAX_TRIES = 64 };

static bool channel_is_run_by(uint64_t word, uint32_t worker) {
        return slot_state(word) == SLOT_RUNNING && slot_owner(word) == worker + SLOT_OWNER_WORKER0;
}

static uint32_t channel_priority(const struct channel *c, uint32_t slot) {
        return __atomic_load_n(&channel_job(c, slot)->priority, __ATOMIC_RELAXED);
}

int channel_requeue(struct channel *c, uint32_t slot, uint32_t worker, bool is_charged) {
        for (unsigned i = 0; i < CHANNEL_MAX_TRIES; i++) {
                uint64_t word = channel_word(c, slot);
                if (!channel_is_run_by(word, worker))
                        return 0;
                unsigned attempt = slot_attempt(word);
                if (is_charged && attempt < LAYOUT_MAX_ATTEMPTS)
                        attempt++;
                uint64_t queued = SLOT_WORD(SLOT_QUEUED, slot_flags(word) & ~SLOT_QUARANTINE, attempt, SLOT_OWNER_NONE,
                                            slot_generation(word));
                if (!channel_cas(c, slot, word, queued))
                        continue;
                int r = channel_push(c, slot, slot_generation(word), channel_priority(c, slot));
                return r < 0 ? r : 1;
        }
        return 0;
}

int channel_delay(const struct channel *c, uint32_t slot, uint32_t worker) {
        for (unsigned i = 0; i < CHANNEL_MAX_TRIES; i++) {
                uint64_t word = channel_word(c, slot);
                if (!channel_is_run_by(word, worker))
                        return 0;
                unsigned attempt =
                        slot_attempt(word) < LAYOUT_MAX_ATTEMPTS ? slot_attempt(word) + 1 : slot_attempt(word);
                if (channel_cas(c, slot, word,
                                SLOT_WORD(SLOT_DELAYED, slot_flags(word) & ~SLOT_QUARANTINE, attempt, SLOT_OWNER_NONE,
                                          slot_generation(word))))
                        return 1;
        }
        return 0;
}

int channel_undelay(struct channel *c, uint32_t slot, uint32_t generation) {
        uint64_t word = channel_word(c, slot);
        if (slot_state(word) != SLOT_DELAYED || slot_generation(word) != generation ||
            !channel_cas(c, slot, word,
                         SLOT_WORD(SLOT_QUEUED, slot_flags(word), slot_attempt(word), SLOT_OWNER_NONE, generation)))
                return 0;
        int r = channel_push(c, slot, generation, channel_priority(c, slot));
        return r < 0 ? r : 1;
}

bool channel_give_up(const struct channel *c, uint32_t slot, uint64_t delayed_word) {
        unsigned attempt = slot_attempt(delayed_word);
        if (slot_state(delayed_word) != SLOT_DELAYED)
                return false;
        return channel_cas(c, slot, delayed_word,
                           SLOT_WORD(SLOT_FAILED, slot_flags(delayed_word), attempt > 1 ? attempt - 1 : attempt,
                                     SLOT_OWNER_NONE, slot_generation(delayed_word)));
}

/* Before the CAS, whose release publishes it. If the CAS fails for good, the line must not stand: somebody else could
 * give that verdict then, and be believed. */
static void channel_write_verdict(const struct channel *c, uint32_t slot, uint32_t generation, enum slot_state verdict,
                                  const struct layout_verdict *line) {
        struct layout_verdict *to = channel_verdict(c, slot);
        *to = *line;
        to->generation = generation;
        to->state = verdict;
}

static void channel_forget_verdict(const struct channel *c, uint32_t slot) {
        channel_verdict(c, slot)->state = SLOT_FREE;
}

bool channel_judge(const struct channel *c, uint32_t slot, uint32_t worker, uint32_t generation,
                   enum slot_state verdict, unsigned flags, const struct layout_verdict *line) {
        bool has_line = false;
        for (unsigned i = 0; i < CHANNEL_MAX_TRIES; i++) {
                uint64_t word = channel_word(c, slot);
                if (!channel_is_run_by(word, worker) || slot_generation(word) != generation)
                        break;
                if (!has_line)
                        channel_write_verdict(c, slot, generation, verdict, line);
                has_line = true;
                if (channel_cas(c, slot, word,
                                SLOT_WORD(verdict, slot_flags(word) | flags, slot_attempt(word), slot_owner(word),
                                          generation)))
                        return true;
        }
        if (has_line)
                channel_forget_verdict(c, slot);
        return false;
}

bool channel_judge_queued(const struct channel *c, uint32_t slot, uint32_t generation, enum slot_state verdict) {
        uint64_t word = channel_word(c, slot);
        if ((slot_state(word) != SLOT_QUEUED && slot_state(word) != SLOT_DELAYED) ||
            slot_generation(word) != generation)
                return false;
        if (verdict == SLOT_EXPIRED && slot_attempt(word) > 1) /* it was taken in time, and came back */
                return false;
        return channel_cas(c, slot, word,
                           SLOT_WORD(verdict, slot_flags(word), slot_attempt(word), SLOT_OWNER_NONE, generation));
}

void channel_end_quarantine(const struct channel *c, uint32_t slot) {
        for (unsigned i = 0; i < CHANNEL_MAX_TRIES; i++) {
                uint64_t word = channel_word(c, slot);
                if (!slot_is_verdict(word) || !(slot_flags(word) & SLOT_QUARANTINE))
                        return;
                if (channel_cas(c, slot, word, word & ~((uint64_t)SLOT_QUARANTINE << 4)))
                        return;
        }
}

bool channel_ask_cancel(const struct channel *c, uint32_t slot, uint32_t generation) {
        for (unsigned i = 0; i < CHANNEL_MAX_TRIES; i++) {
                uint64_t word = channel_word(c, slot);
                if (slot_state(word) != SLOT_RUNNING || slot_generation(word) != generation)
                        return false;
                if (slot_flags(word) & SLOT_CANCEL || channel_cas(c, slot, word, word | (uint64_t)SLOT_CANCEL << 4))
                        return true;
        }
        return false;
}

int channel_push_again(struct channel *c, uint32_t slot) {
        uint64_t word = channel_word(c, slot);
        if (slot_state(word) != SLOT_QUEUED)
                return 0;
        return channel_push(c, slot, slot_generation(word), channel_priority(c, slot));
}

/* Sets the bit of each slot that is QUEUED and named by a hint in a ring. */
static void channel_find_pushed(const struct channel *c, uint64_t *bits) {
        for (unsigned i = 0; i < LAYOUT_PRIORITIES; i++) {
                struct ring_hint hint = {.position =
                                                 atomic_load_explicit(&c->ring[i].shared->head, memory_order_acquire)};
                /* Up to the first cell that is not written, which is the tail, or the one after it. */
                for (uint32_t n = 0; n < c->geometry.n_cells && ring_look(&c->ring[i], hint.position, &hint); n++) {
                        uint64_t word = hint.slot < c->geometry.n_slots ? channel_word(c, hint.slot) : 0;
                        if (slot_state(word) == SLOT_QUEUED && (uint16_t)slot_generation(word) == hint.generation)
                                bits[hint.slot / 64] |= UINT64_C(1) << hint.slot % 64;
                        hint.position++;
                }
        }
}

/* How many; -EAGAIN, -EPROTO: some find no room. */
static int channel_push_missing(struct channel *c) {
        uint64_t pushed[LAYOUT_MAX_SLOTS / 64] = {0};
        int n = 0, r = 0;
        channel_find_pushed(c, pushed);
        for (uint32_t slot = 0; slot < c->geometry.n_slots && r >= 0; slot++) {
                if (pushed[slot / 64] >> slot % 64 & 1 || slot_state(channel_word(c, slot)) != SLOT_QUEUED)
                        continue;
                r = channel_push_again(c, slot);
                n += r >= 0;
        }
        return r < 0 ? r : n;
}

uint32_t channel_mend_rings(struct channel *c, uint64_t chance) {
        for (unsigned i = 0; i < LAYOUT_PRIORITIES; i++)
                if (!ring_is_sane(&c->ring[i], c->geometry.n_slots))
                        ring_reset(&c->ring[i], chance + i);
        int n = channel_push_missing(c);
        if (n >= 0)
                return (uint32_t)n;
        /* They fit together, and are full of doubled hints that no honest party pushed. Empty they have room for all.
         */
        for (unsigned i = 0; i < LAYOUT_PRIORITIES; i++)
                ring_reset(&c->ring[i], chance + LAYOUT_PRIORITIES + i);
        n = channel_push_missing(c);
        return n < 0 ? 0 : (uint32_t)n; /* somebody who lives goes on writing */
}

void channel_tell_all(const struct channel *c, int done_fd) {
        for (uint32_t slot = 0; slot < c->geometry.n_slots; slot += 64) {
                uint32_t left = c->geometry.n_slots - slot;
                uint64_t bits = left < 64 ? (UINT64_C(1) << left) - 1 : UINT64_MAX;
                atomic_fetch_or_explicit(&c->done[slot / 64], bits, memory_order_seq_cst);
        }
        channel_broadcast(c, done_fd);
}
