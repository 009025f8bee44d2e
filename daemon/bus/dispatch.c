/* From a message to a method: who sent it, may they, is it their turn, call.
 *
 * Every vtable method is marked unprivileged, because sd-bus's own check would ask the bus and wait for its answer;
 * instead the decision is made here, once the sender's uid is known (peer.c), by the table in authorize.c. Until then,
 * and while it is not its sender's turn (turn.c), the call waits. A method so may run later than its vtable callback,
 * and its errors are answered here. */
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "daemon/bus/authorize.h"
#include "daemon/bus/call.h"
#include "daemon/bus/peers/peer.h"
#include "daemon/log/log.h"
#include "daemon/loop/closer.h"

#define PROPERTIES_INTERFACE "org.freedesktop.DBus.Properties"
#define DENIED_PAUSE_NS UINT64_C(10000000000)

/* ---- may they ---- */

/* One line for all that is denied to a user for a while: he decides how often that is. */
static void log_denied(const struct bus_peer *p, const char *interface, const char *member) {
        struct bus_user *u = p->user;
        uint64_t now = loop_now(p->bus->config.loop);

        if (u->denied_ns && now - u->denied_ns < DENIED_PAUSE_NS) {
                u->n_denied++;
                return;
        }
        if (u->n_denied > 0)
                log_notice("uid %u was denied %u calls more before that", (unsigned)u->uid, u->n_denied);
        log_notice("%s (uid %u) was denied %s.%s", p->name, (unsigned)p->uid, interface, member);
        u->denied_ns = now;
        u->n_denied = 0;
}

static int authorize(const struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        const char *interface = sd_bus_message_get_interface(m), *member = sd_bus_message_get_member(m);
        const struct authorize_row *row;

        if (interface && strcmp(interface, PROPERTIES_INTERFACE) == 0)
                return 0; /* reading; the objects behind it look at their owner */
        row = interface && member ? authorize_find(interface, member) : NULL;
        if (row && (row->access != AUTHORIZE_ROOT || authorize_is_root(p->uid)))
                return 0;
        log_denied(p, interface ? interface : "?", member ? member : "?");
        return sd_bus_error_setf(e, SD_BUS_ERROR_ACCESS_DENIED, "%s is for root only, not for uid %u",
                                 member ? member : "this", (unsigned)p->uid);
}

/* ---- now or later ---- */

void bus_run(struct bus *b, struct bus_peer *p, sd_bus_message *m, bus_method_fn fn) {
        sd_bus_error e = SD_BUS_ERROR_NULL;
        int r;

        closer_blame(p->uid);
        r = fn == builtin_method ? 0 : authorize(p, m, &e);
        if (r >= 0)
                r = fn(b, p, m, &e);
        if (r < 0 || sd_bus_error_is_set(&e))
                bus_reply_error(b, m, r, &e);
        sd_bus_error_free(&e);
}

/* In its turn, too, if it is known who it is. */
static void refuse(struct bus *b, struct bus_peer *p, sd_bus_message *m) {
        __attribute__((cleanup(sd_bus_error_free))) sd_bus_error e = SD_BUS_ERROR_NULL;

        if (sd_bus_message_get_expect_reply(m) <= 0 || !turn_refuses(p))
                return;
        if (p->user && !turn_may_keep(p))
                call_too_much(p, &e);
        else if (p->user)
                sd_bus_error_setf(&e, SD_BUS_ERROR_LIMITS_EXCEEDED, "%u calls of uid %u wait; call more slowly",
                                  p->user->turn.n_calls, (unsigned)p->uid);
        else
                sd_bus_error_setf(&e, SD_BUS_ERROR_LIMITS_EXCEEDED, "%u calls of %s wait before it is known who it is",
                                  p->n_waiting, p->name);
        bus_reply_error(b, m, 0, &e);
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
        if (fn != builtin_method && turn_is_due(p)) {
                bus_run(b, p, m, fn);
        } else if (turn_is_full(p)) {
                refuse(b, p, m);
        } else {
                r = call_check_descriptors(b, e);
                return r < 0 ? r : turn_wait(p, m, fn);
        }
        return 1;
}

/* Handlers of one interface share this entry; userdata differs, so the bus comes with the slot. */
int bus_dispatch(struct bus *b, sd_bus_message *m, const struct bus_method *methods, sd_bus_error *e) {
        const char *member = sd_bus_message_get_member(m);

        for (; methods->member; methods++)
                if (strcmp(methods->member, member) == 0)
                        return bus_dispatch_to(b, m, methods->fn, e);
        return -EBADR; /* the vtable has it and the table does not: a test looks */
}

/* ---- without libsystemd ---- */

