/* Benchmark `throughput`: jobs of 64 bytes a second with 64 in flight, through a running daemon's pool of N workers.
 *
 * One worker: client on the first CPU, the other side on the second, limit rings with futexes. Several: more processes
 * than CPUs and nobody pinned, limit the better of sleeping and of spinning rings. Both sides of a pair fetch all there
 * is, then fill the window again.
 *
 *   droverctl run --plugin=echo.so --workers=N -- throughput echo N [--pairs=N] */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/memory/event.h"
#include "tests/bench/bare.h"
#include "tests/bench/bench.h"

enum { JOBS = 100000, WINDOW = 64 };

static double ours(struct session *s) {
        char payload[BENCH_PAYLOAD] = {0};
        struct session_job job = {.priority = LAYOUT_PRIORITY_DEFAULT, .payload = payload, .bytes = sizeof payload};
        struct session_result result;
        uint64_t start_ns = event_now_ns(), sent = 0, got = 0;
        while (got < JOBS) {
                uint32_t slot;
                for (; sent < JOBS && sent - got < WINDOW; sent++) {
                        memcpy(payload, &sent, sizeof sent);
                        job.user = sent;
                        int r = session_submit(s, &job, &slot);
                        if (r < 0)
                                bench_die("submit", r);
                }
                int r = session_next(s, &result, EVENT_FOREVER);
                if (r != 1)
                        bench_die("no answer", r < 0 ? r : ETIMEDOUT);
                do {
                        if (result.state != SLOT_DONE || memcmp(result.data, &result.user, sizeof result.user) != 0)
                                bench_die("a wrong answer", EBADMSG);
                        got++;
                } while (got < sent && session_next(s, &result, 0) == 1);
        }
        return (double)JOBS * 1e9 / (double)(event_now_ns() - start_ns);
}

static double limit_of(unsigned n_workers, bool spins) {
        struct bare *b = bare_start(n_workers, spins, n_workers == 1 ? 1 : -1);
        bare_throughput(b, JOBS / 10, WINDOW);
        double rate = bare_throughput(b, JOBS, WINDOW);
        bare_stop(b);
        return rate;
}

int main(int argc, char *argv[]) {
        unsigned n_workers = argc < 3 ? 0 : (unsigned)atoi(argv[2]);
        if (n_workers < 1 || n_workers > BARE_MAX_WORKERS) {
                fputs("throughput POOL WORKERS [--pairs=N]\n", stderr);
                return 2;
        }
        static struct bench_pairs p = {.bench = "throughput", .unit = "jobs/s"};
        char name[32];
        snprintf(name, sizeof name, "%u worker%s", n_workers, n_workers == 1 ? "" : "s");
        p.name = name;
        p.limit_name = n_workers == 1 ? "bare rings with futexes" : "bare rings, the better of sleeping and spinning";
        struct session *s = bench_open(argv[1]);
        p.n = bench_pairs(argc, argv);
        p.worker_pid = bench_run_one(s);
        if (n_workers == 1) {
                bench_pin(0, 0);
                bench_pin((int)p.worker_pid, 1);
        } else
                bench_pin(0, -1);

        ours(s);
        for (unsigned i = 0; i < p.n; i++) {
                p.limit[i] = limit_of(n_workers, false);
                double spinning = n_workers > 1 ? limit_of(n_workers, true) : 0;
                if (spinning > p.limit[i])
                        p.limit[i] = spinning;
                p.ours[i] = ours(s);
        }
        bench_report(&p);
        session_free(s);
        return 0;
}
