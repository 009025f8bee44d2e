/* Owns resource limits and the place in the OOM killer's order. Set once, before plugin code runs; a template's workers
 * inherit them. Nothing in here can be taken back without privileges, and the sandbox forbids to try.
 *
 * Memory is bounded by RLIMIT_DATA, which counts what the process alone can write: heap, thread stacks, data of
 * libraries, anonymous mappings, touched or not. RLIMIT_AS would count channels, arenas and payloads, too, which are
 * shared, can be larger than all of that and are bounded elsewhere, and reservations that nobody can write.
 *
 * RLIMIT_NPROC is no bound for one worker: the kernel compares it with all tasks of the uid. So workers get a share of
 * what the service may have, templates a larger one, and whatever workers do, the spawner and other templates can go on
 * starting and ending others. For root the kernel does not look at it.
 *
 * Not set: RLIMIT_FSIZE (the only files are those that a job was given, to write into), RLIMIT_SIGPENDING (counts the
 * uid's, and pthread_cancel needs one), RLIMIT_STACK (the size of thread stacks is the administrator's choice). */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <drover/plugin.h>

#include "plugins/host/sandbox/limits.h"

enum {
        LIMITS_MANY_TASKS = 32768, /* where the service itself may have any number */
        LIMITS_MOST_EXPENDABLE = 1000,
};

/* Soft and hard, but no more than we may have. */
static int limits_lower(__rlimit_resource_t what, rlim_t limit) {
        struct rlimit l = {limit, limit};
        if (setrlimit(what, &l) == 0)
                return 0;
        if (errno != EPERM || getrlimit(what, &l) < 0)
                return -errno;
        l.rlim_cur = l.rlim_max; /* which is lower */
        return setrlimit(what, &l) < 0 ? -errno : 0;
}

static rlim_t limits_share(rlim_t all) { return all - all / 4; }

static int limits_memory(uint64_t bytes) {
        if (bytes == LIMITS_UNLIMITED || DROVER__SANITIZED) /* its shadow alone is terabytes */
                return 0;
        return limits_lower(RLIMIT_DATA, bytes);
}

static rlim_t limits_all_tasks(void) {
        struct rlimit now;
        return getrlimit(RLIMIT_NPROC, &now) < 0 || now.rlim_cur == RLIM_INFINITY ? LIMITS_MANY_TASKS : now.rlim_cur;
}

/* Half way between its workers and the service. */
static rlim_t limits_template_tasks(void) { return limits_all_tasks() - limits_all_tasks() / 8; }

static rlim_t limits_tasks(void) { return limits_share(limits_all_tasks()); }

int limits_set_forked(pid_t pid) {
        const struct rlimit l = {limits_tasks(), limits_tasks()};
        return prlimit(pid, RLIMIT_NPROC, &l, NULL) < 0 ? -errno : 0;
}

/* When memory is short everywhere, a worker goes first. That it may go earlier needs no privilege; where /proc does not
 * let us say so, nothing else depends on it. */
static void limits_expendable(int oom_score_adj) {
        char text[16];
        int n = snprintf(text, sizeof text, "%d", oom_score_adj);
        int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
        if (fd < 0)
                return;
        ssize_t written = write(fd, text, (size_t)n);
        (void)written;
        close(fd);
}

static int limits_own_oom_score_adj(void) {
        char text[16] = "";
        int fd = open("/proc/self/oom_score_adj", O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
        if (fd >= 0)
                close(fd);
        return n > 0 ? atoi(text) : 0;
}

void limits_resolve(struct limits *l) {
        struct sysinfo info;
        if (l->memory_bytes == 0 && sysinfo(&info) == 0)
                l->memory_bytes = limits_share((rlim_t)info.totalram * info.mem_unit);
        int least = limits_own_oom_score_adj() + LIMITS_MORE_EXPENDABLE;
        if (l->oom_score_adj < least || l->oom_score_adj == 0)
                l->oom_score_adj = least;
        if (l->oom_score_adj > LIMITS_MOST_EXPENDABLE)
                l->oom_score_adj = LIMITS_MOST_EXPENDABLE;
}

int limits_set(const struct limits *given) {
        static const struct {
                __rlimit_resource_t what;
                rlim_t limit;
        } fixed[] = {
                {RLIMIT_CORE, 0}, {RLIMIT_MEMLOCK, 0}, {RLIMIT_MSGQUEUE, 0},
                {RLIMIT_NICE, 0}, {RLIMIT_RTPRIO, 0},  {RLIMIT_NOFILE, LIMITS_MAX_FDS},
        };
        struct limits l = *given;
        int r = 0;
        if (l.memory_bytes == 0 || l.oom_score_adj == 0)
                limits_resolve(&l);
        for (size_t i = 0; i < sizeof fixed / sizeof *fixed && r >= 0; i++)
                r = limits_lower(fixed[i].what, fixed[i].limit);
        if (r >= 0)
                r = limits_memory(l.memory_bytes);
        if (r >= 0)
                r = limits_lower(RLIMIT_NPROC, l.is_template ? limits_template_tasks() : limits_tasks());
        limits_expendable(l.oom_score_adj);
        return r;
}
