/* The items of a job, as they come: drover_future_next_item and drover_future_on_item.
 *
 * A stream of the broker's is that of one attempt; it ends when the job has its verdict and is cut off when it does not
 * (PROTOCOL.md, section 10). Cut off, it is asked for once more: if what comes is of a new attempt, it is read on, and
 * each item says which attempt it is of; if not, we were too slow or too late, and items are lost, which is an error.
 *
 * Nothing is read ahead: what the program does not take stays in the socket, so a slow program slows its job down. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ipc/client/bus/bus-call.h"
#include "ipc/client/bus/bus-job.h"
#include "ipc/client/stream.h"
#include "ipc/memory/event.h"
#include "ipc/wire.h"

enum { STREAM_A_CALL = 64 };

struct stream {
        LIST_ENTRY(stream) of_drover;
        drover_future *future;
        uint64_t id;
        int fd;    /* -1: over */
        int error; /* then: 0, or why */
        uint32_t attempt;
        bool is_watched;
        bool must_open; /* or open again: there were no descriptors, or no memory, for it */
        bool is_cut;    /* and what was on its way is still there */
        drover_item_fn fn;
        void *user;
        uint8_t item[WIRE_MAX_ITEM];
};

/* ---- opening ---- */

static int stream_ask(drover *d, uint64_t id, int *ret_fd) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *reply = NULL;
        int fd, r = bus_has_room(d->bus);
        if (r >= 0)
                r = bus_job_call_member(d, id, "OpenStream", &reply);
        if (r >= 0)
                r = sd_bus_message_read(reply, "h", &fd);
        if (r < 0)
                return r;
        fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
                return -errno;
        *ret_fd = fd;
        return 0;
}

/* The job's stream: that of the attempt which it is in, or was in last. After a cut (s->attempt is known then) only
 * one of a later attempt will do. */
static int stream_connect(struct stream *s, int *ret_fd) {
        drover *d = s->future->drover;
        int attempt = 0, fd = -1, r = stream_ask(d, s->id, &fd);
        socklen_t bytes = sizeof attempt;
        if (r >= 0 && getsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &attempt, &bytes) < 0)
                r = -errno;
        if (s->attempt > 0 && (r == -ESTALE || (r >= 0 && (uint32_t)attempt <= s->attempt)))
                r = connection_fail(d, -EOVERFLOW,
                                    "job %llu: some of its items are lost: they were not read for too long, or went "
                                    "to a reader who came before",
                                    (unsigned long long)s->id);
        if (r < 0) {
                if (fd >= 0)
                        close(fd);
                return r;
        }
        s->attempt = (uint32_t)attempt;
        *ret_fd = fd;
        return 0;
}

int stream_new(drover_future *f) {
        struct stream *s = malloc(sizeof *s);
        if (!s)
                return -ENOMEM;
        memset(s, 0, offsetof(struct stream, item));
        s->future = f;
        s->fd = -1;
        f->stream = s;
        LIST_INSERT_HEAD(&f->drover->streams, s, of_drover);
        return 0;
}

bool stream_must_open(const drover *d) {
        const struct stream *s;
        LIST_FOREACH(s, &d->streams, of_drover)
                if (s->must_open && s->fn)
                        return true;
        return false;
}

/* ---- watching, ending ---- */

static void stream_watch(struct stream *s, bool is_watched) {
        struct epoll_event e = {.events = EPOLLIN};
        drover *d = s->future->drover;
        if (s->fd < 0 || s->is_watched == is_watched)
                return;
        if (connection_is_ours(d) && d->epoll_fd >= 0)
                epoll_ctl(d->epoll_fd, is_watched ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, s->fd, &e);
        s->is_watched = is_watched;
}

void stream_watch_all(drover *d, bool is_watched) {
        struct stream *s;
        LIST_FOREACH(s, &d->streams, of_drover)
                if (s->fn)
                        stream_watch(s, is_watched);
}

static void stream_close_fd(struct stream *s) {
        if (s->fd >= 0)
                connection_look_for_fds(s->future->drover);
        stream_watch(s, false);
        if (s->fd >= 0)
                close(s->fd);
        s->fd = -1;
}

static void stream_try_open(struct stream *s) {
        s->error = stream_connect(s, &s->fd);
        s->must_open = bus_is_short(s->error);
        stream_watch(s, s->fn != NULL);
}

void stream_open(struct stream *s, uint64_t id) {
        s->id = id;
        stream_try_open(s);
}

void stream_free(struct stream *s) {
        if (!s)
                return;
        stream_close_fd(s);
        LIST_REMOVE(s, of_drover);
        free(s);
}

void stream_let_go(struct stream *s) {
        if (!s->fn)
                stream_close_fd(s);
}

/* No callback comes any more: those of the verdict may. The future may be gone after this. */
static void stream_stop_calling(struct stream *s) {
        drover_future *f = s->future;
        if (!s->fn)
                return;
        s->fn = NULL;
        if (future_has_ended(f) && f->callbacks)
                future_call_soon(f);
        drover_future_unref(f);
}

