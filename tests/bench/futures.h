/* What benchmarks do with libdrover's futures. A failure ends the program. */
#pragma once

#include <drover/drover.h>
#include <stdint.h>

void futures_check(const char *what, int r);
drover_future *futures_submit(drover_pool *pool, uint64_t number); /* to the type echo */
/* What came back is what was sent; gives the future back. */
void futures_take(drover_future *f, uint64_t sent);
/* There and back; the worker's pid. */
uint64_t futures_run_one(drover_pool *pool);
/* Jobs a second, with a window of 64, waited for from the oldest. */
double futures_rate(drover_pool *pool, uint64_t n_jobs);
