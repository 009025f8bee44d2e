/* Owns templates: one per generation, made when its first worker is wanted, kept warm.
 *
 * A template runs plugin code (constructors, preload), so it is as little trusted as a worker: a packet of the wrong
 * size, type or version, an answer to a question nobody asked, or a pid that is not an unknown child of ours ends it.
 * Its workers are our children (it clones them with CLONE_PARENT), so they outlive it and we see their exact ends.
 *
 * Invariants: n_asked of a template = workers in stage ASKED with its serial; a generation points to its template only
 * while that one may make workers; a template leaves the table when it is reaped, not before, and what it said until
 * then is read first: a worker it reported in its last moment counts.
 *
 * Why the check for threads is done from outside: a thread that preload left would not exist in the forked worker, but
 * the locks it held would; /proc counts also what the host's own books do not know. Stray descriptors are the host's to
 * find: /proc/PID/fd of a process that is not dumpable is not ours to read. It does not reap and does not exec. */
#include "daemon/spawn/template.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "daemon/spawn/events.h"
#include "daemon/spawn/start.h"
#include "daemon/spawn/workers.h"
#include "ipc/packet.h"

enum {
        TEMPLATE_WINDOW = 16, /* requests without an answer */
        TEMPLATE_MAX_CRASHES = 5,
};
#define TEMPLATE_STUCK_NS UINT64_C(1000000000)

static uint64_t now_ns(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static struct generation *generation_of(struct spawner *s, const struct template *t) {
        for (unsigned i = 0; i < s->n_generations; i++)
                if (s->generations[i]->template == t)
                        return s->generations[i];
        return NULL;
}

struct template *template_find_pid(struct spawner *s, pid_t pid) {
        for (unsigned i = 0; i < s->n_templates; i++)
                if (s->templates[i]->pid == pid)
                        return s->templates[i];
        return NULL;
}

static struct template *find_serial(struct spawner *s, uint64_t serial) {
        for (unsigned i = 0; i < s->n_templates; i++)
                if (s->templates[i]->serial == serial)
                        return s->templates[i];
        return NULL;
}

/* ---- making one ---- */

static int template_new(struct spawner *s, struct generation *g) {
        if (s->n_templates == SPAWNER_MAX_TEMPLATES)
                return -EAGAIN;
        struct template *t = calloc(1, sizeof *t);
        if (!t)
                return -ENOMEM;
        int fds[2];
        int r = packet_pair(fds);
        if (r == 0) {
                r = start_exec(s, g, START_ROLE_TEMPLATE, fds[1], &t->pid, NULL);
                close(fds[1]);
                if (r < 0)
                        close(fds[0]);
        }
        if (r < 0) {
                free(t);
                return r;
        }
        t->serial = ++s->template_serial;
        t->generation = g->id;
        t->fd = fds[0];
        t->state = TEMPLATE_LOADING;
        memcpy(t->plugin, g->plugin, sizeof t->plugin);
        s->templates[s->n_templates++] = t;
        g->template = t;
        return 0;
}

static void template_free(struct spawner *s, struct template *t) {
        for (unsigned i = 0; i < s->n_templates; i++)
                if (s->templates[i] == t)
                        s->templates[i] = s->templates[--s->n_templates];
        if (t->fd >= 0)
                close(t->fd);
        free(t);
}

/* ---- asking it ---- */

/* False: the template has no room, or is done for. */
static bool ask(struct spawner *s, struct template *t, struct spawn_worker *w) {
        int fds[2];
        int r = packet_pair(fds);
        if (r < 0) {
                workers_refuse(s, w, -r, false, "no socket for a worker: %s", strerror(-r));
                return true;
        }
        struct template_request q = {.version = WIRE_VERSION, .worker = w->id};
        r = packet_send(t->fd, &q, sizeof q, &fds[1], 1);
        close(fds[1]);
        if (r < 0) { /* full: its next answer brings us here again; broken: its death is about to be noticed */
                close(fds[0]);
                return false;
        }
        workers_set_stage(s, w, WORKER_ASKED);
        w->broker_fd = fds[0];
        w->asked_ns = now_ns();
        t->n_asked++;
        return true;
}

static void ask_queued(struct spawner *s, struct template *t) {
        for (unsigned i = 0; i < s->n_workers && t->state == TEMPLATE_WARM && t->n_asked < TEMPLATE_WINDOW;) {
                struct spawn_worker *w = &s->workers[i];
                unsigned n = s->n_workers;
                if (w->stage == WORKER_QUEUED && w->template_serial == t->serial && !ask(s, t, w))
                        return;
                i += n == s->n_workers; /* a refused one left its place to the last */
        }
}

/* ---- ending it ---- */

static void end(struct spawner *s, struct template *t) {
        struct generation *g = generation_of(s, t);
        if (g)
                g->template = NULL;
        t->state = TEMPLATE_ENDING;
        kill(t->pid, SIGKILL);
}

/* Ends it for a reason of which those who wait will hear when it is reaped; the first reason stands. */
static void fail(struct spawner *s, struct template *t, const struct spawn_event *why, bool is_quiet) {
        if (!t->has_failed) {
                t->has_failed = true;
                t->failure = *why;
                t->is_quiet = is_quiet;
        }
        end(s, t);
}

static void protocol_error(struct spawner *s, struct template *t, const char *what) {
        struct spawn_event e = {.error = EPROTO, .reason = REASON_PRELOAD};
        events_text(&e, "the template of plugin %s was ended: %s", t->plugin, what);
        fail(s, t, &e, false);
}

/* Answers what it was asked, then ends; who still queues gets another template. */
static void replace(struct spawner *s, struct template *t) {
        struct generation *g = generation_of(s, t);
        g->template = NULL;
        t->state = TEMPLATE_ENDING;
        t->is_quiet = true;
        if (t->n_asked == 0)
                kill(t->pid, SIGKILL);
        for (unsigned i = 0; i < s->n_workers;) {
                struct spawn_worker *w = &s->workers[i];
                unsigned n = s->n_workers;
                if (w->stage == WORKER_QUEUED && w->template_serial == t->serial)
                        template_start_worker(s, g, w);
                i += n == s->n_workers;
        }
}

/* ---- what it says ---- */

/* How many threads; the name of one that is not the first. */
static int count_threads(pid_t pid, char *ret_comm, size_t comm_bytes) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/task", pid);
        DIR *d = opendir(path);
        if (!d)
                return -errno;
        int n = 0;
        for (struct dirent *e; (errno = 0, e = readdir(d));) {
                int tid = atoi(e->d_name);
                if (tid <= 0)
                        continue;
                n++;
                if (tid == pid)
                        continue;
                snprintf(path, sizeof path, "%d/comm", tid);
                int fd = openat(dirfd(d), path, O_RDONLY | O_CLOEXEC);
                ssize_t got = fd < 0 ? -1 : read(fd, ret_comm, comm_bytes - 1);
                ret_comm[got > 0 ? got - (ret_comm[got - 1] == '\n') : 0] = 0;
                if (fd >= 0)
                        close(fd);
        }
        int error = errno;
        closedir(d);
        return error ? -error : n ? n : -ESRCH;
}

