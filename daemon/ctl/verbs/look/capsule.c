/* list-capsules and show-capsule: jobs that killed their workers, as droverd kept them.
 *
 * One tree of JSON is made of a capsule, from which the words for people are printed, too. All text in it is a
 * stranger's, also a file's that somebody mailed: to a terminal go no control characters of it. What its arguments were
 * is read from their bytes (payload.h), because the plugin need not be there. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "daemon/ctl/show/terminal.h"
#include "daemon/ctl/verbs/look/capsule-files.h"
#include "daemon/ctl/verbs/look/view.h"
#include "daemon/ctl/words/payload.h"
#include "ipc/values/args.h"

enum { MAX_SHOWN = 2000 }; /* of the arguments, for people */

static void add_text(struct json_object *o, const char *key, const char *text) {
        json_object_object_add(o, key, json_text_new(text, strlen(text)));
}

static void add_number(struct json_object *o, const char *key, uint64_t n) {
        json_object_object_add(o, key, json_object_new_uint64(n));
}

/* What the list shows of it, too. */
struct json_object *capsule_describe_all(const struct capsule *c) {
        struct json_object *o = json_object_new_object();
        char text[192] = "";

        if (c->n_attempts > 0)
                capsule_describe(&c->attempts[c->n_attempts - 1], text, sizeof text);
        add_number(o, "id", c->id);
        add_text(o, "pool", c->pool);
        add_text(o, "job", c->job);
        add_text(o, "state", c->state);
        add_number(o, "created-usec", c->created_us);
        add_number(o, "uid", c->uid);
        add_text(o, "plugin", c->plugin);
        add_text(o, "build-id", c->build_id);
        add_number(o, "payload-bytes", c->payload_bytes);
        add_text(o, "text", text);
        return o;
}

/* ---- list-capsules ---- */

static int add_row(const struct capsule *c, void *user) {
        struct json_object *row = capsule_describe_all(c);

        add_number(row, "attempts", c->n_attempts);
        return json_object_array_add(user, row) < 0 ? ctl_no_memory() : CTL_OK;
}

static int by_age(const void *a, const void *b) {
        struct json_object *x = *(struct json_object *const *)a, *y = *(struct json_object *const *)b;
        uint64_t p = json_number(x, "created-usec"), q = json_number(y, "created-usec");

        return p != q ? (p > q) - (p < q) : strcmp(json_text(x, "pool", ""), json_text(y, "pool", ""));
}

static const char *const row_keys[] = {"id", "pool", "job", "state", "when", "uid", "attempts", "size", "text"};
static const struct table_column row_columns[] = {{"JOB", true},
                                                  {"POOL"},
                                                  {"TYPE"},
                                                  {"STATE", .is_state = true},
                                                  {"WHEN", .rank = 1},
                                                  {"UID", true, .rank = 3},
                                                  {"ATTEMPTS", true, .rank = 4},
                                                  {"PAYLOAD", true, .rank = 2},
                                                  {"LAST END"}};
static const struct view row_view = {row_keys, row_columns, 9};

static void make_plain(struct json_object *o, const char *key) {
        const char *text = json_text(o, key, "");
        ctl_cleanup(ctl_freep) char *plain = terminal_plain(text, strlen(text));

        json_object_object_add(o, key, json_object_new_string(plain ? plain : "?"));
}

int verb_list_capsules(struct ctl *c) {
        static const char *const texts[] = {"pool", "job", "state", "text"};
        ctl_cleanup(json_putp) struct json_object *rows = json_object_new_array();
        int code = capsule_files_each(c, c->n_operands > 0 ? c->operands[0] : NULL, add_row, rows);
        char text[TEXT_MAX];

        if (code != CTL_OK && code != CTL_USAGE)
                return code;
        json_object_array_sort(rows, by_age);
        if (c->json != CTL_JSON_OFF) {
                json_print(stdout, rows, c->json);
                return code;
        }
        for (size_t i = 0; i < json_length(rows); i++) {
                struct json_object *row = json_at(rows, i);

                for (unsigned k = 0; k < sizeof texts / sizeof *texts; k++)
                        make_plain(row, texts[k]);
                add_text(row, "when", text_moment(json_number(row, "created-usec"), text));
                add_text(row, "size", text_bytes(json_number(row, "payload-bytes"), text));
        }
        int printed = view_print(c, &row_view, rows);
        return printed != CTL_OK ? printed : code;
}

/* ---- show-capsule ---- */

void capsule_add_attempts(struct json_object *o, const struct capsule *c) {
        struct json_object *list = json_object_new_array();
        char text[192];

        for (uint32_t i = 0; i < c->n_attempts; i++) {
                const struct capsule_attempt *a = &c->attempts[i];
                struct json_object *row = json_object_new_object();

                capsule_describe(a, text, sizeof text);
                add_number(row, "attempt", a->attempt);
                add_number(row, "when-usec", a->when_us);
                add_number(row, "pid", a->pid);
                add_text(row, "reason", a->reason);
                add_number(row, "signal", a->signal);
                add_number(row, "status", a->status);
                add_text(row, "syscall", a->syscall);
                add_text(row, "module", a->module);
                add_number(row, "offset", a->offset);
                add_text(row, "text", text);
                json_object_array_add(list, row);
        }
        json_object_object_add(o, "attempts", list);
}

