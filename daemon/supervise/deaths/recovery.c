/* What a dead worker held, given back or judged.
 *
 * The run record says where to look first; then the pool's other slots are looked through for the same owner, because
 * the record is the worker's to write and a lie must not strand a job. Every step is one CAS that can be repeated, and
 * the worker's index is given out again only when all are done. Afterwards every bell of the pool is put right and
 * broadcast: the dead one may have been about to wake somebody (the death rule), and may have written anything
 * (pool-heal.c).
 *
 * A channel that a client hands back holds what a dead broker left, and all its workers are dead: the same for every
 * slot, and more, because that broker may have died between any two steps.
 *
 * Charged deaths add to the job's attempt; past MaxAttempts= it is POISONED, or LOST where a second run is not allowed.
 * After a forbidden system call there is one attempt more at most.
 */
#include "daemon/supervise/deaths/recovery.h"

#include <stdlib.h>

#include "daemon/log/log.h"
#include "daemon/supervise/channels/delay.h"
#include "daemon/supervise/deaths/capsules.h"
#include "daemon/supervise/deaths/death.h"
#include "daemon/supervise/jobs/jobs.h"
#include "daemon/supervise/pools/limits.h"
#include "daemon/supervise/streams/streams.h"
#include "ipc/channel/bell.h"
#include "ipc/memory/event.h"
#include "ipc/values/words.h"

static void recovery_end_quarantine(struct worker *w) {
        struct pool_channel *c = w->quarantine_channel;
        if (!c)
                return;
        channel_end_quarantine(&c->channel, w->quarantine_slot);
        w->quarantine_channel = NULL;
        if (c->index == 0)
                jobs_slot_released(w->pool, w->quarantine_slot);
        else
                channel_announce(&c->channel, w->quarantine_slot, c->done.ring_fd);
}

/* `is_futile`: it was tried again after a forbidden system call, which it would make again. */
static enum slot_state recovery_final(const struct pool *p, const struct pool_channel *c, uint32_t slot,
                                      unsigned attempt, bool is_charged, bool is_futile) {
        bool is_once;
        struct layout_job job;
        channel_copy(&job, channel_job(&c->channel, slot), sizeof(job));
        uint32_t max = pool_max_attempts(p, &job, &is_once);
        if (c->is_dead)
                return SLOT_LOST; /* nobody is left to want it */
        if (is_once || p->config.guarantee == GUARANTEE_AT_MOST_ONCE)
                return SLOT_LOST;
        return is_charged && (attempt >= max || is_futile) ? SLOT_POISONED : SLOT_FREE; /* FREE: none, it runs again */
}

/* How many attempts the job has had. The slot word says so too, but its client can rewrite it: a job whose client winds
 * it back must not go on killing workers. */
static unsigned recovery_attempts(struct pool_channel *c, uint32_t slot, uint64_t word, bool is_charged) {
        struct pool_tries *tries = &c->tries[slot];
        if (tries->generation != slot_generation(word)) {
                free(tries->forbidden);
                *tries = (struct pool_tries){.generation = slot_generation(word)};
        }
        tries->n_deaths += is_charged;
        unsigned attempt = slot_attempt(word);
        return attempt > tries->n_deaths ? attempt : tries->n_deaths;
}

/* A job's first death by a forbidden system call, as the verdict has it: one retry is made after it, for what may have
 * been its worker's or its moment's, and whatever ends that one, the call was the reason. true: that retry was this. */
static bool recovery_note_forbidden(struct pool_tries *tries, const struct layout_verdict *line, bool is_charged) {
        if (tries->forbidden)
                return is_charged;
        if (is_charged && line->reason == REASON_SYSCALL && (tries->forbidden = malloc(sizeof *line)))
                *tries->forbidden = *line;
        return false;
}

