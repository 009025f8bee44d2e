/* org.drover1.Job.
 *
 * A job belongs to the uid that submitted it; to others it is as unknown as a missing one. The find callback of a
 * vtable cannot wait until the bus has said who asks, so it finds every well-formed path, which tells nobody anything,
 * and methods and getters look at the owner. Getters cannot wait either: properties asked for by a caller not known yet
 * are caught by a filter and answered from the same table a moment later. Jobs announce nothing but JobRemoved, which
 * goes to those who may see them. */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "daemon/bus/call.h"
#include "daemon/bus/value.h"
#include "ipc/words.h"

static int job_of(struct bus *b, const struct bus_peer *p, sd_bus_message *m, struct job **ret, sd_bus_error *e) {
        uint64_t id;

        if (bus_parse_id(sd_bus_message_get_path(m), BUS_JOBS, &id) < 0)
                return -EINVAL;
        return bus_find_job(b, p, id, ret, e);
}

/* ---- methods ---- */

static int method_cancel(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        struct fault f = {};
        const char *mode, *word;
        struct job *j;
        int r;

        r = job_of(b, p, m, &j, e);
        if (r >= 0)
                r = sd_bus_message_read(m, "s", &mode);
        if (r < 0)
                return r;
        if (strcmp(mode, "queued") != 0 && strcmp(mode, "ask") != 0 && strcmp(mode, "kill") != 0)
                return bus_invalid(e, "cancel mode \"%.64s\" is none of queued, ask, kill", mode);
        word = job_cancel(j, mode, &f);
        return word ? bus_reply(m, "s", word) : bus_error_from_fault(e, &f);
}

static int answer_state(struct bus *b, sd_bus_message *m, struct job *j, sd_bus_error *e) {
        struct job_info info;

        job_get_info(j, &info);
        return bus_reply(m, "s", words_slot_state(info.state));
}

static int method_wait(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        struct job_info info;
        uint64_t usec;
        struct job *j;
        int r;

        r = job_of(b, p, m, &j, e);
        if (r >= 0)
                r = sd_bus_message_read(m, "t", &usec);
        if (r < 0)
                return r;
        job_get_info(j, &info);
        if (info.state >= SLOT_DONE || usec == 0)
                return bus_reply(m, "s", words_slot_state(info.state));
        r = call_check_room(p, e);
        if (r < 0)
                return r;
        return call_wait_verdict(p, m, CALL_WAIT, j, usec > UINT64_MAX / 1000 ? UINT64_MAX : usec * 1000, answer_state);
}

static int append_verdict(sd_bus_message *reply, const struct job_info *i) {
        char name[64];
        int r;

        r = sd_bus_message_append(reply, "{sv}{sv}{sv}{sv}", "state", "s", words_slot_state(i->state), "attempts", "u",
                                  i->attempt, "queue-usec", "t", i->queue_us, "run-usec", "t", i->run_us);
        if (r >= 0 && i->worker_pid)
                r = sd_bus_message_append(reply, "{sv}{sv}", "worker-pid", "u", (uint32_t)i->worker_pid, "cpu-usec",
                                          "t", i->cpu_us);
        if (r >= 0 && i->error && i->error[0]) {
                char text[512];

                strncpy(text, i->error, sizeof(text) - 1);
                text[sizeof(text) - 1] = '\0';
                bus_clean_text(text);
                r = sd_bus_message_append(reply, "{sv}", "error", "s", text);
        }
        if (r >= 0 && i->error_number)
                r = sd_bus_message_append(reply, "{sv}", "errno", "i", i->error_number);
        if (r >= 0 && i->reason != REASON_NONE)
                r = sd_bus_message_append(reply, "{sv}", "reason", "s", words_reason(i->reason));
        if (r >= 0 && i->signal)
                r = sd_bus_message_append(reply, "{sv}", "signal", "i", i->signal);
        if (r >= 0 && i->reason == REASON_EXIT)
                r = sd_bus_message_append(reply, "{sv}", "status", "i", i->status);
        if (r >= 0 && i->syscall) {
                death_syscall_name(i->syscall, name, sizeof(name));
                r = sd_bus_message_append(reply, "{sv}", "syscall", "s", name);
        }
        return r;
}

