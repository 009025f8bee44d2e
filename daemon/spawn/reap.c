/* Owns the ends: waitid, kill of process groups, and the hunt for escapees.
 *
 * A worker's end: seen with WNOWAIT, so that its pid, which is its process group's name, cannot be given to anybody
 * else; then its group is killed, then it is reaped. SPAWN_EXITED says that its group is gone: if a member is still on
 * its way out, the worker stands in stage CLOSING, and its event waits for the member's own end (it is our child by
 * then).
 *
 * Everything that loses its parent below us becomes our child (subreaper). A child that is neither worker nor template,
 * copier nor of a closing worker's group is an escapee: killed, counted, told. Escapees that live on are found in
 * /proc/thread-self/children whenever some child ends, because becoming our child is caused by an end; killing one may
 * orphan the next, whose end comes with a SIGCHLD again. The one unknown child that is no escapee is a worker on its
 * way: its template was let fork it, and it has not said that it is there. Until then it is in its template's process
 * group.
 *
 * Rejected: pidfds of workers in the poll set (a start would cost a descriptor here and each wake-up a walk over all of
 * them). The pidfd that the broker holds is only to watch. */
#include "daemon/spawn/reap.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/log/log.h"
#include "daemon/spawn/copier.h"
#include "daemon/spawn/events.h"
#include "daemon/spawn/template.h"
#include "daemon/spawn/workers.h"
#include "ipc/memory/event.h"

enum {
        CHILDREN_BYTES = 64 * 1024, /* of the list of pids: more than 8000 of them; the rest is seen next time */
        END_PATIENCE_MS = 5000,
        COPIER_PATIENCE_MS = 200, /* of which a copier needs less, unless it hangs */
};

int reap_init(struct spawner *s) {
        if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
                return -errno;
        s->children_fd = open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC);
        return s->children_fd < 0 ? -errno : 0;
}

void reap_kill(const struct spawn_worker *w, int signal) {
        if (signal == SIGKILL)
                kill(-w->pid, SIGKILL); /* fails before the worker made itself a session */
        kill(w->pid, signal);
}

void reap_take_signals(struct spawner *s) {
        struct signalfd_siginfo si;
        while (read(s->signal_fd, &si, sizeof si) == sizeof si)
                if (si.ssi_signo == SIGCHLD)
                        s->is_reap_due = true;
                else
                        s->is_ending = true;
}

/* ---- those that were left behind: they hang in the kernel ---- */

static bool is_left(const struct spawner *s, pid_t pid) {
        for (unsigned i = 0; i < s->n_left; i++)
                if (s->left[i] == pid)
                        return true;
        return false;
}

static void leave(struct spawner *s, pid_t pid) {
        if (!copier_find_pid(s, pid) && !is_left(s, pid) && s->n_left < SPAWNER_MAX_LEFT)
                s->left[s->n_left++] = pid;
}

/* True: it was one of them. */
static bool left_ended(struct spawner *s, pid_t pid) {
        for (unsigned i = 0; i < s->n_left; i++)
                if (s->left[i] == pid) {
                        s->left[i] = s->left[--s->n_left];
                        return true;
                }
        return false;
}

/* ---- ends ---- */

/* What ended (not reaped), pid 0 if nothing did. */
static siginfo_t next_end(idtype_t type, pid_t pid) {
        siginfo_t si = {0};
        if (waitid(type, (id_t)pid, &si, WEXITED | WNOHANG | WNOWAIT | __WALL) < 0)
                si.si_pid = 0;
        return si;
}

static void reap(pid_t pid, struct rusage *ret_usage) {
        int status;
        while (wait4(pid, &status, __WALL, ret_usage) < 0 && errno == EINTR)
                ;
}

static void bury(pid_t pid, struct rusage *ret_usage) {
        kill(-pid, SIGKILL); /* if it leads a group: nobody else can have that number while it is not reaped */
        reap(pid, ret_usage);
}

static bool is_group_gone(pid_t group) { return kill(-group, 0) < 0 && errno == ESRCH; }

static void worker_ended(struct spawner *s, struct spawn_worker *w, const siginfo_t *si) {
        static const int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS};
        bool was_crash = si->si_code == CLD_DUMPED;
        for (unsigned i = 0; i < sizeof crashes / sizeof *crashes; i++)
                was_crash |= si->si_code == CLD_KILLED && si->si_status == crashes[i];

        struct rusage usage = {0};
        bury(w->pid, &usage);
        w->exited.code = si->si_code;
        w->exited.status = si->si_status;
        w->exited.cpu_us = (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000u +
                           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
        w->exited.max_rss_kib = (uint64_t)usage.ru_maxrss;
        uint64_t serial = w->template_serial;
        if (is_group_gone(w->pid))
                workers_exited(s, w);
        else
                w->stage = WORKER_CLOSING;
        if (serial)
                template_count_end(s, serial, was_crash);
}

static bool is_of_closing_group(const struct spawner *s, pid_t pid) {
        pid_t group = getpgid(pid);
        for (unsigned i = 0; i < s->n_workers; i++)
                if (s->workers[i].stage == WORKER_CLOSING && s->workers[i].pid == group)
                        return true;
        return false;
}

static void tell_escaped(struct spawner *s, pid_t pid) {
        struct spawn_event e = {.type = SPAWN_ESCAPED, .pid = pid};
        events_send(s, &e, NULL, 0);
}

