/* Makes system calls that the sandbox forbids, in its handlers: each job dies of its call, but for the probes, which
 * are told no. */
#include <drover/plugin.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int opens(drover_job *job) { return drover_ret_i64(job, "value", open("/etc/hostname", O_RDONLY)); }

static int makes_socket(drover_job *job) { return drover_ret_i64(job, "value", socket(AF_INET, SOCK_STREAM, 0)); }

static int executes(drover_job *job) {
        char *const argv[] = {"true", NULL};
        return drover_ret_i64(job, "value", execve("/bin/true", argv, NULL));
}

static int forks(drover_job *job) { return drover_ret_i64(job, "value", fork()); }

static int maps_code(drover_job *job) {
        void *p = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        return drover_ret_i64(job, "value", p == MAP_FAILED ? -1 : 0);
}

/* The errno of each, for calls that libraries make in passing. */
static int probes(drover_job *job) {
        struct stat st;
        char text[64];
        int64_t errors[5] = {0};
        errors[0] = access("/etc/hostname", R_OK) < 0 ? errno : 0;
        errors[1] = stat("/etc/hostname", &st) < 0 ? errno : 0;
        errors[2] = readlink("/proc/self/cwd", text, sizeof text) < 0 ? errno : 0;
        errors[3] = fstat(STDERR_FILENO, &st) < 0 ? errno : 0;
        errors[4] = readlink("/proc/self/exe", text, sizeof text) < 0 ? errno : 0;
        return drover_ret_i64_array(job, "errors", errors, 5);
}

static const struct drover_job_type jobs[] = {
        {.name = "open", .result = "value:i64", .handle = opens},
        {.name = "socket", .result = "value:i64", .handle = makes_socket},
        {.name = "execve", .result = "value:i64", .handle = executes},
        {.name = "fork", .result = "value:i64", .handle = forks},
        {.name = "code", .result = "value:i64", .handle = maps_code},
        {.name = "probe", .result = "errors:i64[]", .handle = probes},
};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs)};
DROVER_REGISTER(plugin, "opens", "1.0")
