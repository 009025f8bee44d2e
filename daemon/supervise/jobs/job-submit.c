/* From a request over the bus to a queued job: what must be so, a record, a slot, the ring of the bell. And the same
 * way once more for a job that did not end well: Requeue keeps its id and its arguments, and forgets its attempts. If
 * there is no record of it any more, both are in its capsule. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/loop/closer.h"
#include "daemon/supervise/channels/delay.h"
#include "daemon/supervise/channels/session.h"
#include "daemon/supervise/jobs/job.h"
#include "daemon/supervise/streams/streams.h"
#include "daemon/supervise/supervisor-internal.h"
#include "ipc/channel/bell.h"
#include "ipc/memory/event.h"
#include "ipc/memory/sealed.h"
#include "ipc/values/args.h"
#include "ipc/values/capsule.h"

enum { ENTER_TRIES = 4 };

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
        *ret_wait = false;
        if (!job_check_pool(p, f))
                return NULL;
        if (!p->schema) {
                *ret_wait = p->state == POOL_STARTING || p->state == POOL_PAUSED;
                fault_set(f, FAULT_POOL_REFUSED, "pool %s is %s: no worker of it was ready yet%s%s", p->config.name,
                          pool_state_word(p->state), p->problem[0] ? ": " : "", p->problem);
                return NULL;
        }
        const struct schema_job *type = schema_find(p->schema, job, NULL);
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

static void job_fill_line(const struct job *j, struct layout_job *line) {
        *line = (struct layout_job){
                .type = j->type,
                .bytes = (uint32_t)j->payload_bytes,
                .priority = j->wish.priority,
                .max_attempts = j->wish.max_attempts,
                .id = j->id,
                .queued_ns = j->submitted_ns,
                .soft_ns = j->wish.soft_ns,
                .hard_ns = j->wish.hard_ns,
        };
}

/* Numbers come to an end before a daemon does: then from the first again, past those that have a record. */
static uint64_t job_next_id(struct supervisor *s) {
        uint64_t id;
        do
                id = numbers_next(s->numbers, NUMBERS_JOB);
        while (jobs_find(s->jobs, id));
        return id;
}

