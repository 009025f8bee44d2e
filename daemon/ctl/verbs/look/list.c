/* status and the lists: pools, workers, sessions, objects of an arena, deaths. Jobs are in list-jobs.c. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/ctl/show/text.h"
#include "daemon/ctl/show/usage.h"
#include "daemon/ctl/verbs/look/view.h"

enum { MAX_DEATHS = 1000 };

/* What is wrong with a pool stands below the table: it is a sentence. */
static void print_problems(struct json_object *pools) {
        for (size_t i = 0; i < json_length(pools); i++) {
                struct json_object *pool = json_at(pools, i);
                const char *problem = json_text(pool, "Problem", "");

                if (*problem)
                        printf("pool %s: %s\n", json_text(pool, "Name", "?"), problem);
        }
}

int verb_list_pools(struct ctl *c) {
        ctl_cleanup(json_putp) struct json_object *pools = NULL;
        int code = view_gather(c, "ListPools", "Pool", 1, NULL, &pools);

        if (code != CTL_OK)
                return code;
        if (c->json != CTL_JSON_OFF) {
                json_print(stdout, pools, c->json);
                return CTL_OK;
        }
        code = view_print(c, &view_pools, pools);
        print_problems(pools);
        return code;
}

int verb_list_workers(struct ctl *c) {
        ctl_cleanup(json_putp) struct json_object *workers = NULL;
        int code = view_gather(c, "ListWorkers", "Worker", 2, c->n_operands > 0 ? c->operands[0] : NULL, &workers);

        if (code != CTL_OK)
                return code;
        if (c->json != CTL_JSON_OFF) {
                json_print(stdout, workers, c->json);
                return CTL_OK;
        }
        return view_print(c, &view_workers, workers);
}

/* ---- sessions, objects and deaths ---- */

static const char *const session_keys[] = {"pool", "uid", "pid", "connection", "opened", "slots", "queued", "running"};
static const struct table_column session_columns[] = {{"POOL"},         {"UID", true},
                                                      {"PID", true},    {"CONNECTION", .rank = 2},
                                                      {"OPENED"},       {"SLOTS", true, .rank = 1},
                                                      {"QUEUED", true}, {"RUNNING", true}};
static const struct view session_view = {session_keys, session_columns, 8};

/* Those of one pool: the daemon tells all. */
static struct json_object *pick_pool(struct json_object *rows, const char *pool) {
        struct json_object *picked = json_object_new_array();

        for (size_t i = 0; i < json_length(rows); i++)
                if (strcmp(json_text(json_at(rows, i), "pool", ""), pool) == 0)
                        json_object_array_add(picked, json_object_get(json_at(rows, i)));
        return picked;
}

int verb_list_sessions(struct ctl *c) {
        const struct remote_call list = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "ListSessions"};
        const char *pool = c->n_operands > 0 ? c->operands[0] : NULL;
        ctl_cleanup(json_putp) struct json_object *all = NULL, *sessions = NULL;
        int code = pool ? view_check_pool(c, pool) : CTL_OK, r;

        if (code != CTL_OK)
                return code;
        r = remote_call(c->remote, &list, &all, NULL);
        if (r < 0)
                return remote_report(c->remote, r);
        sessions = pool ? pick_pool(all, pool) : json_object_get(all);
        if (c->json != CTL_JSON_OFF) {
                json_print(stdout, sessions, c->json);
                return CTL_OK;
        }
        for (size_t i = 0; i < json_length(sessions); i++)
                view_spell_moment(json_at(sessions, i), "opened-usec", "opened");
        return view_print(c, &session_view, sessions);
}

static const char *const object_keys[] = {"name",      "type",    "owner-pid",       "owner-worker",
                                          "owner-job", "waiters", "deaths-repaired", "inconsistent"};
static const struct table_column object_columns[] = {{"OBJECT"},
                                                     {"TYPE"},
                                                     {"OWNER", true},
                                                     {"WORKER", true},
                                                     {"JOB", true},
                                                     {"WAITERS", true},
                                                     {"DEATHS", true, .rank = 1},
                                                     {"INCONSISTENT"}};
static const struct view object_view = {object_keys, object_columns, 8};

