/* The filters as the kernel will run them: the compiled programs, evaluated here, for every system call number. */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "plugins/host/sandbox/filter.h"

enum { PID = 4711, N_CALLS = 1024, X32 = 0x40000000 };

#if defined(__x86_64__)
#define OUR_ARCH AUDIT_ARCH_X86_64
#else
#define OUR_ARCH AUDIT_ARCH_AARCH64
#endif

/* ---- a classic BPF machine, from its specification and nothing else ---- */

static uint32_t evaluate(const struct sock_filter *code, unsigned n, const struct seccomp_data *d) {
        uint32_t a = 0, x = 0, mem[BPF_MEMWORDS] = {0};
        for (unsigned pc = 0; pc < n; pc++) {
                const struct sock_filter *i = &code[pc];
                uint32_t operand = BPF_SRC(i->code) == BPF_X ? x : i->k;
                bool taken;
                switch (BPF_CLASS(i->code)) {
                case BPF_LD:
                        assert_true(i->k + 4 <= sizeof *d || BPF_MODE(i->code) == BPF_MEM ||
                                    BPF_MODE(i->code) == BPF_IMM);
                        if (BPF_MODE(i->code) == BPF_ABS)
                                memcpy(&a, (const char *)d + i->k, 4);
                        else
                                a = BPF_MODE(i->code) == BPF_MEM ? mem[i->k] : i->k;
                        break;
                case BPF_LDX:
                        x = BPF_MODE(i->code) == BPF_MEM ? mem[i->k] : i->k;
                        break;
                case BPF_ST:
                        mem[i->k] = a;
                        break;
                case BPF_STX:
                        mem[i->k] = x;
                        break;
                case BPF_ALU:
                        assert_int_equal(BPF_OP(i->code), BPF_AND);
                        a &= operand;
                        break;
                case BPF_JMP:
                        if (BPF_OP(i->code) == BPF_JA) {
                                pc += i->k;
                                break;
                        }
                        taken = BPF_OP(i->code) == BPF_JEQ   ? a == operand
                                : BPF_OP(i->code) == BPF_JGT ? a > operand
                                : BPF_OP(i->code) == BPF_JGE ? a >= operand
                                                             : (a & operand) != 0;
                        pc += taken ? i->jt : i->jf;
                        break;
                case BPF_RET:
                        return BPF_RVAL(i->code) == BPF_A ? a : i->k;
                case BPF_MISC:
                        if (BPF_MISCOP(i->code) == BPF_TAX)
                                x = a;
                        else
                                a = x;
                        break;
                }
        }
        fail_msg("the program ran off its end");
        return 0;
}

static struct sock_filter code[1024];
static unsigned n_code;
static struct sock_filter last[FILTER_LAST_CODE];
static unsigned n_last; /* 0: not loaded yet */

static void load(enum filter_kind kind, bool is_closed) {
        const struct filter *f;
        assert_int_equal(filter_get(kind, &f), 0);
        assert_true(f->n_code <= sizeof code / sizeof *code);
        filter_fill_in(f, PID, code);
        n_code = f->n_code;
        n_last = is_closed ? filter_get_last(kind, last) : 0;
}

/* The strictest answer of a stack counts; actions are ordered as signed numbers. */
static uint32_t answer_of(uint32_t arch, int call, const uint64_t *args) {
        struct seccomp_data d = {.nr = call, .arch = arch};
        if (args)
                memcpy(d.args, args, sizeof d.args);
        uint32_t first = evaluate(code, n_code, &d);
        uint32_t second = n_last ? evaluate(last, n_last, &d) : SECCOMP_RET_ALLOW;
        return (int32_t)(second & SECCOMP_RET_ACTION_FULL) < (int32_t)(first & SECCOMP_RET_ACTION_FULL) ? second
                                                                                                        : first;
}

static uint32_t answer(int call, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3) {
        return answer_of(OUR_ARCH, call, (const uint64_t[6]){a0, a1, a2, a3});
}

