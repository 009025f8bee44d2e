/* The filters, as tables. Owns libseccomp and the Landlock system calls.
 *
 * Profile compute: a plugin computes. It may have memory, threads, clocks, random bytes, sleep, and what its
 * descriptors already reach; it may not open, connect, make a process, signal another one, or map code.
 *
 * Plugin code shares its process with the host, so after its first instruction nothing that the process does to itself
 * can be relied on: a filter of the plugin's own could answer `seccomp` with success. Hence two programs, both there
 * before that instruction. The first, from the table, is loaded before dlopen: the loader may map code (never
 * writable), and the second may be loaded. The second, a few instructions by hand, is loaded when the loader closes the
 * plugin's file (FILTER_LOADER_FD; sandbox.c), and takes that away. The strictest answer of the two counts. No filter
 * can be added after it, so nothing changes for the rest of the process's life, or of its forks.
 *
 * A template forks, and its workers are in no filter's program by their pid. So three calls of theirs wait for the
 * spawner's word (ipc/memory/notified.h): the host's own fork, of which each needs a request; PR_SET_PDEATHSIG, by
 * which a child says that it is there; and tgkill. The spawner gets the listener before any plugin code runs, and
 * nobody here keeps one. When the spawner is gone these calls fail (ENOSYS). All that is decided stands in registers.
 *
 * What is in no table is trapped: SIGSYS, whose handler (sandbox.c) answers a few harmless calls itself and names the
 * others before the process dies. Foreign system call tables (x32, i386) are killed on the spot.
 *
 * libseccomp 2.5.4 may weaken rules of one system call that overlap, so all rules of one call have one action and only
 * compare for equality, masked or not; a lone rule may also compare for inequality. Landlock keeps signals in, too,
 * where the kernel has that (6.12); nothing relies on it.
 *
 * A program is compiled once and handed to the kernel as bytes, with the pid filled in: that takes 0.3 ms off each
 * start. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/sockios.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/seccomp.h>

#include "ipc/memory/sealed.h"
#include "ipc/wire.h"
#include "plugins/host/sandbox/filter.h"

#define PLACEHOLDER_PID 0x5ab5c0deu

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif

enum { IN_WORKER = 1 << FILTER_WORKER, IN_TEMPLATE = 1 << FILTER_TEMPLATE, IN_ALL = IN_WORKER | IN_TEMPLATE };

enum { MAX_CODE = 1024 };

/* Whatever the arguments. Sorted by subject. */
static const struct {
        int call;
        unsigned in;
} allowed[] = {
        {SCMP_SYS(read), IN_ALL},
        {SCMP_SYS(readv), IN_ALL},
        {SCMP_SYS(pread64), IN_ALL},
        {SCMP_SYS(write), IN_ALL},
        {SCMP_SYS(writev), IN_ALL},
        {SCMP_SYS(pwrite64), IN_ALL},
        {SCMP_SYS(lseek), IN_ALL},
        {SCMP_SYS(fstat), IN_ALL},
        {SCMP_SYS(dup), IN_ALL},
        {SCMP_SYS(pipe), IN_ALL},
        {SCMP_SYS(pipe2), IN_ALL},
        {SCMP_SYS(eventfd2), IN_ALL},
        {SCMP_SYS(poll), IN_ALL},
        {SCMP_SYS(ppoll), IN_ALL},
        {SCMP_SYS(select), IN_ALL},
        {SCMP_SYS(pselect6), IN_ALL},
        {SCMP_SYS(brk), IN_ALL},
        {SCMP_SYS(munmap), IN_ALL},
        {SCMP_SYS(futex_waitv), IN_ALL},
        {SCMP_SYS(membarrier), IN_ALL},
        {SCMP_SYS(set_robust_list), IN_ALL},
        {SCMP_SYS(rseq), IN_ALL},
        {SCMP_SYS(sched_yield), IN_ALL},
        {SCMP_SYS(sched_getaffinity), IN_ALL},
        {SCMP_SYS(getcpu), IN_ALL},
        {SCMP_SYS(rt_sigreturn), IN_ALL},
        {SCMP_SYS(sigaltstack), IN_ALL},
        {SCMP_SYS(restart_syscall), IN_ALL},
        {SCMP_SYS(pause), IN_ALL},
        {SCMP_SYS(exit), IN_ALL},
        {SCMP_SYS(exit_group), IN_ALL},
        {SCMP_SYS(nanosleep), IN_ALL},
        {SCMP_SYS(clock_nanosleep), IN_ALL},
        {SCMP_SYS(clock_gettime), IN_ALL},
        {SCMP_SYS(clock_getres), IN_ALL},
        {SCMP_SYS(gettimeofday), IN_ALL},
        {SCMP_SYS(time), IN_ALL},
        {SCMP_SYS(times), IN_ALL},
        {SCMP_SYS(getrusage), IN_ALL},
        {SCMP_SYS(getrlimit), IN_ALL},
        {SCMP_SYS(getrandom), IN_ALL},
        {SCMP_SYS(uname), IN_ALL},
        {SCMP_SYS(sysinfo), IN_ALL},
        {SCMP_SYS(getpid), IN_ALL},
        {SCMP_SYS(getppid), IN_ALL},
        {SCMP_SYS(gettid), IN_ALL},
        {SCMP_SYS(getuid), IN_ALL},
        {SCMP_SYS(geteuid), IN_ALL},
        {SCMP_SYS(getgid), IN_ALL},
        {SCMP_SYS(getegid), IN_ALL},
        {SCMP_SYS(seccomp), IN_ALL}, /* for the last filter, which takes it away */
        {SCMP_SYS(tgkill), IN_TEMPLATE},
};

