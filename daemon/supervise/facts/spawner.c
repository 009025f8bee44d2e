/* Owns drover-spawn as seen from the broker.
 *
 * Started by us (no systemd) it is a child with a socket at descriptor 3; its pidfd tells of its death, after which all
 * its workers die by PDEATHSIG and a new one is started, with a growing pause if it dies young. systemd's is only a
 * socket on which it listens: when that connection ends the next one is asked for in the same way, and systemd starts a
 * spawner for it. One that was never there, at the start, is the caller's to tell: then nothing is lost with us.
 *
 * Of our own, whose broker may be killed and started anew at once, it must be known when it is gone: it kills and reaps
 * all that it started before it exits. So it inherits a lock as its standard input (which it never reads) and keeps it
 * until then. systemd's answers a new broker only after that.
 *
 * Nobody waits for it without an end: it says hello within SPAWNER_HELLO_NS of its start, and when something is overdue
 * it is asked whether it is there (SPAWN_PING). One that does not answer hangs, in the exec of a drover-worker whose
 * disk does not answer perhaps: it is killed, and its workers with it; systemd's by systemd, whose watchdog it does not
 * feed.
 *
 * Requests are fixed-size packets; when the socket is full they wait in order. An event of the wrong
 * size or version is the spawner's fault: the connection ends. What events mean is not decided here. */
#include "daemon/supervise/facts/spawner.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/log/log.h"
#include "ipc/memory/event.h"
#include "ipc/memory/packet.h"

enum {
        SPAWNER_MAX_BACKLOG = 4096,
        SPAWNER_EVENTS_A_WAKE = 64,
        SPAWNER_LOOK_MS = 10, /* whether one that cannot be watched is dead; so many times at most */
        SPAWNER_MAX_LOOKS = 100,
};
#define SPAWNER_RESTART_NS UINT64_C(50000000)
#define SPAWNER_RESTART_MAX_NS UINT64_C(5000000000)
#define SPAWNER_MEET_NS UINT64_C(500000000) /* between two looks for systemd's socket */
#define SPAWNER_YOUNG_NS UINT64_C(2000000000)
#define SPAWNER_HELLO_NS UINT64_C(15000000000) /* systemd's ends what an earlier broker left first */
#define SPAWNER_PONG_NS UINT64_C(10000000000)
#define SPAWNER_END_NS UINT64_C(6000000000) /* it kills and reaps all that it started, or gives up, in less */

struct spawner {
        struct loop *loop;
        char *libexec_dir, *plugin_dir, *socket_path; /* socket_path: systemd's */
        struct spawner_hooks hooks;
        bool is_ours, is_up, has_lock;
        bool was_up;       /* once */
        int connect_error; /* the last one that was told, 0 = none */
        int fd, pidfd, lock_fd;
        pid_t pid;
        uint64_t started_ns, pause_ns;
        struct loop_poll socket_poll, pid_poll;
        struct loop_timer restart_timer, answer_timer; /* of HELLO, then of PONG */
        struct spawn_request *backlog;
        size_t n_backlog;
};

static void spawner_on_timer(struct loop_timer *t);

static void spawner_disconnect(struct spawner *s) {
        loop_poll_stop(&s->socket_poll);
        loop_timer_stop(&s->answer_timer);
        if (s->fd >= 0) {
                shutdown(s->fd, SHUT_RDWR); /* the ring's poll holds the socket until its cancellation was submitted */
                close(s->fd);
        }
        s->fd = -1;
        free(s->backlog);
        s->backlog = NULL;
        s->n_backlog = 0;
        bool was_up = s->is_up;
        s->is_up = false;
        if (was_up)
                s->hooks.on_lost(s->hooks.user);
}

/* The next one, with a pause that grows while they die young. */
static void spawner_start_later(struct spawner *s) {
        uint64_t now = event_now_ns();
        if (now - s->started_ns > SPAWNER_YOUNG_NS)
                s->pause_ns = SPAWNER_RESTART_NS;
        loop_timer_set(s->loop, &s->restart_timer, now + s->pause_ns, spawner_on_timer, s);
        s->pause_ns = s->pause_ns * 2 < SPAWNER_RESTART_MAX_NS ? s->pause_ns * 2 : SPAWNER_RESTART_MAX_NS;
}

static void spawner_reap(struct spawner *s) {
        siginfo_t si = {0};
        loop_poll_stop(&s->pid_poll);
        if (waitid(P_PIDFD, s->pidfd, &si, WEXITED) == 0)
                log_warning("the spawner (pid %d) died: %s %d", (int)s->pid,
                            si.si_code == CLD_EXITED ? "exit" : "signal", si.si_status);
        close(s->pidfd);
        s->pidfd = -1;
        s->pid = 0;
        spawner_disconnect(s);
        spawner_start_later(s);
}

