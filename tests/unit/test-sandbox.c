/* The sandbox as the kernel keeps it: what dies, under which name, what is answered, and what goes on working. */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <drover/plugin.h>

#include "plugins/host/sandbox/sandbox.h"

static atomic_int *breach; /* number + 1 of the call, told by the handler of the child */
static atomic_uintptr_t *crash;

static bool is_unsound; /* a look at the stack crashes */
static volatile uintptr_t nowhere = 0x18;

static void on_breach(void *user, const struct sandbox_breach *b) {
        if (is_unsound && !b->is_unsound)
                *(volatile int *)nowhere = 1;
        atomic_store(breach, b->number + 1);
}
static void on_crash(void *user, int signal, uintptr_t address, uintptr_t instruction) { atomic_store(crash, address); }

static int set_up(void **state) {
        void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
                return -1;
        breach = p;
        crash = (atomic_uintptr_t *)((char *)p + 64);
        return 0;
}

/* Runs `fn` in a process that entered its sandbox, or closed it as well; its wait status. */
static int run_inside(bool is_template, bool is_closed, int (*fn)(void)) {
        atomic_store(breach, 0);
        atomic_store(crash, 0);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                struct sandbox s;
                int null = open("/dev/null", O_RDWR);
                if (dup2(null, 3) < 0 || sandbox_prepare(&s, is_template) < 0 ||
                    sandbox_limit(&s, &(struct limits){0}) < 0)
                        _exit(100);
                sandbox_on_breach(on_breach, NULL);
                sandbox_on_crash(on_crash, NULL);
                if (sandbox_enter(&s, true) < 0 || (is_closed && sandbox_close(&s) < 0))
                        _exit(101);
                if (s.listener_fd >= 0)
                        close(s.listener_fd); /* as if the spawner were gone */
                _exit(fn());
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        return status;
}

static void stopped_at(const char *name, int call, int (*fn)(void)) {
        for (int k = 0; k < 4; k++) {
                int status = run_inside(k & 1, k & 2, fn);
                if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS || atomic_load(breach) - 1 != call)
                        fail_msg("%s, in state %d: status %#x, call %d", name, k, status, atomic_load(breach) - 1);
        }
}

static int try_open(void) { return open("/etc/hostname", O_RDONLY) < 0; }
static int try_open_relative(void) { return openat(3, "x", O_RDONLY) < 0; }
static int try_create(void) { return open("/tmp/drover-test-sandbox", O_CREAT | O_WRONLY, 0600) < 0; }
static int try_plugin_path(void) { return open("/proc/self/fd/4", O_RDONLY) < 0; } /* not admitted */
static int try_null_path(void) { return (int)syscall(SYS_openat, AT_FDCWD, NULL, O_RDONLY) < 0; }
static int try_socket(void) { return socket(AF_UNIX, SOCK_STREAM, 0) < 0; }
static int try_execve(void) { return execl("/bin/true", "true", NULL); }
static int try_fork(void) { return fork() < 0; }
static int try_vfork(void) { return (int)syscall(SYS_vfork) < 0; }
static int try_system(void) { return system("true"); }
static int try_unlink(void) { return unlink("/nowhere"); }
static int try_ptrace(void) { return (int)syscall(SYS_ptrace, 0, 0, 0, 0); }
static int try_uring(void) { return (int)syscall(SYS_io_uring_setup, 1, NULL); }
static int try_memfd(void) { return memfd_create("x", 0); }
static int try_chdir(void) { return chdir("/"); }
static int try_tkill(void) { return (int)syscall(SYS_tkill, getpid(), SIGTERM); }
static int try_writable_code(void) {
        return mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED;
}
static int try_code_by_mprotect(void) {
        void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        return mprotect(p, 4096, PROT_READ | PROT_EXEC);
}

static void forbidden_calls_die_named(void **state) {
        stopped_at("open", SYS_openat, try_open);
        stopped_at("openat", SYS_openat, try_open_relative);
        stopped_at("create", SYS_openat, try_create);
        stopped_at("plugin path", SYS_openat, try_plugin_path);
        stopped_at("null path", SYS_openat, try_null_path);
        stopped_at("socket", SYS_socket, try_socket);
        stopped_at("execve", SYS_execve, try_execve);
        stopped_at("fork", SYS_clone, try_fork);
        stopped_at("vfork", SYS_vfork, try_vfork);
        stopped_at("system", SYS_clone, try_system);
        stopped_at("unlink", SYS_unlink, try_unlink);
        stopped_at("ptrace", SYS_ptrace, try_ptrace);
        stopped_at("io_uring", SYS_io_uring_setup, try_uring);
        stopped_at("memfd", SYS_memfd_create, try_memfd);
        stopped_at("chdir", SYS_chdir, try_chdir);
        stopped_at("tkill", SYS_tkill, try_tkill);
        stopped_at("mmap", SYS_mmap, try_writable_code);
        stopped_at("mprotect", SYS_mprotect, try_code_by_mprotect);
}

