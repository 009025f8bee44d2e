/* Verdicts in, and sleeping until there are some.
 *
 * With jobs under way in one channel only, a wait is the session's own: it spins, then sleeps on a futex. With several,
 * or with jobs on the bus, all of them are armed and one poll() sleeps for all. Whatever is waited for, every verdict
 * that is found on the way goes to its future. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <systemd/sd-bus.h>
#include <time.h>

#include "ipc/client/bus/bus-call.h"
#include "ipc/client/bus/bus-job.h"
#include "ipc/client/session/fd-room.h"
#include "ipc/client/stream.h"
#include "ipc/memory/event.h"

/* Messages of the bus that one look takes in. */
enum { ENGINE_MESSAGES = 64 };

#define ENGINE_RETRY_NS UINT64_C(20000000)

/* ---- taking in ---- */

/* One verdict of a channel, by `deadline_ns`. 1, 0, -EINTR, -ENOMEM; a channel that is gone loses its jobs, which is 1
 * as well.
 */
static int engine_take(drover_pool *p, uint64_t deadline_ns) {
        struct session_result result;
        if (deadline_ns > 0)
                p->drover->wake_ns = 0; /* the session disarms itself when it sleeps */
        int r = session_next(p->session, &result, deadline_ns);
        if (r == 1)
                pool_deliver(p, &result);
        else if (r < 0 && r != -EINTR && r != -ENOMEM) {
                pool_lose(p, -EPIPE,
                          session_is_foul(p->session)
                                  ? "a worker wrote over this channel: whether the job ran is not known"
                                  : "droverd went away: whether the job ran is not known");
                return 1;
        }
        return r;
}

static unsigned engine_read_bus(drover *d) {
        uint64_t n_ended = d->n_ended;
        int r = 1;
        for (unsigned n = 0; n < ENGINE_MESSAGES && r > 0; n++)
                r = bus_process(d->bus);
        d->bus_error = r < 0 ? r : 0;
        if (r < 0 && !bus_is_short(r))
                connection_lose_bus(d);
        bus_verdict_ask_late(d);
        return (unsigned)(d->n_ended - n_ended);
}

static unsigned engine_drain(drover_pool *p) {
        unsigned n = 0;
        pool_ring(p);
        if (p->n_in_flight == 0 && (session_is_away(p->session) ||
                                    session_is_ending(p->session))) /* nobody else would look for the next daemon */
                session_process(p->session);
        while (p->n_in_flight > 0 && engine_take(p, 0) == 1)
                n++;
        return n;
}

unsigned engine_collect(drover *d) {
        future_reserve(d);
        unsigned n = d->n_bus_jobs > 0 ? engine_read_bus(d) : 0;
        for (drover_pool *p = LIST_FIRST(&d->pools), *next; p; p = next) {
                drover_pool_ref(p); /* its last job may end here */
                n += engine_drain(p);
                next = LIST_NEXT(p, of_drover);
                drover_pool_unref(p);
        }
        return n;
}

/* ---- sleeping ---- */

/* What cannot be taken in now stays readable: nobody polls for it until it is worth another try. */
static void engine_watch_bus(drover *d) {
        int events = sd_bus_get_events(d->bus);
        uint32_t wanted = d->bus_error < 0 ? 0 : events > 0 && events & POLLOUT ? EPOLLIN | EPOLLOUT : EPOLLIN;
        struct epoll_event e = {.events = wanted};
        if (d->is_bus_watched && wanted != d->bus_events &&
            epoll_ctl(d->epoll_fd, EPOLL_CTL_MOD, d->bus_socket.fd, &e) == 0)
                d->bus_events = wanted;
        if (bus_is_short(d->bus_error) && d->wake_ns > 0) {
                uint64_t retry_ns = event_now_ns() + BUS_SHORT_NS;
                d->wake_ns = retry_ns < d->wake_ns ? retry_ns : d->wake_ns;
        }
}

bool engine_arm(drover *d) {
        bool is_ready = false;
        uint64_t bus_us = UINT64_MAX;
        d->is_armed = true;
        d->wake_ns = EVENT_FOREVER;
        drover_pool *p;
        LIST_FOREACH(p, &d->pools, of_drover) {
                uint64_t deadline_ns;
                pool_ring(p);
                if (session_epoch(p->session) != p->session_epoch) {
                        p->session_epoch = session_epoch(p->session);
                        connection_unwatch_session(d, p->session);
                        if (!session_is_away(p->session))
                                connection_watch_session(d, p->session);
                }
                is_ready = (session_arm(p->session, &deadline_ns) && p->n_in_flight > 0) || is_ready;
                if (deadline_ns < d->wake_ns)
                        d->wake_ns = deadline_ns;
        }
        engine_watch_bus(d);
        /* One that is over would wake us at once, and sd-bus sees to it only when it can read. */
        if (!bus_is_short(d->bus_error) && sd_bus_get_timeout(d->bus, &bus_us) >= 0 && bus_us < d->wake_ns / 1000)
                d->wake_ns = bus_us * 1000;
        if (bus_verdict_due_ns(d) < d->wake_ns)
                d->wake_ns = bus_verdict_due_ns(d);
        if (stream_must_open(d) && event_now_ns() + BUS_SHORT_NS < d->wake_ns)
                d->wake_ns = event_now_ns() + BUS_SHORT_NS;
        return is_ready || d->wake_ns == 0 || !TAILQ_EMPTY(&d->called);
}

