/* Pipes: a pair of SEQPACKET sockets with deadlines. The kernel keeps the messages whole, the descriptors in flight and
 * the end of file after a death, so there is nothing here to repair.
 *
 * Each call says itself that it does not wait (MSG_DONTWAIT), and ppoll() waits: the descriptors are as plain as they
 * come, because an end that is given away shares its flags with whoever keeps a duplicate.
 *
 * A worker's sandbox lets no descriptors through. It answers sendmsg and recvmsg with EPERM, and from then on this end
 * sends and receives bytes. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ipc/memory/event.h"
#include "ipc/memory/own-fd.h"
#include "ipc/memory/packet.h"
#include "ipc/sync/include/drover/sync.h"

struct drover_pipe {
        struct own_fd own;
        atomic_bool is_bare; /* no descriptors: the sandbox said so */
};

int drover_pipe_new_from_fd(int fd, drover_pipe **ret_pipe) {
        int type;
        socklen_t length = sizeof type;
        int r = 0;
        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) < 0)
                r = -errno;
        else if (type != SOCK_SEQPACKET)
                r = -EPROTOTYPE;
        else if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
                r = -errno;
        struct drover_pipe *p = r < 0 ? NULL : malloc(sizeof *p);
        if (!p) {
                close(fd);
                return r < 0 ? r : -ENOMEM;
        }
        own_fd_init(&p->own, fd);
        atomic_init(&p->is_bare, false);
        *ret_pipe = p;
        return 0;
}

int drover_pipe_new(drover_pipe **ret_a, drover_pipe **ret_b) {
        int fds[2];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
                return -errno;
        drover_pipe *a, *b;
        int r = drover_pipe_new_from_fd(fds[0], &a);
        if (r < 0) {
                close(fds[1]);
                return r;
        }
        r = drover_pipe_new_from_fd(fds[1], &b);
        if (r < 0) {
                drover_pipe_free(a);
                return r;
        }
        *ret_a = a;
        *ret_b = b;
        return 0;
}

drover_pipe *drover_pipe_free(drover_pipe *pipe) {
        if (pipe)
                own_fd_close(&pipe->own);
        free(pipe);
        return NULL;
}

int drover_pipe_fd(const drover_pipe *pipe) { return pipe->own.fd; }

/* 0: look again; -EAGAIN, -ETIMEDOUT. */
static int pipe_poll(const struct drover_pipe *p, short events, uint64_t deadline_ns) {
        if (deadline_ns == 0)
                return -EAGAIN;
        struct timespec ts, *timeout = NULL;
        if (deadline_ns != DROVER_FOREVER) {
                uint64_t now = event_now_ns(), left = deadline_ns > now ? deadline_ns - now : 0;
                if (left == 0)
                        return -ETIMEDOUT;
                ts = (struct timespec){.tv_sec = (time_t)(left / 1000000000u), .tv_nsec = (long)(left % 1000000000u)};
                timeout = &ts;
        }
        struct pollfd poll = {.fd = p->own.fd, .events = events};
        return ppoll(&poll, 1, timeout, NULL) < 0 && errno != EINTR ? -errno : 0;
}

static int pipe_send(struct drover_pipe *p, const void *data, size_t bytes, const int *fds, unsigned n_fds) {
        if (!atomic_load_explicit(&p->is_bare, memory_order_relaxed)) {
                int r = packet_send(p->own.fd, data, bytes, fds, n_fds);
                if (r != -EPERM)
                        return r;
                atomic_store_explicit(&p->is_bare, true, memory_order_relaxed);
        }
        return n_fds > 0 ? -EPERM : packet_send_bytes(p->own.fd, data, bytes);
}

static int pipe_receive(struct drover_pipe *p, void *buffer, size_t room, size_t *ret_bytes, int *fds,
                        unsigned *n_fds) {
        if (!atomic_load_explicit(&p->is_bare, memory_order_relaxed)) {
                int r = packet_receive(p->own.fd, buffer, room, ret_bytes, fds, n_fds);
                if (r != -EPERM)
                        return r;
                atomic_store_explicit(&p->is_bare, true, memory_order_relaxed);
        }
        if (n_fds)
                *n_fds = 0;
        return packet_receive_bytes(p->own.fd, buffer, room, ret_bytes);
}

int drover_pipe_send(drover_pipe *pipe, const void *data, size_t bytes, const int *fds, unsigned n_fds,
                     uint64_t deadline_ns) {
        for (;;) {
                int r = pipe_send(pipe, data, bytes, fds, n_fds);
                if (r != -EAGAIN)
                        return r;
                r = pipe_poll(pipe, POLLOUT, deadline_ns);
                if (r < 0)
                        return r;
        }
}

int drover_pipe_receive(drover_pipe *pipe, void *buffer, size_t room, size_t *ret_bytes, int *fds, unsigned *n_fds,
                        uint64_t deadline_ns) {
        unsigned n_room = n_fds ? *n_fds : 0;
        for (;;) {
                if (n_fds)
                        *n_fds = n_room;
                size_t bytes;
                int r = pipe_receive(pipe, buffer, room, &bytes, fds, n_fds);
                if (r == 0 && bytes == 0)
                        return -EPIPE;
                if (r == 0)
                        *ret_bytes = bytes;
                if (r != -EAGAIN)
                        return r;
                r = pipe_poll(pipe, POLLIN, deadline_ns);
                if (r < 0)
                        return r;
        }
}
