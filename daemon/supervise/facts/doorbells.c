/* What sessions and workers ring to reach the broker: one doorbell each, so nobody can break another's.
 *
 * A ring costs its sender next to nothing and us a look at the whole pool. So those that belong together (the sessions
 * of one uid in a pool; a worker by itself) are heard so often in a time and then rest. One that rests stays readable:
 * what it was rung for waits, and is not lost.
 *
 * Invariants: a doorbell that nobody can ring any more (its holder closed it, or shut it down) is not polled again;
 * what is bad about that is its holder's business. The end of the ringers is given away and not kept. Descriptors may
 * be sent by it, though nobody does: the first end it (on_foul), those of a user whose closes wait are left in it, and
 * daemon/loop/closer.c closes our end over what is unread. */
#include "daemon/supervise/facts/doorbells.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "daemon/loop/closer.h"
#include "daemon/supervise/supervisor-internal.h"
#include "ipc/memory/doorbell.h"
#include "ipc/memory/event.h"

enum { DOORBELLS_MANY_RINGS = 64 };
#define DOORBELLS_RINGS_NS UINT64_C(50000000)

static void doorbell_wake(struct pool_doorbell *d) {
        LIST_REMOVE(d, link);
        d->is_resting = false;
}

static void doorbell_on_rested(struct loop_timer *t) {
        struct doorbell_rate *r = t->user;
        struct pool_doorbell *d;
        while ((d = LIST_FIRST(&r->resting))) {
                doorbell_wake(d);
                loop_poll_change(&d->poll, POLLIN);
        }
}

static void doorbell_rest(struct pool_doorbell *d) {
        struct doorbell_rate *r = d->rate;
        loop_poll_change(&d->poll, 0);
        LIST_INSERT_HEAD(&r->resting, d, link);
        d->is_resting = true;
        if (r->rest_timer.heap_index == 0)
                loop_timer_set(d->poll.loop, &r->rest_timer, r->since_ns + DOORBELLS_RINGS_NS, doorbell_on_rested, r);
}

static void doorbell_on_rung(struct loop_poll *poll, uint32_t revents) {
        struct pool_doorbell *d = poll->user;
        struct doorbell_rate *r = d->rate;
        struct pool *p = d->pool;
        uint64_t now_ns = event_now_ns();
        if (now_ns - r->since_ns >= DOORBELLS_RINGS_NS) {
                r->since_ns = now_ns;
                r->n = 0;
        }
        if (r->n == DOORBELLS_MANY_RINGS || (d->uid != CLOSER_WORKERS && !closer_has_room(d->uid))) {
                doorbell_rest(d);
                return;
        }
        r->n++;
        closer_blame(d->uid);
        int e = doorbell_clear(d->hear_fd);
        if (e < 0)
                loop_poll_stop(poll);
        if (e == -EPROTO)
                d->on_foul(d->user);
        pool_on_rung(p); /* also at its end, which may come with a ring */
}

int pool_doorbell_open(struct pool_doorbell *d, const struct pool_doorbell *what, int *ret_ring_fd) {
        struct doorbell pair;
        int r = doorbell_open(&pair);
        if (r < 0)
                return r;
        *d = *what;
        d->hear_fd = pair.hear_fd;
        r = loop_poll_start(d->pool->supervisor->loop, &d->poll, d->hear_fd, POLLIN, doorbell_on_rung, d);
        if (r < 0) {
                doorbell_close(&pair);
                d->pool = NULL;
                return r;
        }
        *ret_ring_fd = pair.ring_fd;
        return 0;
}

void pool_doorbell_close(struct pool_doorbell *d) {
        if (!d->pool)
                return;
        if (d->is_resting)
                doorbell_wake(d);
        loop_poll_stop(&d->poll);
        closer_close(d->hear_fd, d->uid);
        d->pool = NULL;
}

void doorbell_rate_stop(struct doorbell_rate *r) { loop_timer_stop(&r->rest_timer); }
