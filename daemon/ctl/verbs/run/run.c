/* run: COMMAND with a private bus, a droverd --user and pools of its own, and nothing left afterwards.
 *
 * Two processes share the job. The guard is the droverctl that was called; the keeper, its child, starts dbus-daemon,
 * droverd and COMMAND, waits for COMMAND and takes everything down again. Each watches the other: a dead guard is a
 * SIGTERM to the keeper, a dead keeper is a SIGKILL to all it started (PDEATHSIG) and leaves the directory to the
 * guard. So a SIGKILL of either leaves no process, socket or file. The keeper is a subreaper: whatever COMMAND or
 * droverd leave behind becomes its child and is killed at the end.
 *
 * Signals are blocked and taken by sigtimedwait. From the terminal SIGINT reaches COMMAND itself (one process group)
 * and means nothing to the two; bus and daemon have sessions of their own and never see it. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/remote.h"
#include "daemon/ctl/verbs/run/run-tree.h"

enum { START_MS = 20000, COMMAND_GRACE_MS = 5000, DAEMON_GRACE_MS = 40000, LEFTOVER_GRACE_MS = 5000, TICK_MS = 5 };

struct run {
        const struct ctl *c;
        struct run_tree tree;
        char address[128];
        sigset_t blocked, before;
        pid_t bus, daemon, command; /* 0 = not running */
        int command_status;
        bool is_terminated; /* SIGTERM, SIGHUP, or the guard is gone */
};

