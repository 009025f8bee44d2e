/* Wires droverd together and owns its beginning and end.
 *
 * Begin: ring, bus connection, supervisor (with its spawner), pools from files, bus name, READY. End: SIGTERM or SIGINT
 * drains the pools for at most TimeoutStopSec= and hands out their last results, a second one ends at once; SIGHUP is
 * Reload. What breaks at the start is told in one line and ends the process with status 1; nothing is decided in here
 * about jobs or workers. */
#include "daemon/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/bus/bus.h"
#include "daemon/config/config-reader.h"
#include "daemon/loop/closer.h"
#include "daemon/loop/helper.h"
#include "daemon/reload.h"
#include "daemon/service.h"
#include "daemon/supervise/facts/spawner.h"
#include "ipc/memory/event.h"
#include "ipc/memory/packet.h"

enum { DAEMON_CONNECT_S = 5, DAEMON_MIN_DESCRIPTORS = 512 };
#define DAEMON_END_NS UINT64_C(15000000000) /* after the drain: last answers, the spawner's end, files */

struct daemon {
        const struct daemon_options *options;
        struct loop *loop;
        struct bus *bus;
        struct supervisor *supervisor;
        struct config_paths paths;
        bool has_paths;
        int signal_fd, lock_fd;
        struct loop_poll signal_poll;
        struct service service;
        struct config_reader *config;
        bool is_loaded; /* the pools, once */
        bool is_stopping;
        int log_level;
};

/* ---- the service manager ---- */

static void daemon_tell_status(void *user) {
        struct daemon *d = user;
        char status[128];
        uint32_t n_pools = 0, n_well = 0;
        struct pool *p = NULL;
        while ((p = supervisor_next_pool(d->supervisor, p))) {
                enum pool_state state = pool_get_state(p);
                n_pools++;
                n_well += state == POOL_RUNNING || state == POOL_PAUSED || state == POOL_STOPPED;
        }
        snprintf(status, sizeof(status), "%s%u of %u pools well, %u workers, %u sessions",
                 d->is_stopping ? "Draining: " : "", n_well, n_pools, supervisor_n_workers(d->supervisor),
                 supervisor_n_sessions(d->supervisor));
        service_tell_status(&d->service, status);
}

/* ---- reload ---- */

struct daemon_reload {
        struct daemon *daemon;
        reload_done_fn done;
        void *user;
};

static int daemon_apply(struct daemon *d, const struct config_files *files, struct reload_report *ret,
                        struct fault *f) {
        if (reload_apply(d->supervisor, files, ret, f) < 0)
                return -1;
        if (d->options->has_log_level || files->daemon.log_level < 0 || files->daemon.log_level == d->log_level)
                return 0;
        d->log_level = files->daemon.log_level;
        log_open("droverd", d->log_level);
        reload_report_add(ret, "changed: LogLevel");
        return 0;
}

static void daemon_on_read(void *user, const struct config_files *files, int error, const char *text) {
        struct daemon_reload q = *(struct daemon_reload *)user;
        struct daemon *d = q.daemon;
        struct reload_report report = {0};
        struct fault f = {0};
        free(user);
        int r = files ? daemon_apply(d, files, &report, &f)
                      : fault_set(&f,
                                  error == -EINVAL      ? FAULT_INVALID_ARGS
                                  : error == -ESHUTDOWN ? FAULT_SHUTTING_DOWN
                                                        : FAULT_INTERNAL,
                                  "%s", text);
        if (r < 0 && error != -ESHUTDOWN)
                log_error("%s%s", d->is_loaded ? "reload refused, everything stays as it is: " : "", f.text);
        q.done(q.user, r < 0 ? NULL : &report, r < 0 ? &f : NULL);
        reload_report_deinit(&report);
}

static void daemon_reload(void *user, reload_done_fn done, void *done_user) {
        struct daemon *d = user;
        struct daemon_reload *q = calloc(1, sizeof(*q));
        if (!q) {
                done(done_user, NULL, &(struct fault){.code = FAULT_INTERNAL, .text = "out of memory"});
                return;
        }
        *q = (struct daemon_reload){.daemon = d, .done = done, .user = done_user};
        config_reader_ask(d->config, daemon_on_read, q);
}

static void daemon_on_reloaded(void *user, const struct reload_report *report, const struct fault *f) {
        struct daemon *d = user;
        service_tell_state(&d->service, "READY=1"); /* each change was logged */
}

/* ---- signals and the end ---- */

static void daemon_on_answered(void *user) {
        struct daemon *d = user;
        loop_exit(d->loop, 0);
}

