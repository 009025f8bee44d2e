/* list-jobs and requeue: jobs in bulk.
 *
 * The daemon hands out pages; they are put together here, so nobody types a cursor. The filter is the daemon's: a word
 * that it does not know is its error to tell. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <systemd/sd-bus.h>

#include "daemon/ctl/verbs/jobs/job.h"
#include "daemon/ctl/verbs/look/view.h"

enum { PAGE = 1000, MAX_STATES = 16 };

static int append_states(sd_bus_message *m, const char *list) {
        ctl_cleanup(ctl_freep) char *copy = strdup(list);
        char *words[MAX_STATES + 1] = {0}, *rest = copy;
        int r;

        if (!copy)
                return -ENOMEM;
        for (unsigned n = 0; rest && n < MAX_STATES; n++)
                words[n] = strsep(&rest, ",");
        r = sd_bus_message_open_container(m, SD_BUS_TYPE_DICT_ENTRY, "sv");
        if (r >= 0)
                r = sd_bus_message_append_basic(m, 's', "state");
        if (r >= 0)
                r = sd_bus_message_open_container(m, SD_BUS_TYPE_VARIANT, "as");
        if (r >= 0)
                r = sd_bus_message_append_strv(m, words);
        for (int i = 0; i < 2 && r >= 0; i++)
                r = sd_bus_message_close_container(m);
        return r;
}

/* One page behind `cursor`: [jobs, next]. */
static int ask(struct ctl *c, const char *cursor, uint32_t limit, struct json_object **ret) {
        static const struct remote_call plain;
        ctl_cleanup(remote_message_unrefp) sd_bus_message *m = NULL;
        int r = sd_bus_message_new_method_call(remote_bus(c->remote), &m, REMOTE_NAME, REMOTE_MANAGER,
                                               REMOTE_NAME ".Manager", "DescribeJobs");

        if (r >= 0)
                r = sd_bus_message_open_container(m, SD_BUS_TYPE_ARRAY, "{sv}");
        if (r >= 0 && c->n_operands > 0)
                r = sd_bus_message_append(m, "{sv}", "pool", "s", c->operands[0]);
        if (r >= 0 && c->state)
                r = append_states(m, c->state);
        if (r >= 0)
                r = sd_bus_message_close_container(m);
        if (r >= 0)
                r = sd_bus_message_append(m, "su", cursor, limit);
        return r < 0 ? r : remote_exchange(c->remote, m, &plain, ret);
}

static int gather(struct ctl *c, struct json_object *jobs) {
        char cursor[32] = "";
        size_t wanted = c->n_lines ? c->n_lines : SIZE_MAX;
        int r = c->n_operands > 0 ? view_check_pool(c, c->operands[0]) : CTL_OK;

        if (r != CTL_OK)
                return r;
        do {
                ctl_cleanup(json_putp) struct json_object *reply = NULL;
                size_t left = wanted - json_length(jobs);

                r = ask(c, cursor, left < PAGE ? (uint32_t)left : PAGE, &reply);
                if (r < 0)
                        return remote_report(c->remote, r);
                for (size_t i = 0; i < json_length(json_at(reply, 0)); i++)
                        json_object_array_add(jobs, json_object_get(json_at(json_at(reply, 0), i)));
                if (*cursor && strcmp(cursor, json_string(json_at(reply, 1))) == 0)
                        return remote_report(c->remote,
                                             remote_set_odd(c->remote, "a page of jobs that leads to itself"));
                snprintf(cursor, sizeof cursor, "%s", json_string(json_at(reply, 1)));
        } while (*cursor && json_length(jobs) < wanted);
        return CTL_OK;
}

static const char *const job_keys[] = {"id", "pool", "job", "state", "uid", "pid", "connection", "submitted"};
static const struct table_column job_columns[] = {{"JOB", true},
                                                  {"POOL"},
                                                  {"TYPE"},
                                                  {"STATE", .is_state = true},
                                                  {"UID", true},
                                                  {"PID", true, .rank = 2},
                                                  {"CONNECTION", .rank = 3},
                                                  {"SUBMITTED", .rank = 1}};
