/* The small jobs of the pool examples in Python's documentation: a square, a process id, a sleep; and the sum of a part
 * of an array that client and workers share. */
#include <drover/plugin.h>
#include <drover/sync.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Between two checkpoints of a sleep. */
#define SLICE_NS UINT64_C(5000000)

static int square(drover_job *job) {
        int64_t x, result;
        int r = drover_arg_i64(job, "x", &x);
        if (r < 0)
                return r;
        if (__builtin_mul_overflow(x, x, &result))
                return drover_fail(job, 34 /* ERANGE */, "the square of %lld needs more than 64 bits", (long long)x);
        return drover_ret_i64(job, "square", result);
}

static int get_pid(drover_job *job) { return drover_ret_u64(job, "pid", (uint64_t)getpid()); }

static uint64_t now_ns(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int sleeps(drover_job *job) {
        double seconds;
        int r = drover_arg_f64(job, "seconds", &seconds);
        if (r < 0)
                return r;
        if (!(seconds >= 0 && seconds <= 1e6))
                return drover_fail(job, 22 /* EINVAL */, "cannot sleep %g seconds", seconds);
        for (uint64_t end_ns = now_ns() + (uint64_t)(seconds * 1e9), now; (now = now_ns()) < end_ns;) {
                uint64_t left_ns = end_ns - now < SLICE_NS ? end_ns - now : SLICE_NS;
                nanosleep(&(struct timespec){.tv_nsec = (long)left_ns}, NULL);
                r = drover_checkpoint(job);
                if (r < 0)
                        return r;
        }
        return drover_ret_f64(job, "seconds", seconds);
}

/* ---- a part of a shared array ---- */

/* What this worker has open: the arena of the last job, and the array in it. */
static char open_name[80];
static drover_arena *arena;
static drover_array *numbers;

static void close_numbers(void) {
        numbers = drover_array_free(numbers);
        arena = drover_arena_free(arena);
        open_name[0] = 0;
}

static int open_numbers(drover_job *job, const char *name) {
        if (strcmp(name, open_name) == 0)
                return 0;
        close_numbers();
        int fd, r = drover_arena_open_fd(job, name, 0, &fd);
        if (r < 0)
                return r;
        r = drover_arena_attach(fd, &arena);
        close(fd);
        if (r == 0)
                r = drover_array_open(arena, "numbers", 0, 0, &numbers);
        if (r < 0)
                close_numbers();
        else
                strncpy(open_name, name, sizeof open_name - 1);
        return r;
}

static int sum(drover_job *job) {
        const char *name;
        uint64_t first, n, total = 0;
        int r = drover_arg_str(job, "arena", &name, NULL);
        if (r >= 0)
                r = drover_arg_u64(job, "first", &first);
        if (r >= 0)
                r = drover_arg_u64(job, "n", &n);
        if (r >= 0)
                r = open_numbers(job, name);
        if (r < 0)
                return drover_fail(job, r, "no array \"numbers\" in arena %s", name);
        uint32_t length = drover_array_length(numbers);
        if (first > length || n > length - first)
                return drover_fail(job, 34 /* ERANGE */, "the array has %u elements", length);
        const uint64_t *data = (const uint64_t *)drover_array_data(numbers) + first;
        for (uint64_t i = 0; i < n; i++)
                total += data[i];
        return drover_ret_u64(job, "sum", total);
}

static void on_fini(drover_worker *worker, void *state) { close_numbers(); }

static const struct drover_job_type jobs[] = {
        {.name = "square", .args = "x:i64", .result = "square:i64", .help = "x times x", .handle = square},
        {.name = "getpid", .result = "pid:u64", .help = "The worker's process id", .handle = get_pid},
        {.name = "sleep",
         .args = "seconds:f64",
         .result = "seconds:f64",
         .help = "Sleeps, and can be asked to stop",
         .handle = sleeps},
        {.name = "sum",
         .args = "arena:str,first:u64,n:u64",
         .result = "sum:u64",
         .help = "The sum of n of the u64 elements of the array \"numbers\" in an arena, from element `first` on",
         .handle = sum},
};

static struct drover_plugin plugin = {
        .jobs = jobs,
        .n_jobs = DROVER_COUNT(jobs),
        .description = "Squares, process ids, sleeps and sums",
        .worker_fini = on_fini,
};
DROVER_REGISTER(plugin, "squares", "1.0.0")