/* Libraries probe with these and go on without. */
static const struct {
        int call, error;
} answered[] = {
        {SCMP_SYS(access), EACCES},
        {SCMP_SYS(faccessat), EACCES},
        {SCMP_SYS(faccessat2), EACCES},
        {SCMP_SYS(stat), EACCES},
        {SCMP_SYS(lstat), EACCES},
        {SCMP_SYS(statx), EACCES},
        {SCMP_SYS(statfs), EACCES},
        {SCMP_SYS(fstatfs), EACCES},
        {SCMP_SYS(getcwd), EACCES},
        {SCMP_SYS(kill), EPERM},
        {SCMP_SYS(mlock), EPERM},
        {SCMP_SYS(sched_setaffinity), EPERM},
        {SCMP_SYS(sched_setscheduler), EPERM},
        {SCMP_SYS(setpriority), EPERM},
        {SCMP_SYS(clone3), ENOSYS}, /* its flags are in memory; glibc falls back to clone, whose flags a filter sees */
};

#define EQ(argument, value)                                                                                            \
        { argument, SCMP_CMP_EQ, value, 0 }
#define MASKED(argument, mask, value)                                                                                  \
        { argument, SCMP_CMP_MASKED_EQ, mask, value }

#define THREAD_FLAGS                                                                                                   \
        (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS |             \
         CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID)

