/* Jobs that came over the bus: the broker is their client, on channel 0 of each pool.
 *
 * A job is a record in broker-private memory from submission until its result was fetched or ResultTTL= passed; while it
 * runs it also holds a slot. The verdict is copied out of shared memory once, checked against the schema, and never read
 * there again. A slot in quarantine (its worker may still write) stays out of use until the worker's death is sure.
 * Finished records are bounded in number and bytes: the oldest go first. */
#include "daemon/supervise/jobs.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <search.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/supervise/death.h"
#include "daemon/supervise/supervisor-internal.h"
#include "ipc/args.h"
#include "ipc/bell.h"
#include "ipc/doorbell.h"
#include "ipc/event.h"
#include "ipc/words.h"

enum {
        JOBS_MAX_FINISHED = 100000,
        JOBS_MAX_FINISHED_BYTES = 32 << 20, /* of all of the record */
        JOBS_OVERHEAD_BYTES = 96,
        JOBS_NO_SLOT = UINT32_MAX,
};

struct job {
        uint64_t id;
        struct jobs *jobs;
        struct pool *pool; /* NULL: the pool is gone */
        char pool_name[POOL_NAME_MAX + 1];
        char name[SCHEMA_MAX_NAME];
        struct schema_fields *result_fields; /* behind this struct, as many as there are */
        uid_t uid;
        uint32_t slot, generation;
        bool is_finished, is_released;
        enum slot_state state; /* once finished */
        uint32_t attempt;
        pid_t worker_pid;
        uint64_t submitted_us, submitted_ns, started_ns, finished_ns, cpu_ns;
        void *result;
        size_t result_bytes;
        char *error; /* NULL: none */
        int error_number;
        struct layout_verdict verdict;
        struct loop_timer deadline_timer;
        uint64_t expires_ns; /* once finished */
        struct job_waiter *waiters;
        void *user;
        TAILQ_ENTRY(job) link; /* finished ones, oldest first */
};

struct jobs {
        struct supervisor *supervisor;
        void *by_id; /* tsearch tree */
        TAILQ_HEAD(job_list, job) finished; /* by expiry */
        size_t n_finished, finished_bytes;
        struct loop_timer expiry_timer;
        unsigned n_telling; /* inside job_tell, which expires at its end */
};

