/* One message on a SEQPACKET socket, with descriptors. Owns SCM_RIGHTS: nobody else touches control messages.
 *
 * Invariant: a descriptor that arrives is either handed to the caller or closed, on every path. The control buffer has
 * room for as many as the kernel takes: of more than it has room for the kernel would close the rest itself, at once
 * and in our name, and a close may take its time (packet_set_refuse). An empty packet counts as end of file: nobody
 * sends one. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ipc/memory/packet.h"

enum { PACKET_KERNEL_FDS = 253 }; /* SCM_MAX_FD */

union packet_control {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(PACKET_MAX_FDS * sizeof(int))];
};

union packet_control_in {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(PACKET_KERNEL_FDS * sizeof(int))];
};

static void packet_close(int fd) { close(fd); }

static void (*packet_refuse)(int fd) = packet_close;

void packet_set_refuse(void (*refuse)(int fd)) { packet_refuse = refuse ? refuse : packet_close; }

static int packet_error(int error) { return error == ECONNRESET || error == ENOTCONN ? -EPIPE : -error; }

int packet_send(int fd, const void *data, size_t bytes, const int *fds, unsigned n_fds) {
        if (bytes == 0 || n_fds > PACKET_MAX_FDS)
                return -EINVAL;

        struct iovec iov = {.iov_base = (void *)data, .iov_len = bytes};
        struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
        union packet_control control;
        if (n_fds > 0) {
                memset(&control, 0, sizeof control);
                m.msg_control = control.bytes;
                m.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
                struct cmsghdr *c = CMSG_FIRSTHDR(&m);
                c->cmsg_level = SOL_SOCKET;
                c->cmsg_type = SCM_RIGHTS;
                c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
                memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
        }

        ssize_t n;
        do
                n = sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);
        return n < 0 ? packet_error(errno) : 0;
}

/* Collects every descriptor of the message. Returns how many; never more than the control buffer holds. */
static unsigned packet_take_fds(struct msghdr *m, int fds[PACKET_KERNEL_FDS]) {
        unsigned n = 0;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len < CMSG_LEN(0))
                        continue;
                size_t k = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
                for (size_t i = 0; i < k; i++) {
                        int fd;
                        memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
                        if (n < PACKET_KERNEL_FDS)
                                fds[n++] = fd;
                        else
                                packet_refuse(fd);
                }
        }
        return n;
}

static int packet_take(int fd, int flags, struct iovec *iov, size_t *ret_bytes, int *fds, unsigned *n_fds) {
        union packet_control_in control;
        struct msghdr m = {
                .msg_iov = iov,
                .msg_iovlen = 1,
                .msg_control = control.bytes,
                .msg_controllen = sizeof control.bytes,
        };
        ssize_t n;
        do
                n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC | flags);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return packet_error(errno);

        int taken[PACKET_KERNEL_FDS];
        unsigned n_taken = packet_take_fds(&m, taken), room = n_fds ? *n_fds : 0;
        int r = m.msg_flags & (MSG_TRUNC | MSG_CTRUNC) || n_taken > room ? -EPROTO : 0;
        if (r < 0 || n == 0) {
                for (unsigned i = 0; i < n_taken; i++)
                        packet_refuse(taken[i]);
                n_taken = 0;
                if (r < 0)
                        return r;
        }

        if (n_taken > 0)
                memcpy(fds, taken, n_taken * sizeof(int));
        if (n_fds)
                *n_fds = n_taken;
        *ret_bytes = (size_t)n;
        return 0;
}

int packet_receive(int fd, void *data, size_t capacity, size_t *ret_bytes, int *fds, unsigned *n_fds) {
        return packet_take(fd, MSG_DONTWAIT, &(struct iovec){data, capacity}, ret_bytes, fds, n_fds);
}

int packet_await(int fd, void *data, size_t capacity, size_t *ret_bytes, int *fds, unsigned *n_fds) {
        return packet_take(fd, 0, &(struct iovec){data, capacity}, ret_bytes, fds, n_fds);
}

int packet_send_bytes(int fd, const void *data, size_t bytes) {
        if (bytes == 0)
                return -EINVAL;
        ssize_t n;
        do
                n = send(fd, data, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);
        return n < 0 ? packet_error(errno) : 0;
}

int packet_receive_bytes(int fd, void *data, size_t capacity, size_t *ret_bytes) {
        ssize_t n;
        do
                n = recv(fd, data, capacity, MSG_DONTWAIT | MSG_TRUNC); /* says how long the packet is */
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return packet_error(errno);
        if ((size_t)n > capacity)
                return -EPROTO;
        *ret_bytes = (size_t)n;
        return 0;
}

int packet_pair(int fds[2]) {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                return -errno;
        int flags = fcntl(pair[0], F_GETFL);
        if (flags < 0 || fcntl(pair[0], F_SETFL, flags | O_NONBLOCK) < 0) {
                int r = -errno;
                close(pair[0]);
                close(pair[1]);
                return r;
        }
        fds[0] = pair[0];
        fds[1] = pair[1];
        return 0;
}
