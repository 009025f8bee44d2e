/* Closes the worker, step by step, and answers for the filters. Owns the SIGSYS and crash handlers of the process.
 *
 * Order: prepare (while files can be opened) → limit → enter (Landlock, the first filter) → dlopen opens the plugin and
 * maps it → it closes the file: close (the last filter) → constructors, and all that follows. Each step fails closed.
 * Between enter and close only ld.so runs, over headers that metadata.c has checked.
 *
 * A call that the filter traps comes here on an alternate stack. A few are answered in its place, because libraries
 * make them and go on without (fstat by its modern name, readlink, harmless refusals), and two are dlopen's: the open
 * of the plugin is answered with a duplicate of its descriptor, once, when the host has said so, and the close of that
 * is the moment when all of the plugin is mapped and none of it has run. All others are breaches: the number is handed
 * on (shared memory, or the template's socket), then the process dies by a call that the filter kills, so that its
 * status is SIGSYS and nothing runs after it. SIGSYS cannot be blocked meanwhile: rt_sigprocmask is answered here, too.
 * What is told of a breach is found by looking at memory of the plugin's, its stack above all. If that crashes, it is
 * still the breach that the process dies of, and it is told without.
 *
 * A plugin can write to all that is kept here, and take the alternate stack away. It gains nothing: whatever the
 * handler does goes through the same filters; only what its own process is said to have died of can become wrong.
 *
 * Handlers use async-signal-safe calls only, and what they read is set before the first plugin instruction runs. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <drover/plugin.h>

#include "ipc/wire.h"
#include "plugins/host/sandbox/forbidden.h"
#include "plugins/host/sandbox/sandbox.h"

enum { SANDBOX_IS_SANITIZED = DROVER__SANITIZED };

/* What the signal handlers need to know. One per process, like the handlers. */
static struct {
        char exe[1024];
        size_t exe_bytes;
        atomic_bool admits_plugin, is_loading;
        void (*mapped_fn)(void *user);
        void *mapped_user;
        void (*breach_fn)(void *user, const struct sandbox_breach *b);
        void *breach_user;
        void (*crash_fn)(void *user, int signal, uintptr_t address, uintptr_t instruction);
        void *crash_user;
        struct sandbox_breach breach; /* that it dies of */
        atomic_bool is_dying, was_told_unsound;
} gate;

static const int gate_crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};

static const char gate_plugin_path[] = "/proc/self/fd/4";
static_assert(WIRE_PLUGIN_FD == 4, "gate_plugin_path names it");

/* ---- a sanitizer's runtime lives in here, too ---- */

#if DROVER__SANITIZED
static bool is_entered;

const char *__asan_default_options(void);
int __lsan_is_turned_off(void);

/* A crash is a signal, as in every build; a report cannot open files to name lines. */
__attribute__((visibility("default"))) const char *__asan_default_options(void) {
        return "handle_segv=0:handle_sigbus=0:handle_sigill=0:handle_sigfpe=0:handle_abort=0:symbolize=0";
}

/* Its search for leaks at exit makes a process. */
__attribute__((visibility("default"))) int __lsan_is_turned_off(void) { return is_entered; }
#endif

/* ---- answering in the kernel's place ---- */

struct gate_call {
        long number;
        unsigned long arg[6];
};

#if defined(__x86_64__)
static void gate_read(const ucontext_t *u, struct gate_call *c) {
        const greg_t *r = u->uc_mcontext.gregs;
        const int order[6] = {REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8, REG_R9};
        for (int i = 0; i < 6; i++)
                c->arg[i] = (unsigned long)r[order[i]];
}
static void gate_return(ucontext_t *u, long value) { u->uc_mcontext.gregs[REG_RAX] = value; }
static uintptr_t gate_instruction(const ucontext_t *u) { return (uintptr_t)u->uc_mcontext.gregs[REG_RIP]; }
#else
static void gate_read(const ucontext_t *u, struct gate_call *c) {
        for (int i = 0; i < 6; i++)
                c->arg[i] = u->uc_mcontext.regs[i];
}
static void gate_return(ucontext_t *u, long value) { u->uc_mcontext.regs[0] = (unsigned long)value; }
static uintptr_t gate_instruction(const ucontext_t *u) { return (uintptr_t)u->uc_mcontext.pc; }
#endif