/* Allowed with these arguments. */
static const struct {
        int call;
        unsigned in, n;
        struct scmp_arg_cmp arg[3];
} conditional[] = {
        {SCMP_SYS(close), IN_ALL, 1, {{0, SCMP_CMP_NE, FILTER_LOADER_FD, 0}}},
        {SCMP_SYS(mmap), IN_ALL, 1, {MASKED(2, PROT_WRITE | PROT_EXEC, 0)}},
        {SCMP_SYS(mmap), IN_ALL, 1, {MASKED(2, PROT_WRITE | PROT_EXEC, PROT_WRITE)}},
        {SCMP_SYS(mmap), IN_ALL, 1, {MASKED(2, PROT_WRITE | PROT_EXEC, PROT_EXEC)}}, /* the last filter ends it */
        {SCMP_SYS(mprotect), IN_ALL, 1, {MASKED(2, PROT_EXEC, 0)}},
        {SCMP_SYS(mremap), IN_ALL, 1, {MASKED(3, ~(uint64_t)MREMAP_MAYMOVE, 0)}},
        {SCMP_SYS(madvise), IN_ALL, 1, {EQ(2, MADV_NORMAL)}},
        {SCMP_SYS(madvise), IN_ALL, 1, {EQ(2, MADV_RANDOM)}},
        {SCMP_SYS(madvise), IN_ALL, 1, {EQ(2, MADV_SEQUENTIAL)}},
        {SCMP_SYS(madvise), IN_ALL, 1, {EQ(2, MADV_WILLNEED)}},
        {SCMP_SYS(madvise), IN_ALL, 1, {EQ(2, MADV_DONTNEED)}},
        {SCMP_SYS(madvise), IN_ALL, 1, {EQ(2, MADV_FREE)}},
        {SCMP_SYS(madvise), IN_ALL, 1, {EQ(2, MADV_DONTFORK)}},
        {SCMP_SYS(madvise), IN_ALL, 1, {EQ(2, MADV_WIPEONFORK)}},
        {SCMP_SYS(madvise), IN_ALL, 1, {EQ(2, MADV_DONTDUMP)}},
        {SCMP_SYS(madvise), IN_ALL, 1, {EQ(2, MADV_HUGEPAGE)}},
        {SCMP_SYS(madvise), IN_ALL, 1, {EQ(2, MADV_NOHUGEPAGE)}},
        {SCMP_SYS(futex), IN_ALL, 1, {MASKED(1, 0x7f, FUTEX_WAIT)}},
        {SCMP_SYS(futex), IN_ALL, 1, {MASKED(1, 0x7f, FUTEX_WAKE)}},
        {SCMP_SYS(futex), IN_ALL, 1, {MASKED(1, 0x7f, FUTEX_REQUEUE)}},
        {SCMP_SYS(futex), IN_ALL, 1, {MASKED(1, 0x7f, FUTEX_CMP_REQUEUE)}},
        {SCMP_SYS(futex), IN_ALL, 1, {MASKED(1, 0x7f, FUTEX_WAKE_OP)}},
        {SCMP_SYS(futex), IN_ALL, 1, {MASKED(1, 0x7f, FUTEX_WAIT_BITSET)}},
        {SCMP_SYS(futex), IN_ALL, 1, {MASKED(1, 0x7f, FUTEX_WAKE_BITSET)}},
        {SCMP_SYS(clone), IN_ALL, 1, {EQ(0, THREAD_FLAGS)}},
        {SCMP_SYS(clone), IN_TEMPLATE, 2, {EQ(0, FILTER_FORK_FLAGS), EQ(1, 0)}},
        {SCMP_SYS(ioctl), IN_ALL, 1, {EQ(1, SIOCOUTQ)}}, /* job-mark.c; else ENOTTY, see add_rules */
        {SCMP_SYS(tgkill), IN_WORKER, 1, {EQ(0, PLACEHOLDER_PID)}},
        {SCMP_SYS(rt_sigaction), IN_ALL, 1, {EQ(0, 32)}}, /* pthread_cancel, setxid: glibc's own */
        {SCMP_SYS(rt_sigaction), IN_ALL, 1, {EQ(0, 33)}},
        {SCMP_SYS(rt_sigprocmask), IN_ALL, 1, {EQ(0, SIG_UNBLOCK)}}, /* else: sandbox.c keeps SIGSYS out */
        {SCMP_SYS(fcntl), IN_ALL, 1, {EQ(1, F_GETFD)}},
        {SCMP_SYS(fcntl), IN_ALL, 1, {EQ(1, F_SETFD)}},
        {SCMP_SYS(fcntl), IN_ALL, 1, {EQ(1, F_GETFL)}},
        {SCMP_SYS(fcntl), IN_ALL, 1, {EQ(1, F_DUPFD)}},
        {SCMP_SYS(fcntl), IN_ALL, 1, {EQ(1, F_DUPFD_CLOEXEC)}},
        {SCMP_SYS(fcntl), IN_ALL, 1, {EQ(1, F_GET_SEALS)}},
        {SCMP_SYS(fcntl), IN_ALL, 2, {EQ(1, F_ADD_SEALS), EQ(2, SEALED_SEALS)}}, /* of the room for a result */
        {SCMP_SYS(prctl), IN_ALL, 1, {EQ(0, PR_SET_NAME)}},
        {SCMP_SYS(prctl), IN_ALL, 1, {EQ(0, PR_GET_NAME)}},
        {SCMP_SYS(prctl), IN_ALL, 1, {EQ(0, PR_SET_VMA)}},
        {SCMP_SYS(prctl), IN_TEMPLATE, 2, {EQ(0, PR_SET_PDEATHSIG), EQ(1, SIGKILL)}},
        {SCMP_SYS(dup3), IN_TEMPLATE, 1, {EQ(1, STDOUT_FILENO)}}, /* its workers' output */
        {SCMP_SYS(dup3), IN_TEMPLATE, 1, {EQ(1, STDERR_FILENO)}},
        {SCMP_SYS(prlimit64), IN_ALL, 2, {EQ(0, 0), EQ(2, 0)}},
        {SCMP_SYS(recvmsg), IN_ALL, 1, {EQ(0, WIRE_CONTROL_FD)}},
        {SCMP_SYS(sendmsg), IN_ALL, 1, {EQ(0, WIRE_CONTROL_FD)}},
        /* Bytes, and no descriptors: ipc/memory/doorbell.c, and the pipes of <drover/sync.h>. No more than read() and
         * write().
         */
        {SCMP_SYS(sendto), IN_ALL, 3, {EQ(3, MSG_DONTWAIT | MSG_NOSIGNAL), EQ(4, 0), EQ(5, 0)}},
        {SCMP_SYS(recvfrom), IN_ALL, 3, {EQ(3, MSG_DONTWAIT | MSG_TRUNC), EQ(4, 0), EQ(5, 0)}},
        {SCMP_SYS(getsockopt), IN_ALL, 2, {EQ(1, SOL_SOCKET), EQ(2, SO_TYPE)}},
        {SCMP_SYS(socketpair), IN_ALL, 3, {EQ(0, AF_UNIX), EQ(1, SOCK_SEQPACKET | SOCK_CLOEXEC), EQ(2, 0)}},
};

