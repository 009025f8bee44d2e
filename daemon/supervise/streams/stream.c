/* One stream: its readers, and the items that they have no room for.
 *
 * Readers go in step: an item that one of them has no room for is held, and its worker's socket is not read before that
 * one has it. Once the job is over its last items, a socket's worth at most, are held here as well, so that the
 * worker's next job does not wait for its readers. What nobody has come for is kept with the record of a job over the
 * bus, of a bounded number of jobs. Who takes nothing for too long is cut off by streams.c. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/loop/fd-share.h"
#include "daemon/supervise/jobs/job.h"
#include "daemon/supervise/streams/stream.h"
#include "daemon/supervise/supervisor-internal.h"
#include "ipc/memory/event.h"

enum {
        STREAM_MAX_HELD = 1 << 20, /* bytes: more than a socket can hold of a job that is over */
        STREAM_OVERHEAD = 64,
};

struct stream_item {
        STAILQ_ENTRY(stream_item) link;
        size_t bytes;
        char data[];
};

/* ---- one stream ---- */

void stream_unfeed(struct stream *s) {
        struct worker *w = s->feeder;
        s->feeder = NULL;
        if (!w)
                return;
        w->feeds = NULL;
        worker_items_resume(w);
}

static void stream_drop_first(struct stream *s) {
        struct stream_item *i = STAILQ_FIRST(&s->held);
        STAILQ_REMOVE_HEAD(&s->held, link);
        s->held_bytes -= i->bytes + STREAM_OVERHEAD;
        free(i);
}

void stream_cut_all(struct stream *s) {
        for (unsigned i = 0; i < STREAM_READERS; i++)
                reader_cut(&s->readers[i]);
        while (!STAILQ_EMPTY(&s->held))
                stream_drop_first(s);
}

void stream_leave_slot(struct stream *s) {
        if (s->channel)
                s->channel->streams[s->slot] = NULL;
        s->channel = NULL;
}

/* Out of the list, whoever walks through it. */
static void stream_unlink(struct stream *s) {
        if (s->all->next == s)
                s->all->next = TAILQ_NEXT(s, link);
        TAILQ_REMOVE(&s->all->list, s, link);
}

void stream_free(struct stream *s) {
        stream_leave_slot(s);
        stream_unfeed(s);
        stream_cut_all(s);
        if (s->job && s->job->stream == s) {
                s->job->stream = NULL;
                s->job->is_stream_gone = s->has_begun;
        }
        stream_unlink(s);
        free(s);
}

struct stream *stream_new(struct pool_channel *c, uint32_t slot, uint32_t generation, uint32_t attempt) {
        struct pool *p = c->pool;
        /* A slot's word is a worker's to write: which job of the bus is in a slot, our own books say. */
        if (c->index == 0 && !jobs_slot_is_of(p, slot, generation))
                return NULL;
        struct job *j = c->index == 0 ? p->slot_job[slot] : NULL;
        if (!c->streams && !(c->streams = calloc(c->channel.geometry.n_slots, sizeof(struct stream *))))
                return NULL;
        if (c->streams[slot])
                stream_free(c->streams[slot]);
        if (j && j->stream) /* one a job: it goes with the job, and knows of no other */
                stream_free(j->stream);
        struct stream *s = calloc(1, sizeof(*s));
        if (!s)
                return NULL;
        *s = (struct stream){
                .all = p->supervisor->streams,
                .channel = c,
                .channel_index = c->index,
                .slot = slot,
                .generation = generation,
                .attempt = attempt,
                .uid = j ? j->uid : p->bells[c->bell].uid,
                .job = j,
        };
        STAILQ_INIT(&s->held);
        for (unsigned i = 0; i < STREAM_READERS; i++)
                reader_init(&s->readers[i], s);
        if (j)
                j->stream = s;
        c->streams[slot] = s;
        TAILQ_INSERT_TAIL(&s->all->list, s, link);
        return s;
}

/* ---- how many ---- */

struct streams_count {
        unsigned n_readers, n_taken, n_kept; /* the latter two of one uid */
        unsigned n_kept_of_all;
};

static struct streams_count streams_count(const struct streams *ss, uid_t uid) {
        struct streams_count n = {0};
        struct stream *s;
        TAILQ_FOREACH(s, &ss->list, link) {
                n.n_kept += s->is_kept && s->uid == uid;
                n.n_kept_of_all += s->is_kept;
                for (unsigned i = 0; i < STREAM_READERS; i++) {
                        const struct stream_reader *r = &s->readers[i];
                        n.n_readers += reader_is_used(r);
                        n.n_taken += reader_is_used(r) && s->uid == uid &&
                                     (r->kept_fd < 0 || (r->is_reserved && !s->is_kept));
                }
        }
        return n;
}

/* The one that has been kept longest, of `uid` unless is_any. false: there is none. */
static bool streams_drop_kept(struct streams *ss, bool is_any, uid_t uid) {
        struct stream *s;
        TAILQ_FOREACH(s, &ss->list, link)
                if (s->is_kept && (is_any || s->uid == uid)) {
                        stream_free(s);
                        return true;
                }
        return false;
}