static long gate_open(const char *given) {
        char copy[64], *path = given ? copy : NULL;
        if (given && !forbidden_copy_path(given, copy, sizeof copy))
                return -EFAULT;
        if (path && strcmp(path, gate_plugin_path) == 0 && atomic_exchange(&gate.admits_plugin, false)) {
                int fd = fcntl(WIRE_PLUGIN_FD, F_DUPFD_CLOEXEC, FILTER_LOADER_FD);
                if (fd < 0 || fd == FILTER_LOADER_FD)
                        return fd < 0 ? -errno : fd;
                close(fd);
                return -EMFILE; /* the number is taken, and the close of another would not come here */
        }
        /* glibc reads these by itself and has another way: malloc counts CPUs and asks about overcommitment as threads
         * come and go, sysconf counts, pthread_getattr_np looks for the stack. */
        static const char *const probed[] = {"/sys/devices/system/cpu/online",
                                             "/sys/devices/system/cpu/possible",
                                             "/proc/stat",
                                             "/proc/meminfo",
                                             "/proc/self/maps",
                                             "/proc/sys/vm/overcommit_memory"};
        for (size_t i = 0; path && i < sizeof probed / sizeof *probed; i++)
                if (strcmp(path, probed[i]) == 0)
                        return -EACCES;
        if (SANDBOX_IS_SANITIZED && path && strncmp(path, "/proc/self/", 11) == 0 &&
            strcmp(path, gate_plugin_path) != 0)
                return -EACCES; /* for its runtime's reports */
        return -ENOSYS;
}

/* Of FILTER_LOADER_FD. The filter compares 64 bits, the kernel takes 32. */
static long gate_close(void) {
        if (atomic_exchange(&gate.is_loading, false))
                gate.mapped_fn(gate.mapped_user);
        return syscall(SYS_close, FILTER_LOADER_FD | UINT64_C(1) << 32) < 0 ? -errno : 0;
}

static long gate_readlink(const char *path, char *buffer, size_t bytes) {
        char copy[64];
        if (!path || !forbidden_copy_path(path, copy, sizeof copy) || strcmp(copy, "/proc/self/exe") != 0)
                return -EACCES;
        if (bytes > gate.exe_bytes)
                bytes = gate.exe_bytes;
        memcpy(buffer, gate.exe, bytes);
        return (long)bytes;
}

static long gate_fstatat(int fd, const char *path, struct stat *st, int flags) {
        if (!(flags & AT_EMPTY_PATH) || (path && *path))
                return -EACCES;
        return syscall(SYS_fstat, fd, st) < 0 ? -errno : 0;
}

/* What the kernel would do, but SIGSYS stays open: posix_spawn, system and others block every signal before they fork,
 * and a trap that cannot be delivered kills without a name. */
static long gate_sigprocmask(ucontext_t *u, int how, const uint64_t *set, uint64_t *old, size_t bytes) {
        uint64_t mask;
        if (bytes != sizeof mask || (set && how != SIG_BLOCK && how != SIG_SETMASK))
                return -EINVAL;
        memcpy(&mask, &u->uc_sigmask, sizeof mask); /* the kernel's part of it; taken over on return */
        uint64_t next = !set ? mask : how == SIG_BLOCK ? mask | *set : *set;
        next &= ~(UINT64_C(1) << (SIGSYS - 1));
        if (old)
                *old = mask;
        memcpy(&u->uc_sigmask, &next, sizeof next);
        return 0;
}