static const struct face {
        const char *interface, *prefix; /* prefix NULL: the one object at the root */
        const sd_bus_vtable *vtable;
        const struct bus_method *methods;
        bus_method_fn properties;
} faces[] = {
        {BUS_MANAGER, NULL, manager_vtable, manager_methods, manager_properties_answer},
        {BUS_POOL, BUS_POOLS, pool_vtable, pool_methods, pool_properties_answer},
        {BUS_WORKER, BUS_WORKERS, worker_vtable, worker_methods, worker_properties_answer},
        {BUS_JOB, BUS_JOBS, job_vtable, job_methods, job_properties_answer},
};

static bool is_below(const char *path, const char *prefix) {
        size_t n = strlen(prefix);

        return strncmp(path, prefix, n) == 0 && path[n] == '/' && path[n + 1] && !strchr(path + n + 1, '/');
}

static const struct face *face_at(const char *path) {
        for (const struct face *f = faces; f < faces + sizeof(faces) / sizeof(*faces); f++)
                if (f->prefix ? is_below(path, f->prefix) : strcmp(path, BUS_ROOT) == 0)
                        return f;
        return NULL;
}

static bool is_property_read(sd_bus_message *m) {
        return sd_bus_message_is_method_call(m, PROPERTIES_INTERFACE, "Get") > 0 ||
               sd_bus_message_is_method_call(m, PROPERTIES_INTERFACE, "GetAll") > 0;
}

/* The method that libsystemd would find; without fn: none of ours. */
static struct bus_method find_method(sd_bus_message *m) {
        const struct face *f = face_at(sd_bus_message_get_path(m));
        const char *member = sd_bus_message_get_member(m);
        const struct bus_method nothing = {.only_asks = true}, *method;

        if (f && is_property_read(m))
                return (struct bus_method){member, f->properties, true};
        if (!f || sd_bus_message_is_method_call(m, f->interface, NULL) <= 0)
                return nothing;
        for (method = f->methods; method->member && strcmp(method->member, member) != 0; method++)
                ;
        for (const sd_bus_vtable *v = f->vtable; method->member && v->type != _SD_BUS_VTABLE_END; v++)
                if (v->type == _SD_BUS_VTABLE_METHOD && strcmp(v->x.method.member, member) == 0)
                        return sd_bus_message_has_signature(m, v->x.method.signature) > 0 ? *method : nothing;
        return nothing;
}

int bus_dispatch_early(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        struct bus_method method;

        if (p && turn_is_full(p)) {
                refuse(b, p, m);
                return 1;
        }
        method = find_method(m);
        if (method.only_asks && sd_bus_message_get_expect_reply(m) == 0)
                return 1; /* and wants no answer */
        if (method.fn ? turn_has_credit(b, b->intake.payer) : builtin_may_pass(b, p, m))
                return 0;
        return bus_dispatch_to(b, m, method.fn ? method.fn : builtin_method, e);
}

/* Properties are read by getters that cannot wait: neither until it is known who asks, which matters for jobs and
 * workers, nor behind other calls of the same caller. And what libsystemd sends is not held back from who does not
 * read. So a read is a method of ours, and the getters serve GetManagedObjects and signals. */
int bus_properties_filter(sd_bus_message *m, void *user, sd_bus_error *e) {
        const struct face *f = is_property_read(m) ? face_at(sd_bus_message_get_path(m)) : NULL;

        return f ? bus_dispatch_to(user, m, f->properties, e) : 0;
}

/* ---- answers ---- */

void bus_reply_error(struct bus *b, sd_bus_message *call, int r, const sd_bus_error *e) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *reply = NULL;
        struct bus_weight w = {.n_bytes = BUS_REPLY_BYTES};

        if (e && e->message)
                w.n_bytes += strlen(e->message); /* which may quote the call */
        if (sd_bus_message_get_expect_reply(call) > 0 && sd_bus_message_new_method_errno(call, &reply, r, e) >= 0)
                bus_send(b, reply, w);
}

int bus_reply(struct bus *b, sd_bus_message *call, const char *types, ...) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *reply = NULL;
        struct bus_weight w = {.n_bytes = BUS_REPLY_BYTES};
        va_list ap;
        int r;

        r = sd_bus_message_new_method_return(call, &reply);
        if (r >= 0 && types) {
                va_start(ap, types);
                r = sd_bus_message_appendv(reply, types, ap);
                va_end(ap);
                w.n_fds = strchr(types, 'h') != NULL;
        }
        return r < 0 ? r : bus_send(b, reply, w);
}

int bus_reply_begin(sd_bus_message *call, const char *contents, sd_bus_message **ret_reply) {
        int r;

        r = sd_bus_message_new_method_return(call, ret_reply);
        return r < 0 ? r : sd_bus_message_open_container(*ret_reply, 'a', contents);
}

int bus_reply_end(struct bus *b, sd_bus_message *reply, struct bus_weight w, int r) {
        if (r >= 0)
                r = sd_bus_message_close_container(reply);
        return r < 0 ? r : bus_send(b, reply, w);
}