static int append_result(sd_bus_message *reply, const struct job_info *i, sd_bus_error *e) {
        int r;

        r = sd_bus_message_open_container(reply, 'e', "sv");
        if (r >= 0)
                r = sd_bus_message_append_basic(reply, 's', "result");
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'v', "a{sv}");
        if (r >= 0)
                r = value_append_result(reply, i->result_fields, i->result, i->result_bytes, e);
        for (int k = 0; k < 2 && r >= 0; k++)
                r = sd_bus_message_close_container(reply);
        return r;
}

static int method_get_result(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *reply = NULL;
        struct job_info info;
        struct job *j;
        int r;

        r = job_of(b, p, m, &j, e);
        if (r < 0)
                return r;
        job_get_info(j, &info);
        if (info.state < SLOT_DONE)
                return sd_bus_error_setf(e, "org.drover1.Error.NotFinished", "job %llu is still %s (attempt %u)",
                                         (unsigned long long)info.id, words_slot_state(info.state), info.attempt);
        r = sd_bus_message_new_method_return(m, &reply);
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'a', "{sv}");
        if (r >= 0)
                r = append_verdict(reply, &info);
        if (r >= 0 && info.state == SLOT_DONE)
                r = append_result(reply, &info, e);
        if (r >= 0)
                r = sd_bus_message_close_container(reply);
        return r < 0 ? r : sd_bus_send(NULL, reply, NULL);
}

static int on_call(sd_bus_message *m, void *user, sd_bus_error *e) {
        static const struct bus_method methods[] = {
                {"Cancel", method_cancel},
                {"Wait", method_wait},
                {"GetResult", method_get_result},
                {},
        };

        return bus_dispatch(user, m, methods, e);
}

/* ---- properties ---- */

struct job_view {
        struct job_info info;
        const char *state;
        uint32_t worker_pid;
};

static const struct bus_property properties[] = {
        {"Id", "t", offsetof(struct job_view, info.id)},
        {"Pool", "s", offsetof(struct job_view, info.pool_name)},
        {"Name", "s", offsetof(struct job_view, info.name)},
        {"State", "s", offsetof(struct job_view, state)},
        {"Attempt", "u", offsetof(struct job_view, info.attempt)},
        {"WorkerPid", "u", offsetof(struct job_view, worker_pid)},
        {"Progress", "(tts)"},
        {"SubmittedUSec", "t", offsetof(struct job_view, info.submitted_us)},
        {"StartedUSec", "t", offsetof(struct job_view, info.started_us)},
        {"FinishedUSec", "t", offsetof(struct job_view, info.finished_us)},
        {},
};

static void job_view_init(struct job_view *v, const struct job *j) {
        job_get_info(j, &v->info);
        bus_clean_text(v->info.progress_note);
        v->state = words_slot_state(v->info.state);
        v->worker_pid = (uint32_t)v->info.worker_pid;
}

static int append_property(sd_bus_message *reply, const struct bus_property *p, const struct job_view *v) {
        if (p->type[0] == '(')
                return sd_bus_message_append(reply, "(tts)", v->info.progress_done, v->info.progress_total,
                                             v->info.progress_note);
        return bus_append_property(reply, p, v);
}

/* For callers known already: the filter let the message through. */
static int get_property(sd_bus *bus, const char *path, const char *interface, const char *name, sd_bus_message *reply,
                        void *user, sd_bus_error *e) {
        sd_bus_message *m = sd_bus_get_current_message(bus);
        const char *sender = m ? sd_bus_message_get_sender(m) : NULL;
        struct bus_peer *p = sender ? peer_find(user, sender) : NULL;
        struct job_view v;
        struct job *j;
        uint64_t id;
        int r;

        if (!p || !p->is_known || bus_parse_id(path, BUS_JOBS, &id) < 0)
                return -EACCES;
        r = bus_find_job(user, p, id, &j, e);
        if (r < 0)
                return r;
        job_view_init(&v, j);
        return append_property(reply, bus_find_property(properties, name), &v);
}

static int reply_one(sd_bus_message *m, const char *name, const struct job_view *v, sd_bus_error *e) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *reply = NULL;
        const struct bus_property *p = bus_find_property(properties, name);
        int r;

        if (!p)
                return sd_bus_error_setf(e, SD_BUS_ERROR_UNKNOWN_PROPERTY, "unknown property \"%s\"", name);
        r = sd_bus_message_new_method_return(m, &reply);
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'v', p->type);
        if (r >= 0)
                r = append_property(reply, p, v);
        if (r >= 0)
                r = sd_bus_message_close_container(reply);
        return r < 0 ? r : sd_bus_send(NULL, reply, NULL);
}

