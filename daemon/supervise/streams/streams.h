/* What jobs emit, on its way from their workers to whoever reads it; for supervise/ only, the rest is in supervisor.h.
 */
#pragma once

#include "daemon/supervise/workers/worker.h"

struct streams;
struct stream;

int streams_new(struct streams **ret, struct supervisor *s);
struct streams *streams_free(struct streams *ss);

/* ---- from worker-items.c ---- */

/* An item, whoever it may be for. 0, or 1: take no more from this worker until worker_items_resume. */
int stream_take(struct worker *w, const struct worker_item *head, const void *data);
/* Its socket is empty and there is nothing more to come. */
void stream_forget_worker(struct worker *w);

/* ---- a job's life ---- */

/* The job there has a verdict; `word` is the slot's word with it, which nobody has freed yet if it is ours to free. */
void stream_over(struct pool_channel *c, uint32_t slot, uint64_t word);
/* The attempt there ended, and there will be another one. */
void stream_again(struct pool_channel *c, uint32_t slot, uint32_t generation);
/* May this uid have one more reader? */
bool streams_have_room(const struct streams *ss, uid_t uid);
/* Somebody will come for it, so nothing is dropped until then. Without memory for it it is as if nobody had said so. */
void stream_reserve(struct job *j);
void stream_forget_job(struct job *j);
void stream_forget_channel(struct pool_channel *c);

/* ---- worker-items.c: the socket that a worker's items come on ---- */

int worker_items_start(struct worker *w, int *ret_worker_fd);
void worker_items_stop(struct worker *w); /* takes what is there first */
void worker_items_take_all(struct worker *w);
void worker_items_resume(struct worker *w);
