/* Manager.Submit: a job's arguments and options as a message.
 *
 * The command line's words are a checked map by now; here it is walked by the schema into a{sv}. Options go out in the
 * type that the bus interface gives them, as the words of the command line say them. */
#include <errno.h>
#include <string.h>
#include <systemd/sd-bus.h>
#include <time.h>

#include "daemon/config-value.h"
#include "daemon/ctl/submit.h"
#include "ipc/args.h"

enum { MAX_AFTER = 256 };

/* ---- arguments ---- */

static int append_value(sd_bus_message *m, const struct args_value *v) {
        ctl_cleanup(ctl_freep) char *text = NULL;

        switch (v->type) {
        case SCHEMA_U64:
                return sd_bus_message_append_basic(m, 't', &v->u64);
        case SCHEMA_I64:
                return sd_bus_message_append_basic(m, 'x', &v->i64);
        case SCHEMA_F64:
                return sd_bus_message_append_basic(m, 'd', &v->f64);
        case SCHEMA_BOOL:
                return sd_bus_message_append_basic(m, 'b', &(int){v->boolean});
        case SCHEMA_STR:
                text = strndup(v->data, v->bytes);
                return text ? sd_bus_message_append_basic(m, 's', text) : -ENOMEM;
        case SCHEMA_BYTES:
                return sd_bus_message_append_array(m, 'y', v->data, v->bytes);
        case SCHEMA_FD:
                break;
        }
        return -EINVAL;
}

static const char *bus_type(const struct schema_field *f) {
        static const char *const one[] = {"", "t", "x", "d", "b", "s", "ay", "h"};
        static const char *const array[] = {"", "at", "ax", "ad", "ab", "as", "aay", "ah"};

        return f->is_array ? array[f->type] : one[f->type];
}

static int append_field(sd_bus_message *m, const struct schema_field *f, const void *args, size_t bytes) {
        struct args_value v;
        uint32_t n;
        int r;

        r = sd_bus_message_open_container(m, SD_BUS_TYPE_VARIANT, bus_type(f));
        if (r < 0)
                return r;
        if (!f->is_array) {
                r = args_get(args, bytes, f->name, f->type, &v);
                if (r >= 0)
                        r = append_value(m, &v);
                return r < 0 ? r : sd_bus_message_close_container(m);
        }
        r = args_array_length(args, bytes, f->name, &n);
        if (r >= 0)
                r = sd_bus_message_open_container(m, SD_BUS_TYPE_ARRAY, bus_type(f) + 1);
        for (uint32_t i = 0; r >= 0 && i < n; i++) {
                r = args_get_element(args, bytes, f->name, i, f->type, &v);
                if (r >= 0)
                        r = append_value(m, &v);
        }
        if (r >= 0)
                r = sd_bus_message_close_container(m);
        return r < 0 ? r : sd_bus_message_close_container(m);
}

static int append_args(sd_bus_message *m, const struct schema_fields *fields, const void *args, size_t bytes) {
        int r = sd_bus_message_open_container(m, SD_BUS_TYPE_ARRAY, "{sv}");

        for (uint32_t i = 0; r >= 0 && i < fields->n_fields; i++) {
                r = sd_bus_message_open_container(m, SD_BUS_TYPE_DICT_ENTRY, "sv");
                if (r >= 0)
                        r = sd_bus_message_append_basic(m, 's', fields->field[i].name);
                if (r >= 0)
                        r = append_field(m, &fields->field[i], args, bytes);
                if (r >= 0)
                        r = sd_bus_message_close_container(m);
        }
        return r < 0 ? r : sd_bus_message_close_container(m);
}

static int append_payload(sd_bus_message *m, const void *payload, size_t bytes) {
        int r = sd_bus_message_open_container(m, SD_BUS_TYPE_ARRAY, "{sv}");

        if (r >= 0)
                r = sd_bus_message_open_container(m, SD_BUS_TYPE_DICT_ENTRY, "sv");
        if (r >= 0)
                r = sd_bus_message_append_basic(m, 's', "payload");
        if (r >= 0)
                r = sd_bus_message_open_container(m, SD_BUS_TYPE_VARIANT, "ay");
        if (r >= 0)
                r = sd_bus_message_append_array(m, 'y', payload, bytes);
        for (int level = 0; r >= 0 && level < 3; level++)
                r = sd_bus_message_close_container(m);
        return r;
}

/* ---- options ---- */

