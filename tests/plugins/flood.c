/* Talks without end: `bytes` to stdout and as many to stderr, or `n` lines to the journal; or it writes lines of one
 * byte, blank ones or zero bytes as fast as they are read, for `ms`. */
#include <drover/plugin.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int flood(drover_job *job) {
        uint64_t bytes;
        int r = drover_arg_u64(job, "bytes", &bytes);
        if (r < 0)
                return r;
        char line[1024];
        memset(line, 'x', sizeof line);
        line[sizeof line - 1] = '\n';
        uint64_t written = 0;
        for (uint64_t i = 0; i < bytes; i += sizeof line) {
                ssize_t n = write(STDERR_FILENO, line, sizeof line);
                written += n > 0 ? (uint64_t)n : 0;
                fwrite(line, 1, sizeof line, stdout);
        }
        return drover_ret_u64(job, "written", written);
}

static int log_lines(drover_job *job) {
        uint64_t n;
        int r = drover_arg_u64(job, "n", &n);
        for (uint64_t i = 1; r >= 0 && i <= n; i++)
                drover_log(job, 5, "line %" PRIu64 " of %" PRIu64, i, n);
        return r;
}

static uint64_t now_ms(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static int crumbs(drover_job *job) {
        static char data[1 << 19];
        const char *what;
        size_t n;
        uint64_t ms;
        int r = drover_arg_str(job, "what", &what, &n);
        if (r >= 0)
                r = drover_arg_u64(job, "ms", &ms);
        if (r < 0 || n == 0)
                return r < 0 ? r : -EINVAL;
        for (size_t i = 0; i < sizeof data; i++)
                data[i] = what[i % n] == '0' ? 0 : what[i % n];
        const uint64_t since = now_ms();
        do
                if (write(STDOUT_FILENO, data, sizeof data) < 0)
                        poll(&(struct pollfd){STDOUT_FILENO, POLLOUT, 0}, 1, 100);
        while (now_ms() - since < ms);
        return 0;
}

static const struct drover_job_type jobs[] = {
        {.name = "flood", .args = "bytes:u64", .result = "written:u64", .handle = flood},
        {.name = "log", .args = "n:u64", .handle = log_lines},
        {.name = "crumbs", .args = "what:str,ms:u64", .handle = crumbs},
};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs)};
DROVER_REGISTER(plugin, "flood", "1.0")
