/* Talks without end: `bytes` to stdout and as many to stderr, or `n` lines to the journal. */
#include <drover/plugin.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
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

static const struct drover_job_type jobs[] = {
        {.name = "flood", .args = "bytes:u64", .result = "written:u64", .handle = flood},
        {.name = "log", .args = "n:u64", .handle = log_lines},
};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs)};
DROVER_REGISTER(plugin, "flood", "1.0")