/* -ENOSYS: not ours to answer. */
static long gate_answer(ucontext_t *u, const struct gate_call *c) {
        const unsigned long *a = c->arg;
        switch (c->number) {
        case SYS_openat:
                return gate_open((const char *)a[1]);
#ifdef SYS_open
        case SYS_open:
                return gate_open((const char *)a[0]);
        case SYS_readlink:
                return gate_readlink((const char *)a[0], (char *)a[1], a[2]);
#endif
        case SYS_close:
                return gate_close();
        case SYS_readlinkat:
                return gate_readlink((const char *)a[1], (char *)a[2], a[3]);
        case SYS_newfstatat:
                return gate_fstatat((int)a[0], (const char *)a[1], (struct stat *)a[2], (int)a[3]);
        case SYS_rt_sigprocmask:
                return gate_sigprocmask(u, (int)a[0], (const uint64_t *)a[1], (uint64_t *)a[2], a[3]);
        case SYS_rt_sigaction: /* handlers are the host's */
        case SYS_fcntl:        /* commands that reach other processes */
        case SYS_tgkill:       /* another process */
        case SYS_sendmsg:      /* descriptors, by another socket than ours */
        case SYS_recvmsg:
        case SYS_prctl:
        case SYS_prlimit64:
                return -EPERM;
        case SYS_madvise: /* advice is only advice */
                return -EINVAL;
        }
        return -ENOSYS;
}

_Noreturn static void gate_die(void) {
        for (;;) {
                syscall(FILTER_DEATH_SYSCALL, FILTER_DEATH_ARGUMENT); /* SIGSYS, by the kernel */
                _exit(128 + SIGSYS);                                  /* no filter yet */
        }
}

/* A crash that is blocked kills at once, by its own signal. The plugin may have blocked all that there are. */
static void gate_let_crash(void) {
        uint64_t set = 0;
        for (size_t i = 0; i < sizeof gate_crashes / sizeof *gate_crashes; i++)
                set |= UINT64_C(1) << (gate_crashes[i] - 1);
        syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &set, NULL, sizeof set);
}

_Noreturn static void gate_on_breach(const struct sandbox_breach *b) {
        gate.breach = *b;
        atomic_store(&gate.is_dying, true);
        gate_let_crash();
        if (gate.breach_fn)
                gate.breach_fn(gate.breach_user, b);
        gate_die();
}

_Noreturn static void gate_on_unsound_breach(void) {
        struct sandbox_breach b = gate.breach;
        b.is_unsound = true;
        if (!atomic_exchange(&gate.was_told_unsound, true) && gate.breach_fn)
                gate.breach_fn(gate.breach_user, &b);
        gate_die();
}

static void gate_on_trap(int signal, siginfo_t *info, void *context) {
        if (info->si_code != 1 /* SYS_SECCOMP */)
                gate_die(); /* somebody sent the signal: it kills, as by default */
        int saved = errno;
        const uintptr_t instruction = gate_instruction(context);
        struct gate_call c = {.number = info->si_syscall};
        gate_read(context, &c);
        long r = gate_answer(context, &c);
        if (r == -ENOSYS) {
                const struct sandbox_breach b = {
                        .number = info->si_syscall,
                        .path = forbidden_path(c.number, c.arg),
                        .instruction = instruction,
                };
                gate_on_breach(&b);
        }
        gate_return(context, r);
        errno = saved;
}

static void gate_on_crash(int signal, siginfo_t *info, void *context) {
        if (atomic_load(&gate.is_dying))
                gate_on_unsound_breach();
        /* SA_RESETHAND: back at the faulting instruction it strikes again and kills, with the status it should have. */
        if (info->si_code > 0) {
                if (gate.crash_fn)
                        gate.crash_fn(gate.crash_user, signal, (uintptr_t)info->si_addr, gate_instruction(context));
                return;
        }
        syscall(SYS_tgkill, getpid(), gettid(), signal); /* somebody sent it */
}

