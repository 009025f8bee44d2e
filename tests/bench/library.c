/* Benchmarks of libdrover, through a running daemon's pool of one worker: the same limits as those of a bare channel,
 * so that what futures cost is seen.
 *
 *   roundtrip `libdrover`    submit and wait, both sides asleep when the job comes; limit: bare futex ping-pong
 *   throughput `libdrover`   64 futures in flight, one by one; limit: bare rings with futexes, window 64
 *   throughput `map`         drover_map as it comes; the same limit
 *
 *   droverctl run --plugin=echo.so --workers=1 -- library echo [--pairs=N] */
#include <drover/drover.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "ipc/event.h"
#include "tests/bench/bare.h"
#include "tests/bench/bench.h"

enum { ROUNDTRIPS = 600, JOBS = 100000, WINDOW = 64 };

#define PAUSE_NS UINT64_C(20000)

static drover_pool *pool;

static void check(const char *what, int r) {
        if (r < 0)
                bench_die(what, r);
}

/* What came back is what was sent; gives the future back. */
static void take(drover_future *f, uint64_t sent) {
        const void *data;
        size_t bytes;
        check("a job", drover_future_result(f, &data, &bytes));
        if (bytes != BENCH_PAYLOAD || memcmp(data, &sent, sizeof sent) != 0)
                bench_die("a wrong answer", EBADMSG);
        drover_future_unref(f);
}

static drover_future *submit(uint64_t number) {
        char payload[BENCH_PAYLOAD] = {0};
        drover_future *f;
        memcpy(payload, &number, sizeof number);
        check("submit", drover_submit_raw(pool, "echo", payload, sizeof payload, NULL, &f));
        return f;
}

/* ---- round trips ---- */

static void once(struct bare *b) {
        if (b) {
                bare_ping(b);
                return;
        }
        drover_future *f = submit(1);
        check("wait", drover_future_wait(f, DROVER_FOREVER));
        take(f, 1);
}

/* As in roundtrip.c: a pause longer than any spin of the other side stands before each. */
static double roundtrip_us(struct bare *b) {
        static double times[ROUNDTRIPS];
        for (unsigned i = 0; i < ROUNDTRIPS; i++) {
                for (uint64_t until_ns = event_now_ns() + PAUSE_NS; event_now_ns() < until_ns;)
                        event_pause();
                uint64_t start_ns = event_now_ns();
                once(b);
                times[i] = (double)(event_now_ns() - start_ns) / 1e3;
        }
        return bench_median(times, ROUNDTRIPS);
}

/* ---- throughput ---- */

static double rate(uint64_t start_ns) { return (double)JOBS * 1e9 / (double)(event_now_ns() - start_ns); }

/* A window of futures, waited for from the oldest. */
static double one_by_one(void) {
        drover_future *window[WINDOW];
        uint64_t start_ns = event_now_ns();
        for (uint64_t sent = 0, got = 0; got < JOBS;) {
                for (; sent < JOBS && sent - got < WINDOW; sent++)
                        window[sent % WINDOW] = submit(sent);
                check("wait", drover_future_wait(window[got % WINDOW], DROVER_FOREVER));
                for (; got < sent && drover_future_error(window[got % WINDOW]) == NULL; got++) {
                        const void *data;
                        size_t bytes;
                        if (drover_future_result(window[got % WINDOW], &data, &bytes) == -EINPROGRESS)
                                break;
                        take(window[got % WINDOW], got);
                }
        }
        return rate(start_ns);
}

static int next_input(void *user, uint64_t index, drover_args *args) {
        char payload[BENCH_PAYLOAD] = {0};
        if (index == JOBS)
                return 0;
        memcpy(payload, &index, sizeof index);
        int r = drover_args_raw(args, payload, sizeof payload);
        return r < 0 ? r : 1;
}

static double map(void) {
        drover_iterator *it;
        drover_future *f;
        uint64_t start_ns = event_now_ns(), got = 0;
        int r;
        check("map", drover_map(pool, "echo", next_input, NULL, NULL, &it));
        while ((r = drover_iterator_next(it, &f, DROVER_FOREVER)) == 1)
                take(f, got++);
        check("map", r);
        drover_iterator_free(it);
        return rate(start_ns);
}

static void compare_rates(struct bench_pairs *p, const char *name, double (*ours)(void)) {
        p->name = name;
        ours();
        for (unsigned i = 0; i < p->n; i++) {
                struct bare *b = bare_start(1, false, 1);
                bare_throughput(b, JOBS / 10, WINDOW);
                p->limit[i] = bare_throughput(b, JOBS, WINDOW);
                bare_stop(b);
                p->ours[i] = ours();
        }
        bench_report(p);
}

int main(int argc, char *argv[]) {
        drover *d;
        struct drover_run run;
        if (argc < 2) {
                fputs("library POOL [--pairs=N]\n", stderr);
                return 2;
        }
        static struct bench_pairs p = {
                .bench = "roundtrip", .name = "libdrover", .unit = "us", .limit_name = "bare futex ping-pong"};
        check("the bus", drover_open(NULL, &d));
        check("the pool", drover_pool_open(d, argv[1], &pool));
        drover_future *f = submit(0);
        check("wait", drover_future_wait(f, DROVER_FOREVER));
        check("run", drover_future_get_run(f, &run, sizeof run));
        drover_future_unref(f);
        p.n = bench_pairs(argc, argv);
        p.worker_pid = (uint32_t)run.worker_pid;
        bench_pin(0, 0);
        bench_pin(run.worker_pid, 1);
        for (unsigned i = 0; i < p.n; i++) {
                struct bare *b = bare_start(1, false, 1);
                p.limit[i] = roundtrip_us(b);
                bare_stop(b);
                p.ours[i] = roundtrip_us(NULL);
        }
        bench_report(&p);

        p.bench = "throughput";
        p.unit = "jobs/s";
        p.limit_name = "bare rings with futexes";
        compare_rates(&p, "libdrover", one_by_one);
        compare_rates(&p, "map", map);
        drover_pool_unref(pool);
        drover_close(d);
        return 0;
}
