/* Owns the making of processes: the only user of fork, clone and exec in the spawner.
 *
 * A child gets exactly: /dev/null at 0, 1 and 2, its control socket at 3, the sealed plugin at 4, default signals, an
 * empty mask and the environment of its generation.
 *
 * exec: clone(CLONE_VM | CLONE_VFORK) on a stack of its own, so no page table is copied; the child shares our memory
 * until its exec and therefore only makes system calls, and reports a failed one through the plan. We have no signal
 * handlers that it could run. The spawner keeps 0 to 4 occupied (start_prepare), so its dup2s never hit a descriptor
 * that is still needed; everything else is CLOEXEC and closed by close_range besides. fork: the child is a copy of the
 * spawner, which holds no ring, bus or client memory, and only one thread; it becomes the host by a call, and that puts
 * descriptors, signals and environment in order (host_become). Session, death signal, limits and sandbox are the host's
 * business in both cases. */
#include "daemon/spawn/start.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "plugins/host/host.h"

enum { FIRST_OWN_FD = WIRE_PLUGIN_FD + 1, EXEC_STACK_BYTES = 16 * 1024 };

struct exec_plan {
        const char *path;
        char **argv, **envp;
        int null_fd, control_fd, plugin_fd;
        int error;
};

int start_prepare(int *ret_null_fd) {
        for (int sig = 1; sig < NSIG; sig++)
                signal(sig, sig == SIGPIPE ? SIG_IGN : SIG_DFL);

        int fd;
        do { /* the lowest free numbers, up to and including 4, stay open for good */
                fd = open("/dev/null", O_RDWR | O_CLOEXEC);
                if (fd < 0)
                        return -errno;
        } while (fd < FIRST_OWN_FD);
        *ret_null_fd = fd;
        return 0;
}

/* Async-signal-safe: also runs in the vfork child. */
static int child_descriptors(int null_fd, int control_fd, int plugin_fd) {
        for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
                if (dup2(null_fd, fd) < 0)
                        return -errno;
        if (dup2(control_fd, WIRE_CONTROL_FD) < 0 || dup2(plugin_fd, WIRE_PLUGIN_FD) < 0)
                return -errno;
        return syscall(SYS_close_range, FIRST_OWN_FD, ~0U, 0) < 0 ? -errno : 0;
}

static void child_signals(void) {
        struct sigaction def = {.sa_handler = SIG_DFL};
        sigaction(SIGPIPE, &def, NULL); /* the only one that start_prepare left otherwise */
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
}

__attribute__((no_sanitize("address"))) static int exec_child(void *user) {
        struct exec_plan *p = user;
        child_signals();
        int r = child_descriptors(p->null_fd, p->control_fd, p->plugin_fd);
        if (r == 0) {
                execve(p->path, p->argv, p->envp);
                r = -errno;
        }
        p->error = r;
        _exit(127);
}

int start_exec(const struct spawner *s, const struct generation *g, enum start_role role, int control_fd,
               pid_t *ret_pid, int *ret_pidfd) {
        static _Alignas(64) char stack[EXEC_STACK_BYTES];
        char parent[32], name[sizeof g->pool + 8], memory[40], oom[32];
        snprintf(parent, sizeof parent, "--parent=%d", getpid());
        snprintf(name, sizeof name, "--name=%s", g->pool);
        snprintf(memory, sizeof memory, "--memory-max=%llu", (unsigned long long)g->limits.memory_bytes);
        snprintf(oom, sizeof oom, "--oom-score-adj=%d", g->limits.oom_score_adj);
        char *argv[] = {"drover-worker",
                        role == START_ROLE_TEMPLATE ? "--role=template" : "--role=worker",
                        parent,
                        name,
                        memory,
                        oom,
                        NULL};
        struct exec_plan plan = {
                .path = s->worker_path,
                .argv = argv,
                .envp = g->envp,
                .null_fd = s->null_fd,
                .control_fd = control_fd,
                .plugin_fd = g->plugin_fd,
        };
        int pidfd = -1;
        pid_t pid =
                clone(exec_child, stack + sizeof stack, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &plan, &pidfd);
        if (pid < 0)
                return -errno;
        if (plan.error == 0) {
                *ret_pid = pid;
                if (ret_pidfd)
                        *ret_pidfd = pidfd;
                else
                        close(pidfd);
                return 0;
        }
        close(pidfd);
        siginfo_t si;
        while (waitid(P_PID, (id_t)pid, &si, WEXITED) < 0 && errno == EINTR)
                ;
        return plan.error;
}

bool start_error_is_permanent(int error) {
        return error == ENOENT || error == ENOTDIR || error == EACCES || error == ENOEXEC || error == ELIBBAD ||
               error == ELOOP;
}

/* Before it opens or reads anything: it may hang there, and hold what it has for as long. */
static int helper_prepare(const struct spawner *s, int fd, pid_t parent) {
        child_signals();
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
                return -ESRCH;
        for (int i = STDIN_FILENO; i <= STDERR_FILENO; i++)
                if (dup2(s->null_fd, i) < 0)
                        return -errno;
        if (dup2(fd, WIRE_CONTROL_FD) < 0 || syscall(SYS_close_range, WIRE_CONTROL_FD + 1, ~0U, 0) < 0)
                return -errno;
        prctl(PR_SET_NAME, "drover-copy");
        return 0;
}

int start_helper(const struct spawner *s, void (*fn)(void *user, int fd), void *user, int fd, pid_t *ret_pid) {
        pid_t parent = getpid();
        pid_t pid = _Fork();
        if (pid < 0)
                return -errno;
        if (pid > 0) {
                *ret_pid = pid;
                return 0;
        }
        int r = helper_prepare(s, fd, parent);
        if (r == 0)
                fn(user, WIRE_CONTROL_FD);
        _exit(r < 0 ? -r : EXIT_SUCCESS);
}

int start_fork(const struct generation *g, int control_fd, pid_t *ret_pid) {
        pid_t parent = getpid();
        pid_t pid = _Fork(); /* no atfork handlers: one thread, no lock can be held */
        if (pid < 0)
                return -errno;
        if (pid > 0) {
                *ret_pid = pid;
                return 0;
        }
        host_main(&(struct host_config){
                .role = HOST_WORKER,
                .parent = parent,
                .control_fd = control_fd,
                .plugin_fd = g->plugin_fd,
                .name = g->pool,
                .environment = g->envp,
                .limits = g->limits,
        });
}
