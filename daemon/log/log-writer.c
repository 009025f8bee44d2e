/* A process between a program and a stderr that may keep writers waiting: a pipe or terminal nobody reads, a file on a
 * disk that does not answer.
 *
 * It is a process and no thread (detached.h), and so still writes what a program said last that was killed. No
 * O_NONBLOCK either: the description of stderr is shared with whoever started us, and files do not know it. It leaves
 * with the program, or a second or two later if nobody reads. Between the two is a pipe, because it holds more lines
 * than a socket does; that something is taken out of it and not written yet is told in a page of shared memory. */
#include "daemon/log/log-writer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include "daemon/log/detached.h"

enum { WRITER_BYTES = 64 * 1024, WRITER_PIPE_BYTES = 1 << 20 };

static struct {
        unsigned long n_lost;
        int error; /* of the last one */
        volatile sig_atomic_t n_moved, n_moved_before;
        _Atomic bool *is_busy; /* shared */
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
                        if (poll(&p, 1, -1) < 0 && errno != EINTR)
                                return -errno;
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

/* Returns how much was written: whole lines. */
static size_t writer_write_lines(const char *text, size_t bytes) {
        size_t written = 0;
        for (const char *end; (end = memchr(text + written, '\n', bytes - written));) {
                size_t n = (size_t)(end + 1 - text) - written;
                writer_write_line(text + written, n);
                written += n;
        }
        return written;
}

static bool writer_has_more(void) {
        int left = 0;
        return ioctl(DETACHED_FD, FIONREAD, &left) == 0 && left > 0;
}

/* What is left of `bytes`: the beginning of a line, if more of it is on its way. If not, it is a library's, which has
 * its own ideas of lines. */
static size_t writer_pass_on(char *buffer, size_t bytes) {
        writer_count_seconds(true);
        size_t n = writer_write_lines(buffer, bytes);
        if (n < bytes && (n == 0 || !writer_has_more())) {
                writer_write_line(buffer + n, bytes - n);
                n = bytes;
        }
        writer_count_seconds(false);
        memmove(buffer, buffer + n, bytes - n);
        return bytes - n;
}

static void writer_run(void) {
        static char buffer[WRITER_BYTES];
        struct pollfd p = {.fd = DETACHED_FD, .events = POLLIN};
        struct sigaction on_second = {.sa_handler = writer_on_second, .sa_flags = SA_RESTART};
        size_t n = 0;
        sigaction(SIGALRM, &on_second, NULL);
        if (chdir("/") < 0)
                _exit(1);
        for (;;) {
                *writer.is_busy = n > 0;
                if (poll(&p, 1, -1) < 0) {
                        if (errno == EINTR)
                                continue;
                        _exit(1); /* it would spin */
                }
                *writer.is_busy = true;
                ssize_t got = read(DETACHED_FD, buffer + n, sizeof(buffer) - n);
                if (got < 0)
                        continue;
                if (got == 0) {
                        writer_write_line(buffer, n);
                        _exit(0);
                }
                n = writer_pass_on(buffer, n + (size_t)got);
        }
}

int log_writer_start(int *ret_fd) {
        int fds[2];
        writer.is_busy = mmap(NULL, sizeof(*writer.is_busy), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (writer.is_busy == MAP_FAILED || pipe2(fds, O_CLOEXEC) < 0)
                return -errno;
        fcntl(fds[1], F_SETPIPE_SZ, WRITER_PIPE_BYTES); /* or what a pipe is else */
        fcntl(fds[1], F_SETFL, O_NONBLOCK);
        int r = detached_start("drover-log", fds[0], writer_run);
        if (r < 0)
                close(fds[1]);
        else
                *ret_fd = fds[1];
        return r;
}

bool log_writer_is_done(void) {
        int left = 0;
        return ioctl(STDERR_FILENO, FIONREAD, &left) < 0 || (left == 0 && !*writer.is_busy);
}

bool log_writer_has_room(void) {
        int left = 0, size = fcntl(STDERR_FILENO, F_GETPIPE_SZ);
        return ioctl(STDERR_FILENO, FIONREAD, &left) < 0 || left <= size / 2;
}
