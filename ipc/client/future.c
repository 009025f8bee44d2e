/* What became of a job.
 *
 * A future is private memory: the result is copied out of the channel when the verdict is found, so that its slot is
 * free again and nobody can change it any more. It is referenced by its owner and, until the verdict, by the pool;
 * results of up to FUTURE_INLINE bytes cost no allocation of their own, and a future that was given back is the next
 * one's memory: a window of them is more than what malloc keeps at hand, and its search cost a sixth of a submission.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/client/bus/bus-job.h"
#include "ipc/client/stream.h"
#include "ipc/values/utf8.h"

/* Only for a job whose result is not here. */
enum { FUTURE_MESSAGE = 4096 };

struct future_failure {
        char where[160], reason[32];
        char message[];
};

int future_code(enum drover_state state, int error) {
        switch (state) {
        case DROVER_QUEUED:
        case DROVER_RUNNING:
                return -EINPROGRESS;
        case DROVER_DONE:
                return 0;
        case DROVER_FAILED:
                return error > 0 ? -error : -EIO;
        case DROVER_CANCELLED:
                return -ECANCELED;
        case DROVER_EXPIRED:
        case DROVER_TIMED_OUT:
                return -ETIME;
        case DROVER_POISONED:
                return -EOWNERDEAD;
        case DROVER_LOST:
                return -EPIPE;
        }
        return -EIO;
}

const char *drover_state_name(enum drover_state state) {
        static const char *const names[] = {
                [DROVER_QUEUED] = "queued",       [DROVER_RUNNING] = "running",     [DROVER_DONE] = "done",
                [DROVER_FAILED] = "failed",       [DROVER_CANCELLED] = "cancelled", [DROVER_EXPIRED] = "expired",
                [DROVER_TIMED_OUT] = "timed-out", [DROVER_POISONED] = "poisoned",   [DROVER_LOST] = "lost",
        };
        return (size_t)state < sizeof names / sizeof *names ? names[state] : "?";
}

/* ---- life ---- */

int future_new(drover_future **ret, drover *d, drover_pool *p, uint32_t references) {
        drover_future *f = d->spare;
        if (f) {
                d->spare = f->next_spare;
                d->n_spare--;
        } else if (!(f = malloc(sizeof *f)))
                return -ENOMEM;
        memset(f, 0, offsetof(drover_future, small));
        f->drover = connection_ref(d);
        f->pool = p;
        f->references = references;
        f->last_callback = &f->callbacks;
        LIST_INIT(&f->watches);
        *ret = f;
        return 0;
}

void future_drop(drover_future *f) {
        if (!f)
                return;
        while (f->callbacks) {
                struct future_callback *c = f->callbacks;
                f->callbacks = c->next;
                free(c);
        }
        while (f->copies) {
                struct future_copy *c = f->copies;
                f->copies = c->next;
                free(c);
        }
        if (f->data != f->small && !(f->fds && f->fds->mapped))
                free((void *)f->data);
        if (f->after)
                after_free(f->after);
        if (f->fds)
                connection_look_for_fds(f->drover);
        if (f->fds && f->drover->has_lost_fds)
                f->fds->n_fds = 0;
        if (f->fds)
                session_fds_free(f->fds);
        if (f->failure)
                free(f->failure);
        if (f->stream)
                stream_free(f->stream);
        drover *d = f->drover;
        if (d->n_spare < FUTURE_SPARE && d->bus) {
                f->next_spare = d->spare;
                d->spare = f;
                d->n_spare++;
        } else
                free(f);
        connection_unref(d);
}

void future_free_spare(drover *d) {
        while (d->spare) {
                drover_future *f = d->spare;
                d->spare = f->next_spare;
                free(f);
        }
        d->n_spare = 0;
        free(d->reserve);
        d->reserve = NULL;
}

int future_reserve(drover *d) {
        if (!d->reserve)
                d->reserve = malloc(sizeof *d->reserve + FUTURE_MESSAGE);
        return d->reserve ? 0 : -ENOMEM;
}

drover_future *drover_future_ref(drover_future *future) {
        future->references++;
        return future;
}

drover_future *drover_future_unref(drover_future *future) {
        if (!future)
                return NULL;
        uint32_t n_left = --future->references;
        if (n_left == 0)
                future_drop(future);
        else if (n_left == 1 && future->stream && !future_has_ended(future)) /* the one that is held for the verdict */
                stream_let_go(future->stream);
        return NULL;
}

/* ---- the verdict ---- */

