/* Tries to leave a process behind: fork, setsid, fork, live on. */
#include <drover/plugin.h>
#include <errno.h>
#include <unistd.h>

static int escape(drover_job *job) {
        pid_t child = fork();
        if (child < 0)
                return -errno;
        if (child > 0)
                return 0;
        setsid();
        if (fork() > 0)
                _exit(0);
        for (;;)
                pause();
}

static const struct drover_job_type jobs[] = {{.name = "escape", .handle = escape}};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs)};
DROVER_REGISTER(plugin, "doublefork", "1.0")
