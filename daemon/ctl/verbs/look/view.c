/* What the verbs that list things share: objects with all their properties, as tables.
 *
 * Each asks for the objects' own properties and renders one tree, so a table never knows more than --json. A pool or
 * worker may go between the list and the question about it: it is left out then, which is the truth by now. */
#include <errno.h>
#include <string.h>

#include "daemon/ctl/show/terminal.h"
#include "daemon/ctl/verbs/look/view.h"

int view_check_pool(struct ctl *c, const char *pool) {
        const struct remote_call get = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "GetPool"};
        int r = remote_call(c->remote, &get, NULL, "s", pool);

        return r < 0 ? remote_report(c->remote, r) : CTL_OK;
}

int view_gather(struct ctl *c, const char *member, const char *interface, unsigned path_at, const char *pool,
                struct json_object **ret) {
        const struct remote_call call = {.path = REMOTE_MANAGER, .interface = "Manager", .member = member};
        ctl_cleanup(json_putp) struct json_object *list = NULL, *all = json_object_new_array();
        int r = pool ? view_check_pool(c, pool) : CTL_OK;

        if (r != CTL_OK)
                return r;
        r = remote_call(c->remote, &call, &list, NULL);
        if (r < 0)
                return remote_report(c->remote, r);
        for (size_t i = 0; i < json_length(list); i++) {
                struct json_object *entry = json_at(list, i), *properties;

                r = remote_get_all(c->remote, json_string(json_at(entry, path_at)), interface, &properties);
                if (remote_is_over(r))
                        return remote_report(c->remote, r);
                if (r < 0)
                        continue;
                if (pool && strcmp(json_text(properties, "Pool", ""), pool) != 0)
                        json_object_put(properties);
                else
                        json_object_array_add(all, properties);
        }
        *ret = json_object_get(all);
        return CTL_OK;
}

struct table_look view_look(const struct ctl *c) {
        return (struct table_look){.with_headings = !c->quiet,
                                   .has_colours = terminal_has_colours(stdout),
                                   .max_width = c->full ? 0 : terminal_columns(stdout)};
}

int view_print(struct ctl *c, const struct view *view, struct json_object *objects) {
        ctl_cleanup(table_freep) struct table *t = NULL;
        const struct table_look look = view_look(c);
        const char *cells[VIEW_MAX_COLUMNS];

        if (table_new(&t, view->columns, view->n_columns) < 0)
                return ctl_no_memory();
        for (size_t i = 0; i < json_length(objects); i++) {
                for (unsigned column = 0; column < view->n_columns; column++)
                        cells[column] = json_text(json_at(objects, i), view->keys[column], NULL);
                if (table_add(t, cells) < 0)
                        return ctl_no_memory();
        }
        table_print(t, stdout, &look);
        return CTL_OK;
}

void view_spell_moment(struct json_object *o, const char *key, const char *as) {
        uint64_t us = json_number(o, key);
        char text[TEXT_MAX];

        if (us > 0)
                json_object_object_add(o, as, json_object_new_string(text_moment(us, text)));
}

const char *view_latency(struct json_object *latency, const char *key, char text[TEXT_MAX]) {
        return json_number(latency, "jobs") > 0 ? text_duration(json_number(latency, key), text) : "-";
}

static const char *const pool_keys[] = {"Name",    "Plugin",    "StartMethod", "State",    "Workers", "Queued",
                                        "Running", "Completed", "Failed",      "Poisoned", "Retried", "WorkerDeaths"};
static const struct table_column pool_columns[] = {{"POOL"},
                                                   {"PLUGIN", .rank = 1},
                                                   {"START", .rank = 2},
                                                   {"STATE", .is_state = true},
                                                   {"WORKERS", true},
                                                   {"QUEUED", true},
                                                   {"RUNNING", true},
                                                   {"DONE", true},
                                                   {"FAILED", true},
                                                   {"POISONED", true, .rank = 3},
                                                   {"RETRIED", true, .rank = 4},
                                                   {"DEATHS", true}};
const struct view view_pools = {pool_keys, pool_columns, 12};

static const char *const worker_keys[] = {"Id",    "Pool",     "Pid",        "StartMethod",
                                          "State", "JobsDone", "CurrentJob", "SandboxLevel"};
static const struct table_column worker_columns[] = {
        {"WORKER", true}, {"POOL"},      {"PID", true},         {"START", .rank = 2}, {"STATE", .is_state = true},
        {"DONE", true},   {"JOB", true}, {"SANDBOX", .rank = 1}};
const struct view view_workers = {worker_keys, worker_columns, 8};
