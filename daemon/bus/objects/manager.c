/* org.drover1.Manager: the object at the root. Run and Submit are in run.c, OpenChannel in channel.c, arenas in
 * arena.c. */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/bus/late.h"
#include "daemon/bus/objects/arena.h"
#include "daemon/bus/objects/run.h"
#include "daemon/bus/value.h"
#include "daemon/config/config-show.h"
#include "ipc/values/words.h"

enum { MAX_SETTINGS = 96, MAX_DEATHS_LISTED = 1024 };

static int method_list_pools(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *reply = NULL;
        char path[BUS_MAX_PATH];
        struct pool_info info;
        size_t n = 0;
        int r;

        r = bus_reply_begin(m, "(soss)", &reply);
        for (struct pool *pool = supervisor_next_pool(b->supervisor, NULL); pool && r >= 0;
             pool = supervisor_next_pool(b->supervisor, pool), n++) {
                pool_get_info(pool, &info);
                bus_pool_path(info.name, path);
                r = sd_bus_message_append(reply, "(soss)", info.name, path, info.plugin, pool_state_word(info.state));
        }
        return bus_reply_end(b, reply, bus_rows_weight(n), r);
}

static int method_get_pool(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        char path[BUS_MAX_PATH];
        struct pool *pool;
        const char *name;
        int r;

        r = sd_bus_message_read(m, "s", &name);
        if (r >= 0)
                r = bus_find_pool(b, name, &pool, e);
        if (r < 0)
                return r;
        bus_pool_path(name, path);
        return bus_reply(b, m, "o", path);
}

static int method_list_workers(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *reply = NULL;
        char path[BUS_MAX_PATH];
        struct worker_info info;
        int r;

        r = bus_reply_begin(m, "(tsous)", &reply);
        for (struct worker *w = supervisor_next_worker(b->supervisor, NULL); w && r >= 0;
             w = supervisor_next_worker(b->supervisor, w)) {
                worker_get_info(w, &info);
                bus_worker_path(info.id, path);
                r = sd_bus_message_append(reply, "(tsous)", info.id, pool_get_config(info.pool)->name, path,
                                          (uint32_t)info.pid, worker_state_word(info.state));
        }
        return bus_reply_end(b, reply, bus_rows_weight(supervisor_n_workers(b->supervisor)), r);
}

static int method_get_worker_by_pid(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        char path[BUS_MAX_PATH];
        struct worker_info info;
        struct worker *w;
        uint32_t pid;
        int r;

        r = sd_bus_message_read(m, "u", &pid);
        if (r < 0)
                return r;
        w = pid > 0 && pid <= INT32_MAX ? supervisor_find_worker_by_pid(b->supervisor, (pid_t)pid) : NULL;
        if (!w)
                return sd_bus_error_setf(e, "org.drover1.Error.NoSuchWorker", "no worker has pid %u", pid);
        worker_get_info(w, &info);
        bus_worker_path(info.id, path);
        return bus_reply(b, m, "o", path);
}

static int method_get_job(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        char path[BUS_MAX_PATH];
        struct bus_job j;
        uint64_t id;
        int r;

        r = sd_bus_message_read(m, "t", &id);
        if (r >= 0)
                r = bus_find_job(b, p, id, &j, e);
        if (r < 0)
                return r;
        bus_job_path(id, path);
        return bus_reply(b, m, "o", path);
}

/* ---- deaths ---- */

