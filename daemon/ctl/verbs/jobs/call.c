/* call and submit: one job from the words of the command line.
 *
 * call is Submit, then Job.Wait in slices, then GetResult: so a job may take longer than the 25 s a bus call lives, and
 * Ctrl-C can cancel it by its id. The command line's words become typed values by the schema of the pool, because
 * nothing on the bus parses text. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "daemon/ctl/verbs/jobs/job.h"
#include "daemon/ctl/words/arguments.h"
#include "daemon/ctl/words/submit.h"
#include "ipc/layout.h"
#include "ipc/memory/sealed.h"

/* "n:u64,who:str" from {"n":"u64","who":"str"}. */
static int fields_from_json(struct json_object *o, struct schema_fields *ret, char *error, size_t error_bytes) {
        char signature[SCHEMA_MAX_FIELDS * (SCHEMA_MAX_NAME + 8) + 1] = "";
        size_t n = 0;

        if (!json_object_is_type(o, json_type_object))
                return schema_parse_fields(o ? json_string(o) : "", ret, error, error_bytes);
        json_object_object_foreach(o, key, type) {
                int more = snprintf(signature + n, sizeof signature - n, "%s%s:%s", n > 0 ? "," : "", key,
                                    json_string(type));

                if (more < 0 || (size_t)more >= sizeof signature - n)
                        return -EINVAL;
                n += (size_t)more;
        }
        return schema_parse_fields(signature, ret, error, error_bytes);
}

int job_find_fields(struct ctl *c, const char *pool, const char *job, struct schema_fields *ret_args,
                    struct schema_fields *ret_result) {
        const struct remote_call get = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "GetPool"};
        ctl_cleanup(json_putp) struct json_object *path = NULL, *schema = NULL;
        struct json_object *jobs = NULL, *args = NULL, *result = NULL;
        char error[ARGUMENTS_MAX_ERROR] = "";
        int r = remote_call(c->remote, &get, &path, "s", pool);

        if (r >= 0)
                r = remote_get_schema(c->remote, json_string(path), &schema);
        if (r < 0)
                return remote_report(c->remote, r);
        json_object_object_get_ex(schema, "jobs", &jobs);
        for (size_t i = 0; jobs && i < json_length(jobs); i++) {
                struct json_object *type = json_at(jobs, i);

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
        ctl_error("plugin of pool %s has no job '%s' (org.drover1.Error.NoSuchJobType): droverctl schema lists those "
                  "it has",
                  pool, job);
        return CTL_REFUSED;
}

/* Everything of --input: into `buffer` if that holds it, else it is a memory file. */
static int read_input(const char *path, void *buffer, size_t capacity, struct submit_args *a) {
        ctl_cleanup(ctl_closep) int fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
        size_t bytes = 0;
        ssize_t n = fd < 0 ? -1 : 1;
        int r;

        while (n > 0 && bytes < capacity) {
                n = read(fd, (char *)buffer + bytes, capacity - bytes);
                bytes += n > 0 ? (size_t)n : 0;
        }
        r = n < 0 ? -errno : bytes < capacity ? 0 : sealed_read("droverctl-payload", buffer, bytes, fd, &a->payload_fd);
        if (r == -EINTR && ctl_is_interrupted())
                return CTL_INTERRUPTED;
        if (r == -EMSGSIZE)
                ctl_error("--input=%s: a payload is at most %" PRIu64 " bytes (1 GiB)", path, SEALED_MAX_BYTES);
        else if (r < 0)
                ctl_error("--input=%s: %s", path, strerror(-r));
        a->bytes = bytes;
        return r < 0 ? CTL_USAGE : CTL_OK;
}

static int build(struct ctl *c, void *buffer, size_t capacity, struct arguments_fds *fds, struct submit_args *a) {
        const struct schema_fields *fields = a->fields;
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
                return read_input(c->input, buffer, capacity, a);
        }
        if (arguments_from_words(fields, c->operands + 2, c->n_operands - 2, buffer, capacity, &a->bytes, fds, error) <
            0) {
                ctl_error("%s %s: %s", c->operands[0], c->operands[1], error);
                return CTL_USAGE;
        }
        return CTL_OK;
}

/* The job of the command line, submitted: [number, path] in *ret. CTL_OK or the exit code, said. */
static int submit(struct ctl *c, struct schema_fields *ret_result, struct json_object **ret) {
        ctl_cleanup(ctl_freep) void *buffer = malloc(LAYOUT_MAX_SLOT_BYTES);
        struct schema_fields fields;
        struct arguments_fds fds = {0};
        struct submit_args args = {.fields = &fields, .args = buffer, .fds = &fds, .payload_fd = -1};
        int code, r;

        if (!buffer)
                return ctl_no_memory();
        code = submit_check_options(c);
        if (code == CTL_OK)
                code = job_find_fields(c, c->operands[0], c->operands[1], &fields, ret_result);
        if (code == CTL_OK)
                code = build(c, buffer, LAYOUT_MAX_SLOT_BYTES, &fds, &args);
        r = code == CTL_OK ? submit_job(c, c->operands[0], c->operands[1], &args, ret) : 0;
        arguments_close(&fds);
        ctl_closep(&args.payload_fd);
        if (code != CTL_OK)
                return code;
        return r < 0 ? remote_report(c->remote, r) : CTL_OK;
}

int verb_submit(struct ctl *c) {
        ctl_cleanup(json_putp) struct json_object *submitted = NULL;
        struct schema_fields fields;
        int code = submit(c, &fields, &submitted);

        if (code == CTL_OK)
                submit_print(c, submitted);
        return code;
}

int verb_call(struct ctl *c) {
        ctl_cleanup(json_putp) struct json_object *submitted = NULL;
        struct schema_fields fields;
        struct progress progress;
        int code;

        ctl_catch_interrupts();
        code = submit(c, &fields, &submitted);
        if (code != CTL_OK)
                return code;
        const char *job = json_string(json_at(submitted, 1));
        const struct remote_call cancel = {.path = job, .interface = "Job", .member = "Cancel", .is_final = true};
        progress_init(&progress, !c->quiet, "steps");
        code = job_await(c, job, &progress);
        if (code == CTL_INTERRUPTED && remote_call(c->remote, &cancel, NULL, "s", "ask") < 0)
                remote_call(c->remote, &cancel, NULL, "s", "queued");
        return code == CTL_OK ? job_print_result(c, job, &fields) : code;
}
