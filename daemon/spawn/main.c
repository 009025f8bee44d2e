/* drover-spawn: starts, kills and reaps workers for one broker at a time.
 *
 * Owns the command line, the sockets it is given and the loop: one thread, one poll, without a timeout unless a plugin
 * file is being copied or a service manager watches, so an idle spawner of droverd's makes no system call. It waits for
 * nobody: what may take its time is a child's to do. With --fd it is its broker's child and ends with it: at end of
 * file everything below it is killed, then it exits. Without, systemd hands it a listening socket: then it outlives its
 * brokers, and the next one finds nothing of the last. No signal handlers (signalfd), no ring, no bus, no shared
 * memory: a forked worker inherits nothing that matters. It leaves the session of whoever started it: Ctrl-C is for the
 * broker to answer. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "daemon/log/log.h"
#include "daemon/log/notify.h"
#include "daemon/spawn/calls.h"
#include "daemon/spawn/copier.h"
#include "daemon/spawn/events.h"
#include "daemon/spawn/reap.h"
#include "daemon/spawn/requests.h"
#include "daemon/spawn/start.h"
#include "daemon/spawn/template.h"
#include "ipc/memory/event.h"
#include "ipc/memory/kernel.h"
#include "plugins/host/host.h"

static const char help[] =
        "drover-spawn [--fd=N] [OPTION...]\n"
        "Starts, kills and reaps Drover's workers. It is started by droverd or by drover-spawn.socket, not by hand.\n\n"
        "  --fd=N               serve the broker connected to descriptor N, then exit (else: systemd's listening "
        "socket)\n"
        "  --plugin-dir=DIR     where plugins are looked up (" DROVER_PLUGIN_DIR ")\n"
        "  --worker=PATH        the program drover-worker (" DROVER_WORKER ")\n"
        "  --broker-user=NAME   who may connect to the listening socket, beside root\n"
        "  --log-level=LEVEL    error, warning, notice, info (the default) or debug\n"
        "  --help, --version\n";

struct options {
        const char *plugin_dir, *worker, *broker_user;
        enum log_level log_level;
        int fd; /* -1 = from systemd */
};

/* 0, or 1 + the exit code. */
static int parse_options(int argc, char **argv, struct options *o) {
        static const struct option table[] = {
                {"fd", required_argument, NULL, 'f'},        {"plugin-dir", required_argument, NULL, 'p'},
                {"worker", required_argument, NULL, 'w'},    {"broker-user", required_argument, NULL, 'u'},
                {"log-level", required_argument, NULL, 'l'}, {"help", no_argument, NULL, 'h'},
                {"version", no_argument, NULL, 'v'},         {0},
        };
        for (int c; (c = getopt_long(argc, argv, "", table, NULL)) != -1;) {
                char *end = NULL;
                switch (c) {
                case 'f':
                        o->fd = (int)strtol(optarg, &end, 10);
                        if (end == optarg || *end || o->fd < 3) {
                                log_error("--fd=%s: not the number of a socket", optarg);
                                return 3;
                        }
                        break;
                case 'p':
                        o->plugin_dir = optarg;
                        break;
                case 'w':
                        o->worker = optarg;
                        break;
                case 'u':
                        o->broker_user = optarg;
                        break;
                case 'l':
                        if (log_level_from_string(optarg, &o->log_level) < 0) {
                                log_error("--log-level=%s: not one of error, warning, notice, info, debug", optarg);
                                return 3;
                        }
                        break;
                case 'h':
                        fputs(help, stdout);
                        return 1;
                case 'v':
                        puts("drover-spawn " DROVER_VERSION);
                        return 1;
                default:
                        return 3;
                }
        }
        if (optind < argc)
                log_error("%s: no arguments expected", argv[optind]);
        return optind < argc ? 3 : 0;
}

/* ---- what it needs before it serves ---- */

