/* Benchmark `scale`: what a job costs, through libdrover, as sessions and workers grow that have nothing to do with it.
 *
 *   scale `channels`, `channels rate`   100 sessions of the pool, each on a connection of its own, beside one
 *   scale `workers`, `workers rate`     64 workers beside one
 *
 * Round trips with both sides asleep when the job comes, then jobs a second with 64 in flight. With 100 sessions the
 * round trips go through each of them in turn, the others idle; the rate is that of one. Nobody is pinned. The limit is
 * the same with one, by turns.
 *
 *   droverctl run --plugin=echo.so --workers=1 -- scale echo [--pairs=N] */
#include <drover/drover.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <systemd/sd-bus.h>

#include "ipc/memory/event.h"
#include "tests/bench/bench.h"
#include "tests/bench/futures.h"

enum { ROUNDTRIPS = 400, JOBS = 50000, SESSIONS = 100, WORKERS = 64 };

#define PATIENCE_NS UINT64_C(60000000000)

static struct {
        drover *drover;
        drover_pool *pool;
} sessions[SESSIONS];
static unsigned n_sessions;
static const char *pool_name;
static sd_bus *bus;
static char *pool_path;

static void have_sessions(unsigned n) {
        for (; n_sessions < n; n_sessions++) {
                futures_check("the bus", drover_open(NULL, &sessions[n_sessions].drover));
                futures_check("the pool",
                              drover_pool_open(sessions[n_sessions].drover, pool_name, &sessions[n_sessions].pool));
                futures_run_one(sessions[n_sessions].pool);
        }
        for (; n_sessions > n; n_sessions--) {
                drover_pool_unref(sessions[n_sessions - 1].pool);
                drover_close(sessions[n_sessions - 1].drover);
        }
}

/* Workers of the pool, and how many of them are ready and have nothing to do. */
static int count_workers(unsigned *ret_all, unsigned *ret_idle) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *reply = NULL;
        const char *pool, *path, *state;
        uint64_t id;
        uint32_t pid;
        *ret_all = *ret_idle = 0;
        int r = sd_bus_call_method(bus, "org.drover1", "/org/drover1", "org.drover1.Manager", "ListWorkers", NULL,
                                   &reply, NULL);
        if (r >= 0)
                r = sd_bus_message_enter_container(reply, 'a', "(tsous)");
        while (r >= 0 && (r = sd_bus_message_read(reply, "(tsous)", &id, &pool, &path, &pid, &state)) > 0)
                if (strcmp(pool, pool_name) == 0) {
                        ++*ret_all;
                        *ret_idle += strcmp(state, "idle") == 0;
                }
        return r;
}

static void have_workers(unsigned n) {
        unsigned n_all = 0, n_idle = 0;
        int r = sd_bus_call_method(bus, "org.drover1", pool_path, "org.drover1.Pool", "Resize", NULL, NULL, "u", n);
        for (uint64_t until_ns = event_now_ns() + PATIENCE_NS; r >= 0 && (n_all != n || n_idle != n);) {
                r = count_workers(&n_all, &n_idle);
                if (event_now_ns() > until_ns)
                        r = -ETIMEDOUT;
        }
        futures_check("Resize", r);
}

static double roundtrip_us(void) {
        static double times[ROUNDTRIPS];
        for (unsigned i = 0; i < ROUNDTRIPS; i++) {
                bench_pause();
                uint64_t start_ns = event_now_ns();
                futures_run_one(sessions[i % n_sessions].pool);
                times[i] = (double)(event_now_ns() - start_ns) / 1e3;
        }
        return bench_median(times, ROUNDTRIPS);
}

static void compare(const char *name, const char *rate_name, const char *limit_name, void (*have)(unsigned n),
                    unsigned n, unsigned n_pairs) {
        static struct bench_pairs trips, rates;
        trips = (struct bench_pairs){
                .bench = "scale", .name = name, .unit = "us", .limit_name = limit_name, .n = n_pairs};
        rates = trips;
        rates.name = rate_name;
        rates.unit = "jobs/s";
        for (unsigned i = 0; i < n_pairs; i++) {
                trips.limit[i] = roundtrip_us();
                rates.limit[i] = futures_rate(sessions[0].pool, JOBS);
                have(n);
                trips.ours[i] = roundtrip_us();
                rates.ours[i] = futures_rate(sessions[0].pool, JOBS);
                have(1);
        }
        bench_report(&trips);
        bench_report(&rates);
}

int main(int argc, char *argv[]) {
        unsigned n_pairs = bench_pairs(argc, argv);
        if (argc < 2) {
                fputs("scale POOL [--pairs=N]\n", stderr);
                return 2;
        }
        pool_name = argv[1];
        futures_check("the bus", sd_bus_open_user(&bus));
        futures_check("the pool's path", sd_bus_path_encode("/org/drover1/pool", pool_name, &pool_path));
        have_sessions(1);
        compare("channels", "channels rate", "one session", have_sessions, SESSIONS, n_pairs);
        compare("workers", "workers rate", "one worker", have_workers, WORKERS, n_pairs);
        have_sessions(0);
        return 0;
}
