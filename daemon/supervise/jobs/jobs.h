/* Jobs that came over the bus: the broker is their client, on channel 0 of each pool. */
#pragma once

#include "daemon/supervise/pools/pool.h"

int jobs_pool_init(struct pool *p);                        /* after channel 0 exists */
void jobs_pool_deinit(struct pool *p);                     /* unfinished ones become LOST */
void jobs_collect(struct pool *p);                         /* done bits → verdicts */
bool jobs_slot_waits(const struct pool *p, uint32_t slot); /* DELAYED for another reason than time */
void jobs_slot_released(struct pool *p, uint32_t slot);    /* its quarantine ended */
bool jobs_slot_is_of(const struct pool *p, uint32_t slot, uint32_t generation); /* a job without a verdict */
void jobs_slot_reclaim(struct pool *p, uint32_t slot); /* it holds no job: FREE, whatever stands there */

struct jobs; /* all of them, by id */
int jobs_new(struct jobs **ret, struct supervisor *s);
struct jobs *jobs_free(struct jobs *js);
void jobs_pool_gone(struct jobs *js, struct pool *p); /* records outlive their pool */
uid_t jobs_owner(const struct jobs *js, uint64_t id); /* of a job that has a record; else our own uid */
struct job *jobs_find(const struct jobs *js, uint64_t id);
struct job *jobs_after(const struct jobs *js, uint64_t id);               /* the next one by id */
struct job *jobs_after_of(const struct jobs *js, uint64_t id, uid_t uid); /* the same among those of one uid */
void jobs_clock_was_set(struct jobs *js);                                 /* not-before is a moment of the wall clock */
