/* call: one job, its result.
 *
 * Submit, then Job.Wait in slices, then GetResult: so a job may take longer than the 25 s a bus call lives, and Ctrl-C
 * can cancel it by its id. The command line's words become typed values by the schema of the pool, because nothing on
 * the bus parses text. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "daemon/ctl/arguments.h"
#include "daemon/ctl/ctl.h"
#include "daemon/ctl/remote.h"
#include "ipc/layout.h"

enum { WAIT_SLICE_US = 20 * 1000 * 1000, WAIT_CALL_US = 60 * 1000 * 1000 };

/* "n:u64,who:str" from {"n":"u64","who":"str"}. */
static int fields_from_json(struct json_object *o, struct schema_fields *ret, char *error, size_t error_bytes) {
        char signature[SCHEMA_MAX_FIELDS * (SCHEMA_MAX_NAME + 8) + 1] = "";
        size_t n = 0;

        if (!json_object_is_type(o, json_type_object))
                return schema_parse_fields(o ? json_object_get_string(o) : "", ret, error, error_bytes);
        json_object_object_foreach(o, key, type) {
                int more = snprintf(signature + n, sizeof signature - n, "%s%s:%s", n > 0 ? "," : "", key,
                                    json_object_get_string(type));

                if (more < 0 || (size_t)more >= sizeof signature - n)
                        return -EINVAL;
                n += (size_t)more;
        }
        return schema_parse_fields(signature, ret, error, error_bytes);
}

/* Arguments and result of `job`, out of the pool's schema. CTL_OK or the exit code, said. */
static int find_fields(struct ctl *c, const char *pool, const char *job, struct schema_fields *ret_args,
                       struct schema_fields *ret_result) {
        const struct remote_call get = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "GetPool"};
        ctl_cleanup(json_putp) struct json_object *path = NULL, *schema = NULL;
        struct json_object *jobs = NULL, *args = NULL, *result = NULL;
        char error[ARGUMENTS_MAX_ERROR] = "";
        int r = remote_call(c->remote, &get, &path, "s", pool);

        if (r >= 0)
                r = remote_get_schema(c->remote, json_object_get_string(path), &schema);
        if (r < 0)
                return remote_report(c->remote, r);
        json_object_object_get_ex(schema, "jobs", &jobs);
        for (size_t i = 0; jobs && i < json_object_array_length(jobs); i++) {
                struct json_object *type = json_object_array_get_idx(jobs, i);

                if (strcmp(json_text(type, "name", ""), job) != 0)
                        continue;
                json_object_object_get_ex(type, "args", &args);
                json_object_object_get_ex(type, "result", &result);
                r = fields_from_json(args, ret_args, error, sizeof error);
                if (r >= 0)
                        r = fields_from_json(result, ret_result, error, sizeof error);
                if (r < 0)
                        ctl_error("the schema of pool %s makes no sense: %s", pool, error);
                return r < 0 ? CTL_REFUSED : CTL_OK;
        }
        ctl_error("plugin of pool %s has no job '%s' (org.drover1.Error.NoSuchJobType)", pool, job);
        return CTL_REFUSED;
}

/* Everything of --input, at most `capacity` bytes. */
static int read_input(const char *path, void *buffer, size_t capacity, size_t *ret_bytes) {
        ctl_cleanup(ctl_closep) int fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
        size_t bytes = 0;
        ssize_t n = fd < 0 ? -1 : 1;

        while (n > 0 && bytes < capacity) {
                n = read(fd, (char *)buffer + bytes, capacity - bytes);
                bytes += n > 0 ? (size_t)n : 0;
        }
        if (n < 0 || bytes == capacity) {
                ctl_error("--input=%s: %s", path, n < 0 ? strerror(errno) : "larger than any slot");
                return CTL_USAGE;
        }
        *ret_bytes = bytes;
        return CTL_OK;
}

