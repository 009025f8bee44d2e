/* What starting a worker costs at the very least, without any supervision: the limit beside benchmark `start`.
 *
 *   start-limit fork PLUGIN    has the plugin loaded; per byte on stdin forks a child that answers, and writes how many
 *                              ns that took (u64)
 *   start-limit zygote PLUGIN  has the plugin loaded; per byte on stdin forks a child that writes one byte
 *   start-limit child PLUGIN   loads the plugin and writes one byte: what posix_spawn starts
 *
 * A program of its own and linked to nothing but libc, so that neither its exec nor its fork pays for the benchmark's
 * libraries. "Loaded" means dlopen'ed and its entry called, so that its pages are there. */
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "plugins/include/drover/plugin.h"

static const struct drover_host no_host = {.struct_size = sizeof(no_host), .abi_major = DROVER_ABI_MAJOR};

static uint64_t now_ns(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void load(const char *plugin) {
        const struct drover_plugin *(*entry)(const struct drover_host *);
        void *handle = dlopen(plugin, RTLD_NOW | RTLD_LOCAL);

        if (handle)
                *(void **)&entry = dlsym(handle, "drover_plugin_entry");
        if (!handle || !entry || !entry(&no_host)) {
                fprintf(stderr, "start-limit: %s\n", dlerror());
                exit(1);
        }
}

static void answer(int fd) {
        if (write(fd, "", 1) != 1)
                _exit(1);
}

static int serve_zygote(void) {
        char byte;

        while (read(STDIN_FILENO, &byte, 1) == 1)
                if (fork() == 0) {
                        answer(STDOUT_FILENO);
                        _exit(0);
                }
        return 0;
}

static int serve_fork(void) {
        int answers[2];
        char byte;

        if (pipe(answers) < 0)
                return 1;
        while (read(STDIN_FILENO, &byte, 1) == 1) {
                uint64_t start = now_ns(), took;

                if (fork() == 0) {
                        answer(answers[1]);
                        _exit(0);
                }
                if (read(answers[0], &byte, 1) != 1)
                        return 1;
                took = now_ns() - start;
                if (write(STDOUT_FILENO, &took, sizeof took) != sizeof took)
                        return 1;
        }
        return 0;
}

int main(int argc, char *argv[]) {
        if (argc != 3) {
                fputs("start-limit fork|zygote|child PLUGIN\n", stderr);
                return 2;
        }
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        signal(SIGCHLD, SIG_IGN); /* no zombies */
        load(argv[2]);
        if (strcmp(argv[1], "fork") == 0)
                return serve_fork();
        if (strcmp(argv[1], "zygote") == 0)
                return serve_zygote();
        answer(STDOUT_FILENO);
        return 0;
}
