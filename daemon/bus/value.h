/* Typed arguments and results: a{sv} on the bus, one MessagePack map in the job area. */
#pragma once

#include "daemon/bus/face.h"
#include "ipc/values/args.h"
#include "ipc/values/variants.h"

/* Reads the a{sv} that `m` stands at, by the schema of `job`, into at most `limit` bytes. *ret_map points into the
 * scratch (valid until the next conversion) or into the message; descriptors are the message's, their numbers in the
 * scratch. InvalidArgs naming the argument. */
int value_read_args(struct bus_scratch *s, sd_bus_message *m, const struct schema_job *job, size_t limit,
                    const void **ret_map, size_t *ret_bytes, sd_bus_error *e);
/* Appends a checked map (or raw bytes) as a{sv}; `fds` NULL: none. Failed, naming the field, for a string that the bus
 * cannot carry; LimitsExceeded for more bytes than it does. */
int value_append_result(sd_bus_message *reply, const struct schema_fields *fields, const void *map, size_t bytes,
                        const struct variants_fds *fds, sd_bus_error *e);
void value_scratch_free(struct bus_scratch *s);

/* One option or setting, standing at its variant: any D-Bus integer type that fits. InvalidArgs naming it. */
int value_read_number(sd_bus_message *m, const char *name, uint64_t minimum, uint64_t maximum, uint64_t *ret,
                      sd_bus_error *e);
/* Enters the variant that `m` stands at if it holds `contents`. InvalidArgs naming `what`. */
int value_enter_variant(sd_bus_message *m, const char *what, const char *contents, sd_bus_error *e);
/* Where a page of a list begins: "" (0), or what the page before gave. InvalidArgs. */
int value_read_cursor(const char *text, uint64_t maximum, uint64_t *ret, sd_bus_error *e);