/* A job that is given up is an operator's business: it killed its workers, or is lost. */
static void recovery_tell(const struct pool *p, const struct worker_job *j, enum slot_state final,
                          const struct layout_verdict *line) {
        char text[300];
        if (final != SLOT_POISONED && final != SLOT_LOST)
                return;
        death_describe(line, text, sizeof text);
        log_error("pool %s: job %llu is %s after %u attempt%s: %s%s", p->config.name,
                  (unsigned long long)worker_job_id(j), words_slot_state(final), line->attempts,
                  line->attempts == 1 ? "" : "s", line->reason == REASON_NONE ? "" : "its worker died: ",
                  line->reason == REASON_NONE ? DEATH_WRITTEN_OVER : text);
}

/* RUNNING by a worker that is dead (`w`, or NULL: of a broker that is dead, too) → QUEUED or a verdict. */
static void recovery_slot(struct worker *w, struct pool_channel *c, uint32_t slot, uint64_t word,
                          const struct layout_verdict *line, bool is_charged) {
        struct pool *p = c->pool;
        uint32_t worker = slot_owner(word) - SLOT_OWNER_WORKER0;
        struct layout_verdict verdict = *line;
        if (c->index == 0 && !jobs_slot_is_of(p, slot, slot_generation(word)))
                return; /* a worker invented it: what was there before is given back by pool-mend.c, its deaths counted
                         */
        descriptors_drop(c, DESCRIPTORS_OF_RESULT, slot); /* it did not come to its verdict */
        unsigned attempts = recovery_attempts(c, slot, word, is_charged);
        bool is_futile = recovery_note_forbidden(&c->tries[slot], line, is_charged);
        if (is_futile)
                verdict = *c->tries[slot].forbidden;
        verdict.attempts = slot_attempt(word);
        enum slot_state final = recovery_final(p, c, slot, attempts, is_charged, is_futile);
        if (final == SLOT_FREE && (slot_flags(word) & SLOT_CANCEL))
                final = SLOT_CANCELLED; /* it was asked to end, and it ended */
        if (final != SLOT_FREE) {
                struct worker_job job = {c, slot, slot_generation(word), word};
                struct capsule_draft *draft = w && is_charged && (final == SLOT_POISONED || final == SLOT_LOST)
                                                      ? capsules_draft(w, &job, final, line)
                                                      : NULL;
                if (channel_judge(&c->channel, slot, worker, slot_generation(word), final, 0, &verdict)) {
                        pool_count_verdict(p, final);
                        recovery_tell(p, &job, final, &verdict);
                        descriptors_settle(c, slot);
                        channel_announce(&c->channel, slot, c->done.ring_fd);
                        capsules_keep(p, draft);
                } else {
                        capsules_discard(draft);
                }
                return;
        }
        uint64_t delay_ns = is_charged ? delay_before_retry(&p->config, slot_attempt(word)) : 0;
        if (delay_ns > 0) {
                if (channel_delay(&c->channel, slot, worker)) {
                        p->counters.retried++;
                        stream_again(c, slot, slot_generation(word));
                        delay_add(c, slot, slot_generation(word), event_now_ns() + delay_ns);
                }
                return;
        }
        int r = channel_requeue(&c->channel, slot, worker, is_charged);
        if (r == 0)
                return;
        if (r < 0) /* no ring takes its hint: they will */
                pool_mend_soon(p);
        p->counters.retried++;
        stream_again(c, slot, slot_generation(word));
        bell_mark_work(p->bells[c->bell].memory, c->index);
}

void recovery_give_back(struct pool_channel *c, uint32_t slot, uint64_t word, const struct layout_verdict *line) {
        recovery_slot(NULL, c, slot, word, line, true);
}

/* Every slot that still says RUNNING by this worker. */
static void recovery_sweep(struct worker *w, struct pool_channel *c, const struct layout_verdict *line,
                           bool is_charged) {
        for (uint32_t slot = 0; slot < c->channel.geometry.n_slots; slot++) {
                uint64_t word = channel_word(&c->channel, slot);
                if (slot_state(word) == SLOT_RUNNING && slot_owner(word) == w->index + SLOT_OWNER_WORKER0)
                        recovery_slot(w, c, slot, word, line, is_charged);
        }
}

