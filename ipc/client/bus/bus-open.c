/* Opening the bus, and opening it again after it broke: the bus was restarted, or it threw this program out, or what it
 * said could not be read.
 *
 * A connection that broke is over, and with it every job over it (LOST) and what was asked. What comes next needs
 * another one: a call of the program's waits for it, a channel whose droverd is away only has it begun, because whoever
 * waits for a verdict or runs drover_process() must not be kept. Nothing is sent a second time over it. The descriptor
 * that the program polls is an epoll that knows the bus by a number of its own (connection_watch_bus), so it stays what
 * it is.
 *
 * There is a pause between two tries, in which a call has the error of the last one, so that nobody who calls in a loop
 * keeps a bus busy that does not work. In callbacks nothing is opened, nor while a Submit is under way: their callers
 * go on with the connection that they had. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <systemd/sd-bus.h>

#include "ipc/client/bus/bus-call.h"
#include "ipc/client/bus/bus-job.h"
#include "ipc/memory/event.h"

#define BUS_OPEN_PAUSE_NS UINT64_C(200000000)
#define BUS_OPEN_ANSWER_NS UINT64_C(5000000000) /* a bus that does not accept us by then does not work */

/* ---- opening ---- */

static int bus_open_address(sd_bus **ret, const char *address) {
        __attribute__((cleanup(sd_bus_unrefp))) sd_bus *bus = NULL;
        int r = sd_bus_new(&bus);
        if (r >= 0)
                r = sd_bus_set_address(bus, address);
        if (r >= 0)
                r = sd_bus_set_bus_client(bus, true);
        if (r >= 0)
                r = sd_bus_start(bus);
        if (r < 0)
                return r;
        *ret = bus;
        bus = NULL;
        return 0;
}

int bus_open(sd_bus **ret, const char *bus) {
        if (!bus || strcmp(bus, "user") == 0)
                return sd_bus_open_user(ret);
        return strcmp(bus, "system") == 0 ? sd_bus_open_system(ret) : bus_open_address(ret, bus);
}

/* ---- what has become of it ---- */

/* The other end is closed, or the descriptor is none any more. */
static bool bus_open_has_hung_up(const drover *d) {
        struct pollfd fd = {.fd = sd_bus_get_fd(d->bus), .events = POLLRDHUP};
        return poll(&fd, 1, 0) > 0;
}

/* Nobody reads the bus while there is no job over it: what was said last is heard first. 0; -EMFILE, -ENFILE, -ENOMEM,
 * -ECONNABORTED. */
static int bus_open_look(drover *d) {
        int r = sd_bus_is_open(d->bus) > 0 && bus_open_has_hung_up(d);
        if (r > 0)
                connection_look_for_fds(d);
        if (!d->bus)
                return connection_check(d);
        while (r > 0)
                r = bus_process(d->bus);
        if (bus_is_short(r))
                return connection_fail(d, r, "the connection to the bus broke, and its last words cannot be read: %s",
                                       strerror(-r));
        if (sd_bus_is_open(d->bus) <= 0)
                connection_lose_bus(d);
        return 0;
}

/* One that was opened anew, and has not said yet that it accepts us. */
static bool bus_open_is_late(const drover *d) {
        return sd_bus_is_ready(d->bus) == 0 && event_now_ns() - d->open_ns >= BUS_OPEN_ANSWER_NS;
}

static void bus_open_give_up(drover *d, int error) {
        sd_bus_close(d->bus);
        connection_lose_bus(d);
        d->open_error = error;
}

/* ---- opening again ---- */

static bool bus_open_may(const drover *d) { return connection_is_ours(d) && !d->is_processing && d->n_bus_calls == 0; }

/* Begins it. */
static int bus_open_again(drover *d) {
        __attribute__((cleanup(sd_bus_unrefp))) sd_bus *bus = NULL;
        uint64_t now_ns = event_now_ns();
        drover_pool *p;
        if (d->open_error < 0 && now_ns - d->open_ns < BUS_OPEN_PAUSE_NS)
                return d->open_error;
        connection_look_for_fds(d);
        if (!d->bus)
                return connection_check(d);
        d->open_ns = now_ns;
        int r = bus_open_address(&bus, d->address);
        if (r >= 0)
                r = connection_watch_bus(d, bus);
        d->open_error = r < 0 ? r : -ENOTCONN; /* of one that breaks at once */
        if (r < 0)
                return r;
        sd_bus_unref(d->bus);
        d->bus = sd_bus_ref(bus);
        d->wake_ns = 0;
        LIST_FOREACH(p, &d->pools, of_drover)
                session_set_bus(p->session, bus);
        return 0;
}

/* Until it has accepted us. */
static int bus_open_wait(drover *d) {
        int r = 0;
        while (r >= 0 && sd_bus_is_ready(d->bus) <= 0) {
                r = sd_bus_process(d->bus, NULL);
                if (r >= 0 && sd_bus_is_open(d->bus) <= 0)
                        r = -ECONNRESET;
                else if (r == 0)
                        r = bus_open_is_late(d) ? -ETIMEDOUT : sd_bus_wait(d->bus, BUS_OPEN_PAUSE_NS / 1000);
                r = r == -EINTR ? 0 : r;
        }
        if (r < 0)
                bus_open_give_up(d, r);
        return r < 0 ? r : 0;
}

/* Two numbers mean something else to who calls: that there is no such pool or job, and that it is open whether a job
 * was submitted. */
static int bus_open_failed(drover *d, int error) {
        int code = error == -ENOENT ? -ECONNREFUSED : error == -ETIMEDOUT ? -ENOTCONN : error;
        return connection_fail(d, code, "the connection to the bus broke, and %.200s does not accept another one: %s",
                               d->address, strerror(-error));
}

int bus_open_for_call(drover *d) {
        int r = bus_open_look(d);
        if (r < 0)
                return r;
        if (sd_bus_is_open(d->bus) > 0 && sd_bus_is_ready(d->bus) > 0)
                return 0;
        if (!bus_open_may(d))
                return connection_fail(d, -ENOTCONN,
                                       "the connection to the bus broke, and is not opened again in a callback");
        if (sd_bus_is_open(d->bus) <= 0)
                r = bus_open_again(d);
        if (!d->bus)
                return r;
        if (r >= 0)
                r = bus_open_wait(d);
        return r < 0 ? bus_open_failed(d, r) : 0;
}

int bus_open_for_session(void *user) {
        drover *d = user;
        if (!d->bus || !bus_open_may(d))
                return d->bus && sd_bus_is_open(d->bus) > 0 ? 0 : -EAGAIN;
        if (sd_bus_is_open(d->bus) > 0 && bus_open_is_late(d))
                bus_open_give_up(d, -ETIMEDOUT);
        if (sd_bus_is_open(d->bus) > 0)
                return 0;
        connection_lose_bus(d);
        return bus_open_again(d) < 0 ? -EAGAIN : 0;
}
