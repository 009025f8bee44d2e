/* Manager.Submit: a job's arguments and options as a message.
 *
 * The command line's words are a checked map by now; here it is walked by the schema into a{sv}. Options go out in the
 * type that the bus interface gives them, as the words of the command line say them. */
#include <errno.h>
#include <string.h>
#include <systemd/sd-bus.h>

#include "daemon/config-value.h"
#include "daemon/ctl/submit.h"
#include "ipc/args.h"

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

/* CTL_OK, or what is wrong is said. */
static int parse_option(const struct ctl_setting *s, uint64_t *ret) {
        int r = s->type == 't' ? value_parse_time(s->value, ret) : value_parse_number(s->value, ret);

        if (r < 0 || (s->type == 'u' && *ret > UINT32_MAX) || *ret == VALUE_INFINITY) {
                ctl_error("--%s=%s: not a %s", s->name, s->value,
                          s->type == 't' ? "time like 20 (seconds), 100ms or 5min" : "number");
                return CTL_USAGE;
        }
        if (s->type == 't')
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

static int append_options(sd_bus_message *m, const struct ctl *c) {
        uint64_t value;
        int r = sd_bus_message_open_container(m, SD_BUS_TYPE_ARRAY, "{sv}");

        for (unsigned i = 0; r >= 0 && i < c->n_settings; i++) {
                const struct ctl_setting *s = &c->settings[i];

                if (parse_option(s, &value) != CTL_OK)
                        return -EINVAL;
                r = s->type == 'u' ? sd_bus_message_append(m, "{sv}", s->name, "u", (uint32_t)value)
                                   : sd_bus_message_append(m, "{sv}", s->name, "t", value);
        }
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