static int reply_all(sd_bus_message *m, const struct job_view *v) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *reply = NULL;
        int r;

        r = sd_bus_message_new_method_return(m, &reply);
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'a', "{sv}");
        for (const struct bus_property *p = properties; p->name && r >= 0; p++) {
                r = sd_bus_message_open_container(reply, 'e', "sv");
                if (r >= 0)
                        r = sd_bus_message_append_basic(reply, 's', p->name);
                if (r >= 0)
                        r = sd_bus_message_open_container(reply, 'v', p->type);
                if (r >= 0)
                        r = append_property(reply, p, v);
                if (r >= 0)
                        r = sd_bus_message_close_container(reply);
                if (r >= 0)
                        r = sd_bus_message_close_container(reply);
        }
        if (r >= 0)
                r = sd_bus_message_close_container(reply);
        return r < 0 ? r : sd_bus_send(NULL, reply, NULL);
}

/* Properties.Get and GetAll, for a caller that was not known when it asked. */
static int answer_properties(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        bool is_all = sd_bus_message_is_method_call(m, NULL, "GetAll");
        const char *interface, *name = NULL;
        struct job_view v;
        struct job *j;
        int r;

        if (!sd_bus_message_has_signature(m, is_all ? "s" : "ss"))
                return bus_invalid(e, "wrong arguments for %s", sd_bus_message_get_member(m));
        r = sd_bus_message_read_basic(m, 's', &interface);
        if (r >= 0 && !is_all)
                r = sd_bus_message_read_basic(m, 's', &name);
        if (r >= 0)
                r = job_of(b, p, m, &j, e);
        if (r < 0)
                return r;
        if (interface[0] && strcmp(interface, BUS_JOB) != 0)
                return sd_bus_error_setf(e, SD_BUS_ERROR_UNKNOWN_INTERFACE, "unknown interface \"%s\"", interface);
        job_view_init(&v, j);
        return is_all ? reply_all(m, &v) : reply_one(m, name, &v, e);
}

int job_face_filter(sd_bus_message *m, void *user, sd_bus_error *e) {
        static const char properties_interface[] = "org.freedesktop.DBus.Properties";
        const char *sender = sd_bus_message_get_sender(m);
        struct bus_peer *p;
        uint64_t id;

        if (!sd_bus_message_is_method_call(m, properties_interface, "Get") &&
            !sd_bus_message_is_method_call(m, properties_interface, "GetAll"))
                return 0;
        if (bus_parse_id(sd_bus_message_get_path(m), BUS_JOBS, &id) < 0)
                return 0;
        p = sender ? peer_find(user, sender) : NULL;
        if (p && p->is_known)
                return 0;
        return bus_dispatch_to(user, m, answer_properties, e);
}

int job_face_find(sd_bus *bus, const char *path, const char *interface, void *user, void **ret, sd_bus_error *e) {
        uint64_t id;

        if (bus_parse_id(path, BUS_JOBS, &id) < 0)
                return 0;
        *ret = user;
        return 1;
}

const sd_bus_vtable job_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD_WITH_ARGS("Cancel", SD_BUS_ARGS("s", mode), SD_BUS_RESULT("s", outcome), on_call,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Wait", SD_BUS_ARGS("t", timeout_usec), SD_BUS_RESULT("s", state), on_call,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("GetResult", SD_BUS_NO_ARGS, SD_BUS_RESULT("a{sv}", result), on_call,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_PROPERTY("Id", "t", get_property, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Pool", "s", get_property, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Name", "s", get_property, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("State", "s", get_property, 0, 0),
        SD_BUS_PROPERTY("Attempt", "u", get_property, 0, 0),
        SD_BUS_PROPERTY("WorkerPid", "u", get_property, 0, 0),
        SD_BUS_PROPERTY("Progress", "(tts)", get_property, 0, 0),
        SD_BUS_PROPERTY("SubmittedUSec", "t", get_property, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("StartedUSec", "t", get_property, 0, 0),
        SD_BUS_PROPERTY("FinishedUSec", "t", get_property, 0, 0),
        SD_BUS_VTABLE_END,
};
