/* From a request over the bus to a queued job: what must be so, a record, a slot, the ring of the bell. And the same
 * way once more for a job that did not end well: Requeue keeps its id and its arguments, and forgets its attempts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/supervise/job.h"
#include "daemon/supervise/supervisor-internal.h"
#include "ipc/bell.h"
#include "ipc/event.h"

static bool job_check_pool(const struct pool *p, struct fault *f) {
        if (p->supervisor->is_shutting_down)
                fault_set(f, FAULT_SHUTTING_DOWN, "the daemon is shutting down: pool %s takes no more jobs",
                          p->config.name);
        else if (p->is_refused)
                fault_set(f, FAULT_POOL_REFUSED, "pool %s is refused: %s", p->config.name, p->problem);
        else if (!pool_accepts(p))
                fault_set(f, FAULT_POOL_STOPPED, "pool %s is %s and takes no jobs", p->config.name,
                          pool_state_word(p->state));
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
                snprintf(known + strlen(known), sizeof(known) - strlen(known), "%s%s", i ? ", " : "",
                         p->schema->jobs[i].name);
        fault_set(f, FAULT_NO_SUCH_JOB_TYPE, "pool %s has no job type \"%.64s\"; it has: %s", p->config.name, job,
                  known);
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

static void job_fill_line(const struct job *j, uint32_t type, uint64_t queue_deadline_ns, struct layout_job *line) {
        *line = (struct layout_job){
                .type = type,
                .bytes = (uint32_t)j->payload_bytes,
                .priority = j->wish.priority,
                .max_attempts = j->wish.max_attempts,
                .id = j->id,
                .queued_ns = j->submitted_ns,
                .queue_deadline_ns = queue_deadline_ns,
                .soft_ns = j->wish.soft_ns,
                .hard_ns = j->wish.hard_ns,
        };
}

static struct job *job_new(const struct job_request *r, const struct schema_job *type) {
        struct supervisor *s = r->pool->supervisor;
        size_t fields_bytes =
                offsetof(struct schema_fields, field) + type->result.n_fields * sizeof(struct schema_field);
        size_t name_bytes = strlen(type->name) + 1, pool_bytes = strlen(r->pool->config.name) + 1;
        struct job *j = calloc(1, sizeof(*j) + fields_bytes + name_bytes + pool_bytes);
        if (!j)
                return NULL;
        char *names = (char *)(j + 1) + fields_bytes;
        *j = (struct job){
                .id = ++s->last_job,
                .jobs = s->jobs,
                .pool = r->pool,
                .uid = r->uid,
                .wish = {.priority = r->priority,
                         .max_attempts = r->max_attempts,
                         .queue_timeout_ns = r->queue_timeout_ns,
                         .soft_ns = r->soft_ns,
                         .hard_ns = r->hard_ns},
                .payload_bytes = r->bytes,
                .result_fields = (struct schema_fields *)(j + 1),
        };
        memcpy(j->result_fields, &type->result, fields_bytes);
        j->name = memcpy(names, type->name, name_bytes);
        j->pool_name = memcpy(names + name_bytes, r->pool->config.name, pool_bytes);
        if (job_keep(s->jobs, j) < 0) {
                free(j);
                return NULL;
        }
        return j;
}

static int job_check_room(const struct pool *p, struct fault *f) {
        if (p->n_free_slots > 0)
                return 0;
        return fault_set(f, FAULT_QUEUE_FULL, "pool %s has all its %u slots in use (Slots=)", p->config.name,
                         jobs_channel(p)->geometry.n_slots);
}

/* Into a slot and the ring: accepted from here on. */
static int job_enter(struct job *j, const struct schema_job *type, const void *payload, struct fault *f) {
        struct pool *p = j->pool;
        struct channel *c = jobs_channel(p);
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        j->submitted_us = (uint64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
        j->submitted_ns = event_now_ns();
        uint32_t slot = jobs_take_slot(p);
        uint64_t timeout_ns = job_smaller(j->wish.queue_timeout_ns, p->config.queue_timeout_ns), deadline_ns = 0;
        if (timeout_ns && __builtin_add_overflow(j->submitted_ns, timeout_ns, &deadline_ns))
                deadline_ns = 0; /* beyond the end of time: none */
        int r = channel_begin(c, slot);
        if (r == 0) {
                memcpy(channel_payload(c, slot), payload, j->payload_bytes);
                job_fill_line(j, (uint32_t)(type - p->schema->jobs), deadline_ns, channel_job(c, slot));
                j->generation = slot_generation(channel_word(c, slot));
                j->slot = slot;
                p->slot_job[slot] = j;
                r = channel_commit(c, slot, j->wish.priority);
        }
        if (r < 0) { /* only a pool that scribbles over its own channel comes here */
                j->slot = JOBS_NO_SLOT;
                jobs_put_slot(p, slot);
                return fault_set(f, FAULT_INTERNAL, "the channel of pool %s does not take the job: %s", p->config.name,
                                 strerror(-r));
        }
        if (deadline_ns)
                loop_timer_set(p->supervisor->loop, &j->deadline_timer, deadline_ns, job_on_deadline, j);
        bell_ring(p->bells[p->channels[0]->bell].memory, 0, p->doorbell_fd, &(struct bell_memo){0});
        return 0;
}

int job_submit(const struct job_request *r, struct job **ret, struct fault *f) {
        struct pool *p = r->pool;
        uint32_t slot_bytes = jobs_channel(p)->geometry.slot_bytes;
        bool wait;
        const struct schema_job *type = pool_find_job_type(p, r->name, &wait, f);
        if (!type)
                return -1;
        if (r->priority >= LAYOUT_PRIORITIES)
                return fault_set(f, FAULT_INVALID_ARGS, "priority %u: not in 0..%d", r->priority,
                                 LAYOUT_PRIORITIES - 1);
        if (r->bytes > slot_bytes)
                return fault_set(f, FAULT_LIMITS_EXCEEDED,
                                 "%s: %zu bytes of arguments are more than pool %s takes (SlotSize=%u)", r->name,
                                 r->bytes, p->config.name, slot_bytes);
        if (job_check_room(p, f) < 0)
                return -1;
        struct job *j = job_new(r, type);
        if (!j)
                return fault_set(f, FAULT_INTERNAL, "out of memory");
        if (job_enter(j, type, r->payload, f) < 0) {
                job_drop(j);
                return -1;
        }
        *ret = j;
        return 0;
}

/* ---- once more ---- */

static bool job_type_is_unchanged(const struct job *j, const struct schema_job *type) {
        size_t bytes = offsetof(struct schema_fields, field) + type->result.n_fields * sizeof(struct schema_field);
        return type->result.n_fields == j->result_fields->n_fields &&
               memcmp(&type->result, j->result_fields, bytes) == 0;
}

static int job_check_requeue(const struct job *j, struct fault *f) {
        unsigned long long id = j->id;
        if (!j->is_finished)
                return fault_set(f, FAULT_NOT_FINISHED, "job %llu has no verdict yet: there is nothing to queue again",
                                 id);
        if (j->state == SLOT_DONE)
                return fault_set(f, FAULT_INVALID_ARGS, "job %llu is done: submit another one instead", id);
        if (!j->pool)
                return fault_set(f, FAULT_NO_SUCH_POOL, "job %llu cannot run again: its pool %.64s is gone", id,
                                 j->pool_name);
        if (!j->payload)
                return fault_set(f, FAULT_INVALID_ARGS, "job %llu cannot run again: its arguments were not kept", id);
        return 0;
}

/* What it was told and what it brought with it belongs to the life before. */
static void job_begin_again(struct job *j) {
        job_keep_again(j);
        j->is_finished = false;
        j->state = SLOT_QUEUED;
        j->attempt = 0;
        j->worker_pid = 0;
        j->started_ns = j->finished_ns = j->cpu_ns = 0;
        j->error_number = 0;
        j->verdict = (struct layout_verdict){0};
        free(j->error);
        j->error = NULL;
}

int job_requeue(struct job *j, struct fault *f) {
        bool wait;
        if (job_check_requeue(j, f) < 0)
                return -1;
        const struct schema_job *type = pool_find_job_type(j->pool, j->name, &wait, f);
        if (!type)
                return -1;
        if (!job_type_is_unchanged(j, type) || j->payload_bytes > jobs_channel(j->pool)->geometry.slot_bytes)
                return fault_set(f, FAULT_INVALID_ARGS,
                                 "job %llu cannot run again: job type %.64s of pool %.64s is another one now",
                                 (unsigned long long)j->id, j->name, j->pool_name);
        if (job_check_room(j->pool, f) < 0)
                return -1;
        job_begin_again(j);
        int r = job_enter(j, type, j->payload, f);
        if (r < 0) {
                job_finish(j, SLOT_LOST);
                job_set_error(j, "%.380s", f->text);
                job_keep_finished(j);
                job_tell(j);
                return -1;
        }
        free(j->payload);
        j->payload = NULL;
        return 0;
}

int pool_requeue_poisoned(struct pool *p, uint32_t *ret_n, struct fault *f) {
        struct jobs *js = p->supervisor->jobs;
        struct job *next;
        uint32_t n = 0;
        if (!job_check_pool(p, f))
                return -1;
        for (struct job *j = TAILQ_FIRST(&js->all); j; j = next) {
                next = TAILQ_NEXT(j, all_link);
                if (j->pool != p || !j->is_finished || j->state != SLOT_POISONED)
                        continue;
                if (job_requeue(j, f) == 0)
                        n++;
                else if (f->code == FAULT_QUEUE_FULL) /* those that remain can be asked for again */
                        break;
        }
        *ret_n = n;
        return 0;
}
