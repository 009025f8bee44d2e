/* Owns the broker's socket and the dispatch of its requests.
 *
 * The broker is trusted to decide, not to be free of errors: a packet of another size, version or type, a string
 * without an end, an id used twice, an unknown method or signal ends the connection, and with it all that the
 * connection had started. What can go wrong without anybody's fault (a bad plugin file, no memory, a full table) is
 * answered by an event. Requests about a worker or generation that is gone are not errors: ends and requests cross on
 * the wire.
 *
 * Nothing in here waits: a plugin file is copied by somebody else (copier.c), and a process is made or asked for. */
#include "daemon/spawn/requests.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/log/log.h"
#include "daemon/spawn/calls.h"
#include "daemon/spawn/copier.h"
#include "daemon/spawn/events.h"
#include "daemon/spawn/generations.h"
#include "daemon/spawn/reap.h"
#include "daemon/spawn/start.h"
#include "daemon/spawn/template.h"
#include "daemon/spawn/workers.h"
#include "ipc/memory/packet.h"

/* ---- requests: each returns NULL, or what the broker did wrong ---- */

static const char *on_load(struct spawner *s, const struct spawn_request *q) {
        if (generations_find(s, q->generation))
                return "it loaded a generation twice";
        struct generation *g;
        struct spawn_event e = {.type = SPAWN_LOADED, .generation = q->generation};
        int r = generations_add(s, q, &g, &e);
        if (r < 0)
                events_send(s, &e, NULL, 0);
        else
                copier_look(s);
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
                workers_started(s, w, &(struct worker_start){.pid = pid, .pidfd = pidfd, .broker_fd = fds[0]});
                return;
        }
        close(fds[0]);
        workers_refuse(s, w, -r, method == START_SPAWN && start_error_is_permanent(-r), "cannot %s: %s",
                       method == START_FORK ? "fork a worker" : "run drover-worker", strerror(-r));
}

static const char *on_start(struct spawner *s, const struct spawn_request *q) {
        if (workers_find(s, q->worker))
                return "it started a worker twice";
        struct generation *g = generations_find_loaded(s, q->generation);
        struct spawn_worker *w = g ? workers_add(s, q->worker, g->id) : NULL;
        if (!w) {
                struct spawn_event e = {
                        .type = SPAWN_FAILED,
                        .generation = q->generation,
                        .worker = q->worker,
                        .error = g ? EAGAIN : ENOENT,
                };
                if (g)
                        events_text(&e,
                                    "%u workers run already, as many as there can be: have fewer Workers= in all pools "
                                    "together",
                                    s->n_workers);
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
        struct generation *g = generations_find(s, q->generation);
        if (g && g->plugin_fd < 0) {
                copier_cancel(s, g);
        } else if (g) {
                template_retire(s, g);
                generations_forget(s, g);
        }
        return NULL;
}

static const char *on_ping(struct spawner *s, const struct spawn_request *q) {
        struct spawn_event e = {.type = SPAWN_PONG};
        events_send(s, &e, NULL, 0);
        return NULL;
}

static const char *(*const request_table[])(struct spawner *s, const struct spawn_request *q) = {
        [SPAWN_LOAD] = on_load,     [SPAWN_START] = on_start, [SPAWN_KILL] = on_kill,
        [SPAWN_RETIRE] = on_retire, [SPAWN_PING] = on_ping,
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
        if (q->type < SPAWN_LOAD || q->type > SPAWN_PING)
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
        calls_forget_all(s);
        template_forget_all(s);
        while (s->n_workers)
                workers_remove(s, &s->workers[s->n_workers - 1]);
        while (s->n_generations)
                generations_forget(s, s->generations[s->n_generations - 1]);
        copier_forget_all(s);
        s->n_unreported = 0;
        s->is_hunt_due = s->is_reap_due = false;
        return *fault ? -EPROTO : 0;
}