/* Whose job it was running is told to those who may see the job. */
static int append_death(sd_bus_message *reply, struct death *d, const struct bus_peer *p) {
        bool is_job_seen = d->job_id && peer_may_see(p, d->job_uid);
        char name[64];
        int r;

        if (d->job_id && !is_job_seen)
                death_hide_job(d);
        bus_clean_text(d->text);
        r = sd_bus_message_open_container(reply, 'a', "{sv}");
        if (r >= 0)
                r = sd_bus_message_append(reply, "{sv}{sv}{sv}{sv}{sv}{sv}{sv}", "worker", "t", d->worker_id, "pool",
                                          "s", d->pool, "pid", "u", (uint32_t)d->pid, "reason", "s",
                                          words_reason(d->reason), "status", "i", d->status, "realtime-usec", "t",
                                          d->realtime_us, "text", "s", d->text);
        if (r >= 0 && is_job_seen)
                r = sd_bus_message_append(reply, "{sv}{sv}", "job", "t", d->job_id, "attempt", "u", d->attempt);
        if (r >= 0 && d->syscall) {
                death_syscall_name(d->syscall, name, sizeof(name));
                r = sd_bus_message_append(reply, "{sv}{sv}", "syscall", "s", name, "phase", "s",
                                          words_phase(d->fault_phase));
        }
        if (r >= 0 && d->fault_path[0])
                r = sd_bus_message_append(reply, "{sv}", "path", "s", d->fault_path);
        if (r >= 0 && d->fault_module[0]) {
                snprintf(name, sizeof(name), "%s+0x%llx", d->fault_module, (unsigned long long)d->fault_offset);
                r = sd_bus_message_append(reply, "{sv}", "fault", "s", name);
        }
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int method_list_deaths(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *reply = NULL;
        struct death *deaths;
        struct pool *pool = NULL;
        const char *name;
        uint32_t n;
        size_t n_found = 0;
        int r;

        r = sd_bus_message_read(m, "su", &name, &n);
        if (r >= 0 && name[0])
                r = bus_find_pool(b, name, &pool, e);
        if (r >= 0)
                r = bus_reply_begin(m, "a{sv}", &reply);
        if (r < 0)
                return r;
        n = n < MAX_DEATHS_LISTED ? n : MAX_DEATHS_LISTED;
        deaths = calloc(n ? n : 1, sizeof(*deaths));
        if (!deaths)
                return -ENOMEM;
        if (n)
                n_found = supervisor_list_deaths(b->supervisor, pool, deaths, n);
        for (size_t i = 0; i < n_found && r >= 0; i++)
                r = append_death(reply, &deaths[i], p);
        free(deaths);
        return bus_reply_end(b, reply, bus_rows_weight(2 * n_found), r);
}

/* ---- pools come and go ---- */

static int check_flags(uint64_t flags, sd_bus_error *e) {
        return flags ? bus_invalid(e, "flags=%llu: none is defined yet, must be 0", (unsigned long long)flags) : 0;
}

static int set_one(struct pool_config *c, const char *key, const char *value, sd_bus_error *e) {
        char error[400];

        if (pool_config_set(c, NULL, key, value, error, sizeof(error)) < 0)
                return bus_invalid(e, "%s", error);
        if (value[0])
                config_origins_note(&c->origins, key, NULL, 0);
        return 0;
}

/* As pool_config_takes has it; 0: none of these. */
static char setting_kind(const char *contents) {
        if (strcmp(contents, "as") == 0)
                return 'l';
        if (contents[0] == '\0' || contents[1] != '\0')
                return 0;
        return strchr("sb", contents[0]) ? contents[0] : strchr("ynqiuxt", contents[0]) ? 'n' : 0;
}

/* The keys that were given, each once. */
struct setting_keys {
        char name[MAX_SETTINGS][48];
        unsigned n;
};

static int note_setting(struct setting_keys *keys, const char *key, sd_bus_error *e) {
        for (unsigned i = 0; i < keys->n; i++)
                if (strcmp(keys->name[i], key) == 0)
                        return bus_invalid(e, "%s is given twice", key);
        if (keys->n < MAX_SETTINGS &&
            strlen(key) < sizeof(keys->name[0])) /* longer ones, or more, are unknown anyway */
                strcpy(keys->name[keys->n++], key);
        return 0;
}

/* A string as a file would have it, a number, a boolean, or strings one after the other (Environment=). */
static int read_setting(sd_bus_message *m, struct pool_config *c, struct setting_keys *keys, sd_bus_error *e) {
        const char *key, *contents, *text;
        char type, number[32], kind;
        uint64_t n;
        int r, on;

        r = sd_bus_message_read_basic(m, 's', &key);
        if (r >= 0)
                r = note_setting(keys, key, e);
        if (r >= 0)
                r = sd_bus_message_peek_type(m, &type, &contents);
        if (r < 0)
                return r;
        kind = setting_kind(contents);
        if (!kind || !pool_config_takes(key, kind))
                return bus_invalid(
                        e, "%.48s cannot be given as D-Bus type \"%.16s\"; a text (s) as in a pool's file always can",
                        key, contents);
        if (strcmp(contents, "s") == 0) {
                r = sd_bus_message_read(m, "v", "s", &text);
                return r < 0 ? r : set_one(c, key, text, e);
        }
        if (strcmp(contents, "b") == 0) {
                r = sd_bus_message_read(m, "v", "b", &on);
                return r < 0 ? r : set_one(c, key, on ? "yes" : "no", e);
        }
        if (strcmp(contents, "as") == 0) {
                r = sd_bus_message_enter_container(m, 'v', contents);
                if (r >= 0)
                        r = sd_bus_message_enter_container(m, 'a', "s");
                while (r >= 0 && (r = sd_bus_message_read_basic(m, 's', &text)) > 0)
                        r = set_one(c, key, text, e);
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
                return r < 0 ? r : sd_bus_message_exit_container(m);
        }
        r = value_read_number(m, key, 0, UINT64_MAX, &n, e);
        if (r < 0)
                return r;
        snprintf(number, sizeof(number), "%llu", (unsigned long long)n);
        return set_one(c, key, number, e);
}

static int read_settings(sd_bus_message *m, struct pool_config *c, sd_bus_error *e) {
        struct setting_keys keys = {.n = 0};
        int r;

        r = sd_bus_message_enter_container(m, 'a', "{sv}");
        while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                r = read_setting(m, c, &keys, e);
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
        }
        return r < 0 ? r : sd_bus_message_exit_container(m);
}