static void spawner_on_pid(struct loop_poll *p, uint32_t revents) { spawner_reap(p->user); }

static void spawner_flush(struct spawner *s) {
        size_t n = 0;
        while (n < s->n_backlog && packet_send(s->fd, &s->backlog[n], sizeof(s->backlog[n]), NULL, 0) == 0)
                n++;
        s->n_backlog -= n;
        memmove(s->backlog, s->backlog + n, s->n_backlog * sizeof(*s->backlog));
        loop_poll_change(&s->socket_poll, POLLIN | (s->n_backlog ? POLLOUT : 0));
}

/* Our own spawner is killed by its closed socket and reaped through its pidfd; systemd's has a next one, if there ever
 * was one. */
static void spawner_drop(struct spawner *s, const char *why) {
        log_error("spawner: %s", why);
        spawner_disconnect(s);
        if (s->is_ours && s->pidfd >= 0)
                syscall(SYS_pidfd_send_signal, s->pidfd, SIGKILL, NULL, 0);
        else if (!s->is_ours && s->socket_path && s->was_up)
                spawner_start_later(s);
        else if (!s->is_ours)
                s->hooks.on_unreachable(s->hooks.user, why);
}

static void spawner_on_answer_timer(struct loop_timer *t) {
        struct spawner *s = t->user;
        spawner_drop(s, s->is_up ? "it does not answer: it hangs, or the disk with drover-worker does"
                                 : "it has not said hello: it hangs, or the disk with Drover's programs does");
}

static void spawner_expect(struct spawner *s, uint64_t patience_ns) {
        loop_timer_set(s->loop, &s->answer_timer, event_now_ns() + patience_ns, spawner_on_answer_timer, s);
}

void spawner_check(struct spawner *s) {
        const struct spawn_request ping = {.type = SPAWN_PING, .version = WIRE_VERSION};
        if (s->is_up && !s->answer_timer.heap_index && spawner_send(s, &ping) == 0)
                spawner_expect(s, SPAWNER_PONG_NS);
}

/* One event. -EAGAIN when there is none; another error ended the connection. */
static int spawner_receive(struct spawner *s) {
        struct spawn_event event;
        int fds[PACKET_MAX_FDS];
        unsigned n_fds = PACKET_MAX_FDS;
        size_t bytes;
        int r = packet_receive(s->fd, &event, sizeof(event), &bytes, fds, &n_fds);
        if (r == -EAGAIN)
                return r;
        if (r < 0 || bytes != sizeof(event) || event.version != WIRE_VERSION) {
                if (r >= 0)
                        for (unsigned i = 0; i < n_fds; i++)
                                close(fds[i]);
                if (r >= 0 && bytes == 0)
                        spawner_drop(s, "the connection ended");
                else
                        spawner_drop(s, r < 0 ? strerror(-r) : "an event of another version (mixed installation?)");
                return -EPIPE;
        }
        event.text[sizeof(event.text) - 1] = 0;
        if (event.type == SPAWN_HELLO || event.type == SPAWN_PONG)
                loop_timer_stop(&s->answer_timer);
        if (event.type == SPAWN_PONG)
                return 0;
        if (event.type == SPAWN_HELLO) {
                s->is_up = s->was_up = true;
                s->connect_error = 0;
                s->pid = event.pid;
                s->hooks.on_up(s->hooks.user);
                return 0;
        }
        s->hooks.on_event(s->hooks.user, &event, fds, n_fds);
        return 0;
}

static void spawner_on_socket(struct loop_poll *p, uint32_t revents) {
        struct spawner *s = p->user;
        for (unsigned i = 0; i < SPAWNER_EVENTS_A_WAKE; i++) {
                int r = spawner_receive(s);
                if (r == -EPIPE)
                        return;
                if (r == -EAGAIN)
                        break;
        }
        if (s->n_backlog)
                spawner_flush(s);
}

static int spawner_exec(struct spawner *s, int child_fd) {
        char program[512], plugin_dir[512], worker[512];
        snprintf(program, sizeof(program), "%s/drover-spawn", s->libexec_dir);
        snprintf(plugin_dir, sizeof(plugin_dir), "--plugin-dir=%s", s->plugin_dir);
        snprintf(worker, sizeof(worker), "--worker=%s/drover-worker", s->libexec_dir);
        char *argv[] = {(char[]){"drover-spawn"}, (char[]){"--fd=3"}, plugin_dir, worker, NULL};
        posix_spawn_file_actions_t actions;
        posix_spawnattr_t attributes;
        sigset_t none, all;
        sigemptyset(&none);
        sigfillset(&all);
        posix_spawn_file_actions_init(&actions);
        posix_spawnattr_init(&attributes);
        posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
        posix_spawnattr_setsigmask(&attributes, &none);
        posix_spawnattr_setsigdefault(&attributes, &all);
        posix_spawn_file_actions_adddup2(&actions, child_fd, 3);
        if (s->lock_fd >= 0)
                posix_spawn_file_actions_adddup2(&actions, s->lock_fd, STDIN_FILENO);
        int r = -posix_spawn(&s->pid, program, &actions, &attributes, argv, environ);
        posix_spawn_file_actions_destroy(&actions);
        posix_spawnattr_destroy(&attributes);
        if (r < 0)
                log_error("cannot start %s: %s", program, strerror(-r));
        return r;
}