static int find_socket(struct options *o, bool *ret_is_listener) {
        *ret_is_listener = o->fd < 0;
        if (o->fd >= 0)
                return 0;
        int n = sd_listen_fds(1);
        if (n == 1 && sd_is_socket_unix(SD_LISTEN_FDS_START, SOCK_SEQPACKET, 1, NULL, 0) > 0) {
                o->fd = SD_LISTEN_FDS_START;
                return 0;
        }
        log_error("no socket: start it by drover-spawn.socket, or with --fd=N (%d descriptors came from systemd)",
                  n < 0 ? 0 : n);
        return -ENOTCONN;
}

/* Keeps 0, 1, 2 and the one socket, which leaves the low numbers. Whatever else was inherited is closed. */
static int keep_only(int *fd) {
        int kept = fcntl(*fd, F_DUPFD_CLOEXEC, 10);
        if (kept < 0) {
                log_error("descriptor %d: %s", *fd, strerror(errno));
                return -errno;
        }
        syscall(SYS_close_range, 3, kept - 1, 0);
        syscall(SYS_close_range, kept + 1, ~0U, 0);
        *fd = kept;
        return 0;
}

static int open_signals(void) {
        sigset_t mask;
        sigemptyset(&mask);
        sigaddset(&mask, SIGCHLD);
        sigaddset(&mask, SIGTERM);
        sigaddset(&mask, SIGINT);
        sigprocmask(SIG_SETMASK, &mask, NULL);
        int fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
        return fd < 0 ? -errno : fd;
}

/* The workers' fixed environment. Ours is wiped: a forked worker could read it in its memory. */
static void replace_environment(struct spawner *s) {
        static char lang[] = "LANG=C.UTF-8", path[] = "PATH=/usr/local/bin:/usr/bin:/bin";
        static char tz[128];
        const char *zone = getenv("TZ");
        s->environment[s->n_environment++] = lang;
        s->environment[s->n_environment++] = path;
        if (zone && (size_t)snprintf(tz, sizeof tz, "TZ=%s", zone) < sizeof tz)
                s->environment[s->n_environment++] = tz;
        for (char **e = environ; *e; e++)
                explicit_bzero(*e, strlen(*e));
        environ = s->environment;
}

static int find_user(const char *name, uid_t *ret) {
        struct passwd *p = name ? getpwnam(name) : NULL;
        if (name && !p) {
                log_error("--broker-user=%s: no such user", name);
                return -ENOENT;
        }
        *ret = p ? p->pw_uid : geteuid();
        return 0;
}

/* Each template costs two, each plugin one. */
static void raise_limit(void) {
        struct rlimit limit;
        int r = getrlimit(RLIMIT_NOFILE, &limit);
        if (r >= 0) {
                limit.rlim_cur = limit.rlim_max;
                r = setrlimit(RLIMIT_NOFILE, &limit);
        }
        if (r < 0)
                log_warning("the limit of open files cannot be raised: %s", strerror(errno));
}

static int prepare(struct spawner *s, const struct options *o) {
        raise_limit();
        int r = find_user(o->broker_user, &s->broker_uid);
        if (r < 0)
                return r;
        r = start_prepare(&s->null_fd);
        if (r < 0) {
                log_error("/dev/null: %s", strerror(-r));
                return r;
        }
        r = privileges_keep_from_children();
        if (r < 0) {
                log_error("cannot keep groups and capabilities from workers: %s", strerror(-r));
                return r;
        }
        s->plugin_dir = o->plugin_dir;
        s->worker_path = o->worker;
        r = reap_init(s);
        if (r < 0) {
                log_error("cannot watch over orphans: /proc/thread-self/children: %s", strerror(-r));
                return r;
        }
        s->signal_fd = open_signals();
        if (s->signal_fd < 0)
                return s->signal_fd;
        r = host_prepare();
        if (r < 0)
                log_warning("StartMethod=fork will be slower: the sandbox's filters cannot be compiled ahead: %s",
                            strerror(-r));
        return 0;
}

/* ---- the service manager ---- */

