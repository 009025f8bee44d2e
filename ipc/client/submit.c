/* Handing jobs over: options and arguments are checked here, so that what is accepted is whole; then one slot of the
 * channel takes the job. What only the broker can do goes to bus-job.c instead. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "ipc/client/bus/bus-job.h"
#include "ipc/memory/event.h"
#include "ipc/memory/sealed.h"
#include "ipc/values/priority.h"

static_assert((int)DROVER_LOW == (int)PRIORITY_LOW && (int)DROVER_NORMAL == (int)PRIORITY_NORMAL);
static_assert((int)DROVER_HIGH == (int)PRIORITY_HIGH && (int)DROVER_URGENT == (int)PRIORITY_URGENT);

int submit_read_options(drover *d, const struct drover_options *options, struct drover_options *ret) {
        int r = options_read(d, "drover_options", options, offsetof(struct drover_options, submit_deadline_ns), ret,
                             sizeof *ret);
        if (r < 0)
                return r;
        if (ret->priority < PRIORITY_DEFAULT || ret->priority > PRIORITY_URGENT)
                return connection_fail(d, -EINVAL,
                                       "priority %d is none of 1 (DROVER_LOW) to 4 (DROVER_URGENT), nor 0, the default",
                                       ret->priority);
        if (ret->max_attempts > LAYOUT_MAX_ATTEMPTS)
                return connection_fail(d, -EINVAL, "max_attempts %u is more than %d", ret->max_attempts,
                                       LAYOUT_MAX_ATTEMPTS);
        if (ret->flags & ~(uint32_t)(DROVER_DETACHED | DROVER_STREAMED))
                return connection_fail(d, -EINVAL, "flags 0x%x are not known", ret->flags);
        return 0;
}

int submit_find_type(drover_pool *p, const char *job, uint32_t *ret_type) {
        if (!p->session)
                return -ECONNABORTED;
        if (!job || !schema_find(session_schema(p->session), job, ret_type))
                return connection_fail(p->drover, -ENXIO, "plugin %s of pool %s has no job \"%.64s\"",
                                       drover_pool_plugin(p), p->name, job ? job : "");
        return 0;
}

/* On the wire a descriptor's field holds a small number, and so does one that was filled with a number. There are as
 * many descriptors as fields of type fd, or a field has none. */
static int submit_check_fds(drover_pool *p, const struct submission *s, const struct schema_job *job) {
        uint32_t n_given = s->args ? s->args->n_fds : 0, seen = 0;
        if (n_given > job->args.n_fds)
                return connection_fail(p->drover, -EINVAL,
                                       "job %s: %u descriptors were given, and %u of its arguments are of type fd",
                                       job->name, n_given, (unsigned)job->args.n_fds);
        for (uint32_t i = 0; i < job->args.n_fields && n_given < job->args.n_fds; i++) {
                const struct schema_field *field = &job->args.field[i];
                struct args_value v;
                if (field->type != SCHEMA_FD)
                        continue;
                if (args_get(s->payload, s->bytes, field->name, SCHEMA_FD, &v) < 0 || v.u64 >= n_given ||
                    seen & 1u << v.u64)
                        return connection_fail(p->drover, -EINVAL,
                                               "job %s: argument \"%s\": expected a descriptor (drover_args_fd), got a "
                                               "number",
                                               job->name, field->name);
                seen |= 1u << v.u64;
        }
        return 0;
}

static int submit_check(drover_pool *p, const struct submission *s, bool is_raw) {
        const struct schema_job *job = &session_schema(p->session)->jobs[s->type];
        char why[DROVER_ERROR_TEXT / 2];
        if (is_raw && !job->args.is_raw)
                return connection_fail(p->drover, -EINVAL, "job %s takes arguments by name, not a raw payload",
                                       job->name);
        if (!is_raw && job->args.is_raw && s->bytes > 0)
                return connection_fail(p->drover, -EINVAL, "job %s is raw: it takes no arguments by name", job->name);
        if (args_check(&job->args, s->payload, s->bytes, why, sizeof why) < 0)
                return connection_fail(p->drover, -EINVAL, "job %s: %s", job->name, why);
        return submit_check_fds(p, s, job);
}

