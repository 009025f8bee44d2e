/* org.drover1.Pool: the operator's switches and the counters. */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/bus/authorize.h"
#include "daemon/bus/call.h"
#include "daemon/bus/objects/settings.h"

/* ---- methods ---- */

static int pool_of(struct bus *b, sd_bus_message *m, struct pool **ret, sd_bus_error *e) {
        int r = bus_find_pool_at(b, sd_bus_message_get_path(m), ret, e); /* perhaps removed since the call came */

        return r == 0 ? bus_unknown_object(m, e) : r < 0 ? r : 0;
}

static int control(struct bus *b, sd_bus_message *m, int (*fn)(struct pool *, struct fault *), sd_bus_error *e) {
        struct fault f = {};
        struct pool *pool;
        int r;

        r = pool_of(b, m, &pool, e);
        if (r < 0)
                return r;
        return fn(pool, &f) < 0 ? bus_error_from_fault(e, &f) : bus_reply(b, m, NULL);
}

#define CONTROL(word)                                                                                                  \
        static int method_##word(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {              \
                return control(b, m, pool_##word, e);                                                                  \
        }

CONTROL(start)
CONTROL(stop)
CONTROL(pause)
CONTROL(resume)
CONTROL(drain)
CONTROL(restart)
CONTROL(reset_failed)

static int method_resize(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        struct fault f = {};
        struct pool *pool;
        uint32_t n;
        int r;

        r = pool_of(b, m, &pool, e);
        if (r >= 0)
                r = sd_bus_message_read(m, "u", &n);
        if (r < 0)
                return r;
        if (n < 1 || n > LAYOUT_MAX_WORKERS)
                return bus_invalid(e, "workers=%u is not in the range of 1 to %d", n, LAYOUT_MAX_WORKERS);
        return pool_resize(pool, n, &f) < 0 ? bus_error_from_fault(e, &f) : bus_reply(b, m, NULL);
}

static int method_requeue_poisoned(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        struct fault f = {};
        struct pool *pool;
        uint32_t n;
        int r;

        r = pool_of(b, m, &pool, e);
        if (r < 0)
                return r;
        return pool_requeue_poisoned(pool, &n, &f) < 0 ? bus_error_from_fault(e, &f) : bus_reply(b, m, "u", n);
}

static int method_schema(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *reply = NULL;
        struct bus_weight w = {0};
        struct pool_info info;
        struct pool *pool;
        char *json;
        int r;

        r = pool_of(b, m, &pool, e);
        if (r < 0)
                return r;
        pool_get_info(pool, &info);
        if (!info.schema && info.state == POOL_REFUSED)
                return sd_bus_error_setf(e, "org.drover1.Error.PoolRefused", "pool %s is refused: %s", info.name,
                                         info.problem);
        if (!info.schema && (info.state == POOL_STARTING || info.state == POOL_PAUSED)) { /* as Run waits */
                r = call_check_room(p, e);
                return r < 0 ? r : call_wait_pool(p, m, method_schema);
        }
        if (!info.schema)
                return sd_bus_error_setf(e, "org.drover1.Error.PoolStopped",
                                         "pool %s had no worker yet, so its schema is not known%s%s", info.name,
                                         info.problem[0] ? ": " : "", info.problem);
        r = schema_to_json(info.schema, &json);
        if (r < 0)
                return r;
        r = sd_bus_message_new_method_return(m, &reply);
        if (r >= 0)
                r = sd_bus_message_append(reply, "s", json);
        w.n_bytes = BUS_REPLY_BYTES + strlen(json);
        free(json);
        return r < 0 ? r : bus_send(b, reply, w);
}

const struct bus_method pool_methods[] = {
        {"Start", method_start},
        {"Stop", method_stop},
        {"Pause", method_pause},
        {"Resume", method_resume},
        {"Drain", method_drain},
        {"Restart", method_restart},
        {"Resize", method_resize},
        {"ResetFailed", method_reset_failed},
        {"Schema", method_schema, true},
        {"RequeuePoisoned", method_requeue_poisoned},
        {},
};

/* userdata is the pool here; the bus comes with the vtable's slot. */
static int on_call(sd_bus_message *m, void *user, sd_bus_error *e) {
        return bus_dispatch(sd_bus_slot_get_userdata(sd_bus_get_current_slot(sd_bus_message_get_bus(m))), m,
                            pool_methods, e);
}

/* ---- properties ---- */

struct pool_view {
        struct pool_info info;
        const char *start_method, *model, *state;
        uint32_t n_queued, n_running;
        char problem[512];
        struct pool *pool;
        bool sees_all; /* root asks */
};

#define COUNTER(name, field)                                                                                           \
        { name, "t", offsetof(struct pool_view, info.counters.field) }

