/* A client's channel, held open by a socket.
 *
 * The broker keeps one end, the client the other; nothing is ever sent on it yet. End of file means that the client is
 * gone, however it went, and its channel is dropped: queued jobs are nobody's, running ones are asked to stop. */
#include "daemon/supervise/session.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "daemon/supervise/supervisor-internal.h"
#include "ipc/packet.h"

enum { SESSION_SPARED_FDS = 256 };

struct session {
        struct pool_channel *channel;
        struct supervisor *supervisor;
        int fd;
        struct loop_poll poll;
};

static void session_on_socket(struct loop_poll *p, uint32_t revents) { session_end(p->user); }

/* The lowest free descriptor tells how many are taken. The last ones are for workers: without them every pool would
 * lose its own. */
static bool session_leaves_room(int fd) {
        struct rlimit limit;
        return getrlimit(RLIMIT_NOFILE, &limit) < 0 || (rlim_t)fd + SESSION_SPARED_FDS < limit.rlim_cur;
}

int session_new(struct session **ret, struct pool *p, uid_t uid, struct session_offer *offer, struct fault *f) {
        struct supervisor *s = p->supervisor;
        struct pool_channel *c;
        int fds[2];
        struct session *session = calloc(1, sizeof(*session));
        if (!session)
                return fault_set(f, FAULT_INTERNAL, "out of memory");
        int r = packet_pair(fds);
        if (r < 0) {
                free(session);
                return fault_set(f, FAULT_INTERNAL, "no socket for a session: %s", strerror(-r));
        }
        r = session_leaves_room(fds[0]) ? pool_channel_new(p, uid, &c) : -ENOSPC;
        if (r < 0) {
                close(fds[0]);
                close(fds[1]);
                free(session);
                return r == -ENOSPC ? fault_set(f, FAULT_LIMITS_EXCEEDED, "pool %s serves as many sessions or users as it can",
                                                p->config.name)
                                    : fault_set(f, FAULT_INTERNAL, "no memory for a session of pool %s: %s", p->config.name,
                                                strerror(-r));
        }
        *session = (struct session){.channel = c, .supervisor = s, .fd = fds[0]};
        c->session = session;
        c->id_base = ++s->last_session << 40;
        s->n_sessions++;
        loop_poll_start(s->loop, &session->poll, session->fd, POLLIN, session_on_socket, session);
        *offer = (struct session_offer){
                .channel_fd = c->fd,
                .bell_fd = p->bells[c->bell].fd,
                .doorbell_fd = p->doorbell_fd,
                .done_fd = c->done_fd,
                .socket_fd = fds[1],
                .channel = c->index,
                .n_slots = c->channel.geometry.n_slots,
                .slot_bytes = c->channel.geometry.slot_bytes,
                .id_base = c->id_base,
                .schema_text = p->schema_text,
                .schema_bytes = p->schema_bytes,
        };
        *ret = session;
        return 0;
}

struct session *session_end(struct session *s) {
        if (!s)
                return NULL;
        loop_poll_stop(&s->poll);
        close(s->fd);
        s->supervisor->n_sessions--;
        pool_channel_drop(s->channel);
        free(s);
        return NULL;
}
