/* One stream: an attempt's items, and who reads them. For streams.c, which decides what belongs to it and when it ends.
 */
#pragma once

#include <sys/queue.h>

#include "daemon/supervise/streams/stream-reader.h"
#include "daemon/supervise/streams/streams.h"

enum {
        STREAM_READERS = 4,
        STREAMS_MAX_READERS = 512, /* of everybody, two descriptors each at most */
        STREAMS_MAX_OF_UID = 128,  /* of these, that were handed out, or are sure to be */
        STREAMS_MAX_KEPT = 256,    /* of jobs that are over, until somebody comes */
        STREAMS_MAX_KEPT_OF_UID = 64,
};

struct stream {
        struct streams *all;
        TAILQ_ENTRY(stream) link;
        struct pool_channel *channel; /* NULL: over */
        uint32_t channel_index, slot, generation, attempt;
        uid_t uid;
        struct job *job;                 /* of the bus, or NULL */
        struct worker *feeder;           /* whose socket its items come on, once there was one */
        bool has_begun;                  /* the attempt emitted something */
        bool is_over, is_kept;           /* kept: over, and nobody came yet */
        STAILQ_HEAD(, stream_item) held; /* the first is what readers that are behind wait for */
        size_t held_bytes;
        struct stream_reader readers[STREAM_READERS];
};

struct streams {
        struct supervisor *supervisor;
        TAILQ_HEAD(, stream) list; /* the oldest first; those that are kept in the order in which they ended */
        struct stream *next;       /* the timer's, in its walk through all of them */
        struct loop_timer timer;
};

static inline struct stream *stream_at(const struct pool_channel *c, uint32_t slot) {
        return c->streams ? c->streams[slot] : NULL;
}

/* streams.c: looks at all of them in a moment. */
void streams_arm(struct streams *ss);

/* NULL: no memory, or in channel 0 no job of the bus that we know. */
struct stream *stream_new(struct pool_channel *c, uint32_t slot, uint32_t generation, uint32_t attempt);
void stream_free(struct stream *s); /* cuts off who still reads */
void stream_leave_slot(struct stream *s);
void stream_unfeed(struct stream *s); /* its worker emits for somebody else now */
void stream_cut_all(struct stream *s);

/* A reader that nobody has yet; NULL: there are too many. */
struct stream_reader *stream_add_reader(struct stream *s);
/* How many were handed out to this uid, or are sure to be. */
unsigned streams_of_uid(const struct streams *ss, uid_t uid);
void stream_push(struct stream *s, const void *data, size_t bytes);
static inline bool stream_is_behind(const struct stream *s) { return !STAILQ_EMPTY(&s->held); }
/* After something changed for its readers: gives them what is held; then, if it is over, ends it, and may free it. */
void stream_go_on(struct stream *s);
/* Readers of the attempt before are cut off; if there were some, what comes now waits for them to come again. */
void stream_begin_attempt(struct stream *s, uint32_t attempt);
