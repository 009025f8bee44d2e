/* org.drover1.Job: the methods. Properties are in job-properties.c.
 *
 * A job belongs to the uid that submitted it; to others it is as unknown as a missing one. The find callback of a
 * vtable cannot wait until the bus has said who asks, so it finds every well-formed path, which tells nobody anything,
 * and methods look at the owner. Jobs announce nothing but JobRemoved, which goes to those who may see them. A
 * session's job is here while it is queued or running, to be looked at and cancelled; its verdict is its client's. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/bus/authorize.h"
#include "daemon/bus/call.h"
#include "daemon/bus/late.h"
#include "daemon/bus/objects/run.h"
#include "daemon/bus/value.h"
#include "ipc/values/capsule.h"
#include "ipc/values/words.h"

static int job_of(struct bus *b, const struct bus_peer *p, sd_bus_message *m, struct bus_job *ret, sd_bus_error *e) {
        uint64_t id;

        if (bus_parse_id(sd_bus_message_get_path(m), BUS_JOBS, &id) < 0)
                return -EINVAL;
        return bus_find_job(b, p, id, ret, e);
}

/* One that has a record here. */
static int own_job_of(struct bus *b, const struct bus_peer *p, sd_bus_message *m, struct job **ret, sd_bus_error *e) {
        struct bus_job found;
        int r;

        r = job_of(b, p, m, &found, e);
        if (r < 0)
                return r;
        if (!found.job)
                return bus_invalid(e, "this job was submitted through a channel: %s is its client's to know",
                                   sd_bus_message_get_member(m));
        *ret = found.job;
        return 0;
}

/* ---- methods ---- */

static int method_cancel(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        enum cancel_mode mode;
        struct bus_job j;
        const char *word;
        char by[64];
        int r;

        r = job_of(b, p, m, &j, e);
        if (r >= 0)
                r = sd_bus_message_read(m, "s", &word);
        if (r < 0)
                return r;
        if (job_cancel_mode(word, &mode) < 0)
                return bus_invalid(e, "cancel mode \"%.64s\" is none of queued, ask, kill", word);
        snprintf(by, sizeof by, "uid %u (%.40s)", (unsigned)p->uid, sd_bus_message_get_sender(m));
        return bus_reply(b, m, "s", j.job ? job_cancel(j.job, mode, by) : session_job_cancel(&j.session, mode, by));
}

static int answer_state(struct bus *b, sd_bus_message *m, struct job *j, sd_bus_error *e) {
        struct job_info info;

        job_get_info(j, &info);
        return bus_reply(b, m, "s", words_slot_state(info.state));
}

static int method_wait(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        struct job_info info;
        uint64_t usec;
        struct job *j;
        int r;

        r = own_job_of(b, p, m, &j, e);
        if (r >= 0)
                r = sd_bus_message_read(m, "t", &usec);
        if (r < 0)
                return r;
        job_get_info(j, &info);
        if (info.state >= SLOT_DONE || usec == 0)
                return bus_reply(b, m, "s", words_slot_state(info.state));
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
                char text[FAULT_TEXT];

                snprintf(text, sizeof(text), "%s", i->error);
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
                r = run_append_result(reply, i, e);
        for (int k = 0; k < 2 && r >= 0; k++)
                r = sd_bus_message_close_container(reply);
        return r;
}

static int method_get_result(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *reply = NULL;
        struct bus_weight w = {.n_bytes = 8 * BUS_REPLY_BYTES};
        struct job_info info;
        struct job *j;
        int r;

        r = own_job_of(b, p, m, &j, e);
        if (r < 0)
                return r;
        job_get_info(j, &info);
        if (info.state < SLOT_DONE)
                return sd_bus_error_setf(e, "org.drover1.Error.NotFinished", "job %llu is still %s (attempt %u)",
                                         (unsigned long long)info.id, words_slot_state(info.state), info.attempt);
        r = bus_reply_begin(m, "{sv}", &reply);
        if (r >= 0)
                r = append_verdict(reply, &info);
        if (r >= 0 && info.state == SLOT_DONE)
                r = append_result(reply, &info, e);
        if (info.state == SLOT_DONE)
                w = run_result_weight(&info);
        return bus_reply_end(b, reply, w, r);
}

static int method_open_stream(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        struct fault f = {};
        struct bus_job j;
        int fd, r;

        r = job_of(b, p, m, &j, e);
        if (r < 0)
                return r;
        r = j.job ? job_open_stream(j.job, &fd, &f) : session_job_open_stream(&j.session, &fd, &f);
        if (r < 0)
                return bus_error_from_fault(e, &f);
        r = bus_reply(b, m, "h", fd);
        close(fd);
        return r;
}

/* ---- from the capsule ---- */

/* What becomes of a capsule that was found. */
typedef int (*capsule_reply_fn)(struct bus *b, sd_bus_message *m, uint64_t id, int fd, sd_bus_error *e);

struct capsule_wanted {
        struct bus_late *late;
        uint64_t id;
        capsule_reply_fn reply;
};

static int reply_fd(struct bus *b, sd_bus_message *m, uint64_t id, int fd, sd_bus_error *e) {
        return bus_reply(b, m, "h", fd);
}

