/* How much of the machine a worker may take. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define LIMITS_UNLIMITED UINT64_MAX
enum { LIMITS_MAX_FDS = 1024, LIMITS_MORE_EXPENDABLE = 200 };

struct limits {
        bool is_template;      /* it forks workers: it may, also when they have all that they may */
        uint64_t memory_bytes; /* private, writable memory; LIMITS_UNLIMITED; 0 = a share of the machine's */
        int oom_score_adj;     /* 0 = more than our own */
};

/* Puts numbers in place of what is 0, and makes its processes more expendable than ours in any case: once for many of
 * them. */
void limits_resolve(struct limits *l);
/* Sets them for this process and all that it forks, for good. −errno. */
int limits_set(const struct limits *l);
/* For whoever hears of it, before it goes on: a template's worker has its template's limits but for tasks. −errno. */
int limits_set_forked(pid_t pid);
