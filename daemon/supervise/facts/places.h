/* Who gets one of the places that a pool has for bells, and who gives it up: pure policy, no clock, no I/O. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define PLACES_TERM_NS UINT64_C(50000000) /* who has work keeps its place so long, even if others wait */

/* One that has a place and may lose it. */
struct places_holder {
        bool is_busy;       /* has a job queued or running */
        uint64_t active_ns; /* when it was last seen to have had one */
        uint64_t since_ns;  /* when it got its place */
};

/* Index of the one that gives its place to another: the one that has been idle longest; if all are busy, the one that
 * has had its place longest, if that was its term. -1: none. */
int places_victim(const struct places_holder *holders, unsigned n, uint64_t now_ns);

/* Index of the one whose turn it is, of those that have work and no place: that which has been without one longest.
 * `until_ns`: when each had its last place, 0 = never. n > 0. */
unsigned places_next(const uint64_t *until_ns, unsigned n);
