/* Which item goes to whom, and when a stream is over.
 *
 * A stream belongs to one attempt of one job: it begins with the attempt's first item, or when somebody opens it before
 * that, and its items are those of that attempt, in order. When the job has its verdict, all that this attempt emitted
 * stands in its worker's socket and is taken first; then readers see end of file. If another attempt begins instead, or
 * anything else is missing (at the end, or when they came), they are cut off, which looks different (stream-reader.c),
 * and may open the next one. So nobody takes a part for the whole. A reader that takes nothing for STREAM_STALL_NS is
 * cut off, and the job goes on.
 *
 * The broker is not told how jobs of sessions end: while there are streams of such, a timer looks at their slots.
 *
 * Which job a packet is for is the worker's word. It is held against the slot word, which that worker's pool and the
 * job's client can write: those can spoil streams of their own jobs, and nobody else's. Of jobs over the bus we know
 * ourselves which is in a slot, and when it is over: there the word decides neither. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/supervise/jobs/job.h"
#include "daemon/supervise/streams/stream.h"
#include "daemon/supervise/supervisor-internal.h"
#include "ipc/memory/event.h"

#define STREAM_STALL_NS UINT64_C(5000000000)
#define STREAMS_LOOK_NS UINT64_C(100000000)

static void streams_on_timer(struct loop_timer *t);

void streams_arm(struct streams *ss) {
        if (!ss->timer.heap_index)
                loop_timer_set(ss->supervisor->loop, &ss->timer, event_now_ns() + STREAMS_LOOK_NS, streams_on_timer,
                               ss);
}

int streams_new(struct streams **ret, struct supervisor *s) {
        struct streams *ss = calloc(1, sizeof(*ss));
        if (!ss)
                return -ENOMEM;
        ss->supervisor = s;
        TAILQ_INIT(&ss->list);
        *ret = ss;
        return 0;
}

struct streams *streams_free(struct streams *ss) {
        if (!ss)
                return NULL;
        while (!TAILQ_EMPTY(&ss->list))
                stream_free(TAILQ_FIRST(&ss->list));
        loop_timer_stop(&ss->timer);
        free(ss);
        return NULL;
}

/* ---- from workers ---- */

/* Can this worker have run that attempt of the job there? */
static bool stream_is_plausible(const struct worker *w, const struct worker_item *head, uint64_t word) {
        const unsigned owner = w->index + SLOT_OWNER_WORKER0;
        if (slot_generation(word) != head->generation)
                return false;
        if (slot_state(word) == SLOT_RUNNING || slot_is_verdict(word))
                return slot_owner(word) == owner || head->attempt < slot_attempt(word) ||
                       slot_owner(word) == SLOT_OWNER_NONE;
        return head->attempt < slot_attempt(word);
}

static void stream_conclude(struct stream *s, uint64_t word);

/* The stream that this packet belongs to; NULL: there is none, and none is to be made. */
static struct stream *stream_find(struct worker *w, const struct worker_item *head) {
        struct pool_channel *c = pool_channel_at(w->pool, head->channel);
        if (!c || head->slot >= c->channel.geometry.n_slots)
                return NULL; /* its client may have gone meanwhile */
        uint64_t word = channel_word(&c->channel, head->slot);
        struct stream *s = stream_at(c, head->slot);
        if (s && !s->job && s->generation != head->generation && slot_generation(word) == head->generation) {
                stream_conclude(s, word); /* of the session's job before in this slot */
                s = NULL;
        }
        if (!s)
                return stream_is_plausible(w, head, word) && slot_state(word) >= SLOT_RUNNING
                               ? stream_new(c, head->slot, head->generation, slot_attempt(word))
                               : NULL;
        /* Its client may have freed the slot by now: then the word says nothing about it any more. */
        bool is_gone = slot_generation(word) != head->generation || slot_state(word) == SLOT_FREE;
        if (s->generation != head->generation || s->feeder || (!is_gone && !stream_is_plausible(w, head, word)))
                return NULL;
        return s;
}