static void on_closed(struct spawner *s, struct template *t, const struct template_event *m) {
        if (*t->sandbox || !*m->text)
                protocol_error(s, t, "it closed its sandbox twice");
        else
                snprintf(t->sandbox, sizeof t->sandbox, "%.*s", (int)sizeof t->sandbox - 1, m->text);
}

static void on_ready(struct spawner *s, struct template *t, const struct template_event *m) {
        char comm[32] = "";
        if (!*t->sandbox) {
                protocol_error(s, t, "it did not close its sandbox");
                return;
        }
        int n = count_threads(t->pid, comm, sizeof comm);
        if (n == 1) {
                t->state = TEMPLATE_WARM;
                t->was_warm = true;
                ask_queued(s, t);
                return;
        }
        if (n <= 0) { /* hidepid=, or no descriptor is left; a dead one can be counted until it is reaped */
                struct spawn_event e = {.error = -n, .reason = REASON_PRELOAD};
                events_text(&e, "/proc/%d/task: %s: the threads of plugin %s cannot be counted: use StartMethod=spawn",
                            t->pid, strerror(-n), t->plugin);
                fail(s, t, &e, true);
                return;
        }
        struct spawn_event e = {.error = EBUSY, .reason = REASON_PRELOAD, .is_permanent = 1};
        events_text(&e,
                    "plugin %s has %d threads after preload (one is named \"%s\"); a template may have one: "
                    "set Environment=... (for OpenBLAS: Environment=OPENBLAS_NUM_THREADS=1) or StartMethod=spawn",
                    t->plugin, n, comm);
        fail(s, t, &e, true);
}

