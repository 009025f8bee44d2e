/* A client's channel, and what holds it open: a socket, a process, an owner.
 *
 * The broker keeps one end of the socket, the client the other; nothing is ever sent on it yet. End of file means that
 * the client closed the session or is gone. A child of the client may have kept its end open, so whoever knows the
 * client (a name on the bus and its process) ends its sessions, too. Whichever comes first: the channel is dropped,
 * queued jobs are nobody's, running ones are asked to stop. */
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
        struct session_owner *owner;
        struct session *next, **previous; /* of the same owner */
        int fd;
        struct loop_poll poll;
};

/* ---- owners ---- */

static void session_join(struct session *s, struct session_owner *o) {
        s->owner = o;
        s->next = o->first;
        s->previous = &o->first;
        if (s->next)
                s->next->previous = &s->next;
        o->first = s;
        o->n_sessions++;
}

static void session_leave(struct session *s) {
        if (s->next)
                s->next->previous = s->previous;
        *s->previous = s->next;
        s->owner->n_sessions--;
}

void supervisor_end_sessions(struct session_owner *o) {
        while (o->first)
                session_end(o->first);
}

/* ---- sessions ---- */

static void session_on_socket(struct loop_poll *p, uint32_t revents) { session_end(p->user); }

/* The lowest free descriptor tells how many are taken. The last ones are for workers: without them every pool would
 * lose its own. */
bool session_leaves_room(int fd) {
        struct rlimit limit;
        return getrlimit(RLIMIT_NOFILE, &limit) < 0 || (rlim_t)fd + SESSION_SPARED_FDS < limit.rlim_cur;
}

static void session_describe(const struct session *session, int socket_fd, struct session_offer *ret) {
        const struct pool_channel *c = session->channel;
        const struct pool *p = c->pool;
        *ret = (struct session_offer){
                .channel_fd = c->fd,
                .bell_fd = p->bells[c->bell].fd,
                .doorbell_fd = p->bells[c->bell].doorbell_fd,
                .done_fd = c->done_fd,
                .socket_fd = socket_fd,
                .channel = c->index,
                .n_slots = c->channel.geometry.n_slots,
                .slot_bytes = c->channel.geometry.slot_bytes,
                .id_base = c->id_base,
                .schema_text = p->schema_text,
                .schema_bytes = p->schema_bytes,
        };
}

static int session_start(struct session *session, const struct session_request *q) {
        struct supervisor *s = session->supervisor;
        if (!session_leaves_room(session->fd))
                return -ENOSPC;
        int r = loop_poll_start(s->loop, &session->poll, session->fd, POLLIN, session_on_socket, session);
        if (r >= 0)
                r = q->channel_fd < 0 ? pool_channel_new(q->pool, q->uid, &session->channel)
                                      : pool_channel_adopt(q, &session->channel);
        if (r < 0)
                return r;
        session_join(session, q->owner);
        session->channel->session = session;
        session->channel->id_base = session_next_id_base(s);
        s->n_sessions++;
        return 0;
}

static int session_refuse(const struct session_request *q, int error, struct fault *f) {
        const char *pool = q->pool->config.name;
        switch (error) {
        case -ENOSPC:
                return fault_set(f, FAULT_LIMITS_EXCEEDED, "pool %s serves as many sessions or users as it can", pool);
        case -EDQUOT:
                return fault_set(f, FAULT_LIMITS_EXCEEDED,
                                 "uid %u has its share of sessions: at most %d of pool %s, and %llu GiB in all pools",
                                 (unsigned)q->uid, POOL_CHANNELS_OF_UID, pool,
                                 (unsigned long long)(POOL_CHANNEL_BYTES_OF_UID >> 30));
        case -EBUSY:
                return fault_set(f, FAULT_LIMITS_EXCEEDED,
                                 "workers of the daemon that made this channel may still live: try again");
        case -EALREADY:
                return fault_set(f, FAULT_INVALID_ARGS, "channel: a session has it already");
        case -EPROTO:
                return fault_set(f, FAULT_INVALID_ARGS,
                                 "channel: not the memory of a channel of pool %s with these slots and job types",
                                 pool);
        default:
                return fault_set(f, FAULT_INTERNAL, "no memory for a session of pool %s: %s", pool, strerror(-error));
        }
}

int session_new(struct session **ret, const struct session_request *q, struct session_offer *offer, struct fault *f) {
        int fds[2];
        struct session *session = calloc(1, sizeof(*session));
        if (!session)
                return fault_set(f, FAULT_INTERNAL, "out of memory");
        int r = packet_pair(fds);
        if (r < 0) {
                free(session);
                return fault_set(f, FAULT_INTERNAL, "no socket for a session: %s", strerror(-r));
        }
        *session = (struct session){.supervisor = q->pool->supervisor, .fd = fds[0]};
        r = session_start(session, q);
        if (r < 0) {
                loop_poll_stop(&session->poll);
                close(fds[0]);
                close(fds[1]);
                free(session);
                return session_refuse(q, r, f);
        }
        session_describe(session, fds[1], offer);
        *ret = session;
        return 0;
}

struct session *session_end(struct session *s) {
        if (!s)
                return NULL;
        loop_poll_stop(&s->poll);
        session_leave(s);
        s->supervisor->n_sessions--;
        pool_channel_drop(
                s->channel); /* first: who sees the end of file then sees why, and does not try to come back */
        close(s->fd);
        free(s);
        return NULL;
}
