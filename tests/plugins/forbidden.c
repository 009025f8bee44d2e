/* A job that opens a file in its first attempt, by a library's hand in its own frame, and crashes in the next: the file
 * was the reason. One whose path is nowhere. One whose path is long. And a thread that opens. */
#include <drover/plugin.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int then_crashes(drover_job *job) {
        if (drover_job_attempt(job) > 1)
                __builtin_trap();
        FILE *f = fopen("/etc/hostname", "r"); /* libc's call, this plugin's fault */
        return f ? 0 : 1;
}

static int to_nowhere(drover_job *job) { return (int)syscall(SYS_mkdir, 16, 0700); }

static int far_away(drover_job *job) {
        char path[300];
        memset(path, 'x', sizeof path - 1);
        path[0] = '/';
        path[sizeof path - 1] = 0;
        path[5] = '\n';
        return mkdirat(AT_FDCWD, path, 0700);
}

static void *open_it(void *user) {
        open("/etc/hostname", O_RDONLY);
        return NULL;
}

static int in_a_thread(drover_job *job) {
        pthread_t t;
        if (pthread_create(&t, NULL, open_it, NULL) == 0)
                pthread_join(t, NULL);
        return 0;
}

static int at_its_end(drover_job *job) {
        return socket(AF_INET, SOCK_STREAM, 0);
} /* a jump: no frame of ours is left */

/* Its caller is said to be where nothing is. */
static int off_the_stack(drover_job *job) {
#if defined(__x86_64__)
        __asm__ volatile("pushq $16\n\tjmp *syscall@GOTPCREL(%%rip)"
                         :
                         : "D"(SYS_mkdirat), "S"(AT_FDCWD), "d"("/tmp/x"), "c"(0700)
                         : "memory");
#else
        register long call __asm__("x0") = SYS_mkdirat, folder __asm__("x1") = AT_FDCWD;
        register const char *path __asm__("x2") = "/tmp/x";
        register long mode __asm__("x3") = 0700;
        __asm__ volatile("mov x30, #16\n\tb syscall"
                         :
                         : "r"(call), "r"(folder), "r"(path), "r"(mode)
                         : "memory", "x30");
#endif
        return 0;
}

static int init(drover_worker *w, void **state) { return access("/no/such/file", F_OK) == 0 ? 1 : 0; }

static const struct drover_job_type jobs[] = {
        {.name = "then-crashes", .handle = then_crashes}, {.name = "to-nowhere", .handle = to_nowhere},
        {.name = "far-away", .handle = far_away},         {.name = "at-its-end", .handle = at_its_end},
        {.name = "in-a-thread", .handle = in_a_thread},   {.name = "off-the-stack", .handle = off_the_stack},
};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs), .worker_init = init};
DROVER_REGISTER(plugin, "forbidden", "1.0")