static struct job *job_new(const struct job_request *r, const struct schema_job *type) {
        struct supervisor *s = r->pool->supervisor;
        size_t fields_bytes =
                offsetof(struct schema_fields, field) + type->result.n_fields * sizeof(struct schema_field);
        size_t name_bytes = strlen(type->name) + 1, pool_bytes = strlen(r->pool->config.name) + 1;
        size_t key_bytes = r->key ? strlen(r->key) + 1 : 0;
        const char *connection = r->connection ? r->connection : "";
        size_t connection_bytes = strlen(connection) + 1;
        struct job *j = calloc(1, sizeof(*j) + fields_bytes + name_bytes + pool_bytes + connection_bytes + key_bytes);
        if (!j)
                return NULL;
        char *names = (char *)(j + 1) + fields_bytes;
        *j = (struct job){
                .id = r->id ? r->id : job_next_id(s),
                .jobs = s->jobs,
                .pool = r->pool,
                .uid = r->uid,
                .pid = r->pid,
                .type = type->number,
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
        j->connection = memcpy(names + name_bytes + pool_bytes, connection, connection_bytes);
        if (r->key)
                j->key = memcpy(names + name_bytes + pool_bytes + connection_bytes, r->key, key_bytes);
        if (job_keep(s->jobs, j) < 0) {
                free(j);
                return NULL;
        }
        return j;
}

static int job_commit(struct job *j) {
        struct pool *p = j->pool;
        struct channel *c = jobs_channel(p);
        uint64_t due_ns = job_due_ns(j);
        bool is_early = due_ns > j->submitted_ns;
        job_add_deadline(j, is_early ? due_ns : j->submitted_ns, j->wish.queue_timeout_ns);
        if (job_needs_any(j) || is_early || delay_is_overdue(*job_deadline(j), j->submitted_ns)) {
                int r = channel_commit_delayed(c, j->slot);
                if (r < 0)
                        return r;
                if (job_needs_any(j))
                        job_needs_start(j);
                else
                        job_let_go(j);
                return 0;
        }
        job_add_deadline(j, j->submitted_ns, p->config.queue_timeout_ns);
        int r = channel_accept(c, j->slot, j->wish.priority);
        if (r == -EBUSY)
                return r;
        if (r < 0) /* only of a ring that was written over: accepted, and found when it is mended */
                pool_mend_soon(p);
        bell_ring(p->bells[p->channels[0]->bell].memory, 0, p->doorbell.ring_fd);
        return 0;
}

/* A slot that is free by our books is nobody's: whatever else stands there is scribble, and the next scribble is its
 * author's own loss. */
static int job_begin_slot(struct channel *c, uint32_t slot) {
        int r = channel_begin(c, slot);
        for (unsigned try = 0; r < 0 && try < ENTER_TRIES; try++) {
                uint64_t word = channel_word(c, slot);
                channel_cas(c, slot, word,
                            SLOT_WORD(SLOT_FREE, 0, 0, SLOT_OWNER_NONE, (uint32_t)slot_generation(word) + 1));
                r = channel_begin(c, slot);
        }
        return r;
}

/* Before the job is queued, as a client's would be. */
static int job_bring_fds(struct job *j, const struct job_request *q, uint32_t slot, struct fault *f) {
        struct pool_channel *c = j->pool->channels[0];
        struct descriptors d = {.uid = j->uid, .generation = slot_generation(channel_word(&c->channel, slot))};
        int r = 0;
        if (!closer_has_room(j->uid))
                return session_refuse_unclosed(j->uid, f);
        if (q->payload_fd) {
                r = sealed_check(*q->payload_fd, &d.payload_bytes);
                if (r >= 0 && (d.fds[0] = fcntl(*q->payload_fd, F_DUPFD_CLOEXEC, 3)) < 0)
                        r = -errno;
                d.n_fds = r >= 0;
        }
        for (unsigned i = 0; i < q->n_fds && r >= 0; i++) {
                int fd = fcntl(q->fds[i], F_DUPFD_CLOEXEC, 3);
                if (fd < 0)
                        r = -errno;
                else
                        d.fds[d.n_fds++] = fd;
        }
        if (r >= 0)
                r = descriptors_put(c, DESCRIPTORS_OF_JOB, slot, &d);
        else
                descriptors_close(d.fds, d.n_fds, d.uid);
        j->has_fds = r >= 0;
        if (r == -EPROTO)
                return fault_set(
                        f, FAULT_INVALID_ARGS,
                        "\"payload\" of job %s is no memory file of 1 to %llu bytes that is sealed against writing, "
                        "shrinking and growing",
                        q->name, (unsigned long long)SEALED_MAX_BYTES);
        if (r == -EDQUOT || r == -EMFILE)
                return fault_set(f, FAULT_LIMITS_EXCEEDED, "jobs of pool %s hold as many descriptors as they may",
                                 j->pool->config.name);
        return r < 0 ? fault_set(f, FAULT_INTERNAL, "no memory for the descriptors of job %s", q->name) : 0;
}

/* Into a slot: accepted from here on. `q` NULL: once more, without descriptors. */
static int job_enter(struct job *j, const void *payload, const struct job_request *q, struct fault *f) {
        struct pool *p = j->pool;
        struct channel *c = jobs_channel(p);
        if (job_take_room(j) < 0)
                return fault_set(f, FAULT_INTERNAL, "out of memory");
        uint32_t slot = jobs_take_slot(p);
        int r = job_begin_slot(c, slot);
        bool is_told = false;
        if (r == 0 && q && (q->n_fds > 0 || q->payload_fd)) {
                is_told = job_bring_fds(j, q, slot, f) < 0;
                r = is_told ? -EDQUOT : channel_mark_fds(c, slot);
        }
        if (r == 0) {
                memcpy(channel_payload(c, slot), payload, j->payload_bytes);
                job_fill_line(j, channel_job(c, slot));
                j->generation = slot_generation(channel_word(c, slot));
                j->slot = slot;
                p->slot_job[slot] = j;
                r = job_commit(j);
        }
        if (r < 0) { /* without what it came with; else only a pool that scribbles over its own channel comes here */
                loop_timer_stop(&j->deadline_timer);
                descriptors_drop(p->channels[0], DESCRIPTORS_OF_JOB, slot);
                j->slot = JOBS_NO_SLOT;
                jobs_put_slot(p, slot);
                job_give_room(j);
                return is_told ? -1
                               : fault_set(f, FAULT_INTERNAL, "the channel of pool %s does not take the job: %s",
                                           p->config.name, strerror(-r));
        }
        return 0;
}

static int job_check(const struct job_request *r, const struct schema_job *type, struct fault *f) {
        struct pool *p = r->pool;
        uint32_t slot_bytes = jobs_channel(p)->geometry.slot_bytes;
        if (r->priority >= LAYOUT_PRIORITIES)
                return fault_set(f, FAULT_INVALID_ARGS, "priority %u: not in 0..%d", r->priority,
                                 LAYOUT_PRIORITIES - 1);
        if (r->bytes > slot_bytes)
                return fault_set(f, FAULT_LIMITS_EXCEEDED,
                                 "%s: %zu bytes of arguments are more than pool %s takes (SlotSize=%u)", r->name,
                                 r->bytes, p->config.name, slot_bytes);
        if (r->is_streamed && !streams_have_room(p->supervisor->streams, r->uid))
                return fault_set(f, FAULT_LIMITS_EXCEEDED,
                                 "uid %u has as many streams open or to be opened as it may, or there are as many as "
                                 "can be",
                                 (unsigned)r->uid);
        return job_check_room(p, r->uid, type, f);
}

/* 1 and the job that has this key; 0 there is none. */
static int job_join(const struct job_request *r, struct job **ret, struct fault *f) {
        struct job *j = r->key ? jobs_find_key(r->pool->supervisor->jobs, r->uid, r->pool->config.name, r->key) : NULL;
        if (!j)
                return 0;
        if (strcmp(j->name, r->name) != 0)
                return fault_set(f, FAULT_INVALID_ARGS, "idempotency-key \"%.80s\" belongs to job %llu, which is a %s",
                                 r->key, (unsigned long long)j->id, j->name);
        *ret = j;
        return 1;
}

int job_submit(const struct job_request *r, struct job **ret, struct fault *f) {
        bool wait;
        const struct schema_job *type = pool_find_job_type(r->pool, r->name, &wait, f);
        if (!type)
                return -1;
        int joined = job_join(r, ret, f);
        if (joined != 0)
                return joined < 0 ? -1 : 0;
        if (job_check(r, type, f) < 0)
                return -1;
        struct job *j = job_new(r, type);
        if (!j)
                return fault_set(f, FAULT_INTERNAL, "out of memory");
        job_set_times(j, r->not_before_us);
        if (job_needs_new(j, r, f) < 0 || job_enter(j, r->payload, r, f) < 0) {
                job_drop(j);
                return -1;
        }
        if (r->is_streamed)
                stream_reserve(j);
        *ret = j;
        return 0;
}

/* ---- once more ---- */

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
        stream_forget_job(j);
        j->is_finished = false;
        j->state = SLOT_QUEUED;
        j->attempt = 0;
        j->worker_pid = 0;
        j->started_ns = j->finished_ns = j->cpu_ns = 0;
        j->error_number = 0;
        memset(&j->death, 0, sizeof(j->death));
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
        if (type->number != j->type || j->payload_bytes > jobs_channel(j->pool)->geometry.slot_bytes)
                return fault_set(f, FAULT_INVALID_ARGS,
                                 "job %llu cannot run again: job type %.64s of pool %.64s is another one now",
                                 (unsigned long long)j->id, j->name, j->pool_name);
        if (job_check_room(j->pool, j->uid, type, f) < 0)
                return -1;
        job_begin_again(j);
        job_set_times(j, 0);
        int r = job_enter(j, j->payload, NULL, f);
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

/* What the capsule says is checked by the schema as the arguments of any job. */
static int job_read_capsule(const struct capsule *c, struct job_request *r, int *ret_fd, struct fault *f) {
        bool wait;
        const struct schema_job *type = pool_find_job_type(r->pool, c->job, &wait, f);
        char why[200];
        if (!type)
                return -1;
        if (args_check(&type->args, c->payload, c->payload_bytes, why, sizeof(why)) < 0 ||
            args_check_fds(&type->args, c->payload, c->payload_bytes, 0, why, sizeof(why)) < 0)
                return fault_set(f, FAULT_INVALID_ARGS,
                                 "job %llu cannot run again: job type %.64s of pool %.64s is another one now: %s",
                                 (unsigned long long)c->id, c->job, c->pool, why);
        r->payload = c->payload;
        r->bytes = c->payload_bytes;
        if (!type->args.is_raw || r->bytes <= jobs_channel(r->pool)->geometry.slot_bytes)
                return 0;
        if (sealed_create("drover-payload", c->payload, c->payload_bytes, ret_fd) < 0)
                return fault_set(f, FAULT_INTERNAL, "no memory file for the payload of job %llu",
                                 (unsigned long long)c->id);
        r->payload_fd = ret_fd;
        r->bytes = 0;
        return 0;
}

int supervisor_requeue_capsule(struct supervisor *s, const struct capsule *c, struct fault *f) {
        struct job_request r = {.name = c->job, .uid = c->uid, .id = c->id, .priority = LAYOUT_PRIORITY_DEFAULT};
        struct job *j = jobs_find(s->jobs, c->id);
        if (j) /* since it was looked for */
                return job_requeue(j, f);
        if (c->id > LAYOUT_JOB_ID_MASK)
                return fault_set(f, FAULT_INVALID_ARGS,
                                 "job %llu came through a channel, whose jobs are its client's: droverctl resubmit "
                                 "submits it anew",
                                 (unsigned long long)c->id);
        r.pool = supervisor_find_pool(s, c->pool);
        if (!r.pool)
                return fault_set(f, FAULT_NO_SUCH_POOL, "job %llu cannot run again: its pool %.64s is gone",
                                 (unsigned long long)c->id, c->pool);
        int fd = -1;
        if (job_read_capsule(c, &r, &fd, f) < 0)
                return -1;
        int e = job_submit(&r, &j, f);
        if (fd >= 0)
                close(fd);
        return e;
}

int pool_requeue_poisoned(struct pool *p, uint32_t *ret_n, struct fault *f) {
        struct jobs *js = p->supervisor->jobs;
        struct job *next;
        uint32_t n = 0;
        if (!job_check_pool(p, f))
                return -1;
        js->n_telling++; /* nothing expires meanwhile: one that cannot be queued tells its end at once */
        for (struct job *j = TAILQ_FIRST(&js->all); j; j = next) {
                next = TAILQ_NEXT(j, all_link);
                if (j->pool != p || !j->is_finished || j->state != SLOT_POISONED)
                        continue;
                if (job_requeue(j, f) == 0)
                        n++;
                else if (p->n_free_slots == 0) /* those that remain can be asked for again */
                        break;
        }
        if (--js->n_telling == 0)
                jobs_expire(js);
        *ret_n = n;
        return 0;
}
