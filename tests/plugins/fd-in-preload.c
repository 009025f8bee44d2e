/* Leaves a descriptor open after preload: every worker would share it. */
#include <drover/plugin.h>
#include <errno.h>
#include <unistd.h>

static int preload(drover_preload_ctx *ctx, void **shared) {
        int ends[2];
        if (pipe(ends) < 0)
                return -errno;
        close(ends[1]);
        return 0;
}

static int run(drover_job *job) { return 0; }

static const struct drover_job_type jobs[] = {{.name = "run", .handle = run}};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs), .preload = preload};
DROVER_REGISTER(plugin, "fd-in-preload", "1.0")