/* "7,8": job numbers. How many, at most `room`; -EINVAL. */
static int parse_jobs(const char *list, uint64_t *ret, unsigned room) {
        unsigned n = 0;
        char *end;

        do {
                errno = 0;
                if (n == room || *list < '0' || *list > '9')
                        return -EINVAL;
                ret[n++] = strtoull(list, &end, 10);
                if (errno || (*end && *end != ','))
                        return -EINVAL;
                list = end + 1;
        } while (*end);
        return (int)n;
}

static int say_wrong(const struct ctl_setting *s, const char *what) {
        ctl_error("--%s=%s: not %s", s->name, s->value, what);
        return CTL_USAGE;
}

/* The value of a number or a time in µs. CTL_OK, or what is wrong is said. */
static int parse_option(const struct ctl_setting *s, uint64_t *ret) {
        uint64_t jobs[MAX_AFTER];
        bool is_time = s->type == 't' || s->type == 'n';
        int r;

        if (s->type == 'a')
                return parse_jobs(s->value, jobs, MAX_AFTER) < 0 ? say_wrong(s, "numbers of jobs like 7,8") : CTL_OK;
        if (s->type == 's')
                return CTL_OK;
        r = is_time ? value_parse_time(s->value, ret) : value_parse_number(s->value, ret);
        if (r < 0 || (s->type == 'u' && *ret > UINT32_MAX) || (is_time && *ret == VALUE_INFINITY))
                return say_wrong(s, is_time ? "a time like 20 (seconds), 100ms or 5min" : "a number");
        if (is_time)
                *ret /= 1000;
        return CTL_OK;
}

int submit_check_options(const struct ctl *c) {
        uint64_t value;
        int code = CTL_OK;

        for (unsigned i = 0; i < c->n_settings && code == CTL_OK; i++)
                code = parse_option(&c->settings[i], &value);
        return code;
}

static uint64_t realtime_us(void) {
        struct timespec t;

        clock_gettime(CLOCK_REALTIME, &t);
        return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static int append_jobs(sd_bus_message *m, const struct ctl_setting *s) {
        uint64_t jobs[MAX_AFTER];
        int r, n = parse_jobs(s->value, jobs, MAX_AFTER);

        if (n < 0)
                return n;
        r = sd_bus_message_open_container(m, SD_BUS_TYPE_DICT_ENTRY, "sv");
        if (r >= 0)
                r = sd_bus_message_append_basic(m, 's', s->name);
        if (r >= 0)
                r = sd_bus_message_open_container(m, SD_BUS_TYPE_VARIANT, "at");
        if (r >= 0)
                r = sd_bus_message_append_array(m, 't', jobs, (size_t)n * sizeof *jobs);
        for (int level = 0; r >= 0 && level < 2; level++)
                r = sd_bus_message_close_container(m);
        return r;
}

static int append_option(sd_bus_message *m, const struct ctl_setting *s) {
        uint64_t value = 0;

        if (parse_option(s, &value) != CTL_OK)
                return -EINVAL;
        switch (s->type) {
        case 'a':
                return append_jobs(m, s);
        case 's':
                return sd_bus_message_append(m, "{sv}", s->name, "s", s->value);
        case 'n':
                return sd_bus_message_append(m, "{sv}", "not-before", "t", realtime_us() + value);
        case 'u':
                return sd_bus_message_append(m, "{sv}", s->name, "u", (uint32_t)value);
        default:
                return sd_bus_message_append(m, "{sv}", s->name, "t", value);
        }
}

static int append_options(sd_bus_message *m, const struct ctl *c) {
        int r = sd_bus_message_open_container(m, SD_BUS_TYPE_ARRAY, "{sv}");

        for (unsigned i = 0; r >= 0 && i < c->n_settings; i++)
                r = append_option(m, &c->settings[i]);
        return r < 0 ? r : sd_bus_message_close_container(m);
}

int submit_job(struct ctl *c, const char *pool, const char *type, const struct schema_fields *fields, const void *args,
               size_t bytes, struct json_object **ret) {
        static const struct remote_call plain;
        ctl_cleanup(remote_message_unrefp) sd_bus_message *m = NULL;
        int error;

        error = sd_bus_message_new_method_call(remote_bus(c->remote), &m, REMOTE_NAME, REMOTE_MANAGER,
                                               REMOTE_NAME ".Manager", "Submit");
        if (error >= 0)
                error = sd_bus_message_append(m, "ss", pool, type);
        if (error >= 0)
                error = fields->is_raw ? append_payload(m, args, bytes) : append_args(m, fields, args, bytes);
        if (error >= 0)
                error = append_options(m, c);
        return error < 0 ? error : remote_exchange(c->remote, m, &plain, ret);
}
