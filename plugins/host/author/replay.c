/* Runs the job of a capsule again and says whether it ends the same way: by signal, system call, module and offset.
 *
 * As in run.c the worker is a real one behind a real sandbox and we are its broker (trial.h). It is exec'd, as
 * StartMethod=spawn does it, so that with --gdb the debugger can be its parent; nothing else differs then. It runs as
 * the last attempt of the capsule, in our environment: the pool's is not in the capsule, for Environment= is the
 * administrator's and may hold secrets, and the file is its submitter's. */
#include "plugins/host/author/replay.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ipc/memory/event.h"
#include "ipc/memory/packet.h"
#include "ipc/values/breach.h"
#include "ipc/values/capsule.h"
#include "ipc/values/words.h"
#include "plugins/host/author/run.h"
#include "plugins/host/author/say.h"
#include "plugins/host/author/trial.h"
#include "plugins/host/host.h"

struct replay {
        const struct replay_config *config;
        struct capsule capsule;
        struct trial trial;
        char plugin[512];
        pid_t pid;
};

/* ---- the capsule and its plugin ---- */

/* By number: in whatever pool. */
static int open_numbered(const struct replay_config *c, uint64_t id, char *path, size_t bytes) {
        char usual[256], pool[72];
        uint64_t found;
        struct dirent *e;
        int fd = -ENOENT;
        capsule_state_dir(geteuid() != 0, usual, sizeof usual);
        snprintf(path, bytes, "%s/capsules", c->state_dir ? c->state_dir : usual);
        DIR *d = opendir(path);
        if (!d)
                return -errno;
        while (fd == -ENOENT && (errno = 0, e = readdir(d)))
                if (capsule_parse_name(e->d_name, pool, &found) && found == id) {
                        fd = openat(dirfd(d), e->d_name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
                        fd = fd < 0 ? -errno : fd;
                }
        fd = fd == -ENOENT && errno ? -errno : fd;
        closedir(d);
        return fd;
}

static int load_capsule(struct replay *r) {
        const char *what = r->config->what;
        char path[512];
        int fd;
        if (what[strspn(what, "0123456789")] == 0) {
                fd = open_numbered(r->config, strtoull(what, NULL, 10), path, sizeof path);
                if (fd < 0)
                        return say_error(RUN_EXIT_REFUSED, "no capsule of job %s in %s: %s", what, path,
                                         strerrordesc_np(-fd));
        } else {
                fd = open(what, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
                if (fd < 0)
                        return say_error(RUN_EXIT_REFUSED, "%s: %s", what, strerrordesc_np(errno));
        }
        int e = capsule_load(fd, &r->capsule);
        close(fd);
        if (e == -EPROTONOSUPPORT)
                return say_error(RUN_EXIT_REFUSED, "%s: a capsule of another release, which this one cannot read",
                                 what);
        return e < 0 ? say_error(RUN_EXIT_REFUSED, "%s: %s", what,
                                 e == -EPROTO || e == -EFBIG ? "not a capsule" : strerrordesc_np(-e))
                     : 0;
}

static int open_plugin(struct replay *r, int *ret_fd) {
        const struct capsule *c = &r->capsule;
        if (r->config->plugin)
                snprintf(r->plugin, sizeof r->plugin, "%s", r->config->plugin);
        else
                snprintf(r->plugin, sizeof r->plugin, "%s/%s", c->plugin_dir, c->plugin);
        int e = trial_open_plugin(r->plugin, ret_fd);
        if (e == -ENOENT && !r->config->plugin) {
                strncat(r->plugin, ".so", sizeof r->plugin - strlen(r->plugin) - 1);
                e = trial_open_plugin(r->plugin, ret_fd);
        }
        return e < 0 ? say_error(RUN_EXIT_REFUSED, "%s: %s (--plugin=FILE says where it is)", r->plugin,
                                 strerrordesc_np(-e))
                     : 0;
}

static void print_capsule(const struct capsule *c) {
        say_text(stdout, "job %llu (%s of pool %s, plugin %s), %zu bytes: %s\n", (unsigned long long)c->id, c->job,
                 c->pool, c->plugin, c->payload_bytes, c->state);
        for (uint32_t i = 0; i < c->n_attempts; i++) {
                char text[128];
                capsule_describe(&c->attempts[i], text, sizeof text);
                say_text(stdout, "  attempt %u: %s\n", c->attempts[i].attempt, text);
        }
        if (c->log[0])
                say_text(stdout, "  printed last:\n%s", c->log);
        fflush(stdout);
}

/* ---- the worker ---- */

_Noreturn static void exec_worker(const struct replay *r, int control_fd, int plugin_fd) {
        static char parent[32], memory[40], exe[512];
        ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
        if (n < 0)
                _exit(127);
        int control = fcntl(control_fd, F_DUPFD, 10), plugin = fcntl(plugin_fd, F_DUPFD, 10);
        if (control < 0 || plugin < 0 || dup2(control, WIRE_CONTROL_FD) < 0 || dup2(plugin, WIRE_PLUGIN_FD) < 0)
                _exit(127);
        close(control);
        close(plugin);
        /* Under gdb we are the one who becomes gdb, and so the worker's parent. */
        snprintf(parent, sizeof parent, "--parent=%d", r->config->is_gdb ? getpid() : getppid());
        snprintf(memory, sizeof memory, "--memory-max=%llu", (unsigned long long)r->config->memory_bytes);
        if (r->config->is_gdb)
                execlp("gdb", "gdb", "-q", "-iex", "set startup-with-shell off", "-ex",
                       "handle SIGSYS nostop noprint pass", "-ex", "run", "--args", exe, "--role=worker", parent,
                       "--name=replay", memory, NULL);
        else
                execl(exe, exe, "--role=worker", parent, "--name=replay", memory, NULL);
        say_error(0, "%s cannot be started: %s", r->config->is_gdb ? "gdb" : exe, strerrordesc_np(errno));
        _exit(127);
}

static int start_worker(struct replay *r, int plugin_fd) {
        int pair[2];
        int e = packet_pair(pair);
        if (e < 0)
                return e;
        fflush(NULL);
        r->pid = fork();
        if (r->pid == 0)
                exec_worker(r, pair[1], plugin_fd);
        e = r->pid < 0 ? -errno : trial_set_up(&r->trial, pair[0], STDERR_FILENO);
        close(pair[1]);
        return e;
}

static void take_end(struct replay *r, struct capsule_attempt *a) {
        const struct layout_worker *w = r->trial.line;
        int status = 0;
        while (waitpid(r->pid, &status, 0) < 0 && errno == EINTR)
                ;
        r->pid = 0;
        a->signal = WIFSIGNALED(status) ? (uint32_t)WTERMSIG(status) : 0;
        a->status = WIFEXITED(status) ? (uint32_t)WEXITSTATUS(status) : 0;
        struct layout_breach breach;
        breach_read(w, &breach);
        if (breach.syscall && a->signal == SIGSYS) {
                filter_call_name((int)breach.syscall - 1, a->syscall, sizeof a->syscall);
                memcpy(a->module, breach.module, sizeof a->module);
                a->offset = breach.offset;
        }
        if (a->signal && atomic_load(&w->fault_signal) == a->signal) {
                memcpy(a->module, w->fault_module, sizeof a->module);
                a->module[sizeof a->module - 1] = 0;
                a->offset = atomic_load(&w->fault_offset);
        }
}

/* ---- the job ---- */

/* The one that is compared with; a capsule without attempts is none of ours. */
static uint32_t last_attempt(const struct capsule *c) {
        uint32_t n = c->n_attempts > 0 ? c->attempts[c->n_attempts - 1].attempt : 1;
        return n < 1 ? 1 : n > LAYOUT_MAX_ATTEMPTS ? LAYOUT_MAX_ATTEMPTS : n;
}

static int submit(struct replay *r) {
        struct trial *t = &r->trial;
        const struct capsule *c = &r->capsule;
        uint32_t type;
        if (!schema_find(t->schema, c->job, &type))
                return say_error(RUN_EXIT_REFUSED, "%s has no job %s", r->plugin, c->job);
        int e = trial_begin(t, 0);
        if (e >= 0) {
                memcpy(channel_payload(&t->channel, 0), c->payload, c->payload_bytes);
                e = trial_commit(t, 0, type, c->payload_bytes, LAYOUT_PRIORITY_DEFAULT);
        }
        if (e >= 0) {
                trial_set_attempt(t, 0, last_attempt(c));
                e = trial_open(t);
        }
        return e < 0 ? say_error(RUN_EXIT_REFUSED, "the job cannot be submitted: %s", strerrordesc_np(-e)) : 0;
}

static int compare(const struct replay *r, const struct capsule_attempt *a) {
        const struct capsule *c = &r->capsule;
        char text[128];
        bool is_same = c->n_attempts > 0 && capsule_attempt_is_alike(a, &c->attempts[c->n_attempts - 1]);
        capsule_describe(a, text, sizeof text);
        say_text(stdout, "replayed as attempt %u: %s: %s\n", last_attempt(c), text,
                 is_same ? "the same end" : "another end than in the capsule");
        return is_same ? RUN_EXIT_DONE : RUN_EXIT_FAILED;
}

static int await_end(struct replay *r) {
        struct capsule_attempt a = {.reason = ""};
        uint64_t word, hard_ns = r->config->is_gdb ? 0 : r->capsule.hard_ns;
        int e = trial_wait(&r->trial, 0, hard_ns ? event_now_ns() + hard_ns : EVENT_FOREVER, &word);
        if (e == 0) {
                say_text(stdout, "replayed as attempt %u: the job ended as %s: another end than in the capsule\n",
                         last_attempt(&r->capsule), words_slot_state(slot_state(word)));
                return RUN_EXIT_FAILED;
        }
        if (e == -ETIMEDOUT) {
                kill(r->pid, SIGKILL);
                snprintf(a.reason, sizeof a.reason, "time-limit");
        }
        take_end(r, &a);
        if (r->config->is_gdb) /* what ended is gdb; it has shown the rest */
                return RUN_EXIT_DONE;
        return compare(r, &a);
}

static int replay_job(struct replay *r) {
        char text[WIRE_TEXT];
        uint64_t start_ns = r->config->is_gdb ? 0 : r->config->start_ns;
        int e = trial_await_ready(&r->trial, run_start_deadline(start_ns), text);
        if (e == -ECONNRESET)
                return say_error(RUN_EXIT_DIED, "the worker died while the plugin was loaded");
        if (e < 0)
                return say_error(RUN_EXIT_REFUSED, "%s", text);
        if (strcmp(r->trial.build_id, r->capsule.build_id) != 0)
                say_error(0, "%s is another build than the one that died (%s, not %s)", r->plugin,
                          r->trial.build_id[0] ? r->trial.build_id : "without an id",
                          r->capsule.build_id[0] ? r->capsule.build_id : "one without an id");
        int code = submit(r);
        return code ? code : await_end(r);
}

int replay_capsule(const struct replay_config *c) {
        struct replay r = {.config = c};
        int plugin_fd = -1, code = load_capsule(&r);
        if (code == 0) {
                print_capsule(&r.capsule);
                code = open_plugin(&r, &plugin_fd);
        }
        if (code == 0) {
                int e = trial_init(&r.trial);
                if (e >= 0)
                        e = start_worker(&r, plugin_fd);
                code = e < 0 ? say_error(RUN_EXIT_REFUSED, "the worker cannot be started: %s", strerrordesc_np(-e))
                             : replay_job(&r);
                if (r.pid > 0 && code != RUN_EXIT_DIED) {
                        kill(r.pid, SIGKILL);
                        while (waitpid(r.pid, NULL, 0) < 0 && errno == EINTR)
                                ;
                }
                trial_deinit(&r.trial);
                close(plugin_fd);
        }
        capsule_deinit(&r.capsule);
        return code;
}
