/* Which process is behind a unique name.
 *
 * A newer bus hands out the pidfd itself, which is that of the process that connected, whatever happened since. An
 * older one tells a pid, and a pid may have been given to another process by the time we open it. So: ask, open a
 * pidfd, ask once more. If the name is still there at the second answer, its process lived when the pidfd was opened,
 * and the pidfd is that process's. Unless the connection was handed on and its first owner died: so a process that
 * began after we heard of the name for the first time is not taken for it either. All questions go out without waiting;
 * the calls that need the answer are held back meanwhile.
 *
 * A name may outlive its process, in a child that kept the connection. Its sessions do not. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "daemon/bus/peers/peer.h"

static int ask(struct bus_peer *p, const char *member, sd_bus_message_handler_t on_answer) {
        return sd_bus_call_method_async(p->bus->bus, &p->process.query, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                        "org.freedesktop.DBus", member, on_answer, p, "s", p->name);
}

void peer_fail_process(struct bus_peer *p, const sd_bus_error *e) {
        struct bus_item *i;

        while ((i = STAILQ_FIRST(&p->process.waiting))) {
                STAILQ_REMOVE_HEAD(&p->process.waiting, link);
                p->n_calls--;
                weight_subtract(&p->user->turn.sum, i->weight);
                if (e)
                        bus_reply_error(p->bus, i->message, 0, e);
                item_free(p, i);
        }
}

static void forget(struct bus_peer *p) {
        __attribute__((cleanup(sd_bus_error_free))) sd_bus_error e = SD_BUS_ERROR_NULL;

        sd_bus_error_setf(&e, SD_BUS_ERROR_ACCESS_DENIED, "the bus does not say which process %s is", p->name);
        peer_fail_process(p, &e);
        if (p->process.opened >= 0)
                close(p->process.opened);
        p->process.opened = -1;
}

static void on_process_end(struct loop_poll *poll, uint32_t revents) {
        struct bus_peer *p = poll->user;

        supervisor_end_sessions(&p->sessions);
        peer_forget_process(p);
}

static void found(struct bus_peer *p, pid_t pid, int pidfd) {
        struct bus_item *i;

        p->process.opened = pidfd;
        if (loop_poll_start(p->bus->config.loop, &p->process.poll, pidfd, POLLIN, on_process_end, p) < 0) {
                forget(p);
                return;
        }
        p->process.pid = pid;
        p->process.pidfd = pidfd;
        p->process.opened = -1;
        STAILQ_FOREACH(i, &p->process.waiting, link) {
                p->n_calls--;
                weight_subtract(&p->user->turn.sum, i->weight);
        }
        turn_again(p, &p->process.waiting);
}

/* ---- an older bus ---- */

/* Field 22 of its stat file; 0: not to be read. */
static uint64_t start_ticks(pid_t pid) {
        char path[32], text[1024], *at;
        ssize_t n;
        int fd;

        snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return 0;
        n = read(fd, text, sizeof(text) - 1);
        close(fd);
        if (n <= 0)
                return 0;
        text[n] = '\0';
        at = strrchr(text, ')'); /* the name may hold anything */
        for (int field = 2; at && field < 22; field++)
                at = strchr(at + 1, ' ');
        return at ? strtoull(at + 1, NULL, 10) : 0;
}

static uint64_t now_ticks(void) {
        uint64_t per_second = (uint64_t)sysconf(_SC_CLK_TCK);
        struct timespec t;

        clock_gettime(CLOCK_BOOTTIME, &t);
        return (uint64_t)t.tv_sec * per_second + (uint64_t)t.tv_nsec * per_second / 1000000000u;
}

static bool is_dead(int pidfd) {
        struct pollfd p = {.fd = pidfd, .events = POLLIN};

        return poll(&p, 1, 0) != 0;
}

static int on_second(sd_bus_message *m, void *user, sd_bus_error *e) {
        struct bus_peer *p = user;
        uint32_t pid;

        p->process.query = sd_bus_slot_unref(p->process.query);
        if (sd_bus_message_is_method_error(m, NULL) || sd_bus_message_read(m, "u", &pid) < 0 ||
            pid != (uint32_t)p->process.pid)
                forget(p);
        else
                found(p, (pid_t)pid, p->process.opened);
        return 0;
}

static void open_pid(struct bus_peer *p, uint32_t pid) {
        if (pid > 0 && pid <= INT32_MAX)
                p->process.opened = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
        /* The stat file is that of the pidfd's process if that is not dead afterwards. */
        if (p->process.opened < 0 || start_ticks((pid_t)pid) > p->process.heard_ticks || is_dead(p->process.opened)) {
                forget(p);
                return;
        }
        p->process.pid = (pid_t)pid;
        if (ask(p, "GetConnectionUnixProcessID", on_second) < 0)
                forget(p);
}

/* ---- what the bus says ---- */

int peer_read_credentials(sd_bus_message *m, struct peer_credentials *ret) {
        const char *key;
        int r;

        *ret = (struct peer_credentials){.pidfd = -1};
        r = sd_bus_message_enter_container(m, 'a', "{sv}");
        while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                r = sd_bus_message_read_basic(m, 's', &key);
                if (r >= 0 && strcmp(key, "UnixUserID") == 0)
                        ret->has_uid = (r = sd_bus_message_read(m, "v", "u", &ret->uid)) >= 0;
                else if (r >= 0 && strcmp(key, "ProcessID") == 0)
                        r = sd_bus_message_read(m, "v", "u", &ret->pid);
                else if (r >= 0 && strcmp(key, "ProcessFD") == 0)
                        r = sd_bus_message_read(m, "v", "h", &ret->pidfd);
                else if (r >= 0)
                        r = sd_bus_message_skip(m, "v");
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
        }
        return r;
}

static int on_credentials(sd_bus_message *m, void *user, sd_bus_error *e) {
        struct bus_peer *p = user;
        struct peer_credentials c;
        int pidfd;

        p->process.query = sd_bus_slot_unref(p->process.query);
        if (sd_bus_message_is_method_error(m, NULL) || peer_read_credentials(m, &c) < 0) {
                forget(p);
                return 0;
        }
        if (c.pidfd >= 0 && c.pid > 0 && c.pid <= INT32_MAX && (pidfd = fcntl(c.pidfd, F_DUPFD_CLOEXEC, 3)) >= 0)
                found(p, (pid_t)c.pid, pidfd);
        else
                open_pid(p, c.pid);
        return 0;
}

int peer_ask_process(struct bus_peer *p, sd_bus_message *m, bus_method_fn fn) {
        struct bus_item *i = item_new(m, fn);

        if (!i)
                return -ENOMEM;
        i->weight = p->bus->call;
        weight_add(&p->user->turn.sum, i->weight);
        STAILQ_INSERT_TAIL(&p->process.waiting, i, link);
        p->n_calls++;
        if (!p->process.query && ask(p, "GetConnectionCredentials", on_credentials) < 0)
                forget(p);
        return 1;
}

void peer_init_process(struct bus_peer *p) {
        STAILQ_INIT(&p->process.waiting);
        p->process.heard_ticks = now_ticks();
        p->process.pidfd = p->process.opened = -1;
}

void peer_forget_process(struct bus_peer *p) {
        peer_fail_process(p, NULL);
        p->process.query = sd_bus_slot_unref(p->process.query);
        loop_poll_stop(&p->process.poll);
        if (p->process.opened >= 0)
                close(p->process.opened);
        if (p->process.pidfd >= 0)
                close(p->process.pidfd);
        p->process.pidfd = p->process.opened = -1;
}
