/* Arenas by name: the broker hands out the memory, ipc/sync makes objects of it. */
#include <errno.h>
#include <string.h>
#include <systemd/sd-bus.h>

#include "ipc/client/bus/bus-call.h"
#include "ipc/client/library.h"

#define ARENA_CALL_TIMEOUT_US (25u * 1000000u)

/* The descriptor belongs to the message. */
static int arena_read_memory(sd_bus_message *m, int *ret_fd) {
        const char *key;
        int r = sd_bus_message_enter_container(m, 'a', "{sv}");
        while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                r = sd_bus_message_read(m, "s", &key);
                if (r >= 0 && strcmp(key, "memory") == 0)
                        return sd_bus_message_read(m, "v", "h", ret_fd);
                if (r >= 0)
                        r = sd_bus_message_skip(m, "v");
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
        }
        return r < 0 ? r : -EPROTO;
}

static int arena_read_options(drover *d, const struct drover_arena_options *options, struct drover_arena_options *ret) {
        int r = options_read(d, "drover_arena_options", options, sizeof options->struct_size, ret, sizeof *ret);
        if (r < 0)
                return r;
        if (ret->flags & ~(uint32_t)DROVER_ARENA_TRANSIENT)
                return connection_fail(d, -EINVAL, "arena flags 0x%x are not known", ret->flags);
        return 0;
}

static int arena_call(drover *d, const char *name, const struct drover_arena_options *o, sd_bus_error *e,
                      sd_bus_message **ret_reply) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *m = NULL;
        int r = bus_has_room(d->bus);
        if (r >= 0)
                r = sd_bus_message_new_method_call(d->bus, &m, "org.drover1", "/org/drover1", "org.drover1.Manager",
                                                   "OpenArena");
        if (r >= 0)
                r = sd_bus_message_append(m, "s", name);
        if (r >= 0)
                r = sd_bus_message_open_container(m, 'a', "{sv}");
        if (r >= 0 && o->bytes)
                r = sd_bus_message_append(m, "{sv}", "bytes", "t", o->bytes);
        if (r >= 0 && o->max_objects)
                r = sd_bus_message_append(m, "{sv}", "objects", "u", o->max_objects);
        if (r >= 0 && o->max_processes)
                r = sd_bus_message_append(m, "{sv}", "processes", "u", o->max_processes);
        if (r >= 0 && o->flags & DROVER_ARENA_TRANSIENT)
                r = sd_bus_message_append(m, "{sv}", "transient", "b", 1);
        if (r >= 0)
                r = sd_bus_message_close_container(m);
        return r < 0 ? r : bus_call(d->bus, m, ARENA_CALL_TIMEOUT_US, e, ret_reply);
}

int drover_arena_open_with(drover *d, const char *name, const struct drover_arena_options *options,
                           drover_arena **ret_arena) {
        struct drover_arena_options o;
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *reply = NULL;
        __attribute__((cleanup(sd_bus_error_free))) sd_bus_error e = SD_BUS_ERROR_NULL;
        int fd, r = connection_check(d);
        if (r < 0)
                return r;
        if (!name)
                return connection_fail(d, -EINVAL, "an arena needs a name");
        r = arena_read_options(d, options, &o);
        if (r >= 0)
                r = bus_open_for_call(d);
        if (r < 0)
                return r;
        r = arena_call(d, name, &o, &e, &reply);
        if (r < 0)
                return errors_report(d, r, "arena", name, &e);
        r = arena_read_memory(reply, &fd);
        if (r >= 0)
                r = drover_arena_attach(fd, ret_arena);
        return r < 0 ? connection_fail(d, r, "arena %s: %s", name, strerror(-r)) : 0;
}

int drover_arena_open(drover *d, const char *name, uint64_t bytes, drover_arena **ret_arena) {
        return drover_arena_open_with(d, name, DROVER_ARENA_OPTIONS(.bytes = bytes), ret_arena);
}