int submit_read_args(drover_pool *p, drover_args *args, struct submission *s) {
        s->payload = NULL;
        s->bytes = 0;
        s->args = args;
        int r = args ? builder_complete(args, &s->payload, &s->bytes) : 0;
        if (r < 0)
                return connection_fail(p->drover, r, "the arguments of job %s could not be put together: %s", s->job,
                                       builder_why(args));
        return submit_check(p, s, args && args->is_raw);
}

/* ---- one try ---- */

static int submit_failed(drover_pool *p, const struct submission *s, int error) {
        switch (error) {
        case -EAGAIN:
                if (session_is_ending(p->session))
                        return connection_fail(
                                p->drover, error,
                                "pool %s: droverd ends, and the next one is not there yet: job %s was not "
                                "submitted",
                                p->name, s->job);
                if (session_is_away(p->session))
                        return connection_fail(p->drover, error,
                                               "pool %s: droverd is away, and job %s has descriptors that only a next "
                                               "one can take",
                                               p->name, s->job);
                return connection_fail(
                        p->drover, error,
                        "pool %s: all %u slots of this channel are taken, or as many descriptors of jobs "
                        "and results are on their way as may be, or droverd has yet to read them",
                        p->name, p->n_slots);
        case -EMSGSIZE:
                return connection_fail(p->drover, error,
                                       "job %s: the arguments take %zu bytes, at most %llu are possible", s->job,
                                       s->bytes, (unsigned long long)SEALED_MAX_BYTES);
        case -ESHUTDOWN:
                return connection_fail(p->drover, error, "pool %s takes no more jobs: it is stopped or draining",
                                       p->name);
        case -EPIPE:
                if (p->session && session_is_foul(p->session))
                        return connection_fail(p->drover, error,
                                               "pool %s: a worker wrote over this channel: open the pool again",
                                               p->name);
                return connection_fail(p->drover, error, "droverd went away");
        default:
                return connection_fail(p->drover, error, "job %s: %s", s->job, strerror(-error));
        }
}

/* 1: over the bus. 0: into the channel, held back if it comes after others. */
static int submit_needs_broker(drover *d, const struct drover_options *o) {
        bool is_for_bus = o->flags & (DROVER_DETACHED | DROVER_STREAMED) || o->idempotency_key;
        int ours = o->n_after > 0 ? after_are_ours(d, o) : 0;
        if (ours == 1 && is_for_bus)
                return connection_fail(d, -EINVAL,
                                       "after: a job over the bus (DROVER_DETACHED, DROVER_STREAMED, idempotency_key) "
                                       "cannot come after "
                                       "a job of a channel");
        return ours < 0 ? ours : is_for_bus || (o->n_after > 0 && ours == 0);
}

int submit_try(drover_pool *p, const struct submission *s, drover_future **ret) {
        if (p->is_gone)
                return submit_failed(p, s, p->session ? -EPIPE : -ECONNABORTED);
        if (p->is_shut)
                return connection_fail(p->drover, -ESHUTDOWN, "pool %s: drover_pool_drain() was called", p->name);
        const struct drover_options *o = s->options;
        int r = submit_needs_broker(p->drover, o);
        if (r != 0)
                return r < 0 ? r : bus_job_submit(p, s, ret);
        const struct session_job job = {
                .type = s->type,
                .priority = priority_ring((uint32_t)o->priority),
                .max_attempts = o->max_attempts,
                .queue_deadline_ns = o->queue_deadline_ns == DROVER_FOREVER ? 0 : o->queue_deadline_ns,
                .not_before_ns = o->not_before_ns,
                .soft_ns = o->soft_limit_ns,
                .hard_ns = o->hard_limit_ns,
                .payload = s->payload,
                .bytes = s->bytes,
                .fds = s->args ? s->args->fds : NULL,
                .n_fds = s->args ? s->args->n_fds : 0,
                .has_payload_fd = s->args && s->args->has_payload_fd,
                .payload_fd = s->args ? s->args->payload_fd : -1,
                .is_quiet = s->is_quiet,
                .is_held = o->n_after > 0,
        };
        drover_future *f = NULL;
        struct after *after = NULL;
        if (ret || job.is_held)
                r = future_new(&f, p->drover, p, ret ? 2 : 1); /* the caller's and ours */
        if (r == 0 && job.is_held && !(after = after_new(o)))
                r = -ENOMEM;
        uint32_t slot;
        if (r == 0)
                r = session_submit(p->session, &job, &slot);
        if (r < 0) {
                future_drop(f);
                after_free(after);
                return submit_failed(p, s, r);
        }
        p->must_ring = p->must_ring || s->is_quiet;
        p->is_busy[slot] = true;
        p->by_slot[slot] = f;
        p->references++;
        p->n_in_flight++;
        if (session_next_deadline(p->session) < p->drover->wake_ns) /* its own, or the pool's */
                p->drover->wake_ns = 0;
        if (f) {
                f->slot = slot;
                f->type = s->type;
                f->id = session_job_id(p->session, slot);
        }
        if (ret)
                *ret = f;
        if (job.is_held)
                after_start(f, after, o);
        return 0;
}

