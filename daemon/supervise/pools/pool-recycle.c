/* Workers that are worn: past MaxJobs=, RecycleMemory= or MaxAge=, or of an older plugin file.
 *
 * A worn worker serves on until another one is ready in its place. For the number of jobs that takes foresight: the
 * worker itself stops claiming at exactly MaxJobs=, and rings when a quarter of them is left, when its successor is
 * started to stand by. It does so only while there is work, which the tick of limits.c knows: a pool that is idle has
 * no more workers than it wants, and the first claim after that rings and starts the successor anew. Memory is looked
 * at while there is work, a few times a second; age has a timer for the oldest worker. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/log/log.h"
#include "daemon/supervise/supervisor-internal.h"
#include "ipc/memory/event.h"

#define RECYCLE_LOOK_NS UINT64_C(250000000)

void worker_limit_jobs(struct worker *w) {
        uint64_t max = w->pool->config.max_jobs;
        if (atomic_exchange(&worker_line(w)->max_claims, max) != max)
                worker_poke(w);
}

bool worker_is_used_up(const struct worker *w) {
        uint64_t max = w->pool->config.max_jobs;
        return max > 0 && atomic_load(&worker_line(w)->claims) >= max;
}

bool worker_is_worn(const struct worker *w) {
        uint64_t max = w->pool->config.max_jobs;
        if (w->is_outdated || w->is_due)
                return true;
        return max > 0 && w->pool->is_at_work && worker_serves(w) &&
               atomic_load(&worker_line(w)->claims) >= LAYOUT_SUCCESSOR_AT(max);
}

static void pool_on_age_timer(struct loop_timer *t) { pool_settle(t->user); }

void pool_check_ages(struct pool *p) {
        uint64_t now = event_now_ns(), next_ns = UINT64_MAX;
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS && p->config.max_age_ns; i++) {
                struct worker *w = p->workers[i];
                if (!w || w->phase != PHASE_READY || w->is_due)
                        continue;
                uint64_t end_ns = w->ready_ns + p->config.max_age_ns;
                w->is_due = end_ns <= now;
                if (!w->is_due && end_ns < next_ns)
                        next_ns = end_ns;
        }
        if (next_ns == UINT64_MAX)
                loop_timer_stop(&p->age_timer);
        else
                loop_timer_set(p->supervisor->loop, &p->age_timer, next_ns, pool_on_age_timer, p);
}

/* Resident bytes of a process, 0 if it is gone; -errno. */
static int64_t recycle_resident(pid_t pid) {
        char path[32], text[128];
        snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        ssize_t n = read(fd, text, sizeof(text) - 1);
        int r = n < 0 ? -errno : 0;
        close(fd);
        if (n <= 0)
                return r;
        text[n] = 0;
        const char *second = strchr(text, ' ');
        return second ? strtoll(second, NULL, 10) * sysconf(_SC_PAGESIZE) : -EPROTO;
}

/* What /proc hides from us (ProtectProc=, hidepid=) looks like a process that is gone. */
static bool recycle_is_hidden(const struct worker *w) {
        struct pollfd p = {.fd = w->pidfd, .events = POLLIN};
        return poll(&p, 1, 0) == 0;
}

bool pool_look_at_memory(struct pool *p) {
        uint64_t now = event_now_ns();
        bool is_news = false;
        if (!p->config.recycle_bytes || now - p->memory_look_ns < RECYCLE_LOOK_NS)
                return false;
        p->memory_look_ns = now;
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++) {
                struct worker *w = p->workers[i];
                if (!w || w->phase != PHASE_READY || w->is_due)
                        continue;
                int64_t bytes = recycle_resident(w->pid);
                if (bytes == -EACCES || bytes == -EPERM || (bytes == -ENOENT && recycle_is_hidden(w))) {
                        if (!p->problem[0])
                                pool_set_problem(p, "RecycleMemory= has no effect: /proc/%d/statm: %s%s", (int)w->pid,
                                                 strerror((int)-bytes),
                                                 bytes == -ENOENT ? ", but the worker lives: is it hidden by "
                                                                    "ProtectProc= of the unit, or hidepid=?"
                                                                  : "");
                        return false;
                }
                if (bytes > 0 && (uint64_t)bytes > p->config.recycle_bytes)
                        w->is_due = is_news = true;
        }
        return is_news;
}