int stream_take(struct worker *w, const struct worker_item *head, const void *data) {
        struct stream *s = w->feeds;
        if (!s || s->slot != head->slot || s->generation != head->generation || s->channel_index != head->channel) {
                if (s)
                        stream_unfeed(s);
                s = stream_find(w, head);
                if (!s)
                        return 0;
                s->feeder = w;
                w->feeds = s;
                if (!s->job)
                        streams_arm(s->all);
        }
        if (head->attempt < s->attempt)
                return 0;
        if (head->attempt > s->attempt)
                stream_begin_attempt(s, head->attempt);
        bool is_read = false;
        for (unsigned i = 0; i < STREAM_READERS && !s->has_begun; i++)
                is_read |= reader_is_used(&s->readers[i]);
        if (!s->has_begun && !is_read)
                stream_add_reader(s); /* kept for who comes later */
        s->has_begun = true;
        stream_push(s, data, head->bytes);
        return stream_is_behind(s);
}

void stream_forget_worker(struct worker *w) {
        if (w->feeds)
                stream_unfeed(w->feeds);
}

/* ---- from jobs ---- */

static void stream_conclude(struct stream *s, uint64_t word) {
        s->is_over = true;
        if (slot_generation(word) == s->generation && slot_is_verdict(word) && slot_attempt(word) != s->attempt) {
                stream_cut_all(s); /* of an attempt that was not the last */
                s->has_begun = false;
        }
        stream_leave_slot(s);
        stream_unfeed(s);
        stream_go_on(s);
}

/* What a worker emitted for jobs that are over. If the reader of the job in hand is behind, all of that was taken
 * before, and what stands there waits for that reader: held here time and again, it would cost it the stream. */
static void stream_take_before(struct worker *w) {
        const struct stream *s = w ? w->feeds : NULL;
        struct worker_job job;
        bool is_in_hand = s && stream_is_behind(s) && worker_get_job(w, &job) && job.channel == s->channel &&
                          job.slot == s->slot && job.generation == s->generation;
        if (w && !is_in_hand)
                worker_items_take_all(w);
}

void stream_over(struct pool_channel *c, uint32_t slot, uint64_t word) {
        struct pool *p = c->pool;
        unsigned owner = slot_owner(word) - SLOT_OWNER_WORKER0;
        if (owner < LAYOUT_MAX_WORKERS) {
                stream_take_before(p->workers[owner]);
        } else if (stream_at(c, slot) || slot_state(word) == SLOT_FAILED) { /* whoever it was */
                for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++)
                        stream_take_before(p->workers[i]);
        }
        struct stream *s = stream_at(c, slot);
        if (s)
                stream_conclude(s, word);
}

void stream_again(struct pool_channel *c, uint32_t slot, uint32_t generation) {
        struct stream *s = stream_at(c, slot);
        if (s && s->generation == generation)
                stream_begin_attempt(s, slot_attempt(channel_word(&c->channel, slot)));
}

/* The one that it has, or a new one of the job in its slot; NULL: no memory. */
static struct stream *stream_of_job(struct job *j) {
        if (j->stream)
                return j->stream;
        struct pool_channel *c = j->pool->channels[0];
        uint64_t word = channel_word(&c->channel, j->slot);
        return stream_new(c, j->slot, j->generation, slot_generation(word) == j->generation ? slot_attempt(word) : 1);
}

void stream_reserve(struct job *j) {
        struct stream *s = stream_of_job(j);
        struct stream_reader *r = s ? stream_add_reader(s) : NULL;
        if (r)
                r->is_reserved = true;
}

void stream_forget_job(struct job *j) {
        struct stream *s = j->stream;
        if (!s)
                return;
        if (s->is_over && !s->is_kept) { /* somebody still reads the rest */
                s->job = NULL;
                j->stream = NULL;
        } else {
                stream_free(s);
        }
        j->is_stream_gone = false;
}

/* ---- time ---- */

/* Of a session's job: the broker is not told of its end. */
static bool stream_is_to_end(const struct stream *s, uint64_t *ret_word) {
        if (!s->channel || s->job)
                return false;
        *ret_word = channel_word(&s->channel->channel, s->slot);
        return slot_generation(*ret_word) != s->generation || slot_is_verdict(*ret_word) ||
               slot_state(*ret_word) == SLOT_FREE;
}

/* Its client is gone, and every worker has let go of it: all that will ever be emitted there is. */
void stream_forget_channel(struct pool_channel *c) {
        uint64_t word;
        for (uint32_t slot = 0; c->streams && slot < c->channel.geometry.n_slots; slot++) {
                struct stream *s = c->streams[slot];
                if (s && stream_is_to_end(s, &word))
                        stream_over(c, slot, word);
                else if (s)
                        stream_free(s);
        }
        free(c->streams);
        c->streams = NULL;
}