static const struct bus_property properties[] = {
        {"Name", "s", offsetof(struct pool_view, info.name)},
        {"Plugin", "s", offsetof(struct pool_view, info.plugin)},
        {"PluginVersion", "s", offsetof(struct pool_view, info.plugin_version)},
        {"StartMethod", "s", offsetof(struct pool_view, start_method)},
        {"Model", "s", offsetof(struct pool_view, model)},
        {"State", "s", offsetof(struct pool_view, state)},
        {"Problem", "s", offsetof(struct pool_view, problem), .is_inline = true},
        {"Workers", "u", offsetof(struct pool_view, info.n_workers)},
        {"MinWorkers", "u", offsetof(struct pool_view, info.min_workers)},
        {"MaxWorkers", "u", offsetof(struct pool_view, info.max_workers)},
        {"Queued", "u", offsetof(struct pool_view, n_queued)},
        {"Running", "u", offsetof(struct pool_view, n_running)},
        {"Latency", "a{sv}"},
        {"Files", "as", .is_explicit = true},
        {"Settings", "a(ssss)", .is_explicit = true},
        COUNTER("Submitted", submitted),
        COUNTER("Completed", completed),
        COUNTER("Failed", failed),
        COUNTER("Cancelled", cancelled),
        COUNTER("Expired", expired),
        COUNTER("TimedOut", timed_out),
        COUNTER("Poisoned", poisoned),
        COUNTER("Lost", lost),
        COUNTER("Retried", retried),
        COUNTER("WorkerDeaths", worker_deaths),
        {},
};

static void pool_view_init(struct pool_view *v, struct pool *p, const struct bus_peer *viewer) {
        *v = (struct pool_view){
                .pool = p, .model = "process", .sees_all = viewer && viewer->user && authorize_is_root(viewer->uid)};
        pool_get_info(p, &v->info);
        v->start_method = start_method_word(v->info.start_method);
        v->state = pool_state_word(v->info.state);
        strncpy(v->problem, v->info.problem ? v->info.problem : "", sizeof(v->problem) - 1);
        bus_clean_text(v->problem);
}

static int append_figures(sd_bus_message *reply, const struct pool_latency *l) {
        const struct {
                const char *name;
                uint64_t value;
        } figures[] = {
                {"jobs", l->n_jobs},
                {"queue-p50-usec", l->queue.p50_us},
                {"queue-p90-usec", l->queue.p90_us},
                {"queue-p99-usec", l->queue.p99_us},
                {"queue-max-usec", l->queue.max_us},
                {"run-p50-usec", l->run.p50_us},
                {"run-p90-usec", l->run.p90_us},
                {"run-p99-usec", l->run.p99_us},
                {"run-max-usec", l->run.max_us},
        };
        int r;

        r = sd_bus_message_open_container(reply, 'a', "{st}");
        for (size_t i = 0; i < sizeof(figures) / sizeof(*figures) && r >= 0; i++)
                r = sd_bus_message_append(reply, "{st}", figures[i].name, figures[i].value);
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int append_latency_of_types(sd_bus_message *reply, const struct pool *p) {
        struct pool_latency l;
        int r;

        r = sd_bus_message_open_container(reply, 'a', "{sa{st}}");
        for (uint32_t i = 0; i < pool_n_latency_types(p) && r >= 0; i++) {
                pool_get_latency(p, i, 1, &l);
                if (l.n_jobs == 0)
                        continue;
                r = sd_bus_message_open_container(reply, 'e', "sa{st}");
                if (r >= 0)
                        r = sd_bus_message_append(reply, "s", pool_latency_type(p, i));
                if (r >= 0)
                        r = append_figures(reply, &l);
                if (r >= 0)
                        r = sd_bus_message_close_container(reply);
        }
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

/* {"all": a{st}, "types": a{sa{st}}} */
static int append_latency(sd_bus_message *reply, const struct pool *p) {
        struct pool_latency all;
        int r;

        pool_get_latency(p, 0, pool_n_latency_types(p), &all);
        r = sd_bus_message_open_container(reply, 'a', "{sv}");
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'e', "sv");
        if (r >= 0)
                r = sd_bus_message_append(reply, "s", "all");
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'v', "a{st}");
        if (r >= 0)
                r = append_figures(reply, &all);
        for (unsigned i = 0; i < 2 && r >= 0; i++) /* variant and entry */
                r = sd_bus_message_close_container(reply);
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'e', "sv");
        if (r >= 0)
                r = sd_bus_message_append(reply, "s", "types");
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'v', "a{sa{st}}");
        if (r >= 0)
                r = append_latency_of_types(reply, p);
        for (unsigned i = 0; i < 3 && r >= 0; i++)
                r = sd_bus_message_close_container(reply);
        return r;
}

