/* The properties of org.drover1.Job, for whoever may see the job. */
#include <errno.h>
#include <stddef.h>

#include "daemon/bus/peers/peer.h"
#include "ipc/values/words.h"

struct job_view {
        struct job_info info;
        const char *state;
        uint32_t uid, pid, worker_pid;
        const char *cancel_asked_by;
};

static const struct bus_property properties[] = {
        {"Id", "t", offsetof(struct job_view, info.id)},
        {"Pool", "s", offsetof(struct job_view, info.pool_name)},
        {"Name", "s", offsetof(struct job_view, info.name)},
        {"State", "s", offsetof(struct job_view, state)},
        {"Uid", "u", offsetof(struct job_view, uid)},
        {"Pid", "u", offsetof(struct job_view, pid)},
        {"Connection", "s", offsetof(struct job_view, info.connection)},
        {"Attempt", "u", offsetof(struct job_view, info.attempt)},
        {"WorkerPid", "u", offsetof(struct job_view, worker_pid)},
        {"Progress", "(tts)"},
        {"SubmittedUSec", "t", offsetof(struct job_view, info.submitted_us)},
        {"StartedUSec", "t", offsetof(struct job_view, info.started_us)},
        {"FinishedUSec", "t", offsetof(struct job_view, info.finished_us)},
        {"CancelAskedUSec", "t", offsetof(struct job_view, info.cancel_asked_us)},
        {"CancelAskedBy", "s", offsetof(struct job_view, cancel_asked_by)},
        {},
};

static void job_view_init(struct job_view *v, const struct bus_job *j) {
        bus_job_get_info(j, &v->info);
        bus_clean_text(v->info.progress_note);
        v->state = words_slot_state(v->info.state);
        v->uid = (uint32_t)v->info.uid;
        v->pid = (uint32_t)v->info.pid;
        v->worker_pid = (uint32_t)v->info.worker_pid;
        v->cancel_asked_by = v->info.cancel_asked_by;
}

static int append_property(sd_bus_message *reply, const struct bus_property *p, void *user) {
        const struct job_view *v = user;

        if (p->type[0] == '(')
                return sd_bus_message_append(reply, "(tts)", v->info.progress_done, v->info.progress_total,
                                             v->info.progress_note);
        return bus_append_property(reply, p, v);
}

/* libsystemd never asks: reads are answered below (dispatch.c), and jobs are in no list of objects. */
int job_properties_get(sd_bus *bus, const char *path, const char *interface, const char *name, sd_bus_message *reply,
                       void *user, sd_bus_error *e) {
        return -EACCES;
}

static const struct bus_properties face = {BUS_JOB, properties, append_property};

int job_properties_answer(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        struct job_view v;
        struct bus_job j;
        uint64_t id;
        int r;

        if (bus_parse_id(sd_bus_message_get_path(m), BUS_JOBS, &id) < 0)
                return bus_unknown_object(m, e);
        r = bus_find_job(b, p, id, &j, e);
        if (r < 0)
                return r;
        job_view_init(&v, &j);
        return bus_reply_properties(b, m, &face, &v, e);
}
