/* Forks workers. Owns the one fork that the template's filter lets through.
 *
 * A worker must be the spawner's own child (its exact status is the spawner's to reap, and it outlives its template),
 * so it is made with CLONE_PARENT, which glibc does not offer. A raw clone leaves two things wrong that are set right
 * here: glibc's cached thread id (the kernel writes the new one to where PR_GET_TID_ADDRESS says it lives) and the
 * robust list, which is not inherited. What fork() does beyond that, locks and atfork handlers, matters for other
 * threads only, and a template with other threads is refused (host.c).
 *
 * The filter knows this fork by its exact flags and a secret in an argument that the kernel ignores without
 * CLONE_SETTLS. A plugin that calls fork, in preload or later, dies of it, named.
 *
 * While it forks, the template takes nothing else from the socket, so workers come in the order of their requests. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ipc/packet.h"
#include "plugins/host/become.h"
#include "plugins/host/template.h"

int template_prepare(struct host *h) {
        if (prctl(PR_GET_TID_ADDRESS, &h->tid_address) < 0 ||
            syscall(SYS_get_robust_list, 0, &h->robust_list, &h->robust_list_bytes) < 0)
                return -errno;
        return h->tid_address ? 0 : -ENOTSUP;
}

/* As fork(), but the child is our parent's. */
static pid_t template_fork(const struct host *h) {
        unsigned long cookie = h->sandbox.cookie;
#if defined(__x86_64__)
        long pid = syscall(SYS_clone, FILTER_FORK_FLAGS, 0, NULL, h->tid_address, cookie);
#else
        long pid = syscall(SYS_clone, FILTER_FORK_FLAGS, 0, NULL, cookie, h->tid_address);
#endif
        if (pid < 0)
                return -errno;
        if (pid == 0)
                syscall(SYS_set_robust_list, h->robust_list, h->robust_list_bytes);
        return (pid_t)pid;
}

_Noreturn static void become_worker(struct host *h, int control_fd) {
        setsid();
        /* The spawner made the template, so it is our parent: if it died meanwhile, nobody will miss us. */
        if (become_with_parent(h->config.parent) < 0)
                _exit(HOST_EXIT_FAILED);
        become_named(HOST_WORKER, h->name);
        if (dup3(control_fd, WIRE_CONTROL_FD, 0) < 0)
                _exit(HOST_EXIT_FAILED);
        close(control_fd);
        h->config.role = HOST_WORKER;
        if (host_set_up(h) < 0)
                _exit(HOST_EXIT_DONE);
        host_serve(h);
}

static int template_answer(struct host *h, const struct template_request *q, int control_fd) {
        struct template_event e = {.type = TEMPLATE_FORKED, .version = WIRE_VERSION, .worker = q->worker};
        pid_t pid = template_fork(h);
        if (pid == 0)
                become_worker(h, control_fd);
        if (pid < 0) {
                e.error = -pid;
                strcpy(e.text, "the template could not fork a worker");
        } else
                e.pid = pid;
        return host_send(h, &e, sizeof e);
}

_Noreturn void template_serve(struct host *h) {
        const struct template_event ready = {.type = TEMPLATE_READY, .version = WIRE_VERSION};
        int r = host_send(h, &ready, sizeof ready);
        while (r >= 0) {
                struct template_request q;
                size_t bytes;
                int fd = -1;
                unsigned n_fds = 1;
                r = packet_await(WIRE_CONTROL_FD, &q, sizeof q, &bytes, &fd, &n_fds);
                if (r == -EAGAIN && (r = host_wait_readable()) >= 0)
                        continue;
                if (r < 0 || bytes == 0)
                        break;
                r = bytes == sizeof q && q.version == WIRE_VERSION && n_fds == 1 ? template_answer(h, &q, fd) : -EPROTO;
                if (n_fds == 1)
                        close(fd);
        }
        _exit(r < 0 ? HOST_EXIT_STALE : HOST_EXIT_DONE);
}