static uint64_t now_ms(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* The next signal, or 0 when `ms` have passed. *ret_code: its si_code. */
static int next_signal(const struct run *run, unsigned ms, int *ret_code) {
        struct timespec timeout = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
        siginfo_t info = {0};
        int signal = sigtimedwait(&run->blocked, &info, &timeout);

        *ret_code = info.si_code;
        return signal < 0 ? 0 : signal;
}

/* ---- the keeper's children ---- */

struct child {
        const char *const *argv;
        const char *directory_of_path; /* put before PATH; NULL = as it is */
        bool is_daemon;                /* own session, /dev/null as input */
        const char *log;               /* file for its standard error; NULL = ours */
        int keep_fd;                   /* -1 or the one descriptor it inherits beside 0, 1, 2 */
};

static void become(const struct run *run, const struct child *child) {
        char path[RUN_PATH + 32];
        const char *old = getenv("PATH");

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (child->is_daemon) {
                int null = open("/dev/null", O_RDONLY);

                setsid();
                dup2(null, STDIN_FILENO);
                close(null);
        }
        if (child->log) {
                int log = open(child->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

                dup2(log, STDERR_FILENO);
        }
        if (child->keep_fd >= 0)
                fcntl(child->keep_fd, F_SETFD, 0);
        setenv("DBUS_SESSION_BUS_ADDRESS", run->address, 1);
        unsetenv("DBUS_STARTER_ADDRESS");
        unsetenv("DBUS_STARTER_BUS_TYPE");
        unsetenv("NOTIFY_SOCKET");
        if (child->directory_of_path) {
                snprintf(path, sizeof path, "%s/bin:%s", child->directory_of_path, old ? old : "/usr/bin:/bin");
                setenv("PATH", path, 1);
        }
        sigprocmask(SIG_SETMASK, &run->before, NULL);
        execvp(child->argv[0], (char *const *)child->argv);
        ctl_error("run: %s: %s", child->argv[0], strerror(errno));
        _exit(errno == ENOENT ? 127 : 126);
}

static int start(struct run *run, const struct child *child, pid_t *ret) {
        pid_t keeper = getpid(), pid = fork();

        if (pid < 0) {
                ctl_error("run: cannot fork: %s", strerror(errno));
                return CTL_RUN_FAILED;
        }
        if (pid == 0) {
                if (getppid() != keeper)
                        _exit(CTL_RUN_FAILED);
                become(run, child);
        }
        *ret = pid;
        return CTL_OK;
}

/* Takes the status of every child that ended. */
static void reap(struct run *run) {
        int status;
        pid_t pid;

        while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
                if (pid == run->command) {
                        run->command_status = status;
                        run->command = 0;
                } else if (pid == run->daemon) {
                        run->daemon = 0;
                        if (run->command > 0)
                                ctl_error("run: droverd ended while COMMAND was running");
                } else if (pid == run->bus) {
                        run->bus = 0;
                }
        }
}

/* Waits at most `ms` for one turn of events: signals are noted, children reaped. */
static void turn(struct run *run, unsigned ms) {
        int unused, signal = next_signal(run, ms, &unused);

        if (signal == SIGTERM || signal == SIGHUP || (signal == SIGINT && run->command == 0))
                run->is_terminated = true;
        reap(run);
}

static void stop(struct run *run, const pid_t *pid, int signal, unsigned grace_ms) {
        uint64_t until = now_ms() + grace_ms;

        if (*pid > 0)
                kill(*pid, signal);
        while (*pid > 0 && now_ms() < until)
                turn(run, 100);
        if (*pid > 0)
                kill(*pid, SIGKILL);
        while (*pid > 0)
                turn(run, 100);
}

/* Kills what is still a child of ours: left behind by COMMAND, or by a droverd that was killed. */
static void kill_leftovers(struct run *run) {
        uint64_t until = now_ms() + LEFTOVER_GRACE_MS;

        while (now_ms() < until) {
                FILE *f = fopen("/proc/thread-self/children", "re");
                bool is_any = false;
                int pid;

                while (f && fscanf(f, "%d", &pid) == 1) {
                        kill(pid, SIGKILL);
                        is_any = true;
                }
                if (f)
                        fclose(f);
                if (!is_any)
                        return;
                turn(run, TICK_MS);
        }
}

/* ---- start ---- */

static int start_bus(struct run *run) {
        char config[128], log[128], print[32], line[256];
        int pipe_fds[2];
        ssize_t n;

        if (pipe2(pipe_fds, O_CLOEXEC) < 0)
                return CTL_RUN_FAILED;
        snprintf(config, sizeof config, "--config-file=%s/bus.conf", run->tree.path);
        snprintf(log, sizeof log, "%s/bus.log", run->tree.path); /* it complains of limits that nobody needs here */
        snprintf(print, sizeof print, "--print-address=%d", pipe_fds[1]);
        const char *const argv[] = {"dbus-daemon", "--nofork", "--nopidfile", "--nosyslog", config, print, NULL};
        const struct child child = {.argv = argv, .is_daemon = true, .log = log, .keep_fd = pipe_fds[1]};
        int code = start(run, &child, &run->bus);

        close(pipe_fds[1]);
        n = code == CTL_OK ? read(pipe_fds[0], line, sizeof line) : 0; /* the line, or end of file when it failed */
        close(pipe_fds[0]);
        if (n > 0)
                return CTL_OK;
        ctl_error("run: dbus-daemon did not start (Debian package dbus-daemon)");
        return CTL_RUN_FAILED;
}

static int start_daemon(struct run *run) {
        const char *t = run->tree.path;
        char program[96], address[160], dirs[5][96];
        static const char *const names[][2] = {{"config", "config"},
                                               {"plugin", "plugins"},
                                               {"runtime", "runtime"},
                                               {"state", "state"},
                                               {"libexec", "libexec"}};

        snprintf(program, sizeof program, "%s/bin/droverd", t);
        snprintf(address, sizeof address, "--address=%s", run->address);
        for (size_t i = 0; i < 5; i++)
                snprintf(dirs[i], sizeof dirs[i], "--%s-dir=%s/%s", names[i][0], t, names[i][1]);
        const char *const argv[] = {program, "--user", address,
                                    dirs[0], dirs[1],  dirs[2],
                                    dirs[3], dirs[4],  run->c->quiet ? "--log-level=error" : "--log-level=warning",
                                    NULL};
        const struct child child = {.argv = argv, .is_daemon = true, .keep_fd = -1};

        return start(run, &child, &run->daemon);
}

/* One look at a pool: CTL_OK it takes jobs, -1 not yet, else it never will (said). */
static int look_at_pool(struct remote *remote, const char *pool) {
        const struct remote_call get = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "GetPool"};
        ctl_cleanup(json_putp) struct json_object *path = NULL, *properties = NULL;
        int r = remote_call(remote, &get, &path, "s", pool);

        if (r >= 0)
                r = remote_get_all(remote, json_string(path), "Pool", &properties);
        if (r < 0)
                return remote_report(remote, r);
        const char *state = json_text(properties, "State", "");

        if (strcmp(state, "starting") == 0)
                return -1;
        if (strcmp(state, "running") == 0)
                return CTL_OK;
        ctl_error("run: pool %s is %s: %s", pool, state, json_text(properties, "Problem", "no reason given"));
        return CTL_RUN_FAILED;
}