void engine_woken(drover *d) {
        drover_pool *p;
        d->is_armed = false;
        LIST_FOREACH(p, &d->pools, of_drover)
                session_woken(p->session);
        engine_read_bus(d);
}

int engine_sleep(drover *d, uint64_t deadline_ns, int fd) {
        struct pollfd fds[] = {{.fd = d->epoll_fd, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
        stream_watch_all(d, false);
        bool is_ready = engine_arm(d);
        uint64_t until_ns = d->wake_ns < deadline_ns ? d->wake_ns : deadline_ns, now_ns = event_now_ns();
        uint64_t left_ns = until_ns > now_ns ? until_ns - now_ns : 0;
        struct timespec left = {.tv_sec = (time_t)(left_ns / 1000000000u), .tv_nsec = (long)(left_ns % 1000000000u)};
        int r = 0;
        if (!is_ready && ppoll(fds, 2, until_ns == EVENT_FOREVER ? NULL : &left, NULL) < 0 && errno != EINTR)
                r = -errno;
        stream_watch_all(d, true);
        engine_woken(d);
        return r;
}

/* The only channel with jobs under way; NULL if there are more, or jobs on the bus. */
static drover_pool *engine_only_pool(const drover *d, bool *ret_has_any) {
        drover_pool *only = NULL, *p;
        unsigned n = 0;
        LIST_FOREACH(p, &d->pools, of_drover)
                if (p->n_in_flight > 0) {
                        only = p;
                        n++;
                }
        *ret_has_any = n + d->n_bus_jobs > 0;
        return n == 1 && d->n_bus_jobs == 0 ? only : NULL;
}

/* Takes in at least one verdict, or sleeps until the deadline. */
static int engine_sleep_for_verdicts(drover *d, drover_pool *only, uint64_t deadline_ns) {
        if (!only)
                return engine_sleep(d, deadline_ns, -1);
        drover_pool_ref(only);
        engine_take(only, deadline_ns); /* if it cannot wait, that channel is lost */
        drover_pool_unref(only);
        return 0;
}

int engine_is_short(drover *d) {
        int r = bus_is_short(d->bus_error) ? d->bus_error : bus_verdict_are_short(d);
        const drover_pool *p;
        LIST_FOREACH(p, &d->pools, of_drover)
                if (r == 0 && p->n_in_flight > 0)
                        r = session_is_short(p->session);
        if (r == -ENOMEM)
                return connection_fail(d, r, "there is no memory for what has come for this process");
        if (r < 0)
                return connection_fail(
                        d, r,
                        "what has come for this process has descriptors with it, and up to %d must be free "
                        "for them (RLIMIT_NOFILE): %s",
                        FD_ROOM_MOST, strerror(-r));
        return 0;
}

/* Is there no job of which a verdict could be taken in now? */
static bool engine_waits_in_vain(drover *d) {
        const drover_pool *p;
        LIST_FOREACH(p, &d->pools, of_drover)
                if (p->n_in_flight > 0 && session_is_short(p->session) == 0)
                        return false;
        return d->n_bus_jobs == 0 || bus_is_short(d->bus_error) || bus_verdict_are_short(d) < 0;
}

/* 0; -EDEADLK: nothing is under way that could end this wait; -EMFILE, -ENFILE, -ENOMEM: nothing but what cannot be
 * taken in now; or why it cannot wait. */
static int engine_step(drover *d, uint64_t deadline_ns) {
        if (engine_collect(d) > 0)
                return 0;
        bool has_any;
        drover_pool *only = engine_only_pool(d, &has_any);
        if (!has_any)
                return connection_fail(d, -EDEADLK, "nothing is under way that could end this wait");
        int r = engine_waits_in_vain(d) ? engine_is_short(d) : 0;
        if (r < 0)
                return r;
        r = engine_sleep_for_verdicts(d, only, deadline_ns);
        return r < 0 ? connection_fail(d, r, "cannot wait: %s", strerror(-r)) : 0;
}

/* Nobody tells when others make room, or when the next daemon is there: looked for from time to time. */
void engine_wait_room(drover *d, bool is_others, uint64_t deadline_ns) {
        if (engine_collect(d) > 0)
                return;
        bool has_any;
        drover_pool *only = engine_only_pool(d, &has_any);
        uint64_t retry_ns = event_now_ns() + ENGINE_RETRY_NS;
        if ((is_others || !has_any) && retry_ns < deadline_ns)
                deadline_ns = retry_ns;
        engine_sleep_for_verdicts(d, only, deadline_ns);
}

int engine_wait(drover *d, bool (*is_done)(void *user), void *user, uint64_t deadline_ns) {
        engine_collect(d);
        while (!is_done(user)) {
                if (deadline_ns == 0)
                        return connection_late(d, -EAGAIN);
                /* The clock is only asked when a step was in vain. */
                uint64_t n = d->n_ended;
                int r = engine_step(d, deadline_ns);
                if (r < 0)
                        return r;
                if (d->n_ended == n && deadline_ns != EVENT_FOREVER && event_now_ns() >= deadline_ns)
                        return is_done(user) ? 0 : connection_late(d, -ETIMEDOUT);
        }
        return 0;
}
