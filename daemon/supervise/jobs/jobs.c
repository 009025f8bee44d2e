/* Jobs that came over the bus: the broker is their client, on channel 0 of each pool.
 *
 * A job is a record in broker-private memory from submission until its result was fetched or ResultTTL= passed; while
 * it runs it also holds a slot. The verdict is copied out of shared memory once, checked against the schema, and never
 * read there again. A slot in quarantine (its worker may still write) stays out of use until the worker's death is
 * sure. How long records live, how a job comes in, what its verdict says and what is asked about it stand in
 * job-keep.c, job-submit.c, job-result.c and job-info.c. */
#include "daemon/supervise/jobs/job.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/loop/closer.h"
#include "daemon/supervise/streams/streams.h"
#include "daemon/supervise/supervisor-internal.h"
#include "ipc/memory/doorbell.h"
#include "ipc/memory/event.h"

#define JOBS_LEAST_TTL_NS UINT64_C(1000000000)

/* ---- verdicts ---- */

static void job_waiter_unlink(struct job_waiter *w) {
        *w->previous = w->next;
        if (w->next)
                w->next->previous = w->previous;
        w->job = NULL;
}

void job_tell(struct job *j) {
        struct jobs *js = j->jobs;
        struct job_waiter *waiters = j->waiters, *w;
        js->n_telling++;
        j->waiters = NULL;
        if (waiters)
                waiters->previous = &waiters;
        while ((w = waiters)) { /* each may end the wait of others */
                job_waiter_unlink(w);
                w->fn(w, j);
        }
        SUPERVISOR_TELL(js->supervisor, on_job_finished, j);
        if (--js->n_telling == 0)
                jobs_expire(js);
}

void job_finish(struct job *j, enum slot_state state) {
        j->state = state;
        j->is_finished = true;
        loop_timer_stop(&j->deadline_timer);
        j->finished_ns = event_now_ns();
        j->ttl_ns = j->is_released || !j->pool ? 0 : j->pool->config.result_ttl_ns;
        if (!j->is_released && j->ttl_ns < JOBS_LEAST_TTL_NS) /* who is told that it is over asks then */
                j->ttl_ns = JOBS_LEAST_TTL_NS;
        j->expires_ns = j->finished_ns + j->ttl_ns;
}

/* Workers can only read the job area, and nobody else but us has it. Without memory it cannot be queued again, that is
 * all. */
static void job_keep_payload(struct job *j, const void *payload) {
        j->payload = malloc(j->payload_bytes ? j->payload_bytes : 1);
        if (j->payload)
                memcpy(j->payload, payload, j->payload_bytes);
        else
                j->payload_bytes = 0;
}

static void job_collect(struct job *j, uint64_t word) {
        struct pool *p = j->pool;
        struct channel *c = jobs_channel(p);
        uint32_t slot = j->slot;
        stream_over(p->channels[0], slot, word);
        job_finish(j, slot_state(word));
        j->attempt = slot_attempts_made(word);
        struct layout_result line;
        channel_copy(&line, channel_result(c, slot), sizeof(line));
        bool is_workers = j->state == SLOT_DONE || j->state == SLOT_FAILED;
        if (line.generation == j->generation && line.started_ns) { /* the worker's word, within what is possible */
                j->started_ns = line.started_ns < j->submitted_ns ? j->submitted_ns : line.started_ns;
                if (j->started_ns > j->finished_ns)
                        j->started_ns = j->finished_ns;
                if (is_workers || j->state == SLOT_CANCELLED || j->state == SLOT_TIMED_OUT)
                        j->worker_pid = line.pid;
                j->cpu_ns = line.cpu_ns;
                if (line.finished_ns >= j->started_ns && line.finished_ns <= j->finished_ns)
                        j->finished_ns = line.finished_ns;
        }
        if (is_workers)
                job_take_result(j, c, slot, &line);
        else
                job_take_verdict(j, c, slot, word);
        job_needs_free(j);
        descriptors_settle(p->channels[0], slot);
        descriptors_drop(p->channels[0], DESCRIPTORS_OF_RESULT, slot);
        if (j->state != SLOT_DONE && !j->is_released && !j->has_fds)
                job_keep_payload(j, channel_payload(c, slot));
        else
                j->payload_bytes = 0;
        job_keep_finished(j);
        p->slot_job[slot] = NULL;
        job_give_room(j);
        j->slot = JOBS_NO_SLOT;
        memset(channel_verdict(c, slot), 0, sizeof(struct layout_verdict));
        jobs_slot_released(p, slot);
        job_tell(j);
}

void jobs_collect_slot(struct job *j) {
        uint64_t word = channel_word(jobs_channel(j->pool), j->slot);
        if (slot_is_verdict(word) && slot_generation(word) == j->generation)
                job_collect(j, word);
}

/* What is free is known from our own books: the slot's word is also a worker's to write. */
void jobs_put_slot(struct pool *p, uint32_t slot) {
        p->slot_job[slot] = NULL;
        p->is_slot_free[slot] = true;
        p->free_slots[p->n_free_slots++] = slot;
}

uint32_t jobs_take_slot(struct pool *p) {
        uint32_t slot = p->free_slots[--p->n_free_slots];
        p->is_slot_free[slot] = false;
        return slot;
}