static int reply_requeued(struct bus *b, sd_bus_message *m, uint64_t id, int fd, sd_bus_error *e) {
        struct fault f = {};
        struct capsule c;
        int r;

        r = capsule_load(fd, &c);
        if (r < 0 || c.id != id) {
                if (r >= 0)
                        capsule_deinit(&c);
                return sd_bus_error_setf(e, SD_BUS_ERROR_FAILED, "the capsule of job %llu is damaged",
                                         (unsigned long long)id);
        }
        r = supervisor_requeue_capsule(b->supervisor, &c, &f);
        capsule_deinit(&c);
        return r < 0 ? bus_error_from_fault(e, &f) : bus_reply(b, m, NULL);
}

static int reply_capsule(struct bus *b, sd_bus_message *m, const struct capsule_wanted *w, int error, int fd,
                         sd_bus_error *e) {
        const char *why = error == -EPROTO || error == -EFBIG ? "it is damaged"
                          : error == -ETIMEDOUT               ? "its disk or server does not answer"
                                                              : strerror(-error);

        if (error == -ENOENT)
                return sd_bus_error_setf(e, "org.drover1.Error.NoSuchJob", "there is no %s of job %llu%s",
                                         w->reply == reply_fd ? "capsule" : "record, nor a capsule,",
                                         (unsigned long long)w->id, w->reply == reply_fd ? "" : " of yours");
        if (error == -EBUSY)
                return sd_bus_error_setf(e, SD_BUS_ERROR_LIMITS_EXCEEDED,
                                         "too many capsules are being read already: try again");
        if (error < 0)
                return sd_bus_error_setf(e, SD_BUS_ERROR_FAILED, "the capsule of job %llu cannot be read: %s",
                                         (unsigned long long)w->id, why);
        return w->reply(b, m, w->id, fd, e);
}

static void on_capsule(void *user, int error, int fd) {
        struct capsule_wanted w = *(struct capsule_wanted *)user;
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *m = NULL;
        sd_bus_error e = SD_BUS_ERROR_NULL;
        struct bus *b;
        int r;

        free(user);
        m = late_take(w.late, &b);
        r = m ? reply_capsule(b, m, &w, error, fd, &e) : 0;
        if (r < 0)
                bus_reply_error(b, m, r, &e);
        sd_bus_error_free(&e);
        if (fd >= 0)
                close(fd);
}

/* Looks for the capsule of the job that `m` is for, if its caller may see it, and answers by `reply`. */
static int ask_capsule(struct bus *b, const struct bus_peer *p, sd_bus_message *m, capsule_reply_fn reply) {
        struct capsule_wanted *w;
        uint64_t id;
        int r;

        if (bus_parse_id(sd_bus_message_get_path(m), BUS_JOBS, &id) < 0)
                return -EINVAL;
        w = calloc(1, sizeof(*w));
        if (!w)
                return -ENOMEM;
        w->id = id;
        w->reply = reply;
        r = late_new(b, m, &w->late);
        if (r < 0) {
                free(w);
                return r;
        }
        supervisor_open_capsule(b->supervisor, id, p->uid, authorize_is_root(p->uid), on_capsule, w);
        return 1;
}

/* Also of a job that is not kept any more: the capsule says whose it was. */
static int method_get_capsule(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        return ask_capsule(b, p, m, reply_fd);
}

static int method_requeue(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        struct fault f = {};
        struct job *j;
        int r;

        r = own_job_of(b, p, m, &j, e);
        if (r < 0 && (sd_bus_error_has_name(e, "org.drover1.Error.NoSuchJob") ||
                      sd_bus_error_has_name(e, "org.drover1.Error.ResultExpired"))) {
                sd_bus_error_free(e);
                return ask_capsule(b, p, m, reply_requeued);
        }
        if (r < 0)
                return r;
        return job_requeue(j, &f) < 0 ? bus_error_from_fault(e, &f) : bus_reply(b, m, NULL);
}

const struct bus_method job_methods[] = {
        {"Cancel", method_cancel},
        {"Wait", method_wait, true},
        {"GetResult", method_get_result, true},
        {"OpenStream", method_open_stream},
        {"Requeue", method_requeue},
        {"GetCapsule", method_get_capsule, true},
        {},
};

static int on_call(sd_bus_message *m, void *user, sd_bus_error *e) { return bus_dispatch(user, m, job_methods, e); }

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
        SD_BUS_METHOD_WITH_ARGS("OpenStream", SD_BUS_NO_ARGS, SD_BUS_RESULT("h", stream), on_call,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Requeue", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, on_call, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("GetCapsule", SD_BUS_NO_ARGS, SD_BUS_RESULT("h", capsule), on_call,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_PROPERTY("Id", "t", job_properties_get, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Pool", "s", job_properties_get, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Name", "s", job_properties_get, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("State", "s", job_properties_get, 0, 0),
        SD_BUS_PROPERTY("Uid", "u", job_properties_get, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Pid", "u", job_properties_get, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Connection", "s", job_properties_get, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Attempt", "u", job_properties_get, 0, 0),
        SD_BUS_PROPERTY("WorkerPid", "u", job_properties_get, 0, 0),
        SD_BUS_PROPERTY("Progress", "(tts)", job_properties_get, 0, 0),
        SD_BUS_PROPERTY("SubmittedUSec", "t", job_properties_get, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("StartedUSec", "t", job_properties_get, 0, 0),
        SD_BUS_PROPERTY("FinishedUSec", "t", job_properties_get, 0, 0),
        SD_BUS_PROPERTY("CancelAskedUSec", "t", job_properties_get, 0, 0),
        SD_BUS_PROPERTY("CancelAskedBy", "s", job_properties_get, 0, 0),
        SD_BUS_VTABLE_END,
};
