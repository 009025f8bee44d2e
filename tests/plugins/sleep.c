/* Sleeps `ms` milliseconds and cannot be asked to stop. */
#include <drover/plugin.h>
#include <time.h>

static int sleep_ms(drover_job *job) {
        uint64_t ms;
        int r = drover_arg_u64(job, "ms", &ms);
        if (r < 0)
                return r;
        nanosleep(&(struct timespec){.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000}, NULL);
        return drover_ret_u64(job, "ms", ms);
}

static const struct drover_job_type jobs[] = {
        {.name = "sleep", .args = "ms:u64", .result = "ms:u64", .handle = sleep_ms}};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs)};
DROVER_REGISTER(plugin, "sleep", "1.0")
