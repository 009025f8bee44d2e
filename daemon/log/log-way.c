/* Owns stderr, as far as not waiting for it is concerned.
 *
 * Its description belongs to whoever started us as well, so O_NONBLOCK is not ours to set, nor would it stay. Not to
 * wait must be a property of each call, or of a description of our own:
 * - a socket (the journal's): send with MSG_DONTWAIT;
 * - anything, where a process may stand between: a pipe to it that nobody else has (log-writer.h);
 * - a pipe: through a pipe of our own, by splice, the one call that puts something into a pipe and whose not waiting is
 *   a flag of the call. It takes one of the pipe's 16 places a line, however short. (Opening it once more would do, but
 *   may be forbidden: it is the file of whoever made it.)
 * - a terminal: opened once more.
 * A file without a process between is written to, and waited for. */
#include "daemon/log/log-way.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "daemon/log/log-writer.h"

enum { WAY_FIRST_FD = 10 }; /* low numbers have their meaning in programs that start others */

static struct {
        ssize_t (*try)(const char *text, size_t bytes);
        int own_fd;
        int pipe_fds[2];
        bool has_writer;
} way;

static ssize_t way_send(const char *text, size_t bytes) {
        return send(STDERR_FILENO, text, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static ssize_t way_write(const char *text, size_t bytes) { return write(way.own_fd, text, bytes); }

static ssize_t way_splice(const char *text, size_t bytes) {
        char rest[4096];
        ssize_t n = write(way.pipe_fds[1], text, bytes);
        if (n < 0)
                return n;
        ssize_t moved = splice(way.pipe_fds[0], NULL, STDERR_FILENO, NULL, (size_t)n, SPLICE_F_NONBLOCK);
        int error = errno;
        while (moved < n && read(way.pipe_fds[0], rest, sizeof(rest)) > 0)
                ;
        errno = error;
        return moved;
}

static int way_raise(int *fd) {
        int r = fcntl(*fd, F_DUPFD_CLOEXEC, WAY_FIRST_FD);
        int error = errno;
        close(*fd);
        *fd = r;
        return r < 0 ? -error : 0;
}

static int way_open_pipe(void) {
        if (pipe2(way.pipe_fds, O_CLOEXEC | O_NONBLOCK) < 0)
                return -errno;
        for (unsigned i = 0; i < 2; i++) {
                int r = way_raise(&way.pipe_fds[i]);
                if (r < 0)
                        return r;
        }
        way.try = way_splice;
        return 1;
}

static int way_open_terminal(void) {
        way.own_fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (way.own_fd < 0) /* another's: there is no way then */
                return 0;
        int r = way_raise(&way.own_fd);
        way.try = way_write;
        return r < 0 ? r : 1;
}

static int way_open_writer(void) {
        int fd, r = log_writer_start(&fd);
        if (r < 0)
                return r;
        signal(SIGPIPE, SIG_IGN); /* if it is killed */
        r = dup2(fd, STDERR_FILENO) < 0 ? -errno : 1;
        close(fd);
        way.has_writer = true;
        way.own_fd = STDERR_FILENO;
        way.try = way_write;
        return r;
}

int log_way_find(bool may_start_writer) {
        struct stat st;
        if (fstat(STDERR_FILENO, &st) < 0)
                return -errno;
        if (S_ISSOCK(st.st_mode)) {
                way.try = way_send;
                return 1;
        }
        if (S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3)) /* /dev/null */
                return 0;
        if (may_start_writer)
                return way_open_writer();
        if (S_ISFIFO(st.st_mode))
                return way_open_pipe();
        return S_ISCHR(st.st_mode) ? way_open_terminal() : 0;
}

ssize_t log_way_try(const char *text, size_t bytes) { return way.try(text, bytes); }

bool log_way_has_room(void) {
        struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
        return way.has_writer ? log_writer_has_room() : poll(&p, 1, 0) > 0;
}

/* What is in the socket of another program is that one's. */
bool log_way_is_done(void) { return !way.has_writer || log_writer_is_done(); }