static void future_keep_result(drover_future *f, const struct future_verdict *v) {
        f->data = v->data;
        f->bytes = v->bytes;
        if (v->fds && v->fds->mapped) /* nobody can change it: it stays where it is */
                return;
        uint8_t *data = v->bytes <= FUTURE_INLINE ? f->small : malloc(v->bytes);
        if (!data) {
                *v->block = NULL;
                return;
        }
        if (v->bytes > 0)
                memcpy(data, v->data, v->bytes);
        f->data = data;
}

/* Without memory what happened is told all the same, and the first time its words, too. */
static void future_keep_failure(drover_future *f, const struct future_verdict *v) {
        size_t bytes = v->data ? v->bytes : 0;
        struct future_failure *x = malloc(sizeof *x + bytes + 1);
        f->error = (drover_error){.code = v->code,
                                  .state = v->state,
                                  .attempt = v->attempt,
                                  .worker_pid = v->worker_pid,
                                  .signal = v->signal,
                                  .status = v->status,
                                  .reason = "",
                                  .message = "there was no memory for the words of this verdict",
                                  .where = ""};
        if (!x) {
                x = f->drover->reserve;
                f->drover->reserve = NULL;
                if (bytes >= FUTURE_MESSAGE)
                        bytes = utf8_cut(v->data, FUTURE_MESSAGE - 1);
        }
        f->failure = x;
        if (!x)
                return;
        if (bytes > 0)
                memcpy(x->message, v->data, bytes);
        x->message[bytes] = 0;
        snprintf(x->where, sizeof x->where, "job %llu (%s of pool %s)", (unsigned long long)f->id,
                 v->job ? v->job : "?", v->pool ? v->pool : "?");
        snprintf(x->reason, sizeof x->reason, "%s", v->reason ? v->reason : "");
        f->error.reason = x->reason;
        f->error.message = x->message;
        f->error.where = x->where;
}

void future_end(drover_future *f, const struct future_verdict *v) {
        f->fds = v->fds;
        if (v->state == DROVER_DONE && v->code == 0)
                future_keep_result(f, v);
        f->state = v->state;
        f->code = v->code;
        f->run.attempt = v->attempt;
        f->run.worker_pid = v->worker_pid;
        f->run.submitted_ns = v->submitted_ns;
        f->run.started_ns = v->started_ns;
        f->run.finished_ns = v->finished_ns;
        f->pool = NULL;
        if (v->code < 0)
                future_keep_failure(f, v);
        if (f->after)
                f->after = after_free(f->after);
        watch_tell(f);
        if (f->callbacks)
                future_call_soon(f);
        drover_future_unref(f);
}

/* ---- looking at it ---- */

enum drover_state drover_future_state(drover_future *future) {
        if (future_has_ended(future) || !connection_is_ours(future->drover))
                return future->state;
        engine_collect(future->drover);
        if (!future_has_ended(future) && future->pool)
                future->state = pool_look_at(future->pool, future->slot);
        else if (!future_has_ended(future) && bus_job_is_running(future->drover, future->id) &&
                 !future_has_ended(future)) /* its verdict may have come before the answer */
                future->state = DROVER_RUNNING;
        return future->state;
}

uint64_t drover_future_id(const drover_future *future) { return future->id; }

static bool future_is_over(void *user) { return future_has_ended(user); }

int drover_future_wait(drover_future *future, uint64_t deadline_ns) {
        if (future_has_ended(future))
                return 0;
        int r = connection_check(future->drover);
        if (r < 0)
                return r;
        drover_future_ref(future);
        r = engine_wait(future->drover, future_is_over, future, deadline_ns);
        drover_future_unref(future);
        return r;
}

static int future_fail_early(const drover_future *f) {
        return connection_fail(f->drover, -EINPROGRESS, "job %llu has no verdict yet", (unsigned long long)f->id);
}

int drover_future_result(const drover_future *future, const void **ret_data, size_t *ret_bytes) {
        if (!future_has_ended(future))
                return future_fail_early(future);
        const drover_error *e = drover_future_error(future);
        if (future->state != DROVER_DONE || e)
                return connection_fail(future->drover, future->code, "job %llu is %s: %s",
                                       (unsigned long long)future->id, drover_state_name(future->state),
                                       e ? e->message : "");
        if (ret_data)
                *ret_data = future->data;
        if (ret_bytes)
                *ret_bytes = future->bytes;
        return 0;
}