/* Waits until droverd has its name and every pool a worker. */
static int await_pools(struct run *run) {
        uint64_t until = now_ms() + START_MS;
        struct remote *remote = NULL;
        unsigned n = 0;
        int code = remote_open(&remote, CTL_SCOPE_ADDRESS, run->address) < 0 ? CTL_RUN_FAILED : -1;

        while (code == -1 && n < run->tree.n_pools) {
                turn(run, TICK_MS);
                if (run->daemon == 0 || run->is_terminated)
                        code = CTL_RUN_FAILED;
                else if (now_ms() > until)
                        ctl_error("run: pool %s does not get ready", run->tree.pools[n]), code = CTL_RUN_FAILED;
                else if (remote_has_daemon(remote) == 1 && (code = look_at_pool(remote, run->tree.pools[n])) == CTL_OK)
                        code = ++n < run->tree.n_pools ? -1 : CTL_OK;
        }
        remote_free(remote);
        return code == CTL_OK ? CTL_OK : CTL_RUN_FAILED;
}

/* ---- the two processes ---- */

static int exit_code(int status) { return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status); }

static int run_command(struct run *run) {
        const struct child child = {
                .argv = (const char *const *)run->c->operands, .directory_of_path = run->tree.path, .keep_fd = -1};
        uint64_t kill_at = UINT64_MAX;
        int code = start(run, &child, &run->command);

        while (code == CTL_OK && run->command > 0) {
                turn(run, kill_at == UINT64_MAX ? 60000 : 100);
                if (run->is_terminated && kill_at == UINT64_MAX && run->command > 0) {
                        kill(run->command, SIGTERM);
                        kill_at = now_ms() + COMMAND_GRACE_MS;
                }
                if (now_ms() >= kill_at && run->command > 0)
                        kill(run->command, SIGKILL);
        }
        return code == CTL_OK ? exit_code(run->command_status) : code;
}

static int keep(struct run *run, pid_t guard) {
        int code;

        prctl(PR_SET_PDEATHSIG, SIGTERM);
        prctl(PR_SET_CHILD_SUBREAPER, 1);
        if (getppid() != guard)
                run->is_terminated = true;
        code = start_bus(run);
        if (code == CTL_OK)
                code = start_daemon(run);
        if (code == CTL_OK)
                code = await_pools(run);
        if (code == CTL_OK)
                code = run_command(run);
        stop(run, &run->daemon, SIGTERM, run->is_terminated ? COMMAND_GRACE_MS : DAEMON_GRACE_MS);
        stop(run, &run->bus, SIGTERM, COMMAND_GRACE_MS);
        kill_leftovers(run);
        run_tree_remove(&run->tree);
        return code;
}

/* Hands signals on to the keeper, and takes over if it is killed. */
static int guard(struct run *run, pid_t keeper) {
        int status;

        while (waitpid(keeper, &status, WNOHANG) != keeper) {
                int code, signal = next_signal(run, 60000, &code);

                /* A SIGINT of the terminal went to COMMAND too; one sent by kill(1) came here alone. */
                if (signal == SIGTERM || signal == SIGHUP || (signal == SIGINT && code == SI_USER))
                        kill(keeper, signal == SIGHUP ? SIGHUP : SIGTERM);
        }
        if (WIFSIGNALED(status)) {
                kill_leftovers(run);
                run_tree_remove(&run->tree);
        }
        return exit_code(status);
}

int verb_run(struct ctl *c) {
        ctl_cleanup(ctl_freep) struct run *run = calloc(1, sizeof *run);
        pid_t self = getpid(), keeper;
        int code;

        if (!run)
                return CTL_RUN_FAILED;
        if (c->n_plugins == 0) {
                ctl_error("run needs --plugin=FILE");
                return CTL_USAGE;
        }
        run->c = c;
        sigemptyset(&run->blocked);
        for (size_t i = 0; i < 4; i++)
                sigaddset(&run->blocked, (const int[]){SIGCHLD, SIGTERM, SIGHUP, SIGINT}[i]);
        sigprocmask(SIG_BLOCK, &run->blocked, &run->before);
        prctl(PR_SET_CHILD_SUBREAPER, 1);
        code = run_tree_make(&run->tree, c);
        if (code != CTL_OK)
                return code;
        snprintf(run->address, sizeof run->address, "unix:path=%s/bus", run->tree.path);
        keeper = fork();
        if (keeper < 0) {
                ctl_error("run: cannot fork: %s", strerror(errno));
                run_tree_remove(&run->tree);
                return CTL_RUN_FAILED;
        }
        if (keeper == 0)
                _exit(keep(run, self));
        return guard(run, keeper);
}