static int job_compare(const void *a, const void *b) {
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

static struct channel *jobs_channel(const struct pool *p) { return &p->channels[0]->channel; }

__attribute__((format(printf, 2, 3))) static void job_set_error(struct job *j, const char *format, ...) {
        char text[400];
        va_list ap;
        va_start(ap, format);
        vsnprintf(text, sizeof(text), format, ap);
        va_end(ap);
        free(j->error);
        j->error = strdup(text);
}

static void job_describe_failure(struct job *j) {
        char why[200], what[120];
        snprintf(what, sizeof(what), "job %llu (%.40s of pool %.40s)", (unsigned long long)j->id, j->name, j->pool_name);
        death_describe(j->verdict.reason, j->verdict.signal, j->verdict.status, j->verdict.syscall, why, sizeof(why));
        switch (j->state) {
        case SLOT_POISONED:
                job_set_error(j, "%s is poisoned after %u attempts: its worker (pid %u) died: %s", what,
                         j->attempt, j->verdict.pid, why);
                break;
        case SLOT_LOST:
                job_set_error(j, "%s is lost in attempt %u and may not run twice: its worker (pid %u) died: %s",
                         what, j->attempt, j->verdict.pid, why);
                break;
        case SLOT_TIMED_OUT:
                job_set_error(j, "%s timed out in attempt %u: %s", what, j->attempt,
                         j->verdict.reason == REASON_TIME_LIMIT ? "its hard limit passed, its worker was killed"
                                                                : "its soft limit passed and it stopped");
                break;
        case SLOT_CANCELLED:
                job_set_error(j, "%s was cancelled%s", what,
                         j->started_ns ? " while it ran" : " before it ran");
                break;
        case SLOT_EXPIRED:
                job_set_error(j, "%s expired: no worker took it before its queue timeout", what);
                break;
        case SLOT_FREE:
        case SLOT_FILLING:
        case SLOT_QUEUED:
        case SLOT_DELAYED:
        case SLOT_RUNNING:
        case SLOT_DONE:
        case SLOT_FAILED:
        case SLOT_N_STATES:
                break;
        }
}

static void job_fail(struct job *j, int error, const char *message) {
        j->state = SLOT_FAILED;
        j->error_number = error;
        job_set_error(j, "job %llu (%.40s of pool %.40s) failed in attempt %u: %.220s",
                 (unsigned long long)j->id, j->name, j->pool_name, j->attempt, message);
}

/* The result area is the worker's to write, still: one copy, then only the copy. */
static void job_take_result(struct job *j, const struct channel *c, uint32_t slot, const struct layout_result *line) {
        char error[200];
        size_t bytes = line->bytes;
        if (bytes > c->geometry.slot_bytes || !(j->result = malloc(bytes ? bytes : 1))) {
                job_fail(j, EPROTO, "its worker returned a result of impossible size");
                return;
        }
        memcpy(j->result, channel_result_data(c, slot), bytes);
        j->result_bytes = bytes;
        if (j->state == SLOT_FAILED) {
                char message[221];
                snprintf(message, sizeof(message), "%.*s", (int)(bytes < 220 ? bytes : 220), (const char *)j->result);
                job_fail(j, line->error, args_is_utf8(message, strlen(message)) ? message : "(its message is not UTF-8)");
        } else if (!j->result_fields->is_raw &&
                   args_check(j->result_fields, j->result, bytes, error, sizeof(error)) < 0) {
                job_fail(j, EPROTO, error);
        }
        if (j->state != SLOT_DONE) {
                free(j->result);
                j->result = NULL;
                j->result_bytes = 0;
        }
}

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
        if (j->state == SLOT_EXPIRED && slot_owner(word) != SLOT_OWNER_NONE)
                pool_count_verdict(p, SLOT_EXPIRED); /* a claimer found it overdue: it counts only what it ran */
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

/* For a verdict that we gave ourselves just now. */
static void jobs_collect_slot(struct job *j) {
        uint64_t word = channel_word(jobs_channel(j->pool), j->slot);
        if (slot_is_verdict(word) && slot_generation(word) == j->generation)
                job_collect(j, word);
}

/* What is free is known from our own books: the slot's word is also a worker's to write. */
static void jobs_put_slot(struct pool *p, uint32_t slot) {
        p->slot_job[slot] = NULL;
        p->is_slot_free[slot] = true;
        p->free_slots[p->n_free_slots++] = slot;
}

static uint32_t jobs_take_slot(struct pool *p) {
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

/* ---- submitting ---- */

static bool job_check_pool(const struct pool *p, struct fault *f) {
        if (p->supervisor->is_shutting_down)
                fault_set(f, FAULT_SHUTTING_DOWN, "the daemon is shutting down: pool %s takes no more jobs", p->config.name);
        else if (p->is_refused)
                fault_set(f, FAULT_POOL_REFUSED, "pool %s is refused: %s", p->config.name, p->problem);
        else if (!pool_accepts(p))
                fault_set(f, FAULT_POOL_STOPPED, "pool %s is %s and takes no jobs", p->config.name, pool_state_word(p->state));
        else
                return true;
        return false;
}

const struct schema_job *pool_find_job_type(struct pool *p, const char *job, bool *ret_wait, struct fault *f) {
        uint32_t index;
        *ret_wait = false;
        if (!job_check_pool(p, f))
                return NULL;
        if (!p->schema) {
                *ret_wait = p->state == POOL_STARTING || p->state == POOL_PAUSED;
                fault_set(f, FAULT_POOL_REFUSED, "pool %s is %s: no worker of it was ready yet%s%s", p->config.name,
                          pool_state_word(p->state), p->problem[0] ? ": " : "", p->problem);
                return NULL;
        }
        const struct schema_job *type = schema_find(p->schema, job, &index);
        if (type)
                return type;
        char known[200] = "";
        for (uint32_t i = 0; i < p->schema->n_jobs && strlen(known) < 120; i++)
                snprintf(known + strlen(known), sizeof(known) - strlen(known), "%s%s", i ? ", " : "", p->schema->jobs[i].name);
        fault_set(f, FAULT_NO_SUCH_JOB_TYPE, "pool %s has no job type \"%.64s\"; it has: %s", p->config.name, job, known);
        return NULL;
}

static void job_on_deadline(struct loop_timer *t) {
        struct job *j = t->user;
        struct channel *c = jobs_channel(j->pool);
        if (channel_judge_queued(c, j->slot, j->generation, SLOT_EXPIRED)) {
                pool_count_verdict(j->pool, SLOT_EXPIRED);
                channel_announce(c, j->slot, j->pool->channels[0]->done_fd);
        }
}

static uint64_t job_smaller(uint64_t a, uint64_t b) { return a == 0 ? b : b == 0 || a < b ? a : b; }

static void job_fill_line(const struct job *j, const struct job_request *r, uint32_t type, uint64_t queue_deadline_ns,
                          struct layout_job *line) {
        *line = (struct layout_job){
                .type = type,
                .bytes = (uint32_t)r->bytes,
                .priority = r->priority,
                .max_attempts = r->max_attempts,
                .id = j->id,
                .queued_ns = j->submitted_ns,
                .queue_deadline_ns = queue_deadline_ns,
                .soft_ns = r->soft_ns,
                .hard_ns = r->hard_ns,
        };
}

static struct job *job_new(const struct job_request *r, const struct schema_job *type) {
        struct supervisor *s = r->pool->supervisor;
        size_t fields_bytes = offsetof(struct schema_fields, field) + type->result.n_fields * sizeof(struct schema_field);
        struct job *j = calloc(1, sizeof(*j) + fields_bytes);
        if (!j)
                return NULL;
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        *j = (struct job){
                .id = ++s->last_job,
                .jobs = s->jobs,
                .pool = r->pool,
                .uid = r->uid,
                .result_fields = (struct schema_fields *)(j + 1),
                .submitted_us = (uint64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000,
                .submitted_ns = event_now_ns(),
        };
        memcpy(j->result_fields, &type->result, fields_bytes);
        snprintf(j->pool_name, sizeof(j->pool_name), "%s", r->pool->config.name);
        snprintf(j->name, sizeof(j->name), "%s", type->name);
        if (!tsearch(j, &s->jobs->by_id, job_compare)) {
                free(j);
                return NULL;
        }
        return j;
}

int job_submit(const struct job_request *r, struct job **ret, struct fault *f) {
        struct pool *p = r->pool;
        struct channel *c = jobs_channel(p);
        bool wait;
        const struct schema_job *type = pool_find_job_type(p, r->name, &wait, f);
        if (!type)
                return -1;
        if (r->priority >= LAYOUT_PRIORITIES)
                return fault_set(f, FAULT_INVALID_ARGS, "priority %u: not in 0..%d", r->priority, LAYOUT_PRIORITIES - 1);
        if (r->bytes > c->geometry.slot_bytes)
                return fault_set(f, FAULT_LIMITS_EXCEEDED, "%s: %zu bytes of arguments are more than pool %s takes (SlotSize=%u)",
                                 r->name, r->bytes, p->config.name, c->geometry.slot_bytes);
        if (p->n_free_slots == 0)
                return fault_set(f, FAULT_QUEUE_FULL, "pool %s has all its %u slots in use (Slots=)", p->config.name,
                                 c->geometry.n_slots);
        struct job *j = job_new(r, type);
        if (!j)
                return fault_set(f, FAULT_INTERNAL, "out of memory");
        uint32_t slot = jobs_take_slot(p);
        uint64_t queue_timeout_ns = job_smaller(r->queue_timeout_ns, p->config.queue_timeout_ns), queue_deadline_ns = 0;
        if (queue_timeout_ns && __builtin_add_overflow(j->submitted_ns, queue_timeout_ns, &queue_deadline_ns))
                queue_deadline_ns = 0; /* beyond the end of time: none */
        int error = channel_begin(c, slot);
        if (error == 0) {
                memcpy(channel_payload(c, slot), r->payload, r->bytes);
                job_fill_line(j, r, (uint32_t)(type - p->schema->jobs), queue_deadline_ns, channel_job(c, slot));
                j->generation = slot_generation(channel_word(c, slot));
                j->slot = slot;
                p->slot_job[slot] = j;
                error = channel_commit(c, slot, r->priority);
        }
        if (error < 0) { /* only a pool that scribbles over its own channel comes here */
                jobs_put_slot(p, slot);
                tdelete(j, &j->jobs->by_id, job_compare);
                free(j);
                return fault_set(f, FAULT_INTERNAL, "the channel of pool %s does not take the job: %s", p->config.name,
                                 strerror(-error));
        }
        if (queue_deadline_ns)
                loop_timer_set(p->supervisor->loop, &j->deadline_timer, queue_deadline_ns, job_on_deadline, j);
        bell_ring(p->bells[p->channels[0]->bell].memory, 0, p->doorbell_fd, &(struct bell_memo){0});
        *ret = j;
        return 0;
}

/* ---- looking, waiting, cancelling ---- */

static struct worker *job_worker(const struct job *j, uint64_t word) {
        unsigned index = slot_owner(word) - SLOT_OWNER_WORKER0;
        return slot_state(word) == SLOT_RUNNING && index < LAYOUT_MAX_WORKERS ? j->pool->workers[index] : NULL;
}

static void job_get_live(const struct job *j, struct job_info *ret) {
        uint64_t word = channel_word(jobs_channel(j->pool), j->slot);
        struct worker *w = job_worker(j, word);
        ret->state = slot_state(word) == SLOT_RUNNING ? SLOT_RUNNING : SLOT_QUEUED;
        ret->attempt = slot_attempt(word);
        if (!w)
                return;
        struct worker_info info;
        worker_get_info(w, &info);
        ret->worker_pid = w->pid;
        snprintf(ret->progress_note, sizeof(ret->progress_note), "%s", info.status);
        ret->progress_done = atomic_load(&worker_line(w)->progress_done);
        ret->progress_total = atomic_load(&worker_line(w)->progress_total);
        if (w->stamp_ns >= j->submitted_ns && (uint32_t)(w->stamp_job >> 32) == j->generation)
                ret->started_us = j->submitted_us + (w->stamp_ns - j->submitted_ns) / 1000;
}

static uint64_t job_span_us(uint64_t from_ns, uint64_t to_ns) {
        return from_ns && to_ns > from_ns ? (to_ns - from_ns) / 1000 : 0;
}

void job_get_info(const struct job *j, struct job_info *ret) {
        *ret = (struct job_info){
                .id = j->id,
                .pool = j->pool,
                .pool_name = j->pool_name,
                .name = j->name,
                .uid = j->uid,
                .state = j->state,
                .attempt = j->attempt,
                .worker_pid = j->worker_pid,
                .submitted_us = j->submitted_us,
                .result_fields = j->result_fields,
                .error = j->error ? j->error : "",
        };
        if (!j->is_finished) {
                job_get_live(j, ret);
                return;
        }
        ret->result = j->result;
        ret->result_bytes = j->result_bytes;
        ret->error_number = j->error_number;
        ret->reason = j->verdict.reason;
        ret->signal = j->verdict.signal;
        ret->status = j->verdict.status;
        ret->syscall = j->verdict.syscall;
        ret->finished_us = j->submitted_us + job_span_us(j->submitted_ns, j->finished_ns);
        ret->started_us = j->started_ns ? j->submitted_us + job_span_us(j->submitted_ns, j->started_ns) : 0;
        ret->queue_us = job_span_us(j->submitted_ns, j->started_ns ? j->started_ns : j->finished_ns);
        ret->run_us = job_span_us(j->started_ns, j->finished_ns);
        ret->cpu_us = j->cpu_ns / 1000;
}

void job_get_fault(const struct job *j, struct fault *f) {
        static const enum fault_code codes[SLOT_N_STATES] = {
                [SLOT_FAILED] = FAULT_FAILED,       [SLOT_CANCELLED] = FAULT_CANCELLED, [SLOT_EXPIRED] = FAULT_EXPIRED,
                [SLOT_TIMED_OUT] = FAULT_TIMED_OUT, [SLOT_POISONED] = FAULT_POISONED,   [SLOT_LOST] = FAULT_LOST,
        };
        if (!j->is_finished)
                fault_set(f, FAULT_NOT_FINISHED, "job %llu has no verdict yet", (unsigned long long)j->id);
        else
                fault_set(f, codes[j->state], "%s", j->error ? j->error : "");
}

static const char *job_cancel_queued(struct job *j) {
        struct channel *c = jobs_channel(j->pool);
        if (!channel_judge_queued(c, j->slot, j->generation, SLOT_CANCELLED))
                return NULL;
        pool_count_verdict(j->pool, SLOT_CANCELLED);
        jobs_collect_slot(j);
        return "cancelled";
}

const char *job_cancel(struct job *j, const char *mode, struct fault *f) {
        bool ask = strcmp(mode, "ask") == 0, kill = strcmp(mode, "kill") == 0;
        if (!ask && !kill && strcmp(mode, "queued") != 0) {
                fault_set(f, FAULT_INVALID_ARGS, "Cancel: \"%.40s\" is not a mode: use queued, ask or kill", mode);
                return NULL;
        }
        if (j->is_finished)
                return "finished";
        const char *done = job_cancel_queued(j);
        if (done)
                return done;
        uint64_t word = channel_word(jobs_channel(j->pool), j->slot);
        struct worker *w = job_worker(j, word);
        if (ask && channel_ask_cancel(jobs_channel(j->pool), j->slot, j->generation))
                return "asked";
        struct worker_job held;
        if (kill && w && worker_get_job(w, &held) && held.generation == j->generation && held.slot == j->slot &&
            worker_judge(w, SLOT_CANCELLED, REASON_OPERATOR))
                return "killed";
        return slot_is_verdict(channel_word(jobs_channel(j->pool), j->slot)) ? "finished" : "running";
}

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

void job_set_user(struct job *j, void *user) { j->user = user; }
void *job_get_user(const struct job *j) { return j->user; }
