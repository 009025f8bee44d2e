/* Jobs that came over the bus: the broker is their client, on channel 0 of each pool.
 *
 * A job is a record in broker-private memory from submission until its result was fetched or ResultTTL= passed; while it
 * runs it also holds a slot. The verdict is copied out of shared memory once, checked against the schema, and never read
 * there again. A slot in quarantine (its worker may still write) stays out of use until the worker's death is sure.
 * Finished records are bounded in number and bytes: the oldest go first. How a job comes in, what its verdict says and
 * what is asked about it stand in job-submit.c, job-result.c and job-info.c. */
#include "daemon/supervise/job.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/supervise/supervisor-internal.h"
#include "ipc/doorbell.h"
#include "ipc/event.h"

enum {
        JOBS_MAX_FINISHED = 100000,
        JOBS_MAX_FINISHED_BYTES = 32 << 20, /* of all of the record */
        JOBS_OVERHEAD_BYTES = 96,
};

int job_compare(const void *a, const void *b) {
        uint64_t x = ((const struct job *)a)->id, y = ((const struct job *)b)->id;
        return (x > y) - (x < y);
}

int jobs_new(struct jobs **ret, struct supervisor *s) {
        struct jobs *js = calloc(1, sizeof(*js));
        if (!js)
                return -ENOMEM;
        js->supervisor = s;
        TAILQ_INIT(&js->finished);
        *ret = js;
        return 0;
}

struct job *jobs_find(const struct jobs *js, uint64_t id) {
        struct job key = {.id = id}, **found = tfind(&key, &js->by_id, job_compare);
        return found ? *found : NULL;
}

/* ---- the end of a record ---- */

/* Roughly: with what the allocator and the tree take for it. */
static size_t job_bytes(const struct job *j) {
        return sizeof(*j) + j->result_fields->n_fields * sizeof(struct schema_field) + j->result_bytes +
               (j->error ? strlen(j->error) : 0) + JOBS_OVERHEAD_BYTES;
}

static void job_forget(struct job *j) {
        struct jobs *js = j->jobs;
        assert(j->is_finished && !j->waiters);
        SUPERVISOR_TELL(js->supervisor, on_job_forgotten, j);
        TAILQ_REMOVE(&js->finished, j, link);
        js->n_finished--;
        js->finished_bytes -= job_bytes(j);
        tdelete(j, &js->by_id, job_compare);
        free(j->result);
        free(j->error);
        free(j);
}

static void jobs_on_expiry(struct loop_timer *t);

static void jobs_expire(struct jobs *js) {
        uint64_t now = event_now_ns();
        struct job *j;
        while ((j = TAILQ_FIRST(&js->finished)) &&
               (j->expires_ns <= now || js->n_finished > JOBS_MAX_FINISHED || js->finished_bytes > JOBS_MAX_FINISHED_BYTES))
                job_forget(j);
        if (j && !js->expiry_timer.heap_index)
                loop_timer_set(js->supervisor->loop, &js->expiry_timer, j->expires_ns, jobs_on_expiry, js);
}

static void jobs_on_expiry(struct loop_timer *t) { jobs_expire(t->user); }

struct jobs *jobs_free(struct jobs *js) {
        if (!js)
                return NULL;
        struct job *j;
        while ((j = TAILQ_FIRST(&js->finished)))
                job_forget(j);
        loop_timer_stop(&js->expiry_timer);
        free(js);
        return NULL;
}

/* By expiry, so that one timer serves pools with different ResultTTL=; nearly always the tail is the place, or the head
 * for what nobody asks for any more. */
static void jobs_insert_finished(struct jobs *js, struct job *j) {
        struct job *before = NULL;
        if (!j->is_released)
                TAILQ_FOREACH_REVERSE(before, &js->finished, job_list, link)
                        if (before->expires_ns <= j->expires_ns)
                                break;
        if (before)
                TAILQ_INSERT_AFTER(&js->finished, before, j, link);
        else
                TAILQ_INSERT_HEAD(&js->finished, j, link);
        js->n_finished++;
        js->finished_bytes += job_bytes(j);
}

/* ---- verdicts ---- */

