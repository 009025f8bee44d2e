/* Stands in for drover-worker in the tests of the spawner: speaks the wire, loads nothing, obeys text commands on its
 * control socket. The template's behaviour is chosen by FAKE_TEMPLATE= in the pool's environment. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ipc/packet.h"
#include "ipc/wire.h"

/* A crash is the same signal in a build with sanitizers: they look this up by name. */
const char *__asan_default_options(void);

__attribute__((visibility("default"))) const char *__asan_default_options(void) {
        return "handle_segv=0:handle_sigbus=0:handle_abort=0:handle_sigill=0:handle_sigfpe=0:detect_leaks=0";
}

static int parent;
static char template_pid[32];

static void become(void) {
        setsid();
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
                _exit(99);
}

static void reply(const char *text) { packet_send(WIRE_CONTROL_FD, text, strlen(text) + 1, NULL, 0); }

static void reply_pid(pid_t pid) {
        char text[32];
        snprintf(text, sizeof text, "%d", pid);
        reply(text);
}

/* "fds=0,1,2,3,4 sid=own mask=0 plugin=CONTENT template=PID env=A=1|B=2" */
static void describe(void) {
        char text[2048], content[64] = "";
        int n = snprintf(text, sizeof text, "fds=");
        DIR *d = opendir("/proc/self/fd");
        for (int fd = 0; fd < 1024; fd++)
                if (fd != dirfd(d) && fcntl(fd, F_GETFD) >= 0)
                        n += snprintf(text + n, sizeof text - (size_t)n, "%d,", fd);
        closedir(d);
        ssize_t got = pread(WIRE_PLUGIN_FD, content, sizeof content - 1, 0);
        content[got > 0 ? got : 0] = 0;
        sigset_t mask;
        sigprocmask(SIG_BLOCK, NULL, &mask);
        bool is_masked = false;
        for (int sig = 1; sig < 32; sig++)
                is_masked |= sigismember(&mask, sig) == 1;
        struct sigaction pipe_action;
        sigaction(SIGPIPE, NULL, &pipe_action);
        n += snprintf(text + n, sizeof text - (size_t)n,
                      " sid=%s signals=%s plugin=%s template=%s ppid=%d env=", getsid(0) == getpid() ? "own" : "other",
                      is_masked || pipe_action.sa_handler != SIG_DFL ? "dirty" : "default", content, template_pid,
                      getppid());
        for (char **e = environ; *e; e++)
                n += snprintf(text + n, sizeof text - (size_t)n, "%s|", *e);
        reply(text);
}

/* A child in our own process group. */
static void fork_child(void) {
        pid_t pid = fork();
        if (pid == 0)
                for (;;)
                        pause();
        reply_pid(pid);
}

/* Double fork and setsid; with `with_child`, the escapee has a child that escaped once more. */
static void escape(bool with_child) {
        pid_t middle = fork();
        if (middle == 0) {
                if (fork() == 0) {
                        setsid();
                        reply_pid(getpid());
                        if (with_child && fork() == 0) {
                                setsid();
                                reply_pid(getpid());
                        }
                        for (;;)
                                pause();
                }
                _exit(0);
        }
}

static void obey(char *command) {
        int number = atoi(strchr(command, ' ') ? strchr(command, ' ') + 1 : "0");
        if (strncmp(command, "exit ", 5) == 0)
                _exit(number);
        if (strncmp(command, "signal ", 7) == 0) {
                signal(number, SIG_DFL);
                kill(getpid(), number);
        }
        if (strncmp(command, "core ", 5) == 0) {
                setrlimit(RLIMIT_CORE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY});
                abort();
        }
        if (strcmp(command, "describe") == 0)
                describe();
        if (strcmp(command, "fork") == 0)
                fork_child();
        if (strcmp(command, "escape") == 0)
                escape(false);
        if (strcmp(command, "tree") == 0)
                escape(true);
}

