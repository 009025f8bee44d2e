/* A client's channel, and what holds it open: a socket, a process, an owner.
 *
 * The broker keeps one end of the socket, the client the other. Descriptors of jobs and results travel on it: those of
 * a job before the job is queued, so that whoever has seen the job finds them in the socket at least (session_hear);
 * those of a result when the client asks, one answer at a time. A client that says nonsense, or asks and does not read,
 * loses its session. So does one whose user has too much that is not closed yet, if that lasts: until then nothing is
 * read of it, because what is read is there. End of file means that the client closed the session or is gone. A child
 * of the client may have kept its end open, so whoever knows the client (a name on the bus and its process) ends its
 * sessions, too. Whichever comes first: the channel is dropped, queued jobs are nobody's, running ones are asked to
 * stop. */
#include "daemon/supervise/channels/session.h"

#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/log/log.h"
#include "daemon/loop/closer.h"
#include "daemon/loop/fd-share.h"
#include "daemon/loop/wall-clock.h"
#include "daemon/supervise/supervisor-internal.h"
#include "ipc/memory/event.h"
#include "ipc/memory/packet.h"
#include "ipc/wire.h"

enum {
        SESSION_PACKETS_A_TURN = 32,
        SESSION_MAX_QUEUE = 1024, /* packets; a socket's buffer holds fewer */
};

#define SESSION_RETRY_NS UINT64_C(10000000) /* also of what waits for its user's closes */
#define SESSION_SETTLE_NS UINT64_C(100000000)
#define SESSION_PATIENCE_NS UINT64_C(1000000000)

