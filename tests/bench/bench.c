/* Shared by the benchmarks of a channel. A failure ends the program: a benchmark has nobody to report an error to. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-bus.h>

#include "ipc/memory/event.h"
#include "tests/bench/bench.h"

#define BENCH_PAUSE_NS UINT64_C(60000)

void bench_die(const char *what, int error) {
        fprintf(stderr, "benchmark: %s: %s\n", what, strerror(error < 0 ? -error : error));
        exit(1);
}

unsigned bench_pairs(int argc, char *argv[]) {
        unsigned n = BENCH_PAIRS;
        for (int i = 1; i < argc; i++)
                if (strncmp(argv[i], "--pairs=", 8) == 0)
                        n = (unsigned)atoi(argv[i] + 8);
        if (n < 1 || n > BENCH_MAX_PAIRS)
                bench_die("--pairs=", EINVAL);
        return n;
}

struct session *bench_open(const char *pool) {
        static sd_bus *bus; /* stays open: the session ends with its name on the bus */
        int r = sd_bus_open_user(&bus);
        if (r < 0)
                bench_die("the bus", r);
        struct session *s;
        char error[400];
        r = session_open(&s, bus, pool, error, sizeof error);
        if (r < 0)
                bench_die(error, r);
        return s;
}

uint32_t bench_run_one(struct session *s) {
        const char payload[BENCH_PAYLOAD] = "there and back";
        const struct session_job job = {
                .priority = LAYOUT_PRIORITY_DEFAULT, .payload = payload, .bytes = sizeof payload};
        uint32_t slot;
        struct session_result result;
        int r = session_submit(s, &job, &slot);
        if (r < 0)
                bench_die("submit", r);
        r = session_next(s, &result, EVENT_FOREVER);
        if (r != 1)
                bench_die("no answer", r < 0 ? r : ETIMEDOUT);
        if (result.state != SLOT_DONE || result.bytes != sizeof payload || memcmp(result.data, payload, sizeof payload))
                bench_die("a wrong answer", EBADMSG);
        return result.worker_pid;
}

void bench_pin(int pid, int cpu) {
        static cpu_set_t all;
        static bool has_all;
        if (!has_all)
                has_all = sched_getaffinity(0, sizeof all, &all) == 0;
        cpu_set_t one;
        CPU_ZERO(&one);
        for (int i = 0, k = 0; cpu >= 0 && i < CPU_SETSIZE; i++) /* the cpu'th of those we may use */
                if (CPU_ISSET(i, &all) && k++ == cpu)
                        CPU_SET(i, &one);
        if (sched_setaffinity(pid, sizeof one, cpu < 0 || CPU_COUNT(&one) == 0 ? &all : &one) < 0)
                bench_die("sched_setaffinity", errno);
}

static int bench_compare(const void *a, const void *b) {
        double x = *(const double *)a, y = *(const double *)b;
        return (x > y) - (x < y);
}

static double bench_quantile(double *v, unsigned n, double q) {
        qsort(v, n, sizeof *v, bench_compare);
        return v[(unsigned)(q * (n - 1) + 0.5)];
}

double bench_median(double *v, unsigned n) { return bench_quantile(v, n, 0.5); }

void bench_pause(void) {
        for (uint64_t until_ns = event_now_ns() + BENCH_PAUSE_NS; event_now_ns() < until_ns;)
                event_pause();
}

void bench_report(const struct bench_pairs *p) {
        static double ratio[BENCH_MAX_PAIRS], copy[BENCH_MAX_PAIRS];
        for (unsigned i = 0; i < p->n; i++)
                ratio[i] = p->ours[i] / p->limit[i];
        memcpy(copy, p->ours, p->n * sizeof *copy);
        double ours = bench_median(copy, p->n);
        memcpy(copy, p->limit, p->n * sizeof *copy);
        double limit = bench_median(copy, p->n);
        printf("{\"bench\":\"%s\",\"case\":\"%s\",\"ours\":%.6g,\"unit\":\"%s\",\"limit\":%.6g,\"limit_name\":\"%s\","
               "\"ratio\":%.3f,\"ratio_low\":%.3f,\"ratio_high\":%.3f,\"pairs\":%u,\"worker_pid\":%u}\n",
               p->bench, p->name, ours, p->unit, limit, p->limit_name, bench_median(ratio, p->n),
               bench_quantile(ratio, p->n, 0.25), bench_quantile(ratio, p->n, 0.75), p->n, p->worker_pid);
        fflush(stdout);
}