void jobs_slot_released(struct pool *p, uint32_t slot) {
        if (!p->slot_job[slot] && !p->is_slot_free[slot] &&
            channel_free(jobs_channel(p), slot) == 0) { /* -EBUSY: in quarantine, we are called again at its end */
                jobs_put_slot(p, slot);
                SUPERVISOR_TELL(p->supervisor, on_pool_room, p);
        }
}

bool jobs_slot_is_of(const struct pool *p, uint32_t slot, uint32_t generation) {
        return p->slot_job && p->slot_job[slot] && p->slot_job[slot]->generation == generation;
}

void jobs_slot_reclaim(struct pool *p, uint32_t slot) {
        uint64_t word = channel_word(jobs_channel(p), slot);
        if (slot_state(word) != SLOT_FREE) /* a new generation: no hint and no worker means this one */
                channel_cas(jobs_channel(p), slot, word,
                            SLOT_WORD(SLOT_FREE, 0, 0, SLOT_OWNER_NONE, slot_generation(word) + 1));
        if (!p->is_slot_free[slot]) {
                jobs_put_slot(p, slot);
                SUPERVISOR_TELL(p->supervisor, on_pool_room, p);
        }
}

/* Bits are hints: the slot word says. Sleeps again only after it looked once more. */
void jobs_collect(struct pool *p) {
        struct channel *c = jobs_channel(p);
        uint32_t n_words = (c->geometry.n_slots + 63) / 64;
        bool again = true;
        while (again) {
                again = false;
                atomic_store(&c->head->done_wait, DONE_DOORBELL); /* seq_cst: before the bits are read */
                for (uint32_t i = 0; i < n_words; i++) {
                        uint64_t bits = atomic_load(&c->done[i]) ? channel_take_done(c, i) : 0;
                        for (; bits; bits &= bits - 1) {
                                uint32_t slot = i * 64 + (uint32_t)__builtin_ctzll(bits);
                                struct job *j = slot < c->geometry.n_slots ? p->slot_job[slot] : NULL;
                                uint64_t word = j ? channel_word(c, slot) : 0;
                                if (j && slot_is_verdict(word) && slot_generation(word) == j->generation) {
                                        job_collect(j, word);
                                        again = true;
                                }
                        }
                }
        }
}

static void jobs_on_done(struct loop_poll *poll, uint32_t revents) {
        struct pool *p = poll->user;
        closer_blame(CLOSER_WORKERS);
        doorbell_clear(p->channels[0]->done.hear_fd);
        jobs_collect(p);
}

int jobs_pool_init(struct pool *p) {
        uint32_t n = jobs_channel(p)->geometry.n_slots;
        p->slot_job = calloc(n, sizeof(struct job *));
        p->free_slots = calloc(n, sizeof(*p->free_slots));
        p->is_slot_free = calloc(n, sizeof(*p->is_slot_free));
        if (!p->slot_job || !p->free_slots || !p->is_slot_free)
                return -ENOMEM;
        for (uint32_t slot = n; slot-- > 0;)
                jobs_put_slot(p, slot);
        atomic_store(&jobs_channel(p)->head->done_wait, DONE_DOORBELL);
        return loop_poll_start(p->supervisor->loop, &p->done_poll, p->channels[0]->done.hear_fd, POLLIN, jobs_on_done,
                               p);
}

/* Those that wait for others go last: what these end as is a verdict for them, too. */
static void jobs_lose(struct pool *p, bool waiting_ones) {
        for (uint32_t slot = 0; slot < jobs_channel(p)->geometry.n_slots; slot++) {
                struct job *j = p->slot_job[slot];
                if (!j || (!waiting_ones && job_needs_any(j)))
                        continue;
                p->slot_job[slot] = NULL;
                j->slot = JOBS_NO_SLOT;
                j->payload_bytes = 0;
                job_needs_free(j);
                job_finish(j, SLOT_LOST);
                job_set_error(j, "job %llu is lost: its pool %.64s was removed", (unsigned long long)j->id,
                              j->pool_name);
                job_keep_finished(j);
                job_tell(j);
                jobs_collect(p); /* those that came after it */
        }
}

void jobs_pool_deinit(struct pool *p) {
        loop_poll_stop(&p->done_poll);
        if (p->slot_job && p->channels[0]) {
                jobs_collect(p);
                jobs_lose(p, false);
                jobs_lose(p, true);
        }
        quota_deinit(&p->jobs_of);
        quota_deinit(&p->result_fds_of);
        free(p->slot_job);
        free(p->free_slots);
        free(p->is_slot_free);
        p->slot_job = NULL;
        p->free_slots = NULL;
        p->is_slot_free = NULL;
}

void jobs_pool_gone(struct jobs *js, struct pool *p) {
        struct job *j;
        jobs_pool_deinit(p);
        TAILQ_FOREACH(j, &js->all, all_link)
                if (j->pool == p)
                        j->pool = NULL;
}

/* ---- who waits for a verdict ---- */

void job_wait(struct job *j, struct job_waiter *w, void (*fn)(struct job_waiter *, struct job *)) {
        *w = (struct job_waiter){.fn = fn};
        if (j->is_finished) {
                fn(w, j);
                return;
        }
        w->job = j;
        w->next = j->waiters;
        w->previous = &j->waiters;
        if (w->next)
                w->next->previous = &w->next;
        j->waiters = w;
}

void job_wait_stop(struct job_waiter *w) {
        if (w->job)
                job_waiter_unlink(w);
}
