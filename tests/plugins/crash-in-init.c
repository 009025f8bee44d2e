/* Dies in worker_init, in every worker. */
#include <drover/plugin.h>

static volatile uintptr_t nowhere = 16; /* the compiler must not know */

static int worker_init(drover_worker *worker, void **state) {
        *(volatile int *)nowhere = 1;
        return 0;
}

static int run(drover_job *job) { return 0; }

static const struct drover_job_type jobs[] = {{.name = "run", .handle = run}};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs), .worker_init = worker_init};
DROVER_REGISTER(plugin, "crash-in-init", "1.0")
