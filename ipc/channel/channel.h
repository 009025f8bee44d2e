/* One channel seen by one process: its memories mapped with that process's rights, sizes kept privately,
 * and the slot transitions every party uses. Each transition is one CAS (PROTOCOL.md names owner and order). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "ipc/channel/ring.h"
#include "ipc/layout.h"

/* A memory for each set of rights. */
enum channel_part {
        CHANNEL_COMMON,   /* head, rings, slots, done bitmap */
        CHANNEL_JOBS,     /* job areas */
        CHANNEL_RESULTS,  /* result areas */
        CHANNEL_VERDICTS, /* verdict lines */
        CHANNEL_PARTS,
};

struct channel_geometry {
        uint32_t n_slots, slot_bytes, n_cells;
        size_t cells, slots, done;        /* offsets in CHANNEL_COMMON, page-aligned */
        size_t job_stride, result_stride; /* header line + slot_bytes */
        size_t bytes[CHANNEL_PARTS];      /* whole pages */
        size_t total;                     /* of all of them */
};

/* -EINVAL unless n_slots is a power of two in [LAYOUT_MIN_SLOTS, LAYOUT_MAX_SLOTS] and slot_bytes a multiple of 64 in
 * range. */
int channel_geometry_init(struct channel_geometry *g, uint32_t n_slots, uint32_t slot_bytes);

enum channel_role { CHANNEL_CLIENT, CHANNEL_WORKER, CHANNEL_BROKER };

struct channel {
        struct channel_geometry geometry;
        enum channel_role role;
        struct layout_channel *head; /* RW */
        struct ring ring[LAYOUT_PRIORITIES];
        struct layout_slot *slots;
        _Atomic uint64_t *done;
        uint8_t *jobs;     /* RO for workers */
        uint8_t *results;  /* RO for clients */
        uint8_t *verdicts; /* RW for the broker, RO for clients, not mapped (NULL) by workers */
        void *maps[CHANNEL_PARTS];
};

/* Makes the memories and maps them as the broker. Their names are channel_part_name and `suffix`. The descriptors are
 * open for reading and writing: for nobody else (channel_open). */
int channel_create(struct channel *c, const struct channel_geometry *g, const char *suffix, int ret_fds[CHANNEL_PARTS]);
/* Checks size and seals, maps for `role` what it may see; the others may be -1. The descriptors stay the caller's. */
int channel_map(struct channel *c, const struct channel_geometry *g, const int fds[CHANNEL_PARTS],
                enum channel_role role);
void channel_unmap(struct channel *c);

/* Opens them once more, with the rights of `role` and no others; -1 = none. Errors as segment_open. */
int channel_open(const int fds[CHANNEL_PARTS], enum channel_role role, int ret_fds[CHANNEL_PARTS]);
/* Those that are not -1, and makes them -1. */
void channel_close(int fds[CHANNEL_PARTS]);
const char *channel_part_name(enum channel_part part);

/* ---- slot word ---- */

static inline unsigned slot_state(uint64_t word) { return word & 0xf; }
static inline unsigned slot_flags(uint64_t word) { return word >> 4 & 0x3f; }
static inline unsigned slot_attempt(uint64_t word) { return word >> 10 & 0x3f; }
static inline unsigned slot_owner(uint64_t word) { return word >> 16 & 0xffff; }
static inline uint32_t slot_generation(uint64_t word) { return (uint32_t)(word >> 32); }
/* How many attempts a verdict stands for. One that was given in the queue has the number of the attempt to come. */
static inline unsigned slot_attempts_made(uint64_t word) {
        unsigned state = slot_state(word), attempt = slot_attempt(word);
        bool was_queued = state == SLOT_EXPIRED ||
                          ((state == SLOT_CANCELLED || state == SLOT_LOST) && slot_owner(word) == SLOT_OWNER_NONE);
        return was_queued && attempt > 0 ? attempt - 1 : attempt;
}
static inline bool slot_is_verdict(uint64_t word) {
        return slot_state(word) >= SLOT_DONE && slot_state(word) < SLOT_N_STATES;
}

uint64_t channel_word(const struct channel *c, uint32_t slot); /* acquire load */
/* One CAS, acq_rel. true if `expected` stood there. */
bool channel_cas(const struct channel *c, uint32_t slot, uint64_t expected, uint64_t desired);

/* A hint for a QUEUED slot, in the ring of its priority (the default's if out of range). 0, -EAGAIN, -EPROTO as
 * ring_push. */
