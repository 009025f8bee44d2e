/* Attacks its sandbox and whoever runs beside it, with all that code in its process can know, and tells how each attack
 * ended: 0 when it got through, else the errno. Whoever dies of an attack tells nothing.
 *
 * In its environment: EARLY=NAME,NAME,… are made at PLACE=constructor, preload, open or init, against process
 * TARGET=PID (0: the parent, which is the spawner). Job `told` says how those ended, job `attack` makes one more. */
#include <drover/plugin.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "ipc/memory/packet.h"
#include "ipc/wire.h"

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif

static char data[4096];

static int ended(long r) { return r < 0 ? errno : 0; }

/* ---- against the filters ---- */

/* After it `seccomp` succeeds, and does nothing. */
static struct sock_filter liar[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_seccomp, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
};
static const struct sock_fprog liar_program = {.len = 4, .filter = liar};

static int own_filter(pid_t target) {
        return ended(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &liar_program));
}

static int own_filter_by_prctl(pid_t target) {
        return ended(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &liar_program));
}

static int dispatch(pid_t target) { return ended(prctl(PR_SET_SYSCALL_USER_DISPATCH, 1, 0, 0, data)); }

static int handler(pid_t target) { return ended(signal(SIGSYS, SIG_IGN) == SIG_ERR ? -1 : 0); }

static int personal(pid_t target) { return ended(personality(READ_IMPLIES_EXEC)); }

static int dumpable(pid_t target) { return ended(prctl(PR_SET_DUMPABLE, 1)); }

static int limits(pid_t target) { return ended(setrlimit(RLIMIT_NOFILE, &(struct rlimit){1 << 16, 1 << 16})); }

/* ---- for more ---- */

static int maps_code(pid_t target) {
        void *p = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        return ended(p == MAP_FAILED ? -1 : 0);
}

/* The file of the plugin over the host's own code; the page is one that has run for the last time. */
static int replaces_the_host(pid_t target) {
        void *p = (void *)(getauxval(AT_ENTRY) & ~UINT64_C(4095));
        return ended(mmap(p, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, 4, 0) == MAP_FAILED ? -1 : 0);
}

static int makes_code(pid_t target) {
        return ended(mprotect((void *)((uintptr_t)data & ~UINT64_C(4095)), 4096, PROT_READ | PROT_EXEC));
}

static int opens(pid_t target) { return ended(open("/etc/hostname", O_RDONLY)); }

static int connects(pid_t target) { return ended(socket(AF_UNIX, SOCK_STREAM, 0)); }

static int executes(pid_t target) { return ended(execve("/bin/true", (char *const[]){"true", NULL}, NULL)); }

/* A process that nobody asked for and that ends with nobody. */
_Noreturn static void live_on(void) {
        for (;;)
                nanosleep(&(struct timespec){.tv_sec = 3600}, NULL);
}

static int forks(pid_t target) {
        pid_t pid = fork();
        if (pid == 0)
                live_on();
        return ended(pid);
}

/* A secret of the host's could only be in its memory: such a one stood once behind the number of Landlock's ABI. */
__attribute__((no_sanitize("address", "undefined"))) static int find_secret(struct dl_phdr_info *info, size_t bytes,
                                                                            void *user) {
        uint64_t *secret = user;
        for (unsigned i = 0; i < info->dlpi_phnum; i++) {
                const ElfW(Phdr) *s = &info->dlpi_phdr[i];
                const uint64_t *p = (const uint64_t *)((info->dlpi_addr + s->p_vaddr + 7) & ~UINT64_C(7));
                for (size_t n = s->p_memsz / 8; s->p_type == PT_LOAD && s->p_flags & PF_W && n > 4; n--, p++)
                        if (((p[0] & 0xffffffff) == 0xe || p[0] == 0xc) && p[0] >> 32 < 64 && p[1] >> 48 && p[2] &&
                            p[2] >> 32 == p[3] >> 32)
                                *secret = p[1];
        }
        return 1; /* the first is the program */
}

/* As a template forks, to the letter. */
static int forks_as_the_host(pid_t target) {
        const long flags = CLONE_PARENT | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD;
        static pid_t tid;
        uint64_t secret = 0;
        dl_iterate_phdr(find_secret, &secret);
#if defined(__x86_64__)
        long pid = syscall(SYS_clone, flags, 0, NULL, &tid, secret);
#else
        long pid = syscall(SYS_clone, flags, 0, NULL, secret, &tid);
#endif
        if (pid == 0)
                live_on();
        return ended(pid);
}

/* In the host's place: says that it is ready, and forks when it is let. Never returns. */
static int is_the_host(pid_t target) {
        const struct template_event ready = {.type = TEMPLATE_READY, .version = WIRE_VERSION};
        if (packet_send(WIRE_CONTROL_FD, &ready, sizeof ready, NULL, 0) == 0)
                forks_as_the_host(target);
        live_on();
}

/* ---- against others ---- */

static int sends_kill(pid_t target) { return ended(kill(target, SIGKILL)); }
static int sends_tkill(pid_t target) { return ended(syscall(SYS_tkill, target, SIGKILL)); }
static int sends_tgkill(pid_t target) { return ended(syscall(SYS_tgkill, target, target, SIGKILL)); }

static int queues(pid_t target) {
        siginfo_t si = {.si_signo = SIGKILL, .si_code = SI_QUEUE};
        return ended(syscall(SYS_rt_sigqueueinfo, target, SIGKILL, &si));
}

