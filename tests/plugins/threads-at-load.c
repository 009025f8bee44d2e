/* NAME: needs a library that starts threads when it is loaded (threads-at-load-lib.c). */
#include <drover/plugin.h>

void threads_at_load(void);

static int run(drover_job *job) {
        threads_at_load();
        return 0;
}

static const struct drover_job_type jobs[] = {{.name = "run", .handle = run}};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs)};
DROVER_REGISTER(plugin, NAME, "1.0")
