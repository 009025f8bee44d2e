/* org.drover1.Worker. Its State changes between idle and running without a signal: jobs are claimed in shared memory
 * and cost the bus nothing, so those two are for asking; the others are announced. */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/bus/authorize.h"
#include "daemon/bus/peers/peer.h"
#include "daemon/supervise/waiting.h"
#include "ipc/values/words.h"

/* ---- methods ---- */

static int no_such_worker(const char *path, sd_bus_error *e) {
        return sd_bus_error_setf(e, "org.drover1.Error.NoSuchWorker",
                                 "there is no worker %s: it has ended, or there never was one",
                                 path + sizeof(BUS_WORKERS));
}

static int worker_of(struct bus *b, sd_bus_message *m, struct worker **ret, sd_bus_error *e) {
        *ret = bus_worker_at(b, sd_bus_message_get_path(m)); /* found when the call came, perhaps gone since */
        return *ret ? 0 : no_such_worker(sd_bus_message_get_path(m), e);
}

static int method_kill(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        struct fault f = {};
        struct worker *w;
        int signal, r;

        r = worker_of(b, m, &w, e);
        if (r >= 0)
                r = sd_bus_message_read(m, "i", &signal);
        if (r < 0)
                return r;
        if (signal < 1 || signal >= _NSIG)
                return bus_invalid(e, "signal=%d is not in the range of 1 to %d", signal, _NSIG - 1);
        return worker_kill(w, signal, &f) < 0 ? bus_error_from_fault(e, &f) : bus_reply(b, m, NULL);
}

static int method_get_pidfd(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        struct worker_info info;
        struct worker *w;
        int fd, r;

        r = worker_of(b, m, &w, e);
        if (r < 0)
                return r;
        fd = worker_get_pidfd(w);
        if (fd < 0) {
                worker_get_info(w, &info);
                return sd_bus_error_setf(e, "org.drover1.Error.NoSuchWorker", "worker %llu has no process yet",
                                         (unsigned long long)info.id);
        }
        return bus_reply(b, m, "h", fd);
}

