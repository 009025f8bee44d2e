/* Gives its payload back: what a job costs when the handler costs nothing. */
#include <drover/plugin.h>

static int echo(drover_job *job) {
        size_t size;
        const void *payload = drover_payload(job, &size);
        return drover_reply(job, payload, size);
}

static const struct drover_job_type jobs[] = {
        {
                .name = "echo",
                .args = "raw",
                .result = "raw",
                .help = "The payload comes back",
                .handle = echo,
                .models = DROVER_MODEL_PROCESS | DROVER_MODEL_THREADS | DROVER_MODEL_FIBERS,
        },
};

static struct drover_plugin plugin = {
        .jobs = jobs,
        .n_jobs = DROVER_COUNT(jobs),
};
DROVER_REGISTER(plugin, "echo", "1.0.0")
