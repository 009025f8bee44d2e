/* Dies in preload: with forkserver that is the template's death. */
#include <drover/plugin.h>

static volatile uintptr_t nowhere = 16; /* the compiler must not know */

static int preload(drover_preload_ctx *ctx, void **shared) {
        *(volatile int *)nowhere = 1;
        return 0;
}

static int run(drover_job *job) { return 0; }

static const struct drover_job_type jobs[] = {{.name = "run", .handle = run}};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs), .preload = preload};
DROVER_REGISTER(plugin, "crash-in-preload", "1.0")