static int method_create_pool(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        char path[BUS_MAX_PATH], error[400];
        struct pool_config c;
        struct fault f = {};
        struct pool *pool;
        const char *name;
        uint64_t flags;
        int r;

        r = sd_bus_message_read(m, "s", &name);
        if (r < 0)
                return r;
        if (!pool_name_is_valid(name))
                return bus_invalid(e, "\"%.80s\" is not a pool name: 1 to %d of A-Z a-z 0-9 _ . -", name,
                                   POOL_NAME_MAX);
        if (supervisor_find_pool(b->supervisor, name))
                return bus_invalid(e, "there is a pool %s already", name);
        pool_config_defaults(&c);
        strcpy(c.name, name);
        r = read_settings(m, &c, e);
        if (r >= 0)
                r = sd_bus_message_read(m, "t", &flags);
        if (r >= 0)
                r = check_flags(flags, e);
        if (r < 0)
                return r;
        if (pool_config_check(&c, error, sizeof(error)) < 0)
                return bus_invalid(e, "%s", error);
        if (supervisor_add_pool(b->supervisor, &c, true, NULL, &pool, &f) < 0)
                return bus_error_from_fault(e, &f);
        bus_pool_path(name, path);
        return bus_reply(b, m, "o", path);
}

static int method_remove_pool(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        struct pool *pool;
        const char *name;
        uint64_t flags;
        int r;

        r = sd_bus_message_read(m, "st", &name, &flags);
        if (r >= 0)
                r = check_flags(flags, e);
        if (r >= 0)
                r = bus_find_pool(b, name, &pool, e);
        if (r < 0)
                return r;
        supervisor_remove_pool(b->supervisor, pool);
        return bus_reply(b, m, NULL);
}

static int reply_report(struct bus *b, sd_bus_message *m, const struct reload_report *report) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *reply = NULL;
        int r;

        r = bus_reply_begin(m, "(sss)", &reply);
        for (size_t i = 0; i < report->n_changes && r >= 0; i++) {
                struct reload_change c = report->changes[i];

                bus_clean_text(c.name);
                bus_clean_text(c.what);
                r = sd_bus_message_append(reply, "(sss)", c.kind, c.name, c.what);
        }
        return bus_reply_end(b, reply, bus_rows_weight(report->n_changes), r);
}