enum {
        READY_PATIENCE_MS = 5000,
        ALIVE_TRIES = 16, /* so often in the time between two, if there is no room */
};

/* One that does not read is waited for a moment: who connects meanwhile waits in the backlog. */
static void tell_ready(struct spawner *s) {
        struct pollfd p = {.fd = notify_open(), .events = POLLOUT};
        uint64_t usec;
        if (p.fd < 0)
                return;
        if (poll(&p, 1, READY_PATIENCE_MS) <= 0 || notify_send(p.fd, "READY=1") < 0)
                log_warning("the service manager does not take READY=1");
        if (sd_watchdog_enabled(0, &usec) > 0)
                s->alive_every_ns = usec * 1000 / 2;
        s->notify_fd = p.fd;
}

/* A spawner that hangs, in the exec of a program perhaps, is the service manager's to end: droverd may not. */
static void tell_alive(struct spawner *s) {
        uint64_t now = s->alive_every_ns ? event_now_ns() : 0;
        if (s->alive_every_ns == 0 || now < s->alive_due_ns)
                return;
        bool is_told = notify_send(s->notify_fd, "WATCHDOG=1") >= 0; /* what takes the room may be others' */
        s->alive_due_ns = now + s->alive_every_ns / (is_told ? 1 : ALIVE_TRIES);
}

static int alive_timeout_ms(const struct spawner *s) {
        if (s->alive_every_ns == 0)
                return -1;
        uint64_t now = event_now_ns();
        return now >= s->alive_due_ns ? 0 : (int)((s->alive_due_ns - now) / 1000000 + 1);
}

/* ---- the loop ---- */

enum { POLL_SIGNAL, POLL_BROKER, POLL_TEMPLATES };

static void on_broker(struct spawner *s, short revents) {
        if (revents & (POLLHUP | POLLERR))
                s->broker_fault = s->broker_fault ? s->broker_fault : "";
        else if (s->first_event)
                events_flush(s);
        else
                requests_receive(s);
}

static int on_listener(struct spawner *s) {
        int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED))
                return 0;
        if (fd < 0) {
                log_error("accept: %s", strerror(errno));
                return -errno;
        }
        struct ucred peer = {.uid = (uid_t)-1};
        socklen_t bytes = sizeof peer;
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) < 0 ||
            (peer.uid != 0 && peer.uid != s->broker_uid)) {
                log_warning("refused a connection from uid %d: only root and uid %d may be the broker", (int)peer.uid,
                            (int)s->broker_uid);
                close(fd);
                return 0;
        }
        return requests_attach(s, fd);
}

static void on_template(struct spawner *s, int fd) {
        for (unsigned i = 0; i < s->n_templates; i++)
                if (s->templates[i]->fd == fd) {
                        template_receive(s, s->templates[i]);
                        return;
                }
}

static unsigned fill_polls(const struct spawner *s, struct pollfd *p, unsigned *ret_n_templates) {
        p[POLL_SIGNAL] = (struct pollfd){.fd = s->signal_fd, .events = POLLIN};
        if (s->broker_fd >= 0) /* no new requests while it does not take our answers */
                p[POLL_BROKER] = (struct pollfd){.fd = s->broker_fd, .events = s->first_event ? POLLOUT : POLLIN};
        else
                p[POLL_BROKER] = (struct pollfd){.fd = s->listen_fd, .events = POLLIN};
        unsigned n = POLL_TEMPLATES;
        for (unsigned i = 0; i < s->n_templates; i++)
                if (s->templates[i]->fd >= 0)
                        p[n++] = (struct pollfd){.fd = s->templates[i]->fd, .events = POLLIN};
        *ret_n_templates = n - POLL_TEMPLATES;
        return n + calls_fill_polls(s, p + n);
}

