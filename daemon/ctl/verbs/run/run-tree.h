/* run's temporary directory: programs, plugins and configuration of one private daemon. */
#pragma once

#include "daemon/ctl/ctl.h"

enum { RUN_PATH = 4096, RUN_POOL_NAME = 65 };

struct run_tree {
        char path[64]; /* /tmp/drover-run-XXXXXX, or in TMPDIR; "" = none */
        char pools[CTL_MAX_PLUGINS][RUN_POOL_NAME];
        unsigned n_pools;
};

/* Makes the directory with all that droverd and dbus-daemon need. Says what is wrong; CTL_OK or the exit code. */
int run_tree_make(struct run_tree *t, const struct ctl *c);
/* Removes it with everything in it. */
void run_tree_remove(struct run_tree *t);