#define assert_allowed(...) assert_int_equal(answer(__VA_ARGS__), SECCOMP_RET_ALLOW)
#define assert_trapped(...) assert_int_equal(answer(__VA_ARGS__) & SECCOMP_RET_ACTION_FULL, SECCOMP_RET_TRAP)
#define assert_error(error, ...) assert_int_equal(answer(__VA_ARGS__), SECCOMP_RET_ERRNO | (error))

/* ---- what must hold for both, and before and after the last filter ---- */

enum { N_STATES = 2 * FILTER_N };

static bool load_state(unsigned k) {
        load(k / 2, k % 2);
        return k % 2;
}

static enum filter_kind kind_of(unsigned k) { return k / 2; }

static void foreign_tables_are_killed(void **state) {
        for (unsigned k = 0; k < N_STATES; k++) {
                load_state(k);
                for (int call = 0; call < N_CALLS; call++) {
                        assert_int_equal(answer_of(AUDIT_ARCH_I386, call, NULL), SECCOMP_RET_KILL_PROCESS);
                        assert_int_equal(answer_of(AUDIT_ARCH_ARM, call, NULL), SECCOMP_RET_KILL_PROCESS);
#if defined(__x86_64__)
                        uint32_t r = answer_of(OUR_ARCH, call | X32, NULL);
                        if (r != SECCOMP_RET_KILL_PROCESS)
                                fail_msg("filter %u: x32 call %d: %#x", k, call, r);
#endif
                }
        }
}

static const int dangerous[] = {
        SYS_openat,
        SYS_openat2,
        SYS_socket,
        SYS_socketpair,
        SYS_connect,
        SYS_bind,
        SYS_listen,
        SYS_accept4,
        SYS_sendto,
        SYS_execve,
        SYS_execveat,
        SYS_clone3,
        SYS_ptrace,
        SYS_process_vm_readv,
        SYS_process_vm_writev,
        SYS_pidfd_open,
        SYS_pidfd_send_signal,
        SYS_pidfd_getfd,
        SYS_kill,
        SYS_tkill,
        SYS_rt_sigqueueinfo,
        SYS_io_uring_setup,
        SYS_io_uring_enter,
        SYS_io_uring_register,
        SYS_bpf,
        SYS_perf_event_open,
        SYS_userfaultfd,
        SYS_memfd_create,
        SYS_mount,
        SYS_umount2,
        SYS_unshare,
        SYS_setns,
        SYS_chroot,
        SYS_pivot_root,
        SYS_setuid,
        SYS_setresuid,
        SYS_setgid,
        SYS_setgroups,
        SYS_capset,
        SYS_ioctl,
        SYS_unlinkat,
        SYS_renameat2,
        SYS_linkat,
        SYS_symlinkat,
        SYS_mkdirat,
        SYS_fchmodat,
        SYS_fchownat,
        SYS_fchmod,
        SYS_ftruncate,
        SYS_truncate,
        SYS_fallocate,
        SYS_shmget,
        SYS_shmat,
        SYS_msgget,
        SYS_semget,
        SYS_mq_open,
        SYS_keyctl,
        SYS_add_key,
        SYS_init_module,
        SYS_finit_module,
        SYS_kexec_load,
        SYS_process_madvise,
        SYS_personality,
        SYS_setrlimit,
        SYS_modify_ldt,
        SYS_name_to_handle_at,
        SYS_open_by_handle_at,
        SYS_inotify_init1,
        SYS_fanotify_init,
        SYS_landlock_create_ruleset,
        SYS_close_range,
        SYS_chdir,
        SYS_newfstatat,
        SYS_readlinkat,
        SYS_statx,
        SYS_getdents64,
};

