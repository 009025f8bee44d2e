/* wait, result, cancel: jobs that were submitted, by number. And what call shares with them: waiting with a bar, and
 * the result for people, for programs and for files.
 *
 * A job is waited for in slices, because a bus call lives 25 s; with a bar the slices are short, and between two of
 * them the job's own progress is asked for. Of several jobs the first that is not known to be over is waited for so;
 * signals tell how the others end meanwhile. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "daemon/ctl/show/terminal.h"
#include "daemon/ctl/verbs/jobs/job.h"
#include "ipc/values/utf8.h"

enum {
        SLICE_US = 20 * 1000 * 1000,
        SHORT_SLICE_US = 200 * 1000,
        WAIT_CALL_US = 60 * 1000 * 1000,
        PAUSE_MS = 10 * 1000
};

int job_parse(const char *word, uint64_t *ret) {
        static const char *const before[] = {REMOTE_MANAGER "/job/", "job/"};
        const char *digits = word;
        char *end;

        for (size_t i = 0; i < 2 && digits == word; i++)
                if (strncmp(word, before[i], strlen(before[i])) == 0)
                        digits += strlen(before[i]);

        errno = 0;
        *ret = strtoull(digits, &end, 10);
        return *digits < '0' || *digits > '9' || *end || errno ? -EINVAL : 0;
}

int job_find(struct ctl *c, const char *word, struct json_object **ret_path) {
        const struct remote_call find = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "GetJob"};
        uint64_t id;
        int r;

        if (job_parse(word, &id) < 0) {
                ctl_error("%s %s: a job is a number, as submit and list-jobs give it", c->verb->name, word);
                return CTL_USAGE;
        }
        r = remote_call(c->remote, &find, ret_path, "t", id);
        return r < 0 ? remote_report(c->remote, r) : CTL_OK;
}

/* ---- waiting ---- */

/* One slice. 1 = it has a verdict, 0, or -errno. The state, if asked for. */
static int await_slice(struct ctl *c, const char *path, uint64_t slice_us, struct json_object **ret_state) {
        const struct remote_call wait = {
                .path = path, .interface = "Job", .member = "Wait", .timeout_us = WAIT_CALL_US};
        struct json_object *state = NULL;
        int r = remote_call(c->remote, &wait, &state, "t", slice_us);

        if (r >= 0)
                r = strcmp(json_string(state), "queued") != 0 && strcmp(json_string(state), "running") != 0;
        if (ret_state && r > 0)
                *ret_state = state;
        else
                json_object_put(state);
        return r;
}

static void show_own_progress(struct ctl *c, const char *path, struct progress *p) {
        ctl_cleanup(json_putp) struct json_object *job = NULL;
        struct json_object *steps;

        if (!p->is_on || remote_get_all(c->remote, path, "Job", &job) < 0 ||
            !json_object_object_get_ex(job, "Progress", &steps) || json_length(steps) < 2)
                return;
        uint64_t done = json_object_get_uint64(json_at(steps, 0));
        uint64_t total = json_object_get_uint64(json_at(steps, 1));
        progress_update(p, done, 0, total ? (double)done / (double)total : -1);
}

int job_await(struct ctl *c, const char *path, struct progress *p) {
        int r;

        while ((r = await_slice(c, path, p->is_on ? SHORT_SLICE_US : SLICE_US, NULL)) == 0)
                show_own_progress(c, path, p);
        progress_clear(p);
        return r == -EINTR ? CTL_INTERRUPTED : r < 0 ? remote_report(c->remote, r) : CTL_OK;
}

/* ---- results ---- */

static unsigned nibble(char c) { return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10); }

/* The bytes that hex digits stand for, as they are, so that they can go into a file or a pipe. */
static void write_bytes(FILE *f, const char *hex) {
        for (; *hex; hex += 2)
                fputc((int)(nibble(hex[0]) << 4 | nibble(hex[1])), f);
}

