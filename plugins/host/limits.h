/* How much of the machine a worker may take. */
#pragma once

#include <stdint.h>

#define LIMITS_UNLIMITED UINT64_MAX
enum { LIMITS_MAX_FDS = 1024, LIMITS_MORE_EXPENDABLE = 200 };

struct limits {
        uint64_t memory_bytes; /* private, writable memory; LIMITS_UNLIMITED; 0 = a share of the machine's */
        int oom_score_adj;     /* 0 = more than our own */
};

/* Puts numbers in place of what is 0, and makes its processes more expendable than ours in any case: once for many of
 * them. */
void limits_resolve(struct limits *l);
/* Sets them for this process and all that it forks, for good. −errno. */
int limits_set(const struct limits *l);
