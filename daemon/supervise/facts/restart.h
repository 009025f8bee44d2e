/* When to start the next worker after one died without a job to charge: pure policy, no clock, no I/O. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct restart_policy {
        uint64_t delay_ns, max_delay_ns; /* RestartSec=, RestartMaxDelaySec= */
        uint32_t burst;                  /* StartLimitBurst=: more deaths than this in an interval = degraded */
        uint64_t interval_ns;            /* StartLimitIntervalSec= */
};

struct restart {
        uint32_t n_failures; /* in a row, since the last healthy spell */
        uint32_t n_in_interval;
        uint64_t interval_start_ns;
        uint64_t not_before_ns;
        uint64_t random; /* xorshift state for the jitter; never 0 */
        bool is_degraded;
};

void restart_init(struct restart *r, uint64_t seed);
/* A death before READY or while idle: sets not_before_ns. Delay = RestartSec × 2^failures, capped, ± 25 % jitter;
 * a degraded pool tries every RestartMaxDelaySec. */
void restart_note_failure(struct restart *r, const struct restart_policy *p, uint64_t now_ns);
/* The same, of one that was not ready in TimeoutStartSec=. That alone is longer than most StartLimitIntervalSec=, so no
 * start limit would ever count it: the pool is degraded at once. */
void restart_note_hang(struct restart *r, const struct restart_policy *p, uint64_t now_ns);
/* A worker that was fine is gone: the next one waits RestartSec=, and nothing is counted. */
void restart_note_loss(struct restart *r, uint64_t delay_ns, uint64_t now_ns);
/* A worker became ready: the row ends once it has lived an interval (told again by the caller then). */
void restart_note_healthy(struct restart *r);
void restart_reset(struct restart *r); /* ResetFailed */
