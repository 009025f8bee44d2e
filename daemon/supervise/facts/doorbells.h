/* How a session or a worker reaches the broker without a message: by a doorbell of its own. */
#pragma once

#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "daemon/loop/loop.h"

struct pool;

/* How often those were heard that count as one. All zero at first. */
struct doorbell_rate {
        uint64_t since_ns;
        unsigned n;
        struct loop_timer rest_timer;
        LIST_HEAD(, pool_doorbell) resting;
};

struct pool_doorbell {
        /* The opener's. What the holder of the other end sends is closed as uid's; more than rings is foul. */
        struct pool *pool;          /* NULL: not open */
        struct doorbell_rate *rate; /* outlives it */
        uid_t uid;
        void (*on_foul)(void *user); /* closes it, now or later */
        void *user;
        /* Ours. */
        int hear_fd;
        struct loop_poll poll;
        LIST_ENTRY(pool_doorbell) link; /* of those that rest */
        bool is_resting;
};

/* The caller gives *ret_ring_fd away and closes it. */
int pool_doorbell_open(struct pool_doorbell *d, const struct pool_doorbell *what, int *ret_ring_fd);
void pool_doorbell_close(struct pool_doorbell *d); /* also one that is not open */
void doorbell_rate_stop(struct doorbell_rate *r);  /* all that counted with it are closed */
