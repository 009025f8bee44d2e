/* Is n prime? Trial division by 2 and the odd numbers up to the root: slow on purpose, so that there is something to
 * distribute. */
#include <drover/plugin.h>

/* Divisors between two checkpoints: half a million divisions take a few milliseconds. */
enum { CHECK_EVERY = 1 << 19 };

static int is_prime(drover_job *job) {
        uint64_t n;
        int r = drover_arg_u64(job, "n", &n);
        if (r < 0)
                return r;

        bool prime = n >= 2 && (n == 2 || n % 2 != 0);
        uint32_t left = CHECK_EVERY;
        for (uint64_t d = 3; prime && d <= n / d; d += 2) { /* d * d would overflow */
                prime = n % d != 0;
                if (--left == 0) {
                        left = CHECK_EVERY;
                        r = drover_checkpoint(job);
                        if (r < 0)
                                return r;
                }
        }
        return drover_ret_bool(job, "prime", prime);
}

static const struct drover_job_type jobs[] = {
        {
                .name = "is_prime",
                .args = "n:u64",
                .result = "prime:bool",
                .help = "Is n a prime number? By trial division.",
                .handle = is_prime,
                .models = DROVER_MODEL_PROCESS | DROVER_MODEL_THREADS | DROVER_MODEL_FIBERS,
        },
};

static struct drover_plugin plugin = {
        .jobs = jobs,
        .n_jobs = DROVER_COUNT(jobs),
        .description = "The tutorial's prime numbers",
};
DROVER_REGISTER(plugin, "primes", "1.0.0")