static void daemon_on_down(void *user) {
        struct daemon *d = user;
        bus_farewell(d->bus, daemon_on_answered, d);
}

static void daemon_stop(struct daemon *d, int signal) {
        if (d->is_stopping) {
                log_notice("signal %d again: ending at once", signal);
                loop_exit(d->loop, 1);
                return;
        }
        d->is_stopping = true;
        log_notice("signal %d: draining", signal);
        service_tell_state(&d->service, "STOPPING=1");
        service_extend(&d->service, event_now_ns() + supervisor_drain_ns(d->supervisor) + DAEMON_END_NS);
        supervisor_shut_down(d->supervisor, daemon_on_down, d);
}

static void daemon_on_signal(struct loop_poll *p, uint32_t revents) {
        struct daemon *d = p->user;
        struct signalfd_siginfo si;
        if (read(d->signal_fd, &si, sizeof(si)) != sizeof(si))
                return;
        if (si.ssi_signo == SIGHUP) {
                service_tell_state(&d->service, "RELOADING=1");
                daemon_reload(d, daemon_on_reloaded, d);
        } else
                daemon_stop(d, (int)si.ssi_signo);
}

static int daemon_catch_signals(struct daemon *d) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGTERM);
        sigaddset(&set, SIGINT);
        sigaddset(&set, SIGHUP);
        signal(SIGPIPE, SIG_IGN);
        sigprocmask(SIG_BLOCK, &set, NULL);
        d->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        if (d->signal_fd < 0)
                return -errno;
        return loop_poll_start(d->loop, &d->signal_poll, d->signal_fd, POLLIN, daemon_on_signal, d);
}

static int daemon_limits_failed(const char *call, int error) {
        log_error("the limit of open files cannot be raised: %s: %s", call, strerror(error));
        return -error;
}

/* A session takes three descriptors, a worker as many; nothing in here uses select(). The spawner inherits it, workers
 * have their own limit. Below the least there would be no session, whatever is closed (fd-share.h). */
static int daemon_raise_limits(void) {
        struct rlimit limit;
        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                return daemon_limits_failed("getrlimit", errno);
        if (limit.rlim_max < DAEMON_MIN_DESCRIPTORS) {
                log_error("the hard limit of open files is %llu: droverd needs %d at least (LimitNOFILE= of its unit, "
                          "ulimit -Hn)",
                          (unsigned long long)limit.rlim_max, DAEMON_MIN_DESCRIPTORS);
                return -EMFILE;
        }
        limit.rlim_cur = limit.rlim_max;
        return setrlimit(RLIMIT_NOFILE, &limit) < 0 ? daemon_limits_failed("setrlimit", errno) : 0;
}

static void daemon_on_bus_lost(void *user, int error) {
        struct daemon *d = user;
        log_error("the bus is gone (%s): ending", strerror(error < 0 ? -error : error));
        loop_exit(d->loop, d->is_stopping ? 0 : 1);
}

/* ---- the beginning ---- */

/* The system's spawner has its own unit and stands behind a socket; a user's broker starts its own. */
static int daemon_connect_spawner(const struct daemon_options *o, char path[static PATH_MAX], int *ret_fd) {
        *ret_fd = -1;
        if (o->is_user)
                return 0;
        snprintf(path, PATH_MAX, "%s/spawn", o->runtime_dir ? o->runtime_dir : "/run/drover");
        int r = spawner_connect(path, DAEMON_CONNECT_S, ret_fd);
        if (r == -ENAMETOOLONG)
                log_error("--runtime-dir=%s: too long for a socket", o->runtime_dir);
        else if (r < 0)
                log_error("no spawner at %s: %s", path, spawner_connect_advice(r));
        return r;
}

/* The runtime directory, as a lock: of a broker that was killed its spawner keeps it until no worker is left. Without
 * it everything works but adopting the channels of that broker's clients. */
static int daemon_open_lock(const struct daemon_options *o) {
        const char *runtime = getenv("XDG_RUNTIME_DIR");
        char path[PATH_MAX];
        if (!o->is_user || (!o->runtime_dir && !runtime))
                return -1;
        if (o->runtime_dir)
                snprintf(path, sizeof(path), "%s", o->runtime_dir);
        else
                snprintf(path, sizeof(path), "%s/drover", runtime);
        mkdir(path, 0700);
        int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                log_warning("--runtime-dir=%s: %s: channels of clients will not outlive this daemon", path,
                            strerror(errno));
        return fd;
}

