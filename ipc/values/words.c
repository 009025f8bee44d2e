/* Tables from numbers to the words of the D-Bus API. The numbers come from shared memory: any value is legal input. */
#include <signal.h>
#include <stddef.h>

#include "ipc/values/words.h"

#define WORDS_COUNT(a) (sizeof(a) / sizeof *(a))

static const char *words_pick(const char *const *table, size_t n, unsigned i) {
        return i < n && table[i] ? table[i] : "?";
}

const char *words_slot_state(unsigned state) {
        static const char *const table[] = {
                /* FREE and FILLING are no states of a job; DELAYED is a queued one to those who ask. */
                [SLOT_QUEUED] = "queued",   [SLOT_DELAYED] = "queued",      [SLOT_RUNNING] = "running",
                [SLOT_DONE] = "done",       [SLOT_FAILED] = "failed",       [SLOT_CANCELLED] = "cancelled",
                [SLOT_EXPIRED] = "expired", [SLOT_TIMED_OUT] = "timed-out", [SLOT_POISONED] = "poisoned",
                [SLOT_LOST] = "lost",
        };
        static_assert(WORDS_COUNT(table) == SLOT_N_STATES);
        return words_pick(table, WORDS_COUNT(table), state);
}

const char *words_phase(unsigned phase) {
        static const char *const table[] = {
                [LIFE_NONE] = "",
                [LIFE_CONSTRUCTOR] = "in a constructor",
                [LIFE_PRELOAD] = "in preload",
                [LIFE_WORKER_OPEN] = "in worker_open",
                [LIFE_WORKER_INIT] = "in worker_init",
                [LIFE_THREAD_INIT] = "in thread_init",
                [LIFE_HANDLER] = "in the handler",
                [LIFE_BETWEEN_JOBS] = "between jobs",
                [LIFE_THREAD_FINI] = "in thread_fini",
                [LIFE_WORKER_FINI] = "in worker_fini",
                [LIFE_OWN_THREAD] = "in a thread of the plugin's own",
        };
        static_assert(WORDS_COUNT(table) == LIFE_N);
        return words_pick(table, WORDS_COUNT(table), phase);
}

const char *words_reason(unsigned reason) {
        static const char *const table[] = {
                [REASON_NONE] = "",
                [REASON_EXIT] = "exit",
                [REASON_SIGNAL] = "signal",
                [REASON_OOM] = "oom",
                [REASON_MEMORY_LIMIT] = "memory-limit",
                [REASON_TIME_LIMIT] = "time-limit",
                [REASON_WATCHDOG] = "watchdog",
                [REASON_SYSCALL] = "syscall",
                [REASON_STACK_OVERFLOW] = "stack-overflow",
                [REASON_PRELOAD] = "preload",
                [REASON_INIT] = "init",
                [REASON_OPERATOR] = "operator",
                [REASON_RECYCLED] = "recycled",
                [REASON_SPAWNER_LOST] = "spawner-lost",
        };
        static_assert(WORDS_COUNT(table) == REASON_N);
        return words_pick(table, WORDS_COUNT(table), reason);
}

#define WORDS_SIGNAL(name) [name] = #name

const char *words_signal(int signal) {
        static const char *const table[] = {
                WORDS_SIGNAL(SIGHUP),    WORDS_SIGNAL(SIGINT),  WORDS_SIGNAL(SIGQUIT),  WORDS_SIGNAL(SIGILL),
                WORDS_SIGNAL(SIGTRAP),   WORDS_SIGNAL(SIGABRT), WORDS_SIGNAL(SIGBUS),   WORDS_SIGNAL(SIGFPE),
                WORDS_SIGNAL(SIGKILL),   WORDS_SIGNAL(SIGUSR1), WORDS_SIGNAL(SIGSEGV),  WORDS_SIGNAL(SIGUSR2),
                WORDS_SIGNAL(SIGPIPE),   WORDS_SIGNAL(SIGALRM), WORDS_SIGNAL(SIGTERM),  WORDS_SIGNAL(SIGSTKFLT),
                WORDS_SIGNAL(SIGCHLD),   WORDS_SIGNAL(SIGCONT), WORDS_SIGNAL(SIGSTOP),  WORDS_SIGNAL(SIGTSTP),
                WORDS_SIGNAL(SIGTTIN),   WORDS_SIGNAL(SIGTTOU), WORDS_SIGNAL(SIGURG),   WORDS_SIGNAL(SIGXCPU),
                WORDS_SIGNAL(SIGXFSZ),   WORDS_SIGNAL(SIGPROF), WORDS_SIGNAL(SIGIO),    WORDS_SIGNAL(SIGPWR),
                WORDS_SIGNAL(SIGVTALRM), WORDS_SIGNAL(SIGSYS),  WORDS_SIGNAL(SIGWINCH),
        };
        /* Numbers of the kernel's, less the two that glibc keeps for itself, as kill -l names them. */
        static const char *const real_time[] = {
                "SIGRTMIN",    "SIGRTMIN+1",  "SIGRTMIN+2",  "SIGRTMIN+3",  "SIGRTMIN+4",  "SIGRTMIN+5",  "SIGRTMIN+6",
                "SIGRTMIN+7",  "SIGRTMIN+8",  "SIGRTMIN+9",  "SIGRTMIN+10", "SIGRTMIN+11", "SIGRTMIN+12", "SIGRTMIN+13",
                "SIGRTMIN+14", "SIGRTMIN+15", "SIGRTMAX-14", "SIGRTMAX-13", "SIGRTMAX-12", "SIGRTMAX-11", "SIGRTMAX-10",
                "SIGRTMAX-9",  "SIGRTMAX-8",  "SIGRTMAX-7",  "SIGRTMAX-6",  "SIGRTMAX-5",  "SIGRTMAX-4",  "SIGRTMAX-3",
                "SIGRTMAX-2",  "SIGRTMAX-1",  "SIGRTMAX",
        };
        if (signal >= SIGRTMIN)
                return words_pick(real_time, WORDS_COUNT(real_time), (unsigned)(signal - SIGRTMIN));
        return signal <= 0 ? "?" : words_pick(table, WORDS_COUNT(table), (unsigned)signal);
}