static int gate_install(void) {
        static uint8_t stack[64 * 1024] __attribute__((aligned(16)));
        const stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
        if (sigaltstack(&alternate, NULL) < 0)
                return -errno;
        struct sigaction a = {.sa_sigaction = gate_on_trap, .sa_flags = SA_SIGINFO | SA_ONSTACK};
        sigfillset(&a.sa_mask);
        for (size_t i = 0; i < sizeof gate_crashes / sizeof *gate_crashes; i++)
                sigdelset(&a.sa_mask, gate_crashes[i]); /* of an answer into memory that is not there: told as any */
        if (sigaction(SIGSYS, &a, NULL) < 0)
                return -errno;
        a = (struct sigaction){.sa_sigaction = gate_on_crash, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESETHAND};
        for (size_t i = 0; i < sizeof gate_crashes / sizeof *gate_crashes; i++)
                if (sigaction(gate_crashes[i], &a, NULL) < 0)
                        return -errno;
        return 0;
}

void sandbox_admit_plugin(void (*on_mapped)(void *user), void *user) {
        gate.mapped_user = user;
        gate.mapped_fn = on_mapped;
        atomic_store(&gate.is_loading, true);
        atomic_store(&gate.admits_plugin, true);
}

void sandbox_on_breach(void (*fn)(void *user, const struct sandbox_breach *b), void *user) {
        gate.breach_user = user;
        gate.breach_fn = fn;
}

void sandbox_on_crash(void (*fn)(void *user, int signal, uintptr_t address, uintptr_t instruction), void *user) {
        gate.crash_user = user;
        gate.crash_fn = fn;
}

/* ---- the steps ---- */

int sandbox_prepare(struct sandbox *s, bool is_template) {
        *s = (struct sandbox){.kind = is_template ? FILTER_TEMPLATE : FILTER_WORKER, .listener_fd = -1};
        int r = filter_get(s->kind, &s->filter);
        if (r < 0)
                return r;
        ssize_t n = readlink("/proc/self/exe", gate.exe, sizeof gate.exe);
        gate.exe_bytes = n < 0 ? 0 : (size_t)n;
        return gate_install();
}

int sandbox_limit(struct sandbox *s, const struct limits *l) {
        int r = limits_set(l);
        if (r < 0)
                return r;
        s->layers |= SANDBOX_RLIMITS;
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
                return -errno;
        s->layers |= SANDBOX_NO_NEW_PRIVS;
        return 0;
}

int sandbox_enter(struct sandbox *s, bool is_alone) {
        int r = filter_landlock(&s->landlock_abi);
        if (r < 0)
                return r;
        if (s->landlock_abi > 0)
                s->layers |= is_alone ? SANDBOX_LANDLOCK : SANDBOX_LANDLOCK_PARTLY;
#if DROVER__SANITIZED
        is_entered = true;
#endif
        return filter_load(s->filter, (uint32_t)getpid());
}

int sandbox_close(struct sandbox *s) {
        int r = filter_load_last(s->kind, &s->listener_fd);
        if (r >= 0)
                s->layers |= SANDBOX_SECCOMP;
        return r;
}

void sandbox_describe(const struct sandbox *s, char *text, size_t text_bytes) {
        char landlock[24];
        snprintf(landlock, sizeof landlock, ",landlock:%d", s->landlock_abi);
        snprintf(text, text_bytes, "%s%s%s%s%s%s", s->layers & SANDBOX_SECCOMP ? ",seccomp" : "",
                 s->layers & SANDBOX_LANDLOCK ? landlock : "",
                 s->layers & SANDBOX_LANDLOCK_PARTLY ? ",no-landlock:threads" : "",
                 s->layers & SANDBOX_NO_NEW_PRIVS ? ",no-new-privs" : "", s->layers & SANDBOX_RLIMITS ? ",rlimits" : "",
                 SANDBOX_IS_SANITIZED ? ",sanitizer" : "");
        if (*text)
                memmove(text, text + 1, strlen(text));
}
