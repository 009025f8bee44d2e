/* Fails as it is told. */
#include <drover/plugin.h>

static int fail(drover_job *job) {
        int64_t error;
        const char *text;
        int r = drover_arg_i64(job, "error", &error);
        if (r >= 0)
                r = drover_arg_str(job, "text", &text, NULL);
        if (r < 0)
                return r;
        return *text ? drover_fail(job, (int)error, "%s", text) : -(int)error;
}

static int retry(drover_job *job) { return drover_retry(job, 1000000, "not yet"); }

static const struct drover_job_type jobs[] = {
        {.name = "fail", .args = "error:i64,text:str", .handle = fail},
        {.name = "retry", .handle = retry},
};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs)};
DROVER_REGISTER(plugin, "fails", "1.0")
