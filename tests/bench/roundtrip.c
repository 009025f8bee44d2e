/* Benchmark `roundtrip`: one job of 64 bytes there and back, through a running daemon's pool with one worker.
 *
 *   sleeping   both sides are asleep when the job comes: a pause longer than any spin stands before each. Limit: two
 *              futex words, with the same pause.
 *   spinning   no pause and a client that spins. Limit: rings that spin.
 *
 * A pair is a batch of the limit and a batch of ours, medians of the single times; client on the first CPU, the
 * answering process on the second, in both.
 *
 *   droverctl run --plugin=echo.so --workers=1 -- roundtrip echo [--pairs=N] */
#include <stdio.h>
#include <string.h>

#include "ipc/memory/event.h"
#include "tests/bench/bare.h"
#include "tests/bench/bench.h"

enum { SLEEPING_BATCH = 600, SPINNING_BATCH = 10000, WARM_UP = 100 };

struct subject {
        struct session *session;
        struct bare *bare;
        void (*once)(struct subject *s);
};

static void ours(struct subject *s) { bench_run_one(s->session); }

static void limit_ping(struct subject *s) { bare_ping(s->bare); }

static void limit_rings(struct subject *s) { bare_roundtrip(s->bare); }

static double batch_us(struct subject *s, unsigned n, bool spins) {
        static double times[SPINNING_BATCH];
        for (unsigned i = 0; i < WARM_UP; i++)
                s->once(s);
        for (unsigned i = 0; i < n; i++) {
                if (!spins)
                        bench_pause();
                uint64_t start_ns = event_now_ns();
                s->once(s);
                times[i] = (double)(event_now_ns() - start_ns) / 1e3;
        }
        return bench_median(times, n);
}

static void run(struct subject *s, struct bench_pairs *p, bool spins) {
        unsigned n = spins ? SPINNING_BATCH : SLEEPING_BATCH;
        session_set_spin(s->session, spins);
        for (unsigned i = 0; i < p->n; i++) {
                s->bare = bare_start(1, spins, 1);
                s->once = spins ? limit_rings : limit_ping;
                p->limit[i] = batch_us(s, n, spins);
                bare_stop(s->bare);
                s->once = ours;
                p->ours[i] = batch_us(s, n, spins);
        }
        bench_report(p);
}

int main(int argc, char *argv[]) {
        if (argc < 2) {
                fputs("roundtrip POOL [--pairs=N]\n", stderr);
                return 2;
        }
        static struct bench_pairs p = {.bench = "roundtrip", .unit = "us"};
        struct subject s = {.session = bench_open(argv[1])};
        p.n = bench_pairs(argc, argv);
        p.worker_pid = bench_run_one(s.session);
        bench_pin(0, 0);
        bench_pin((int)p.worker_pid, 1);

        p.name = "sleeping";
        p.limit_name = "bare futex ping-pong";
        run(&s, &p, false);
        p.name = "spinning";
        p.limit_name = "bare spinning rings";
        run(&s, &p, true);
        session_free(s.session);
        return 0;
}
