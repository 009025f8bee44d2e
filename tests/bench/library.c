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

#include "ipc/memory/event.h"
#include "tests/bench/bare.h"
#include "tests/bench/bench.h"
#include "tests/bench/futures.h"

enum { ROUNDTRIPS = 600, JOBS = 100000, WINDOW = 64 };

static drover_pool *pool;

/* ---- round trips ---- */

static void once(struct bare *b) {
        if (b) {
                bare_ping(b);
                return;
        }
        futures_run_one(pool);
}

/* As in roundtrip.c: a pause longer than any spin of the other side stands before each. */
static double roundtrip_us(struct bare *b) {
        static double times[ROUNDTRIPS];
        for (unsigned i = 0; i < ROUNDTRIPS; i++) {
                bench_pause();
                uint64_t start_ns = event_now_ns();
                once(b);
                times[i] = (double)(event_now_ns() - start_ns) / 1e3;
        }
        return bench_median(times, ROUNDTRIPS);
}

/* ---- throughput ---- */

static double one_by_one(void) { return futures_rate(pool, JOBS); }

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
        futures_check("map", drover_map(pool, "echo", next_input, NULL, NULL, &it));
        while ((r = drover_iterator_next(it, &f, DROVER_FOREVER)) == 1)
                futures_take(f, got++);
        futures_check("map", r);
        drover_iterator_free(it);
        return (double)JOBS * 1e9 / (double)(event_now_ns() - start_ns);
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
        if (argc < 2) {
                fputs("library POOL [--pairs=N]\n", stderr);
                return 2;
        }
        static struct bench_pairs p = {
                .bench = "roundtrip", .name = "libdrover", .unit = "us", .limit_name = "bare futex ping-pong"};
        futures_check("the bus", drover_open(NULL, &d));
        futures_check("the pool", drover_pool_open(d, argv[1], &pool));
        p.n = bench_pairs(argc, argv);
        p.worker_pid = (uint32_t)futures_run_one(pool);
        bench_pin(0, 0);
        bench_pin((int)p.worker_pid, 1);
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
