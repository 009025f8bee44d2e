/* Makes one forbidden system call before any job: IN_CONSTRUCTOR, IN_PRELOAD or IN_WORKER_INIT, WITH_OPEN, WITH_SOCKET
 * or WITH_EXECVE, under NAME. */
#include <drover/plugin.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

static int forbidden(void) {
#if defined(WITH_OPEN)
        return open("/etc/hostname", O_RDONLY);
#elif defined(WITH_SOCKET)
        return socket(AF_INET, SOCK_STREAM, 0);
#else
        char *const argv[] = {"true", NULL};
        return execve("/bin/true", argv, NULL);
#endif
}

#ifdef IN_CONSTRUCTOR
/* Keeps what the call returned, so that it is no jump: then no frame of ours would be left where its caller is sought.
 */
static volatile int result;
__attribute__((constructor)) static void construct(void) { result = forbidden(); }
#elif defined(IN_PRELOAD)
static int preload(drover_preload_ctx *ctx, void **shared) { return forbidden() < 0 ? -1 : 0; }
#else
static int init(drover_worker *w, void **state) { return forbidden() < 0 ? -1 : 0; }
#endif

static int run(drover_job *job) { return 0; }

static const struct drover_job_type jobs[] = {{.name = "run", .handle = run}};
static struct drover_plugin plugin = {
        .jobs = jobs,
        .n_jobs = DROVER_COUNT(jobs),
#if defined(IN_PRELOAD)
        .preload = preload,
#elif defined(IN_WORKER_INIT)
        .worker_init = init,
#endif
};
DROVER_REGISTER(plugin, NAME, "1.0")
