/* The source of hello-1.0.so, which was built once, against the header of ABI 1.0, and must load for ever:
 *
 *     cc -O2 -shared -fPIC -s -Wl,-z,max-page-size=4096 -Wl,--build-id=none -o hello-1.0.so hello-1.0.c
 *
 * Never rebuild it. It uses a bit of everything, so that whatever moves in the ABI breaks it. */
#include <drover/plugin.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static int hello(drover_job *job) {
        const char *who;
        int r = drover_arg_str(job, "who", &who, NULL);
        if (r < 0)
                return r;
        if (!*who)
                return drover_fail(job, EINVAL, "attempt %u of %s greets nobody", drover_job_attempt(job),
                                   drover_job_name(job));
        char greeting[256];
        snprintf(greeting, sizeof greeting, "Hello, %s!", who);
        drover_progress(job, 1, 1, "greeted");
        return drover_ret_str(job, "greeting", greeting);
}

static int sum(drover_job *job) {
        const uint64_t *values;
        size_t n;
        uint64_t total = 0;
        int r = drover_arg_u64_array(job, "values", &values, &n);
        for (size_t i = 0; r >= 0 && i < n; i++) {
                total += values[i];
                r = drover_checkpoint(job);
        }
        return r < 0 ? r : drover_ret_u64(job, "total", total);
}

static int echo(drover_job *job) {
        size_t size;
        const void *payload = drover_payload(job, &size);
        void *room = drover_reserve(job, size);
        if (!room)
                return -EMSGSIZE;
        memcpy(room, payload, size);
        return drover_commit(job, size);
}

static int callbacks(drover_job *job) {
        const char *shared = drover_shared(job), *state = drover_state(job), *thread_state = drover_thread_state(job);
        if (!shared || !state || !thread_state || drover_get_extension(job, "org.drover.none/1"))
                return -ENODATA;
        drover_ret_str(job, "shared", shared);
        drover_ret_str(job, "state", state);
        return drover_ret_str(job, "thread", thread_state);
}

static int preload(drover_preload_ctx *ctx, void **shared) {
        *shared = (void *)"of preload";
        return 0;
}
static int worker_open(drover_worker *worker) { return drover_worker_id(worker) > 0 ? 0 : -EINVAL; }
static int worker_init(drover_worker *worker, void **state) {
        *state = (void *)"of worker_init";
        return 0;
}
static int thread_init(drover_worker *worker, void **thread_state) {
        *thread_state = (void *)"of thread_init";
        return 0;
}
static void thread_fini(drover_worker *worker, void *thread_state) {
        drover_log(worker, 6, "bye from %s", drover_pool_name(worker));
}
static void worker_fini(drover_worker *worker, void *state) {}

static const struct drover_job_type jobs[] = {
        {.name = "hello", .args = "who:str", .result = "greeting:str", .help = "Greets.", .handle = hello},
        {.name = "sum",
         .args = "values:u64[]",
         .result = "total:u64",
         .handle = sum,
         .models = 7,
         .flags = DROVER_ONCE},
        {.name = "echo", .args = "raw", .result = "raw", .handle = echo},
        {.name = "callbacks", .result = "shared:str,state:str,thread:str", .handle = callbacks},
};
static struct drover_plugin plugin = {
        .jobs = jobs,
        .n_jobs = DROVER_COUNT(jobs),
        .description = "The first plugin there was",
        .preload = preload,
        .worker_open = worker_open,
        .worker_init = worker_init,
        .thread_init = thread_init,
        .thread_fini = thread_fini,
        .worker_fini = worker_fini,
};
DROVER_REGISTER(plugin, "hello", "1.0.0")