static int add_rules(scmp_filter_ctx c, enum filter_kind kind) {
        int r = seccomp_rule_add(c, SCMP_ACT_KILL_PROCESS, FILTER_DEATH_SYSCALL, 1,
                                 SCMP_A0(SCMP_CMP_EQ, FILTER_DEATH_ARGUMENT));
        for (size_t i = 0; i < sizeof allowed / sizeof *allowed && r >= 0; i++)
                if (allowed[i].in & 1u << kind)
                        r = seccomp_rule_add(c, SCMP_ACT_ALLOW, allowed[i].call, 0);
        for (size_t i = 0; i < sizeof answered / sizeof *answered && r >= 0; i++)
                r = seccomp_rule_add(c, SCMP_ACT_ERRNO((unsigned)answered[i].error), answered[i].call, 0);
        if (r >= 0)
                r = seccomp_rule_add(c, SCMP_ACT_ERRNO(ENOTTY), SCMP_SYS(ioctl), 1, SCMP_A1(SCMP_CMP_NE, SIOCOUTQ));
        for (size_t i = 0; i < sizeof conditional / sizeof *conditional && r >= 0; i++)
                if (conditional[i].in & 1u << kind)
                        r = seccomp_rule_add_array(c, SCMP_ACT_ALLOW, conditional[i].call, conditional[i].n,
                                                   conditional[i].arg);
        return r;
}

static int export(scmp_filter_ctx c, struct filter *ret) {
        int fd = memfd_create("drover-filter", MFD_CLOEXEC);
        if (fd < 0)
                return -errno;
        int r = seccomp_export_bpf(c, fd);
        off_t bytes = r < 0 ? 0 : lseek(fd, 0, SEEK_END);
        struct sock_filter *code = NULL;
        if (r >= 0 && (bytes <= 0 || (size_t)bytes > MAX_CODE * sizeof *code || (size_t)bytes % sizeof *code != 0))
                r = -E2BIG;
        if (r >= 0 && !(code = malloc((size_t)bytes)))
                r = -ENOMEM;
        if (r >= 0 && pread(fd, code, (size_t)bytes, 0) != bytes)
                r = -EIO;
        close(fd);
        if (r < 0) {
                free(code);
                return r;
        }
        ret->code = code;
        ret->n_code = (unsigned short)((size_t)bytes / sizeof *code);
        return 0;
}

