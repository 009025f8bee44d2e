/* One reader of a stream: a pair of sockets, whose buffer holds what was not read yet.
 *
 * As long as nobody has come for their end, it is kept here with the newest items: if one does not fit, the oldest
 * goes. Once it was handed out (or is sure to be: reserved) nothing is dropped: an item that does not fit waits. One
 * that lacks the first items, because they were dropped or because it came after them, is partial: it never sees end of
 * file.
 *
 * How it ends must be plain to somebody who has nothing but a descriptor of bare items. A byte that they never sent
 * stands in our end from the start. A unix socket that is closed over unread bytes resets its peer, so whatever ends us
 * (a crash, too) is ECONNRESET for them, and only where that byte is taken out first it is end of file. They cannot
 * send anything themselves. Which attempt they read stands in their SO_RCVLOWAT, which means nothing for packets. */
#include "daemon/supervise/streams/stream-reader.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ipc/memory/packet.h"

enum {
        READER_BUFFER =
                128 << 10, /* the kernel doubles it, and counts its own needs: 4 of the largest items, 300 small */
        READER_MAX_DROPS = 4096,
};

void reader_init(struct stream_reader *r, struct stream *s) {
        *r = (struct stream_reader){.stream = s, .fd = -1, .kept_fd = -1};
}

int reader_open(struct stream_reader *r, uint32_t attempt) {
        int fds[2], bytes = READER_BUFFER, tag = (int)attempt, e = packet_pair(fds);
        if (e < 0)
                return e;
        if (setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)) < 0 ||
            setsockopt(fds[1], SOL_SOCKET, SO_RCVLOWAT, &tag, sizeof(tag)) < 0 ||
            send(fds[1], "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) != 1 || shutdown(fds[0], SHUT_RD) < 0) {
                e = -errno;
                close(fds[0]);
                close(fds[1]);
                return e;
        }
        r->fd = fds[0];
        r->kept_fd = fds[1];
        r->is_behind = r->is_reserved = r->is_partial = false;
        return 0;
}

static void reader_close_ours(struct stream_reader *r) {
        loop_poll_stop(&r->poll);
        if (r->fd >= 0)
                close(r->fd);
        r->fd = -1;
        r->is_behind = false;
}

void reader_end(struct stream_reader *r) {
        char byte;
        if (r->fd >= 0 && (r->is_partial || recv(r->fd, &byte, 1, MSG_DONTWAIT) >= 0))
                reader_close_ours(r);
        else
                reader_cut(r);
}

void reader_cut(struct stream_reader *r) {
        reader_close_ours(r);
        if (r->kept_fd >= 0)
                close(r->kept_fd);
        r->kept_fd = -1;
}

int reader_hand_out(struct stream_reader *r) {
        int fd = r->kept_fd;
        r->kept_fd = -1;
        r->is_reserved = false;
        return fd;
}

void reader_check(struct stream_reader *r) {
        struct pollfd p = {.fd = r->fd};
        if (r->fd >= 0 && poll(&p, 1, 0) == 1 && p.revents & (POLLHUP | POLLERR))
                reader_cut(r);
}

/* false: nothing is kept. */
static bool reader_drop_oldest(struct stream_reader *r) {
        char byte;
        if (recv(r->kept_fd, &byte, 1, MSG_DONTWAIT | MSG_TRUNC) <= 0)
                return false;
        r->is_partial = true;
        return true;
}

int reader_send(struct stream_reader *r, const void *data, size_t bytes) {
        bool drops = r->kept_fd >= 0 && !r->is_reserved;
        for (unsigned i = 0; i < READER_MAX_DROPS; i++) {
                ssize_t n = send(r->fd, data, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
                if (n >= 0)
                        return 0;
                if (errno == EAGAIN && !drops)
                        return -EAGAIN;
                if (errno != EINTR && (errno != EAGAIN || !reader_drop_oldest(r)))
                        break;
        }
        reader_cut(r);
        return 0;
}
