/* Says where it runs, so that a test can tell fork, spawn and forkserver apart. */
#include <drover/plugin.h>
#include <errno.h>
#include <stdio.h>
#include <sys/auxv.h>
#include <unistd.h>

static int n_preloads;

static int preload(drover_preload_ctx *ctx, void **shared) {
        n_preloads++;
        return 0;
}

static int probe(drover_job *job) {
        const uint8_t *bytes = (const uint8_t *)getauxval(AT_RANDOM);
        char random[33], exe[1024];
        for (int i = 0; i < 16; i++)
                snprintf(random + (ptrdiff_t)2 * i, 3, "%02x", bytes[i]);
        ssize_t n = readlink("/proc/self/exe", exe, sizeof exe);
        if (n < 0)
                return drover_fail(job, errno, "/proc/self/exe is not known");

        drover_ret_str(job, "random", random);
        drover_ret_str_sized(job, "exe", exe, (size_t)n);
        drover_ret_u64(job, "plugin_address", (uint64_t)(uintptr_t)&n_preloads);
        drover_ret_u64(job, "host_address", (uint64_t)(uintptr_t)drover__host(job));
        drover_ret_u64(job, "libc_address", (uint64_t)(uintptr_t)&getauxval);
        drover_ret_i64(job, "preloads", n_preloads);
        drover_ret_i64(job, "pid", getpid());
        return drover_ret_i64(job, "ppid", getppid());
}

static const struct drover_job_type jobs[] = {{
        .name = "probe",
        .result =
                "random:str,exe:str,plugin_address:u64,host_address:u64,libc_address:u64,preloads:i64,pid:i64,ppid:i64",
        .handle = probe,
}};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs), .preload = preload};
DROVER_REGISTER(plugin, "probe", "1.0")