static int compile(enum filter_kind kind, struct filter *ret) {
        scmp_filter_ctx c = seccomp_init(SCMP_ACT_TRAP);
        if (!c)
                return -ENOMEM;
        int r = seccomp_attr_set(c, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
        if (r >= 0)
                r = seccomp_attr_set(c, SCMP_FLTATR_CTL_OPTIMIZE, 2);
        if (r >= 0)
                r = add_rules(c, kind);
        if (r >= 0)
                r = export(c, ret);
        seccomp_release(c);
        return r;
}

/* Compiled programs are the same for everybody: the one thing here that is kept for the process, and inherited. */
static struct filter compiled[FILTER_N];

int filter_get(enum filter_kind kind, const struct filter **ret) {
        struct filter *f = &compiled[kind];
        if (!f->code) {
                int r = compile(kind, f);
                if (r < 0)
                        return r;
        }
        *ret = f;
        return 0;
}

void filter_fill_in(const struct filter *f, uint32_t pid, struct sock_filter *code) {
        for (unsigned i = 0; i < f->n_code; i++) {
                code[i] = f->code[i];
                if (BPF_CLASS(code[i].code) == BPF_JMP && BPF_OP(code[i].code) == BPF_JEQ &&
                    code[i].k == PLACEHOLDER_PID)
                        code[i].k = pid;
        }
}

/* A descriptor if a listener is asked for, else 0. */
static int load_code(const struct sock_filter *code, unsigned short n_code, unsigned long flags) {
        const struct sock_fprog program = {.len = n_code, .filter = (struct sock_filter *)code};
        flags |= SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH;
        long r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
        return r < 0 ? -errno : (int)r;
}

static bool is_refused(long r, int error) { return r < 0 && errno == error; }

int filter_load(const struct filter *f, uint32_t pid) {
        struct sock_filter code[MAX_CODE];
        filter_fill_in(f, pid, code);
        int r = load_code(code, f->n_code, 0);
        if (r >= 0 && !is_refused(syscall(SYS_kill, pid, 0), EPERM))
                return -ENOTRECOVERABLE;
        return r;
}

/* ---- the last one ---- */

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
enum { LOW_HALF = 0 };
#else
enum { LOW_HALF = 4 };
#endif

enum {
        AT_MMAP = 8,
        AT_CLOSE = 10,
        AT_SECCOMP = 12,
        AT_CLONE = 14,
        AT_PRCTL = 16,
        AT_ALLOW = 18,
        AT_TRAP,
        AT_BAD_FD,
        AT_PROBE,
        AT_SPAWNER
};
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)offsetof(struct seccomp_data, field))
#define LOAD_ARGUMENT(i) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)offsetof(struct seccomp_data, args[i]) + LOW_HALF)
#define WHEN(here, number, to) [here] = BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, (to) - (here)-1, 0)
#define IF(here, operation, value, to, or)                                                                             \
        [here] = BPF_JUMP(BPF_JMP | (operation) | BPF_K, value, (to) - (here)-1, (or) - (here)-1)
#define RETURN(action) BPF_STMT(BPF_RET | BPF_K, action)

/* Only where an argument's low half is all that the kernel looks at. Foreign system call tables end at the first
 * filter, whatever is answered here. The socket's number must stay its own: recvmsg and sendmsg go by it. */