int drover_future_get_run(const drover_future *future, struct drover_run *ret_run, size_t struct_bytes) {
        if (!future_has_ended(future))
                return future_fail_early(future);
        if (!ret_run)
                return 0;
        if (struct_bytes > sizeof future->run)
                memset((char *)ret_run + sizeof future->run, 0, struct_bytes - sizeof future->run);
        memcpy(ret_run, &future->run, struct_bytes < sizeof future->run ? struct_bytes : sizeof future->run);
        return 0;
}

const drover_error *drover_future_error(const drover_future *future) {
        return future_has_ended(future) && future->code != 0 ? &future->error : NULL;
}

int drover_future_cancel(drover_future *future, enum drover_cancel_mode mode) {
        int r = connection_check(future->drover);
        if (r >= 0 && (unsigned)mode > DROVER_CANCEL_KILL)
                r = connection_fail(future->drover, -EINVAL,
                                    "cancel mode %d is none of DROVER_CANCEL_QUEUED, _ASK and _KILL", (int)mode);
        if (r < 0)
                return r;
        engine_collect(future->drover);
        if (future_has_ended(future))
                return DROVER_CANCEL_TOO_LATE;
        return future->bus_job ? bus_job_cancel(future->drover, future->id, mode)
                               : pool_cancel_job(future->pool, future, mode);
}

/* ---- callbacks ---- */

void future_call_soon(drover_future *f) {
        if (f->is_called_soon || !f->drover->bus || stream_is_called(f->stream)) /* its items first */
                return;
        f->is_called_soon = true;
        f->drover->wake_ns = 0;
        drover_future_ref(f);
        TAILQ_INSERT_TAIL(&f->drover->called, f, of_called);
}

int drover_future_on_done(drover_future *future, drover_done_fn callback, void *user) {
        int r = connection_check(future->drover);
        if (r < 0)
                return r;
        struct future_callback *c = malloc(sizeof *c);
        if (!c)
                return -ENOMEM;
        *c = (struct future_callback){.fn = callback, .user = user};
        *future->last_callback = c;
        future->last_callback = &c->next;
        if (future_has_ended(future))
                future_call_soon(future);
        return 0;
}

static drover_future *future_take_called(drover *d) {
        drover_future *f = TAILQ_FIRST(&d->called);
        TAILQ_REMOVE(&d->called, f, of_called);
        f->is_called_soon = false;
        return f;
}

/* Those that are asked for meanwhile wait for the next time, too. */
static unsigned future_call(drover_future *f) {
        unsigned n_asked = 0, n = 0;
        struct future_callback *c;
        for (c = f->callbacks; c; c = c->next)
                n_asked++;
        for (; n < n_asked && f->drover->bus; n++) { /* one of them may close it */
                c = f->callbacks;
                struct future_callback call = *c;
                f->callbacks = c->next;
                if (!c->next)
                        f->last_callback = &f->callbacks;
                free(c);
                call.fn(f, call.user);
        }
        return n;
}

static int future_compare_ends(const void *a, const void *b) {
        uint64_t x = future_ended_ns(*(drover_future *const *)a), y = future_ended_ns(*(drover_future *const *)b);
        return (x > y) - (x < y);
}

/* One look may find many, slot by slot. Without memory they stay as they were found. */
static void future_sort_called(drover *d, unsigned n) {
        drover_future **all = calloc(n, sizeof(drover_future *));
        for (unsigned i = 0; all && i < n; i++) {
                all[i] = TAILQ_FIRST(&d->called);
                TAILQ_REMOVE(&d->called, all[i], of_called);
        }
        if (all)
                qsort(all, n, sizeof(drover_future *), future_compare_ends);
        for (unsigned i = 0; all && i < n; i++)
                TAILQ_INSERT_TAIL(&d->called, all[i], of_called);
        free(all);
}

unsigned future_call_all(drover *d) {
        unsigned n_futures = 0, n = 0;
        bool is_sorted = true;
        uint64_t last_ns = 0;
        drover_future *f;
        TAILQ_FOREACH(f, &d->called, of_called) {
                is_sorted = is_sorted && future_ended_ns(f) >= last_ns;
                last_ns = future_ended_ns(f);
                n_futures++;
        }
        if (!is_sorted)
                future_sort_called(d, n_futures);
        /* Those that come while these are called wait for the next time: a callback may submit for ever. */
        for (; n_futures > 0 && !TAILQ_EMPTY(&d->called); n_futures--) {
                f = future_take_called(d);
                n += future_call(f);
                drover_future_unref(f);
        }
        return n;
}

void future_forget_calls(drover *d) {
        while (!TAILQ_EMPTY(&d->called))
                drover_future_unref(future_take_called(d));
}
