/* Jobs whose answers can be checked, and whose runs can be counted: each run adds one to an element of an array in the
 * arena "torture-runs", wherever the worker is killed afterwards. */
#include <drover/plugin.h>
#include <drover/sync.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/torture/job.h"

static drover_array *runs;

static int on_init(drover_worker *worker, void **state) {
        drover_arena *arena;
        int fd, r = drover_arena_open_fd(worker, TORTURE_ARENA, TORTURE_ARENA_BYTES, &fd);
        if (r < 0)
                return r;
        r = drover_arena_attach(fd, &arena);
        close(fd);
        return r < 0 ? r : drover_array_open(arena, "runs", sizeof(uint64_t), TORTURE_ELEMENTS, &runs);
}

static uint64_t now_ns(void) {
        struct timespec ts;
        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int work(drover_job *job) {
        size_t size;
        const void *payload = drover_payload(job, &size);
        struct torture_job head;
        if (size < sizeof head)
                return drover_fail(job, EINVAL, "a payload of %zu bytes", size);
        memcpy(&head, payload, sizeof head);
        int r = drover_array_add(runs, head.element, 1, NULL);
        if (r < 0)
                return drover_fail(job, -r, "element %u: %s", head.element, strerror(-r));
        if (head.kills)
                raise(SIGKILL);
        for (uint64_t end_ns = now_ns() + head.busy_ns; now_ns() < end_ns;)
                ;
        uint64_t answer = torture_answer(payload, size);
        return drover_reply(job, &answer, sizeof answer);
}

static const struct drover_job_type jobs[] = {{.name = "work", .args = "raw", .result = "raw", .handle = work}};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs), .worker_init = on_init};
DROVER_REGISTER(plugin, "torture", "1.0.0")
