/* drover-worker --check and --run: a plugin without a daemon, by the same sandboxed way. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Exit codes; man page and GUIDE.md list them. */
enum run_exit {
        RUN_EXIT_DONE = 0,
        RUN_EXIT_FAILED = 1,  /* the job failed */
        RUN_EXIT_USAGE = 2,   /* no such job, bad arguments */
        RUN_EXIT_REFUSED = 3, /* the plugin cannot be loaded */
        RUN_EXIT_DIED = 4,    /* the worker died: crash, or a system call the sandbox forbids */
};

struct run_config {
        const char *plugin; /* path */
        const char *job;    /* NULL: only check */
        char *const *words; /* key=value, NULL-terminated */
        bool is_json;
        uint64_t memory_bytes; /* as in struct limits */
        uint64_t start_ns;     /* that its start may take; 0 = any */
};

#define RUN_START_NS UINT64_C(30000000000) /* as TimeoutStartSec= of a pool */
uint64_t run_start_deadline(uint64_t start_ns);

/* Result on stdout; what the plugin prints, and why it failed, on stderr. Returns an exit code. */
int run_plugin(const struct run_config *c);
