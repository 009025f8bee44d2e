/* What the benchmarks of a channel share: a session of the running daemon, pinning, figures in pairs, and the line. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ipc/client/session/session.h"

enum { BENCH_PAYLOAD = 64, BENCH_PAIRS = 21, BENCH_MAX_PAIRS = 1000 };

_Noreturn void bench_die(const char *what, int error);

/* "--pairs=N" of the command line; BENCH_PAIRS. */
unsigned bench_pairs(int argc, char *argv[]);

/* A session of pool `pool` on the bus of DBUS_SESSION_BUS_ADDRESS, as `droverctl run` sets it. */
struct session *bench_open(const char *pool);
/* One job and its answer, checked: the worker's pid. */
uint32_t bench_run_one(struct session *s);
/* Pins process `pid` (0 = this one) to one CPU; -1 = to all that this process had at first. */
void bench_pin(int pid, int cpu);

/* Longer than any spin of the other side, which then sleeps when the next job comes. Busy, so that this side is awake
 * and its CPU at full speed: what is measured is the other side's sleep and ours while it works. */
void bench_pause(void);

struct bench_pairs {
        const char *bench, *name, *unit, *limit_name;
        unsigned n;
        double ours[BENCH_MAX_PAIRS], limit[BENCH_MAX_PAIRS];
        uint32_t worker_pid;
};

/* Prints the line: medians, and median and quartiles of the pairs' ratios. */
void bench_report(const struct bench_pairs *p);
double bench_median(double *v, unsigned n); /* sorts */