struct stream_reader *stream_add_reader(struct stream *s) {
        struct stream_reader *r = NULL;
        for (unsigned i = 0; i < STREAM_READERS && !r; i++) {
                reader_check(&s->readers[i]);
                if (!reader_is_used(&s->readers[i]))
                        r = &s->readers[i];
        }
        if (!r ||
            (streams_count(s->all, s->uid).n_readers >= STREAMS_MAX_READERS && !streams_drop_kept(s->all, true, 0)))
                return NULL;
        if (reader_open(r, s->attempt) < 0)
                return NULL;
        r->is_partial = s->has_begun;
        if (fd_share_has(FD_SHARE_SESSIONS, r->fd))
                return r;
        reader_cut(r);
        return NULL;
}

/* ---- the end ---- */

static void stream_keep(struct stream *s) {
        struct streams *ss = s->all;
        s->is_kept = true;
        stream_unlink(s);
        TAILQ_INSERT_TAIL(&ss->list, s, link);
        struct streams_count n = streams_count(ss, s->uid);
        if (n.n_kept > STREAMS_MAX_KEPT_OF_UID)
                streams_drop_kept(ss, false, s->uid);
        else if (n.n_kept_of_all > STREAMS_MAX_KEPT)
                streams_drop_kept(ss, true, 0);
}

/* Over, and nothing is held any more. */
static void stream_finish(struct stream *s) {
        bool is_kept = false;
        for (unsigned i = 0; i < STREAM_READERS; i++) {
                reader_end(&s->readers[i]);
                is_kept |= s->readers[i].kept_fd >= 0;
        }
        if (is_kept && s->job && !s->job->is_released)
                stream_keep(s);
        else
                stream_free(s);
}

/* ---- handing items on ---- */

static void stream_on_room(struct loop_poll *p, uint32_t revents);

/* true: it is behind with this item. */
static bool stream_give(struct stream *s, struct stream_reader *r, const void *data, size_t bytes) {
        bool was_behind = r->is_behind;
        r->is_behind = reader_send(r, data, bytes) == -EAGAIN;
        if (!r->is_behind) {
                loop_poll_change(&r->poll, 0);
                return false;
        }
        if (!was_behind)
                r->behind_ns = event_now_ns();
        if (!r->poll.slot)
                loop_poll_start(s->all->supervisor->loop, &r->poll, r->fd, POLLOUT, stream_on_room, r);
        loop_poll_change(&r->poll, POLLOUT);
        streams_arm(s->all);
        return true;
}

static void stream_hold(struct stream *s, const void *data, size_t bytes) {
        struct stream_item *i = s->held_bytes < STREAM_MAX_HELD ? malloc(sizeof(*i) + bytes) : NULL;
        if (!i) { /* they would miss it */
                stream_cut_all(s);
                return;
        }
        i->bytes = bytes;
        memcpy(i->data, data, bytes);
        STAILQ_INSERT_TAIL(&s->held, i, link);
        s->held_bytes += bytes + STREAM_OVERHEAD;
}

void stream_push(struct stream *s, const void *data, size_t bytes) {
        bool is_behind = !STAILQ_EMPTY(&s->held);
        for (unsigned i = 0; i < STREAM_READERS && STAILQ_EMPTY(&s->held); i++)
                if (s->readers[i].fd >= 0)
                        is_behind |= stream_give(s, &s->readers[i], data, bytes);
        if (is_behind)
                stream_hold(s, data, bytes);
}

/* Gives what is held to those that are behind. true: some still are. */
static bool stream_settle(struct stream *s) {
        struct stream_item *first;
        for (bool is_fresh = false; (first = STAILQ_FIRST(&s->held)); is_fresh = true) {
                bool is_behind = false;
                for (unsigned i = 0; i < STREAM_READERS; i++) {
                        struct stream_reader *r = &s->readers[i];
                        if (r->fd >= 0 && (is_fresh || r->is_behind))
                                is_behind |= stream_give(s, r, first->data, first->bytes);
                }
                if (is_behind)
                        return true;
                stream_drop_first(s);
        }
        return false;
}

/* After something changed for its readers. */
void stream_go_on(struct stream *s) {
        if (stream_settle(s))
                return;
        if (s->is_over)
                stream_finish(s);
        else if (s->feeder)
                worker_items_resume(s->feeder);
}

static void stream_on_room(struct loop_poll *p, uint32_t revents) {
        struct stream_reader *r = p->user;
        stream_go_on(r->stream);
}

unsigned streams_of_uid(const struct streams *ss, uid_t uid) { return streams_count(ss, uid).n_taken; }

bool streams_have_room(const struct streams *ss, uid_t uid) {
        struct streams_count n = streams_count(ss, uid);
        return n.n_taken < STREAMS_MAX_OF_UID && (n.n_readers < STREAMS_MAX_READERS || n.n_kept_of_all > 0);
}

void stream_begin_attempt(struct stream *s, uint32_t attempt) {
        bool was_read = false;
        for (unsigned i = 0; i < STREAM_READERS; i++) {
                reader_check(&s->readers[i]);
                was_read |= s->readers[i].fd >= 0 && (s->readers[i].kept_fd < 0 || s->readers[i].is_reserved);
        }
        stream_cut_all(s);
        s->attempt = attempt;
        s->has_begun = false;
        struct stream_reader *r = was_read ? stream_add_reader(s) : NULL;
        if (r)
                r->is_reserved = true;
}