static int build(struct ctl *c, const struct schema_fields *fields, void *buffer, size_t capacity, size_t *ret_bytes) {
        char error[ARGUMENTS_MAX_ERROR];

        if (c->input) {
                if (!fields->is_raw) {
                        ctl_error("--input is for raw jobs; %s takes KEY=VALUE words", c->operands[1]);
                        return CTL_USAGE;
                }
                if (c->n_operands > 2) {
                        ctl_error("%s: --input is the whole payload", c->operands[2]);
                        return CTL_USAGE;
                }
                return read_input(c->input, buffer, capacity, ret_bytes);
        }
        if (arguments_from_words(fields, c->operands + 2, c->n_operands - 2, buffer, capacity, ret_bytes, error) < 0) {
                ctl_error("%s %s: %s", c->operands[0], c->operands[1], error);
                return CTL_USAGE;
        }
        return CTL_OK;
}

/* Waits for the verdict; asks for the job's end when interrupted. */
static int await_verdict(struct ctl *c, const char *job) {
        const struct remote_call wait = {.path = job, .interface = "Job", .member = "Wait", .timeout_us = WAIT_CALL_US};
        const struct remote_call cancel = {.path = job, .interface = "Job", .member = "Cancel", .is_final = true};

        for (;;) {
                ctl_cleanup(json_putp) struct json_object *state = NULL;
                int r = remote_call(c->remote, &wait, &state, "t", (uint64_t)WAIT_SLICE_US);

                if (r == -EINTR) {
                        if (remote_call(c->remote, &cancel, NULL, "s", "ask") < 0)
                                remote_call(c->remote, &cancel, NULL, "s", "queued");
                        return CTL_INTERRUPTED;
                }
                if (r < 0)
                        return remote_report(c->remote, r);
                if (strcmp(json_object_get_string(state), "queued") != 0 &&
                    strcmp(json_object_get_string(state), "running") != 0)
                        return CTL_OK;
        }
}

static unsigned nibble(char c) { return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10); }

/* The bytes of a raw result as they are, so that they can go into a file or a pipe. */
static void print_raw(const char *hex) {
        for (; *hex; hex += 2)
                putchar((int)(nibble(hex[0]) << 4 | nibble(hex[1])));
}

static void print_result(struct ctl *c, bool is_raw, struct json_object *result) {
        struct json_object *values = NULL;

        json_object_object_get_ex(result, "result", &values);
        if (c->json != CTL_JSON_OFF)
                json_print(stdout, result, c->json);
        else if (strcmp(json_text(result, "state", ""), "done") != 0)
                ctl_error("%s", json_text(result, "error", json_text(result, "state", "no verdict")));
        else if (is_raw)
                print_raw(json_text(values, "payload", ""));
        else if (values && json_object_object_length(values) > 0)
                json_print_words(stdout, values);
}

int verb_call(struct ctl *c) {
        ctl_cleanup(ctl_freep) void *buffer = malloc(LAYOUT_MAX_SLOT_BYTES + 1);
        ctl_cleanup(json_putp) struct json_object *submitted = NULL, *result = NULL;
        struct schema_fields args, result_fields;
        size_t bytes;
        int code, r;

        if (!buffer)
                return CTL_REFUSED;
        ctl_catch_interrupts();
        code = find_fields(c, c->operands[0], c->operands[1], &args, &result_fields);
        if (code == CTL_OK)
                code = build(c, &args, buffer, LAYOUT_MAX_SLOT_BYTES + 1, &bytes);
        if (code != CTL_OK)
                return code;
        r = remote_submit(c->remote, c->operands[0], c->operands[1], &args, buffer, bytes, &submitted);
        if (r < 0)
                return remote_report(c->remote, r);
        const char *job = json_object_get_string(json_object_array_get_idx(submitted, 1));
        code = await_verdict(c, job);
        if (code != CTL_OK)
                return code;
        const struct remote_call get = {.path = job,
                                        .interface = "Job",
                                        .member = "GetResult",
                                        .bytes = c->json == CTL_JSON_OFF ? JSON_BYTES_HEX : JSON_BYTES_BASE64};
        r = remote_call(c->remote, &get, &result, NULL);
        if (r < 0)
                return remote_report(c->remote, r);
        print_result(c, result_fields.is_raw, result);
        return strcmp(json_text(result, "state", ""), "done") == 0 ? CTL_OK : CTL_JOB_FAILED;
}
