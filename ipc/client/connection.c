/* A connection: the bus, the pools that are open, and the one descriptor that a program polls.
 *
 * The descriptor is an epoll of the bus and of each session's done doorbell and socket. A doorbell is only rung by a
 * worker that finds the session armed, so drover_process() arms them all when it has nothing left to do; a program that
 * only waits with the library's own calls never pays for it.
 *
 * In the child of a fork (ipc/memory/process.c) the channels are not mapped, so nothing of them is touched.
 *
 * A program may have closed all descriptors that it does not know (closefrom in a child, a daemon). libsystemd aborts
 * when one that it closes is not open, and what is open under our numbers then is somebody else's: so the socket of the
 * bus is known by its inode, and if it is not that any more, the bus is left as it is, which costs its memory, and no
 * number of this connection is closed. It has a number of our own beside libsystemd's, which closes its one when the
 * bus breaks: an epoll cannot be told to forget a socket whose number is gone, if a child of a fork has it still. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#include "ipc/client/bus/bus-call.h"
#include "ipc/client/bus/bus-job.h"
#include "ipc/client/stream.h"
#include "ipc/memory/event.h"
#include "ipc/values/utf8.h"

int connection_fail(drover *d, int code, const char *format, ...) {
        va_list ap;
        va_start(ap, format);
        vsnprintf(d->error, sizeof d->error, format, ap);
        va_end(ap);
        d->error[utf8_cut(d->error, strlen(d->error))] = 0; /* vsnprintf may have cut a character in two */
        return code;
}

int connection_late(drover *d, int code) {
        return connection_fail(d, code, code == -EAGAIN ? "not yet" : "not until the deadline");
}

const char *drover_error_text(const drover *d) { return d->error; }

/* ---- opening and closing ---- */

static int connection_add_fd(drover *d, int fd, uint32_t events) {
        struct epoll_event e = {.events = events};
        return epoll_ctl(d->epoll_fd, EPOLL_CTL_ADD, fd, &e) < 0 ? -errno : 0;
}

