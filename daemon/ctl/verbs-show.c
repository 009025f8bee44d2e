/* status, list-pools, list-workers, list-objects, show: what stands on the bus, as tables or as JSON.
 *
 * Each asks for the objects' own properties and renders one tree, so a table never knows more than --json. A pool or
 * worker may go between the list and the question about it: it is left out then, which is the truth by now. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/remote.h"
#include "daemon/ctl/table.h"

static void table_freep(struct table **t) { table_free(*t); }

/* Manager's list method `member`, each entry's properties (its path is element `path_at`) in *ret, an array. */
static int gather(struct ctl *c, const char *member, const char *interface, unsigned path_at,
                  struct json_object **ret) {
        const struct remote_call call = {.path = REMOTE_MANAGER, .interface = "Manager", .member = member};
        ctl_cleanup(json_putp) struct json_object *list = NULL, *all = json_object_new_array();
        int r = remote_call(c->remote, &call, &list, NULL);

        if (r < 0)
                return remote_report(c->remote, r);
        for (size_t i = 0; i < json_object_array_length(list); i++) {
                struct json_object *entry = json_object_array_get_idx(list, i), *properties;

                r = remote_get_all(c->remote, json_object_get_string(json_object_array_get_idx(entry, path_at)),
                                   interface, &properties);
                if (r == -ECONNRESET || r == -ENOTCONN)
                        return remote_report(c->remote, r);
                if (r >= 0)
                        json_object_array_add(all, properties);
        }
        *ret = json_object_get(all);
        return CTL_OK;
}

enum { MAX_COLUMNS = 12 };

struct view {
        const char *const *keys; /* the property of each column */
        const struct table_column *columns;
        unsigned n_columns;
};

/* Rows of objects, one column a property. */
static int print_view(struct ctl *c, const struct view *view, struct json_object *objects) {
        ctl_cleanup(table_freep) struct table *t = NULL;
        const char *cells[MAX_COLUMNS];

        if (table_new(&t, view->columns, view->n_columns) < 0)
                return CTL_REFUSED;
        for (size_t i = 0; i < json_object_array_length(objects); i++) {
                for (unsigned column = 0; column < view->n_columns; column++)
                        cells[column] = json_text(json_object_array_get_idx(objects, i), view->keys[column], NULL);
                if (table_add(t, cells) < 0)
                        return CTL_REFUSED;
        }
        table_print(t, stdout, !c->quiet);
        return CTL_OK;
}

static const char *const pool_keys[] = {"Name",    "Plugin",    "StartMethod", "State",    "Workers", "Queued",
                                        "Running", "Completed", "Failed",      "Poisoned", "Retried", "WorkerDeaths"};
static const struct table_column pool_columns[] = {{"POOL", false},    {"PLUGIN", false}, {"START", false},
                                                   {"STATE", false},   {"WORKERS", true}, {"QUEUED", true},
                                                   {"RUNNING", true},  {"DONE", true},    {"FAILED", true},
                                                   {"POISONED", true}, {"RETRIED", true}, {"DEATHS", true}};
static const struct view pool_view = {pool_keys, pool_columns, 12};

static const char *const worker_keys[] = {"Id",    "Pool",     "Pid",        "StartMethod",
                                          "State", "JobsDone", "CurrentJob", "SandboxLevel"};
static const struct table_column worker_columns[] = {{"WORKER", true}, {"POOL", false},   {"PID", true},
                                                     {"START", false}, {"STATE", false},  {"DONE", true},
                                                     {"JOB", true},    {"SANDBOX", false}};
static const struct view worker_view = {worker_keys, worker_columns, 8};

/* What is wrong with a pool stands below the table: it is a sentence. */
static void print_problems(struct json_object *pools) {
        for (size_t i = 0; i < json_object_array_length(pools); i++) {
                struct json_object *pool = json_object_array_get_idx(pools, i);
                const char *problem = json_text(pool, "Problem", "");

                if (*problem)
                        printf("pool %s: %s\n", json_text(pool, "Name", "?"), problem);
        }
}

int verb_list_pools(struct ctl *c) {
        ctl_cleanup(json_putp) struct json_object *pools = NULL;
        int code = gather(c, "ListPools", "Pool", 1, &pools);

        if (code != CTL_OK)
                return code;
        if (c->json != CTL_JSON_OFF) {
                json_print(stdout, pools, c->json);
                return CTL_OK;
        }
        code = print_view(c, &pool_view, pools);
        print_problems(pools);
        return code;
}

int verb_list_workers(struct ctl *c) {
        ctl_cleanup(json_putp) struct json_object *workers = NULL;
        int code = gather(c, "ListWorkers", "Worker", 2, &workers);

        if (code != CTL_OK)
                return code;
        if (c->json != CTL_JSON_OFF) {
                json_print(stdout, workers, c->json);
                return CTL_OK;
        }
        return print_view(c, &worker_view, workers);
}

static const char *const object_keys[] = {"name",      "type",    "owner-pid",       "owner-worker",
                                          "owner-job", "waiters", "deaths-repaired", "inconsistent"};
static const struct table_column object_columns[] = {{"OBJECT", false}, {"TYPE", false},        {"OWNER", true},
                                                     {"WORKER", true},  {"JOB", true},          {"WAITERS", true},
                                                     {"DEATHS", true},  {"INCONSISTENT", false}};