/* The first of those that are due; -1 = none. */
static int timeout_ms(const struct spawner *s) {
        const int due[] = {s->is_reap_due ? 0 : -1, copier_timeout_ms(s), template_timeout_ms(s), calls_timeout_ms(s),
                           alive_timeout_ms(s)};
        int first = -1;
        for (unsigned i = 0; i < sizeof due / sizeof *due; i++)
                if (due[i] >= 0 && (first < 0 || due[i] < first))
                        first = due[i];
        return first;
}

/* Until told to end, or, without a listener, until the broker is gone. */
static int serve(struct spawner *s) {
        static struct pollfd polls[POLL_TEMPLATES + SPAWNER_MAX_TEMPLATES + SPAWNER_MAX_LISTENERS];
        int r = 0;
        while (!s->is_ending && r >= 0 && (s->broker_fd >= 0 || s->listen_fd >= 0)) {
                tell_alive(s);
                unsigned n_templates, n = fill_polls(s, polls, &n_templates);
                if (poll(polls, n, timeout_ms(s)) < 0) {
                        if (errno == EINTR) /* stopped and continued */
                                continue;
                        r = -errno;
                        log_error("poll: %s", strerror(errno));
                        break;
                }
                for (unsigned i = POLL_TEMPLATES; i < n; i++)
                        if (polls[i].revents && i < POLL_TEMPLATES + n_templates)
                                on_template(s, polls[i].fd);
                        else if (polls[i].revents)
                                calls_answer(s, polls[i].fd, polls[i].revents);
                template_look(s);
                if (polls[POLL_SIGNAL].revents)
                        reap_take_signals(s);
                if (s->is_reap_due || s->is_hunt_due)
                        reap_run(s);
                copier_look(s);
                if (polls[POLL_BROKER].revents && s->broker_fd >= 0)
                        on_broker(s, polls[POLL_BROKER].revents);
                else if (polls[POLL_BROKER].revents)
                        r = on_listener(s);
                if (s->broker_fd >= 0 && s->broker_fault) {
                        int fault = requests_detach(s);
                        r = s->listen_fd < 0 ? fault : 0;
                }
        }
        if (s->broker_fd >= 0)
                requests_detach(s);
        return r;
}

int main(int argc, char **argv) {
        static struct spawner spawner = {
                .listen_fd = -1, .broker_fd = -1, .notify_fd = -1, .last_event = &spawner.first_event};
        struct options o = {
                .plugin_dir = DROVER_PLUGIN_DIR,
                .worker = DROVER_WORKER,
                .log_level = LOG_LEVEL_INFO,
                .fd = -1,
        };
        log_open("drover-spawn", o.log_level);
        int r = parse_options(argc, argv, &o);
        if (r > 0)
                return r - 1;
        log_open("drover-spawn", o.log_level);

        unsigned refused =
                kernel_find_refused(KERNEL_PIDFD_OPEN | KERNEL_CLOSE_RANGE | KERNEL_MEMFD_CREATE | KERNEL_SIGNALFD);
        if (refused) {
                char text[512];
                kernel_describe_refused(refused, text, sizeof text);
                log_error("system calls that drover-spawn needs are refused: %s", text);
                return EXIT_FAILURE;
        }
        bool is_listener;
        setsid();
        if (find_socket(&o, &is_listener) < 0 || keep_only(&o.fd) < 0)
                return EXIT_FAILURE;
        r = log_detach(LOG_NO_WRITER);
        if (r < 0) {
                log_error("stderr: %s", strerror(-r));
                return EXIT_FAILURE;
        }
        if (prepare(&spawner, &o) < 0)
                return EXIT_FAILURE;
        if (is_listener) {
                fcntl(o.fd, F_SETFL, O_NONBLOCK);
                spawner.listen_fd = o.fd;
        } else if ((r = requests_attach(&spawner, o.fd)) < 0) {
                log_error("--fd: not a connected SEQPACKET socket: %s", strerror(-r));
                return EXIT_FAILURE;
        }
        if (is_listener)
                tell_ready(&spawner);
        replace_environment(&spawner);
        r = serve(&spawner);
        log_finish();
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
