/* How many workers a pool with MinWorkers= under MaxWorkers= should have: pure policy, no clock, no I/O. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define SCALE_WAIT_NS UINT64_C(20000000)   /* a job that waits this long asks for another worker */
#define SCALE_LOOK_NS UINT64_C(20000000)   /* how often to look while there is work and room to grow */
#define SCALE_IDLE_NS UINT64_C(3000000000) /* workers that were not needed for this long go */

struct scale {
        uint32_t target;
        uint32_t peak;      /* the most that were busy at once in this window */
        uint64_t window_ns; /* when it began */
};

struct scale_view {
        uint64_t now_ns;
        uint32_t min, max;
        uint32_t n_busy;  /* workers that have a job, or had one since the last look */
        uint32_t n_held;  /* workers that have a job now */
        bool is_starting; /* the last ones asked for are not ready yet */
        bool has_work;
        bool is_rated;            /* RateLimit=: what is queued may wait for its time, and not for a worker */
        uint64_t longest_wait_ns; /* of a job that is queued now */
};

void scale_init(struct scale *s, uint32_t target, uint64_t now_ns);
/* Takes in what is seen. true if the target is another one now. */
bool scale_look(struct scale *s, const struct scale_view *v);
/* When to look again though nothing happens: 0 = never, the target is as low as it may be. */
uint64_t scale_next_ns(const struct scale *s, uint32_t min);
