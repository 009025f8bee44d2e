/* Time limits of running jobs, by a tick that exists only while there is work. */
#pragma once

#include "daemon/supervise/pools/pool.h"

void limits_wake(struct pool *p); /* the doorbell rang and `armed` stands: start ticking */
void limits_stop(struct pool *p);