struct session {
        struct pool_channel *channel;
        struct supervisor *supervisor;
        struct session_owner *owner;
        uint64_t opened_us;
        struct session *next, **previous; /* of the same owner */
        int fd;
        struct loop_poll poll;
        struct pool_doorbell doorbell;
        struct session_packet want; /* what was asked and not answered yet */
        bool is_asked;
        uint64_t patience_ns;
        struct loop_timer retry_timer;
        struct loop_timer room_timer; /* not read until then */
        struct loop_timer settle_timer;
        uint64_t room_patience_ns;
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

static uid_t session_uid(const struct session *s) { return s->channel->pool->bells[s->channel->bell].uid; }

pid_t session_pid(const struct session *s) { return s ? s->owner->pid : 0; }
uint64_t session_opened_us(const struct session *s) { return s->opened_us; }
const char *session_connection(const struct session *s) { return s && s->owner->name ? s->owner->name : ""; }

/* ---- what it says ---- */

static int session_keep(struct session *s, const struct session_packet *p, struct descriptors *d) {
        int r = descriptors_put(s->channel, DESCRIPTORS_OF_JOB, p->slot, d);
        d->n_fds = 0;                                /* kept, or closed */
        return r == -ENOMEM || r == -EDQUOT ? 0 : r; /* the job will find none */
}

static void session_on_retry(struct loop_timer *t);

/* What the kernel does not carry now (no memory, too many descriptors of one user on their way) may go a moment later;
 * after a second of that the answer is that there are none, and why. */
static int session_answer(struct session *s) {
        struct session_packet answer = {.type = SESSION_RESULT,
                                        .version = WIRE_VERSION,
                                        .slot = s->want.slot,
                                        .generation = s->want.generation};
        const struct descriptors *d =
                descriptors_get(s->channel, DESCRIPTORS_OF_RESULT, s->want.slot, s->want.generation);
        uint64_t now_ns = event_now_ns();
        int r = -ENOENT;
        if (d) {
                answer.payload_bytes = d->payload_bytes;
                r = packet_send(s->fd, &answer, sizeof(answer), d->fds, d->n_fds);
                if (r >= 0)
                        descriptors_drop(s->channel, DESCRIPTORS_OF_RESULT, s->want.slot);
        }
        if (r < 0 && r != -EPIPE && (!d || now_ns >= s->patience_ns)) {
                answer.error = -r;
                answer.payload_bytes = 0;
                r = packet_send(s->fd, &answer, sizeof(answer), NULL, 0);
        }
        s->is_asked = r < 0;
        if (r == -EPIPE || r >= 0)
                return r;
        loop_timer_set(s->supervisor->loop, &s->retry_timer, now_ns + SESSION_RETRY_NS, session_on_retry, s);
        return 0;
}

static void session_on_retry(struct loop_timer *t) {
        struct session *s = t->user;
        if (session_answer(s) < 0)
                session_end(s);
}

/* One answer at a time: a client that asks without reading would have us send descriptors without end. */
static int session_on_want(struct session *s, const struct session_packet *p) {
        int unread = 0;
        if (s->is_asked || ioctl(s->fd, SIOCOUTQ, &unread) < 0 || unread > 0)
                return -EPROTO;
        s->want = *p;
        s->patience_ns = event_now_ns() + SESSION_PATIENCE_NS;
        return session_answer(s);
}

static int session_on_packet(struct session *s, const struct session_packet *p, struct descriptors *d) {
        if (p->version != WIRE_VERSION || p->slot >= s->channel->channel.geometry.n_slots)
                return -EPROTO;
        if ((p->type == SESSION_FDS) != (d->n_fds > 0))
                return -EPROTO;
        switch (p->type) {
        case SESSION_FDS:
                d->generation = p->generation;
                d->payload_bytes = p->payload_bytes;
                return session_keep(s, p, d);
        case SESSION_WANT:
                return session_on_want(s, p);
        case SESSION_ENDED:
                if (descriptors_get(s->channel, DESCRIPTORS_OF_JOB, p->slot, p->generation))
                        descriptors_drop(s->channel, DESCRIPTORS_OF_JOB, p->slot);
                if (descriptors_get(s->channel, DESCRIPTORS_OF_RESULT, p->slot, p->generation))
                        descriptors_drop(s->channel, DESCRIPTORS_OF_RESULT, p->slot);
                return 0;
        default:
                return -EPROTO;
        }
}

static int session_receive(struct session *s) {
        struct session_packet packet;
        struct descriptors d = {.uid = session_uid(s), .n_fds = PACKET_MAX_FDS};
        size_t bytes;
        int r = packet_receive(s->fd, &packet, sizeof(packet), &bytes, d.fds, &d.n_fds);
        if (r < 0)
                return r;
        if (bytes == 0)
                return -EPIPE;
        r = bytes == sizeof(packet) ? session_on_packet(s, &packet, &d) : -EPROTO;
        descriptors_close(d.fds, d.n_fds, d.uid);
        return r;
}

bool session_is_waiting(const struct session *s) { return s->room_timer.heap_index > 0; }

static void session_on_room_timer(struct loop_timer *t) {
        struct session *s = t->user;
        const uid_t uid = session_uid(s);
        if (closer_has_room(uid)) {
                loop_poll_change(&s->poll, POLLIN);
        } else if (event_now_ns() < s->room_patience_ns) {
                loop_timer_set(t->loop, t, event_now_ns() + SESSION_RETRY_NS, session_on_room_timer, s);
        } else {
                log_warning("pool %s: %u descriptors that uid %u has sent are not closed yet, because whoever made "
                            "them keeps their close waiting: its session is dropped",
                            s->channel->pool->config.name, closer_count(uid), (unsigned)uid);
                session_end(s);
        }
}

static void session_wait_for_room(struct session *s) {
        if (session_is_waiting(s))
                return;
        uint64_t now_ns = event_now_ns();
        s->room_patience_ns = now_ns + SESSION_PATIENCE_NS;
        loop_poll_change(&s->poll, 0);
        loop_timer_set(s->supervisor->loop, &s->room_timer, now_ns + SESSION_RETRY_NS, session_on_room_timer, s);
}

static void session_on_settle_timer(struct loop_timer *t) {
        struct session *s = t->user;
        descriptors_settle_all(s->channel);
}

/* Its socket was as good as full: it may have said in vain that jobs are over. */
static void session_settle_soon(struct session *s) {
        if (s->settle_timer.heap_index == 0)
                loop_timer_set(s->supervisor->loop, &s->settle_timer, event_now_ns() + SESSION_SETTLE_NS,
                               session_on_settle_timer, s);
}

static void session_tell_nonsense(const struct session *s) {
        log_warning("pool %s: a client of uid %u sends what makes no sense: its session is dropped",
                    s->channel->pool->config.name, (unsigned)session_uid(s));
}

static int session_read(struct session *s, unsigned n_packets) {
        const uid_t uid = session_uid(s);
        unsigned n = 0;
        int r = 0;
        closer_blame(uid);
        while (r == 0 && n < n_packets && closer_has_room(uid)) {
                r = session_receive(s);
                n += r == 0;
        }
        if (n >= SESSION_PACKETS_A_TURN)
                session_settle_soon(s);
        if (!closer_has_room(uid))
                session_wait_for_room(s);
        if (r == 0 || r == -EAGAIN)
                return 0;
        if (r != -EPIPE && r != -ECONNRESET)
                session_tell_nonsense(s);
        return r;
}

static void session_on_socket(struct loop_poll *p, uint32_t revents) {
        struct session *s = p->user;
        if (session_read(s, SESSION_PACKETS_A_TURN) < 0)
                session_end(s);
}

void session_hear(struct session *s) {
        if (session_read(s, SESSION_MAX_QUEUE) < 0)
                session_end(s);
}

static void session_on_foul_doorbell(void *user) {
        struct session *s = user;
        session_tell_nonsense(s);
        session_end(s);
}

/* The rest of *ret, once its doorbell is there. */
static void session_describe(const struct session *session, int socket_fd, struct session_offer *ret) {
        struct pool_channel *c = session->channel;
        const struct pool *p = c->pool;
        *ret = (struct session_offer){
                .bell_fd = p->bells[c->bell].fd,
                .doorbell_fd = ret->doorbell_fd,
                .done_fd = c->done.hear_fd,
                .socket_fd = socket_fd,
                .channel = c->index,
                .n_slots = c->channel.geometry.n_slots,
                .slot_bytes = c->channel.geometry.slot_bytes,
                .id_base = c->id_base,
                .schema_text = p->schema_text,
                .schema_bytes = p->schema_bytes,
        };
        memcpy(ret->memory_fds, c->client_fds, sizeof(c->client_fds));
        memset(c->client_fds, -1, sizeof(c->client_fds));
        c->done.hear_fd = -1;
}

void session_offer_close(struct session_offer *o) {
        channel_close(o->memory_fds);
        close(o->doorbell_fd);
        close(o->done_fd);
        close(o->socket_fd);
}

static int session_make_channel(struct session *session, const struct session_request *q, int *ret_doorbell_fd) {
        int r = q->back ? pool_channel_adopt(q, &session->channel)
                        : pool_channel_new(q->pool, q->uid, &session->channel);
        if (r < 0)
                return r;
        const struct pool_doorbell doorbell = {
                .pool = q->pool,
                .rate = &q->pool->bells[session->channel->bell].rate,
                .uid = q->uid,
                .on_foul = session_on_foul_doorbell,
                .user = session,
        };
        r = pool_doorbell_open(&session->doorbell, &doorbell, ret_doorbell_fd);
        if (r < 0)
                pool_channel_drop(session->channel);
        return r;
}

static int session_start(struct session *session, const struct session_request *q, int *ret_doorbell_fd) {
        struct supervisor *s = session->supervisor;
        if (!fd_share_has(FD_SHARE_SESSIONS, session->fd))
                return -ENOSPC;
        int r = loop_poll_start(s->loop, &session->poll, session->fd, POLLIN, session_on_socket, session);
        if (r >= 0)
                r = session_make_channel(session, q, ret_doorbell_fd);
        if (r < 0)
                return r;
        session_join(session, q->owner);
        session->channel->session = session;
        s->n_sessions++;
        return 0;
}

int session_refuse_unclosed(uid_t uid, struct fault *f) {
        return fault_set(f, FAULT_LIMITS_EXCEEDED,
                         "%u descriptors that uid %u has sent are not closed yet, because whoever made them (FUSE, a "
                         "socket with SO_LINGER) keeps their close waiting: no more are taken until they are",
                         closer_count(uid), (unsigned)uid);
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
                                 "channel: not the memories of a channel of pool %s with these slots and job types",
                                 pool);
        default:
                return fault_set(f, FAULT_INTERNAL, "no memory for a session of pool %s: %s", pool, strerror(-error));
        }
}

