/* Owns the processes that read and write files for the broker.
 *
 * A file may lie on a disk or server that does not answer, and whoever waits for it waits in the kernel: so the loop
 * opens, reads and writes none. One process is split off at the very beginning and does nothing but fork, which costs
 * it little, because it is small; each of its children does one piece of work, answers, and ends. Who hangs is left
 * behind (detached.h says why no thread may). When the broker ends so does the first process, and its children are
 * killed by its end: what was written too late must not get in the way of the next broker.
 *
 * It is our own program, forked, so an order names a function by its address, and answers are believed. Who gives
 * orders bounds their number: as many processes may hang. */
#include "daemon/loop/helper.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/log/detached.h"
#include "ipc/memory/event.h"
#include "ipc/memory/packet.h"

struct helper_order {
        helper_fn fn;
        char data[HELPER_MAX_ORDER];
};

static int helper_fd = -1;

/* ---- the processes ---- */

static void helper_work(const struct helper_order *o, const int *fds, unsigned n_fds, pid_t parent) {
        struct helper_answer a = {.fd = -1};
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
                _exit(1);
        close(DETACHED_FD);
        signal(SIGCHLD, SIG_DFL);
        o->fn(o->data, n_fds > 1 ? fds[1] : -1, &a);
        packet_send(fds[0], &a, sizeof(a), &a.fd, a.fd >= 0);
        _exit(0);
}

static void helper_run(void) {
        static struct helper_order o;
        pid_t self = getpid();
        signal(SIGCHLD, SIG_IGN); /* nobody asks how they ended */
        for (;;) {
                int fds[2];
                unsigned n_fds = 2;
                size_t bytes;
                int r = packet_await(DETACHED_FD, &o, sizeof(o), &bytes, fds, &n_fds);
                if (r < 0 || bytes == 0)
                        _exit(0);
                if (n_fds > 0 && fork() == 0)
                        helper_work(&o, fds, n_fds, self);
                for (unsigned i = 0; i < n_fds; i++)
                        close(fds[i]);
        }
}

int helper_start(void) {
        int fds[2];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
                return -errno;
        int r = detached_start("drover-helper", fds[1], helper_run);
        if (r < 0)
                close(fds[0]);
        else
                helper_fd = fds[0];
        return r;
}

void helper_stop(void) {
        if (helper_fd >= 0)
                close(helper_fd);
        helper_fd = -1;
}

/* ---- a call ---- */

void helper_forget(struct helper_call *c) {
        if (!c->is_busy)
                return;
        loop_poll_stop(&c->poll);
        loop_timer_stop(&c->timer);
        close(c->fd);
        c->is_busy = false;
}

/* False: nothing came yet. */
static bool helper_take(struct helper_call *c) {
        struct helper_answer a;
        size_t bytes = 0;
        int fd = -1;
        unsigned n_fds = 1;
        int r = packet_receive(c->fd, &a, sizeof(a), &bytes, &fd, &n_fds);
        if (r == -EAGAIN)
                return false;
        if (r < 0 || bytes != sizeof(a)) {
                a = (struct helper_answer){.error = -EIO};
                strcpy(a.text, "the process that does it ended before it was done");
        }
        a.fd = r >= 0 && n_fds == 1 ? fd : -1;
        helper_forget(c);
        c->on_answer(c, &a);
        return true;
}

static void helper_on_answer(struct loop_poll *p, uint32_t revents) { helper_take(p->user); }

static void helper_on_late(struct loop_timer *t) {
        struct helper_call *c = t->user;
        if (c->on_late)
                c->on_late(c);
}

static int helper_send(struct helper_call *c, helper_fn fn, const void *order, size_t bytes, int fd) {
        struct helper_order o = {.fn = fn};
        int fds[2];
        int r = packet_pair(fds);
        if (r < 0)
                return r;
        memcpy(o.data, order, bytes);
        r = packet_send(helper_fd, &o, sizeof(o), (int[]){fds[1], fd}, fd >= 0 ? 2 : 1);
        close(fds[1]);
        if (r < 0)
                close(fds[0]);
        else
                c->fd = fds[0];
        return r;
}

int helper_begin(struct helper_call *c, struct loop *l, helper_fn fn, const void *order, size_t bytes, int fd) {
        if (bytes > HELPER_MAX_ORDER)
                return -EMSGSIZE;
        if (helper_fd < 0) {
                struct helper_answer a = {.fd = -1};
                fn(order, fd, &a);
                c->on_answer(c, &a);
                return 0;
        }
        int r = helper_send(c, fn, order, bytes, fd);
        if (r < 0)
                return r;
        r = loop_poll_start(l, &c->poll, c->fd, POLLIN, helper_on_answer, c);
        if (r < 0) {
                close(c->fd);
                return r;
        }
        loop_timer_set(l, &c->timer, event_now_ns() + HELPER_PATIENCE_NS, helper_on_late, c);
        c->is_busy = true;
        return 0;
}

bool helper_wait(struct helper_call *c, uint64_t deadline_ns) {
        while (c->is_busy && !helper_take(c)) {
                struct pollfd p = {.fd = c->fd, .events = POLLIN};
                uint64_t now = event_now_ns();
                if (now >= deadline_ns)
                        return false;
                if (poll(&p, 1, (int)((deadline_ns - now) / 1000000) + 1) < 0 && errno != EINTR)
                        return false;
        }
        return true;
}