/* As they are, too, but for a terminal, which must not obey them. */
static int print_payload(const char *hex) {
        ctl_cleanup(ctl_freep) char *bytes = NULL, *plain = NULL;
        size_t n = 0;
        FILE *f = isatty(STDOUT_FILENO) ? open_memstream(&bytes, &n) : NULL;

        if (!isatty(STDOUT_FILENO)) {
                write_bytes(stdout, hex);
                return CTL_OK;
        }
        if (f)
                write_bytes(f, hex);
        if (f && fclose(f) == 0)
                plain = utf8_plain(bytes, n, "\n\t");
        if (!plain)
                return ctl_no_memory();
        fputs(plain, stdout);
        return CTL_OK;
}

static bool is_bytes(const struct schema_fields *fields, const char *name) {
        const struct schema_field *f = fields && !fields->is_raw ? schema_find_field(fields, name) : NULL;

        return (fields && fields->is_raw) || (f && f->type == SCHEMA_BYTES && !f->is_array);
}

/* All that can be read from it: of a file from its beginning, of a pipe up to its end. Read only once it has
 * something: a read that waits would not end by a signal that came just before it. 0 or -errno. */
static int copy_descriptor(FILE *f, int fd) {
        char buffer[65536];
        bool has_positions = lseek(fd, 0, SEEK_CUR) >= 0;
        off_t at = 0;
        ssize_t n;

        while (!ferror(f)) {
                int r = remote_pause(PAUSE_MS, fd);

                if (r < 0)
                        return r;
                if (r == 0)
                        continue;
                n = has_positions ? pread(fd, buffer, sizeof buffer, at) : read(fd, buffer, sizeof buffer);
                if (n == 0)
                        return 0;
                if (n > 0) {
                        fwrite(buffer, 1, (size_t)n, f);
                        at += n;
                } else if (errno != EAGAIN && errno != EINTR) {
                        return -errno;
                }
        }
        return 0; /* that FILE cannot be written is its own error */
}

/* The value as it is. 0 or -errno. */
static int write_value(FILE *f, const struct schema_fields *fields, const char *name, struct json_object *value) {
        if (is_bytes(fields, name) && json_is_hex(value))
                write_bytes(f, json_string(value));
        else if (json_descriptor(value) >= 0)
                return copy_descriptor(f, json_descriptor(value));
        else
                json_write_value(f, value);
        return 0;
}

/* One --output=FIELD=FILE out of `values`, bytes as hex there; the field is taken away. CTL_OK or the exit code, said.
 */
static int write_output(struct json_object *values, const struct schema_fields *fields, const char *output) {
        char name[SCHEMA_MAX_NAME];
        const char *file = strchr(output, '=') + 1;
        struct json_object *value;
        int r = 0;

        snprintf(name, sizeof name, "%.*s", (int)(file - 1 - output), output);
        if (!values || !json_object_object_get_ex(values, name, &value)) {
                ctl_error("--output=%s: the result has no field '%s'", output, name);
                return CTL_USAGE;
        }
        FILE *f = strcmp(file, "-") == 0 ? stdout : fopen(file, "we");
        if (f)
                r = write_value(f, fields, name, value);
        if (r == -EINTR)
                return CTL_INTERRUPTED;
        if (r < 0) {
                ctl_error("--output=%s: the descriptor cannot be read to its end: %s", output, strerror(-r));
                return CTL_BROKEN;
        }
        if (!f || ferror(f) || (f == stdout ? fflush(f) : fclose(f)) != 0) {
                ctl_error("--output=%s: %s", output, strerror(errno));
                return CTL_BROKEN;
        }
        json_object_object_del(values, name);
        return CTL_OK;
}

static int get_result(struct ctl *c, const char *path, enum json_bytes bytes, struct json_object **ret) {
        const struct remote_call get = {.path = path, .interface = "Job", .member = "GetResult", .bytes = bytes};
        int r = remote_call(c->remote, &get, ret, NULL);

        if (r >= 0 && !*json_text(*ret, "state", ""))
                r = remote_set_odd(c->remote, "a result without a state");
        return r < 0 ? remote_report(c->remote, r) : CTL_OK;
}

