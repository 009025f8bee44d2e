/* What benchmarks do with libdrover's futures: one after the other, or 64 in flight. Every answer is compared. */
#include <drover/drover.h>
#include <errno.h>
#include <string.h>

#include "ipc/memory/event.h"
#include "tests/bench/bench.h"
#include "tests/bench/futures.h"

enum { JOBS_WINDOW = 64 };

void futures_check(const char *what, int r) {
        if (r < 0)
                bench_die(what, r);
}

void futures_take(drover_future *f, uint64_t sent) {
        const void *data;
        size_t bytes;
        futures_check("a job", drover_future_result(f, &data, &bytes));
        if (bytes != BENCH_PAYLOAD || memcmp(data, &sent, sizeof sent) != 0)
                bench_die("a wrong answer", EBADMSG);
        drover_future_unref(f);
}

drover_future *futures_submit(drover_pool *pool, uint64_t number) {
        char payload[BENCH_PAYLOAD] = {0};
        drover_future *f;
        memcpy(payload, &number, sizeof number);
        futures_check("submit", drover_submit_raw(pool, "echo", payload, sizeof payload, NULL, &f));
        return f;
}

uint64_t futures_run_one(drover_pool *pool) {
        struct drover_run run;
        drover_future *f = futures_submit(pool, 1);
        futures_check("wait", drover_future_wait(f, DROVER_FOREVER));
        futures_check("run", drover_future_get_run(f, &run, sizeof run));
        futures_take(f, 1);
        return run.worker_pid;
}

double futures_rate(drover_pool *pool, uint64_t n_jobs) {
        drover_future *window[JOBS_WINDOW];
        uint64_t start_ns = event_now_ns();
        for (uint64_t sent = 0, got = 0; got < n_jobs;) {
                for (; sent < n_jobs && sent - got < JOBS_WINDOW; sent++)
                        window[sent % JOBS_WINDOW] = futures_submit(pool, sent);
                futures_check("wait", drover_future_wait(window[got % JOBS_WINDOW], DROVER_FOREVER));
                for (; got < sent && drover_future_error(window[got % JOBS_WINDOW]) == NULL; got++) {
                        const void *data;
                        size_t bytes;
                        if (drover_future_result(window[got % JOBS_WINDOW], &data, &bytes) == -EINPROGRESS)
                                break;
                        futures_take(window[got % JOBS_WINDOW], got);
                }
        }
        return (double)n_jobs * 1e9 / (double)(event_now_ns() - start_ns);
}