static int append_property(sd_bus_message *reply, const struct bus_property *p, void *user) {
        struct pool_view *v = user;

        if (strcmp(p->name, "Latency") == 0)
                return append_latency(reply, v->pool);
        if (strcmp(p->name, "Files") == 0)
                return settings_append_files(reply, pool_get_config(v->pool));
        if (strcmp(p->name, "Settings") == 0)
                return settings_append(reply, pool_get_config(v->pool), v->sees_all);
        if (strcmp(p->name, "Queued") == 0 || strcmp(p->name, "Running") == 0)
                pool_count_jobs(v->pool, &v->n_queued, &v->n_running);
        return bus_append_property(reply, p, v);
}

static int get_property(sd_bus *bus, const char *path, const char *interface, const char *name, sd_bus_message *reply,
                        void *user, sd_bus_error *e) {
        struct bus *b = sd_bus_slot_get_userdata(sd_bus_get_current_slot(bus));
        sd_bus_message *m = sd_bus_get_current_message(bus); /* GetManagedObjects; none for a signal */
        const char *sender = m ? sd_bus_message_get_sender(m) : NULL;
        struct pool_view v;

        pool_view_init(&v, user, sender ? peer_find(b, sender) : NULL);
        return append_property(reply, bus_find_property(properties, name), &v);
}

static const struct bus_properties face = {BUS_POOL, properties, append_property};

int pool_properties_answer(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        struct pool_view v;
        struct pool *pool;
        int r;

        r = pool_of(b, m, &pool, e);
        if (r < 0)
                return r;
        pool_view_init(&v, pool, p);
        return bus_reply_properties(b, m, &face, &v, e);
}

/* ---- objects ---- */

int pool_face_find(sd_bus *bus, const char *path, const char *interface, void *user, void **ret, sd_bus_error *e) {
        struct pool *p;
        int r = bus_find_pool_at(user, path, &p, e);

        *ret = p;
        return r;
}

int pool_face_enumerate(sd_bus *bus, const char *prefix, void *user, char ***ret, sd_bus_error *e) {
        struct bus *b = user;
        char path[BUS_MAX_PATH], **paths = NULL;
        size_t n = 0;
        int r = 0;

        for (struct pool *p = supervisor_next_pool(b->supervisor, NULL); p && r >= 0;
             p = supervisor_next_pool(b->supervisor, p)) {
                bus_pool_path(pool_get_config(p)->name, path);
                r = bus_path_add(&paths, &n, path);
        }
        *ret = paths;
        return r < 0 ? r : 1;
}

#define METHOD(name, args, result)                                                                                     \
        SD_BUS_METHOD_WITH_ARGS(name, SD_BUS_ARGS args, SD_BUS_RESULT result, on_call, SD_BUS_VTABLE_UNPRIVILEGED)
#define PROPERTY(name, type, flags) SD_BUS_PROPERTY(name, type, get_property, 0, flags)

const sd_bus_vtable pool_vtable[] = {
        SD_BUS_VTABLE_START(0),
        METHOD("Start", (NULL), (NULL)),
        METHOD("Stop", (NULL), (NULL)),
        METHOD("Pause", (NULL), (NULL)),
        METHOD("Resume", (NULL), (NULL)),
        METHOD("Drain", (NULL), (NULL)),
        METHOD("Restart", (NULL), (NULL)),
        METHOD("Resize", ("u", workers), (NULL)),
        METHOD("ResetFailed", (NULL), (NULL)),
        METHOD("RequeuePoisoned", (NULL), ("u", n)),
        METHOD("Schema", (NULL), ("s", json)),
        PROPERTY("Name", "s", SD_BUS_VTABLE_PROPERTY_CONST),
        PROPERTY("Plugin", "s", 0),
        PROPERTY("PluginVersion", "s", 0),
        PROPERTY("StartMethod", "s", 0),
        PROPERTY("Model", "s", 0),
        PROPERTY("State", "s", SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        PROPERTY("Problem", "s", 0),
        PROPERTY("Workers", "u", 0),
        PROPERTY("MinWorkers", "u", 0),
        PROPERTY("MaxWorkers", "u", 0),
        PROPERTY("Queued", "u", 0),
        PROPERTY("Running", "u", 0),
        PROPERTY("Submitted", "t", 0),
        PROPERTY("Completed", "t", 0),
        PROPERTY("Failed", "t", 0),
        PROPERTY("Cancelled", "t", 0),
        PROPERTY("Expired", "t", 0),
        PROPERTY("TimedOut", "t", 0),
        PROPERTY("Poisoned", "t", 0),
        PROPERTY("Lost", "t", 0),
        PROPERTY("Retried", "t", 0),
        PROPERTY("WorkerDeaths", "t", 0),
        PROPERTY("Latency", "a{sv}", 0),
        PROPERTY("Files", "as", SD_BUS_VTABLE_PROPERTY_EXPLICIT),
        PROPERTY("Settings", "a(ssss)", SD_BUS_VTABLE_PROPERTY_EXPLICIT),
        SD_BUS_VTABLE_END,
};
