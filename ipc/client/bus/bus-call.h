/* Messages of the bus, and calls over it that wait for their answer. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-bus.h>

/* As sd_bus_process(bus, NULL). -EMFILE, -ENFILE, -ENOMEM: not now, nothing is lost, and its descriptor stays readable
 * meanwhile. -ENOTCONN: the connection has ended, or was broken, and is closed. Never another error. */
int bus_process(sd_bus *bus);
/* Until what there are no descriptors or memory for is tried again. */
#define BUS_SHORT_NS UINT64_C(100000000)
/* Of bus_process: does it say that a later try may succeed? */
bool bus_is_short(int r);
/* For whoever is about to call for something that comes with descriptors. 0; -EMFILE, -ENFILE: they would find no room.
 */
int bus_has_room(sd_bus *bus);

/* Sends `m` and waits for the answer, whatever signals come meanwhile: once it is sent, only the answer tells what
 * became of it. Other messages that come first go to their handlers. 0 and *ret_reply, the caller's to unref; -errno,
 * and `e` if the other side answered so. -ETIMEDOUT or NoReply: nobody answered in time, or the connection broke
 * meanwhile, or there is an answer that cannot be taken in, nor could a second later. -EMFILE, -ENFILE: nothing was
 * sent. */
int bus_call(sd_bus *bus, sd_bus_message *m, uint64_t timeout_us, sd_bus_error *e, sd_bus_message **ret_reply);
/* One message in, or a sleep until there is one, or until it is worth another try. 0 or -errno, never -EINTR;
 * -ETIMEDOUT: messages cannot be taken in, for a second without a break by now. Handlers that end a wait return 1.
 * *since_ns is 0 before the first. */
int bus_call_step(sd_bus *bus, uint64_t *since_ns);
