/* drover-worker --replay: a capsule's job once more, in the same sandbox, without a daemon. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct replay_config {
        const char *what;      /* number of a job, or a file */
        const char *state_dir; /* where capsules/ is; NULL: the usual place */
        const char *plugin;    /* file; NULL: where the capsule says */
        bool is_gdb;
        uint64_t memory_bytes; /* as in struct limits */
        uint64_t start_ns;     /* as in struct run_config; not under gdb */
};

/* 0 it ended as in the capsule, 1 it did not, else as enum run_exit. */
int replay_capsule(const struct replay_config *c);
