/* droverctl's only way to the bus.
 *
 * Owns the connection and the last error. A call is sent and its reply awaited in a loop around ppoll that SIGINT,
 * SIGTERM and SIGHUP can end at any point: they are blocked but inside ppoll, so none is lost between the question and
 * the sleep. Who answers may be a droverd of another release, or no droverd at all: a reply whose types are others than
 * the table here says, or a property that is missing or of another type, is one error (-EBADMSG), told by
 * remote_report, so that the verbs read what they expect and nothing else.
 * Without --user or --system the user bus is asked first whether a droverd is there: one binary serves the person who
 * tries it and the operator, and neither is surprised. Never starts a daemon by itself; bus activation may. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <systemd/sd-bus.h>
#include <time.h>

#include "daemon/ctl/remote.h"

enum { LINGER_TURNS = 40, LINGER_US = 50 * 1000 };

struct remote {
        sd_bus *bus;
        sd_bus_error error;
        char odd[256]; /* what is wrong with the last reply; "" = nothing */
};

/* What each call is answered by. */
static const struct reply_types {
        const char *interface, *member, *types;
} reply_types[] = {
        {"org.freedesktop.DBus", "NameHasOwner", "b"},
        {"org.freedesktop.DBus", "GetNameOwner", "s"},
        {"org.freedesktop.DBus.Properties", "Get", "v"},
        {"org.freedesktop.DBus.Properties", "GetAll", "a{sv}"},
        {REMOTE_NAME ".Manager", "Submit", "to"},
        {REMOTE_NAME ".Manager", "ListPools", "a(soss)"},
        {REMOTE_NAME ".Manager", "GetPool", "o"},
        {REMOTE_NAME ".Manager", "ListWorkers", "a(tsous)"},
        {REMOTE_NAME ".Manager", "GetWorkerByPID", "o"},
        {REMOTE_NAME ".Manager", "ListJobs", "a(tosss)s"},
        {REMOTE_NAME ".Manager", "DescribeJobs", "aa{sv}s"},
        {REMOTE_NAME ".Manager", "ListSessions", "aa{sv}"},
        {REMOTE_NAME ".Manager", "ListDeaths", "aa{sv}"},
        {REMOTE_NAME ".Manager", "ListCapsules", "aa{sv}"},
        {REMOTE_NAME ".Manager", "ListArenas", "aa{sv}"},
        {REMOTE_NAME ".Manager", "RemoveArena", ""},
        {REMOTE_NAME ".Manager", "ListObjectsFrom", "aa{sv}s"},
        {REMOTE_NAME ".Manager", "GetJob", "o"},
        {REMOTE_NAME ".Manager", "Reload", "a(sss)"},
        {REMOTE_NAME ".Manager", "Subscribe", ""},
        {REMOTE_NAME ".Pool", "Start", ""},
        {REMOTE_NAME ".Pool", "Stop", ""},
        {REMOTE_NAME ".Pool", "Pause", ""},
        {REMOTE_NAME ".Pool", "Resume", ""},
        {REMOTE_NAME ".Pool", "Drain", ""},
        {REMOTE_NAME ".Pool", "Restart", ""},
        {REMOTE_NAME ".Pool", "Resize", ""},
        {REMOTE_NAME ".Pool", "ResetFailed", ""},
        {REMOTE_NAME ".Pool", "RequeuePoisoned", "u"},
        {REMOTE_NAME ".Pool", "Schema", "s"},
        {REMOTE_NAME ".Worker", "Kill", ""},
        {REMOTE_NAME ".Worker", "ListTasks", "aa{sv}"},
        {REMOTE_NAME ".Job", "Cancel", "s"},
        {REMOTE_NAME ".Job", "Wait", "s"},
        {REMOTE_NAME ".Job", "GetResult", "a{sv}"},
        {REMOTE_NAME ".Job", "Requeue", ""},
        {REMOTE_NAME ".Job", "GetCapsule", "h"},
};

