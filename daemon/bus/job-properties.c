/* The properties of org.drover1.Job.
 *
 * Getters of a vtable cannot wait until the bus has said who asks: properties asked for by a caller not known yet are
 * caught by a filter and answered from the same table a moment later. */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "daemon/bus/peer.h"
#include "ipc/words.h"

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

static void job_view_init(struct job_view *v, const struct bus_job *j) {
        bus_job_get_info(j, &v->info);
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
int job_properties_get(sd_bus *bus, const char *path, const char *interface, const char *name, sd_bus_message *reply,
                       void *user, sd_bus_error *e) {
        sd_bus_message *m = sd_bus_get_current_message(bus);
        const char *sender = m ? sd_bus_message_get_sender(m) : NULL;
        struct bus_peer *p = sender ? peer_find(user, sender) : NULL;
        struct job_view v;
        struct bus_job j;
        uint64_t id;
        int r;

        if (!p || !p->is_known || bus_parse_id(path, BUS_JOBS, &id) < 0)
                return -EACCES;
        r = bus_find_job(user, p, id, &j, e);
        if (r < 0)
                return r;
        job_view_init(&v, &j);
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
        struct bus_job j;
        uint64_t id;
        int r;

        if (!sd_bus_message_has_signature(m, is_all ? "s" : "ss"))
                return bus_invalid(e, "wrong arguments for %s", sd_bus_message_get_member(m));
        r = sd_bus_message_read_basic(m, 's', &interface);
        if (r >= 0 && !is_all)
                r = sd_bus_message_read_basic(m, 's', &name);
        if (r >= 0)
                r = bus_parse_id(sd_bus_message_get_path(m), BUS_JOBS, &id);
        if (r >= 0)
                r = bus_find_job(b, p, id, &j, e);
        if (r < 0)
                return r;
        if (interface[0] && strcmp(interface, BUS_JOB) != 0)
                return sd_bus_error_setf(e, SD_BUS_ERROR_UNKNOWN_INTERFACE, "unknown interface \"%s\"", interface);
        job_view_init(&v, &j);
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
