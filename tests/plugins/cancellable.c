/* Works `ms` milliseconds with a checkpoint in each, and says how far it is, in a note of 120 bytes, which is one too
 * many. */
#include <drover/plugin.h>
#include <time.h>

static int work(drover_job *job) {
        uint64_t ms;
        int r = drover_arg_u64(job, "ms", &ms);
        for (uint64_t i = 0; r >= 0 && i < ms; i++) {
                drover_progress(job, i, ms,
                                "working "
                                "éééééééééééééééééééééééééééééééééééééééééééééééééééééééé");
                nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
                r = drover_checkpoint(job);
        }
        return r < 0 ? r : drover_ret_u64(job, "ms", ms);
}

static const struct drover_job_type jobs[] = {{.name = "work", .args = "ms:u64", .result = "ms:u64", .handle = work}};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs)};
DROVER_REGISTER(plugin, "cancellable", "1.0")
