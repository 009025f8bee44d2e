/* DELAYED slots of a pool: jobs that may not start yet, on one timer. */
#pragma once

#include "daemon/supervise/pools/pool.h"

/* Into the heap, under its job's priority. What stands in its place goes. */
void delay_add(struct pool_channel *c, uint32_t slot, uint32_t generation, uint64_t due_ns);
/* DELAYED → QUEUED at once; the bell is rung. */
void delay_end(struct pool_channel *c, uint32_t slot, uint32_t generation);
/* Is so little left that it counts as nothing? The bus has no smaller time than 1 µs. 0 = there is no deadline. */
static inline bool delay_is_overdue(uint64_t queue_deadline_ns, uint64_t now_ns) {
        return queue_deadline_ns != 0 && queue_deadline_ns <= now_ns + 1000;
}
/* Finds DELAYED slots that nobody told of yet: after news by the doorbell, a death, an adoption. */
void delay_look(struct pool_channel *c);
void delay_on_doorbell(struct pool *p);
void delay_forget_channel(struct pool_channel *c);
void delay_stop(struct pool *p); /* and frees */
/* How long an attempt waits after the end of `n_attempts` of them: RetryDelay=, RetryBackoff=, RetryMaxDelay=. */
uint64_t delay_before_retry(const struct pool_config *c, unsigned n_attempts);
