/* show and schema: all about one thing.
 *
 * What a pool's job types take and give comes from the plugin's own schema, which a pool knows once a worker of it came
 * up; a pool that had none yet is shown without, and not waited for. */
#include <inttypes.h>
#include <string.h>

#include "daemon/ctl/show/text.h"
#include "daemon/ctl/verbs/jobs/job.h"
#include "daemon/ctl/verbs/look/view.h"

enum { DEATHS_SHOWN = 10 };

/* "Name: value", one property a line. */
static int print_properties(struct json_object *o) {
        static const struct table_column columns[] = {{"", true}, {""}};
        const struct table_look look = {0};
        ctl_cleanup(table_freep) struct table *t = NULL;

        if (table_new(&t, columns, 2) < 0)
                return ctl_no_memory();
        json_object_object_foreach(o, key, value) {
                char heading[64];

                if (json_object_is_type(value, json_type_object)) /* shown below, as a table */
                        continue;

                snprintf(heading, sizeof heading, "%s:", key);
                if (table_add(t, (const char *const[]){heading, value ? json_string(value) : ""}) < 0)
                        return ctl_no_memory();
        }
        table_print(t, stdout, &look);
        return CTL_OK;
}

static void print_fields(struct json_object *fields) {
        const char *between = "";

        if (json_object_is_type(fields, json_type_string)) {
                fputs(json_plain(fields), stdout);
                return;
        }
        if (json_n_members(fields) == 0)
                return;
        json_object_object_foreach(fields, key, value) {
                printf("%s%s:%s", between, key, json_plain(value));
                between = " ";
        }
}

static void print_job_types(struct json_object *schema, const char *heading) {
        struct json_object *jobs;

        if (!json_object_object_get_ex(schema, "jobs", &jobs) || json_length(jobs) == 0)
                return;
        fputs(heading, stdout);
        for (size_t i = 0; i < json_length(jobs); i++) {
                struct json_object *job = json_at(jobs, i), *fields;
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

static const struct table_column latency_columns[] = {
        {"TYPE"},      {"JOBS", true},           {"WAIT P50", true}, {"P90", true, .rank = 1},
        {"P99", true}, {"MAX", true, .rank = 2}, {"RUN P50", true},  {"P90", true, .rank = 1},
        {"P99", true}, {"MAX", true, .rank = 2}};

static int add_latency(struct table *t, const char *type, struct json_object *latency) {
        static const char *const keys[] = {"queue-p50-usec", "queue-p90-usec", "queue-p99-usec", "queue-max-usec",
                                           "run-p50-usec",   "run-p90-usec",   "run-p99-usec",   "run-max-usec"};
        const char *cells[10] = {type, json_text(latency, "jobs", "0")};
        char text[8][TEXT_MAX];

        for (unsigned i = 0; i < 8; i++)
                cells[2 + i] = view_latency(latency, keys[i], text[i]);
        return table_add(t, cells);
}

/* Waits and run times by job type, the whole pool last. */
static int print_latency(struct ctl *c, struct json_object *pool) {
        const struct table_look look = view_look(c);
        ctl_cleanup(table_freep) struct table *t = NULL;
        struct json_object *latency, *all, *types;
        int r = 0;

        if (!json_object_object_get_ex(pool, "Latency", &latency) || !json_object_object_get_ex(latency, "all", &all) ||
            json_number(all, "jobs") == 0)
                return CTL_OK;
        if (table_new(&t, latency_columns, 10) < 0)
                return ctl_no_memory();
        if (json_object_object_get_ex(latency, "types", &types) && json_n_members(types) > 0) {
                json_object_object_foreach(types, type, values) {
                        if (r >= 0)
                                r = add_latency(t, type, values);
                }
        }
        if (r < 0 || add_latency(t, "all", all) < 0)
                return ctl_no_memory();
        putchar('\n');
        table_print(t, stdout, &look);
        return CTL_OK;
}

/* A number alone is the name of a pool here, and may have been meant for that of a job or worker. */
static int report_no_pool(struct ctl *c, const char *name, int error) {
        uint64_t id;

        if (job_parse(name, &id) < 0 || strcmp(remote_error_name(c->remote), "NoSuchPool") != 0)
                return remote_report(c->remote, error);
        ctl_error("show %s: no pool is named %s (NoSuchPool); a job is shown by job/%s, a worker by worker/%s", name,
                  name, name, name);
        return CTL_REFUSED;
}

static int show_pool(struct ctl *c, const char *name) {
        const struct remote_call get = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "GetPool"};
        const struct remote_call deaths_of = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "ListDeaths"};
        ctl_cleanup(json_putp) struct json_object *path = NULL, *pool = NULL, *schema = NULL, *deaths = NULL;
        int r = remote_call(c->remote, &get, &path, "s", name);

        if (r >= 0)
                r = remote_get_all(c->remote, json_string(path), "Pool", &pool);
        if (r >= 0)
                r = remote_call(c->remote, &deaths_of, &deaths, "su", name, (uint32_t)DEATHS_SHOWN);
        if (r < 0)
                return report_no_pool(c, name, r);
        if (*json_text(pool, "PluginVersion", ""))
                remote_get_schema(c->remote, json_string(path), &schema);
        if (c->json != CTL_JSON_OFF) {
                json_object_object_add(pool, "Schema", json_object_get(schema));
                json_object_object_add(pool, "Deaths", json_object_get(deaths));
                json_print(stdout, pool, c->json);
                return CTL_OK;
        }
        int code = print_properties(pool);
        print_job_types(schema, "\nJob types:\n");
        if (code == CTL_OK)
                code = print_latency(c, pool);
        if (json_length(deaths) > 0)
                puts("\nLast deaths of workers, newest first:");
        for (size_t i = 0; i < json_length(deaths); i++)
                printf("  %s\n", json_text(json_at(deaths, i), "text", "?"));
        return code;
}

