/* Asks whether it may go on, and goes on whatever the answer: `ms` milliseconds. */
#include <drover/plugin.h>
#include <time.h>

static int ignore(drover_job *job) {
        uint64_t ms, refusals = 0;
        int r = drover_arg_u64(job, "ms", &ms);
        if (r < 0)
                return r;
        for (uint64_t i = 0; i < ms; i++) {
                nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
                refusals += drover_checkpoint(job) < 0;
        }
        return drover_ret_u64(job, "refusals", refusals);
}

static const struct drover_job_type jobs[] = {
        {.name = "ignore", .args = "ms:u64", .result = "refusals:u64", .handle = ignore}};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs)};
DROVER_REGISTER(plugin, "ignorecancel", "1.0")
