/* The template of a forkserver: a host that loaded its plugin and ran preload, and from then on only forks workers. */
#pragma once

#include "plugins/host/host.h"

/* Before the sandbox closes: asks the kernel for what the fork needs, and for the end of all with the spawner's end of
 * the socket. -errno: this kernel cannot tell. */
int template_prepare(struct host *h);

/* Forks whenever the spawner lets it, until that is gone. In the workers: host_set_up, host_serve. */
_Noreturn void template_serve(struct host *h);