static void add_log(struct json_object *o, const char *log) {
        struct json_object *lines = json_object_new_array();

        while (*log) {
                size_t n = strcspn(log, "\n");

                json_object_array_add(lines, json_text_new(log, n));
                log += n + (log[n] == '\n');
        }
        json_object_object_add(o, "log", lines);
}

static int print_json(const struct ctl *ctl, const struct capsule *c, const struct schema_fields *fields) {
        ctl_cleanup(json_putp) struct json_object *o = capsule_describe_all(c);
        ctl_cleanup(ctl_freep) char *args = NULL;

        if (args_to_json(fields, c->payload, c->payload_bytes, &args) < 0)
                return ctl_no_memory();
        add_text(o, "plugin-dir", c->plugin_dir);
        json_object_object_add(o, "arguments", json_tokener_parse(args));
        capsule_add_attempts(o, c);
        add_log(o, c->log);
        json_print(stdout, o, ctl->json);
        return CTL_OK;
}

/* NAME and the text behind it, without what a terminal would obey; lines of it are indented. */
static void print_line(const char *name, const char *text, size_t bytes) {
        ctl_cleanup(ctl_freep) char *plain = terminal_plain(text, bytes);

        printf("%11s  %s\n", name, plain ? plain : "?");
}

static int print_arguments(const struct capsule *c, const struct schema_fields *fields) {
        ctl_cleanup(ctl_freep) char *args = NULL;
        char size[64];

        if (args_to_text(fields, c->payload, c->payload_bytes, &args) < 0)
                return ctl_no_memory();
        size_t n = strlen(args);
        if (n == 0)
                print_line("Arguments:", "none", 4);
        else
                print_line("Arguments:", args, n < MAX_SHOWN ? n : MAX_SHOWN);
        if (n > MAX_SHOWN) {
                snprintf(size, sizeof size, "... (%zu bytes; --output=FILE saves all)", c->payload_bytes);
                print_line("", size, strlen(size));
        }
        return CTL_OK;
}

static void print_attempt(const struct capsule_attempt *a) {
        char when[TEXT_MAX], what[192], line[320];

        capsule_describe(a, what, sizeof what);
        snprintf(line, sizeof line, "%s: attempt %u, worker pid %u: %s", text_moment(a->when_us, when), a->attempt,
                 a->pid, what);
        print_line("", line, strlen(line));
}

static int print_words(const struct capsule *c, const struct schema_fields *fields) {
        char when[TEXT_MAX], line[640];

        snprintf(line, sizeof line, "%" PRIu64 " (%s of pool %s)", c->id, c->job, c->pool);
        print_line("Job:", line, strlen(line));
        snprintf(line, sizeof line, "%s, %s", c->state, text_moment(c->created_us, when));
        print_line("State:", line, strlen(line));
        snprintf(line, sizeof line, "%u", c->uid);
        print_line("Uid:", line, strlen(line));
        snprintf(line, sizeof line, "%s in %s", c->plugin, c->plugin_dir);
        print_line("Plugin:", line, strlen(line));
        print_line("Build id:", c->build_id[0] ? c->build_id : "none", c->build_id[0] ? strlen(c->build_id) : 4);
        int code = print_arguments(c, fields);
        if (code != CTL_OK)
                return code;
        puts("  Attempts:");
        for (uint32_t i = 0; i < c->n_attempts; i++)
                print_attempt(&c->attempts[i]);
        if (c->log[0])
                puts("  Its worker printed last:");
        for (const char *p = c->log; *p; p += *p == '\n') {
                size_t n = strcspn(p, "\n");

                print_line("", p, n);
                p += n;
        }
        return CTL_OK;
}

/* For its reader only: it holds what somebody submitted. */
static int save(const struct capsule *c, const char *path) {
        ctl_cleanup(ctl_closep) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0600);
        const char *p = c->buffer, *end = p + c->buffer_bytes;
        ssize_t n = fd < 0 ? -1 : 0;

        while (n >= 0 && p < end) {
                n = write(fd, p, (size_t)(end - p));
                p += n > 0 ? n : 0;
        }
        if (n >= 0)
                return CTL_OK;
        ctl_error("--output=%s: %s", path, strerror(errno));
        return CTL_BROKEN;
}

int verb_show_capsule(struct ctl *c) {
        struct schema_fields fields;
        struct capsule capsule;
        int code = capsule_files_get(c, c->operands[0], &capsule);

        if (code != CTL_OK)
                return code;
        payload_guess(capsule.payload, capsule.payload_bytes, &fields);
        if (c->n_outputs > 0)
                code = save(&capsule, c->outputs[0]);
        else
                code = c->json != CTL_JSON_OFF ? print_json(c, &capsule, &fields) : print_words(&capsule, &fields);
        capsule_deinit(&capsule);
        return code;
}