int channel_push(struct channel *c, uint32_t slot, uint32_t generation, uint32_t priority);

static inline struct layout_job *channel_job(const struct channel *c, uint32_t slot) {
        return (struct layout_job *)(c->jobs + (size_t)slot * c->geometry.job_stride);
}
static inline void *channel_payload(const struct channel *c, uint32_t slot) { return channel_job(c, slot) + 1; }
static inline struct layout_result *channel_result(const struct channel *c, uint32_t slot) {
        return (struct layout_result *)(c->results + (size_t)slot * c->geometry.result_stride);
}
static inline void *channel_result_data(const struct channel *c, uint32_t slot) { return channel_result(c, slot) + 1; }
static inline struct layout_verdict *channel_verdict(const struct channel *c, uint32_t slot) {
        return (struct layout_verdict *)(c->verdicts + (size_t)slot * sizeof(struct layout_verdict));
}

/* Nobody but the broker gives these, and it says so where no worker can write (channel_copy_verdict). */
static inline bool slot_state_is_brokers(unsigned state) { return state == SLOT_POISONED || state == SLOT_LOST; }

/* One look at what a peer may rewrite any time: from here on only the copy counts, and the compiler may not look twice.
 */
static inline void channel_copy(void *to, const void *shared, size_t bytes) {
        memcpy(to, shared, bytes);
        __asm__ volatile("" ::: "memory");
}

/* The broker's line. false: it is not about this very verdict, but an earlier one's, or nobody's. */
static inline bool channel_copy_verdict(const struct channel *c, uint32_t slot, uint64_t word,
                                        struct layout_verdict *ret) {
        channel_copy(ret, channel_verdict(c, slot), sizeof *ret);
        return ret->state == slot_state(word) && ret->generation == slot_generation(word);
}

/* ---- client (and the broker for its own channel): FREE → FILLING → QUEUED, verdict → FREE ---- */

/* FILLING → DELAYED: the broker makes it QUEUED at not_before_ns; ring its doorbell (not the bell) afterwards. -EPROTO.
 */
int channel_commit_delayed(const struct channel *c, uint32_t slot);
/* FREE → FILLING with the next generation. -EBUSY if not FREE (or still in quarantine). */
int channel_begin(const struct channel *c, uint32_t slot);
/* FILLING: descriptors for this job were sent to the broker. -EPROTO. */
int channel_mark_fds(const struct channel *c, uint32_t slot);
/* FILLING → QUEUED (attempt 1) and the push. The job line and payload are complete. -EAGAIN ring full (slot back to
 * FREE), -EPROTO. */
int channel_commit(struct channel *c, uint32_t slot, uint32_t priority);
/* The same, but it stays QUEUED and accepted if no ring takes its hint: -EAGAIN, -EPROTO, and the hint is owed
 * (channel_mend_rings). -EBUSY: the slot was not FILLING, nothing was done. */
int channel_accept(struct channel *c, uint32_t slot, uint32_t priority);
/* verdict → FREE. -EBUSY while QUARANTINE is set, -EINVAL if there is no verdict. */
int channel_free(const struct channel *c, uint32_t slot);
/* QUEUED → CANCELLED (and the done bit, so that it is found like any verdict); or sets CANCEL on RUNNING. Returns the
 * state it met: SLOT_QUEUED = cancelled now, SLOT_RUNNING = asked, a verdict state = too late; -EINVAL otherwise. */
int channel_cancel(const struct channel *c, uint32_t slot);

/* Takes the done bits of one 64-slot word (exchange with 0). A bit may be set for nothing: look at the slot word. */
uint64_t channel_take_done(const struct channel *c, uint32_t word_index);

/* Says how the client wants to be woken by the next verdict, once: the waker sets it back. Returns done_seq, the word
 * to wait on (DONE_FUTEX), read before. Take the done bits once more before sleeping. channel_wait_end: no longer
 * interested. */
uint32_t channel_wait_begin(const struct channel *c, enum done_wait how);
void channel_wait_end(const struct channel *c);

/* ---- worker: QUEUED → RUNNING(me) → DONE | FAILED | CANCELLED | TIMED_OUT ---- */

enum { CHANNEL_EMPTY = 0, CHANNEL_CLAIMED = 1 };

