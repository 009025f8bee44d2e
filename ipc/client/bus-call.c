/* Owns the wait for an answer of the bus.
 *
 * sd_bus_call gives up with -EINTR when a signal comes after the message was sent: the caller then knows nothing, and
 * one that tries again has its job run twice. So the call is made without waiting, and the wait is a loop of ours that
 * a signal only turns once more.
 *
 * Unlike sd_bus_call, the loop hands other messages to their handlers at once: whoever calls holds no pointer across
 * the call that a verdict could free. */
#include <errno.h>

#include "ipc/client/bus-call.h"

static int bus_call_on_reply(sd_bus_message *m, void *user, sd_bus_error *unused) {
        *(sd_bus_message **)user = sd_bus_message_ref(m);
        return 1; /* after 0, sd_bus_process says that nothing happened if the answer was a time-out, and we would wait
                     on */
}

int bus_call_step(sd_bus *bus) {
        int r = sd_bus_process(bus, NULL);
        if (r == 0)
                r = sd_bus_wait(bus, UINT64_MAX);
        return r == -EINTR || r > 0 ? 0 : r;
}

int bus_call(sd_bus *bus, sd_bus_message *m, uint64_t timeout_us, sd_bus_error *e, sd_bus_message **ret_reply) {
        sd_bus_message *reply = NULL;
        sd_bus_slot *slot = NULL;
        int r = sd_bus_call_async(bus, &slot, m, bus_call_on_reply, &reply, timeout_us);
        while (r >= 0 && !reply)
                r = bus_call_step(bus);
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
