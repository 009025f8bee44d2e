/* Waits in words.
 *
 * An arena knows pids; here they become workers and jobs. Everything that comes out of an arena was written by its
 * participants: names are made printable, and a pid is only ever looked up. Each line was true at some moment while it
 * was read, and the whole need not be; only a cycle is certain (ipc/sync/wait/cycle.c looks twice). */
#include "daemon/supervise/waiting.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "daemon/log/log.h"
#include "daemon/supervise/arenas/arenas.h"
#include "ipc/memory/event.h"
#include "ipc/values/utf8.h"

enum { WAITING_MAX_HOPS = 4 };

struct waiting_text {
        char *at;
        size_t left; /* without the NUL */
};

__attribute__((format(printf, 2, 3))) static void waiting_add(struct waiting_text *t, const char *format, ...) {
        va_list ap;
        va_start(ap, format);
        int n = vsnprintf(t->at, t->left + 1, format, ap);
        va_end(ap);
        size_t added = n < 0 ? 0 : (size_t)n < t->left ? (size_t)n : t->left;
        t->at += added;
        t->left -= added;
}

/* Bytes of an arena as others may read them. */
static void waiting_add_name(struct waiting_text *t, const char *name) {
        char clean[sizeof(((struct drover_wait_info *)0)->object)];
        snprintf(clean, sizeof(clean), "%s", name);
        for (char *c = clean; *c;) {
                size_t n = utf8_length(c, strlen(c));
                if (n == 0 || (unsigned char)*c < 0x20 || *c == 0x7f) {
                        *c = '?';
                        n = 1;
                }
                c += n;
        }
        waiting_add(t, "%s", clean);
}

struct waiting_process {
        pid_t pid;
        uint64_t worker, job; /* 0 = none */
};

static struct waiting_process waiting_look_up(struct supervisor *s, pid_t pid, const struct waiting_viewer *v) {
        struct worker *w = supervisor_find_worker_by_pid(s, pid);
        struct worker_info info = {0};
        if (w)
                worker_get_info(w, &info);
        return (struct waiting_process){pid, info.id, v->sees_all || info.job_uid == v->uid ? info.current_job : 0};
}

static void waiting_add_process(struct waiting_text *t, const struct waiting_process *p) {
        if (p->worker == 0)
                waiting_add(t, "process %d", (int)p->pid);
        else
                waiting_add(t, "worker %" PRIu64, p->worker);
        if (p->job)
                waiting_add(t, " (job %" PRIu64 ")", p->job);
}

static void waiting_add_wait(struct waiting_text *t, const struct arena *a, const struct drover_wait_info *w,
                             const struct waiting_process *owner) {
        waiting_add_name(t, w->type);
        waiting_add(t, " %s/", arena_name(a));
        waiting_add_name(t, w->object);
        if (w->owner_pid) {
                waiting_add(t, " held by ");
                waiting_add_process(t, owner);
        }
}

static void waiting_add_duration(struct waiting_text *t, uint64_t since_ns) {
        uint64_t now = event_now_ns(), ms = since_ns < now ? (now - since_ns) / 1000000 : 0;
        waiting_add(t, " for %" PRIu64 ".%" PRIu64 " s", ms / 1000, ms % 1000 / 100);
}

void waiting_describe(struct supervisor *s, pid_t pid, const struct waiting_viewer *v, char *text, size_t bytes) {
        struct waiting_text t = {text, bytes - 1};
        struct arenas *as = supervisor_arenas(s);
        struct arena_wait w;
        bool is_all = arenas_find_wait(as, pid, 0, &w);
        text[0] = 0;
        for (int hop = 0; w.arena && hop < WAITING_MAX_HOPS; hop++) {
                if (hop > 0)
                        waiting_add(&t, ", which waits for ");
                const struct waiting_process owner = waiting_look_up(s, w.info.owner_pid, v);
                waiting_add_wait(&t, w.arena, &w.info, &owner);
                waiting_add_duration(&t, w.info.since_ns);
                w.arena = NULL;
                if (w.info.owner_pid && (w.info.owner_pid != pid || hop == 0))
                        is_all &= arenas_find_wait(as, w.info.owner_pid, w.info.owner_thread, &w);
        }
        if (!is_all)
                waiting_add(&t, "%s(not all was looked into: too much at once)", text[0] ? " " : "");
}

/* ---- cycles ---- */

static void waiting_log_cycle(struct supervisor *s, const struct arena_wait *waits, size_t n) {
        char text[1000];
        struct waiting_text t = {text, sizeof(text) - 1};
        static const struct waiting_viewer log = {.sees_all = true};
        struct waiting_process p = waiting_look_up(s, waits[0].info.pid, &log), ends = {0};
        waiting_add_process(&t, &p);
        for (size_t i = 0; i < n; i++) {
                p = waiting_look_up(s, waits[i].info.owner_pid, &log);
                waiting_add(&t, i == 0 ? " waits for " : ", which waits for ");
                waiting_add_wait(&t, waits[i].arena, &waits[i].info, &p);
                if (waits[i].ends)
                        ends = waiting_look_up(s, waits[i].info.pid, &log);
        }
        waiting_add(&t, "; ");
        if (ends.pid) {
                waiting_add(&t, "the youngest wait, of ");
                waiting_add_process(&t, &ends);
                waiting_add(&t, ", ends with EDEADLK");
        } else {
                waiting_add(&t, "none of these can be ended");
        }
        log_warning("a cycle of %zu waits: %s", n, text);
}

static bool waiting_is_any(struct supervisor *s, pid_t pid) {
        struct arena_wait w;
        return !arenas_find_wait(supervisor_arenas(s), pid, 0, &w) || w.arena;
}

enum waiting_found waiting_break_cycles(struct supervisor *s, pid_t pid) {
        struct arena_cycle c;
        arenas_find_cycle(supervisor_arenas(s), pid, &c);
        if (c.n > 0 && c.is_new) /* first, because then they go on, with other jobs */
                waiting_log_cycle(s, c.waits, c.n);
        arenas_break_cycle(supervisor_arenas(s));
        if (c.is_cut_off)
                return WAITING_CUT_OFF;
        return c.n > 0 || waiting_is_any(s, pid) ? WAITING_SOME : WAITING_NONE;
}