/* Tries the rings from the most urgent down (from the lowest up if `lowest_first`). Writes *record before each claim.
 * An overdue job is EXPIRED on the way. CHANNEL_CLAIMED with *ret_slot and *ret_word (as it stands now), CHANNEL_EMPTY,
 * or -EPROTO if the channel makes no sense. Bounded work. `done_fd`: see channel_announce. */
int channel_claim(const struct channel *c, uint32_t channel_index, uint32_t worker, bool lowest_first, uint64_t now_ns,
                  _Atomic uint64_t *record, int done_fd, uint32_t *ret_slot, uint64_t *ret_word);
bool channel_has_work(const struct channel *c);

/* RUNNING(worker, generation) → verdict; then the done bit and the client's wake-up (channel_announce).
 * -ESTALE if the job was judged already: the worker must exit and claim nothing more. */
int channel_finish(const struct channel *c, uint32_t slot, uint64_t claimed_word, enum slot_state verdict, int done_fd);

/* RUNNING(worker, generation) → DELAYED, attempt + 1: one more try, not before the result line's retry_at_ns; ring the
 * broker's doorbell afterwards. -ECANCELED: it was asked to end, give that verdict instead. -ERANGE: no more attempts
 * fit. -ESTALE as channel_finish. */
int channel_postpone(const struct channel *c, uint32_t slot, uint64_t claimed_word);

/* Done bit, fence, and wake the client if it waits: by futex, or by `done_fd` (the ringers' end of the channel's done
 * doorbell; -1 = none). */
void channel_announce(const struct channel *c, uint32_t slot, int done_fd);

/* Death rule: done_seq up, every sleeper woken, the done doorbell rung, whatever done_wait says. After the death of
 * a worker, for every channel it had: it may have died between taking done_wait and waking. */
void channel_broadcast(const struct channel *c, int done_fd);

/* ---- broker: recovery and supervision, each one CAS, each repeatable. None of these wakes anybody: after a verdict
 * the caller calls channel_announce, after a push bell_ring (and after a death the broadcasts). ---- */

/* RUNNING(worker) → QUEUED, with attempt + 1 if the end is charged to the job, and pushed. 1 if it was that worker's
 * and is queued now, 0 if not; -EAGAIN, -EPROTO: it is queued, but no ring takes its hint: the caller judges it. */
int channel_requeue(struct channel *c, uint32_t slot, uint32_t worker, bool is_charged);
/* RUNNING(worker) → DELAYED with attempt + 1. 1 if it was that worker's, else 0. */
int channel_delay(const struct channel *c, uint32_t slot, uint32_t worker);
/* DELAYED(generation) → QUEUED and pushed. 1, 0 (it is not delayed any more), -EAGAIN or -EPROTO as channel_requeue. */
int channel_undelay(struct channel *c, uint32_t slot, uint32_t generation);
/* DELAYED → FAILED with the attempt that was the last, for a job that asked for one more than it may have. */
bool channel_give_up(const struct channel *c, uint32_t slot, uint64_t delayed_word);
/* RUNNING(worker) with exactly this generation → verdict (flags added), the verdict line written before (with the two
 * as its `state` and `generation`). false: it was judged already. */
bool channel_judge(const struct channel *c, uint32_t slot, uint32_t worker, uint32_t generation,
                   enum slot_state verdict, unsigned flags, const struct layout_verdict *line);
/* QUEUED or DELAYED → verdict (CANCELLED at stop, EXPIRED, …), without a line. */
bool channel_judge_queued(const struct channel *c, uint32_t slot, uint32_t generation, enum slot_state verdict);
void channel_end_quarantine(const struct channel *c, uint32_t slot);
/* Sets CANCEL on RUNNING(generation). */
bool channel_ask_cancel(const struct channel *c, uint32_t slot, uint32_t generation);
/* QUEUED but perhaps not in a ring: push again (a doubled hint is harmless). */
int channel_push_again(struct channel *c, uint32_t slot);

/* ---- broker: after a worker's death, which may have written anything here ---- */

/* The head's words that never change. */
void channel_sign(const struct channel *c);
/* Rings that make no sense begin anew, then every QUEUED slot that no ring names is pushed; those that one does keep
 * their places. How many were pushed. `chance`: see ring_reset. Bounded; others may push and claim meanwhile. */
uint32_t channel_mend_rings(struct channel *c, uint64_t chance);
/* Every done bit, also for nothing, then channel_broadcast: the client looks at each of its jobs. */
void channel_tell_all(const struct channel *c, int done_fd);
