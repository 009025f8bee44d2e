/* Owns templates: one per generation, made when its first worker is wanted, kept warm.
 *
 * A template runs plugin code (constructors, preload), so it is as little trusted as a worker. It is always in a fork
 * that waits for our word (calls.c): one word, one worker, one process at most, and which one it is the kernel tells
 * us. A packet of the wrong size, type or version, or out of turn, a fork that does not come, or a child that does not
 * say that it is there, ends it. Its workers are our children (it clones them with CLONE_PARENT), so they outlive it
 * and we see their exact ends.
 *
 * Invariants: a template has one worker in stage ASKED at most; a generation points to its template only while that one
 * may make workers; a template leaves the table when it is reaped, not before, and what it said until then is read
 * first.
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
#include <unistd.h>

#include "daemon/spawn/events.h"
#include "daemon/spawn/start.h"
#include "daemon/spawn/workers.h"
#include "ipc/memory/event.h"
#include "ipc/memory/notified.h"
#include "ipc/memory/packet.h"

enum {
        TEMPLATE_MAX_CRASHES = 5,
        TEMPLATE_MAX_PACKETS = 8, /* a turn: it has four to send at once at most, CLOSED, LOADED, READY and FORKED */
};
#define TEMPLATE_PATIENCE_NS UINT64_C(3000000000)

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

struct template *template_find_serial(struct spawner *s, uint64_t serial) {
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
        t->listener_fd = -1;
        t->state = TEMPLATE_LOADING;
        memcpy(t->plugin, g->plugin, sizeof t->plugin);
        s->templates[s->n_templates++] = t;
        g->template = t;
        return 0;
}

static void close_asked(struct template *t) {
        for (unsigned i = 0; i < 2; i++)
                close(t->asked_fds[i]);
}

static void template_free(struct spawner *s, struct template *t) {
        for (unsigned i = 0; i < s->n_templates; i++)
                if (s->templates[i] == t)
                        s->templates[i] = s->templates[--s->n_templates];
        if (t->fd >= 0)
                close(t->fd);
        if (t->is_asked)
                close_asked(t);
        free(t);
}

/* ---- letting it fork ---- */

static struct spawn_worker *next_queued(struct spawner *s, const struct template *t) {
        for (unsigned i = 0; i < s->n_workers; i++)
                if (s->workers[i].stage == WORKER_QUEUED && s->workers[i].template_serial == t->serial)
                        return &s->workers[i];
        return NULL;
}

/* Its fork goes on. False: it does not wait any more, because a signal came in between, and will call again. */
static bool let_fork(struct template *t, struct spawn_worker *w) {
        t->is_forking = false;
        if (notified_allow(t->listener_fd, t->fork_id) < 0)
                return false;
        w->stage = WORKER_ASKED;
        t->is_asked = true;
        t->asked = w->id;
        t->deadline_ns = event_now_ns() + TEMPLATE_PATIENCE_NS;
        return true;
}

static void fork_next(struct spawner *s, struct template *t) {
        struct spawn_worker *w;
        while (t->state == TEMPLATE_WARM && !t->is_asked && (w = next_queued(s, t))) {
                if (!t->is_forking) { /* it owes us that */
                        t->deadline_ns = t->deadline_ns ? t->deadline_ns : event_now_ns() + TEMPLATE_PATIENCE_NS;
                        return;
                }
                int r = packet_pair(t->asked_fds);
                if (r < 0)
                        workers_refuse(s, w, -r, false, "no socket for a worker: %s", strerror(-r));
                else if (!let_fork(t, w))
                        close_asked(t);
        }
        if (!t->is_asked)
                t->deadline_ns = 0;
}