static void on_failed(struct spawner *s, struct template *t, const struct template_event *m) {
        struct spawn_event e = {
                .error = m->error > 0 ? m->error : EPROTO,
                .reason = m->reason > REASON_NONE && m->reason < REASON_N ? m->reason : REASON_PRELOAD,
                .syscall = m->syscall,
                .is_permanent = m->is_permanent == 1,
        };
        if (m->syscall) {
                e.code = CLD_KILLED;
                e.status = SIGSYS;
        }
        events_text(&e, "%s", *m->text ? m->text : "preload failed");
        fail(s, t, &e, m->syscall == 0);
}

static bool is_unknown_child(struct spawner *s, pid_t pid) {
        siginfo_t si = {0};
        if (pid <= 1 || workers_find_pid(s, pid) || template_find_pid(s, pid) ||
            waitid(P_PID, (id_t)pid, &si, WEXITED | WNOHANG | WNOWAIT | __WALL) < 0)
                return false;
        s->is_reap_due |= si.si_pid != 0; /* it ended already, before it was known */
        return true;
}

static void on_forked(struct spawner *s, struct template *t, const struct template_event *m) {
        struct spawn_worker *w = workers_find(s, m->worker);
        if (!w || w->stage != WORKER_ASKED || w->template_serial != t->serial) {
                protocol_error(s, t, "it reported a worker that nobody asked for");
                return;
        }
        if (m->error <= 0 && !is_unknown_child(s, m->pid)) {
                protocol_error(s, t, "it reported a process that is not its worker");
                return;
        }
        t->n_asked--;
        if (m->error > 0) {
                workers_refuse(s, w, m->error, false, "the template of plugin %s cannot fork: %s", t->plugin,
                               strerror(m->error));
        } else {
                int signal = (int)w->pending_signal, broker_fd = w->broker_fd;
                workers_started(s, w,
                                &(struct worker_start){
                                        .pid = m->pid, .pidfd = -1, .broker_fd = broker_fd, .sandbox = t->sandbox});
                if (signal)
                        kill(m->pid, signal);
        }
        s->is_reap_due |= s->is_hunt_held;
        if (t->state == TEMPLATE_WARM)
                ask_queued(s, t);
        else if (t->n_asked == 0)
                kill(t->pid, SIGKILL);
}

static void on_unexpected(struct spawner *s, struct template *t, const struct template_event *m) {
        protocol_error(s, t, "it spoke out of turn");
}

typedef void (*template_fn)(struct spawner *s, struct template *t, const struct template_event *m);

static const template_fn template_table[TEMPLATE_N_STATES][TEMPLATE_CLOSED + 1] = {
        [TEMPLATE_LOADING] =
                {
                        [TEMPLATE_READY] = on_ready,
                        [TEMPLATE_FAILED] = on_failed,
                        [TEMPLATE_FORKED] = on_unexpected,
                        [TEMPLATE_CLOSED] = on_closed,
                },
        [TEMPLATE_WARM] =
                {
                        [TEMPLATE_READY] = on_unexpected,
                        [TEMPLATE_FAILED] = on_failed,
                        [TEMPLATE_FORKED] = on_forked,
                        [TEMPLATE_CLOSED] = on_unexpected,
                },
        [TEMPLATE_ENDING] =
                {
                        [TEMPLATE_FORKED] = on_forked, /* the rest no longer matters */
                },
};

void template_receive(struct spawner *s, struct template *t) {
        while (t->fd >= 0) {
                struct template_event m;
                size_t bytes;
                int r = packet_receive(t->fd, &m, sizeof m, &bytes, NULL, NULL);
                if (r == -EAGAIN)
                        return;
                if (r < 0 || bytes == 0) { /* at its end: whoever holds the other one is dead or of no use */
                        close(t->fd);
                        t->fd = -1;
                        if (r < 0 && r != -EPIPE)
                                protocol_error(s, t, "it sent a packet that is no message");
                        else
                                end(s, t);
                        return;
                }
                if (bytes != sizeof m || m.version != WIRE_VERSION || m.type < TEMPLATE_READY ||
                    m.type > TEMPLATE_CLOSED) {
                        protocol_error(s, t, "it sent a packet that is no message (mixed installation?)");
                        continue;
                }
                m.text[sizeof m.text - 1] = 0;
                template_fn fn = template_table[t->state][m.type];
                if (fn)
                        fn(s, t, &m);
        }
}

