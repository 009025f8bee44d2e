/* Input lines for map.
 *
 * Owns one buffer of LINES_MAX bytes, whatever the input's size: map's memory does not grow with it. Of a longer line
 * the rest is read and dropped. Reads only when
 * poll says so, because a blocked read would hold back results that are ready; standard input stays in blocking mode,
 * since that mode belongs to the open file and so to other programs too. A last line without its end counts. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/ctl/words/lines.h"

enum { CAPACITY = LINES_MAX + 1 }; /* a line and its end */

int lines_open(struct lines *l, const char *path) {
        struct stat st;
        int r = 0;

        *l = (struct lines){.fd = STDIN_FILENO};
        if (path && strcmp(path, "-") != 0)
                l->fd = open(path, O_RDONLY | O_CLOEXEC);
        if (l->fd < 0)
                return -errno;
        l->buffer = malloc(CAPACITY + 1);
        if (!l->buffer)
                r = -ENOMEM;
        else if (fstat(l->fd, &st) < 0)
                r = -errno;
        else if (S_ISDIR(st.st_mode))
                r = -EISDIR;
        else if (S_ISREG(st.st_mode) && st.st_size > 0)
                l->total_bytes = (uint64_t)st.st_size;
        if (r < 0)
                lines_close(l);
        return r;
}

void lines_close(struct lines *l) {
        free(l->buffer);
        l->buffer = NULL;
        if (l->fd > STDIN_FILENO)
                close(l->fd);
        l->fd = -1;
}

/* Reads what is there behind the unread bytes. 1, 0 = nothing now or the end, -errno. */
static int fill(struct lines *l) {
        struct pollfd p = {.fd = l->fd, .events = POLLIN};
        ssize_t n;

        if (l->start > 0) {
                memmove(l->buffer, l->buffer + l->start, l->end - l->start);
                l->end -= l->start;
                l->start = 0;
        }
        if (l->end == CAPACITY)
                return -EMSGSIZE;
        if (poll(&p, 1, 0) <= 0)
                return 0;
        n = read(l->fd, l->buffer + l->end, CAPACITY - l->end);
        if (n < 0)
                return errno == EINTR || errno == EAGAIN ? 0 : (l->error = -errno);
        if (n == 0) {
                l->at_end = true;
                return 0;
        }
        l->end += (size_t)n;
        return 1;
}

static int hand_out(struct lines *l, size_t bytes, size_t skip, char **ret, size_t *ret_bytes) {
        *ret = l->buffer + l->start;
        *ret_bytes = bytes;
        (*ret)[bytes] = 0;
        l->start += bytes + skip;
        l->n_bytes += bytes + skip;
        l->n_lines++;
        return 1;
}

/* Drops unread bytes up to the end of the line. 1, 0 = its end is not there yet, -errno. */
static int skip(struct lines *l) {
        while (l->is_skipping) {
                char *from = l->buffer + l->start, *end = memchr(from, '\n', l->end - l->start);
                size_t bytes = end ? (size_t)(end - from) + 1 : l->end - l->start;
                int r;

                l->start += bytes;
                l->n_bytes += bytes;
                l->is_skipping = !end && !l->at_end;
                if (!l->is_skipping)
                        break;
                r = fill(l);
                if (r < 0 || (r == 0 && !l->at_end))
                        return r;
        }
        return 1;
}

int lines_next(struct lines *l, char **ret, size_t *ret_bytes) {
        size_t searched = 0;
        int r = skip(l);

        if (r <= 0)
                return r;
        for (;;) {
                char *from = l->buffer + l->start, *end = memchr(from + searched, '\n', l->end - l->start - searched);

                if (end)
                        return hand_out(l, (size_t)(end - from), 1, ret, ret_bytes);
                if (l->at_end)
                        return l->end > l->start ? hand_out(l, l->end - l->start, 0, ret, ret_bytes) : -ENODATA;
                searched = l->end - l->start;
                r = fill(l);
                if (r == -EMSGSIZE) {
                        hand_out(l, LINES_MAX, 0, ret, ret_bytes);
                        l->is_skipping = true;
                }
                if (r < 0 || (r == 0 && !l->at_end))
                        return r;
        }
}

void lines_wait(const struct lines *l, int timeout_ms) {
        struct pollfd p = {.fd = l->fd, .events = POLLIN};

        poll(&p, 1, timeout_ms);
}