/* All pages. */
static int gather_objects(struct ctl *c, struct json_object *objects) {
        const struct remote_call list = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "ListObjectsFrom"};
        char cursor[16] = "";

        do {
                ctl_cleanup(json_putp) struct json_object *reply = NULL;
                const char *next;
                int r = remote_call(c->remote, &list, &reply, "ssu", c->operands[0], cursor, 0);

                if (r < 0)
                        return remote_report(c->remote, r);
                for (size_t i = 0; i < json_length(json_at(reply, 0)); i++)
                        json_object_array_add(objects, json_object_get(json_at(json_at(reply, 0), i)));
                next = json_string(json_at(reply, 1));
                if (*next && strtoul(next, NULL, 10) <= strtoul(cursor, NULL, 10))
                        return remote_report(c->remote,
                                             remote_set_odd(c->remote, "a page of objects that does not lead on"));
                snprintf(cursor, sizeof cursor, "%s", next);
        } while (*cursor);
        return CTL_OK;
}

int verb_list_objects(struct ctl *c) {
        ctl_cleanup(json_putp) struct json_object *objects = json_object_new_array();
        int code = gather_objects(c, objects);

        if (code != CTL_OK)
                return code;
        if (c->json != CTL_JSON_OFF) {
                json_print(stdout, objects, c->json);
                return CTL_OK;
        }
        for (size_t i = 0; i < json_length(objects); i++) /* no owner: no number */
                for (unsigned k = 2; k < 5; k++)
                        if (json_number(json_at(objects, i), object_keys[k]) == 0)
                                json_object_object_add(json_at(objects, i), object_keys[k], NULL);
        return view_print(c, &object_view, objects);
}

static const char *const death_keys[] = {"time",   "worker",  "pool", "pid",    "reason",
                                         "status", "syscall", "job",  "attempt"};
static const struct table_column death_columns[] = {
        {"TIME"},         {"WORKER", true},       {"POOL"},      {"PID", true},    {"REASON"},
        {"STATUS", true}, {"SYSCALL", .rank = 1}, {"JOB", true}, {"ATTEMPT", true}};
static const struct view death_view = {death_keys, death_columns, 9};

int verb_list_deaths(struct ctl *c) {
        const struct remote_call list = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "ListDeaths"};
        ctl_cleanup(json_putp) struct json_object *deaths = NULL;
        int r = remote_call(c->remote, &list, &deaths, "su", c->n_operands > 0 ? c->operands[0] : "",
                            c->n_lines ? c->n_lines : (uint32_t)MAX_DEATHS);

        if (r < 0)
                return remote_report(c->remote, r);
        if (c->json != CTL_JSON_OFF) {
                json_print(stdout, deaths, c->json);
                return CTL_OK;
        }
        for (size_t i = 0; i < json_length(deaths); i++)
                view_spell_moment(json_at(deaths, i), "realtime-usec", "time");
        return view_print(c, &death_view, deaths);
}

/* ---- status ---- */

static const char *const full_keys[] = {"Id",  "Pool",  "Pid",      "State", "since",  "CurrentJob", "last",
                                        "ran", "ended", "JobsDone", "cpu",   "memory", "says"};
static const struct table_column full_columns[] = {
        {"WORKER", true}, {"POOL"},         {"PID", true},         {"STATE", .is_state = true}, {"UP", true},
        {"JOB", true},    {"LAST", true},   {"RAN", true},         {"ENDED", .is_state = true}, {"DONE", true},
        {"CPU", true},    {"MEMORY", true}, {"WAITS FOR, OR SAYS"}};
static const struct view full_view = {full_keys, full_columns, 13};

static void add_text(struct json_object *o, const char *key, const char *text) {
        json_object_object_add(o, key, json_object_new_string(text));
}

