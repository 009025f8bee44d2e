/* droverctl's only way to the bus: calls whose replies are json-c objects. */
#pragma once

#include <stdint.h>
#include <systemd/sd-bus.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/show/json.h"
#include "ipc/values/schema.h"

#define REMOTE_NAME "org.drover1"
#define REMOTE_MANAGER "/org/drover1"

/* Prints why not. 0 or -errno. */
int remote_open(struct remote **ret, enum ctl_scope scope, const char *address);
struct remote *remote_free(struct remote *r);
sd_bus *remote_bus(struct remote *r);

/* Method `member` of org.drover1.INTERFACE with the arguments of `types` (basic types only); the reply's values: one
 * argument is itself, several are an array. Bytes become what `bytes` says. -EINTR once ctl_is_interrupted; -EBADMSG:
 * the reply has other types than the member's. After a failure remote_report tells it. */
struct remote_call {
        const char *path, *interface, *member;
        uint64_t timeout_us; /* 0 = 25 s */
        enum json_bytes bytes;
        bool is_final;   /* goes out even when interrupted: to tidy up */
        bool has_effect; /* interrupted: its answer is awaited for another two seconds, so that one can tidy up */
};
int remote_call(struct remote *r, const struct remote_call *call, struct json_object **ret, const char *types, ...);
/* The descriptor that the reply is; nothing but the path goes in. As remote_call. */
int remote_call_fd(struct remote *r, const struct remote_call *call, int *ret_fd);
/* All properties of one object; those that verbs rely on are there and of their types. */
int remote_get_all(struct remote *r, const char *path, const char *interface, struct json_object **ret);
/* One property, which is an array. As remote_call. */
int remote_get(struct remote *r, const char *path, const char *interface, const char *name, struct json_object **ret);

/* Pool.Schema() as an object. */
int remote_get_schema(struct remote *r, const char *pool_path, struct json_object **ret);

/* Calls `fn` with each signal MEMBER of the Manager that comes while a reply is awaited. For good, and only from the
 * droverd that is there now: anybody may send such a signal. */
int remote_subscribe(struct remote *r, const char *member, sd_bus_message_handler_t fn, void *user);

/* Sends a message made by the caller and takes the reply as remote_call does. */
int remote_exchange(struct remote *r, sd_bus_message *m, const struct remote_call *call, struct json_object **ret);
void remote_message_unrefp(sd_bus_message **m);

/* Lets time pass, less if a signal comes or `fd` (-1: none) is readable: 1 then, else 0. -EINTR once
 * ctl_is_interrupted. */
int remote_pause(unsigned ms, int fd);

/* Does somebody own org.drover1? 1, 0, -errno. */
int remote_has_daemon(struct remote *r);

/* For what only its caller finds wrong in a reply: remote_report says it. Returns -EBADMSG. */
int remote_set_odd(struct remote *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Is the failure of a question about one object none of this object's: the bus is gone, a signal came, or who answers
 * makes no sense? Then there is nothing to go on with; else only the object may be gone. */
bool remote_is_over(int error);
/* Prints the last failure ("MESSAGE (NAME)") and returns the exit code that it means. */
int remote_report(struct remote *r, int error);
/* The name of the last failure without its prefix ("NoSuchPool"), "" if it has none. */
const char *remote_error_name(const struct remote *r);
const char *remote_error_text(const struct remote *r);
