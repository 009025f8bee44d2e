/* Jobs whose lives the tests look at: long results, a death unless a file is there, one more try … */
#include <drover/plugin.h>

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int big(drover_job *job) {
        uint64_t bytes;
        int r = drover_arg_u64(job, "bytes", &bytes);
        if (r < 0)
                return r;
        void *data = calloc(1, bytes ? bytes : 1);
        if (!data)
                return -ENOMEM;
        r = drover_ret_bytes(job, "data", data, bytes);
        free(data);
        return r;
}

/* Says what it was called with, and when. */
static int tell(drover_job *job) {
        struct timespec now;
        uint64_t n;
        int r = drover_arg_u64(job, "n", &n);
        clock_gettime(CLOCK_REALTIME, &now);
        if (r >= 0)
                r = drover_ret_u64(job, "n", n);
        if (r >= 0)
                r = drover_ret_u64(job, "attempt", drover_job_attempt(job));
        if (r >= 0)
                r = drover_ret_u64(job, "usec", (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000);
        return r;
}

/* Asks for one more try until it has failed `fails` times. */
static int flaky(drover_job *job) {
        uint64_t fails, after_ms;
        int r = drover_arg_u64(job, "fails", &fails);
        if (r >= 0)
                r = drover_arg_u64(job, "after_ms", &after_ms);
        if (r < 0)
                return r;
        uint32_t attempt = drover_job_attempt(job);
        if (attempt <= fails)
                return drover_retry(job, after_ms * 1000000, "not yet, after attempt %u", attempt);
        return drover_ret_u64(job, "attempt", attempt);
}

static int die(drover_job *job) {
        raise(SIGKILL);
        return 0;
}

static const struct drover_job_type jobs[] = {
        {.name = "big", .args = "bytes:u64", .result = "data:bytes", .handle = big},
        {.name = "tell", .args = "n:u64", .result = "n:u64,attempt:u64,usec:u64", .handle = tell},
        {.name = "flaky", .args = "fails:u64,after_ms:u64", .result = "attempt:u64", .handle = flaky},
        {.name = "flaky_once",
         .args = "fails:u64,after_ms:u64",
         .result = "attempt:u64",
         .handle = flaky,
         .flags = DROVER_ONCE},
        {.name = "die", .handle = die},
};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs)};
DROVER_REGISTER(plugin, "jobs", "1.0")
