/* Owns the children that copy plugin files.
 *
 * A read can take for ever (a dead NFS server, a FUSE file whose server sleeps), and the spawner has one thread that
 * kills, reaps and starts for all pools. So a LOAD forks a child that opens, checks, copies and seals; its answer lies
 * in a socket when it has ended. After COPIER_PATIENCE_NS it is killed and the LOAD fails. Whoever waits in the kernel
 * may not even die of that: such a copier stays in the table, known by pid, so that it is never taken for an escapee,
 * and the end of the service does not wait for it. It holds nothing but /dev/null, its socket and the file.
 *
 * One copier a file, so one file that hangs costs one of SPAWNER_MAX_COPIERS, whatever its pools ask for: a LOAD of a
 * file that hangs fails at once, and every LOAD that waits behind a copier shares the fate of the one before it if that
 * takes too long. The others are taken in the order of their generations. No plugin code has run yet when a copy is
 * made, and the copier is a fork of ours, so its answer is believed. */
#include "daemon/spawn/copier.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/log/log.h"
#include "daemon/spawn/events.h"
#include "daemon/spawn/generations.h"
#include "daemon/spawn/plugin-file.h"
#include "daemon/spawn/start.h"
#include "ipc/memory/event.h"
#include "ipc/memory/packet.h"

enum { COPIER_PATIENCE_S = 10 };
#define COPIER_SECOND_NS UINT64_C(1000000000)
#define COPIER_PATIENCE_NS (COPIER_PATIENCE_S * COPIER_SECOND_NS)
#define COPIER_DEATH_NS COPIER_SECOND_NS /* from SIGKILL to the end, if it can die at all */

struct copier_answer {
        int32_t error; /* 0: with one descriptor */
        struct plugin_fault fault;
};

/* ---- the child ---- */

struct copier_order {
        const char *dir, *plugin;
};

static void copier_main(void *user, int fd) {
        const struct copier_order *o = user;
        struct copier_answer a = {0};
        int memfd = -1;
        a.error = -plugin_file_seal(o->dir, o->plugin, &memfd, &a.fault);
        packet_send(fd, &a, sizeof a, &memfd, memfd >= 0);
}

/* ---- the table ---- */

struct copier *copier_find_pid(struct spawner *s, pid_t pid) {
        for (unsigned i = 0; i < s->n_copiers; i++)
                if (s->copiers[i].pid == pid)
                        return &s->copiers[i];
        return NULL;
}

static struct copier *copier_find_path(struct spawner *s, const char *path) {
        for (unsigned i = 0; i < s->n_copiers; i++)
                if (strcmp(s->copiers[i].path, path) == 0)
                        return &s->copiers[i];
        return NULL;
}

static struct copier *copier_find_generation(struct spawner *s, uint32_t id) {
        for (unsigned i = 0; i < s->n_copiers; i++)
                if (s->copiers[i].generation == id)
                        return &s->copiers[i];
        return NULL;
}

static void copier_kill(struct copier *c) {
        c->generation = 0;
        c->stage = COPIER_KILLED;
        c->deadline_ns = event_now_ns() + COPIER_DEATH_NS;
        kill(c->pid, SIGKILL);
}

/* ---- beginning ---- */

static void copier_begin(struct spawner *s, struct generation *g, const char *path) {
        struct copier c = {.generation = g->id, .started_ns = event_now_ns()};
        struct copier_order order = {.dir = s->plugin_dir, .plugin = g->plugin};
        int fds[2];
        int r = packet_pair(fds);
        if (r >= 0) {
                r = start_helper(s, copier_main, &order, fds[1], &c.pid);
                close(fds[1]);
                if (r < 0)
                        close(fds[0]);
        }
        if (r < 0) {
                struct spawn_event e = {.error = -r};
                events_text(&e, "plugin %s: no process to copy it: %s: try again", g->plugin, strerror(-r));
                generations_failed(s, g, &e);
                return;
        }
        c.fd = fds[0];
        c.deadline_ns = c.started_ns + COPIER_PATIENCE_NS;
        strcpy(c.path, path);
        s->copiers[s->n_copiers++] = c;
}

/* ---- what takes too long ---- */

static void copier_fail_slow(struct spawner *s, struct generation *g, const char *what) {
        char file[PLUGIN_FILE_DESCRIPTION];
        plugin_file_describe(s->plugin_dir, g->plugin, file);
        struct spawn_event e = {.error = ETIMEDOUT};
        events_text(&e,
                    "plugin %s: %s: the disk or server that it lies on does not answer: mend that, or copy the file "
                    "to a disk of this machine",
                    file, what);
        generations_failed(s, g, &e);
}

/* Also whoever waits for the same file. */
static void copier_fail_all(struct spawner *s, const struct copier *c, const char *what) {
        char path[WIRE_NAME];
        for (unsigned i = 0; i < s->n_generations;) {
                struct generation *g = s->generations[i];
                plugin_file_path(g->plugin, path);
                if (g->plugin_fd < 0 && strcmp(path, c->path) == 0)
                        copier_fail_slow(s, g, what); /* the last one takes its place */
                else
                        i++;
        }
}