static const struct sock_filter last[] = {
        LOAD(nr),
        WHEN(1, SYS_mmap, AT_MMAP),
        WHEN(2, SYS_close, AT_CLOSE),
        WHEN(3, SYS_seccomp, AT_SECCOMP),
        WHEN(4, SYS_clone, AT_CLONE),
        WHEN(5, SYS_prctl, AT_PRCTL),
        WHEN(6, SYS_tgkill, AT_SPAWNER),
        RETURN(SECCOMP_RET_ALLOW),
        [AT_MMAP] = LOAD_ARGUMENT(2),
        IF(AT_MMAP + 1, BPF_JSET, PROT_EXEC, AT_TRAP, AT_ALLOW),
        [AT_CLOSE] = LOAD_ARGUMENT(0),
        IF(AT_CLOSE + 1, BPF_JEQ, WIRE_CONTROL_FD, AT_BAD_FD, AT_ALLOW),
        [AT_SECCOMP] = LOAD_ARGUMENT(0),
        IF(AT_SECCOMP + 1, BPF_JEQ, FILTER_PROBE_OPERATION, AT_PROBE, AT_TRAP),
        [AT_CLONE] = LOAD_ARGUMENT(0),
        IF(AT_CLONE + 1, BPF_JEQ, THREAD_FLAGS, AT_ALLOW, AT_SPAWNER),
        [AT_PRCTL] = LOAD_ARGUMENT(0),
        IF(AT_PRCTL + 1, BPF_JEQ, PR_SET_PDEATHSIG, AT_SPAWNER, AT_ALLOW),
        [AT_ALLOW] = RETURN(SECCOMP_RET_ALLOW),
        [AT_TRAP] = RETURN(SECCOMP_RET_TRAP),
        [AT_BAD_FD] = RETURN(SECCOMP_RET_ERRNO | EBADF),
        [AT_PROBE] = RETURN(SECCOMP_RET_ERRNO | FILTER_PROBE_ERROR),
        [AT_SPAWNER] = RETURN(SECCOMP_RET_USER_NOTIF),
};
static_assert(sizeof last == FILTER_LAST_CODE * sizeof *last, "as filter.h has it");

unsigned short filter_get_last(enum filter_kind kind, struct sock_filter code[FILTER_LAST_CODE]) {
        memcpy(code, last, sizeof last);
        if (kind == FILTER_WORKER) /* the first filter knows all that there is to decide */
                code[AT_SPAWNER].k = SECCOMP_RET_ALLOW;
        return FILTER_LAST_CODE;
}

int filter_load_last(enum filter_kind kind, int *ret_listener) {
        struct sock_filter code[FILTER_LAST_CODE];
        unsigned short n_code = filter_get_last(kind, code);
        bool listens = kind == FILTER_TEMPLATE;
        int r = load_code(code, n_code,
                          listens ? SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV : 0);
        *ret_listener = listens ? r : -1;
        if (r >= 0 && !is_refused(syscall(SYS_seccomp, FILTER_PROBE_OPERATION, 0, NULL), FILTER_PROBE_ERROR))
                return -ENOTRECOVERABLE;
        return r < 0 ? r : 0;
}

const char *filter_call_name(int number, char *text, size_t text_bytes) {
        char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, number);
        snprintf(text, text_bytes, "%s", name ? name : "?");
        free(name);
        return text;
}

/* ---- Landlock ---- */

/* The header of the oldest kernel we build on does not know them all. */
struct landlock_attr {
        uint64_t fs, net, scoped;
};

int filter_landlock(int *ret_abi) {
        /* What each ABI can handle: file system rights, network rights, scopes. */
        static const struct {
                unsigned n_fs, n_net, n_scoped;
                size_t bytes;
        } known[] = {
                [1] = {13, 0, 0, 8},  [2] = {14, 0, 0, 8},  [3] = {15, 0, 0, 8},
                [4] = {15, 2, 0, 16}, [5] = {16, 2, 0, 16}, [6] = {16, 2, 2, 24},
        };
        const long newest = sizeof known / sizeof *known - 1;
        long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, 1);
        if (abi <= 0) {
                *ret_abi = 0;
                /* EPERM: a container's own filter denies the question. */
                return abi == 0 || errno == ENOSYS || errno == EOPNOTSUPP || errno == EPERM ? 0 : -errno;
        }
        long k = abi < newest ? abi : newest;
        const struct landlock_attr attr = {
                .fs = (UINT64_C(1) << known[k].n_fs) - 1,
                .net = (UINT64_C(1) << known[k].n_net) - 1,
                .scoped = (UINT64_C(1) << known[k].n_scoped) - 1,
        };
        int fd = (int)syscall(SYS_landlock_create_ruleset, &attr, known[k].bytes, 0);
        if (fd < 0)
                return -errno;
        int r = syscall(SYS_landlock_restrict_self, fd, 0) < 0 ? -errno : 0;
        close(fd);
        if (r >= 0)
                *ret_abi = (int)abi;
        return r;
}
