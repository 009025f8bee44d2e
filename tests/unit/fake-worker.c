/* Stands in for drover-worker in the tests of the spawner: speaks the wire, loads nothing, obeys text commands on its
 * control socket. The template's behaviour is chosen by FAKE_TEMPLATE= in the pool's environment. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ipc/memory/packet.h"
#include "ipc/wire.h"

/* A crash is the same signal in a build with sanitizers: they look this up by name. */
const char *__asan_default_options(void);

__attribute__((visibility("default"))) const char *__asan_default_options(void) {
        return "handle_segv=0:handle_sigbus=0:handle_abort=0:handle_sigill=0:handle_sigfpe=0:detect_leaks=0";
}

static int parent, kept_fd = -1; /* the template's own socket, which a worker is not to have */
static char template_pid[32];

static void become(void) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
                _exit(99);
        setpgid(0, 0); /* who was forked by a template is in a group of its own by now */
}

static void reply(const char *text) { packet_send(WIRE_CONTROL_FD, text, strlen(text) + 1, NULL, 0); }

static void reply_pid(pid_t pid) {
        char text[32];
        snprintf(text, sizeof text, "%d", pid);
        reply(text);
}

/* "fds=0,1,2,3,4 group=own mask=0 plugin=CONTENT template=PID env=A=1|B=2" */
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
        n += snprintf(
                text + n, sizeof text - (size_t)n,
                " group=%s signals=%s plugin=%s template=%s ppid=%d env=", getpgrp() == getpid() ? "own" : "other",
                is_masked || pipe_action.sa_handler != SIG_DFL ? "dirty" : "default", content, template_pid, getppid());
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

/* What it may do as its template: the errno of each. */
static void forbidden(pid_t other) {
        char text[64];
        int fork_error = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, NULL, NULL, 0) < 0 ? errno : 0;
        int death_error = prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 ? errno : 0;
        int kill_error = syscall(SYS_tgkill, other, other, SIGKILL) < 0 ? errno : 0;
        int own_error = syscall(SYS_tgkill, getpid(), getpid(), 0) < 0 ? errno : 0;
        snprintf(text, sizeof text, "%d %d %d %d", fork_error, death_error, kill_error, own_error);
        reply(text);
}

static void flood(void) {
        reply("flooding");
        for (;;)
                syscall(SYS_tgkill, getpid(), getpid(), 0);
}

static void flood_as_template(void) {
        reply("flooding");
        for (;;)
                packet_send(kept_fd, &(struct template_event){.type = TEMPLATE_LOADED, .version = WIRE_VERSION},
                            sizeof(struct template_event), NULL, 0);
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
        if (strncmp(command, "forbidden ", 10) == 0)
                forbidden(number);
        if (strcmp(command, "flood") == 0)
                flood();
        if (strcmp(command, "flood-as-template") == 0)
                flood_as_template();
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

/* As the host's: those calls that wait for the spawner. */
static void tell_closed(void) {
        struct sock_filter code[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 3, 0),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prctl, 4, 0),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_tgkill, 6, 0),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
                BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_PARENT, 3, 2),
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PR_SET_PDEATHSIG, 1, 0),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        };
        struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        int fd = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
        struct template_event closed = {.type = TEMPLATE_CLOSED, .version = WIRE_VERSION, .text = "fake"};
        packet_send(WIRE_CONTROL_FD, &closed, sizeof closed, &fd, 1);
        close(fd);
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
                        .type = TEMPLATE_FAILED, .reason = REASON_SYSCALL, .breach = {.syscall = SYS_openat + 1}};
                tell(&failed);
                kill(getpid(), SIGSYS);
        }
        if (is(behaviour, "short"))
                packet_send(WIRE_CONTROL_FD, "?", 1, NULL, 0);
        if (is(behaviour, "unasked"))
                tell(&(struct template_event){.type = TEMPLATE_FORKED, .error = ENOMEM});
        if (is(behaviour, "closed-twice"))
                tell(&(struct template_event){.type = TEMPLATE_CLOSED, .text = "once more"});
        if (is(behaviour, "listens-twice")) {
                struct template_event closed = {.type = TEMPLATE_CLOSED, .version = WIRE_VERSION, .text = "fake"};
                packet_send(WIRE_CONTROL_FD, &closed, sizeof closed, (const int[]){STDOUT_FILENO}, 1);
        }
        if (is(behaviour, "loaded-again"))
                for (;;)
                        tell(&(struct template_event){.type = TEMPLATE_LOADED});
        if (is(behaviour, "keep"))
                kept_fd = dup(WIRE_CONTROL_FD);
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

_Noreturn static void be_worker(const char *behaviour) {
        if (is(behaviour, "early"))
                _exit(5);
        if (is(behaviour, "silent") || is(behaviour, "liar") || is(behaviour, "die"))
                for (;;)
                        pause();
        become();
        if (is(behaviour, "brief"))
                _exit(5);
        work();
}

static _Noreturn void serve(const char *behaviour) {
        for (;;) {
                if (is(behaviour, "mute") || is(behaviour, "open"))
                        pause();
                bool fails = is(behaviour, "no-fork");
                pid_t pid =
                        (pid_t)syscall(SYS_clone, CLONE_PARENT | (fails ? CLONE_SIGHAND : SIGCHLD), 0, NULL, NULL, 0);
                if (pid == 0)
                        be_worker(behaviour);
                if (is(behaviour, "die"))
                        _exit(0);
                if (fails || is(behaviour, "liar"))
                        tell(&(struct template_event){.type = TEMPLATE_FORKED, .error = ENOMEM});
        }
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
        if (!is(behaviour, "open"))
                tell_closed();
        preload(behaviour);
        tell(&(struct template_event){.type = TEMPLATE_READY});
        if (is(behaviour, "stranger"))
                tell(&(struct template_event){.type = TEMPLATE_FORKED, .error = ENOMEM});
        serve(behaviour);
}