static const struct view job_view = {job_keys, job_columns, 8};

int verb_list_jobs(struct ctl *c) {
        ctl_cleanup(json_putp) struct json_object *jobs = json_object_new_array();
        int code = gather(c, jobs);

        if (code != CTL_OK)
                return code;
        if (c->json != CTL_JSON_OFF) {
                json_print(stdout, jobs, c->json);
                return CTL_OK;
        }
        for (size_t i = 0; i < json_length(jobs); i++)
                view_spell_moment(json_at(jobs, i), "submitted-usec", "submitted");
        return view_print(c, &job_view, jobs);
}

/* ---- requeue ---- */

/* Not looked for before: one that is not kept any more may have a capsule, which the daemon knows. */
static int requeue_job(struct ctl *c, const char *word, struct json_object *rows) {
        struct json_object *row;
        uint64_t id = 0;
        char path[64];
        const struct remote_call call = {.path = path, .interface = "Job", .member = "Requeue"};
        int r;

        job_parse(word, &id);
        snprintf(path, sizeof path, REMOTE_MANAGER "/job/%" PRIu64, id);
        r = remote_call(c->remote, &call, NULL, NULL);
        if (r < 0)
                return remote_report(c->remote, r);
        row = json_object_new_object();
        json_object_array_add(rows, row);
        json_object_object_add(row, "id", json_object_new_uint64(id));
        json_object_object_add(row, "state", json_object_new_string("queued"));
        if (c->json == CTL_JSON_OFF && !c->quiet)
                printf("%" PRIu64 " queued\n", id);
        return CTL_OK;
}

static int requeue_pool(struct ctl *c, const char *name, struct json_object *rows) {
        const struct remote_call get = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "GetPool"};
        ctl_cleanup(json_putp) struct json_object *path = NULL, *n = NULL;
        struct json_object *row;
        int r = remote_call(c->remote, &get, &path, "s", name);

        const struct remote_call call = {.path = json_string(path), .interface = "Pool", .member = "RequeuePoisoned"};
        if (r >= 0)
                r = remote_call(c->remote, &call, &n, NULL);
        if (r < 0)
                return remote_report(c->remote, r);
        row = json_object_new_object();
        json_object_array_add(rows, row);
        json_object_object_add(row, "pool", json_object_new_string(name));
        json_object_object_add(row, "requeued", json_object_get(n));
        if (c->json == CTL_JSON_OFF && !c->quiet)
                printf("%s: %s jobs are queued again\n", name, json_plain(n));
        return CTL_OK;
}

/* A number alone may be the name of a pool, too: then it is for who types it to say which. CTL_OK or CTL_USAGE, said.
 */
static int check_number(struct ctl *c, const char *word) {
        const struct remote_call get = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "GetPool"};

        if (strchr(word, '/') || remote_call(c->remote, &get, NULL, "s", word) < 0)
                return CTL_OK;
        ctl_error("requeue %s: there is a pool %s, too: say job/%s or pool/%s", word, word, word, word);
        return CTL_USAGE;
}

static int requeue(struct ctl *c, const char *word, struct json_object *rows) {
        uint64_t id;
        int code;

        if (strncmp(word, "pool/", 5) == 0)
                return requeue_pool(c, word + 5, rows);
        if (job_parse(word, &id) < 0)
                return requeue_pool(c, word, rows);
        code = check_number(c, word);
        return code == CTL_OK ? requeue_job(c, word, rows) : code;
}

/* A number or a path is a job; any other name, or pool/NAME, is a pool: its poisoned ones. All that can be queued again
 * are, also behind one that cannot. */
int verb_requeue(struct ctl *c) {
        ctl_cleanup(json_putp) struct json_object *rows = json_object_new_array();
        int code = CTL_OK;

        for (int i = 0; i < c->n_operands; i++) {
                int r = requeue(c, c->operands[i], rows);

                code = r != CTL_OK ? r : code;
        }
        if (c->json != CTL_JSON_OFF)
                json_print(stdout, rows, c->json);
        return code;
}
