/* Spin or sleep: the one policy for everybody who waits on shared memory. Private to a process, never shared.
 *
 *     struct spin_round round = spin_begin(&spin, deadline_ns);
 *     while (!(found = is_ready()) && spin_step(&round))
 *             ;
 *     spin_end(&spin, &round, found);
 *     if (!found) { since_ns = event_now_ns(); ... sleep ...; spin_slept(&spin, since_ns); }
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* All zero at first. Threads may share one: what they lose of each other's counts does not matter. */
struct spin {
        _Atomic uint32_t misses;  /* doubles the distance to the next try with each; 0 = spinning pays */
        _Atomic uint32_t skipped; /* waits since the last try */
        _Atomic uint32_t n_late;  /* finds in a row that came too late for a normal spin */
        _Atomic uint32_t credit;  /* for yields: how short waits have been lately */
};

struct spin_round {
        uint64_t start_ns, end_ns;
        uint32_t n_steps, n_yields; /* pauses so far, yields left */
        bool is_yielding, has_yielded;
};

/* `deadline_ns` of the wait, not 0. */
struct spin_round spin_begin(struct spin *s, uint64_t deadline_ns);
/* For who waits for a lock: about 1 µs during which its owner has the word to itself. */
void spin_hold_back(void);
/* Pauses, longer each time, or yields. false: enough. */
bool spin_step(struct spin_round *r);
void spin_end(struct spin *s, const struct spin_round *r, bool is_hit);

/* May the next step yield? Then we may be away for long, and whoever counts on us should know before it. */
static inline bool spin_is_yielding(const struct spin_round *r) { return r->is_yielding; }

/* After a sleep. One that was too short to be worth it counts. */
void spin_slept(struct spin *s, uint64_t since_ns);
/* Whoever will end the next wait is awake: spin, whatever the past says. */
void spin_expect(struct spin *s);
