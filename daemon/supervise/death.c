/* Why a worker died, from what is known: what we did to it, what it said itself, what its line in pool memory says,
 * what the spawner reaped. The line is the worker's to write, so it only ever refines a death by signal, never hides one. */
#include "daemon/supervise/death.h"

#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "ipc/words.h"

enum death_reason death_reason_of(const struct worker *w, const struct spawn_event *e, uint32_t syscall) {
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

static void death_describe_syscall(uint32_t syscall, char *text, size_t bytes) {
        char name[64];

        death_syscall_name(syscall, name, sizeof(name));
        if (syscall)
                snprintf(text, bytes, "system call %s (its sandbox forbids it)", name);
        else
                snprintf(text, bytes, "a system call (its sandbox forbids it)");
}

void death_describe(enum death_reason reason, int32_t signal, int32_t status, uint32_t syscall, char *text, size_t bytes) {
        switch (reason) {
        case REASON_SYSCALL:
                death_describe_syscall(syscall, text, bytes);
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
        if (signal)
                snprintf(text, bytes, "signal %d (%s)", signal, words_signal(signal));
        else
                snprintf(text, bytes, "exit status %d", status);
}

void death_take_fault(struct death *d, const struct worker *w) {
        const struct layout_worker *line = worker_line(w);
        if (!d->is_signal || d->reason != REASON_SIGNAL || atomic_load(&line->fault_signal) != (uint32_t)d->status)
                return;
        channel_copy(d->fault_module, line->fault_module, sizeof(d->fault_module));
        d->fault_module[sizeof(d->fault_module) - 1] = 0;
        for (char *c = d->fault_module; *c; c++)
                if ((unsigned char)*c < 0x21 || (unsigned char)*c > 0x7e)
                        *c = '?';
        d->fault_offset = d->fault_module[0] ? atomic_load(&line->fault_offset) : 0;
}

const struct death *death_record(struct pool *p, const struct death *d) {
        struct death *entry = &p->deaths[p->n_deaths++ % POOL_DEATHS];
        *entry = *d;
        return entry;
}