static int print_values(struct ctl *c, struct json_object *values, const struct schema_fields *fields) {
        for (unsigned i = 0; i < c->n_outputs; i++) {
                int code = write_output(values, fields, c->outputs[i]);

                if (code != CTL_OK)
                        return code;
        }
        if (c->json != CTL_JSON_OFF)
                return CTL_OK;
        if (fields && fields->is_raw) {
                struct json_object *payload;

                bool is_there = json_object_object_get_ex(values, "payload", &payload);
                if (!is_there && c->n_outputs > 0) /* it went to a file */
                        return CTL_OK;
                if (is_there && json_is_hex(payload))
                        return print_payload(json_string(payload));
                return remote_report(c->remote, remote_set_odd(c->remote, "the result of a raw job without its bytes"));
        }
        if (values && json_n_members(values) > 0)
                json_print_words(stdout, values);
        return CTL_OK;
}

int job_print_result(struct ctl *c, const char *path, const struct schema_fields *fields) {
        ctl_cleanup(json_putp) struct json_object *result = NULL, *whole = NULL;
        struct json_object *values = NULL;
        int code = get_result(c, path, JSON_BYTES_HEX, &result);

        if (code == CTL_OK && c->json != CTL_JSON_OFF)
                code = get_result(c, path, JSON_BYTES_BASE64, &whole);
        if (code != CTL_OK)
                return code;
        bool is_done = strcmp(json_text(result, "state", ""), "done") == 0;
        if (fields && json_object_object_get_ex(whole, "result", &values))
                json_order_fields(values, fields);
        if (json_object_object_get_ex(result, "result", &values) && fields)
                json_order_fields(values, fields);
        if (is_done)
                code = print_values(c, values, fields);
        else if (c->json == CTL_JSON_OFF)
                ctl_error("%s", json_text(result, "error", json_text(result, "state", "no verdict")));
        if (code == CTL_OK && c->json != CTL_JSON_OFF)
                json_print(stdout, whole, c->json);
        return code != CTL_OK ? code : is_done ? CTL_OK : CTL_JOB_FAILED;
}

/* Only the schema says what is bytes; a pool that is gone has none, and its bytes are shown as hex. */
static int find_result_fields(struct ctl *c, struct json_object *job, struct schema_fields *ret, bool *ret_is_known) {
        const struct remote_call get = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "GetPool"};
        const char *pool = json_text(job, "Pool", "");
        struct schema_fields args;

        *ret_is_known = remote_call(c->remote, &get, NULL, "s", pool) >= 0;
        return *ret_is_known ? job_find_fields(c, pool, json_text(job, "Name", ""), &args, ret) : CTL_OK;
}

int verb_result(struct ctl *c) {
        ctl_cleanup(json_putp) struct json_object *path = NULL, *job = NULL;
        struct schema_fields fields = {0};
        bool is_known = false;
        int code = job_find(c, c->operands[0], &path), r;

        if (code != CTL_OK)
                return code;
        r = remote_get_all(c->remote, json_string(path), "Job", &job);
        if (r < 0)
                return remote_report(c->remote, r);
        if (strcmp(json_text(job, "State", ""), "done") == 0)
                code = find_result_fields(c, job, &fields, &is_known);
        return code == CTL_OK ? job_print_result(c, json_string(path), is_known ? &fields : NULL) : code;
}

/* ---- wait and cancel ---- */

/* All before the first is touched: a number that is wrong is told at once. */
static int find_all(struct ctl *c, struct json_object *paths) {
        for (int i = 0; i < c->n_operands; i++) {
                struct json_object *path = NULL;
                int code = job_find(c, c->operands[i], &path);

                if (code != CTL_OK)
                        return code;
                json_object_array_add(paths, path);
        }
        return CTL_OK;
}

static void add_row(struct ctl *c, struct json_object *rows, const char *path, const char *key, const char *word) {
        struct json_object *row = json_object_new_object();
        uint64_t id = 0;

        job_parse(path, &id);
        json_object_object_add(row, "id", json_object_new_uint64(id));
        json_object_object_add(row, key, json_object_new_string(word));
        json_object_array_add(rows, row);
        if (c->json == CTL_JSON_OFF)
                printf("%" PRIu64 " %s\n", id, json_text(row, key, ""));
        fflush(stdout); /* the next one may take long */
}

