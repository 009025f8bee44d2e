/* The first chapter of a host's life: the process itself. */
#pragma once

#include "plugins/host/host.h"

enum { BECOME_FIRST_FREE_FD = 5 }; /* 0-2 /dev/null, 3 control, 4 plugin */

/* Signals as by default, an own session (a template: process group), the environment given, descriptors 0 to 4 and no
 * other, no capability. -ESRCH: the parent is gone. */
int become_host(const struct host_config *c);

/* What ps and journalctl show: "drw:POOL" for a worker, "drt:POOL" for a template. */
void become_named(enum host_role role, const char *pool);

/* Dies with the parent from now on. -ESRCH: it is gone already. */
int become_with_parent(pid_t parent);
