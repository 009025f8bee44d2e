/* Returns results that are not what its signatures say: each job must end FAILED, with the field named. */
#include <drover/plugin.h>
#include <string.h>

static int missing(drover_job *job) { return 0; }

static int unknown(drover_job *job) {
        drover_ret_u64(job, "value", 1);
        return drover_ret_u64(job, "surprise", 2);
}

static int type(drover_job *job) { return drover_ret_str(job, "value", "not a number"); }

static int twice(drover_job *job) {
        drover_ret_u64(job, "value", 1);
        return drover_ret_u64(job, "value", 2);
}

static int utf8(drover_job *job) { return drover_ret_str(job, "text", "caf\xe9 \xff\xfe"); }

static int huge(drover_job *job) {
        static char text[2 << 20];
        memset(text, 'x', sizeof text - 1);
        drover_ret_str(job, "text", text);
        return 0; /* does not even look */
}

static int positive(drover_job *job) { return 7; }

static int unknown_errno(drover_job *job) { return -123456; }

static int message(drover_job *job) { return drover_fail(job, 22, "not \xff text \xc3"); }

static int raw_in_typed(drover_job *job) { return drover_reply(job, "raw", 3); }

static const struct drover_job_type jobs[] = {
        {.name = "missing", .result = "value:u64", .handle = missing},
        {.name = "unknown", .result = "value:u64", .handle = unknown},
        {.name = "type", .result = "value:u64", .handle = type},
        {.name = "twice", .result = "value:u64", .handle = twice},
        {.name = "utf8", .result = "text:str", .handle = utf8},
        {.name = "huge", .result = "text:str", .handle = huge},
        {.name = "positive", .handle = positive},
        {.name = "errno", .handle = unknown_errno},
        {.name = "message", .handle = message},
        {.name = "raw", .result = "value:u64", .handle = raw_in_typed},
};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs)};
DROVER_REGISTER(plugin, "garbage", "1.0")
