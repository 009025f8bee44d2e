/* Why a worker died, from what is known: what we did to it, what it said itself, what its line in pool memory says,
 * what the spawner reaped. The line is the worker's to write, so it only ever refines a death by signal, never hides
 * one. */
#include "daemon/supervise/deaths/death.h"

#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "ipc/values/breach.h"
#include "ipc/values/words.h"

enum death_reason death_reason_of(const struct worker *w, const struct spawn_event *e) {
        bool by_signal = e->code == CLD_KILLED || e->code == CLD_DUMPED;
        if (e->reason == REASON_SPAWNER_LOST)
                return REASON_SPAWNER_LOST;
        if (w->doom != REASON_NONE && (by_signal ? e->status == SIGKILL || e->status == SIGTERM : true))
                return w->doom;
        if (w->said != REASON_NONE && !by_signal)
                return w->said;
        if (by_signal && e->status == SIGSYS)
                return REASON_SYSCALL;
        if (w->ready_ns == 0)
                return REASON_INIT;
        return by_signal ? REASON_SIGNAL : REASON_EXIT;
}

void death_syscall_name(uint32_t syscall, char *text, size_t bytes) {
        char *name = syscall ? seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, (int)syscall - 1) : NULL;

        if (name)
                snprintf(text, bytes, "%s", name);
        else if (syscall)
                snprintf(text, bytes, "number %u", syscall - 1);
        else
                text[0] = '\0';
        free(name);
}

void death_note_breach(struct layout_verdict *v, const struct layout_breach *b) {
        char name[64];

        v->syscall = b->syscall;
        death_syscall_name(b->syscall, name, sizeof(name));
        if (b->syscall)
                breach_describe(b, name, v->what, sizeof(v->what));
}

void death_describe(const struct layout_verdict *v, char *text, size_t bytes) {
        switch ((enum death_reason)v->reason) {
        case REASON_SYSCALL:
                if (v->what[0])
                        snprintf(text, bytes, "system call %.*s (its sandbox forbids it)", (int)sizeof(v->what),
                                 v->what);
                else
                        snprintf(text, bytes, "a system call (its sandbox forbids it)");
                return;
        case REASON_TIME_LIMIT:
                snprintf(text, bytes, "its time limit passed");
                return;
        case REASON_OPERATOR:
                snprintf(text, bytes, "ended by the operator");
                return;
        case REASON_RECYCLED:
                snprintf(text, bytes, "replaced");
                return;
        case REASON_SPAWNER_LOST:
                snprintf(text, bytes, "the spawner died, and its workers with it");
                return;
        case REASON_NONE:
        case REASON_EXIT:
        case REASON_SIGNAL:
        case REASON_OOM:
        case REASON_MEMORY_LIMIT:
        case REASON_WATCHDOG:
        case REASON_STACK_OVERFLOW:
        case REASON_PRELOAD:
        case REASON_INIT:
        case REASON_N:
                break;
        }
        if (v->signal)
                snprintf(text, bytes, "signal %u (%s)", v->signal, words_signal((int)v->signal));
        else
                snprintf(text, bytes, "exit status %d", (int)v->status);
}

static void death_take_breach(struct death *d, const struct layout_breach *b) {
        d->syscall = b->syscall;
        d->fault_phase = b->phase;
        d->fault_offset = b->offset;
        memcpy(d->fault_module, b->module, sizeof(d->fault_module));
        memcpy(d->fault_path, b->path, sizeof(d->fault_path));
}

void death_take_fault(struct death *d, const struct worker *w, const struct layout_breach *b) {
        const struct layout_worker *line = worker_line(w);
        if (d->reason == REASON_SYSCALL)
                death_take_breach(d, b);
        if (!d->is_signal || d->reason != REASON_SIGNAL || atomic_load(&line->fault_signal) != (uint32_t)d->status)
                return;
        memcpy(d->fault_module, b->module, sizeof(d->fault_module));
        d->fault_offset = b->offset;
}

void death_hide_job(struct death *d) {
        if (d->fault_path[0]) {
                struct layout_verdict v = {.reason = d->reason};
                struct layout_breach b = {.syscall = d->syscall, .phase = d->fault_phase, .offset = d->fault_offset};
                memcpy(b.module, d->fault_module, sizeof(b.module));
                death_note_breach(&v, &b);
                death_describe(&v, d->text, sizeof(d->text));
                d->fault_path[0] = '\0';
        } else if (d->job_text_at) {
                d->text[d->job_text_at] = '\0';
        }
}

const struct death *death_record(struct pool *p, const struct death *d) {
        struct death *entry = &p->deaths[p->n_deaths++ % POOL_DEATHS];
        *entry = *d;
        return entry;
}
