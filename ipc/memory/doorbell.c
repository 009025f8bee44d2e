/* A doorbell wakes somebody who sleeps in a poll. Owns the pair of sockets that it is made of.
 *
 * Sleeper and ringers are different processes that need not trust each other, so each side has an open file description
 * of its own: status flags, timeouts and whatever else stands in a description are no other side's business. Ringers
 * may share theirs, so neither ringing nor clearing goes by its flags: each call says itself that it does not wait.
 *
 * Rings add up to one readable descriptor. When the buffer is full (EAGAIN) it is readable already, and when the
 * sleeper is gone (EPIPE) nobody is to be woken: nothing is lost by ignoring either. What the sleeper would send is
 * refused, because it would lie unread in the ringers' end, with descriptors in it perhaps, whose close may wait.
 *
 * What a ringer sends is bytes that nobody looks at. Descriptors among them go the way of all that nobody asked for
 * (packet.h). A doorbell that is not empty after it was cleared is rung again. */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ipc/memory/doorbell.h"
#include "ipc/memory/packet.h"

enum {
        DOORBELL_SEND_BYTES = 1, /* the kernel's least: a few rings */
        DOORBELL_CLEAR_BYTES = 256,
        DOORBELL_TRIES = 100,
};

int doorbell_open(struct doorbell *ret) {
        int fds[2], bytes = DOORBELL_SEND_BYTES;
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
                return -errno;
        const struct doorbell d = {.hear_fd = fds[0], .ring_fd = fds[1]};
        if (shutdown(d.ring_fd, SHUT_RD) < 0 ||
            setsockopt(d.ring_fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes) < 0) {
                int r = -errno;
                close(fds[0]);
                close(fds[1]);
                return r;
        }
        *ret = d;
        return 0;
}

void doorbell_close(struct doorbell *d) {
        if (d->hear_fd >= 0)
                close(d->hear_fd);
        if (d->ring_fd >= 0)
                close(d->ring_fd);
        *d = DOORBELL_NONE;
}

void doorbell_ring(int ring_fd) {
        ssize_t n;
        if (ring_fd < 0)
                return;
        for (unsigned i = 0; i < DOORBELL_TRIES; i++) {
                n = send(ring_fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
                if (n >= 0 || (errno != EINTR && errno != ENOMEM && errno != ENOBUFS))
                        return;
        }
}

int doorbell_clear(int hear_fd) {
        char bytes[DOORBELL_CLEAR_BYTES];
        size_t n = 0;
        if (hear_fd < 0)
                return 0;
        int r = packet_receive(hear_fd, bytes, sizeof bytes, &n, NULL, NULL);
        return r == -EAGAIN ? 0 : r == 0 && n == 0 ? -EPIPE : r;
}
