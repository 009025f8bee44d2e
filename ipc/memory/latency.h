/* How long jobs waited and ran, as histograms in pool memory: the worker that runs a job counts it in its own line,
 * the broker adds the lines up. */
#pragma once

#include <stdint.h>

#include "ipc/layout.h"

struct latency_sum {
        uint64_t counts[LAYOUT_LATENCY_BUCKETS];
        uint64_t n, max_ns;
};

unsigned latency_bucket(uint64_t ns);
uint64_t latency_bucket_top_ns(unsigned bucket); /* the largest value in it; UINT64_MAX for the last */

/* One more of `ns`. Only the line's one writer calls it. */
void latency_count(struct layout_latency *l, uint64_t ns);

/* Bounded, and safe whatever stands there. */
void latency_add(struct latency_sum *s, const struct layout_latency *l);
/* No more than this for `per_mille` of all, up to the width of a bucket (an eighth); 0 if there is none. */
uint64_t latency_quantile_ns(const struct latency_sum *s, unsigned per_mille);
