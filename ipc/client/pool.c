/* A pool as this process sees it: one channel, however many handles, and the futures of the jobs in it.
 *
 * A pool is referenced by its handles and by every job without a verdict, so that a dropped handle cancels nothing: the
 * channel is closed when the last verdict is in. Which job is whose is known by slot, privately. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/client/bus/bus-job.h"
#include "ipc/memory/event.h"
#include "ipc/values/words.h"

/* ---- opening ---- */

/* session_open tells the bus error's "name: message". */
static int pool_refused(drover *d, int code, const char *name, const char *error) {
        const char *message = strncmp(error, "org.", 4) == 0 ? strstr(error, ": ") : NULL;
        return connection_fail(d, errors_code(error, code), "pool %s: %s", name,
                               message  ? message + 2
                               : *error ? error
                                        : strerror(-code));
}

/* 1 and a reference to one that still serves: not of a pool that was removed, nor of a daemon that ended. Or 0, or
 * -ETIMEDOUT. */
static int pool_find(drover *d, const char *name, uint64_t deadline_ns, drover_pool **ret) {
        int serves = 0;
        for (drover_pool *p = LIST_FIRST(&d->pools), *next; p && serves == 0; p = next) {
                drover_pool_ref(p); /* looking takes in what the bus says, which may be about its last job */
                if (strcmp(p->name, name) == 0 && !p->is_gone && !p->is_shut)
                        serves = session_takes_jobs(p->session, deadline_ns);
                next = LIST_NEXT(p, of_drover);
                if (serves > 0)
                        *ret = p;
                else
                        drover_pool_unref(p);
        }
        return serves;
}

static drover_pool *pool_free(drover_pool *p) {
        if (p->drover)
                connection_unref(p->drover);
        free(p->name);
        free(p->by_slot);
        free(p->is_busy);
        free(p);
        return NULL;
}

static int pool_new(drover_pool **ret, drover *d, const char *name, uint64_t deadline_ns) {
        char error[DROVER_ERROR_TEXT] = "";
        drover_pool *p = calloc(1, sizeof *p);
        if (!p)
                return -ENOMEM;
        *p = (drover_pool){.name = strdup(name), .references = 1};
        int r = p->name ? session_open_until(&p->session, d->bus, name, deadline_ns, error, sizeof error) : -ENOMEM;
        if (r < 0)
                r = pool_refused(d, r, name, error);
        if (r >= 0) {
                session_on_bus_lost(p->session, bus_open_for_session, d);
                p->n_slots = session_slots(p->session);
                p->by_slot = calloc(p->n_slots, sizeof(drover_future *));
                p->is_busy = calloc(p->n_slots, sizeof(bool));
                r = p->by_slot && p->is_busy ? after_prepare(d) : -ENOMEM;
                if (r >= 0)
                        r = connection_watch_session(d, p->session);
                if (r < 0)
                        connection_fail(d, r, "pool %s: %s", name, strerror(-r));
        }
        if (r < 0) {
                session_free(p->session);
                pool_free(p);
                return r;
        }
        p->drover = connection_ref(d);
        LIST_INSERT_HEAD(&d->pools, p, of_drover);
        *ret = p;
        return 0;
}

int drover_pool_open(drover *d, const char *name, drover_pool **ret_pool) {
        int r = connection_check(d);
        if (r < 0)
                return r;
        if (!name || !*name)
                return connection_fail(d, -EINVAL, "a pool needs a name");
        uint64_t deadline_ns = event_now_ns() + SESSION_OPEN_NS;
        drover_pool *p;
        r = pool_find(d, name, deadline_ns, &p);
        if (r > 0) {
                *ret_pool = p;
                return 0;
        }
        if (r < 0)
                return connection_fail(
                        d, r, "pool %s: the next droverd does not answer whether it takes its channel over", name);
        r = bus_open_for_call(d);
        if (r >= 0)
                r = pool_new(&p, d, name, deadline_ns);
        if (r < 0)
                return r;
        d->wake_ns = 0;
        *ret_pool = p;
        return 0;
}

drover_pool *drover_pool_ref(drover_pool *pool) {
        pool->references++;
        return pool;
}

