/* What a job hands out before its verdict: its stream, as a client reads it. */
#pragma once

#include "ipc/client/library.h"

/* Before the job is submitted: the future has one. -ENOMEM. */
int stream_new(drover_future *f);
/* Asks for it when the job was just submitted. That it cannot be had is told by whoever reads it; for want of
 * descriptors or memory it is asked for again then. */
void stream_open(struct stream *s, uint64_t id);
/* Is there one that is asked for again, for a callback? */
bool stream_must_open(const drover *d);
void stream_free(struct stream *s); /* NULL is fine */
/* Nobody has the future any more that reads it: the job must not wait for that. */
void stream_let_go(struct stream *s);
/* drover_close: nothing more comes. */
void stream_end_all(drover *d);
void stream_lose_all(drover *d); /* their descriptors were closed by somebody else */

/* Are there items yet to be given to a callback, so that its verdict's callbacks wait? */
bool stream_is_called(const struct stream *s);
/* Calls back for what is there, of each stream a bounded number. How many. */
unsigned stream_call_all(drover *d);
/* An own wait of the library must not be woken by items that only drover_process takes. */
void stream_watch_all(drover *d, bool is_watched);
