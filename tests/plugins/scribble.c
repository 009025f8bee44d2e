/* Writes over its input, which is mapped read-only. */
#include <drover/plugin.h>

static int scribble(drover_job *job) {
        size_t size;
        volatile char *payload = (char *)drover_payload(job, &size);
        for (size_t i = 0; i < size; i++)
                payload[i] = 'X';
        return drover_reply(job, "written", 7);
}

static const struct drover_job_type jobs[] = {{.name = "scribble", .args = "raw", .result = "raw", .handle = scribble}};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs)};
DROVER_REGISTER(plugin, "scribble", "1.0")
