/* Owns the listeners by which templates and their workers wait for our word: one for each template, for itself and all
 * that it forked, over its death. It goes when the last of them is gone (POLLHUP).
 *
 * Three calls come here, checked by the filter as far as a filter can (plugins/host/sandbox/filter.c), and allowed or
 * refused by what we know of the caller: clone     the template's fork: waits until a worker is wanted (template.c)
 * prctl PR_SET_PDEATHSIG by a child: it is there, it will end with us, and this is its pid; it gets its control socket
 * while it waits, since nothing in its process may put a socket at that number tgkill    to a thread of the caller's
 * own process, and no other
 *
 * Whoever calls is plugin code as well as the host's, so a call tells nothing but that it was made. One call a turn of
 * the loop and listener, and CALLS_MAX in CALLS_WINDOW_NS: a flood waits, nobody else does. Nothing here waits for a
 * call to come; to put a descriptor there, the caller must be scheduled once, inside the kernel. */
#include "daemon/spawn/calls.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/spawn/copier.h"
#include "daemon/spawn/template.h"
#include "daemon/spawn/workers.h"
#include "ipc/memory/event.h"
#include "ipc/memory/notified.h"

enum { CALLS_MAX = 64 };
#define CALLS_WINDOW_NS UINT64_C(10000000)

/* ---- each call ---- */

static void answer_fork(struct spawner *s, const struct listener *l, const struct notified_call *c) {
        struct template *t = template_find_serial(s, l->template_serial);
        if (!t || c->pid != t->pid || !template_wants_fork(s, t, c->id))
                notified_refuse(l->fd, c->id, EPERM);
}

static bool is_unknown_child(struct spawner *s, pid_t pid) {
        siginfo_t si = {0};
        return pid > 1 && !workers_find_pid(s, pid) && !template_find_pid(s, pid) && !copier_find_pid(s, pid) &&
               waitid(P_PID, (id_t)pid, &si, WEXITED | WNOHANG | WNOWAIT | __WALL) == 0;
}

/* The broker hears first: it has its part to do while the child waits for us. If the child dies meanwhile, the reaper
 * will see that. */
static void answer_child(struct spawner *s, const struct listener *l, const struct notified_call *c) {
        struct template *t = template_find_serial(s, l->template_serial);
        if (!t || !t->is_asked || !is_unknown_child(s, c->pid)) {
                notified_refuse(l->fd, c->id, EPERM);
                return;
        }
        int fd = template_child_came(s, t, c->pid);
        if (setpgid(c->pid, c->pid) < 0 || notified_put(l->fd, c->id, fd, WIRE_CONTROL_FD) < 0 ||
            notified_allow(l->fd, c->id) < 0)
                kill(c->pid, SIGKILL);
        close(fd);
}

static void answer_signal(struct spawner *s, const struct listener *l, const struct notified_call *c) {
        if (c->pid > 0 && syscall(SYS_tgkill, (pid_t)c->args[0], c->pid, 0) == 0) /* the caller is a thread of that */
                notified_allow(l->fd, c->id);
        else
                notified_refuse(l->fd, c->id, EPERM);
}

static void answer(struct spawner *s, const struct listener *l, const struct notified_call *c) {
        switch (c->number) {
        case SYS_clone:
                answer_fork(s, l, c);
                break;
        case SYS_prctl:
                answer_child(s, l, c);
                break;
        case SYS_tgkill:
                answer_signal(s, l, c);
                break;
        default:
                notified_refuse(l->fd, c->id, EPERM);
        }
}

/* ---- the listeners ---- */

static struct listener *find(struct spawner *s, int fd) {
        for (unsigned i = 0; i < s->n_listeners; i++)
                if (s->listeners[i].fd == fd)
                        return &s->listeners[i];
        return NULL;
}

/* 0, or when it has had its share: until when the others are served first. */
static uint64_t pause_ns(const struct listener *l) {
        return l->n_calls < CALLS_MAX ? 0 : l->window_ns + CALLS_WINDOW_NS;
}

static void count_call(struct listener *l) {
        uint64_t now = event_now_ns();
        if (now - l->window_ns >= CALLS_WINDOW_NS) {
                l->window_ns = now;
                l->n_calls = 0;
        }
        l->n_calls++;
}

unsigned calls_fill_polls(const struct spawner *s, struct pollfd *p) {
        unsigned n = 0;
        uint64_t now = 0;
        for (unsigned i = 0; i < s->n_listeners; i++) {
                uint64_t until = pause_ns(&s->listeners[i]);
                if (until == 0 || (now = now ? now : event_now_ns()) >= until)
                        p[n++] = (struct pollfd){.fd = s->listeners[i].fd, .events = POLLIN};
        }
        return n;
}

int calls_timeout_ms(const struct spawner *s) {
        uint64_t now = 0;
        for (unsigned i = 0; i < s->n_listeners; i++)
                if (pause_ns(&s->listeners[i]) > (now = now ? now : event_now_ns()))
                        return (int)(CALLS_WINDOW_NS / 1000000);
        return -1;
}

void calls_answer(struct spawner *s, int listener_fd, short revents) {
        struct listener *l = find(s, listener_fd);
        struct notified_call c;
        if (!l)
                return;
        if (revents & POLLIN) {
                count_call(l);
                if (notified_receive(listener_fd, &c) == 0) {
                        const struct listener copy = *l; /* the table may change */
                        answer(s, &copy, &c);
                }
        } else if (revents & (POLLHUP | POLLERR)) {
                struct template *t = template_find_serial(s, l->template_serial);
                if (t)
                        t->listener_fd = -1;
                close(l->fd);
                *l = s->listeners[--s->n_listeners];
        }
}

void calls_forget_all(struct spawner *s) {
        while (s->n_listeners)
                close(s->listeners[--s->n_listeners].fd);
}