/* Whatever its arguments, such a call gets no further than the handler or an errno. */
static void dangerous_calls_never_pass(void **state) {
        for (unsigned k = 0; k < N_STATES; k++) {
                load_state(k);
                for (size_t i = 0; i < sizeof dangerous / sizeof *dangerous; i++)
                        for (unsigned bits = 0; bits < 64; bits++) {
                                uint64_t args[6];
                                for (int a = 0; a < 6; a++)
                                        args[a] = bits & 1u << a ? (uint64_t)PID : 0;
                                uint32_t action = answer_of(OUR_ARCH, dangerous[i], args) & SECCOMP_RET_ACTION_FULL;
                                if (action != SECCOMP_RET_TRAP && action != SECCOMP_RET_ERRNO)
                                        fail_msg("filter %u lets call %d through", k, dangerous[i]);
                        }
        }
}

static void the_death_call_kills(void **state) {
        for (unsigned k = 0; k < N_STATES; k++) {
                load_state(k);
                assert_int_equal(answer(FILTER_DEATH_SYSCALL, FILTER_DEATH_ARGUMENT, 0, 0, 0),
                                 SECCOMP_RET_KILL_PROCESS);
                assert_trapped(FILTER_DEATH_SYSCALL, 0, 0, 0, 0);
        }
}

/* Each of these arguments is compared, to the last bit. */
static void only_exactly(int call, unsigned first, unsigned end, const uint64_t wanted[6]) {
        assert_int_equal(answer_of(OUR_ARCH, call, wanted), SECCOMP_RET_ALLOW);
        for (unsigned bit = 0; bit < 64; bit++)
                for (unsigned a = first; a < end; a++) {
                        uint64_t args[6];
                        memcpy(args, wanted, sizeof args);
                        args[a] ^= UINT64_C(1) << bit;
                        assert_int_equal(answer_of(OUR_ARCH, call, args), SECCOMP_RET_TRAP);
                }
}

/* A pipe of <drover/sync.h>: pairs of packet sockets, bytes without an address, and what kind of socket one is. Nothing
 * that carries descriptors, sets an option or leaves the pair. */
static void a_pipe_carries_bytes_and_no_more(void **state) {
        for (unsigned k = 0; k < N_STATES; k++) {
                load_state(k);
                only_exactly(SYS_sendto, 3, 6, (const uint64_t[6]){9, 0, 1, MSG_DONTWAIT | MSG_NOSIGNAL});
                only_exactly(SYS_recvfrom, 3, 6, (const uint64_t[6]){9, 0, 1, MSG_DONTWAIT | MSG_TRUNC});
                only_exactly(SYS_getsockopt, 1, 3, (const uint64_t[6]){9, SOL_SOCKET, SO_TYPE});
                only_exactly(SYS_socketpair, 0, 3, (const uint64_t[6]){AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC});
                assert_trapped(SYS_sendmsg, 9, 0, MSG_DONTWAIT | MSG_NOSIGNAL, 0);
                assert_trapped(SYS_recvmsg, 9, 0, MSG_DONTWAIT, 0);
                assert_trapped(SYS_sendmmsg, 3, 0, 1, 0);
                assert_trapped(SYS_recvmmsg, 3, 0, 1, 0);
                assert_trapped(SYS_setsockopt, 9, SOL_SOCKET, SO_SNDBUF, 0);
                assert_trapped(SYS_shutdown, 9, 0, 0, 0);
        }
}