/* Properties that the verbs rely on, and what they are in JSON. The others are only shown. */
static const struct needed_property {
        const char *interface, *name;
        enum json_type type;
} needed_properties[] = {
        {"Manager", "Version", json_type_string},
        {"Manager", "NPools", json_type_int},
        {"Manager", "NWorkers", json_type_int},
        {"Manager", "NSessions", json_type_int},
        {"Pool", "Name", json_type_string},
        {"Pool", "State", json_type_string},
        {"Pool", "Problem", json_type_string},
        {"Pool", "Workers", json_type_int},
        {"Pool", "MinWorkers", json_type_int},
        {"Pool", "Queued", json_type_int},
        {"Pool", "Running", json_type_int},
        {"Worker", "Id", json_type_int},
        {"Worker", "Pool", json_type_string},
        {"Worker", "Pid", json_type_int},
        {"Worker", "State", json_type_string},
        {"Worker", "CurrentJob", json_type_int},
        {"Job", "Id", json_type_int},
        {"Job", "Pool", json_type_string},
        {"Job", "Name", json_type_string},
        {"Job", "State", json_type_string},
        {"Job", "Attempt", json_type_int},
};

struct remote *remote_free(struct remote *r) {
        if (!r)
                return NULL;
        sd_bus_error_free(&r->error);
        sd_bus_flush_close_unref(r->bus);
        free(r);
        return NULL;
}

sd_bus *remote_bus(struct remote *r) { return r->bus; }

static int open_address(sd_bus **ret, const char *address) {
        sd_bus *bus = NULL;
        int r = sd_bus_new(&bus);

        if (r >= 0)
                r = sd_bus_set_address(bus, address);
        if (r >= 0)
                r = sd_bus_set_bus_client(bus, true);
        if (r >= 0)
                r = sd_bus_start(bus);
        if (r < 0) {
                sd_bus_unref(bus);
                return r;
        }
        *ret = bus;
        return 0;
}

static int open_scope(struct remote *r, enum ctl_scope scope, const char *address) {
        r->bus = sd_bus_flush_close_unref(r->bus);
        switch (scope) {
        case CTL_SCOPE_USER:
                return sd_bus_open_user(&r->bus);
        case CTL_SCOPE_SYSTEM:
                return sd_bus_open_system(&r->bus);
        case CTL_SCOPE_ADDRESS:
                return open_address(&r->bus, address);
        case CTL_SCOPE_AUTO:
                break;
        }
        if (sd_bus_open_user(&r->bus) >= 0 && remote_has_daemon(r) == 1)
                return 0;
        r->bus = sd_bus_flush_close_unref(r->bus);
        return sd_bus_open_system(&r->bus);
}

int remote_open(struct remote **ret, enum ctl_scope scope, const char *address) {
        static const char *const names[] = {"no droverd on the user bus, and the system bus", "the user bus",
                                            "the system bus", "the bus"};
        struct remote *r = calloc(1, sizeof *r);
        int error;

        if (!r)
                return -ENOMEM;
        error = open_scope(r, scope, address);
        /* The socket answers before the bus does: a first call shows whether there is one at all. */
        if (error >= 0)
                error = remote_has_daemon(r);
        if (error < 0) {
                ctl_error("%s%s%s cannot be reached: %s", names[scope], address ? " at " : "", address ? address : "",
                          error == -ENOMEDIUM
                                  ? "its address is not set (DBUS_SESSION_BUS_ADDRESS, or XDG_RUNTIME_DIR of a login)"
                                  : strerror(-error));
                remote_free(r);
                return error;
        }
        *ret = r;
        return 0;
}

/* ---- one call ---- */

struct pending {
        sd_bus_message *reply;
};

static int on_reply(sd_bus_message *m, void *user, sd_bus_error *error) {
        struct pending *p = user;

        p->reply = sd_bus_message_ref(m);
        return 1;
}

/* Sleeps until the bus has something to do, or a signal came. */
static int wait_bus(sd_bus *bus, const sigset_t *open_mask) {
        struct pollfd p = {.fd = sd_bus_get_fd(bus), .events = (short)sd_bus_get_events(bus)};
        struct timespec now, timeout;
        uint64_t until, now_us;

        if (p.fd < 0)
                return p.fd;
        if (sd_bus_get_timeout(bus, &until) < 0)
                until = UINT64_MAX;
        clock_gettime(CLOCK_MONOTONIC, &now);
        now_us = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
        until = until <= now_us ? 0 : until - now_us;
        timeout = (struct timespec){.tv_sec = (time_t)(until / 1000000), .tv_nsec = (long)(until % 1000000 * 1000)};
        if (ppoll(&p, 1, until > UINT64_C(1000000000000) ? NULL : &timeout, open_mask) < 0 && errno != EINTR)
                return -errno;
        return 0;
}

