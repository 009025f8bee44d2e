/* Owns the broker's socket, the dispatch of its requests and the table of generations.
 *
 * The broker is trusted to decide, not to be free of errors: a packet of another size, version or type, a string
 * without an end, an id used twice, an unknown method or signal ends the connection, and with it all that the
 * connection had started. What can go wrong without anybody's fault (a bad plugin file, no memory, a full table) is
 * answered by an event. Requests about a worker or generation that is gone are not errors: ends and requests cross on
 * the wire.
 *
 * A pool's environment may not name LD_…: the loader would run what it names before the sandbox closes. */
#include "daemon/spawn/requests.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/spawn/events.h"
#include "daemon/spawn/plugin-file.h"
#include "daemon/spawn/reap.h"
#include "daemon/spawn/start.h"
#include "daemon/spawn/template.h"
#include "daemon/spawn/workers.h"
#include "ipc/packet.h"

/* ---- generations ---- */

static struct generation *find_generation(struct spawner *s, uint32_t id) {
        for (unsigned i = 0; i < s->n_generations; i++)
                if (s->generations[i]->id == id)
                        return s->generations[i];
        return NULL;
}

static struct generation *generation_free(struct generation *g) {
        if (!g)
                return NULL;
        if (g->plugin_fd >= 0)
                close(g->plugin_fd);
        free(g->envp);
        free(g);
        return NULL;
}

static void forget_generation(struct spawner *s, struct generation *g) {
        for (unsigned i = 0; i < s->n_generations; i++)
                if (s->generations[i] == g)
                        s->generations[i] = s->generations[--s->n_generations];
        generation_free(g);
}

/* What every worker gets: a fixed part, then the pool's. */
static int fill_environment(struct spawner *s, struct generation *g) {
        size_t n = 0, max = s->n_environment + 1;
        for (const char *e = g->environment; *e; e += strlen(e) + 1)
                max++;
        g->envp = calloc(max, sizeof *g->envp);
        if (!g->envp)
                return -ENOMEM;
        for (; n < s->n_environment; n++)
                g->envp[n] = s->environment[n];
        for (char *e = g->environment; *e; e += strlen(e) + 1)
                g->envp[n++] = e;
        return 0;
}

static bool has_loader_variable(const char *environment) {
        for (const char *e = environment; *e; e += strlen(e) + 1)
                if (strncmp(e, "LD_", 3) == 0)
                        return true;
        return false;
}

static int generation_load(struct spawner *s, const struct spawn_request *q, struct plugin_fault *fault) {
        *fault = (struct plugin_fault){.text = "no room for another plugin"};
        if (s->n_generations == SPAWNER_MAX_GENERATIONS)
                return -ENOSPC;
        if (has_loader_variable(q->environment)) {
                *fault = (struct plugin_fault){
                        .is_permanent = true,
                        .text = "Environment= sets a variable of the dynamic loader (LD_...), whose code would run "
                                "outside the "
                                "sandbox: remove it",
                };
                return -EPERM;
        }
        struct generation *g = calloc(1, sizeof *g);
        if (!g)
                return -ENOMEM;
        g->id = q->generation;
        g->plugin_fd = -1;
        memcpy(g->pool, q->pool, sizeof g->pool);
        memcpy(g->plugin, q->plugin, sizeof g->plugin);
        memcpy(g->environment, q->environment, sizeof g->environment);
        int r = fill_environment(s, g);
        if (r == 0)
                r = plugin_file_seal(s->plugin_dir_fd, s->plugin_dir, g->plugin, &g->plugin_fd, fault);
        if (r == 0)
                s->generations[s->n_generations++] = g;
        else
                generation_free(g);
        return r;
}

/* ---- requests: each returns NULL, or what the broker did wrong ---- */

static const char *on_load(struct spawner *s, const struct spawn_request *q) {
        if (find_generation(s, q->generation))
                return "it loaded a generation twice";
        struct plugin_fault fault = {0};
        int r = generation_load(s, q, &fault);
        struct spawn_event e = {.type = SPAWN_LOADED, .generation = q->generation, .error = -r};
        if (r < 0) {
                e.is_permanent = fault.is_permanent;
                events_text(&e, "%s", fault.text);
        }
        events_send(s, &e, NULL, 0);
        return NULL;
}

static void start_now(struct spawner *s, const struct generation *g, struct spawn_worker *w, enum start_method method) {
        int fds[2], pidfd = -1;
        pid_t pid;
        int r = packet_pair(fds);
        if (r < 0) {
                workers_refuse(s, w, -r, false, "no socket for a worker: %s", strerror(-r));
                return;
        }
        r = method == START_FORK ? start_fork(g, fds[1], &pid)
                                 : start_exec(s, g, START_ROLE_WORKER, fds[1], &pid, &pidfd);
        close(fds[1]);
        if (r == 0) {
                workers_started(s, w, pid, pidfd, fds[0]);
                return;
        }
        close(fds[0]);
        workers_refuse(s, w, -r, method == START_SPAWN && start_error_is_permanent(-r), "cannot %s: %s",
                       method == START_FORK ? "fork a worker" : "run drover-worker", strerror(-r));
}