static int try_open_with_all_blocked(void) {
        sigset_t all;
        sigfillset(&all);
        sigprocmask(SIG_BLOCK, &all, NULL);
        return try_open();
}

/* What is told of a call is looked for in the plugin's memory. */
static void a_crash_on_the_way_changes_no_name(void **state) {
        is_unsound = true;
        stopped_at("open", SYS_openat, try_open);
        stopped_at("open with all signals blocked", SYS_openat, try_open_with_all_blocked);
        is_unsound = false;
}

static int try_code(void) {
        return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED;
}
static int try_foreign_signal(void) { return (int)syscall(SYS_tgkill, getppid(), getppid(), 0) == 0 || errno != EPERM; }

/* What waits for the spawner's word, and it is gone. */
static int try_alone(void) {
        const long flags = FILTER_FORK_FLAGS;
        if (syscall(SYS_clone, flags, 0, NULL, NULL, 0) >= 0 || errno != ENOSYS)
                return 1;
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 || errno != ENOSYS)
                return 2;
        return syscall(SYS_tgkill, getpid(), getpid(), 0) == 0 || errno != ENOSYS;
}

/* What a plugin of old did in its constructor: from then on `seccomp` succeeds and does nothing. */
static int try_filter_of_its_own(void) {
        struct sock_filter code[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_seccomp, 0, 1),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};
        return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

static int try_filter_by_prctl(void) {
        return prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0 || errno != EPERM || prctl(PR_GET_SECCOMP) == 0;
}

static int try_control_socket(void) {
        if (close(3) == 0 || errno != EBADF || (int)syscall(SYS_close, 3 | UINT64_C(1) << 32) == 0)
                return 1;
        return write(3, "x", 1) == 1 && dup(2) > 3 ? 0 : 2;
}

static void closing_takes_more_away(void **state) {
        for (int is_template = 0; is_template < 2; is_template++) {
                assert_int_equal(run_inside(is_template, false, try_code), 0);
                assert_int_equal(run_inside(is_template, false, try_filter_of_its_own), 0);
                assert_int_equal(WTERMSIG(run_inside(is_template, true, try_code)), SIGSYS);
                assert_int_equal(atomic_load(breach) - 1, SYS_mmap);
                assert_int_equal(WTERMSIG(run_inside(is_template, true, try_filter_of_its_own)), SIGSYS);
                assert_int_equal(atomic_load(breach) - 1, SYS_seccomp);
                assert_int_equal(run_inside(is_template, true, try_filter_by_prctl), 0);
                assert_int_equal(run_inside(is_template, true, try_control_socket), 0);
        }
        assert_int_equal(run_inside(false, true, try_foreign_signal), 0);
        assert_int_equal(run_inside(true, true, try_alone), 0);
}

/* A sandbox that is not there although the kernel said so is noticed. */
static void success_is_not_believed(void **state) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                struct sandbox s;
                if (sandbox_prepare(&s, false) < 0 || sandbox_limit(&s, &(struct limits){0}) < 0 ||
                    try_filter_of_its_own() != 0)
                        _exit(100);
                _exit(sandbox_enter(&s, true) == -ENOTRECOVERABLE && sandbox_close(&s) == -ENOTRECOVERABLE &&
                                      !(s.layers & SANDBOX_SECCOMP)
                              ? 0
                              : 1);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

/* ---- the loader ---- */

static atomic_int n_mapped;

static void on_mapped(void *user) {
        atomic_fetch_add(&n_mapped, 1);
        if (sandbox_close(user) < 0)
                _exit(102);
}

/* The close of what the loader got is noticed once, and is one. */
static int load_in_parts(struct sandbox *s) {
        sandbox_admit_plugin(on_mapped, s);
        int fd = open("/proc/self/fd/4", O_RDONLY), other = dup(fd);
        if (fd != FILTER_LOADER_FD || other < 0 || fcntl(fd, F_GETFD) != FD_CLOEXEC)
                return 1;
        if (close(other) < 0 || atomic_load(&n_mapped) != 0 || try_code() != 0)
                return 2;
        if (close(fd) < 0 || atomic_load(&n_mapped) != 1 || fcntl(fd, F_GETFD) >= 0)
                return 3;
        if (close(fd) == 0 || errno != EBADF || fcntl(0, F_DUPFD, FILTER_LOADER_FD) != FILTER_LOADER_FD ||
            close(FILTER_LOADER_FD) < 0 || atomic_load(&n_mapped) != 1)
                return 4;
        return try_code();
}

static void loading_ends_with_the_close(void **state) {
        int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
        atomic_store(breach, 0);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                struct sandbox s;
                if (dup2(file, 4) < 0 || sandbox_prepare(&s, false) < 0 || sandbox_limit(&s, &(struct limits){0}) < 0)
                        _exit(100);
                sandbox_on_breach(on_breach, NULL);
                if (sandbox_enter(&s, true) < 0)
                        _exit(101);
                _exit(load_in_parts(&s));
        }
        int status;
        close(file);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (WIFEXITED(status))
                fail_msg("exit status %d", WEXITSTATUS(status));
        assert_int_equal(WTERMSIG(status), SIGSYS);
        assert_int_equal(atomic_load(breach) - 1, SYS_mmap);
}

