/* Manager.ListJobs and DescribeJobs: a filter, a page. The cursor is the last id of the page before, as text, and
 * nothing to be kept here: whoever pages through sees every job that was there from first to last, once. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/bus/authorize.h"
#include "daemon/bus/peers/peer.h"
#include "daemon/bus/value.h"
#include "ipc/values/words.h"

enum { MAX_JOBS_LISTED = 1000 };

/* "queued" … "lost" → its bit. DELAYED is called queued, too. */
static int read_state(const char *word, uint32_t *states, sd_bus_error *e) {
        for (unsigned state = SLOT_QUEUED; state < SLOT_N_STATES; state++)
                if (state != SLOT_DELAYED && strcmp(words_slot_state(state), word) == 0) {
                        *states |= 1u << state;
                        return 0;
                }
        return bus_invalid(e,
                           "filter state: \"%.64s\" is none of queued, running, done, failed, cancelled, expired, "
                           "timed-out, poisoned, lost",
                           word);
}

static int read_states(sd_bus_message *m, uint32_t *states, sd_bus_error *e) {
        const char *word;
        int r;

        r = sd_bus_message_enter_container(m, 'a', "s");
        while (r >= 0 && (r = sd_bus_message_read_basic(m, 's', &word)) > 0)
                r = read_state(word, states, e);
        return r < 0 ? r : sd_bus_message_exit_container(m);
}

static int read_condition(sd_bus_message *m, struct job_filter *f, sd_bus_error *e) {
        const char *key;
        uint64_t n;
        int r;

        r = sd_bus_message_read_basic(m, 's', &key);
        if (r < 0)
                return r;
        if (strcmp(key, "uid") == 0) {
                r = value_read_number(m, key, 0, UINT32_MAX, &n, e);
                f->uid = (uid_t)n;
                f->has_uid = true;
                return r;
        }
        if (strcmp(key, "since") == 0)
                return value_read_number(m, key, 0, UINT64_MAX, &f->since_us, e);
        char what[80];
        snprintf(what, sizeof(what), "filter %.64s", key);
        bool is_state = strcmp(key, "state") == 0, is_pool = strcmp(key, "pool") == 0;
        if (!is_state && !is_pool && strcmp(key, "job") != 0)
                return bus_invalid(e, "unknown filter \"%.64s\"; there are pool, job, state, uid, since", key);
        r = value_enter_variant(m, what, is_state ? "as" : "s", e);
        if (r >= 0)
                r = is_state ? read_states(m, &f->states, e)
                             : sd_bus_message_read_basic(m, 's', is_pool ? &f->pool : &f->name);
        return r < 0 ? r : sd_bus_message_exit_container(m);
}

static int read_filter(sd_bus_message *m, struct job_filter *f, sd_bus_error *e) {
        int r;

        r = sd_bus_message_enter_container(m, 'a', "{sv}");
        while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                r = read_condition(m, f, e);
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
        }
        return r < 0 ? r : sd_bus_message_exit_container(m);
}

typedef int (*append_row_fn)(sd_bus_message *reply, const struct job_row *row, const char *path);

static int append_row(sd_bus_message *reply, const struct job_row *row, const char *path) {
        return sd_bus_message_append(reply, "(tosss)", row->id, path, row->pool, row->name,
                                     words_slot_state(row->state));
}

static int append_description(sd_bus_message *reply, const struct job_row *row, const char *path) {
        return sd_bus_message_append(reply, "a{sv}", 9, "id", "t", row->id, "path", "o", path, "pool", "s", row->pool,
                                     "job", "s", row->name, "state", "s", words_slot_state(row->state), "uid", "u",
                                     (uint32_t)row->uid, "pid", "u", (uint32_t)row->pid, "connection", "s",
                                     row->connection, "submitted-usec", "t", row->submitted_us);
}

static int append_rows(sd_bus_message *reply, const struct job_row *rows, size_t n, uint64_t next, bool is_described) {
        const append_row_fn append = is_described ? append_description : append_row;
        char path[BUS_MAX_PATH], text[24] = "";
        int r;

        r = sd_bus_message_open_container(reply, 'a', is_described ? "a{sv}" : "(tosss)");
        for (size_t i = 0; i < n && r >= 0; i++) {
                bus_job_path(rows[i].id, path);
                r = append(reply, &rows[i], path);
        }
        if (r >= 0)
                r = sd_bus_message_close_container(reply);
        if (next)
                snprintf(text, sizeof(text), "%" PRIu64, next);
        return r < 0 ? r : sd_bus_message_append(reply, "s", text);
}

static int list_jobs(struct bus *b, struct bus_peer *p, sd_bus_message *m, bool is_described, sd_bus_error *e) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *reply = NULL;
        struct job_filter f = {.viewer = p->uid, .sees_all = authorize_is_root(p->uid)};
        struct job_row *rows;
        const char *cursor;
        uint64_t after, next;
        uint32_t limit;
        size_t n;
        int r;

        r = read_filter(m, &f, e);
        if (r >= 0)
                r = sd_bus_message_read(m, "su", &cursor, &limit);
        if (r >= 0)
                r = value_read_cursor(cursor, UINT64_MAX, &after, e);
        if (r >= 0)
                r = sd_bus_message_new_method_return(m, &reply);
        if (r < 0)
                return r;
        if (limit == 0 || limit > MAX_JOBS_LISTED)
                limit = MAX_JOBS_LISTED;
        rows = calloc(limit, sizeof(*rows));
        if (!rows)
                return -ENOMEM;
        n = supervisor_list_jobs(b->supervisor, &f, after, rows, limit, &next);
        r = append_rows(reply, rows, n, next, is_described);
        free(rows);
        return r < 0 ? r : bus_send(b, reply, bus_rows_weight(is_described ? 4 * n : n));
}

int list_jobs_method(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        return list_jobs(b, p, m, false, e);
}

int list_jobs_method_describe(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        return list_jobs(b, p, m, true, e);
}