static int append_task(struct bus *b, const struct bus_peer *p, sd_bus_message *reply, const struct worker_info *w,
                       const struct job_info *task) {
        const struct waiting_viewer viewer = {.uid = p->uid, .sees_all = authorize_is_root(p->uid)};
        char waiting_for[400] = "";
        bool is_over = task->finished_us > 0;
        int r;

        if (!is_over)
                waiting_describe(b->supervisor, w->pid, &viewer, waiting_for, sizeof(waiting_for));
        bus_clean_text(waiting_for);
        r = sd_bus_message_open_container(reply, 'a', "{sv}");
        if (r >= 0)
                r = sd_bus_message_append(reply, "{sv}{sv}{sv}{sv}{sv}{sv}", "job", "t", task->id, "type", "s",
                                          task->name, "attempt", "u", task->attempt, "state", "s",
                                          is_over          ? words_slot_state(task->state)
                                          : waiting_for[0] ? "waiting"
                                                           : "running",
                                          "since-usec", "t", task->started_us, "waiting-for", "s", waiting_for);
        if (r >= 0 && is_over)
                r = sd_bus_message_append(reply, "{sv}", "finished-usec", "t", task->finished_us);
        if (r >= 0 && task->cancel_asked_us)
                r = sd_bus_message_append(reply, "{sv}{sv}", "cancel-asked-usec", "t", task->cancel_asked_us,
                                          "cancel-asked-by", "s", task->cancel_asked_by);
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

/* In the process model one, or none, and the last one that is over. Whose job it is may see it. */
static int method_list_tasks(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *reply = NULL;
        struct worker_info info;
        struct job_info task, last;
        bool is_busy;
        struct worker *w;
        int r;

        r = worker_of(b, m, &w, e);
        if (r >= 0)
                r = bus_reply_begin(m, "a{sv}", &reply);
        if (r < 0)
                return r;
        worker_get_info(w, &info);
        is_busy = worker_get_task(w, &task);
        if (is_busy && peer_may_see(p, task.uid))
                r = append_task(b, p, reply, &info, &task);
        if (r >= 0 && worker_get_last(w, &last) && !(is_busy && last.id == task.id) && peer_may_see(p, last.uid))
                r = append_task(b, p, reply, &info, &last);
        return bus_reply_end(b, reply, bus_rows_weight(2), r);
}

const struct bus_method worker_methods[] = {
        {"Kill", method_kill},
        {"GetPidFD", method_get_pidfd, true},
        {"ListTasks", method_list_tasks, true},
        {},
};

static int on_call(sd_bus_message *m, void *user, sd_bus_error *e) {
        return bus_dispatch(sd_bus_slot_get_userdata(sd_bus_get_current_slot(sd_bus_message_get_bus(m))), m,
                            worker_methods, e);
}

/* ---- properties ---- */

struct worker_view {
        struct supervisor *supervisor;
        struct waiting_viewer viewer;
        struct worker_info info;
        uint32_t pid;
        const char *pool, *start_method, *state;
        char waiting_for[400];
};

static const struct bus_property properties[] = {
        {"Id", "t", offsetof(struct worker_view, info.id)},
        {"Pid", "u", offsetof(struct worker_view, pid)},
        {"Pool", "s", offsetof(struct worker_view, pool)},
        {"StartMethod", "s", offsetof(struct worker_view, start_method)},
        {"State", "s", offsetof(struct worker_view, state)},
        {"SandboxLevel", "s", offsetof(struct worker_view, info.sandbox)},
        {"Status", "s", offsetof(struct worker_view, info.status), .is_inline = true},
        {"WaitingFor", "s", offsetof(struct worker_view, waiting_for), .is_inline = true},
        {"JobsDone", "t", offsetof(struct worker_view, info.jobs_done)},
        {"CurrentJob", "t", offsetof(struct worker_view, info.current_job)},
        {"StartedUSec", "t", offsetof(struct worker_view, info.started_realtime_us)},
        {},
};

/* Of a job that is not theirs, callers see that there is one. */
static void worker_view_init(struct worker_view *v, struct bus *b, const struct worker *w, const struct bus_peer *p) {
        bool is_theirs;

        v->supervisor = b->supervisor;
        v->viewer = (struct waiting_viewer){.uid = p ? p->uid : 0, .sees_all = p && authorize_is_root(p->uid)};
        worker_get_info(w, &v->info);
        is_theirs = p && p->user && (v->info.current_job == 0 || peer_may_see(p, v->info.job_uid));
        bus_clean_text(v->info.status);
        v->pid = (uint32_t)v->info.pid;
        v->pool = pool_get_config(v->info.pool)->name;
        v->start_method = start_method_word(v->info.start_method);
        v->state = worker_state_word(v->info.state);
        v->waiting_for[0] = '\0';
        if (is_theirs)
                return;
        v->info.status[0] = '\0';
        v->info.current_job = 0;
        v->info.pid = 0; /* what it waits for is not looked for */
}

static int append_property(sd_bus_message *reply, const struct bus_property *p, void *user) {
        struct worker_view *v = user;

        if (strcmp(p->name, "WaitingFor") == 0 && v->info.pid > 0) { /* it alone costs a look into the arenas */
                waiting_describe(v->supervisor, v->info.pid, &v->viewer, v->waiting_for, sizeof(v->waiting_for));
                bus_clean_text(v->waiting_for);
        }
        return bus_append_property(reply, p, v);
}

static int get_property(sd_bus *bus, const char *path, const char *interface, const char *name, sd_bus_message *reply,
                        void *user, sd_bus_error *e) {
        struct bus *b = sd_bus_slot_get_userdata(sd_bus_get_current_slot(bus));
        sd_bus_message *m = sd_bus_get_current_message(bus); /* GetManagedObjects; none for a signal */
        const char *sender = m ? sd_bus_message_get_sender(m) : NULL;
        struct worker_view v;

        worker_view_init(&v, b, user, sender ? peer_find(b, sender) : NULL);
        return append_property(reply, bus_find_property(properties, name), &v);
}

static const struct bus_properties face = {BUS_WORKER, properties, append_property};

int worker_properties_answer(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        struct worker_view v;
        struct worker *w;
        int r;

        r = worker_of(b, m, &w, e);
        if (r < 0)
                return r;
        worker_view_init(&v, b, w, p);
        return bus_reply_properties(b, m, &face, &v, e);
}

/* ---- objects ---- */

int worker_face_find(sd_bus *bus, const char *path, const char *interface, void *user, void **ret, sd_bus_error *e) {
        *ret = bus_worker_at(user, path);
        if (!*ret && strcmp(path, BUS_WORKERS) != 0)
                return no_such_worker(path, e);
        return *ret != NULL;
}

int worker_face_enumerate(sd_bus *bus, const char *prefix, void *user, char ***ret, sd_bus_error *e) {
        struct bus *b = user;
        char path[BUS_MAX_PATH], **paths = NULL;
        struct worker_info info;
        size_t n = 0;
        int r = 0;

        for (struct worker *w = supervisor_next_worker(b->supervisor, NULL); w && r >= 0;
             w = supervisor_next_worker(b->supervisor, w)) {
                worker_get_info(w, &info);
                bus_worker_path(info.id, path);
                r = bus_path_add(&paths, &n, path);
        }
        *ret = paths;
        return r < 0 ? r : 1;
}

#define METHOD(name, args, result)                                                                                     \
        SD_BUS_METHOD_WITH_ARGS(name, SD_BUS_ARGS args, SD_BUS_RESULT result, on_call, SD_BUS_VTABLE_UNPRIVILEGED)
#define PROPERTY(name, type, flags) SD_BUS_PROPERTY(name, type, get_property, 0, flags)

const sd_bus_vtable worker_vtable[] = {
        SD_BUS_VTABLE_START(0),
        METHOD("Kill", ("i", signal), (NULL)),
        METHOD("GetPidFD", (NULL), ("h", pidfd)),
        METHOD("ListTasks", (NULL), ("aa{sv}", tasks)),
        PROPERTY("Id", "t", SD_BUS_VTABLE_PROPERTY_CONST),
        PROPERTY("Pid", "u", 0),
        PROPERTY("Pool", "s", SD_BUS_VTABLE_PROPERTY_CONST),
        PROPERTY("StartMethod", "s", SD_BUS_VTABLE_PROPERTY_CONST),
        PROPERTY("State", "s", SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        PROPERTY("SandboxLevel", "s", 0),
        PROPERTY("Status", "s", 0),
        PROPERTY("WaitingFor", "s", 0),
        PROPERTY("JobsDone", "t", 0),
        PROPERTY("CurrentJob", "t", 0),
        PROPERTY("StartedUSec", "t", SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_VTABLE_END,
};
