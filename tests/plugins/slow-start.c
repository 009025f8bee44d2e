/* Takes 300 ms to start; then each job sleeps `ms`. */
#include <drover/plugin.h>
#include <time.h>

static void sleep_ms(uint64_t ms) {
        nanosleep(&(struct timespec){.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000}, NULL);
}

static int worker_init(drover_worker *worker, void **state) {
        sleep_ms(300);
        return 0;
}

static int run(drover_job *job) {
        uint64_t ms;
        int r = drover_arg_u64(job, "ms", &ms);
        if (r < 0)
                return r;
        sleep_ms(ms);
        return 0;
}

static const struct drover_job_type jobs[] = {{.name = "sleep", .args = "ms:u64", .handle = run}};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs), .worker_init = worker_init};
DROVER_REGISTER(plugin, "slow-start", "1.0")
