/* The calls that wait.
 *
 * Each stands in its caller's list, so that the caller's end finds it, and counts towards the caller's limit. Ownership
 * is simple: a call owns a reference to its message; a Run also owns its job, whose verdict nobody else will ask for. A
 * call leaves every list before it is answered, because answering may make new calls.
 *
 * A change of a pool begins a round: whoever has waited since an earlier one tries again, some at a time. Who has to
 * wait once more waits for the next round. */
#include "daemon/bus/call.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/loop/closer.h"
#include "daemon/loop/fd-share.h"

enum { CALL_RETRIES = 64 };

static int call_new(struct bus_peer *p, sd_bus_message *m, enum bus_call_kind kind, struct bus_call **ret) {
        struct bus_call *c = calloc(1, sizeof(*c));

        if (!c || quota_take(&p->bus->calls_of, p->uid, 1, UINT64_MAX) < 0) {
                free(c);
                return -ENOMEM;
        }
        c->peer = p;
        c->kind = kind;
        c->message = sd_bus_message_ref(m);
        c->weight = p->bus->call;
        c->round = p->bus->retry_round;
        weight_add(&p->user->turn.sum, c->weight);
        TAILQ_INSERT_TAIL(&p->calls, c, link);
        if (kind == CALL_POOL)
                TAILQ_INSERT_TAIL(&p->bus->waiting_for_pool, c, pool_link);
        if (kind == CALL_ROOM)
                TAILQ_INSERT_TAIL(&p->bus->waiting_for_room, c, pool_link);
        p->bus->n_room_calls += kind == CALL_ROOM;
        p->n_calls++;
        *ret = c;
        return 0;
}

static void call_unlink(struct bus_call *c) {
        TAILQ_REMOVE(&c->peer->calls, c, link);
        if (c->kind == CALL_POOL)
                TAILQ_REMOVE(&c->peer->bus->waiting_for_pool, c, pool_link);
        if (c->kind == CALL_ROOM)
                TAILQ_REMOVE(&c->peer->bus->waiting_for_room, c, pool_link);
        c->peer->bus->n_room_calls -= c->kind == CALL_ROOM;
        c->peer->n_calls--;
        weight_subtract(&c->peer->user->turn.sum, c->weight);
        quota_give(&c->peer->bus->calls_of, c->peer->uid, 1);
        loop_timer_stop(&c->timer);
}

static void call_free(struct bus_call *c) {
        closer_blame(c->peer->uid);
        sd_bus_message_unref(c->message);
        free(c);
}

int call_check_numbers(const struct bus *b, sd_bus_error *e) {
        if (fd_share_has_next(FD_SHARE_CALLS, sd_bus_get_fd(b->bus)))
                return 0;
        return sd_bus_error_setf(e, SD_BUS_ERROR_LIMITS_EXCEEDED,
                                 "droverd has as many descriptors as it may: it keeps no more calls waiting");
}

int call_too_much(const struct bus_peer *p, sd_bus_error *e) {
        return sd_bus_error_setf(e, SD_BUS_ERROR_LIMITS_EXCEEDED,
                                 "the calls of uid %u that wait have too many bytes or descriptors", (unsigned)p->uid);
}

int call_check_descriptors(const struct bus *b, sd_bus_error *e) {
        return b->call.n_fds > 0 ? call_check_numbers(b, e) : 0;
}

int call_check_room(struct bus_peer *p, sd_bus_error *e) {
        int r = call_check_descriptors(p->bus, e);

        if (r < 0)
                return r;
        if (p->n_calls >= BUS_MAX_CALLS)
                return sd_bus_error_setf(e, SD_BUS_ERROR_LIMITS_EXCEEDED, "%s has %d calls waiting already; use Submit",
                                         p->name, BUS_MAX_CALLS);
        if (!quota_has_room(&p->bus->calls_of, p->uid, BUS_MAX_CALLS_OF_UID))
                return sd_bus_error_setf(e, SD_BUS_ERROR_LIMITS_EXCEEDED,
                                         "uid %u has %d calls waiting already; use Submit", (unsigned)p->uid,
                                         BUS_MAX_CALLS_OF_UID);
        if (!turn_may_keep(p))
                return call_too_much(p, e);
        return 0;
}

/* ---- for a pool ---- */

int call_wait_pool(struct bus_peer *p, sd_bus_message *m, bus_method_fn fn) {
        struct bus_call *c;
        int r;

        r = call_new(p, m, CALL_POOL, &c);
        if (r < 0)
                return r;
        c->fn = fn;
        return 1;
}