void template_receive_all(struct spawner *s) {
        for (unsigned i = 0; i < s->n_templates; i++)
                template_receive(s, s->templates[i]);
}

/* ---- what requests and the reaper ask for ---- */

void template_start_worker(struct spawner *s, struct generation *g, struct spawn_worker *w) {
        int r = g->template ? 0 : template_new(s, g);
        if (r < 0) {
                workers_refuse(s, w, -r, start_error_is_permanent(-r), "cannot run %s: %s", s->worker_path,
                               strerror(-r));
                return;
        }
        w->template_serial = g->template->serial;
        ask_queued(s, g->template);
}

static bool is_anybody_waiting(const struct spawner *s, const struct template *t) {
        for (unsigned i = 0; i < s->n_workers; i++)
                if (s->workers[i].stage == WORKER_QUEUED && s->workers[i].template_serial == t->serial)
                        return true;
        return false;
}

void template_cancel_worker(struct spawner *s, struct spawn_worker *w, int signal) {
        struct template *t = find_serial(s, w->template_serial);
        if (w->stage == WORKER_ASKED) {
                w->pending_signal = (uint32_t)signal;
                if (t && now_ns() - w->asked_ns > TEMPLATE_STUCK_NS) {
                        t->is_stuck = true;
                        protocol_error(s, t, "it does not answer");
                }
                return;
        }
        workers_refuse(s, w, ECANCELED, false, "killed before it was started");
        if (t && t->state == TEMPLATE_LOADING && !is_anybody_waiting(s, t)) {
                t->is_quiet = true; /* its preload may hang for ever */
                end(s, t);
        }
}

void template_retire(struct spawner *s, struct generation *g) {
        if (!g->template)
                return;
        struct spawn_event e = {.error = ECANCELED};
        events_text(&e, "generation %u of plugin %s was retired", g->id, g->plugin);
        fail(s, g->template, &e, true);
}

void template_count_end(struct spawner *s, uint64_t serial, bool was_crash) {
        struct template *t = find_serial(s, serial);
        if (!t || t->state != TEMPLATE_WARM)
                return;
        t->n_crashes = was_crash ? t->n_crashes + 1 : 0;
        if (t->n_crashes >= TEMPLATE_MAX_CRASHES)
                replace(s, t);
}

static void describe_death(const struct template *t, int code, int status, struct spawn_event *e) {
        const char *when = t->was_warm ? "" : " while it loaded the plugin";
        if (code == CLD_EXITED)
                events_text(e, "the template of plugin %s (pid %d) exited with status %d%s", t->plugin, t->pid, status,
                            when);
        else
                events_text(e, "the template of plugin %s (pid %d) was killed by signal %d (SIG%s)%s", t->plugin,
                            t->pid, status, sigabbrev_np(status) ? sigabbrev_np(status) : "?", when);
}

unsigned template_died(struct spawner *s, struct template *t, int code, int status) {
        template_receive(s, t); /* what it said last; ends at its end of file */
        end(s, t);

        struct spawn_event e = t->failure;
        if (!t->has_failed) {
                e = (struct spawn_event){.error = EPIPE, .reason = REASON_PRELOAD};
                describe_death(t, code, status, &e);
        }
        if (!e.code) {
                e.code = code;
                e.status = status;
        }
        for (unsigned i = 0; i < s->n_workers;) {
                struct spawn_worker *w = &s->workers[i];
                bool is_waiting = w->stage == WORKER_QUEUED || w->stage == WORKER_ASKED;
                struct spawn_event failed = e;
                if (is_waiting && w->template_serial == t->serial)
                        workers_failed(s, w, &failed); /* the last one takes its place */
                else
                        i++;
        }
        if (!t->is_quiet) {
                if (!t->has_failed && t->was_warm)
                        e.reason = code == CLD_EXITED ? REASON_EXIT : status == SIGSYS ? REASON_SYSCALL : REASON_SIGNAL;
                e.type = SPAWN_TEMPLATE;
                e.generation = t->generation;
                e.pid = t->pid;
                events_send(s, &e, NULL, 0);
        }
        unsigned n_open = t->is_stuck ? 0 : t->n_asked;
        template_free(s, t);
        return n_open;
}

void template_forget_all(struct spawner *s) {
        while (s->n_templates)
                template_free(s, s->templates[s->n_templates - 1]);
}
