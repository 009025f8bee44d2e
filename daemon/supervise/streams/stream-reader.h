/* One reader of a stream: a pair of sockets, one item a packet. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/loop/loop.h"

struct stream;

struct stream_reader {
        struct stream *stream;
        int fd;           /* ours; -1 = none, or it was ended */
        int kept_fd;      /* theirs, as long as nobody came for it; -1 */
        bool is_reserved; /* somebody will come for it: nothing is dropped meanwhile */
        bool is_behind;   /* the item in hand did not fit */
        bool is_partial;  /* it never gets the first ones: its end is not the end of a whole */
        uint64_t behind_ns;
        struct loop_poll poll;
};

static inline bool reader_is_used(const struct stream_reader *r) { return r->fd >= 0 || r->kept_fd >= 0; }

void reader_init(struct stream_reader *r, struct stream *s);
int reader_open(struct stream_reader *r, uint32_t attempt); /* nobody has it yet */
/* 0: it has the item, or nobody is there any more (and then it is not used any more). -EAGAIN: not yet. */
int reader_send(struct stream_reader *r, const void *data, size_t bytes);
void reader_end(struct stream_reader *r); /* that was all: they see end of file, unless partial; what is kept stays */
void reader_cut(struct stream_reader *r); /* something is missing: they see ECONNRESET; gone with what is kept */
/* Theirs, the caller's from now on. */
int reader_hand_out(struct stream_reader *r);
/* Nobody has theirs any more? Then it is not used any more. */
void reader_check(struct stream_reader *r);
