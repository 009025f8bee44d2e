/* Typed arguments and results as a{sv} on the bus. */
#pragma once

#include <systemd/sd-bus.h>

#include "ipc/values/schema.h"

/* What the numbers in fd fields stand for; borrowed, the message gets duplicates. */
struct variants_fds {
        const int *fds;
        unsigned n_fds;
        int payload_fd; /* of a raw job: the bytes are in this memory file; -1 = they are not */
};

/* Appends a checked map as a{sv}; raw bytes (also for `fields` NULL) as {"payload": ay} or {"payload": h}. `fds` NULL:
 * none. -EPROTO: it was not checked; -EILSEQ: a string that the bus cannot carry, *ret_bad is its field. */
int variants_append(sd_bus_message *m, const struct schema_fields *fields, const void *map, size_t bytes,
                    const struct variants_fds *fds, const char **ret_bad);
/* How many bytes a map becomes on the bus, at most: a number takes one in it and eight there. */
size_t variants_length(const void *map, size_t bytes);