/* It may have died between its verdict and the client's wake-up: tell again, which harms nobody. */
static void recovery_announce_last(struct worker *w) {
        uint64_t record = atomic_load(&worker_line(w)->record);
        struct pool_channel *c = pool_channel_at(w->pool, record >> 16 & 0xffff);
        uint32_t slot = record & 0xffff;
        if (!c || slot >= c->channel.geometry.n_slots)
                return;
        uint64_t word = channel_word(&c->channel, slot);
        descriptors_settle(c, slot);
        if (slot_is_verdict(word) && slot_generation(word) == record >> 32)
                channel_announce(&c->channel, slot, c->done.ring_fd);
}

void recovery_run(struct worker *w, const struct layout_verdict *line, bool is_charged, struct recovery *ret) {
        struct pool *p = w->pool;
        struct worker_job job;
        *ret = (struct recovery){0};
        if (worker_get_job(w, &job)) {
                *ret = (struct recovery){.had_job = true,
                                         .job_id = worker_job_id(&job),
                                         .job_uid = worker_job_uid(&job),
                                         .attempt = slot_attempt(job.word)};
                recovery_slot(w, job.channel, job.slot, job.word, line, is_charged);
        } else {
                recovery_announce_last(w);
        }
        recovery_end_quarantine(w);
        for (uint32_t i = 0; i < p->n_bells; i++)
                if (p->bells[i].memory)
                        bell_forget(p->bells[i].memory, w->index);
        for (uint32_t i = 0; i < LAYOUT_MAX_CHANNELS; i++) {
                struct pool_channel *c = p->channels[i];
                if (!c)
                        continue;
                recovery_sweep(w, c, line, is_charged);
                delay_look(c); /* it may have made one DELAYED and told nobody */
                /* It may have died between clearing the work bit and looking again, or between taking done_wait and the
                 * wake-up (ipc/PROTOCOL.md, "Deaths"). */
                if (channel_has_work(&c->channel))
                        bell_mark_work(p->bells[c->bell].memory, c->index);
                channel_broadcast(&c->channel, c->done.ring_fd);
                c->attached[w->index / 64] &= ~(UINT64_C(1) << w->index % 64);
                c->drop_sent[w->index / 64] &= ~(UINT64_C(1) << w->index % 64);
                c->doubted[w->index / 64] &= ~(UINT64_C(1) << w->index % 64);
                c->foul[w->index / 64] &= ~(UINT64_C(1) << w->index % 64);
                pool_channel_collect(c);
        }
        pool_heal_and_wake(p);
        pool_mend_soon(p);
        /* It may have died between setting `armed` and ringing for it: nobody else would. */
        if (atomic_load(&p->memory->armed))
                limits_wake(p);
}

/* ---- after a broker ---- */

static void recovery_adopt_slot(struct pool_channel *c, uint32_t slot, const struct layout_verdict *line) {
        uint64_t word = channel_word(&c->channel, slot);
        switch (slot_state(word)) {
        case SLOT_FREE:
                return;
        case SLOT_FILLING: /* the client is here and fills nothing */
                channel_cas(&c->channel, slot, word,
                            SLOT_WORD(SLOT_FREE, 0, 0, SLOT_OWNER_NONE, slot_generation(word)));
                return;
        case SLOT_RUNNING:
                /* Charged: what it did to its worker before the broker died, nobody knows. */
                recovery_slot(NULL, c, slot, word, line, true);
                return;
        case SLOT_QUEUED:
        case SLOT_DELAYED:
                return; /* when all of them are known */
        default:
                channel_end_quarantine(&c->channel, slot);
                channel_announce(&c->channel, slot, c->done.ring_fd);
        }
}

void recovery_adopt(struct pool_channel *c) {
        const struct layout_verdict line = {.reason = REASON_SPAWNER_LOST, .when_ns = event_now_ns()};
        for (uint32_t slot = 0; slot < c->channel.geometry.n_slots; slot++)
                recovery_adopt_slot(c, slot, &line);
        channel_mend_rings(&c->channel, event_now_ns()); /* QUEUED in none of them: pushed again */
        delay_look(c);
        if (channel_has_work(&c->channel))
                bell_mark_work(c->pool->bells[c->bell].memory, c->index);
        channel_broadcast(&c->channel, c->done.ring_fd);
}
