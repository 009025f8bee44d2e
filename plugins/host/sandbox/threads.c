/* Owns the process's other threads until its filters are there, and the mask that they may set.
 *
 * A filter is put on all threads at one moment, wherever they are. Those in the middle of glibc's pthread_create have
 * all signals blocked and take their mask back by a call that is trapped, so that moment is chosen when there is none.
 * A library that makes threads again and again can still be caught between the look and the filter; that worker dies
 * while it starts, and the pool starts another one.
 *
 * Many libraries block all signals for their threads, for good. What they call for that is ours: the program's symbols
 * come before the C library's, also for what it loads later. It keeps SIGSYS open, as the trap's handler does once the
 * filter is there (sandbox.c). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "ipc/memory/event.h"
#include "plugins/host/sandbox/threads.h"

#define THREADS_PATIENCE_NS UINT64_C(2000000000)

/* ---- masks ---- */

static int set_mask(int how, const sigset_t *set, sigset_t *old) {
        enum { KERNEL_BYTES = 8, OF_GLIBC = 32 };
        uint64_t wanted = 0, before;
        if (set) {
                memcpy(&wanted, set, sizeof wanted);
                wanted &= ~(UINT64_C(3) << (OF_GLIBC - 1)); /* pthread_cancel, setxid: glibc does so, too */
                if (how != SIG_UNBLOCK)
                        wanted &= ~(UINT64_C(1) << (SIGSYS - 1));
        }
        if (syscall(SYS_rt_sigprocmask, how, set ? &wanted : NULL, old ? &before : NULL, KERNEL_BYTES) < 0)
                return errno;
        if (old) {
                sigemptyset(old);
                memcpy(old, &before, sizeof before);
        }
        return 0;
}

__attribute__((visibility("default"))) int pthread_sigmask(int how, const sigset_t *set, sigset_t *old) {
        int saved = errno, r = set_mask(how, set, old);
        errno = saved;
        return r;
}

__attribute__((visibility("default"))) int sigprocmask(int how, const sigset_t *set, sigset_t *old) {
        int r = set_mask(how, set, old);
        if (r == 0)
                return 0;
        errno = r;
        return -1;
}

/* ---- those that run ---- */

long threads_count(int stat_fd) {
        char text[1024];
        ssize_t n = pread(stat_fd, text, sizeof text - 1, 0);
        if (n <= 0)
                return -1;
        text[n] = 0;
        const char *p = strrchr(text, ')'); /* the command may hold anything */
        for (int field = 2; p && field < 20; field++)
                p = strchr(p + 1, ' ');
        return p ? strtol(p, NULL, 10) : -1;
}

/* What the kernel says of thread `name`; false: it is gone. */
static bool read_status(const char *name, char *text, size_t bytes) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/task/%.20s/status", name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return false;
        ssize_t n = read(fd, text, bytes - 1);
        close(fd);
        text[n > 0 ? n : 0] = 0;
        return n > 0;
}

static bool blocks_traps(const char *status) {
        const char *line = strstr(status, "\nSigBlk:");
        return line && (strtoull(line + 8, NULL, 16) >> (SIGSYS - 1) & 1);
}

/* 1: one does, and its `name` is told; 0: none. */
static int find_blocking(char *name, size_t name_bytes) {
        DIR *tasks = opendir("/proc/self/task");
        if (!tasks)
                return -errno;
        int r = 0;
        char status[4096];
        for (const struct dirent *e; r == 0 && (e = readdir(tasks));)
                if (e->d_name[0] != '.' && read_status(e->d_name, status, sizeof status) && blocks_traps(status)) {
                        snprintf(name, name_bytes, "%.*s", (int)strcspn(status + strlen("Name:\t"), "\n"),
                                 status + strlen("Name:\t"));
                        r = 1;
                }
        closedir(tasks);
        return r;
}

int threads_await_traps(char *error, size_t error_bytes) {
        const uint64_t deadline_ns = event_now_ns() + THREADS_PATIENCE_NS;
        char name[32] = "?";
        int r;
        while ((r = find_blocking(name, sizeof name)) > 0 && event_now_ns() < deadline_ns)
                nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
        if (r > 0)
                snprintf(
                        error, error_bytes,
                        "a thread (\"%s\") that a library started when it was loaded blocks SIGSYS for good: the first "
                        "system call that the sandbox answers would kill it; keep the library from it with "
                        "Environment=",
                        name);
        else if (r < 0)
                snprintf(error, error_bytes, "the threads of the plugin's libraries cannot be looked at: %s",
                         strerrordesc_np(-r));
        return r > 0 ? -ETIMEDOUT : r;
}
