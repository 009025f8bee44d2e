/* Hangs for ever in the callback that Environment=STUCK_IN= names, "constructor" among them; so do its processes in
 * "fini" at their end. */
#include <drover/plugin.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void pass(const char *where) {
        const char *stuck = getenv("STUCK_IN");
        while (stuck && strcmp(stuck, where) == 0)
                pause();
}

__attribute__((constructor)) static void construct(void) { pass("constructor"); }

static int preload(drover_preload_ctx *ctx, void **shared) {
        pass("preload");
        return 0;
}

static int worker_open(drover_worker *worker) {
        pass("worker_open");
        return 0;
}

static int worker_init(drover_worker *worker, void **state) {
        pass("worker_init");
        return 0;
}

static int thread_init(drover_worker *worker, void **state) {
        pass("thread_init");
        return 0;
}

static void worker_fini(drover_worker *worker, void *state) { pass("fini"); }

static int nothing(drover_job *job) { return 0; }

static const struct drover_job_type jobs[] = {{.name = "nothing", .handle = nothing}};
static struct drover_plugin plugin = {.jobs = jobs,
                                      .n_jobs = DROVER_COUNT(jobs),
                                      .preload = preload,
                                      .worker_open = worker_open,
                                      .worker_init = worker_init,
                                      .thread_init = thread_init,
                                      .worker_fini = worker_fini};
DROVER_REGISTER(plugin, "stuck-start", "1.0")