static void arguments_are_compared_to_the_last_bit(void **state) {
        for (unsigned k = 0; k < N_STATES; k++) {
                bool is_closed = load_state(k);
                for (unsigned prot = 0; prot < 8; prot++) {
                        bool fine = is_closed ? !(prot & PROT_EXEC) : (prot & 6) != 6;
                        assert_int_equal(answer(SYS_mmap, 0, 4096, prot, MAP_PRIVATE) == SECCOMP_RET_ALLOW, fine);
                        assert_int_equal(answer(SYS_mprotect, 0, 4096, prot, 0) == SECCOMP_RET_ALLOW,
                                         !(prot & PROT_EXEC));
                }
                assert_allowed(SYS_recvmsg, 3, 0, 0, 0);
                assert_trapped(SYS_recvmsg, 5, 0, 0, 0);
                assert_trapped(SYS_recvmsg, 3 | UINT64_C(1) << 32, 0, 0, 0);
                assert_allowed(SYS_fcntl, 9, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW, 0);
                assert_trapped(SYS_fcntl, 9, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL, 0);
                assert_trapped(SYS_fcntl, 9, F_ADD_SEALS, F_SEAL_WRITE, 0);
                for (uint64_t command = 0; command < 2048; command++)
                        if (command != F_GETFD && command != F_SETFD && command != F_GETFL && command != F_DUPFD &&
                            command != F_DUPFD_CLOEXEC && command != F_GET_SEALS)
                                assert_trapped(SYS_fcntl, 9, command, 0, 0);
                assert_allowed(SYS_rt_sigaction, 32, 0, 0, 0);
                for (unsigned signal = 1; signal < 32; signal++)
                        assert_trapped(SYS_rt_sigaction, signal, 0, 0, 0);
                assert_trapped(SYS_futex, 0, 6 /* FUTEX_LOCK_PI */, 0, 0);
                assert_allowed(SYS_futex, 0, 0 | 128, 0, 0);
                assert_error(ENOSYS, SYS_clone3, 0, 0, 0, 0);
                assert_error(EACCES, SYS_faccessat, 0, 0, 0, 0);
                assert_trapped(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0);
                assert_trapped(SYS_prctl, PR_SET_PDEATHSIG, 0, 0, 0);
        }
}

/* ---- what differs ---- */

#define assert_answer(wanted, ...) assert_int_equal(answer(__VA_ARGS__) & SECCOMP_RET_ACTION_FULL, wanted)

/* The calls that wait for the spawner: once plugin code can make them. */
static uint32_t waiting(unsigned k) { return k % 2 ? SECCOMP_RET_USER_NOTIF : SECCOMP_RET_ALLOW; }

static void only_the_template_forks_and_only_when_it_may(void **state) {
        const uint64_t threads = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
                                 CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
        const uint64_t plain_fork = CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD;
        for (unsigned k = 0; k < N_STATES; k++) {
                load_state(k);
                bool is_template = kind_of(k) == FILTER_TEMPLATE;
                uint32_t fork_answer = is_template ? waiting(k) : SECCOMP_RET_TRAP;
                assert_allowed(SYS_clone, threads, 4096, 0, 0);
                assert_answer(fork_answer, SYS_clone, FILTER_FORK_FLAGS, 0, 0, 0);
                assert_trapped(SYS_clone, FILTER_FORK_FLAGS, 4096, 0, 0);
                assert_trapped(SYS_clone, FILTER_FORK_FLAGS | CLONE_VM, 0, 0, 0);
                assert_trapped(SYS_clone, FILTER_FORK_FLAGS & ~(uint64_t)CLONE_PARENT, 0, 0, 0);
                assert_trapped(SYS_clone, FILTER_FORK_FLAGS | UINT64_C(1) << 32, 0, 0, 0);
                assert_trapped(SYS_clone, threads | UINT64_C(1) << 32, 0, 0, 0);
                assert_trapped(SYS_clone, plain_fork, 0, 0, 0);
                assert_trapped(SYS_clone, CLONE_VM | CLONE_VFORK | SIGCHLD, 0, 0, 0);
                assert_trapped(SYS_clone, threads | CLONE_NEWUSER, 0, 0, 0);
                assert_answer(fork_answer, SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0);
                for (uint64_t signal = 0; signal < 65; signal++)
                        if (signal != SIGKILL)
                                assert_trapped(SYS_prctl, PR_SET_PDEATHSIG, signal, 0, 0);
                assert_allowed(SYS_prctl, PR_SET_NAME, 0, 0, 0);
                assert_trapped(SYS_setsid, 0, 0, 0, 0); /* it would leave its template's process group */
                assert_trapped(SYS_setpgid, 0, 0, 0, 0);
                for (uint64_t to = 0; to < 8; to++)
                        assert_int_equal(answer(SYS_dup3, 9, to, 0, 0) == SECCOMP_RET_ALLOW,
                                         is_template && (to == 1 || to == 2));
                assert_trapped(SYS_dup3, 9, 1 | UINT64_C(1) << 32, 0, 0);
        }
}