static void call_run_again(struct bus_call *c) {
        struct bus *b = c->peer->bus;

        b->call = c->weight;
        if (sd_bus_message_rewind(c->message, true) >= 0)
                bus_run(b, c->peer, c->message, c->fn);
        call_free(c);
}

bool call_retry_pool(struct bus *b) {
        struct bus_call *c;

        for (unsigned n = 0; (c = TAILQ_FIRST(&b->waiting_for_pool)) && c->round != b->retry_round; n++) {
                if (n == CALL_RETRIES)
                        return true;
                call_unlink(c);
                call_run_again(c);
        }
        return false;
}

/* ---- for room in a full pool (Overflow=block) ---- */

int call_wait_room(struct bus_peer *p, sd_bus_message *m, bus_method_fn fn, const char *pool) {
        struct bus_call *c;
        int r;

        r = call_new(p, m, CALL_ROOM, &c);
        if (r < 0)
                return r;
        c->fn = fn;
        snprintf(c->pool, sizeof(c->pool), "%s", pool);
        return 1;
}

bool call_retry_room(struct bus *b) {
        struct bus_call *c, *next;
        unsigned n = 0;
        struct pool *p;

        for (c = TAILQ_FIRST(&b->waiting_for_room); c && c->round != b->retry_round; c = next) {
                next = TAILQ_NEXT(c, pool_link);
                p = supervisor_find_pool(b->supervisor, c->pool);
                if (p && !pool_has_room(p, c->peer->uid))
                        continue;
                if (n++ == CALL_RETRIES)
                        return true;
                call_unlink(c);
                call_run_again(c);
        }
        return false;
}

/* ---- for a verdict ---- */

static void call_answer(struct bus_call *c) {
        sd_bus_error e = SD_BUS_ERROR_NULL;
        struct job *j = c->job;
        int r;

        closer_blame(c->peer->uid);
        call_unlink(c);
        r = c->answer(c->peer->bus, c->message, j, &e);
        if (r < 0 || sd_bus_error_is_set(&e))
                bus_reply_error(c->peer->bus, c->message, r, &e);
        sd_bus_error_free(&e);
        if (c->kind == CALL_WAIT)
                farewell_told(c->peer);
        if (c->kind == CALL_RUN)
                job_release(j);
        call_free(c);
}

static void on_verdict(struct job_waiter *w, struct job *j) {
        call_answer((struct bus_call *)((char *)w - offsetof(struct bus_call, waiter)));
}

static void on_timeout(struct loop_timer *t) {
        struct bus_call *c = t->user;

        job_wait_stop(&c->waiter);
        call_answer(c);
}

/* Nobody will read the verdict: the job need not run. */
static void abandon(struct job *j) {
        job_release(j); /* first: one that was still queued is forgotten when it is cancelled */
        job_cancel(j, CANCEL_ABANDON, "its caller, who has left");
}

int call_wait_verdict(struct bus_peer *p, sd_bus_message *m, enum bus_call_kind kind, struct job *j,
                      uint64_t timeout_ns, bus_answer_fn answer) {
        struct loop *loop = p->bus->config.loop;
        struct bus_call *c;
        uint64_t deadline;
        int r;

        r = call_new(p, m, kind, &c);
        if (r < 0) {
                if (kind == CALL_RUN)
                        abandon(j);
                return r;
        }
        c->job = j;
        c->answer = answer;
        if (!__builtin_add_overflow(loop_now(loop), timeout_ns, &deadline))
                loop_timer_set(loop, &c->timer, deadline, on_timeout, c);
        job_wait(j, &c->waiter, on_verdict);
        return 1;
}

/* ---- ends ---- */

void call_cancel_all(struct bus_peer *p) {
        struct bus_call *c;

        while ((c = TAILQ_FIRST(&p->calls))) {
                call_unlink(c);
                if (c->kind == CALL_RUN || c->kind == CALL_WAIT)
                        job_wait_stop(&c->waiter);
                if (c->kind == CALL_RUN)
                        abandon(c->job);
                call_free(c);
        }
}

void call_end_all(struct bus *b) {
        const sd_bus_error e = SD_BUS_ERROR_MAKE_CONST("org.drover1.Error.ShuttingDown", "droverd is shutting down");
        struct bus_peer *p;
        struct bus_call *c;

        TAILQ_FOREACH(p, &b->peers, link) {
                TAILQ_FOREACH(c, &p->calls, link) {
                        sd_bus_reply_method_error(c->message, &e);
                }
                peer_fail_process(p, &e);
                turn_end(p, &e);
        }
}