/* JobRemoved: of one that is waited for, the state goes into `user`, path → state. */
static int on_removed(sd_bus_message *m, void *user, sd_bus_error *error) {
        struct json_object *states = user;
        const char *path, *state;
        uint64_t id;

        if (sd_bus_message_read(m, "toss", &id, &path, NULL, &state) >= 0 &&
            json_object_object_get_ex(states, path, NULL))
                json_object_object_add(states, path, json_object_new_string(state));
        return 0;
}

/* Any of them may end, and be forgotten, while another is waited for: their ends are heard from here on, and those that
 * came before are asked for. CTL_OK or the exit code, said. */
static int listen_to_all(struct ctl *c, struct json_object *paths, struct json_object *states) {
        int r = remote_subscribe(c->remote, "JobRemoved", on_removed, states), code;

        if (r < 0)
                return remote_report(c->remote, r);
        code = find_all(c, paths);
        for (size_t i = 0; i < json_length(paths) && code == CTL_OK; i++) {
                const char *path = json_string(json_at(paths, i));
                struct json_object *state = NULL;

                json_object_object_add(states, path, NULL);
                r = await_slice(c, path, 0, &state);
                if (r > 0)
                        json_object_object_add(states, path, state);
                else if (r < 0)
                        code = remote_report(c->remote, r);
        }
        return code;
}

/* Until job i of `paths` has a verdict. 0 or -errno. */
static int await_one(struct ctl *c, const char *path, struct json_object *states, struct progress *progress, unsigned i,
                     unsigned n_failed) {
        unsigned n = (unsigned)c->n_operands;
        struct json_object *state = NULL;
        int r = 0;

        while (r == 0 && !json_object_object_get(states, path)) {
                r = await_slice(c, path, progress->is_on ? SHORT_SLICE_US : SLICE_US, &state);
                if (r > 0)
                        json_object_object_add(states, path, state);
                else if (n == 1)
                        show_own_progress(c, path, progress);
                else
                        progress_update(progress, i, n_failed, (double)i / n);
        }
        return json_object_object_get(states, path) ? 0 : r; /* forgotten, but heard of */
}

int verb_wait(struct ctl *c) {
        ctl_cleanup(json_putp) struct json_object *paths = json_object_new_array(), *rows = json_object_new_array(),
                                                  *states = json_object_new_object();
        struct progress progress;
        unsigned n = (unsigned)c->n_operands, n_failed = 0;
        int code, r = 0;

        ctl_catch_interrupts();
        code = listen_to_all(c, paths, states);
        if (code != CTL_OK)
                return code;
        progress_init(&progress, !c->quiet, n == 1 ? "steps" : "jobs");
        for (unsigned i = 0; i < n; i++) {
                const char *path = json_string(json_at(paths, i)), *state;

                r = await_one(c, path, states, &progress, i, n_failed);
                if (r < 0)
                        break;
                state = json_string(json_object_object_get(states, path));
                n_failed += strcmp(state, "done") != 0;
                if (isatty(STDOUT_FILENO))
                        progress_clear(&progress);
                add_row(c, rows, path, "state", state);
        }
        progress_clear(&progress);
        if (r < 0)
                return remote_report(c->remote, r);
        if (c->json != CTL_JSON_OFF)
                json_print(stdout, rows, c->json);
        return n_failed > 0 ? CTL_JOB_FAILED : CTL_OK;
}

int verb_cancel(struct ctl *c) {
        ctl_cleanup(json_putp) struct json_object *paths = json_object_new_array(), *rows = json_object_new_array();
        int code = find_all(c, paths);

        for (size_t i = 0; i < json_length(paths) && code == CTL_OK; i++) {
                const char *path = json_string(json_at(paths, i));
                const struct remote_call cancel = {.path = path, .interface = "Job", .member = "Cancel"};
                ctl_cleanup(json_putp) struct json_object *outcome = NULL;
                int r = remote_call(c->remote, &cancel, &outcome, "s", c->mode ? c->mode : "ask");

                if (r < 0)
                        code = remote_report(c->remote, r);
                else
                        add_row(c, rows, path, "outcome", json_string(outcome));
        }
        if (c->json != CTL_JSON_OFF && code == CTL_OK)
                json_print(stdout, rows, c->json);
        return code;
}
