/* The broker's end of the spawner: its process (when it is ours), its socket, its events. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/loop/loop.h"
#include "ipc/wire.h"

struct spawner;

struct spawner_hooks {
        void *user;
        void (*on_up)(void *user);
        void (*on_lost)(void *user); /* every worker dies with it; a new one comes up by itself */
        /* Descriptors (STARTED: pidfd, control socket) are the callee's. */
        void (*on_event)(void *user, const struct spawn_event *event, const int *fds, unsigned n_fds);
        void (*on_unreachable)(void *user, const char *why); /* systemd's was never up: it is given up */
};

struct spawner_config {
        struct loop *loop;
        const char *libexec_dir, *plugin_dir;
        int fd; /* a connected socket whose spawner is somebody else's to restart (it is closed in here), or -1 */
        const char *socket_path; /* where the next one of those is met; NULL = there is none */
        int lock_fd;             /* our own spawner holds it as long as it lives; the caller's; -1 = none */
        struct spawner_hooks hooks;
};

int spawner_new(struct spawner **ret, const struct spawner_config *c);
struct spawner *
spawner_free(struct spawner *s); /* closes the socket: the spawner kills everything; waits for its end */

/* Queues when the socket is full. -ENOTCONN while there is no spawner: the caller starts over at on_up. */
int spawner_send(struct spawner *s, const struct spawn_request *request);
/* To systemd's socket, nonblocking; waits for room in its backlog, but no longer. -EAGAIN: no room; -errno. */
int spawner_connect(const char *path, unsigned patience_s, int *ret_fd);
const char *spawner_connect_advice(int error); /* of spawner_connect, with what to do about it */
/* Something that it should have told is overdue: is it still there? If it does not answer, it is lost. */
void spawner_check(struct spawner *s);
pid_t spawner_pid(const struct spawner *s); /* 0 = not up */
/* Does nothing live any more that a spawner before this one started, for a broker before this one? */
bool spawner_is_alone(struct spawner *s);