/* Nobody would hear of its end: no descriptor is left for that, or the kernel refuses one. */
static int spawner_give_up(struct spawner *s, int error) {
        log_error("the spawner (pid %d) cannot be watched: pidfd_open: %s", (int)s->pid, strerror(-error));
        kill(s->pid, SIGKILL);
        unsigned n_looks = 0;
        while (n_looks < SPAWNER_MAX_LOOKS && waitpid(s->pid, NULL, WNOHANG) == 0) {
                poll(NULL, 0, SPAWNER_LOOK_MS);
                n_looks++;
        }
        if (n_looks == SPAWNER_MAX_LOOKS)
                log_error("the spawner (pid %d) does not die of SIGKILL: it hangs in the kernel, and is left behind",
                          (int)s->pid);
        close(s->fd);
        s->fd = -1;
        s->pid = 0;
        return error;
}

static int spawner_start(struct spawner *s) {
        int fds[2];
        spawner_is_alone(s); /* from now on, if nobody else holds the lock any more */
        int r = packet_pair(fds);
        if (r < 0)
                return r;
        if (fds[1] == 3) { /* dup2 onto itself would keep CLOEXEC */
                int other = fcntl(fds[1], F_DUPFD_CLOEXEC, 10);
                close(fds[1]);
                fds[1] = other;
        }
        r = spawner_exec(s, fds[1]);
        close(fds[1]);
        if (r < 0) {
                close(fds[0]);
                return r;
        }
        s->fd = fds[0];
        s->started_ns = event_now_ns();
        s->pidfd = (int)syscall(SYS_pidfd_open, s->pid, 0);
        if (s->pidfd < 0)
                return spawner_give_up(s, -errno);
        spawner_expect(s, SPAWNER_HELLO_NS);
        r = loop_poll_start(s->loop, &s->pid_poll, s->pidfd, POLLIN, spawner_on_pid, s);
        return r < 0 ? r : loop_poll_start(s->loop, &s->socket_poll, s->fd, POLLIN, spawner_on_socket, s);
}

/* ---- systemd's ---- */

static int spawner_set_socket(int fd, const struct sockaddr_un *address, unsigned patience_s) {
        const struct timeval patience = {.tv_sec = patience_s}; /* who does not accept has no room some day */
        if (patience_s > 0 && setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0)
                return -errno;
        if (patience_s == 0 && fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
                return -errno;
        if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0)
                return -errno;
        return fcntl(fd, F_SETFL, O_NONBLOCK) < 0 ? -errno : 0; /* only now: connecting waits for room in the backlog */
}

int spawner_connect(const char *path, unsigned patience_s, int *ret_fd) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        if (strlen(path) >= sizeof(address.sun_path))
                return -ENAMETOOLONG;
        strcpy(address.sun_path, path);
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;
        int r = spawner_set_socket(fd, &address, patience_s);
        if (r < 0)
                close(fd);
        else
                *ret_fd = fd;
        return r;
}

const char *spawner_connect_advice(int error) {
        return error == -EAGAIN ? "it takes no connection (systemctl restart drover-spawn.service)"
               : error == -ENOENT || error == -ECONNREFUSED
                       ? "nobody listens there (systemctl start drover-spawn.socket; systemctl status "
                         "drover-spawn.service)"
                       : strerror(-error);
}

static int spawner_meet(struct spawner *s) {
        int r = spawner_connect(s->socket_path, 0, &s->fd);
        if (r < 0) {
                if (r != s->connect_error)
                        log_error("no spawner at %s: %s: tried again until there is one", s->socket_path,
                                  spawner_connect_advice(r));
                s->connect_error = r;
                return r;
        }
        s->started_ns = event_now_ns();
        r = loop_poll_start(s->loop, &s->socket_poll, s->fd, POLLIN, spawner_on_socket, s);
        if (r < 0)
                spawner_disconnect(s);
        else
                spawner_expect(s, SPAWNER_HELLO_NS);
        return r;
}