/* ---- the calls ---- */

bool submit_is_for_bus(drover_pool *p, const struct submission *s) {
        return submit_needs_broker(p->drover, s->options) > 0;
}

/* Until there is room, or the deadline. */
static int submit_wait(drover_pool *p, const struct submission *s, uint64_t deadline_ns, drover_future **ret) {
        for (;;) {
                engine_collect(p->drover);
                int r = submit_try(p, s, ret);
                if (r != -EAGAIN)
                        return r;
                if (event_now_ns() >= deadline_ns)
                        return connection_fail(p->drover, -ETIMEDOUT,
                                               session_is_away(p->session) || session_is_ending(p->session)
                                                       ? "pool %s: no droverd took job %s until the deadline"
                                                       : "pool %s had no room for job %s until the deadline",
                                               p->name, s->job);
                engine_wait_room(p->drover, submit_is_for_bus(p, s), deadline_ns);
        }
}

static int submit_job(drover_pool *p, struct submission *s, drover_args *args, const struct drover_options *options,
                      drover_future **ret) {
        drover *d = p->drover;
        struct drover_options whole;
        int r = connection_check(d);
        if (r >= 0)
                r = submit_read_options(d, options, &whole);
        if (r >= 0)
                r = submit_find_type(p, s->job, &s->type);
        if (r >= 0)
                r = args ? submit_read_args(p, args, s) : submit_check(p, s, s->payload != NULL);
        if (r < 0)
                return r;
        s->options = &whole;
        r = submit_try(p, s, ret);
        return r == -EAGAIN && whole.submit_deadline_ns ? submit_wait(p, s, whole.submit_deadline_ns, ret) : r;
}

int drover_submit(drover_pool *pool, const char *job, drover_args *args, const struct drover_options *options,
                  drover_future **ret_future) {
        struct submission s = {.job = job};
        return submit_job(pool, &s, args, options, ret_future);
}

int drover_submit_raw(drover_pool *pool, const char *job, const void *data, size_t bytes,
                      const struct drover_options *options, drover_future **ret_future) {
        struct submission s = {.job = job, .payload = data ? data : "", .bytes = bytes};
        int r = connection_check(pool->drover);
        if (r >= 0 && bytes > 0 && !data)
                r = connection_fail(pool->drover, -EINVAL, "job %s: its payload is NULL, but its size is %zu", job,
                                    bytes);
        if (r < 0)
                return r;
        return submit_job(pool, &s, NULL, options, ret_future);
}

static void submit_deinit_args(drover_args *args) { builder_deinit(args); }

int drover_submitf(drover_pool *pool, drover_future **ret_future, const char *job, const char *signature, ...) {
        __attribute__((cleanup(submit_deinit_args))) drover_args args;
        char error[DROVER_ERROR_TEXT / 2];
        builder_init(&args);
        if (!connection_is_ours(pool->drover))
                return -ECHILD;
        va_list ap;
        va_start(ap, signature);
        int r = builder_put_all(&args, signature, ap, error, sizeof error);
        va_end(ap);
        if (r < 0)
                return connection_fail(pool->drover, r, "job %s, signature \"%s\": %s", job, signature, error);
        struct submission s = {.job = job};
        return submit_job(pool, &s, &args, NULL, ret_future);
}
