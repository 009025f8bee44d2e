/* Owns the table of workers.
 *
 * Invariants: the table is compact, so looking one up is a walk over a few cache lines; an id is in it once. A pid in
 * the table is an unreaped child of ours (or, CLOSING, a process group that still has members), so it cannot be
 * somebody else's by now: signals go by pid. It does not start, kill or reap anything. */
#include "daemon/spawn/workers.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/spawn/events.h"

struct spawn_worker *workers_find(struct spawner *s, uint32_t id) {
        for (unsigned i = 0; i < s->n_workers; i++)
                if (s->workers[i].id == id)
                        return &s->workers[i];
        return NULL;
}

struct spawn_worker *workers_find_pid(struct spawner *s, pid_t pid) {
        for (unsigned i = 0; i < s->n_workers; i++)
                if (s->workers[i].pid == pid && s->workers[i].stage == WORKER_STARTED)
                        return &s->workers[i];
        return NULL;
}

struct spawn_worker *workers_add(struct spawner *s, uint32_t id, uint32_t generation) {
        if (s->n_workers == SPAWNER_MAX_WORKERS)
                return NULL;
        struct spawn_worker *w = &s->workers[s->n_workers++];
        *w = (struct spawn_worker){.id = id, .generation = generation, .stage = WORKER_QUEUED};
        return w;
}

void workers_remove(struct spawner *s, struct spawn_worker *w) { *w = s->workers[--s->n_workers]; }

void workers_started(struct spawner *s, struct spawn_worker *w, const struct worker_start *start) {
        w->stage = WORKER_STARTED;
        w->pid = start->pid;
        int pidfd = start->pidfd >= 0 ? start->pidfd : (int)syscall(SYS_pidfd_open, start->pid, 0);
        struct spawn_event e = {.type = SPAWN_STARTED, .generation = w->generation, .worker = w->id, .pid = start->pid};
        if (pidfd < 0) {
                s->broker_fault = "no descriptor is left for a worker's pidfd";
                close(start->broker_fd);
                return;
        }
        if (start->sandbox)
                events_text(&e, "%s", start->sandbox);
        events_send(s, &e, (int[]){pidfd, start->broker_fd}, 2);
}

void workers_failed(struct spawner *s, struct spawn_worker *w, struct spawn_event *e) {
        e->type = SPAWN_FAILED;
        e->generation = w->generation;
        e->worker = w->id;
        workers_remove(s, w);
        events_send(s, e, NULL, 0);
}

void workers_refuse(struct spawner *s, struct spawn_worker *w, int error, bool is_permanent, const char *format, ...) {
        struct spawn_event e = {.error = error, .is_permanent = is_permanent};
        va_list args;
        va_start(args, format);
        vsnprintf(e.text, sizeof e.text, format, args);
        va_end(args);
        workers_failed(s, w, &e);
}

void workers_exited(struct spawner *s, struct spawn_worker *w) {
        struct spawn_event e = {
                .type = SPAWN_EXITED,
                .generation = w->generation,
                .worker = w->id,
                .pid = w->pid,
                .reason = w->exited.code == CLD_EXITED ? REASON_EXIT : REASON_SIGNAL,
                .code = w->exited.code,
                .status = w->exited.status,
                .cpu_us = w->exited.cpu_us,
                .max_rss_kib = w->exited.max_rss_kib,
        };
        workers_remove(s, w);
        events_send(s, &e, NULL, 0);
}