static void check_closing(struct spawner *s) {
        for (unsigned i = 0; i < s->n_workers;) {
                struct spawn_worker *w = &s->workers[i];
                if (w->stage == WORKER_CLOSING && is_group_gone(w->pid))
                        workers_exited(s, w); /* the last one takes its place */
                else
                        i++;
        }
}

/* It was on its way, and did not come. */
static void early_ended(struct spawner *s, struct template *t, const siginfo_t *si) {
        char what[96];
        snprintf(what, sizeof what, "forked a worker, which ended with %s %d before it was set up",
                 si->si_code == CLD_EXITED ? "status" : "signal", si->si_status);
        template_child_failed(s, t, ECHILD, what);
}

static void unknown_ended(struct spawner *s, const siginfo_t *si) {
        struct rusage usage;
        struct template *t = template_of_group(s, getpgid(si->si_pid));
        bool is_escapee = !t && !is_of_closing_group(s, si->si_pid);
        bury(si->si_pid, &usage);
        if (t)
                early_ended(s, t, si);
        else if (is_escapee && s->n_unreported)
                s->n_unreported--;
        else if (is_escapee)
                tell_escaped(s, si->si_pid);
}

static void child_ended(struct spawner *s, const siginfo_t *si) {
        struct rusage usage;
        struct copier *c = copier_find_pid(s, si->si_pid);
        struct spawn_worker *w = workers_find_pid(s, si->si_pid);
        struct template *t = template_find_pid(s, si->si_pid);
        if (c) {
                reap(si->si_pid, &usage);
                copier_ended(s, c, si);
        } else if (left_ended(s, si->si_pid)) {
                bury(si->si_pid, &usage);
        } else if (w) {
                worker_ended(s, w, si);
        } else if (t) {
                s->n_unreported += template_died(s, t, si->si_code, si->si_status);
                reap(si->si_pid, &usage); /* its group may hold a new worker: the hunt finds it */
        } else {
                unknown_ended(s, si);
        }
}

/* ---- those that live on ---- */

/* Calls `fn` for every child, living or not. */
static void for_each_child(struct spawner *s, void (*fn)(struct spawner *s, pid_t pid)) {
        static char list[CHILDREN_BYTES];
        size_t bytes = 0;
        ssize_t n;
        while (bytes < sizeof list - 1 &&
               (n = pread(s->children_fd, list + bytes, sizeof list - 1 - bytes, (off_t)bytes)) > 0)
                bytes += (size_t)n;
        list[bytes] = 0;
        for (char *c = list, *end; (end = strchr(c, ' ')); c = end + 1) {
                int pid = atoi(c);
                if (pid > 1)
                        fn(s, pid);
        }
}

static void kill_unknown(struct spawner *s, pid_t pid) {
        if (workers_find_pid(s, pid) || template_find_pid(s, pid) || copier_find_pid(s, pid) || is_left(s, pid))
                return;
        s->n_unknown++;
        if (template_of_group(s, getpgid(pid)))
                return;
        kill(-pid, SIGKILL);
        kill(pid, SIGKILL);
}

static void hunt(struct spawner *s) {
        s->n_unknown = 0;
        for_each_child(s, kill_unknown);
        if (s->n_unknown == 0)
                s->n_unreported = 0;
}

void reap_run(struct spawner *s) {
        bool is_hunting = s->is_hunt_due;
        siginfo_t si;
        s->is_reap_due = s->is_hunt_due = false;
        for (; (si = next_end(P_ALL, 0)).si_pid; is_hunting = true)
                child_ended(s, &si);
        if (!is_hunting)
                return;
        check_closing(s);
        hunt(s);
}

/* ---- everything ---- */

static void kill_child(struct spawner *s, pid_t pid) {
        s->n_unknown += !copier_find_pid(s, pid) && !is_left(s, pid);
        kill(-pid, SIGKILL);
        kill(pid, SIGKILL);
}

/* False: nobody is left. */
static bool end_children(struct spawner *s) {
        siginfo_t si;
        struct rusage usage;
        s->n_unknown = 0;
        for_each_child(s, kill_child);
        while ((si = next_end(P_ALL, 0)).si_pid) {
                struct copier *c = copier_find_pid(s, si.si_pid);
                bury(si.si_pid, &usage);
                if (c)
                        copier_ended(s, c, &si);
                left_ended(s, si.si_pid);
        }
        return waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT | __WALL) == 0 || errno != ECHILD;
}

void reap_everything(struct spawner *s) {
        uint64_t start_ns = event_now_ns();
        while (end_children(s)) {
                uint64_t passed_ms = (event_now_ns() - start_ns) / 1000000;
                if (s->n_unknown == 0 && passed_ms > COPIER_PATIENCE_MS)
                        return; /* a copier has nothing of a worker's, and the others were waited for */
                if (passed_ms > END_PATIENCE_MS) {
                        log_error("processes that do not die of SIGKILL, because they hang in the kernel: %u",
                                  s->n_unknown);
                        for_each_child(s, leave);
                        return;
                }
                struct pollfd p = {.fd = s->signal_fd, .events = POLLIN};
                if (poll(&p, 1, 10) > 0)
                        reap_take_signals(s); /* SIGTERM counts, also now */
        }
}