static const char *on_start(struct spawner *s, const struct spawn_request *q) {
        if (workers_find(s, q->worker))
                return "it started a worker twice";
        struct generation *g = find_generation(s, q->generation);
        struct spawn_worker *w = g ? workers_add(s, q->worker, g->id) : NULL;
        if (!w) {
                struct spawn_event e = {
                        .type = SPAWN_FAILED,
                        .generation = q->generation,
                        .worker = q->worker,
                        .error = g ? EAGAIN : ENOENT,
                };
                if (g)
                        events_text(&e, "%u workers run already", s->n_workers);
                else
                        events_text(&e, "generation %u is not loaded", q->generation);
                events_send(s, &e, NULL, 0);
        } else if (q->method == START_FORKSERVER) {
                template_start_worker(s, g, w);
        } else {
                start_now(s, g, w, q->method);
        }
        return NULL;
}

static const char *on_kill(struct spawner *s, const struct spawn_request *q) {
        if (q->signal == 0 || q->signal >= NSIG)
                return "it sent an unknown signal";
        struct spawn_worker *w = workers_find(s, q->worker);
        if (w && w->stage == WORKER_STARTED)
                reap_kill(w, (int)q->signal);
        else if (w && w->stage != WORKER_CLOSING)
                template_cancel_worker(s, w, (int)q->signal);
        return NULL;
}

static const char *on_retire(struct spawner *s, const struct spawn_request *q) {
        struct generation *g = find_generation(s, q->generation);
        if (g) {
                template_retire(s, g);
                forget_generation(s, g);
        }
        return NULL;
}

static const char *(*const request_table[])(struct spawner *s, const struct spawn_request *q) = {
        [SPAWN_LOAD] = on_load,
        [SPAWN_START] = on_start,
        [SPAWN_KILL] = on_kill,
        [SPAWN_RETIRE] = on_retire,
};

/* ---- the socket ---- */

static bool pool_is_fine(const char *pool, size_t room) {
        size_t n = strnlen(pool, room);
        if (n == room)
                return false;
        for (size_t i = 0; i < n; i++)
                if (!isalnum((unsigned char)pool[i]) && !strchr("_.-", pool[i]))
                        return false;
        return n > 0;
}

/* NAME=value, each with its end, an empty one last. */
static bool environment_is_fine(const char *e, size_t room) {
        while (room > 0 && *e) {
                size_t n = strnlen(e, room);
                const char *equals = memchr(e, '=', n);
                if (n == room || !equals || equals == e)
                        return false;
                e += n + 1;
                room -= n + 1;
        }
        return room > 0;
}

static const char *check(const struct spawn_request *q, size_t bytes) {
        if (bytes != sizeof *q)
                return "a packet of the wrong size (mixed installation?)";
        if (q->version != WIRE_VERSION)
                return "another version of the protocol (mixed installation?)";
        if (q->type < SPAWN_LOAD || q->type > SPAWN_RETIRE)
                return "an unknown request";
        if (q->method >= START_N)
                return "an unknown start method";
        if (q->type == SPAWN_LOAD &&
            (!pool_is_fine(q->pool, sizeof q->pool) || !memchr(q->plugin, 0, sizeof q->plugin) ||
             !environment_is_fine(q->environment, sizeof q->environment)))
                return "a malformed string";
        return NULL;
}

int requests_attach(struct spawner *s, int fd) {
        int type = 0, flags = fcntl(fd, F_GETFL);
        socklen_t bytes = sizeof type;
        if (flags < 0 || getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &bytes) < 0)
                return -errno;
        if (type != SOCK_SEQPACKET)
                return -EPROTOTYPE;
        if (fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
                return -errno;
        s->broker_fd = fd;
        s->broker_fault = NULL;
        struct spawn_event hello = {.type = SPAWN_HELLO, .pid = getpid()};
        events_send(s, &hello, NULL, 0);
        return 0;
}

void requests_receive(struct spawner *s) {
        struct spawn_request q;
        size_t bytes;
        int r = packet_receive(s->broker_fd, &q, sizeof q, &bytes, NULL, NULL);
        if (r == -EAGAIN)
                return;
        const char *fault;
        if (r == -EPIPE || (r == 0 && bytes == 0))
                fault = "";
        else if (r < 0)
                fault = "a packet that is no request";
        else if (!(fault = check(&q, bytes)))
                fault = request_table[q.type](s, &q);
        if (fault && !s->broker_fault)
                s->broker_fault = fault;
}

int requests_detach(struct spawner *s) {
        const char *fault = s->broker_fault ? s->broker_fault : "";
        if (*fault)
                log_error("dropped the broker: %s", fault);
        close(s->broker_fd);
        s->broker_fd = -1;
        events_clear(s);
        reap_everything(s);
        template_forget_all(s);
        while (s->n_workers)
                workers_remove(s, &s->workers[s->n_workers - 1]);
        while (s->n_generations)
                forget_generation(s, s->generations[s->n_generations - 1]);
        s->n_unreported = 0;
        s->is_hunt_held = s->is_reap_due = false;
        return *fault ? -EPROTO : 0;
}
