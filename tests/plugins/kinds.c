/* Job types that move, go and change from one file to the next: VERSION 1 and 2 have "red" and "blue" at each other's
 * place, "gone" only in 1, "new" only in 2, and "other" takes something else. Each answers with its name. */
#include <drover/plugin.h>

static int handle(drover_job *job) { return drover_ret_str(job, "name", drover_job_name(job)); }

#define KIND(n, a)                                                                                                     \
        { .name = n, .args = a, .result = "name:str", .help = "Its name", .handle = handle }

static const struct drover_job_type jobs[] = {
#if VERSION == 1
        KIND("red", "n:u64"),
        KIND("blue", "n:u64"),
        KIND("gone", "n:u64"),
        KIND("other", "n:u64"),
#else
        KIND("blue", "n:u64"),
        KIND("red", "n:u64"),
        KIND("new", "n:u64"),
        KIND("other", "n:str"),
#endif
};

static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs)};
DROVER_REGISTER(plugin, "kinds", "1.0.0")