/* From here on SIGINT, SIGTERM and SIGHUP come inside ppoll only. */
static void block_interrupts(sigset_t *ret_before) {
        sigset_t blocked;

        sigemptyset(&blocked);
        sigaddset(&blocked, SIGINT);
        sigaddset(&blocked, SIGTERM);
        sigaddset(&blocked, SIGHUP);
        sigprocmask(SIG_BLOCK, &blocked, ret_before);
}

void remote_message_unrefp(sd_bus_message **m) { sd_bus_message_unref(*m); }

static int wait_reply(struct remote *r, struct pending *pending, bool is_final) {
        sigset_t before;
        int error = 0;

        block_interrupts(&before);
        while (!pending->reply && error >= 0) {
                error = sd_bus_process(r->bus, NULL);
                if (error == 0)
                        error = ctl_is_interrupted() && !is_final ? -EINTR
                                                                  : wait_bus(r->bus, is_final ? NULL : &before);
        }
        sigprocmask(SIG_SETMASK, &before, NULL);
        return pending->reply ? 0 : error;
}

int remote_pause(unsigned ms, int fd) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        struct timespec timeout = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
        sigset_t before;
        int n = 0;

        block_interrupts(&before);
        if (!ctl_is_interrupted())
                n = ppoll(&p, 1, &timeout, &before);
        sigprocmask(SIG_SETMASK, &before, NULL);
        return ctl_is_interrupted() ? -EINTR : n > 0;
}

static const struct remote_call plain_call;

int remote_set_odd(struct remote *r, const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        vsnprintf(r->odd, sizeof r->odd, format, ap);
        va_end(ap);
        return -EBADMSG;
}

static int check_reply(struct remote *r, sd_bus_message *call, sd_bus_message *reply) {
        const char *interface = sd_bus_message_get_interface(call), *member = sd_bus_message_get_member(call);
        const char *types = sd_bus_message_get_signature(reply, true);

        for (size_t i = 0; i < sizeof reply_types / sizeof *reply_types; i++)
                if (strcmp(reply_types[i].member, member) == 0 && strcmp(reply_types[i].interface, interface) == 0)
                        return strcmp(types, reply_types[i].types) == 0
                                       ? 0
                                       : remote_set_odd(r, "%s is answered by \"%.80s\" in place of \"%s\"", member,
                                                        types, reply_types[i].types);
        return remote_set_odd(r, "what answers %s is not known here", member);
}

/* A call that does something is on its way when a signal comes: its answer, which says what there is to undo, is soon
 * there, too. */
static void linger(struct remote *r, struct pending *pending) {
        for (unsigned i = 0; i < LINGER_TURNS && !pending->reply; i++) {
                int n = sd_bus_process(r->bus, NULL);

                if (n == 0)
                        n = sd_bus_wait(r->bus, LINGER_US);
                if (n < 0 && n != -EINTR)
                        return;
        }
}

/* The reply, if it is no error and of the types that the call is answered by. */
static int exchange(struct remote *r, sd_bus_message *m, const struct remote_call *call, sd_bus_message **ret) {
        struct pending pending = {0};
        sd_bus_slot *slot = NULL;
        int error;

        sd_bus_error_free(&r->error);
        r->odd[0] = '\0';
        error = sd_bus_call_async(r->bus, &slot, m, on_reply, &pending, call->timeout_us);
        if (error >= 0)
                error = wait_reply(r, &pending, call->is_final);
        if (error == -EINTR && call->has_effect) {
                linger(r, &pending);
                error = pending.reply ? 0 : -EINTR;
        }
        sd_bus_slot_unref(slot);
        if (error >= 0 && sd_bus_message_is_method_error(pending.reply, NULL)) {
                sd_bus_error_copy(&r->error, sd_bus_message_get_error(pending.reply));
                error = -sd_bus_message_get_errno(pending.reply);
        }
        if (error >= 0)
                error = check_reply(r, m, pending.reply);
        if (error < 0) {
                sd_bus_message_unref(pending.reply);
                return error;
        }
        *ret = pending.reply;
        return 0;
}

int remote_exchange(struct remote *r, sd_bus_message *m, const struct remote_call *call, struct json_object **ret) {
        ctl_cleanup(remote_message_unrefp) sd_bus_message *reply = NULL;
        struct json_object *o = NULL;
        int error = exchange(r, m, call, &reply);

        if (error >= 0)
                error = json_from_message(reply, call->bytes, &o);
        if (error < 0)
                return error;
        if (ret)
                *ret = o;
        else
                json_object_put(o);
        return 0;
}