bool template_wants_fork(struct spawner *s, struct template *t, uint64_t call_id) {
        template_receive(s, t); /* that it is ready, or how its last fork failed */
        if (t->state != TEMPLATE_WARM)
                return false;
        t->is_forking = true;
        t->fork_id = call_id;
        fork_next(s, t);
        return true;
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

/* The one that it was asked for comes, then it ends; who still queues gets another template. */
static void replace(struct spawner *s, struct template *t) {
        struct generation *g = generation_of(s, t);
        g->template = NULL;
        t->state = TEMPLATE_ENDING;
        t->is_quiet = true;
        if (!t->is_asked)
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

/* The first packet, and the only one with a descriptor. */
static void take_closed(struct spawner *s, struct template *t, const struct template_event *m, int listener_fd) {
        snprintf(t->sandbox, sizeof t->sandbox, "%.*s", (int)sizeof t->sandbox - 1, m->text);
        t->phase = LIFE_CONSTRUCTOR;
        t->listener_fd = listener_fd;
        s->listeners[s->n_listeners++] = (struct listener){.fd = listener_fd, .template_serial = t->serial};
}

static void on_unexpected(struct spawner *s, struct template *t, const struct template_event *m) {
        protocol_error(s, t, "it spoke out of turn");
}

/* Once: from here on what it says is the plugin's, too. */
static void on_loaded(struct spawner *s, struct template *t, const struct template_event *m) {
        if (t->phase != LIFE_CONSTRUCTOR)
                on_unexpected(s, t, m);
        t->phase = LIFE_PRELOAD;
}

static void on_ready(struct spawner *s, struct template *t, const struct template_event *m) {
        char comm[32] = "";
        int n = count_threads(t->pid, comm, sizeof comm);
        if (n == 1) {
                t->state = TEMPLATE_WARM;
                t->was_warm = true;
                fork_next(s, t);
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
                .breach = m->breach,
                .is_permanent = m->is_permanent == 1,
        };
        if (m->breach.syscall) {
                e.code = CLD_KILLED;
                e.status = SIGSYS;
        }
        events_text(&e, "%s", *m->text ? m->text : "preload failed");
        fail(s, t, &e, m->breach.syscall == 0);
}

/* The worker that it was asked for has come or will not. */
static void settle(struct spawner *s, struct template *t) {
        t->is_asked = false;
        t->deadline_ns = 0;
        if (t->state == TEMPLATE_WARM)
                fork_next(s, t);
        else
                kill(t->pid, SIGKILL);
}

int template_child_came(struct spawner *s, struct template *t, pid_t pid) {
        struct spawn_worker *w = workers_find(s, t->asked);
        int signal = (int)w->pending_signal, fd = t->asked_fds[1];
        if (limits_set_forked(pid) < 0)
                signal = SIGKILL; /* it is gone; or it stays without */
        workers_started(
                s, w,
                &(struct worker_start){.pid = pid, .pidfd = -1, .broker_fd = t->asked_fds[0], .sandbox = t->sandbox});
        if (signal)
                kill(pid, signal);
        settle(s, t);
        return fd;
}

void template_child_failed(struct spawner *s, struct template *t, int error, const char *what) {
        close_asked(t);
        workers_refuse(s, workers_find(s, t->asked), error, false, "the template of plugin %s %s: %s", t->plugin, what,
                       strerror(error));
        settle(s, t);
}

/* What it forked all the same is unknown to us from now on. */
static void on_forked(struct spawner *s, struct template *t, const struct template_event *m) {
        if (!t->is_asked || m->error <= 0) {
                protocol_error(s, t, "it reported a fork that nobody asked for");
                return;
        }
        s->is_hunt_due = true;
        template_child_failed(s, t, m->error, "cannot fork");
}

struct template *template_of_group(struct spawner *s, pid_t group) {
        struct template *t = template_find_pid(s, group);
        return t && t->is_asked ? t : NULL;
}

/* ---- what it owes ---- */

void template_look(struct spawner *s) {
        uint64_t now = 0;
        for (unsigned i = 0; i < s->n_templates; i++) {
                struct template *t = s->templates[i];
                if (t->deadline_ns == 0 || (now = now ? now : event_now_ns()) < t->deadline_ns)
                        continue;
                t->deadline_ns = 0;
                protocol_error(s, t, t->is_asked ? "what it forked does not come" : "it does not fork");
        }
}

int template_timeout_ms(const struct spawner *s) {
        uint64_t next_ns = UINT64_MAX;
        for (unsigned i = 0; i < s->n_templates; i++)
                if (s->templates[i]->deadline_ns && s->templates[i]->deadline_ns < next_ns)
                        next_ns = s->templates[i]->deadline_ns;
        if (next_ns == UINT64_MAX)
                return -1;
        uint64_t now = event_now_ns();
        return now >= next_ns ? 0 : (int)((next_ns - now) / 1000000 + 1);
}

/* ---- what it says ---- */

typedef void (*template_fn)(struct spawner *s, struct template *t, const struct template_event *m);

static const template_fn template_table[TEMPLATE_N_STATES][TEMPLATE_LOADED + 1] = {
        [TEMPLATE_LOADING] =
                {
                        [TEMPLATE_LOADED] = on_loaded,
                        [TEMPLATE_READY] = on_ready,
                        [TEMPLATE_FAILED] = on_failed,
                        [TEMPLATE_FORKED] = on_unexpected,
                        [TEMPLATE_CLOSED] = on_unexpected, /* twice */
                },
        [TEMPLATE_WARM] =
                {
                        [TEMPLATE_LOADED] = on_unexpected,
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

static void take(struct spawner *s, struct template *t, struct template_event *m, size_t bytes, int fd) {
        bool is_message = bytes == sizeof *m && m->version == WIRE_VERSION && m->type >= TEMPLATE_CLOSED &&
                          m->type <= TEMPLATE_LOADED;
        m->text[sizeof m->text - 1] = 0;
        bool is_first = !*t->sandbox, is_closed = is_message && m->type == TEMPLATE_CLOSED && *m->text && fd >= 0;
        if (is_first && is_closed && s->n_listeners < SPAWNER_MAX_LISTENERS) {
                take_closed(s, t, m, fd);
                return;
        }
        if (fd >= 0)
                close(fd);
        if (!is_message || fd >= 0)
                protocol_error(s, t, "it sent a packet that is no message (mixed installation?)");
        else if (is_first && m->type != TEMPLATE_FAILED)
                protocol_error(s, t, "it did not close its sandbox");
        else if (template_table[t->state][m->type])
                template_table[t->state][m->type](s, t, m);
}

/* So many at most: one of its workers may have kept the other end, and send there without an end, while it ends or is
 * dead. */
void template_receive(struct spawner *s, struct template *t) {
        for (unsigned i = 0; t->fd >= 0 && i < TEMPLATE_MAX_PACKETS; i++) {
                struct template_event m;
                size_t bytes;
                int fd = -1;
                unsigned n_fds = 1;
                int r = packet_receive(t->fd, &m, sizeof m, &bytes, &fd, &n_fds);
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
                take(s, t, &m, bytes, n_fds == 1 ? fd : -1);
        }
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
        fork_next(s, g->template);
}

void template_cancel_worker(struct spawner *s, struct spawn_worker *w, int signal) {
        struct template *t = template_find_serial(s, w->template_serial);
        if (w->stage == WORKER_ASKED) { /* it comes, or its template has an end soon */
                w->pending_signal = (uint32_t)signal;
                return;
        }
        struct spawn_event e = {.error = ECANCELED};
        e.start_phase = t && t->state == TEMPLATE_LOADING ? t->phase : LIFE_NONE;
        events_text(&e, "killed before it was started");
        workers_failed(s, w, &e);
        if (t && t->state == TEMPLATE_LOADING && !next_queued(s, t)) {
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
        struct template *t = template_find_serial(s, serial);
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

bool template_died(struct spawner *s, struct template *t, int code, int status) {
        template_receive(s, t); /* what it said last */
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
        bool was_asked = t->is_asked;
        template_free(s, t);
        return was_asked;
}

void template_forget_all(struct spawner *s) {
        while (s->n_templates)
                template_free(s, s->templates[s->n_templates - 1]);
}