static int queues_to_thread(pid_t target) {
        siginfo_t si = {.si_signo = SIGKILL, .si_code = SI_QUEUE};
        return ended(syscall(SYS_rt_tgsigqueueinfo, target, target, SIGKILL, &si));
}

static int opens_process(pid_t target) { return ended(syscall(SYS_pidfd_open, target, 0)); }

static int signals_by_descriptor(pid_t target) { return ended(syscall(SYS_pidfd_send_signal, 4, SIGKILL, NULL, 0)); }

static int owns(pid_t target) {
        if (fcntl(3, F_SETOWN, target) == 0 || fcntl(3, F_SETSIG, SIGKILL) == 0 || fcntl(3, F_SETFL, O_ASYNC) == 0)
                return 0;
        return errno;
}

static int times(pid_t target) {
        timer_t timer;
        struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGKILL};
        event._sigev_un._tid = target;
        return ended(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &timer));
}

static int traces(pid_t target) { return ended(syscall(SYS_ptrace, 16 /* PTRACE_ATTACH */, target, 0, 0)); }

static int writes_memory(pid_t target) {
        const struct iovec v = {data, 1};
        return ended(syscall(SYS_process_vm_writev, target, &v, 1, &v, 1, 0));
}

static int leaves_its_session(pid_t target) { return ended(setsid()); }

static int leaves_its_group(pid_t target) { return ended(setpgid(0, 0)); }

static int outlives_its_parent(pid_t target) { return ended(prctl(PR_SET_PDEATHSIG, 0)); }

/* Any socket by the number of the control socket: by that number it may send descriptors. */
static int frees_the_number(pid_t target) {
        return ended(close(3) == 0 ? 0 : syscall(SYS_close, 3 | UINT64_C(1) << 32));
}

static int takes_the_number(pid_t target) { return ended(syscall(SYS_dup3, 1, 3, 0)); }

static const struct attack {
        const char *name;
        int (*make)(pid_t target);
} attacks[] = {
        {"own-filter", own_filter},
        {"own-filter-by-prctl", own_filter_by_prctl},
        {"dispatch", dispatch},
        {"handler", handler},
        {"personality", personal},
        {"dumpable", dumpable},
        {"limits", limits},
        {"code", maps_code},
        {"code-over-host", replaces_the_host},
        {"code-by-mprotect", makes_code},
        {"open", opens},
        {"socket", connects},
        {"exec", executes},
        {"fork", forks},
        {"fork-as-host", forks_as_the_host},
        {"be-host", is_the_host},
        {"kill", sends_kill},
        {"tkill", sends_tkill},
        {"tgkill", sends_tgkill},
        {"queue", queues},
        {"queue-to-thread", queues_to_thread},
        {"pidfd", opens_process},
        {"pidfd-signal", signals_by_descriptor},
        {"owner", owns},
        {"timer", times},
        {"trace", traces},
        {"write-memory", writes_memory},
        {"session", leaves_its_session},
        {"group", leaves_its_group},
        {"outlive", outlives_its_parent},
        {"control-socket", frees_the_number},
        {"control-socket-by-dup", takes_the_number},
};

static int make(const char *name, size_t name_bytes, pid_t target) {
        for (size_t i = 0; i < DROVER_COUNT(attacks); i++)
                if (strlen(attacks[i].name) == name_bytes && memcmp(attacks[i].name, name, name_bytes) == 0)
                        return attacks[i].make(target ? target : getppid());
        return ENOENT;
}

static char told[1024];

static void attack_at(const char *place) {
        const char *early = getenv("EARLY"), *at = getenv("PLACE"), *target = getenv("TARGET");
        if (!early || !at || strcmp(at, place) != 0)
                return;
        for (size_t n; *early; early += n + (early[n] == ',')) {
                n = strcspn(early, ",");
                int error = make(early, n, target ? atoi(target) : 0);
                size_t used = strlen(told);
                snprintf(told + used, sizeof told - used, "%.*s=%d ", (int)n, early, error);
        }
}

__attribute__((constructor)) static void construct(void) { attack_at("constructor"); }

static int preload(drover_preload_ctx *ctx, void **shared) {
        attack_at("preload");
        return 0;
}

static int on_open(drover_worker *worker) {
        attack_at("open");
        return 0;
}

static int on_init(drover_worker *worker, void **state) {
        attack_at("init");
        return 0;
}

static int tell(drover_job *job) { return drover_ret_str(job, "text", told); }

static int attack(drover_job *job) {
        const char *name;
        size_t n;
        int64_t target;
        int r = drover_arg_str(job, "name", &name, &n);
        if (r >= 0)
                r = drover_arg_i64(job, "target", &target);
        return r < 0 ? r : drover_ret_i64(job, "error", make(name, n, (pid_t)target));
}

static const struct drover_job_type jobs[] = {
        {.name = "attack", .args = "name:str,target:i64", .result = "error:i64", .handle = attack},
        {.name = "told", .result = "text:str", .handle = tell},
};
static struct drover_plugin plugin = {
        .jobs = jobs,
        .n_jobs = DROVER_COUNT(jobs),
        .preload = preload,
        .worker_open = on_open,
        .worker_init = on_init,
};
DROVER_REGISTER(plugin, "attacker", "1.0")