static void on_reloaded(void *user, const struct reload_report *report, const struct fault *f) {
        struct bus *b;
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *m = late_take(user, &b);
        sd_bus_error e = SD_BUS_ERROR_NULL;
        int r;

        if (!m)
                return;
        r = report ? reply_report(b, m, report) : bus_error_from_fault(&e, f);
        if (r < 0)
                bus_reply_error(b, m, r, &e);
        sd_bus_error_free(&e);
}

static int method_reload(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        struct bus_late *late;
        uint64_t flags;
        int r;

        r = sd_bus_message_read(m, "t", &flags);
        if (r >= 0)
                r = check_flags(flags, e);
        if (r >= 0)
                r = late_new(b, m, &late);
        if (r < 0)
                return r;
        b->config.on_reload(b->config.user, on_reloaded, late);
        return 1;
}

/* ---- signals ---- */

static int method_subscribe(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        if (!peer_subscribe(p, true))
                return sd_bus_error_setf(e, SD_BUS_ERROR_LIMITS_EXCEEDED, "uid %u has %d subscribers already",
                                         (unsigned)p->uid, BUS_MAX_SUBSCRIBERS_OF_USER);
        return bus_reply(b, m, NULL);
}

static int method_unsubscribe(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        peer_subscribe(p, false);
        return bus_reply(b, m, NULL);
}

const struct bus_method manager_methods[] = {
        {"Run", run_method_run},
        {"Submit", run_method_submit},
        {"OpenChannel", channel_method_open},
        {"ListPools", method_list_pools, true},
        {"GetPool", method_get_pool, true},
        {"ListWorkers", method_list_workers, true},
        {"GetWorkerByPID", method_get_worker_by_pid, true},
        {"ListJobs", list_jobs_method, true},
        {"DescribeJobs", list_jobs_method_describe, true},
        {"ListSessions", list_sessions_method, true},
        {"ListDeaths", method_list_deaths, true},
        {"ListCapsules", list_capsules_method, true},
        {"CreatePool", method_create_pool},
        {"RemovePool", method_remove_pool},
        {"OpenArena", arena_method_open},
        {"RemoveArena", arena_method_remove},
        {"ListArenas", arena_method_list, true},
        {"ListObjects", arena_method_list_objects, true},
        {"ListObjectsFrom", arena_method_list_objects_from, true},
        {"GetJob", method_get_job, true},
        {"Reload", method_reload},
        {"Subscribe", method_subscribe},
        {"Unsubscribe", method_unsubscribe},
        {},
};

static int on_call(sd_bus_message *m, void *user, sd_bus_error *e) { return bus_dispatch(user, m, manager_methods, e); }

/* ---- properties ---- */

static const struct bus_property properties[] = {
        {"Version", "s"}, {"Features", "as"}, {"StartMethods", "as"}, {"Models", "as"},
        {"NPools", "u"},  {"NWorkers", "u"},  {"NSessions", "u"},     {},
};

/* What this daemon can do, so that a client asks instead of guessing from the version. What a later release adds to the
 * bus gets a word of its own. */
static int append_words(sd_bus_message *reply, const char *name) {
        if (strcmp(name, "StartMethods") == 0)
                return sd_bus_message_append(reply, "as", 3, "forkserver", "spawn", "fork");
        if (strcmp(name, "Models") == 0)
                return sd_bus_message_append(reply, "as", 1, "process");
        return sd_bus_message_append(reply, "as", 14, "channels", "raw", "forkserver", "sandbox", "arenas", "streams",
                                     "fds", "capsules", "delays", "after", "idempotency-keys", "settings",
                                     "list-sessions", "list-objects-from");
}

static uint32_t count(const struct bus *b, const char *name) {
        uint32_t n = 0;

        if (strcmp(name, "NWorkers") == 0)
                return supervisor_n_workers(b->supervisor);
        if (strcmp(name, "NSessions") == 0)
                return supervisor_n_sessions(b->supervisor);
        for (struct pool *p = supervisor_next_pool(b->supervisor, NULL); p; p = supervisor_next_pool(b->supervisor, p))
                n++;
        return n;
}