/* 0, or the number of the probe that was answered wrongly. */
static int try_probes(void) {
        struct stat st;
        char text[256];
        errno = 0;
        if (access("/etc/hostname", R_OK) == 0 || errno != EACCES)
                return 1;
        if (stat("/etc/hostname", &st) == 0 || errno != EACCES)
                return 2;
        if (readlink("/proc/self/cwd", text, sizeof text) >= 0 || errno != EACCES)
                return 3;
        if (fstat(2, &st) < 0)
                return 4;
        if (readlink("/proc/self/exe", text, sizeof text) <= 0)
                return 5;
        if (kill(getppid(), 0) == 0 || errno != EPERM)
                return 6;
        if (signal(SIGUSR1, SIG_IGN) != SIG_ERR || errno != EPERM)
                return 7;
        if (isatty(2) || prctl(PR_SET_DUMPABLE, 1) == 0 || prctl(PR_GET_DUMPABLE) == 1)
                return 8;
        if (sysconf(_SC_NPROCESSORS_ONLN) < 1 || sysconf(_SC_PHYS_PAGES) < 1)
                return 9;
        if (fstatat(2, "", &st, AT_EMPTY_PATH) < 0 || fstatat(AT_FDCWD, "/", &st, AT_EMPTY_PATH) == 0)
                return 10;
        return 0;
}

static void probes_are_answered(void **state) {
        for (int k = 0; k < 4; k++)
                assert_int_equal(run_inside(k & 1, k & 2, try_probes), 0);
}

static void *thread(void *user) {
        void *p = malloc(200000);
        memset(p, 1, 200000);
        free(p);
        return user;
}

static int try_work(void) {
        pthread_t t[3];
        for (int i = 0; i < 3; i++)
                if (pthread_create(&t[i], NULL, thread, t) != 0)
                        return 1;
        for (int i = 0; i < 3; i++)
                pthread_join(t[i], NULL);
        void *p = malloc(64 << 20);
        p = realloc(p, 128 << 20);
        free(p);
        usleep(10);
        int ends[2];
        return p && pipe(ends) == 0 && write(ends[1], "x", 1) == 1 ? 0 : 2;
}

static void ordinary_work_goes_on(void **state) {
        for (int k = 0; k < 4; k++)
                assert_int_equal(run_inside(k & 1, k & 2, try_work), 0);
}

static int try_abort(void) { abort(); }
static int try_crash(void) {
        *(volatile int *)nowhere = 1;
        return 0;
}
static int try_answer_to_nowhere(void) { return (int)readlink("/proc/self/exe", (char *)nowhere, 1); }
static int try_raise(void) { return raise(SIGSEGV); }

static void crashes_keep_their_signal_and_say_where(void **state) {
        assert_int_equal(WTERMSIG(run_inside(false, true, try_abort)), SIGABRT);
        assert_int_equal(WTERMSIG(run_inside(false, true, try_crash)), SIGSEGV);
        assert_int_equal(atomic_load(crash), 0x18);
        assert_int_equal(WTERMSIG(run_inside(false, true, try_answer_to_nowhere)), SIGSEGV);
        assert_int_equal(atomic_load(crash), 0x18);
        assert_int_equal(WTERMSIG(run_inside(false, true, try_raise)), SIGSEGV);
        assert_int_equal(atomic_load(crash), 0);
}

static void layers_are_told_truthfully(void **state) {
        struct sandbox s = {.layers = SANDBOX_SECCOMP | SANDBOX_LANDLOCK | SANDBOX_NO_NEW_PRIVS | SANDBOX_RLIMITS,
                            .landlock_abi = 7};
        char text[64];
        sandbox_describe(&s, text, sizeof text);
        assert_string_equal(text, DROVER__SANITIZED ? "seccomp,landlock:7,no-new-privs,rlimits,sanitizer"
                                                    : "seccomp,landlock:7,no-new-privs,rlimits");
        s.layers = SANDBOX_SECCOMP | SANDBOX_NO_NEW_PRIVS;
        sandbox_describe(&s, text, sizeof text);
        assert_string_equal(text, DROVER__SANITIZED ? "seccomp,no-new-privs,sanitizer" : "seccomp,no-new-privs");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(forbidden_calls_die_named),
                cmocka_unit_test(a_crash_on_the_way_changes_no_name),
                cmocka_unit_test(closing_takes_more_away),
                cmocka_unit_test(success_is_not_believed),
                cmocka_unit_test(loading_ends_with_the_close),
                cmocka_unit_test(probes_are_answered),
                cmocka_unit_test(ordinary_work_goes_on),
                cmocka_unit_test(crashes_keep_their_signal_and_say_where),
                cmocka_unit_test(layers_are_told_truthfully),
        };
        return cmocka_run_group_tests(tests, set_up, NULL);
}
