/* From a message to a method: who sent it, may they, call.
 *
 * Every vtable method is marked unprivileged, because sd-bus's own check would ask the bus and wait for its answer;
 * instead the decision is made here, once the sender's uid is known (peer.c), by the table in authorize.c. Until then
 * the message is held back. A call that runs later than its vtable callback answers its own errors. */
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "daemon/bus/authorize.h"
#include "daemon/bus/call.h"
#include "daemon/bus/peer.h"
#include "daemon/closer.h"
#include "daemon/log.h"

static int authorize(const struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        const char *interface = sd_bus_message_get_interface(m), *member = sd_bus_message_get_member(m);
        const struct authorize_row *row;

        if (interface && strcmp(interface, "org.freedesktop.DBus.Properties") == 0)
                return 0; /* reading; the objects behind it look at their owner */
        row = interface && member ? authorize_find(interface, member) : NULL;
        if (row && (row->access != AUTHORIZE_ROOT || authorize_is_root(p->uid)))
                return 0;
        log_notice("%s (uid %u) was denied %s.%s", p->name, (unsigned)p->uid, interface ? interface : "?",
                   member ? member : "?");
        return sd_bus_error_setf(e, SD_BUS_ERROR_ACCESS_DENIED, "%s is for root only, not for uid %u",
                                 member ? member : "this", (unsigned)p->uid);
}

static int run(struct bus *b, struct bus_peer *p, sd_bus_message *m, bus_method_fn fn, sd_bus_error *e) {
        int r;

        closer_blame(p->uid);
        r = authorize(p, m, e);
        return r < 0 ? r : fn(b, p, m, e);
}

void bus_run_held(struct bus *b, struct bus_peer *p, sd_bus_message *m, bus_method_fn fn) {
        sd_bus_error e = SD_BUS_ERROR_NULL;
        int r;

        r = run(b, p, m, fn, &e);
        if (r < 0 || sd_bus_error_is_set(&e))
                sd_bus_reply_method_errno(m, r, &e);
        sd_bus_error_free(&e);
}

int bus_dispatch_to(struct bus *b, sd_bus_message *m, bus_method_fn fn, sd_bus_error *e) {
        const char *sender = sd_bus_message_get_sender(m);
        struct bus_peer *p;
        int r;

        r = sender ? peer_get(b, sender, &p) : -EACCES;
        if (r == -EBUSY)
                return sd_bus_error_setf(e, SD_BUS_ERROR_LIMITS_EXCEEDED, "%d programs have calls waiting already",
                                         BUS_MAX_PEERS);
        if (r < 0)
                return r;
        if (p->is_known)
                return run(b, p, m, fn, e);
        if (p->n_calls >= BUS_MAX_CALLS)
                return call_too_many(p, e);
        r = call_check_numbers(b, e);
        if (r >= 0)
                r = peer_hold(p, m, fn);
        return r < 0 ? r : 1;
}

/* Handlers of one interface share this entry; userdata differs, so the bus comes with the slot. */
int bus_dispatch(struct bus *b, sd_bus_message *m, const struct bus_method *methods, sd_bus_error *e) {
        const char *member = sd_bus_message_get_member(m);

        for (; methods->member; methods++)
                if (strcmp(methods->member, member) == 0)
                        return bus_dispatch_to(b, m, methods->fn, e);
        return -EBADR; /* the vtable has it and the table does not: a test looks */
}

int bus_reply(sd_bus_message *call, const char *types, ...) {
        va_list ap;
        int r;

        va_start(ap, types);
        r = sd_bus_reply_method_returnv(call, types, ap);
        va_end(ap);
        return r < 0 ? r : 1;
}

int bus_reply_begin(sd_bus_message *call, const char *contents, sd_bus_message **ret_reply) {
        int r;

        r = sd_bus_message_new_method_return(call, ret_reply);
        return r < 0 ? r : sd_bus_message_open_container(*ret_reply, 'a', contents);
}

int bus_reply_end(sd_bus_message *reply, int r) {
        if (r >= 0)
                r = sd_bus_message_close_container(reply);
        return r < 0 ? r : sd_bus_send(NULL, reply, NULL);
}