static void spawner_on_timer(struct loop_timer *t) {
        struct spawner *s = t->user;
        if (s->is_ours ? spawner_start(s) >= 0 : spawner_meet(s) >= 0)
                return;
        loop_timer_set(s->loop, &s->restart_timer,
                       event_now_ns() + (s->is_ours ? SPAWNER_RESTART_MAX_NS : SPAWNER_MEET_NS), spawner_on_timer, s);
}

/* As poll() of one, until then. */
static int spawner_poll(struct pollfd *p, uint64_t patience_ns) {
        uint64_t deadline_ns = event_now_ns() + patience_ns, now_ns;
        int r = 0;
        while (r <= 0 && (now_ns = event_now_ns()) < deadline_ns)
                if ((r = poll(p, 1, (int)((deadline_ns - now_ns) / 1000000 + 1))) < 0 && errno != EINTR)
                        break;
        return r > 0;
}

int spawner_new(struct spawner **ret, const struct spawner_config *c) {
        struct spawner *s = calloc(1, sizeof(*s));
        if (!s)
                return -ENOMEM;
        s->loop = c->loop;
        s->hooks = c->hooks;
        s->fd = c->fd;
        s->lock_fd = c->lock_fd;
        s->pidfd = -1;
        s->is_ours = c->fd < 0;
        s->pause_ns = SPAWNER_RESTART_NS;
        s->libexec_dir = strdup(c->libexec_dir);
        s->plugin_dir = strdup(c->plugin_dir);
        s->socket_path = c->socket_path ? strdup(c->socket_path) : NULL;
        s->started_ns = event_now_ns();
        int r = !s->libexec_dir || !s->plugin_dir || (c->socket_path && !s->socket_path) ? -ENOMEM
                : s->is_ours                                                             ? spawner_start(s)
                             : loop_poll_start(s->loop, &s->socket_poll, s->fd, POLLIN, spawner_on_socket, s);
        if (r < 0) {
                spawner_free(s);
                return r;
        }
        if (!s->is_ours)
                spawner_expect(s, SPAWNER_HELLO_NS);
        *ret = s;
        return 0;
}

/* Ours kills its workers at end of file, then exits; nothing of it may outlive us that can die. */
static void spawner_wait(struct spawner *s) {
        siginfo_t si = {0};
        struct pollfd p = {.fd = s->pidfd, .events = POLLIN};
        if (spawner_poll(&p, SPAWNER_END_NS) == 0) {
                log_error("the spawner (pid %d) does not end by itself: killed", (int)s->pid);
                syscall(SYS_pidfd_send_signal, s->pidfd, SIGKILL, NULL, 0);
                spawner_poll(&p, SPAWNER_END_NS / 8);
        }
        if (waitid(P_PIDFD, s->pidfd, &si, WEXITED | WNOHANG) == 0 && si.si_pid == 0)
                log_error("the spawner (pid %d) does not die of SIGKILL: it hangs in the kernel and is left behind",
                          (int)s->pid);
        close(s->pidfd);
}

struct spawner *spawner_free(struct spawner *s) {
        if (!s)
                return NULL;
        s->is_up = false; /* nobody wants to hear on_lost any more */
        loop_timer_stop(&s->restart_timer);
        loop_poll_stop(&s->pid_poll);
        spawner_disconnect(s);
        if (s->pidfd >= 0)
                spawner_wait(s);
        free(s->libexec_dir);
        free(s->plugin_dir);
        free(s->socket_path);
        free(s);
        return NULL;
}

int spawner_send(struct spawner *s, const struct spawn_request *request) {
        if (!s->is_up)
                return -ENOTCONN;
        if (s->n_backlog == 0) {
                int r = packet_send(s->fd, request, sizeof(*request), NULL, 0);
                if (r != -EAGAIN && r != -ENOBUFS)
                        return r < 0 ? -ENOTCONN : 0; /* a broken socket is told through its end of file */
        }
        if (s->n_backlog == SPAWNER_MAX_BACKLOG)
                return -ENOTCONN;
        struct spawn_request *backlog = reallocarray(s->backlog, s->n_backlog + 1, sizeof(*backlog));
        if (!backlog)
                return -ENOMEM;
        s->backlog = backlog;
        s->backlog[s->n_backlog++] = *request;
        loop_poll_change(&s->socket_poll, POLLIN | POLLOUT);
        return 0;
}

bool spawner_is_alone(struct spawner *s) {
        if (s->is_ours && !s->has_lock)
                s->has_lock = s->lock_fd >= 0 && flock(s->lock_fd, LOCK_EX | LOCK_NB) == 0;
        return !s->is_ours || s->has_lock;
}

pid_t spawner_pid(const struct spawner *s) { return s->is_up ? s->pid : 0; }
