/* Processes that are split off before there is anything that a fork must not copy: no thread, ring, bus or mapping.
 *
 * They do what may wait in the kernel for ever. Threads will not do for that: who waits for a dead disk does not even
 * die of SIGKILL, and a process does not end before its threads do. Such a process may be left behind; the program
 * itself ends, with all its descriptors. It is no child of the program, which may know its children by heart. */
#include "daemon/log/detached.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void detached_become(const char *name, int fd) {
        static const int ignored[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPIPE};
        sigset_t none;
        for (unsigned i = 0; i < sizeof(ignored) / sizeof(*ignored); i++)
                signal(ignored[i], SIG_IGN);
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        setsid();
        prctl(PR_SET_NAME, name);
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 ||
            (fd != DETACHED_FD && dup2(fd, DETACHED_FD) < 0))
                _exit(1);
        syscall(SYS_close_range, DETACHED_FD + 1, ~0U, 0);
}

int detached_start(const char *name, int fd, void (*run)(void)) {
        int status;
        pid_t pid = fork();
        int r = pid < 0 ? -errno : 0;
        if (pid == 0) {
                pid = fork();
                if (pid == 0) {
                        detached_become(name, fd);
                        run();
                }
                _exit(pid < 0 ? errno : 0);
        }
        close(fd);
        while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
                ;
        if (pid > 0)
                r = !WIFEXITED(status) ? -EIO : -WEXITSTATUS(status);
        return r;
}
