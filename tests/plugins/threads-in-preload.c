/* Leaves a thread running after preload: a template cannot fork it. */
#include <drover/plugin.h>
#include <pthread.h>
#include <unistd.h>

static void *wait_for_ever(void *user) {
        for (;;)
                pause();
        return user;
}

static int preload(drover_preload_ctx *ctx, void **shared) {
        static pthread_t thread;
        *shared = &thread;
        return -pthread_create(&thread, NULL, wait_for_ever, NULL);
}

static int run(drover_job *job) { return drover_ret_bool(job, "shared", drover_shared(job) != NULL); }

static const struct drover_job_type jobs[] = {{.name = "run", .result = "shared:bool", .handle = run}};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs), .preload = preload};
DROVER_REGISTER(plugin, "threads-in-preload", "1.0")