/* true: look again. */
static bool stream_look(struct stream *s, uint64_t now_ns) {
        bool is_behind = stream_is_behind(s);
        for (unsigned i = 0; i < STREAM_READERS; i++)
                if (s->readers[i].is_behind && now_ns > s->readers[i].behind_ns + STREAM_STALL_NS)
                        reader_cut(&s->readers[i]);
        bool is_live = s->channel && !s->job;
        if (is_behind) /* poll tells of much room only, and one that reads slowly is not one that does not */
                stream_go_on(s);
        return is_live || is_behind;
}

static void streams_on_timer(struct loop_timer *t) {
        struct streams *ss = t->user;
        uint64_t word, now_ns = event_now_ns();
        bool is_busy = false;
        for (struct stream *s = TAILQ_FIRST(&ss->list); s; s = ss->next) {
                ss->next = TAILQ_NEXT(s, link); /* one that goes meanwhile moves it on */
                if (stream_is_to_end(s, &word)) {
                        stream_over(s->channel, s->slot, word);
                        is_busy = true;
                } else {
                        is_busy |= stream_look(s, now_ns);
                }
        }
        if (is_busy)
                streams_arm(ss);
}

/* ---- from the bus ---- */

static int stream_open(struct stream *s, int *ret_fd, struct fault *f) {
        struct stream_reader *r = NULL;
        if (!s)
                return fault_set(f, FAULT_INTERNAL, "out of memory");
        if (s->channel) { /* it may have asked for one more try, and nothing came of that yet */
                uint64_t word = channel_word(&s->channel->channel, s->slot);
                if (slot_generation(word) == s->generation && slot_attempt(word) > s->attempt)
                        stream_begin_attempt(s, slot_attempt(word));
        }
        for (unsigned i = 0; i < STREAM_READERS && !r; i++)
                if (s->readers[i].kept_fd >= 0)
                        r = &s->readers[i];
        if (!(r && r->is_reserved) && streams_of_uid(s->all, s->uid) >= STREAMS_MAX_OF_UID)
                return fault_set(f, FAULT_LIMITS_EXCEEDED, "uid %u has %d streams open already", (unsigned)s->uid,
                                 STREAMS_MAX_OF_UID);
        if (!r)
                r = stream_add_reader(s);
        if (!r)
                return fault_set(f, FAULT_LIMITS_EXCEEDED,
                                 "there are as many readers as can be: %d of one job, %d of all", STREAM_READERS,
                                 STREAMS_MAX_READERS);
        *ret_fd = reader_hand_out(r);
        if (!s->job)
                streams_arm(s->all);
        return 0;
}

static int stream_open_empty(uint32_t attempt, int *ret_fd, struct fault *f) {
        struct stream_reader r;
        reader_init(&r, NULL);
        int e = reader_open(&r, attempt);
        if (e < 0)
                return fault_set(f, FAULT_INTERNAL, "no socket for a stream: %s", strerror(-e));
        reader_end(&r);
        *ret_fd = reader_hand_out(&r);
        return 0;
}

int job_open_stream(struct job *j, int *ret_fd, struct fault *f) {
        if (j->is_finished && j->is_stream_gone && !j->stream)
                return fault_set(f, FAULT_RESULT_EXPIRED,
                                 "what job %llu emitted was fetched already, or had to make room for others",
                                 (unsigned long long)j->id);
        if (j->is_finished && !j->stream)
                return stream_open_empty(j->attempt, ret_fd, f);
        struct stream *s = stream_of_job(j);
        int r = stream_open(s, ret_fd, f);
        if (r >= 0 && s->is_kept)
                stream_free(s);
        return r;
}

int session_job_open_stream(const struct session_job *sj, int *ret_fd, struct fault *f) {
        struct pool_channel *c = sj->channel;
        uint64_t word = channel_word(&c->channel, sj->slot);
        struct stream *s = stream_at(c, sj->slot);
        if (s && s->generation != sj->generation) {
                stream_conclude(s, word);
                s = NULL;
        }
        return stream_open(s ? s : stream_new(c, sj->slot, sj->generation, slot_attempt(word)), ret_fd, f);
}