static void job_tell(struct job *j) {
        struct jobs *js = j->jobs;
        struct job_waiter *waiters = j->waiters, *next;
        js->n_telling++;
        j->waiters = NULL;
        for (; waiters; waiters = next) {
                next = waiters->next;
                waiters->next = NULL;
                waiters->job = NULL;
                waiters->fn(waiters, j);
        }
        SUPERVISOR_TELL(js->supervisor, on_job_finished, j);
        if (--js->n_telling == 0)
                jobs_expire(js);
}

static void job_finish(struct job *j, enum slot_state state) {
        j->state = state;
        j->is_finished = true;
        loop_timer_stop(&j->deadline_timer);
        j->finished_ns = event_now_ns();
        j->expires_ns = j->finished_ns + (j->is_released ? 0 : j->pool ? j->pool->config.result_ttl_ns : 0);
}

static void job_collect(struct job *j, uint64_t word) {
        struct pool *p = j->pool;
        struct channel *c = jobs_channel(p);
        uint32_t slot = j->slot;
        job_finish(j, slot_state(word));
        j->attempt = slot_attempt(word);
        struct layout_result line;
        channel_copy(&line, channel_result(c, slot), sizeof(line));
        bool is_workers = j->state == SLOT_DONE || j->state == SLOT_FAILED;
        if (!is_workers) /* else the line is of a judgement that came too late */
                channel_copy(&j->verdict, channel_verdict(c, slot), sizeof(j->verdict));
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
        else if (j->verdict.pid && (j->state == SLOT_POISONED || j->state == SLOT_LOST || j->state == SLOT_TIMED_OUT))
                j->worker_pid = j->verdict.pid;
        if (j->state != SLOT_DONE && j->state != SLOT_FAILED)
                job_describe_failure(j);
        jobs_insert_finished(j->jobs, j);
        p->slot_job[slot] = NULL;
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
        if (!p->slot_job[slot] && !p->is_slot_free[slot] && channel_free(jobs_channel(p), slot) == 0)
                jobs_put_slot(p, slot); /* -EBUSY: in quarantine, we are called again at its end */
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
        doorbell_clear(p->channels[0]->done_fd);
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
        return loop_poll_start(p->supervisor->loop, &p->done_poll, p->channels[0]->done_fd, POLLIN, jobs_on_done, p);
}

void jobs_pool_deinit(struct pool *p) {
        loop_poll_stop(&p->done_poll);
        if (p->slot_job && p->channels[0]) {
                jobs_collect(p);
                for (uint32_t slot = 0; slot < jobs_channel(p)->geometry.n_slots; slot++) {
                        struct job *j = p->slot_job[slot];
                        if (!j)
                                continue;
                        j->slot = JOBS_NO_SLOT;
                        job_finish(j, SLOT_LOST);
                        job_set_error(j, "job %llu is lost: its pool %.64s was removed",
                                 (unsigned long long)j->id, j->pool_name);
                        jobs_insert_finished(j->jobs, j);
                        job_tell(j);
                }
        }
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
        TAILQ_FOREACH(j, &js->finished, link)
                if (j->pool == p)
                        j->pool = NULL;
}

/* ---- who waits for a verdict, and who wants none ---- */

void job_wait(struct job *j, struct job_waiter *w, void (*fn)(struct job_waiter *, struct job *)) {
        *w = (struct job_waiter){.fn = fn};
        if (j->is_finished) {
                fn(w, j);
                return;
        }
        w->job = j;
        w->next = j->waiters;
        j->waiters = w;
}

void job_wait_stop(struct job_waiter *w) {
        if (!w->job)
                return;
        for (struct job_waiter **at = &w->job->waiters; *at; at = &(*at)->next)
                if (*at == w) {
                        *at = w->next;
                        break;
                }
        w->job = NULL;
}

void job_release(struct job *j) {
        if (j->is_released)
                return;
        j->is_released = true;
        if (!j->is_finished || j->waiters)
                return;
        struct jobs *js = j->jobs;
        TAILQ_REMOVE(&js->finished, j, link);
        j->expires_ns = 0;
        TAILQ_INSERT_HEAD(&js->finished, j, link);
        if (js->n_telling == 0) /* not now: the caller still holds it */
                loop_timer_set(js->supervisor->loop, &js->expiry_timer, event_now_ns(), jobs_on_expiry, js);
}