static _Noreturn void work(void) {
        char command[128];
        size_t bytes;
        while (packet_await(WIRE_CONTROL_FD, command, sizeof command - 1, &bytes, NULL, NULL) == 0 && bytes > 0) {
                command[bytes] = 0;
                obey(command);
        }
        _exit(0);
}

/* ---- template ---- */

static void tell(struct template_event *m) {
        m->version = WIRE_VERSION;
        packet_send(WIRE_CONTROL_FD, m, sizeof *m, NULL, 0);
}

static void *idle(void *user) {
        prctl(PR_SET_NAME, "blas\x01pool");
        *(volatile int *)user = 1;
        for (;;)
                pause();
        return NULL;
}

static bool is(const char *behaviour, const char *word) { return behaviour && strcmp(behaviour, word) == 0; }

static void preload(const char *behaviour) {
        struct template_event failed = {
                .type = TEMPLATE_FAILED, .error = EINVAL, .is_permanent = 1, .text = "no metadata"};
        if (is(behaviour, "crash"))
                kill(getpid(), SIGSEGV);
        if (is(behaviour, "exit"))
                _exit(3);
        if (is(behaviour, "fail")) {
                tell(&failed);
                _exit(1);
        }
        if (is(behaviour, "syscall")) {
                failed = (struct template_event){
                        .type = TEMPLATE_FAILED, .reason = REASON_SYSCALL, .syscall = SYS_openat + 1};
                tell(&failed);
                kill(getpid(), SIGSYS);
        }
        if (is(behaviour, "short"))
                packet_send(WIRE_CONTROL_FD, "?", 1, NULL, 0);
        if (is(behaviour, "unasked"))
                tell(&(struct template_event){.type = TEMPLATE_FORKED, .pid = getpid()});
        if (is(behaviour, "hang"))
                for (;;)
                        pause();
        if (is(behaviour, "threads")) {
                static volatile int is_up;
                pthread_t t;
                pthread_create(&t, NULL, idle, (void *)&is_up);
                while (!is_up)
                        sched_yield();
        }
}

static _Noreturn void serve(const char *behaviour) {
        struct template_request q;
        size_t bytes;
        int fd;
        for (unsigned n = 1; n = 1, packet_await(WIRE_CONTROL_FD, &q, sizeof q, &bytes, &fd, &n) == 0 && bytes > 0;) {
                if (is(behaviour, "mute"))
                        continue;
                if (is(behaviour, "no-fork")) {
                        tell(&(struct template_event){.type = TEMPLATE_FORKED, .worker = q.worker, .error = ENOMEM});
                        close(fd);
                        continue;
                }
                pid_t pid = (pid_t)syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, NULL, NULL, 0);
                if (pid == 0) {
                        dup2(fd, WIRE_CONTROL_FD);
                        close(fd);
                        become();
                        if (is(behaviour, "brief"))
                                _exit(5);
                        work();
                }
                close(fd);
                if (is(behaviour, "die"))
                        _exit(0);
                struct template_event m = {.type = TEMPLATE_FORKED, .worker = q.worker, .pid = pid};
                if (is(behaviour, "liar"))
                        m.pid = getppid();
                if (is(behaviour, "stranger"))
                        m.worker += 1000;
                tell(&m);
        }
        _exit(0);
}

int main(int argc, char **argv) {
        bool is_template = false;
        for (int i = 1; i < argc; i++) {
                is_template |= strcmp(argv[i], "--role=template") == 0;
                if (strncmp(argv[i], "--parent=", 9) == 0)
                        parent = atoi(argv[i] + 9);
        }
        become();
        if (!is_template)
                work();
        const char *behaviour = getenv("FAKE_TEMPLATE");
        snprintf(template_pid, sizeof template_pid, "%d", getpid());
        tell(&(struct template_event){.type = TEMPLATE_CLOSED, .text = "fake"});
        preload(behaviour);
        tell(&(struct template_event){.type = TEMPLATE_READY});
        serve(behaviour);
}