void stream_lose_all(drover *d) {
        struct stream *s;
        LIST_FOREACH(s, &d->streams, of_drover) {
                s->error = s->fd >= 0 ? -ECONNABORTED : s->error;
                s->fd = -1;
                s->is_watched = false;
        }
}

void stream_end_all(drover *d) {
        struct stream *s, *next;
        for (s = LIST_FIRST(&d->streams); s; s = next) {
                next = LIST_NEXT(s, of_drover);
                if (s->fd >= 0)
                        s->error = -ECONNABORTED;
                s->must_open = false;
                stream_close_fd(s);
                stream_stop_calling(s);
        }
}

/* ---- taking ---- */

/* 1, 0: no more; -EAGAIN; else what went wrong, from now on. */
static int stream_receive(struct stream *s, struct drover_item *ret) {
        if (s->must_open)
                stream_try_open(s);
        while (s->fd >= 0) {
                ssize_t n = recv(s->fd, s->item, sizeof s->item, MSG_DONTWAIT);
                if (n > 0) {
                        *ret = (struct drover_item){.data = s->item, .bytes = (size_t)n, .attempt = s->attempt};
                        return 1;
                }
                if (n < 0 && errno == EAGAIN)
                        return -EAGAIN;
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == ECONNRESET) { /* told once, before what is left */
                        s->is_cut = true;
                        continue;
                }
                bool must_go_on = n == 0 && s->is_cut;
                s->error = n == 0 ? 0 : -errno;
                stream_close_fd(s);
                s->is_cut = false;
                if (must_go_on)
                        stream_try_open(s);
        }
        return s->error;
}

static void stream_give(const struct drover_item *item, struct drover_item *ret, size_t struct_bytes) {
        if (struct_bytes > sizeof *item) {
                memset((char *)ret + sizeof *item, 0, struct_bytes - sizeof *item);
                struct_bytes = sizeof *item;
        }
        memcpy(ret, item, struct_bytes);
}

static int stream_check(drover_future *f) {
        int r = connection_check(f->drover);
        if (r >= 0 && !f->stream)
                r = connection_fail(f->drover, -EINVAL, "the job was not submitted with DROVER_STREAMED");
        if (r >= 0 && f->stream->fn)
                r = connection_fail(f->drover, -EBUSY, "its items go to a callback");
        return r;
}

int drover_future_next_item(drover_future *future, struct drover_item *ret_item, size_t struct_bytes,
                            uint64_t deadline_ns) {
        struct drover_item item;
        int r = stream_check(future);
        if (r < 0)
                return r;
        drover *d = future->drover;
        while ((r = stream_receive(future->stream, &item)) == -EAGAIN) {
                if (deadline_ns == 0)
                        return connection_late(d, -EAGAIN);
                if (engine_collect(d) > 0)
                        continue;
                if (deadline_ns != EVENT_FOREVER && event_now_ns() >= deadline_ns)
                        return connection_late(d, -ETIMEDOUT);
                r = engine_sleep(d, deadline_ns, future->stream->fd);
                if (r < 0)
                        return connection_fail(d, r, "cannot wait: %s", strerror(-r));
        }
        if (r == 1)
                stream_give(&item, ret_item, struct_bytes);
        return r;
}

/* ---- calling ---- */

int drover_future_on_item(drover_future *future, drover_item_fn callback, void *user) {
        int r = stream_check(future);
        if (r < 0)
                return r;
        struct stream *s = future->stream;
        s->fn = callback;
        s->user = user;
        drover_future_ref(future);
        stream_watch(s, true);
        future->drover->wake_ns = 0;
        return 0;
}

bool stream_is_called(const struct stream *s) { return s && s->fn; }

/* The future, and the stream with it, may be gone after this. */
static unsigned stream_call(struct stream *s) {
        struct drover_item item;
        drover_future *f = drover_future_ref(s->future);
        unsigned n = 0;
        int r = 1;
        while (n < STREAM_A_CALL && s->fn && (r = stream_receive(s, &item)) == 1) {
                n++;
                if (s->fn(f, &item, s->user) == 0)
                        continue;
                stream_close_fd(s); /* it has enough */
                s->must_open = false;
                s->error = 0;
        }
        if (s->fd < 0 && s->fn && !s->must_open) {
                stream_stop_calling(s);
                n++;
        }
        drover_future_unref(f);
        return n;
}

unsigned stream_call_all(drover *d) {
        unsigned n = 0, n_streams = 0;
        struct stream *s;
        drover_future **futures;
        LIST_FOREACH(s, &d->streams, of_drover)
                n_streams += s->fn != NULL;
        if (n_streams == 0 || !(futures = calloc(n_streams, sizeof(*futures))))
                return 0;
        n_streams = 0; /* callbacks may begin and end streams */
        LIST_FOREACH(s, &d->streams, of_drover)
                if (s->fn)
                        futures[n_streams++] = drover_future_ref(s->future);
        for (unsigned i = 0; i < n_streams; i++) {
                if (stream_is_called(futures[i]->stream))
                        n += stream_call(futures[i]->stream);
                drover_future_unref(futures[i]);
        }
        free(futures);
        return n;
}
