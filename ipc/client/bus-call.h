/* Calls over the bus that wait for their answer. */
#pragma once

#include <stdint.h>
#include <systemd/sd-bus.h>

/* Sends `m` and waits for the answer, whatever signals come meanwhile: once it is sent, only the answer tells what
 * became of it. Other messages that come first go to their handlers. 0 and *ret_reply, the caller's to unref; -errno,
 * and `e` if the other side answered so. -ETIMEDOUT or NoReply: nobody answered in time. */
int bus_call(sd_bus *bus, sd_bus_message *m, uint64_t timeout_us, sd_bus_error *e, sd_bus_message **ret_reply);
/* One message in, or a sleep until there is one. 0 or -errno, never -EINTR. Handlers that end a wait return 1. */
int bus_call_step(sd_bus *bus);
