/* The process model: one job at a time, on the main thread. */
#pragma once

#include "plugins/host/host.h"

/* Claims and runs jobs until the broker retires the worker (0) or is gone (-EPIPE). -ESTALE: its job was judged
 * meanwhile; -EPROTO. -ENOMEM. `thread_state` is that of thread_init. */
int serve_process(struct host *h, void *thread_state);
