/* Forks workers. Owns the one fork that the template's filter lets through.
 *
 * A worker must be the spawner's own child (its exact status is the spawner's to reap, and it outlives its template),
 * so it is made with CLONE_PARENT, which glibc does not offer. A raw clone leaves two things wrong that are set right
 * here: glibc's cached thread id (the kernel writes the new one to where PR_GET_TID_ADDRESS says it lives) and the
 * robust list, which is not inherited. What fork() does beyond that, locks and atfork handlers, matters for other
 * threads only, and a template with other threads is refused (host.c).
 *
 * Nobody here decides about it: the call waits in the kernel until the spawner wants a worker and says so, once for
 * each (filter.c). So plugin code that calls it, in preload or later, makes no process that nobody asked for. The child
 * then asks for its death with its parent; that waits for the spawner, too, who learns by it which process the worker
 * is, and meanwhile moves it to a process group of its own and puts its control socket in place of ours. Any other fork
 * of a plugin's is a breach.
 *
 * A child that does not ask must not live on when the spawner is killed before it has seen to that. It is in our
 * process group, which it cannot leave, and it holds our socket, which it cannot close: so the socket is told to kill
 * the group when its other end is closed. Nothing else would make it send that signal: the spawner never writes to it.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "plugins/host/become.h"
#include "plugins/host/template.h"

int template_prepare(struct host *h) {
        int flags = fcntl(WIRE_CONTROL_FD, F_GETFL);
        if (flags < 0 || fcntl(WIRE_CONTROL_FD, F_SETOWN, -getpgrp()) < 0 ||
            fcntl(WIRE_CONTROL_FD, F_SETSIG, SIGKILL) < 0 || fcntl(WIRE_CONTROL_FD, F_SETFL, flags | O_ASYNC) < 0)
                return -errno;
        if (prctl(PR_GET_TID_ADDRESS, &h->tid_address) < 0 ||
            syscall(SYS_get_robust_list, 0, &h->robust_list, &h->robust_list_bytes) < 0)
                return -errno;
        return h->tid_address ? 0 : -ENOTSUP;
}

/* As fork(), but the child is our parent's, and it takes until the spawner wants one. */
static pid_t template_fork(const struct host *h) {
#if defined(__x86_64__)
        long pid = syscall(SYS_clone, FILTER_FORK_FLAGS, 0, NULL, h->tid_address, 0);
#else
        long pid = syscall(SYS_clone, FILTER_FORK_FLAGS, 0, NULL, 0, h->tid_address);
#endif
        if (pid < 0)
                return -errno;
        if (pid == 0)
                syscall(SYS_set_robust_list, h->robust_list, h->robust_list_bytes);
        return (pid_t)pid;
}

_Noreturn static void become_worker(struct host *h) {
        /* The spawner made the template, so it is our parent: if it died meanwhile, nobody will miss us. */
        if (become_with_parent(h->config.parent) < 0)
                _exit(HOST_EXIT_FAILED);
        become_named(HOST_WORKER, h->name);
        h->config.role = HOST_WORKER;
        if (host_set_up(h) < 0)
                _exit(HOST_EXIT_DONE);
        host_serve(h);
}

_Noreturn void template_serve(struct host *h) {
        const struct template_event ready = {.type = TEMPLATE_READY, .version = WIRE_VERSION};
        int r = host_send(h, &ready, sizeof ready);
        while (r >= 0) {
                pid_t pid = template_fork(h);
                if (pid == 0)
                        become_worker(h);
                if (pid == -ENOSYS) /* the spawner is gone */
                        break;
                struct template_event e = {.type = TEMPLATE_FORKED, .version = WIRE_VERSION, .error = -pid};
                if (pid < 0)
                        r = host_send(h, &e, sizeof e);
        }
        _exit(r < 0 ? HOST_EXIT_STALE : HOST_EXIT_DONE);
}