int session_new(struct session **ret, const struct session_request *q, struct session_offer *offer, struct fault *f) {
        int fds[2];
        if (!closer_has_room(q->uid))
                return session_refuse_unclosed(q->uid, f);
        struct session *session = calloc(1, sizeof(*session));
        if (!session)
                return fault_set(f, FAULT_INTERNAL, "out of memory");
        int r = packet_pair(fds);
        if (r < 0) {
                free(session);
                return fault_set(f, FAULT_INTERNAL, "no socket for a session: %s", strerror(-r));
        }
        *session = (struct session){
                .supervisor = q->pool->supervisor,
                .opened_us = wall_clock_us(),
                .fd = fds[0],
        };
        r = session_start(session, q, &offer->doorbell_fd);
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
        uid_t uid = session_uid(s);
        pool_doorbell_close(&s->doorbell);
        loop_poll_stop(&s->poll);
        loop_timer_stop(&s->retry_timer);
        loop_timer_stop(&s->room_timer);
        loop_timer_stop(&s->settle_timer);
        session_leave(s);
        s->supervisor->n_sessions--;
        pool_channel_drop(
                s->channel);        /* first: who sees the end of file then sees why, and does not try to come back */
        shutdown(s->fd, SHUT_RDWR); /* at once; what lies in it unread may have descriptors, which are closed with it */
        closer_close(s->fd, uid);
        free(s);
        return NULL;
}
