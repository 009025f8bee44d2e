/* A process between a program and a stderr that may keep writers waiting: a pipe or terminal nobody reads, a file on a
 * disk that does not answer.
 *
 * It is a process and no thread (detached.h), and so still writes what a program said last that was killed. No
 * O_NONBLOCK either: the description of stderr is shared with whoever started us, and files do not know it. It leaves
 * with the program, or a second or two later if nobody reads. What it was handed is taken out of the socket only when
 * it is written, so that the sender sees how far it is (SIOCOUTQ). */
#include "daemon/log-writer.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "daemon/detached.h"

enum { WRITER_BYTES = 64 * 1024 };

static struct {
        unsigned long n_lost;
        int error; /* of the last one */
        volatile sig_atomic_t n_moved, n_moved_before;
} writer;

/* Once a second while something is to be written. */
static void writer_on_second(int signal) {
        struct pollfd p = {.fd = DETACHED_FD};
        int saved_errno = errno;
        if (writer.n_moved == writer.n_moved_before && poll(&p, 1, 0) == 1 && p.revents & POLLHUP)
                _exit(0); /* nobody writes any more, nor reads */
        writer.n_moved_before = writer.n_moved;
        errno = saved_errno;
}

static void writer_count_seconds(bool is_wanted) {
        struct itimerval second = {.it_interval.tv_sec = is_wanted, .it_value.tv_sec = is_wanted};
        setitimer(ITIMER_REAL, &second, NULL);
}

static int writer_write(const char *text, size_t bytes) {
        while (bytes > 0) {
                ssize_t n = write(STDERR_FILENO, text, bytes);
                if (n >= 0) {
                        text += n;
                        bytes -= (size_t)n;
                        writer.n_moved = !writer.n_moved_before;
                } else if (errno == EAGAIN) { /* O_NONBLOCK is somebody else's wish */
                        struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
                        poll(&p, 1, -1);
                } else if (errno != EINTR)
                        return -errno;
        }
        return 0;
}

/* One write a line, so that lines of several programs do not mix. */
static void writer_write_line(const char *text, size_t bytes) {
        char notice[128];
        if (writer.n_lost) {
                snprintf(notice, sizeof(notice), "drover: %lu lines could not be written here: %s\n", writer.n_lost,
                         strerror(writer.error));
                writer.n_lost = writer_write(notice, strlen(notice)) < 0 ? writer.n_lost : 0;
        }
        int r = writer_write(text, bytes);
        if (r < 0) {
                writer.n_lost++;
                writer.error = -r;
        }
}

/* No end of a line: it is a library's, which has its own ideas. */
static void writer_write_lines(const char *text, size_t bytes) {
        while (bytes > 0) {
                const char *end = memchr(text, '\n', bytes);
                size_t n = end ? (size_t)(end + 1 - text) : bytes;
                writer_write_line(text, n);
                text += n;
                bytes -= n;
        }
}

static void writer_run(void) {
        static char buffer[WRITER_BYTES];
        struct sigaction on_second = {.sa_handler = writer_on_second, .sa_flags = SA_RESTART};
        sigaction(SIGALRM, &on_second, NULL);
        if (chdir("/") < 0)
                _exit(1);
        for (;;) {
                ssize_t n = recv(DETACHED_FD, buffer, sizeof(buffer), MSG_PEEK);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        _exit(0);
                const char *end = n == sizeof(buffer) ? memrchr(buffer, '\n', (size_t)n) : NULL;
                size_t bytes = end ? (size_t)(end + 1 - buffer) : (size_t)n;
                writer_count_seconds(true);
                writer_write_lines(buffer, bytes);
                writer_count_seconds(false);
                while (bytes > 0 && (n = recv(DETACHED_FD, buffer, bytes, 0)) > 0)
                        bytes -= (size_t)n;
        }
}

int log_writer_start(int *ret_fd) { return detached_start("drover-log", SOCK_STREAM, writer_run, ret_fd); }