int connection_watch_bus(drover *d, sd_bus *bus) {
        int fd = fcntl(sd_bus_get_fd(bus), F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
                return -errno;
        int r = connection_add_fd(d, fd, EPOLLIN);
        if (r < 0) {
                close(fd);
                return r;
        }
        own_fd_close(&d->bus_socket);
        own_fd_init(&d->bus_socket, fd);
        d->is_bus_watched = true;
        d->bus_events = EPOLLIN;
        d->bus_error = 0;
        return 0;
}

/* A child of a fork may have the socket as well: it is shut down, and taken out of the epoll, which would go on saying
 * that it is readable. */
void connection_lose_bus(drover *d) {
        if (d->is_bus_watched && own_fd_is_there(&d->bus_socket)) {
                epoll_ctl(d->epoll_fd, EPOLL_CTL_DEL, d->bus_socket.fd, NULL);
                shutdown(d->bus_socket.fd, SHUT_RDWR);
        }
        d->is_bus_watched = false;
        bus_verdict_lose_all(d, -EPIPE, "the bus went away: whether the job ran is not known");
        bus_verdict_unsubscribe(d);
}

int connection_watch_session(drover *d, struct session *s) {
        int r = connection_add_fd(d, session_done_fd(s), EPOLLIN);
        return r < 0 ? r : connection_add_fd(d, session_fd(s), EPOLLIN);
}

void connection_unwatch_session(drover *d, struct session *s) {
        epoll_ctl(d->epoll_fd, EPOLL_CTL_DEL, session_done_fd(s), NULL);
        epoll_ctl(d->epoll_fd, EPOLL_CTL_DEL, session_fd(s), NULL);
}

static void connection_closep(drover **d) { drover_close(*d); }

int drover_open(const char *bus, drover **ret_drover) {
        __attribute__((cleanup(connection_closep))) drover *d = calloc(1, sizeof *d);
        if (!d)
                return -ENOMEM;
        d->references = 1;
        LIST_INIT(&d->pools);
        LIST_INIT(&d->bus_jobs);
        LIST_INIT(&d->streams);
        TAILQ_INIT(&d->called);
        own_fd_init(&d->bus_socket, -1);
        d->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        if (d->epoll_fd < 0)
                return -errno;
        d->process = process_number();
        int r = d->process ? future_reserve(d) : -ENOMEM;
        if (r >= 0)
                r = bus_open(&d->bus, bus);
        const char *name, *address;
        while (r >= 0 && (r = sd_bus_get_unique_name(d->bus, &name)) == -EINTR)
                r = 0; /* until the bus has accepted us: its descriptor stays then */
        if (r >= 0)
                r = sd_bus_get_address(d->bus, &address);
        if (r >= 0)
                r = (d->address = strdup(address)) ? connection_watch_bus(d, d->bus) : -ENOMEM;
        if (r < 0)
                return r;
        *ret_drover = d;
        d = NULL;
        return 0;
}

drover *connection_ref(drover *d) {
        d->references++;
        return d;
}

void connection_unref(drover *d) {
        if (--d->references > 0)
                return;
        free(d->past);
        future_free_spare(d);
        free(d->address);
        free(d);
}

static bool connection_lost_fds(const drover *d) {
        return d->bus && d->bus_socket.fd >= 0 && !own_fd_is_there(&d->bus_socket);
}

/* From here on nothing is sent or closed by number. */
static void connection_forget_fds(drover *d) {
        drover_pool *p;
        d->has_lost_fds = true;
        d->bus = NULL;
        d->removed_match = d->owner_match = NULL;
        d->epoll_fd = -1;
        LIST_FOREACH(p, &d->pools, of_drover)
                session_lose_fds(p->session);
        stream_lose_all(d);
}

void connection_look_for_fds(drover *d) {
        if (connection_lost_fds(d))
                connection_forget_fds(d);
}

/* Jobs of channels that have no verdict, which the daemon is going to cancel for us. */
static uint32_t connection_count_jobs(drover *d) {
        uint32_t n = 0;
        drover_pool *p;
        if (connection_is_ours(d))
                LIST_FOREACH(p, &d->pools, of_drover)
                        n += p->n_in_flight;
        return n;
}

drover *drover_close(drover *d) { return drover_close_counted(d, NULL); }

drover *drover_close_counted(drover *d, uint32_t *ret_n_dropped) {
        uint32_t n = d ? connection_count_jobs(d) : 0;
        if (ret_n_dropped)
                *ret_n_dropped = n;
        if (!d)
                return NULL;
        connection_look_for_fds(d);
        char why[DROVER_ERROR_TEXT];
        snprintf(why, sizeof why, "drover_close() came before its verdict, and dropped %u job%s", n, n == 1 ? "" : "s");
        bus_verdict_lose_all(d, -ECONNABORTED, "drover_close() came before its verdict");
        bus_verdict_unsubscribe(d);
        while (!LIST_EMPTY(&d->pools))
                pool_end(LIST_FIRST(&d->pools), why);
        stream_end_all(d);
        future_forget_calls(d);
        if (d->bus && connection_is_ours(d))
                sd_bus_close(d->bus);
        d->bus = sd_bus_unref(d->bus);
        own_fd_close(&d->bus_socket);
        future_free_spare(d);
        if (d->epoll_fd >= 0)
                close(d->epoll_fd);
        d->epoll_fd = -1;
        connection_unref(d);
        return NULL;
}

int connection_check(drover *d) {
        if (!connection_is_ours(d))
                return -ECHILD;
        if (!d->bus)
                return connection_fail(d, -ECONNABORTED,
                                       d->has_lost_fds ? "its descriptors were closed" : "drover_close() was called");
        return 0;
}

/* ---- a loop of the program's own ---- */

int drover_get_fd(const drover *d) { return connection_is_ours(d) ? d->epoll_fd : -ECHILD; }

int drover_get_timeout(const drover *d, uint64_t *ret_deadline_ns) {
        if (!connection_is_ours(d))
                return -ECHILD;
        *ret_deadline_ns = d->wake_ns;
        return 0;
}

int drover_process(drover *d) {
        int r = connection_check(d);
        if (r < 0)
                return r;
        if (d->is_processing)
                return connection_fail(d, -EBUSY,
                                       "drover_process() was called from a callback, or one was left by longjmp()");
        connection_ref(d); /* a callback may close it */
        if (d->is_armed)
                engine_woken(d);
        unsigned n = engine_collect(d);
        d->is_processing = true;
        n += stream_call_all(d);
        n += future_call_all(d);
        d->is_processing = false;
        r = !d->bus ? -ECONNABORTED : n > 0 || engine_arm(d);
        int error = n == 0 && d->bus ? engine_is_short(d) : 0;
        if (error < 0) {
                uint64_t retry_ns = event_now_ns() + BUS_SHORT_NS;
                d->wake_ns = retry_ns < d->wake_ns ? retry_ns : d->wake_ns;
                r = error;
        }
        connection_unref(d);
        return r;
}