/* What is left of it serves to give references back. */
static void pool_close(drover_pool *p) {
        if (!p->session)
                return;
        connection_look_for_fds(p->drover);
        LIST_REMOVE(p, of_drover);
        p->is_gone = true;
        if (connection_is_ours(p->drover)) {
                connection_unwatch_session(p->drover, p->session);
                p->session = session_free(p->session);
        } else
                p->session = session_forget(p->session);
}

drover_pool *drover_pool_unref(drover_pool *pool) {
        if (!pool || --pool->references > 0)
                return NULL;
        pool_close(pool);
        return pool_free(pool);
}

const char *drover_pool_name(const drover_pool *pool) { return pool->name; }

const char *drover_pool_plugin(const drover_pool *pool) {
        return pool->session ? session_schema(pool->session)->plugin : "";
}

uint32_t drover_pool_slots(const drover_pool *pool) { return pool->n_slots; }

uint32_t drover_pool_in_flight(const drover_pool *pool) { return pool->n_in_flight + pool->n_bus_jobs; }

/* ---- verdicts ---- */

/* Which job of which pool it is, and the plugin's name for it: for people. */
static const char *pool_job_name(const drover_pool *p, const drover_future *f) {
        const struct schema *schema = session_schema(p->session);
        return f->type < schema->n_jobs ? schema->jobs[f->type].name : "?";
}

static enum drover_state pool_state(unsigned state) {
        static const enum drover_state states[SLOT_N_STATES] = {
                [SLOT_RUNNING] = DROVER_RUNNING,   [SLOT_DONE] = DROVER_DONE,
                [SLOT_FAILED] = DROVER_FAILED,     [SLOT_CANCELLED] = DROVER_CANCELLED,
                [SLOT_EXPIRED] = DROVER_EXPIRED,   [SLOT_TIMED_OUT] = DROVER_TIMED_OUT,
                [SLOT_POISONED] = DROVER_POISONED, [SLOT_LOST] = DROVER_LOST,
        };
        return state < SLOT_N_STATES ? states[state] : DROVER_LOST;
}

enum drover_state pool_look_at(const drover_pool *p, uint32_t slot) {
        /* A verdict that was not fetched yet is none: the future has no result. */
        unsigned state = slot_state(session_look_at(p->session, slot));
        return state == SLOT_QUEUED || state == SLOT_DELAYED ? DROVER_QUEUED : DROVER_RUNNING;
}

/* The slot holds no job of ours any more: its future, if anybody wants to know. */
static drover_future *pool_take(drover_pool *p, uint32_t slot) {
        drover_future *f = p->by_slot[slot];
        p->by_slot[slot] = NULL;
        p->is_busy[slot] = false;
        p->n_in_flight--;
        p->drover->n_ended++;
        return f;
}

static void pool_explain(const drover_pool *p, const drover_future *f, const struct session_result *r,
                         struct future_verdict *v, char *text, size_t text_bytes) {
        const struct layout_verdict *line = &r->verdict;
        v->signal = line->reason == REASON_EXIT ? 0 : (int32_t)line->signal;
        v->status = line->reason == REASON_EXIT ? (int32_t)line->status : 0;
        v->reason = words_reason(line->reason);
        v->job = pool_job_name(p, f);
        v->pool = p->name;
        if (r->state == SLOT_FAILED)
                return;
        if (r->state != SLOT_CANCELLED || !after_explain(f, text, text_bytes))
                session_describe(r, text, text_bytes);
        v->data = text;
        v->bytes = strlen(text);
}

void pool_deliver(drover_pool *p, const struct session_result *r) {
        drover_future *f = pool_take(p, r->slot);
        after_note(p->drover, r->id, pool_state(r->state));
        struct session_fds *fds = session_take_fds(p->session);
        if (!f)
                session_fds_free(fds);
        if (f) {
                char text[DROVER_ERROR_TEXT];
                struct future_verdict v = {
                        .state = pool_state(r->state),
                        .code = future_code(pool_state(r->state), r->error),
                        .data = r->data,
                        .bytes = r->bytes,
                        .fds = fds,
                        .block = session_block(p->session),
                        .attempt = r->verdict.attempts ? r->verdict.attempts : r->attempt,
                        .worker_pid = (int32_t)r->worker_pid,
                        .submitted_ns = r->queued_ns,
                        .started_ns = r->started_ns,
                        .finished_ns = r->finished_ns,
                };
                if (r->state != SLOT_DONE)
                        pool_explain(p, f, r, &v, text, sizeof text);
                future_end(f, &v);
        }
        drover_pool_unref(p);
}

