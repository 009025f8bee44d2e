/* A job that streams: prime numbers, handed out as they are found, long before the last one is. */
#include <drover/plugin.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { SIEVE_MAX = 100000000 };

/* One item a prime, as decimal text. */
static int emit_number(drover_job *job, uint64_t n) {
        char text[24];
        int length = snprintf(text, sizeof text, "%" PRIu64, n);
        return drover_emit(job, text, (size_t)length);
}

static int primes(drover_job *job) {
        uint64_t to, count = 0;
        int r = drover_arg_u64(job, "to", &to);
        if (r < 0)
                return r;
        if (to > SIEVE_MAX)
                return drover_fail(job, 34 /* ERANGE */, "to=%" PRIu64 ": at most %d", to, SIEVE_MAX);
        uint8_t *is_composite = calloc(to + 1, 1);
        if (!is_composite)
                return -12; /* ENOMEM */
        for (uint64_t n = 2; n <= to && r >= 0; n++) {
                if (is_composite[n])
                        continue;
                for (uint64_t k = n * n; k <= to; k += n)
                        is_composite[k] = 1;
                count++;
                r = emit_number(job, n); /* also a checkpoint */
        }
        free(is_composite);
        return r < 0 ? r : drover_ret_u64(job, "count", count);
}

static const struct drover_job_type jobs[] = {
        {.name = "primes",
         .args = "to:u64",
         .result = "count:u64",
         .handle = primes,
         .help = "emits each prime up to a number"},
};
static struct drover_plugin plugin = {.n_jobs = DROVER_COUNT(jobs), .jobs = jobs, .description = "primes, one by one"};
DROVER_REGISTER(plugin, "sieve", "1.0.0")