/* Beside the bus's properties what /proc knows: numbers for programs, words for people. */
static void add_usage(struct json_object *worker, bool is_for_people) {
        char text[TEXT_MAX];
        const char *waits = json_text(worker, "WaitingFor", "");
        struct usage usage;
        bool is_known = usage_of((uint32_t)json_number(worker, "Pid"), &usage) == 0;

        if (is_known && is_for_people) {
                add_text(worker, "cpu", text_duration(usage.cpu_us, text));
                add_text(worker, "memory", text_bytes(usage.memory_bytes, text));
        } else if (is_known) {
                json_object_object_add(worker, "cpu-usec", json_object_new_uint64(usage.cpu_us));
                json_object_object_add(worker, "memory-bytes", json_object_new_uint64(usage.memory_bytes));
        }
        if (!is_for_people)
                return;
        add_text(worker, "since", text_duration(text_since(json_number(worker, "StartedUSec")), text));
        add_text(worker, "says", *waits ? waits : json_text(worker, "Status", ""));
        if (json_number(worker, "CurrentJob") == 0)
                json_object_object_add(worker, "CurrentJob", NULL);
}

static void add_ask(struct json_object *worker, struct json_object *task) {
        char said[200], text[TEXT_MAX];

        text_duration(text_since(json_number(task, "cancel-asked-usec")), text);
        snprintf(said, sizeof said, "asked to stop %s ago by %s", text, json_text(task, "cancel-asked-by", "?"));
        add_text(worker, "says", said);
}

/* Of its tasks people see the one that is over; what it runs is CurrentJob. */
static int add_tasks(struct ctl *c, struct json_object *worker) {
        char path[64], text[TEXT_MAX];
        const struct remote_call list = {.path = path, .interface = "Worker", .member = "ListTasks"};
        ctl_cleanup(json_putp) struct json_object *tasks = NULL;
        int r;

        snprintf(path, sizeof(path), "/org/drover1/worker/%" PRIu64, json_number(worker, "Id"));
        r = remote_call(c->remote, &list, &tasks, NULL);
        if (remote_is_over(r))
                return remote_report(c->remote, r);
        if (r >= 0 && c->json != CTL_JSON_OFF)
                json_object_object_add(worker, "Tasks", json_object_get(tasks));
        for (size_t i = 0; r >= 0 && c->json == CTL_JSON_OFF && i < json_length(tasks); i++) {
                struct json_object *task = json_at(tasks, i);
                uint64_t since = json_number(task, "since-usec"), finished = json_number(task, "finished-usec");

                if (json_number(task, "cancel-asked-usec"))
                        add_ask(worker, task);
                if (finished == 0)
                        continue;
                json_object_object_add(worker, "last", json_object_new_uint64(json_number(task, "job")));
                add_text(worker, "ran", text_duration(finished > since ? finished - since : 0, text));
                add_text(worker, "ended", json_text(task, "state", "?"));
        }
        return CTL_OK;
}

static int status_workers(struct ctl *c, struct json_object **ret) {
        int code = view_gather(c, "ListWorkers", "Worker", 2, NULL, ret);

        for (size_t i = 0; code == CTL_OK && i < json_length(*ret); i++) {
                add_usage(json_at(*ret, i), c->json == CTL_JSON_OFF);
                code = add_tasks(c, json_at(*ret, i));
        }
        return code;
}

int verb_status(struct ctl *c) {
        ctl_cleanup(json_putp) struct json_object *manager = NULL, *pools = NULL, *workers = NULL;
        int r = remote_get_all(c->remote, REMOTE_MANAGER, "Manager", &manager);
        int code = r < 0 ? remote_report(c->remote, r) : view_gather(c, "ListPools", "Pool", 1, NULL, &pools);

        if (code == CTL_OK && c->full)
                code = status_workers(c, &workers);
        if (code != CTL_OK)
                return code;
        if (c->json != CTL_JSON_OFF) {
                json_object_object_add(manager, "Pools", json_object_get(pools));
                if (c->full)
                        json_object_object_add(manager, "Workers", json_object_get(workers));
                json_print(stdout, manager, c->json);
                return CTL_OK;
        }
        printf("droverd %s: %" PRIu64 " pools, %" PRIu64 " workers, %" PRIu64 " sessions\n\n",
               json_text(manager, "Version", "?"), json_number(manager, "NPools"), json_number(manager, "NWorkers"),
               json_number(manager, "NSessions"));
        code = view_print(c, &view_pools, pools);
        print_problems(pools);
        if (c->full && code == CTL_OK) {
                putchar('\n');
                code = view_print(c, &full_view, workers);
        }
        return code;
}