static const struct view object_view = {object_keys, object_columns, 8};

int verb_list_objects(struct ctl *c) {
        const struct remote_call list = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "ListObjects"};
        ctl_cleanup(json_putp) struct json_object *objects = NULL;
        int r = remote_call(c->remote, &list, &objects, "s", c->operands[0]);

        if (r < 0)
                return remote_report(c->remote, r);
        if (c->json != CTL_JSON_OFF) {
                json_print(stdout, objects, c->json);
                return CTL_OK;
        }
        for (size_t i = 0; i < json_object_array_length(objects); i++) /* no owner: no number */
                for (unsigned k = 2; k < 5; k++)
                        if (json_number(json_object_array_get_idx(objects, i), object_keys[k]) == 0)
                                json_object_object_add(json_object_array_get_idx(objects, i), object_keys[k], NULL);
        return print_view(c, &object_view, objects);
}

int verb_status(struct ctl *c) {
        ctl_cleanup(json_putp) struct json_object *manager = NULL, *pools = NULL;
        int r = remote_get_all(c->remote, REMOTE_MANAGER, "Manager", &manager);
        int code = r < 0 ? remote_report(c->remote, r) : gather(c, "ListPools", "Pool", 1, &pools);

        if (code != CTL_OK)
                return code;
        if (c->json != CTL_JSON_OFF) {
                json_object_object_add(manager, "Pools", json_object_get(pools));
                json_print(stdout, manager, c->json);
                return CTL_OK;
        }
        printf("droverd %s: %" PRIu64 " pools, %" PRIu64 " workers, %" PRIu64 " sessions\n\n",
               json_text(manager, "Version", "?"), json_number(manager, "NPools"), json_number(manager, "NWorkers"),
               json_number(manager, "NSessions"));
        code = print_view(c, &pool_view, pools);
        print_problems(pools);
        return code;
}

/* "Name: value", one property a line. */
static int print_properties(struct json_object *o) {
        static const struct table_column columns[] = {{"", true}, {"", false}};
        ctl_cleanup(table_freep) struct table *t = NULL;

        if (table_new(&t, columns, 2) < 0)
                return CTL_REFUSED;
        json_object_object_foreach(o, key, value) {
                char heading[64];

                snprintf(heading, sizeof heading, "%s:", key);
                if (table_add(t, (const char *const[]){heading, value ? json_object_get_string(value) : ""}) < 0)
                        return CTL_REFUSED;
        }
        table_print(t, stdout, false);
        return CTL_OK;
}

static void print_fields(struct json_object *fields) {
        const char *between = "";

        if (json_object_is_type(fields, json_type_string)) {
                fputs(json_object_get_string(fields), stdout);
                return;
        }
        json_object_object_foreach(fields, key, value) {
                printf("%s%s:%s", between, key, json_object_get_string(value));
                between = " ";
        }
}

static void print_job_types(struct json_object *schema) {
        struct json_object *jobs;

        if (!json_object_object_get_ex(schema, "jobs", &jobs) || json_object_array_length(jobs) == 0)
                return;
        puts("\nJob types:");
        for (size_t i = 0; i < json_object_array_length(jobs); i++) {
                struct json_object *job = json_object_array_get_idx(jobs, i), *fields;
                const char *help = json_text(job, "help", "");

                printf("  %s(", json_text(job, "name", "?"));
                if (json_object_object_get_ex(job, "args", &fields))
                        print_fields(fields);
                fputs(") -> ", stdout);
                if (json_object_object_get_ex(job, "result", &fields))
                        print_fields(fields);
                printf("%s%s\n", *help ? "   " : "", help);
        }
}

int verb_show(struct ctl *c) {
        const struct remote_call get = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "GetPool"};
        const struct remote_call deaths_of = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "ListDeaths"};
        ctl_cleanup(json_putp) struct json_object *path = NULL, *pool = NULL, *schema = NULL, *deaths = NULL;
        int r = remote_call(c->remote, &get, &path, "s", c->operands[0]);

        if (r >= 0)
                r = remote_get_all(c->remote, json_object_get_string(path), "Pool", &pool);
        if (r >= 0)
                r = remote_call(c->remote, &deaths_of, &deaths, "su", c->operands[0], (uint32_t)10);
        if (r < 0)
                return remote_report(c->remote, r);
        /* A pool that had no worker yet has no schema: it is shown without, and not waited for. */
        if (*json_text(pool, "PluginVersion", ""))
                remote_get_schema(c->remote, json_object_get_string(path), &schema);
        if (c->json != CTL_JSON_OFF) {
                json_object_object_add(pool, "Schema", json_object_get(schema));
                json_object_object_add(pool, "Deaths", json_object_get(deaths));
                json_print(stdout, pool, c->json);
                return CTL_OK;
        }
        int code = print_properties(pool);
        print_job_types(schema);
        if (json_object_array_length(deaths) > 0)
                puts("\nLast deaths of workers, newest first:");
        for (size_t i = 0; i < json_object_array_length(deaths); i++)
                printf("  %s\n", json_text(json_object_array_get_idx(deaths, i), "text", "?"));
        return code;
}