void pool_lose(drover_pool *p, int code, const char *why) {
        p->is_gone = true;
        if (connection_is_ours(p->drover))
                connection_unwatch_session(p->drover, p->session);
        drover_pool_ref(p);
        for (uint32_t slot = 0; slot < p->n_slots; slot++) {
                if (!p->is_busy[slot])
                        continue;
                drover_future *f = pool_take(p, slot);
                after_note(p->drover, session_job_id(p->session, slot), DROVER_LOST);
                if (f)
                        future_end(f, &(struct future_verdict){.state = DROVER_LOST,
                                                               .code = code,
                                                               .data = why,
                                                               .bytes = strlen(why),
                                                               .job = pool_job_name(p, f),
                                                               .pool = p->name});
                drover_pool_unref(p);
        }
        drover_pool_unref(p);
}

int pool_check_number(drover_pool *p, const drover_future *f) {
        if (session_has_number(p->session, f->id))
                return 0;
        return connection_fail(p->drover, -ESTALE,
                               "job %llu cannot be named any more: the next droverd gave its channel other numbers",
                               (unsigned long long)f->id);
}

int pool_cancel_job(drover_pool *p, drover_future *f, enum drover_cancel_mode mode) {
        if (session_cancel_queued(p->session, f->slot))
                return DROVER_CANCEL_DONE;
        if (mode == DROVER_CANCEL_KILL) {
                int r = pool_check_number(p, f);
                if (r >= 0)
                        r = bus_job_cancel(p->drover, f->id, mode);
                /* The broker knows the jobs of channels only until they end. */
                return r == -ENOENT && slot_is_verdict(session_look_at(p->session, f->slot)) ? DROVER_CANCEL_TOO_LATE
                                                                                             : r;
        }
        if (mode == DROVER_CANCEL_QUEUED)
                return connection_fail(p->drover, -EBUSY, "job %llu runs already", (unsigned long long)f->id);
        int met = session_cancel(p->session, f->slot);
        switch (met) {
        case SLOT_QUEUED:
                return DROVER_CANCEL_DONE;
        case SLOT_RUNNING:
                return DROVER_CANCEL_ASKED;
        default:
                return met < 0 ? met : DROVER_CANCEL_TOO_LATE;
        }
}

void pool_ring(drover_pool *p) {
        if (!p->must_ring)
                return;
        p->must_ring = false;
        session_ring(p->session);
}

void pool_end(drover_pool *p, const char *why) {
        drover_pool_ref(p);
        pool_lose(p, -ECONNABORTED, why);
        pool_close(p);
        drover_pool_unref(p);
}

/* ---- shutting down ---- */

static bool pool_is_idle(void *user) {
        const drover_pool *p = user;
        return p->n_in_flight + p->n_bus_jobs == 0;
}

static int pool_shut_down(drover_pool *p, bool cancels, uint64_t deadline_ns) {
        int r = connection_check(p->drover);
        if (r < 0)
                return r;
        p->is_shut = true;
        pool_ring(p);
        for (uint32_t slot = 0; cancels && slot < p->n_slots; slot++)
                if (p->is_busy[slot])
                        session_cancel_queued(p->session, slot);
        if (cancels)
                bus_job_cancel_queued(p);
        drover_pool_ref(p);
        r = engine_wait(p->drover, pool_is_idle, p, deadline_ns);
        drover_pool_unref(p);
        return r;
}

static bool pool_all_are_idle(void *user) {
        drover *d = user;
        drover_pool *p;
        LIST_FOREACH(p, &d->pools, of_drover)
                if (!pool_is_idle(p))
                        return false;
        return true;
}

int drover_drain(drover *d, uint64_t deadline_ns) {
        int r = connection_check(d);
        if (r < 0)
                return r;
        drover_pool *p;
        LIST_FOREACH(p, &d->pools, of_drover) {
                p->is_shut = true;
                pool_ring(p);
        }
        return engine_wait(d, pool_all_are_idle, d, deadline_ns);
}

int drover_pool_drain(drover_pool *pool, uint64_t deadline_ns) { return pool_shut_down(pool, false, deadline_ns); }

int drover_pool_cancel(drover_pool *pool, uint64_t deadline_ns) { return pool_shut_down(pool, true, deadline_ns); }