int remote_call(struct remote *r, const struct remote_call *call, struct json_object **ret, const char *types, ...) {
        ctl_cleanup(remote_message_unrefp) sd_bus_message *m = NULL;
        char interface[64];
        va_list ap;
        int error;

        snprintf(interface, sizeof interface, REMOTE_NAME ".%s", call->interface);
        error = sd_bus_message_new_method_call(r->bus, &m, REMOTE_NAME, call->path, interface, call->member);
        if (error >= 0 && types) {
                va_start(ap, types);
                error = sd_bus_message_appendv(m, types, ap);
                va_end(ap);
        }
        return error < 0 ? error : remote_exchange(r, m, call, ret);
}

int remote_call_fd(struct remote *r, const struct remote_call *call, int *ret_fd) {
        ctl_cleanup(remote_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        char interface[64];
        int error, fd;

        snprintf(interface, sizeof interface, REMOTE_NAME ".%s", call->interface);
        error = sd_bus_message_new_method_call(r->bus, &m, REMOTE_NAME, call->path, interface, call->member);
        if (error >= 0)
                error = exchange(r, m, call, &reply);
        if (error >= 0)
                error = sd_bus_message_read(reply, "h", &fd); /* the message's own */
        if (error < 0)
                return error;
        *ret_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        return *ret_fd < 0 ? -errno : 0;
}

static int check_properties(struct remote *r, const char *interface, struct json_object *o) {
        for (size_t i = 0; i < sizeof needed_properties / sizeof *needed_properties; i++) {
                const struct needed_property *p = &needed_properties[i];
                struct json_object *value;

                if (strcmp(p->interface, interface) != 0)
                        continue;
                if (!json_object_object_get_ex(o, p->name, &value))
                        return remote_set_odd(r, "a %s without the property %s", interface, p->name);
                if (!json_object_is_type(value, p->type))
                        return remote_set_odd(r, "the property %s of a %s is no %s", p->name, interface,
                                              p->type == json_type_int ? "number" : "text");
        }
        return 0;
}

int remote_get_all(struct remote *r, const char *path, const char *interface, struct json_object **ret) {
        ctl_cleanup(remote_message_unrefp) sd_bus_message *m = NULL;
        ctl_cleanup(json_putp) struct json_object *o = NULL;
        char name[64];
        int error;

        snprintf(name, sizeof name, REMOTE_NAME ".%s", interface);
        error = sd_bus_message_new_method_call(r->bus, &m, REMOTE_NAME, path, "org.freedesktop.DBus.Properties",
                                               "GetAll");
        if (error >= 0)
                error = sd_bus_message_append(m, "s", name);
        if (error >= 0)
                error = remote_exchange(r, m, &plain_call, &o);
        if (error >= 0)
                error = check_properties(r, interface, o);
        if (error < 0)
                return error;
        *ret = json_object_get(o);
        return 0;
}

int remote_get(struct remote *r, const char *path, const char *interface, const char *name, struct json_object **ret) {
        ctl_cleanup(remote_message_unrefp) sd_bus_message *m = NULL;
        ctl_cleanup(json_putp) struct json_object *o = NULL;
        char whole[64];
        int error;

        snprintf(whole, sizeof whole, REMOTE_NAME ".%s", interface);
        error = sd_bus_message_new_method_call(r->bus, &m, REMOTE_NAME, path, "org.freedesktop.DBus.Properties", "Get");
        if (error >= 0)
                error = sd_bus_message_append(m, "ss", whole, name);
        if (error >= 0)
                error = remote_exchange(r, m, &plain_call, &o);
        if (error >= 0 && !json_object_is_type(o, json_type_array))
                error = remote_set_odd(r, "the property %s of a %s is no list", name, interface);
        if (error < 0)
                return error;
        *ret = json_object_get(o);
        return 0;
}

int remote_get_schema(struct remote *r, const char *pool_path, struct json_object **ret) {
        const struct remote_call call = {.path = pool_path, .interface = "Pool", .member = "Schema"};
        ctl_cleanup(json_putp) struct json_object *text = NULL;
        struct json_object *schema;
        int error = remote_call(r, &call, &text, NULL);

        if (error < 0)
                return error;
        schema = json_tokener_parse(json_string(text));
        if (!json_object_is_type(schema, json_type_object)) {
                json_object_put(schema);
                return remote_set_odd(r, "the schema of a pool is no JSON object");
        }
        *ret = schema;
        return 0;
}

/* A method of the bus itself that takes the daemon's name. */
static int ask_bus(struct remote *r, const char *member, struct json_object **ret) {
        ctl_cleanup(remote_message_unrefp) sd_bus_message *m = NULL;
        int error;

        error = sd_bus_message_new_method_call(r->bus, &m, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                               "org.freedesktop.DBus", member);
        if (error >= 0)
                error = sd_bus_message_append(m, "s", REMOTE_NAME);
        return error < 0 ? error : remote_exchange(r, m, &plain_call, ret);
}

int remote_has_daemon(struct remote *r) {
        ctl_cleanup(json_putp) struct json_object *o = NULL;
        int error = ask_bus(r, "NameHasOwner", &o);

        return error < 0 ? error : json_object_get_boolean(o);
}

int remote_subscribe(struct remote *r, const char *member, sd_bus_message_handler_t fn, void *user) {
        const struct remote_call subscribe = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "Subscribe"};
        ctl_cleanup(json_putp) struct json_object *owner = NULL;
        int error = remote_call(r, &subscribe, NULL, NULL); /* first: it may start the daemon */

        if (error >= 0)
                error = ask_bus(r, "GetNameOwner", &owner);
        if (error >= 0)
                error = sd_bus_match_signal(r->bus, NULL, json_string(owner), REMOTE_MANAGER, REMOTE_NAME ".Manager",
                                            member, fn, user);
        return error < 0 ? error : 0;
}

