/* Spin or sleep: the one policy for everybody who waits on shared memory. Private to a process, never shared.
 *
 *     struct spin_round round = spin_begin(&spin);
 *     while (!is_ready() && spin_step(&round))
 *             ;
 *     spin_end(&spin, &round, was_ready);
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct spin {
        _Atomic uint32_t misses;  /* doubles the distance to the next try with each; 0 = spinning pays */
        _Atomic uint32_t skipped; /* waits since the last try */
};

struct spin_round {
        uint64_t deadline_ns; /* 0: not to spin at all */
        uint32_t n_steps;
};

struct spin_round spin_begin(struct spin *s);
/* Pauses, longer each time. false: enough. */
bool spin_step(struct spin_round *r);
void spin_end(struct spin *s, const struct spin_round *r, bool is_hit);
