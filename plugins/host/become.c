/* The first chapter of a host: from whatever process it was, a child of the spawner's or a fresh image, to one that has
 * nothing but what it needs. Owns signals, session, environment, the numbers of descriptors, and death with the parent;
 * privileges.c has what root can do.
 *
 * Works the same for an exec'd process, where most of it is done already, and for a fork of the spawner, where nothing
 * is. Fails closed: what cannot be given away ends the start. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/close_range.h>

#include "plugins/host/become.h"
#include "plugins/host/sandbox/privileges.h"

static void become_default_signals(void) {
        for (int i = 1; i < NSIG; i++)
                signal(i, i == SIGPIPE ? SIG_IGN : SIG_DFL);
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
}

static void become_environment(char *const *environment) {
        if (!environment)
                return;
        clearenv();
        for (; *environment; environment++)
                putenv(*environment);
}

/* 0-2 /dev/null, 3 control, 4 plugin, and no other. */
static int become_descriptors(const struct host_config *c) {
        int control = fcntl(c->control_fd, F_DUPFD, BECOME_FIRST_FREE_FD),
            plugin = fcntl(c->plugin_fd, F_DUPFD, BECOME_FIRST_FREE_FD);
        if (control < 0 || plugin < 0)
                return -errno;
        /* A file offset of our own: ld.so reads the plugin, and so do our siblings, at the same time. */
        char path[32];
        snprintf(path, sizeof path, "/proc/self/fd/%d", plugin);
        plugin = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* not to wait for somebody's lease */
        if (plugin < 0 || dup2(plugin, WIRE_PLUGIN_FD) < 0 || dup2(control, WIRE_CONTROL_FD) < 0)
                return -errno;
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (null < 0)
                return -errno;
        for (int i = 0; i <= 2; i++)
                if (dup2(null, i) < 0)
                        return -errno;
        if (close_range(BECOME_FIRST_FREE_FD, ~0u, 0) < 0)
                return -errno;
        return 0;
}

void become_named(enum host_role role, const char *pool) {
        char name[16]; /* what the kernel keeps */
        snprintf(name, sizeof name, "%s:%.11s", role == HOST_TEMPLATE ? "drt" : "drw", pool);
        prctl(PR_SET_NAME, name);
}

int become_with_parent(pid_t parent) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
                return -errno;
        return getppid() == parent ? 0 : -ESRCH; /* it died before we could ask to go with it */
}

int become_host(const struct host_config *c) {
        become_default_signals();
        if (c->role == HOST_TEMPLATE)
                setpgid(0, 0); /* in the spawner's session, so that it can move what we fork to a group of its own */
        else
                setsid(); /* fails if the spawner made us a leader already */
        umask(077);
        if (chdir("/") < 0)
                return -errno;
        become_environment(c->environment);
        int r = become_descriptors(c);
        if (r < 0)
                return r;
        become_named(c->role, c->name ? c->name : "");
        r = privileges_drop();
        return r < 0 ? r : become_with_parent(c->parent);
}