static int append_property(sd_bus_message *reply, const struct bus_property *p, void *user) {
        if (strcmp(p->type, "s") == 0)
                return sd_bus_message_append(reply, "s", DROVER_VERSION);
        return strcmp(p->type, "u") == 0 ? sd_bus_message_append(reply, "u", count(user, p->name))
                                         : append_words(reply, p->name);
}

static int get_property(sd_bus *bus, const char *path, const char *interface, const char *name, sd_bus_message *reply,
                        void *user, sd_bus_error *e) {
        return append_property(reply, bus_find_property(properties, name), user);
}

static const struct bus_properties face = {BUS_MANAGER, properties, append_property};

int manager_properties_answer(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        return bus_reply_properties(b, m, &face, b, e);
}

#define METHOD(name, args, result)                                                                                     \
        SD_BUS_METHOD_WITH_ARGS(name, SD_BUS_ARGS args, SD_BUS_RESULT result, on_call, SD_BUS_VTABLE_UNPRIVILEGED)

const sd_bus_vtable manager_vtable[] = {
        SD_BUS_VTABLE_START(0),
        METHOD("Run", ("s", pool, "s", job, "a{sv}", args, "a{sv}", options), ("a{sv}", result)),
        METHOD("Submit", ("s", pool, "s", job, "a{sv}", args, "a{sv}", options), ("t", id, "o", path)),
        METHOD("OpenChannel", ("s", pool, "a{sv}", options), ("a{sv}", channel)),
        METHOD("ListPools", (NULL), ("a(soss)", pools)),
        METHOD("GetPool", ("s", name), ("o", path)),
        METHOD("ListWorkers", (NULL), ("a(tsous)", workers)),
        METHOD("GetWorkerByPID", ("u", pid), ("o", path)),
        METHOD("ListJobs", ("a{sv}", filter, "s", cursor, "u", limit), ("a(tosss)", jobs, "s", next)),
        METHOD("DescribeJobs", ("a{sv}", filter, "s", cursor, "u", limit), ("aa{sv}", jobs, "s", next)),
        METHOD("ListSessions", (NULL), ("aa{sv}", sessions)),
        METHOD("ListDeaths", ("s", pool, "u", n), ("aa{sv}", deaths)),
        METHOD("ListCapsules", ("s", pool, "u", n), ("aa{sv}", capsules)),
        METHOD("CreatePool", ("s", name, "a{sv}", settings, "t", flags), ("o", path)),
        METHOD("RemovePool", ("s", name, "t", flags), (NULL)),
        METHOD("OpenArena", ("s", name, "a{sv}", options), ("a{sv}", arena)),
        METHOD("RemoveArena", ("s", name), (NULL)),
        METHOD("ListArenas", (NULL), ("aa{sv}", arenas)),
        METHOD("ListObjects", ("s", arena), ("aa{sv}", objects)),
        METHOD("ListObjectsFrom", ("s", arena, "s", cursor, "u", limit), ("aa{sv}", objects, "s", next)),
        METHOD("GetJob", ("t", id), ("o", path)),
        METHOD("Reload", ("t", flags), ("a(sss)", changes)),
        METHOD("Subscribe", (NULL), (NULL)),
        METHOD("Unsubscribe", (NULL), (NULL)),
        SD_BUS_PROPERTY("Version", "s", get_property, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Features", "as", get_property, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("StartMethods", "as", get_property, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Models", "as", get_property, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("NPools", "u", get_property, 0, 0),
        SD_BUS_PROPERTY("NWorkers", "u", get_property, 0, 0),
        SD_BUS_PROPERTY("NSessions", "u", get_property, 0, 0),
        SD_BUS_SIGNAL_WITH_ARGS("JobRemoved", SD_BUS_ARGS("t", id, "o", path, "s", pool, "s", state), 0),
        SD_BUS_SIGNAL_WITH_ARGS("WorkerRemoved",
                                SD_BUS_ARGS("t", id, "s", pool, "u", pid, "s", reason, "i", status, "t", job), 0),
        SD_BUS_VTABLE_END,
};