static int show_object(struct ctl *c, const char *path, const char *interface) {
        static const char *const times[] = {"SubmittedUSec", "StartedUSec", "FinishedUSec", "CancelAskedUSec"};
        ctl_cleanup(json_putp) struct json_object *o = NULL;
        int r = remote_get_all(c->remote, path, interface, &o);

        if (r < 0)
                return remote_report(c->remote, r);
        if (c->json != CTL_JSON_OFF) {
                json_print(stdout, o, c->json);
                return CTL_OK;
        }
        for (size_t i = 0; i < sizeof times / sizeof *times; i++)
                view_spell_moment(o, times[i], times[i]);
        return print_properties(o);
}

/* "worker/3", "job/7", or the whole object path of one; else the name of a pool, which never holds a '/'. */
int verb_show(struct ctl *c) {
        static const char root[] = REMOTE_MANAGER "/";
        const char *word = c->operands[0];
        char path[64];
        uint64_t id;

        if (strncmp(word, root, sizeof root - 1) == 0)
                word += sizeof root - 1;
        if (!strchr(word, '/'))
                return show_pool(c, word);
        bool is_worker = strncmp(word, "worker/", 7) == 0;
        if ((!is_worker && strncmp(word, "job/", 4) != 0) || job_parse(strchr(word, '/') + 1, &id) < 0) {
                ctl_error("show %s: neither a pool nor worker/ID nor job/ID", c->operands[0]);
                return CTL_USAGE;
        }
        snprintf(path, sizeof path, "%s%s/%" PRIu64, root, is_worker ? "worker" : "job", id);
        return show_object(c, path, is_worker ? "Worker" : "Job");
}

int verb_schema(struct ctl *c) {
        const struct remote_call get = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "GetPool"};
        ctl_cleanup(json_putp) struct json_object *path = NULL, *schema = NULL;
        int r = remote_call(c->remote, &get, &path, "s", c->operands[0]);

        if (r >= 0)
                r = remote_get_schema(c->remote, json_string(path), &schema);
        if (r < 0)
                return remote_report(c->remote, r);
        if (c->json != CTL_JSON_OFF)
                json_print(stdout, schema, c->json);
        else
                print_job_types(schema, "");
        return CTL_OK;
}
