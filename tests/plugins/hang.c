/* Computes for ever and never asks whether it may. */
#include <drover/plugin.h>

static int hang(drover_job *job) {
        for (volatile bool more = true; more;)
                ;
        return 0;
}

static const struct drover_job_type jobs[] = {{.name = "hang", .handle = hang}};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs)};
DROVER_REGISTER(plugin, "hang", "1.0")
