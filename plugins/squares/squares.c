/* The small jobs of the pool examples in Python's documentation: a square, a process id, a sleep; and the sum of a part
 * of an array that client and workers share. */
#include <drover/plugin.h>
#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
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

/* A part of an array that is a file, which the client and all workers share: each maps what it reads. */
static int sum(drover_job *job) {
        uint64_t first, n, total = 0;
        struct stat st;
        int fd, r = drover_arg_fd(job, "in", &fd);
        if (r >= 0)
                r = drover_arg_u64(job, "first", &first);
        if (r >= 0)
                r = drover_arg_u64(job, "n", &n);
        if (r < 0)
                return r;
        if (fstat(fd, &st) < 0)
                return drover_fail(job, errno, "the array cannot be looked at");
        uint64_t length = (uint64_t)st.st_size / sizeof total;
        if (first > length || n > length - first)
                return drover_fail(job, ERANGE, "the array has %llu elements", (unsigned long long)length);
        size_t ahead = first * sizeof total % 4096, bytes = ahead + n * sizeof total;
        if (n == 0)
                return drover_ret_u64(job, "sum", 0);
        char *data = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, (off_t)(first * sizeof total - ahead));
        if (data == MAP_FAILED)
                return drover_fail(job, errno, "the array cannot be mapped");
        const uint64_t *part = (const uint64_t *)(data + ahead);
        for (uint64_t i = 0; i < n; i++)
                total += part[i];
        munmap(data, bytes);
        return drover_ret_u64(job, "sum", total);
}

static const struct drover_job_type jobs[] = {
        {.name = "square", .args = "x:i64", .result = "square:i64", .help = "x times x", .handle = square},
        {.name = "getpid", .result = "pid:u64", .help = "The worker's process id", .handle = get_pid},
        {.name = "sleep",
         .args = "seconds:f64",
         .result = "seconds:f64",
         .help = "Sleeps, and can be asked to stop",
         .handle = sleeps},
        {.name = "sum",
         .args = "in:fd,first:u64,n:u64",
         .result = "sum:u64",
         .help = "The sum of n u64 of a file, from number `first` on",
         .handle = sum},
};

static struct drover_plugin plugin = {
        .jobs = jobs,
        .n_jobs = DROVER_COUNT(jobs),
        .description = "Squares, process ids, sleeps and sums",
};
DROVER_REGISTER(plugin, "squares", "1.0.0")
