/* Says no in worker_init, with a reason. */
#include <drover/plugin.h>
#include <errno.h>

static int worker_init(drover_worker *worker, void **state) { return -EDOM; }

static int run(drover_job *job) { return 0; }

static const struct drover_job_type jobs[] = {{.name = "run", .handle = run}};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs), .worker_init = worker_init};
DROVER_REGISTER(plugin, "refuses-init", "1.0")
