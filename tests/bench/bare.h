/* The limits: what shared memory and futexes can do with nothing around them. No slots, no recovery, no trust: a
 * process that dies here takes its jobs with it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { BARE_MAX_WORKERS = 8 };

struct bare;

/* Forks `n_workers` that answer, pinned to CPU `cpu` (-1 = not). They sleep on futexes or spin. */
struct bare *bare_start(unsigned n_workers, bool spins, int cpu);
void bare_stop(struct bare *b);

/* There and back by two futex words and nothing else. */
void bare_ping(struct bare *b);
/* 64 bytes there and back through rings. */
void bare_roundtrip(struct bare *b);
/* Jobs a second with a window of `window` through rings. */
double bare_throughput(struct bare *b, uint64_t n_jobs, unsigned window);
