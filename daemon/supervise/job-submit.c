/* From a request over the bus to a queued job: what must be so, a record, a slot, the ring of the bell. */
#include <search.h>
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
        size_t fields_bytes =
                offsetof(struct schema_fields, field) + type->result.n_fields * sizeof(struct schema_field);
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
                return fault_set(f, FAULT_INVALID_ARGS, "priority %u: not in 0..%d", r->priority,
                                 LAYOUT_PRIORITIES - 1);
        if (r->bytes > c->geometry.slot_bytes)
                return fault_set(f, FAULT_LIMITS_EXCEEDED,
                                 "%s: %zu bytes of arguments are more than pool %s takes (SlotSize=%u)", r->name,
                                 r->bytes, p->config.name, c->geometry.slot_bytes);
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
