/* Owns the wait for an answer of the bus, and what is done when sd-bus cannot take in a message.
 *
 * sd_bus_call gives up with -EINTR when a signal comes after the message was sent: the caller then knows nothing, and
 * one that tries again has its job run twice. So the call is made without waiting, and the wait is a loop of ours that
 * a signal only turns once more.
 *
 * Unlike sd_bus_call, the loop hands other messages to their handlers at once: whoever calls holds no pointer across
 * the call that a verdict could free.
 *
 * A message whose descriptors find no room breaks sd-bus for good: it has read part of the message, drops that, and
 * takes the rest for the next one. So it is looked whether descriptors are next, and if there is no room for as many as
 * a message may bring, nothing is read. Another thread may open one in between, or memory may be short at that moment:
 * a connection that says anything but that it is short, or over, is broken, and closed. */
#include <errno.h>
#include <sys/socket.h>
#include <time.h>

#include "ipc/client/bus/bus-call.h"
#include "ipc/client/session/fd-room.h"
#include "ipc/memory/event.h"

/* As many as a bus lets a message have; enough as well for the eight of a channel and a duplicate of each. */
enum { BUS_CALL_FDS = FD_ROOM_MOST };

#define BUS_CALL_RETRY_NS 10000000
#define BUS_CALL_SHORT_NS UINT64_C(1000000000)

/* ---- reading ---- */

/* The kernel says that it has descriptors for whoever leaves no room to be told of them, and keeps them: it is a look.
 */
static bool bus_fds_are_next(sd_bus *bus) {
        char byte;
        struct msghdr m = {.msg_iov = &(struct iovec){&byte, 1}, .msg_iovlen = 1};
        return recvmsg(sd_bus_get_fd(bus), &m, MSG_PEEK | MSG_DONTWAIT) > 0 && m.msg_flags & MSG_CTRUNC;
}

int bus_has_room(sd_bus *bus) {
        int r = fd_room(sd_bus_get_fd(bus), BUS_CALL_FDS);
        return bus_is_short(r) ? r : 0; /* the call finds out what else is wrong */
}

static int bus_can_read(sd_bus *bus) { return bus_fds_are_next(bus) ? bus_has_room(bus) : 0; }

bool bus_is_short(int r) { return r == -EMFILE || r == -ENFILE || r == -ENOMEM; }

int bus_process(sd_bus *bus) {
        int r = bus_can_read(bus);
        if (r >= 0)
                r = sd_bus_process(bus, NULL);
        if (r == -EINTR)
                return 0;
        if (r >= 0 || bus_is_short(r))
                return r;
        sd_bus_close(bus);
        return -ENOTCONN;
}

/* ---- calling ---- */

static int bus_call_on_reply(sd_bus_message *m, void *user, sd_bus_error *unused) {
        *(sd_bus_message **)user = sd_bus_message_ref(m);
        return 1; /* after 0, sd_bus_process says that nothing happened if the answer was a time-out, and we would wait
                     on */
}

int bus_call_step(sd_bus *bus, uint64_t *since_ns) {
        int r = bus_process(bus);
        if (r == 0)
                r = sd_bus_wait(bus, UINT64_MAX);
        if (bus_is_short(r)) { /* sd-bus does not see to its time-outs then */
                uint64_t now_ns = event_now_ns();
                *since_ns = *since_ns ? *since_ns : now_ns;
                if (now_ns - *since_ns >= BUS_CALL_SHORT_NS)
                        return -ETIMEDOUT;
                nanosleep(&(struct timespec){.tv_nsec = BUS_CALL_RETRY_NS}, NULL);
                return 0;
        }
        *since_ns = 0;
        return r == -EINTR || r > 0 ? 0 : r;
}

int bus_call(sd_bus *bus, sd_bus_message *m, uint64_t timeout_us, sd_bus_error *e, sd_bus_message **ret_reply) {
        sd_bus_message *reply = NULL;
        sd_bus_slot *slot = NULL;
        uint64_t since_ns = 0;
        int r = bus_can_read(bus);
        if (r >= 0)
                r = sd_bus_call_async(bus, &slot, m, bus_call_on_reply, &reply, timeout_us);
        while (r >= 0 && !reply)
                r = bus_call_step(bus, &since_ns);
        if (r < 0 && slot) /* it was sent, and nobody knows what became of it */
                r = -ETIMEDOUT;
        sd_bus_slot_unref(slot);
        if (reply && sd_bus_message_is_method_error(reply, NULL)) {
                r = -sd_bus_message_get_errno(reply);
                sd_bus_error_copy(e, sd_bus_message_get_error(reply));
        }
        if (r < 0 || !reply) {
                sd_bus_message_unref(reply);
                return r < 0 ? r : -EIO;
        }
        *ret_reply = reply;
        return 0;
}
