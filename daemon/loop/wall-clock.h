/* What the wall clock says, and who is told when it was set, or the machine was asleep. */
#pragma once

#include "daemon/loop/loop.h"

uint64_t wall_clock_us(void); /* CLOCK_REALTIME */

struct wall_clock {
        int fd;
        struct loop_poll poll;
        void (*on_set)(void *user);
        void *user;
};

/* `on_set` runs in the loop, and may run without a reason. */
int wall_clock_start(struct wall_clock *c, struct loop *l, void (*on_set)(void *user), void *user);
void wall_clock_stop(struct wall_clock *c); /* fine if it was started, whatever came of it */
