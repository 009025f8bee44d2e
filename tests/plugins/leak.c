/* Keeps what it takes: `bytes` of memory, touched, and `fds` descriptors a job. */
#include <drover/plugin.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *volatile kept;

static int leak(drover_job *job) {
        uint64_t bytes, fds;
        int r = drover_arg_u64(job, "bytes", &bytes);
        if (r >= 0)
                r = drover_arg_u64(job, "fds", &fds);
        if (r < 0)
                return r;
        void **p = malloc(bytes + sizeof *p);
        if (!p)
                return drover_fail(job, 12, "no memory left to leak");
        memset(p, 1, bytes + sizeof *p);
        *p = kept;
        kept = p;
        uint64_t n = 0;
        while (n < fds && dup(STDERR_FILENO) >= 0)
                n++;
        return drover_ret_u64(job, "fds", n);
}

static const struct drover_job_type jobs[] = {
        {.name = "leak", .args = "bytes:u64,fds:u64", .result = "fds:u64", .handle = leak}};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs)};
DROVER_REGISTER(plugin, "leak", "1.0")