static void signals_stay_in_the_process(void **state) {
        for (unsigned k = 0; k < N_STATES; k++) {
                load_state(k);
                bool is_template = kind_of(k) == FILTER_TEMPLATE;
                assert_answer(is_template ? waiting(k) : SECCOMP_RET_ALLOW, SYS_tgkill, PID, 1, SIGABRT, 0);
                assert_answer(is_template ? waiting(k) : SECCOMP_RET_TRAP, SYS_tgkill, PID + 1, 1, SIGABRT, 0);
                assert_trapped(SYS_tkill, PID, SIGABRT, 0, 0);
                assert_error(EPERM, SYS_kill, PID, SIGABRT, 0, 0);
        }
}

/* Plugin code runs after the last filter only. */
static void nothing_changes_after_the_last_filter(void **state) {
        for (unsigned kind = 0; kind < FILTER_N; kind++) {
                load(kind, false);
                assert_allowed(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, 0, 0);
                assert_allowed(SYS_close, 3, 0, 0, 0);
                load(kind, true);
                for (uint64_t operation = 0; operation < 16; operation++) {
                        assert_trapped(SYS_seccomp, operation, 0, 0, 0);
                        assert_trapped(SYS_seccomp, operation | UINT64_C(1) << 32, 0, 0, 0);
                }
                assert_error(FILTER_PROBE_ERROR, SYS_seccomp, FILTER_PROBE_OPERATION, 0, 0, 0);
                assert_trapped(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, 0, 0);
                assert_trapped(SYS_prctl, 59 /* PR_SET_SYSCALL_USER_DISPATCH */, 1, 0, 0);
                assert_trapped(SYS_mmap, 0, 4096, PROT_EXEC | UINT64_C(1) << 32, MAP_PRIVATE);
                assert_trapped(SYS_dup2, 5, 3, 0, 0);
        }
}

/* By that number it may send and receive. The kernel takes the low half of a descriptor. */
static void the_control_socket_keeps_its_number(void **state) {
        for (unsigned kind = 0; kind < FILTER_N; kind++) {
                load(kind, true);
                for (uint64_t high = 0; high < 4; high++) {
                        assert_error(EBADF, SYS_close, 3 | high << 32, 0, 0, 0);
                        assert_allowed(SYS_close, 2 | high << 32, 0, 0, 0);
                        assert_allowed(SYS_close, 4 | high << 32, 0, 0, 0);
                }
                assert_trapped(SYS_close_range, 3, 3, 0, 0);
        }
}

/* The loader's close is trapped, before and after; the handler gets by it. */
static void the_end_of_loading_is_seen(void **state) {
        for (unsigned k = 0; k < N_STATES; k++) {
                load_state(k);
                assert_trapped(SYS_close, FILTER_LOADER_FD, 0, 0, 0);
                assert_allowed(SYS_close, FILTER_LOADER_FD | UINT64_C(1) << 32, 0, 0, 0);
                assert_allowed(SYS_close, FILTER_LOADER_FD + 1, 0, 0, 0);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(foreign_tables_are_killed),
                cmocka_unit_test(dangerous_calls_never_pass),
                cmocka_unit_test(the_death_call_kills),
                cmocka_unit_test(a_pipe_carries_bytes_and_no_more),
                cmocka_unit_test(arguments_are_compared_to_the_last_bit),
                cmocka_unit_test(only_the_template_forks_and_only_when_it_may),
                cmocka_unit_test(signals_stay_in_the_process),
                cmocka_unit_test(nothing_changes_after_the_last_filter),
                cmocka_unit_test(the_control_socket_keeps_its_number),
                cmocka_unit_test(the_end_of_loading_is_seen),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