/* ---- failures ---- */

const char *remote_error_name(const struct remote *r) {
        static const char prefix[] = REMOTE_NAME ".Error.";
        const char *name = r->error.name ? r->error.name : "";

        return strncmp(name, prefix, sizeof prefix - 1) == 0 ? name + sizeof prefix - 1 : name;
}

const char *remote_error_text(const struct remote *r) { return r->error.message ? r->error.message : ""; }

static bool is_unreachable(const struct remote *r, int error) {
        static const char *const names[] = {SD_BUS_ERROR_SERVICE_UNKNOWN, SD_BUS_ERROR_NAME_HAS_NO_OWNER,
                                            SD_BUS_ERROR_NO_REPLY,        SD_BUS_ERROR_NO_SERVER,
                                            SD_BUS_ERROR_DISCONNECTED,    SD_BUS_ERROR_TIMEOUT};

        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
                if (sd_bus_error_has_name(&r->error, names[i]))
                        return true;
        return error == -ECONNRESET || error == -ENOTCONN || error == -EPIPE || error == -ETIMEDOUT;
}

bool remote_is_over(int error) {
        return error == -ECONNRESET || error == -ENOTCONN || error == -EINTR || error == -EBADMSG;
}

/* The bus itself refused, in the words of dbus-daemon or dbus-broker. */
static bool is_policy(const struct remote *r) {
        const char *text = remote_error_text(r);

        return sd_bus_error_has_name(&r->error, SD_BUS_ERROR_ACCESS_DENIED) &&
               (strncmp(text, "Rejected send message", 21) == 0 || strncmp(text, "Sender is not authorized", 24) == 0);
}

int remote_report(struct remote *r, int error) {
        if (error == -EINTR)
                return CTL_INTERRUPTED;
        if (r->odd[0]) {
                ctl_error("droverd's answer makes no sense here: %s. Is it of another release than this droverctl "
                          "(" DROVER_VERSION ")?",
                          r->odd);
                return CTL_REFUSED;
        }
        if (sd_bus_error_has_name(&r->error, SD_BUS_ERROR_SERVICE_UNKNOWN)) {
                ctl_error("droverd is not running on this bus (nobody owns " REMOTE_NAME
                          "); systemctl start drover starts the system's, systemctl --user start drover yours; --user "
                          "and --system choose the bus");
                return CTL_UNREACHABLE;
        }
        if (r->error.name)
                ctl_error("%s (%s)%s", r->error.message ? r->error.message : "no message", r->error.name,
                          is_policy(r) ? "; on the system bus droverd is for root and group drover" : "");
        else
                ctl_error("the call to droverd failed: %s", strerror(-error));
        if (sd_bus_error_has_name(&r->error, SD_BUS_ERROR_INVALID_ARGS))
                return CTL_USAGE; /* it came from the command line */
        return is_unreachable(r, error) ? CTL_UNREACHABLE : CTL_REFUSED;
}
