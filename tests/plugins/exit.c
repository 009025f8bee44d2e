/* Ends its process in the middle of a job. */
#include <drover/plugin.h>
#include <stdlib.h>
#include <unistd.h>

static int with_exit(drover_job *job) { exit(7); }
static int at_once(drover_job *job) { _exit(7); }
static int with_success(drover_job *job) { _exit(0); }

static const struct drover_job_type jobs[] = {
        {.name = "exit", .handle = with_exit},
        {.name = "_exit", .handle = at_once},
        {.name = "exit0", .handle = with_success},
};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs)};
DROVER_REGISTER(plugin, "exit", "1.0")