static int daemon_start_supervisor(struct daemon *d) {
        const struct daemon_options *o = d->options;
        char path[PATH_MAX];
        struct supervisor_config config = {
                .loop = d->loop,
                .libexec_dir = o->libexec_dir,
                .plugin_dir = o->plugin_dir,
                .state_dir = o->state_dir,
                .lock_fd = d->lock_fd = daemon_open_lock(o),
        };
        bus_fill_hooks(d->bus, &config.hooks);
        int r = daemon_connect_spawner(o, path, &config.spawner_fd);
        if (r < 0)
                return r;
        config.spawner_path = o->is_user ? NULL : path;
        r = supervisor_new(&d->supervisor, &config);
        if (r < 0)
                log_error("cannot start the spawner of %s: %s", o->libexec_dir, strerror(-r));
        return r;
}

static void daemon_on_loaded(void *user, const struct reload_report *report, const struct fault *f) {
        struct daemon *d = user;
        d->is_loaded = report;
}

static int daemon_load_pools(struct daemon *d) {
        int r = config_reader_new(&d->config, d->loop, &d->paths);
        if (r < 0) {
                log_error("cannot start: %s", strerror(-r));
                return r;
        }
        daemon_reload(d, daemon_on_loaded, d);
        config_reader_wait(d->config);
        return d->is_loaded ? 0 : -EIO; /* said */
}

static int daemon_start(struct daemon *d) {
        const struct daemon_options *o = d->options;
        char error[400];
        const char *why;
        int r = loop_new(&d->loop, &why);
        if (r < 0) {
                log_error("io_uring cannot be used: %s", why);
                return r;
        }
        service_init(&d->service, d->loop);
        r = closer_start(d->loop);
        if (r < 0) {
                log_error("no thread that closes descriptors: %s", strerror(-r));
                return r;
        }
        packet_set_refuse(closer_close_blamed);
        close_catch_libsystemd();
        struct bus_config bus = {
                .loop = d->loop,
                .is_user = o->is_user,
                .address = o->address,
                .user = d,
                .on_lost = daemon_on_bus_lost,
                .on_reload = daemon_reload,
        };
        r = bus_new(&d->bus, &bus, error, sizeof(error));
        if (r < 0) {
                log_error("%s", error);
                return r;
        }
        r = config_paths_init(&d->paths, o->is_user, o->config_dir);
        d->has_paths = r >= 0;
        if (r >= 0)
                r = daemon_catch_signals(d);
        if (r < 0) {
                log_error("cannot start: %s", strerror(-r));
                return r;
        }
        r = daemon_start_supervisor(d);
        if (r >= 0)
                r = daemon_load_pools(d);
        if (r < 0)
                return r;
        r = bus_start(d->bus, d->supervisor, error, sizeof(error));
        if (r < 0)
                log_error("%s", error);
        return r;
}

static void daemon_end(struct daemon *d) {
        d->config = config_reader_free(d->config);
        if (d->supervisor)
                supervisor_leave(d->supervisor);
        d->bus = bus_free(d->bus);
        d->supervisor = supervisor_free(d->supervisor);
        if (d->loop)
                service_deinit(&d->service);
        loop_poll_stop(&d->signal_poll);
        if (d->signal_fd >= 0)
                close(d->signal_fd);
        if (d->lock_fd >= 0)
                close(d->lock_fd);
        closer_stop();
        helper_stop();
        d->loop = loop_free(d->loop);
        if (d->has_paths)
                config_paths_deinit(&d->paths);
}

int daemon_run(const struct daemon_options *o) {
        struct daemon d = {.options = o, .signal_fd = -1, .lock_fd = -1, .log_level = (int)o->log_level};
        int status = 1;
        if (daemon_raise_limits() < 0)
                return 1;
        int r = helper_start();
        if (r < 0) {
                log_error("no process that reads and writes files: %s", strerror(-r));
                return 1;
        }
        if (daemon_start(&d) >= 0) {
                service_start_watchdog(&d.service);
                service_tell_state(&d.service, "READY=1");
                if (service_is_there(&d.service))
                        loop_add_hook(d.loop, daemon_tell_status, &d);
                log_notice("ready: Drover %s", DROVER_VERSION);
                status = loop_run(d.loop);
                if (status < 0) {
                        log_error("the event loop broke: %s", strerror(-status));
                        status = 1;
                }
        }
        daemon_end(&d);
        return status;
}

int daemon_check(const struct daemon_options *o) {
        struct config_paths paths;
        int r = config_paths_init(&paths, o->is_user, o->config_dir);
        if (r < 0) {
                log_error("cannot read the configuration: %s", strerror(-r));
                return 1;
        }
        size_t n_errors = reload_check(&paths);
        config_paths_deinit(&paths);
        return n_errors > 0;
}