static void copier_overdue(struct spawner *s, struct copier *c) {
        char what[96];
        if (c->stage == COPIER_AT_WORK) {
                snprintf(what, sizeof what, "it was not read within %d s", COPIER_PATIENCE_S);
                copier_fail_all(s, c, what);
                copier_kill(c);
                return;
        }
        c->stage = COPIER_STUCK;
        log_warning("process %d, which copied plugin %s, does not die of SIGKILL: it waits for a disk or server",
                    c->pid, c->path);
}

static void copier_fail_stuck(struct spawner *s, struct generation *g, const struct copier *c) {
        char what[96];
        snprintf(what, sizeof what, "a process that reads it hangs in the kernel, since %llu s",
                 (unsigned long long)((event_now_ns() - c->started_ns) / COPIER_SECOND_NS));
        copier_fail_slow(s, g, what);
}

/* ---- the order of things ---- */

/* The one that waits longest of those that nothing keeps from going on, be it to its failure. */
static struct generation *copier_next(struct spawner *s, struct copier **ret_before) {
        struct generation *next = NULL;
        char path[WIRE_NAME];
        unsigned n_stuck = 0;
        for (unsigned i = 0; i < s->n_copiers; i++)
                n_stuck += s->copiers[i].stage == COPIER_STUCK;
        for (unsigned i = 0; i < s->n_generations; i++) {
                struct generation *g = s->generations[i];
                if (g->plugin_fd >= 0 || (next && next->id < g->id))
                        continue;
                plugin_file_path(g->plugin, path);
                struct copier *before = copier_find_path(s, path);
                if (before ? before->stage == COPIER_STUCK
                           : s->n_copiers < SPAWNER_MAX_COPIERS || n_stuck == SPAWNER_MAX_COPIERS) {
                        next = g;
                        *ret_before = before;
                }
        }
        return next;
}

void copier_look(struct spawner *s) {
        uint64_t now = s->n_copiers ? event_now_ns() : 0;
        for (unsigned i = 0; i < s->n_copiers; i++)
                if (s->copiers[i].stage != COPIER_STUCK && now >= s->copiers[i].deadline_ns)
                        copier_overdue(s, &s->copiers[i]);
        struct generation *g;
        struct copier *before;
        char path[WIRE_NAME];
        while ((g = copier_next(s, &before))) {
                plugin_file_path(g->plugin, path);
                if (before)
                        copier_fail_stuck(s, g, before);
                else if (s->n_copiers < SPAWNER_MAX_COPIERS)
                        copier_begin(s, g, path);
                else
                        copier_fail_slow(s, g, "so many other files hang that it is not tried");
        }
}

int copier_timeout_ms(const struct spawner *s) {
        uint64_t next_ns = UINT64_MAX;
        for (unsigned i = 0; i < s->n_copiers; i++)
                if (s->copiers[i].stage != COPIER_STUCK && s->copiers[i].deadline_ns < next_ns)
                        next_ns = s->copiers[i].deadline_ns;
        if (next_ns == UINT64_MAX)
                return -1;
        uint64_t now = event_now_ns();
        return now >= next_ns ? 0 : (int)((next_ns - now) / 1000000 + 1);
}

void copier_cancel(struct spawner *s, struct generation *g) {
        struct copier *c = copier_find_generation(s, g->id);
        if (c)
                copier_kill(c);
        struct spawn_event e = {.error = ECANCELED};
        events_text(&e, "generation %u of plugin %s was retired before it was copied", g->id, g->plugin);
        generations_failed(s, g, &e);
}

/* ---- the end ---- */

static void copier_take_answer(struct spawner *s, struct copier *c, struct generation *g, const siginfo_t *si) {
        struct copier_answer a;
        struct spawn_event e = {0};
        size_t bytes = 0;
        int plugin_fd = -1;
        unsigned n_fds = 1;
        int r = packet_receive(c->fd, &a, sizeof a, &bytes, &plugin_fd, &n_fds);
        if (r == 0 && bytes == sizeof a && n_fds == (a.error == 0)) {
                if (a.error == 0) {
                        generations_loaded(s, g, plugin_fd);
                        return;
                }
                e.error = a.error;
                e.is_permanent = a.fault.is_permanent;
                events_text(&e, "%s", a.fault.text);
        } else {
                e.error = EIO;
                events_text(&e, "plugin %s: the process that copied it ended with %s %d: try again", g->plugin,
                            si->si_code == CLD_EXITED ? "status" : "signal", si->si_status);
        }
        generations_failed(s, g, &e);
}

void copier_ended(struct spawner *s, struct copier *c, const siginfo_t *si) {
        struct copier ended = *c;
        *c = s->copiers[--s->n_copiers];
        struct generation *g = ended.generation ? generations_find(s, ended.generation) : NULL;
        if (g)
                copier_take_answer(s, &ended, g, si);
        close(ended.fd);
}

void copier_forget_all(struct spawner *s) {
        for (unsigned i = 0; i < s->n_copiers; i++) {
                s->copiers[i].generation = 0;
                s->copiers[i].stage = COPIER_STUCK;
        }
}
