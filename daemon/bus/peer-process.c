/* Which process is behind a unique name.
 *
 * The bus tells a pid, and a pid may have been given to another process by the time we open it. So: ask, open a pidfd,
 * ask once more. If the name is still there at the second answer, its process lived when the pidfd was opened, and the
 * pidfd is that process's (a connection that was handed to another process is still the first one's to the bus). Both
 * questions go out without waiting; the calls that need the answer are held back meanwhile. */
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/bus/peer.h"

static int ask(struct bus_peer *p, sd_bus_message_handler_t on_answer) {
        return sd_bus_call_method_async(p->bus->bus, &p->process.query, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                        "org.freedesktop.DBus", "GetConnectionUnixProcessID", on_answer, p, "s",
                                        p->name);
}

static void forget(struct bus_peer *p) {
        peer_fail_held(p, SD_BUS_ERROR_ACCESS_DENIED, "the bus does not say which process %s is", p->name);
        if (p->process.opened >= 0)
                close(p->process.opened);
        p->process.opened = -1;
}

static int on_second(sd_bus_message *m, void *user, sd_bus_error *e) {
        struct bus_peer *p = user;
        uint32_t pid;

        p->process.query = sd_bus_slot_unref(p->process.query);
        if (sd_bus_message_is_method_error(m, NULL) || sd_bus_message_read(m, "u", &pid) < 0 ||
            pid != (uint32_t)p->process.pid) {
                forget(p);
                return 0;
        }
        p->process.pidfd = p->process.opened;
        p->process.opened = -1;
        peer_run_held(p);
        return 0;
}

static int on_first(sd_bus_message *m, void *user, sd_bus_error *e) {
        struct bus_peer *p = user;
        uint32_t pid;

        p->process.query = sd_bus_slot_unref(p->process.query);
        if (sd_bus_message_is_method_error(m, NULL) || sd_bus_message_read(m, "u", &pid) < 0 || pid == 0 ||
            pid > INT32_MAX || (p->process.opened = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0)) < 0) {
                forget(p);
                return 0;
        }
        p->process.pid = (pid_t)pid;
        if (ask(p, on_second) < 0)
                forget(p);
        return 0;
}

int peer_ask_process(struct bus_peer *p, sd_bus_message *m, bus_method_fn fn) {
        int r = peer_hold(p, m, fn);

        if (r < 0)
                return r;
        if (!p->process.query && ask(p, on_first) < 0)
                forget(p);
        return 1;
}

void peer_forget_process(struct bus_peer *p) {
        sd_bus_slot_unref(p->process.query);
        if (p->process.opened >= 0)
                close(p->process.opened);
        if (p->process.pidfd >= 0)
                close(p->process.pidfd);
}
