/* The numbers that jobs over the bus and channels get: none twice, also by a daemon that starts after this one. */
#pragma once

#include <stdint.h>

enum numbers_kind { NUMBERS_JOB, NUMBERS_CHANNEL, NUMBERS_N_KINDS };

#define NUMBERS_MAX_JOB ((UINT64_C(1) << 40) - 1)
#define NUMBERS_MAX_CHANNEL ((UINT64_C(1) << 24) - 2) /* the job number after its last one still fits into 64 bits */

struct loop;
struct numbers;

/* They begin where the file in `state_dir` (which must be there) says that nobody was, behind `used` in any case: the
 * largest ones that something else tells of, 0 = nothing does, NULL = that cannot be known (then they begin from the
 * clock at least). `state_dir` NULL: there is no file. A disk that does not answer is waited for until the deadline,
 * here and at the end. */
int numbers_new(struct numbers **ret, struct loop *l, const char *state_dir, const uint64_t *used,
                uint64_t deadline_ns);
/* Those that were reserved and not used are left to the next daemon. */
struct numbers *numbers_free(struct numbers *n, uint64_t deadline_ns);

/* The next one of its kind, from 1. After the last comes the first: the caller passes over those in use. */
uint64_t numbers_next(struct numbers *n, enum numbers_kind kind);
