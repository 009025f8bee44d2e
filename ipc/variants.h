/* Typed arguments and results as a{sv} on the bus. */
#pragma once

#include <systemd/sd-bus.h>

#include "ipc/schema.h"

/* Appends a checked map as a{sv}; raw bytes (also for `fields` NULL) as {"payload": ay}. -EPROTO: it was not checked;
 * -EILSEQ: a string that the bus cannot carry, *ret_bad is its field. */
int variants_append(sd_bus_message *m, const struct schema_fields *fields, const void *map, size_t bytes,
                    const char **ret_bad);
