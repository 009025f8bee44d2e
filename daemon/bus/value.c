/* From D-Bus variants to the MessagePack map of a job, and back (ipc/values/variants.c).
 *
 * The schema decides. A number may come in any D-Bus integer type if its value fits, because callers of dynamic
 * languages cannot choose theirs; a string is never parsed. Every field must be there once and nothing else may be.
 * What goes wrong is told by name, with the type that was expected. The scratch grows to the largest call and stays. */
#include "daemon/bus/value.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/values/variants.h"

enum {
        VALUE_MAX_RESULT = 16 << 20,
        VALUE_MAX_MESSAGE = 31 << 20, /* a system bus cuts off who sends it more than 32 MiB in one */
};

struct reading {
        struct bus_scratch *scratch;
        sd_bus_message *message;
        const struct schema_job *job;
        struct args_writer writer;
        size_t limit;
        sd_bus_error *error;
};

void value_scratch_free(struct bus_scratch *s) {
        free(s->map);
        free(s->values);
        *s = (struct bus_scratch){};
}

static int scratch_reserve_map(struct bus_scratch *s, size_t bytes) {
        void *map;

        if (bytes <= s->map_bytes)
                return 0;
        map = realloc(s->map, bytes);
        if (!map)
                return -ENOMEM;
        s->map = map;
        s->map_bytes = bytes;
        return 0;
}

static int scratch_reserve_values(struct bus_scratch *s, size_t n) {
        struct args_value *values;

        if (n <= s->n_values)
                return 0;
        n = n < 64 ? 64 : 2 * n;
        values = reallocarray(s->values, n, sizeof(*values));
        if (!values)
                return -ENOMEM;
        s->values = values;
        s->n_values = n;
        return 0;
}

/* ---- numbers ---- */

/* 1 and the value for an integer type, 0 for another type. */
static int read_integer(sd_bus_message *m, char type, __int128 *ret) {
        union {
                uint8_t y;
                int16_t n;
                uint16_t q;
                int32_t i;
                uint32_t u;
                int64_t x;
                uint64_t t;
        } v;
        int r;

        if (!strchr("ynqiuxt", type))
                return 0;
        r = sd_bus_message_read_basic(m, type, &v);
        if (r < 0)
                return r;
        switch (type) {
        case 'y':
                *ret = v.y;
                break;
        case 'n':
                *ret = v.n;
                break;
        case 'q':
                *ret = v.q;
                break;
        case 'i':
                *ret = v.i;
                break;
        case 'u':
                *ret = v.u;
                break;
        case 'x':
                *ret = v.x;
                break;
        default:
                *ret = v.t;
        }
        return 1;
}

int value_read_number(sd_bus_message *m, const char *name, uint64_t minimum, uint64_t maximum, uint64_t *ret,
                      sd_bus_error *e) {
        const char *contents;
        __int128 n;
        char type;
        int r;

        r = sd_bus_message_peek_type(m, &type, &contents);
        if (r < 0)
                return r;
        if (type != 'v' || strlen(contents) != 1 || !strchr("ynqiuxt", contents[0]))
                return bus_invalid(e, "%s must be a number, not of D-Bus type \"%s\"", name,
                                   type == 'v' ? contents : "?");
        r = sd_bus_message_enter_container(m, 'v', contents);
        if (r >= 0)
                r = read_integer(m, contents[0], &n);
        if (r < 0)
                return r;
        if (n < (__int128)minimum || n > (__int128)maximum)
                return bus_invalid(e, "%s=%s%llu is not in the range of %llu to %llu", name, n < 0 ? "-" : "",
                                   (unsigned long long)(n < 0 ? -n : n), (unsigned long long)minimum,
                                   (unsigned long long)maximum);
        *ret = (uint64_t)n;
        return sd_bus_message_exit_container(m);
}

int value_read_cursor(const char *text, uint64_t maximum, uint64_t *ret, sd_bus_error *e) {
        char *end;

        *ret = 0;
        if (text[0] == '\0')
                return 0;
        errno = 0;
        *ret = strtoull(text, &end, 10);
        if (errno || *end || text[0] < '0' || text[0] > '9' || *ret > maximum)
                return bus_invalid(e, "cursor \"%.40s\": start with \"\", go on with what the last page gave", text);
        return 0;
}

/* ---- arguments ---- */

static int wrong_type(struct reading *r, const struct schema_field *f, const char *contents) {
        return bus_invalid(r->error, "argument \"%s\" of job %s must be %s, not of D-Bus type \"%s\"", f->name,
                           r->job->name, schema_type_name(f->type, f->is_array), contents);
}

static int out_of_range(struct reading *r, const struct schema_field *f, __int128 n) {
        return bus_invalid(r->error, "argument \"%s\" of job %s is out of range: %s%llu is no %s", f->name,
                           r->job->name, n < 0 ? "-" : "", (unsigned long long)(n < 0 ? -n : n),
                           schema_type_name(f->type, false));
}

/* `bytes` is all of them, or less where `word` says so. */
static int too_large(struct reading *r, const char *word, size_t bytes) {
        return bus_invalid(
                r->error,
                "the arguments of job %s take %s%zu bytes, over the pool's SlotSize=%zu: make it larger (%d at "
                "most), or submit the job through a channel (libdrover, without an option for the bus)",
                r->job->name, word, bytes, r->limit, LAYOUT_MAX_SLOT_BYTES);
}

static int set_integer(struct reading *r, const struct schema_field *f, __int128 n, struct args_value *ret) {
        if (f->type == SCHEMA_U64) {
                if (n < 0)
                        return out_of_range(r, f, n);
                ret->u64 = (uint64_t)n;
        } else if (f->type == SCHEMA_I64) {
                if (n > INT64_MAX)
                        return out_of_range(r, f, n);
                ret->i64 = (int64_t)n;
        } else {
                ret->f64 = (double)n;
                if ((__int128)ret->f64 != n)
                        return out_of_range(r, f, n);
        }
        return 1;
}

/* The message's, by its number among the job's. */
static int read_fd(struct reading *r, struct args_value *ret) {
        struct bus_scratch *s = r->scratch;
        int k;

        k = sd_bus_message_read_basic(r->message, 'h', &s->fds[s->n_fds]);
        if (k > 0)
                ret->u64 = s->n_fds++;
        return k;
}

/* One value of D-Bus type `type` at the message's place. 1, 0 = the type does not fit. */
static int read_value(struct reading *r, const struct schema_field *f, char type, struct args_value *ret) {
        sd_bus_message *m = r->message;
        __int128 n;
        int k, b;

        ret->type = f->type;
        switch (f->type) {
        case SCHEMA_U64:
        case SCHEMA_I64:
                k = read_integer(m, type, &n);
                return k <= 0 ? k : set_integer(r, f, n, ret);
        case SCHEMA_F64:
                if (type == 'd')
                        return sd_bus_message_read_basic(m, 'd', &ret->f64);
                k = read_integer(m, type, &n);
                return k <= 0 ? k : set_integer(r, f, n, ret);
        case SCHEMA_BOOL:
                if (type != 'b')
                        return 0;
                k = sd_bus_message_read_basic(m, 'b', &b);
                ret->boolean = b;
                return k;
        case SCHEMA_STR:
                if (type != 's')
                        return 0;
                k = sd_bus_message_read_basic(m, 's', &ret->data);
                if (k > 0)
                        ret->bytes = strlen(ret->data);
                return k;
        case SCHEMA_BYTES:
                return 0; /* not a basic type */
        case SCHEMA_FD:
                return type == 'h' ? read_fd(r, ret) : 0;
        }
        return 0;
}

static int read_array(struct reading *r, const struct schema_field *f, const char *contents) {
        struct args_value v;
        size_t n = 0;
        int k;

        if (contents[0] != 'a' || strlen(contents) != 2 || !strchr("ynqiuxtbds", contents[1]))
                return wrong_type(r, f, contents);
        k = sd_bus_message_enter_container(r->message, 'a', contents + 1);
        if (k < 0)
                return k;
        while ((k = sd_bus_message_at_end(r->message, false)) == 0) {
                if (n >= r->limit) /* a value takes a byte at least */
                        return too_large(r, "more than ", n);
                k = read_value(r, f, contents[1], &v);
                if (k == 0)
                        return wrong_type(r, f, contents);
                if (k > 0)
                        k = scratch_reserve_values(r->scratch, n + 1);
                if (k < 0)
                        return k;
                r->scratch->values[n++] = v;
        }
        if (k < 0)
                return k;
        args_put_array(&r->writer, f->name, r->scratch->values, n);
        return sd_bus_message_exit_container(r->message);
}

static int read_field(struct reading *r, const struct schema_field *f) {
        struct args_value v = {.type = f->type};
        const char *contents;
        const void *data;
        char type;
        int k;

        k = sd_bus_message_peek_type(r->message, &type, &contents);
        if (k >= 0)
                k = sd_bus_message_enter_container(r->message, 'v', contents);
        if (k < 0)
                return k;
        if (f->is_array)
                k = read_array(r, f, contents);
        else if (f->type == SCHEMA_BYTES) {
                if (strcmp(contents, "ay") != 0)
                        return wrong_type(r, f, contents);
                k = sd_bus_message_read_array(r->message, 'y', &data, &v.bytes);
                v.data = data;
        } else {
                k = strlen(contents) == 1 ? read_value(r, f, contents[0], &v) : 0;
                if (k == 0)
                        return wrong_type(r, f, contents);
        }
        if (k < 0)
                return k;
        if (!f->is_array)
                args_put(&r->writer, f->name, &v);
        return sd_bus_message_exit_container(r->message);
}

static int unknown_argument(struct reading *r, const char *name) {
        const struct schema_fields *f = &r->job->args;
        char known[300] = "";
        size_t n = 0;

        for (uint32_t i = 0; i < f->n_fields && n + SCHEMA_MAX_NAME + 20 < sizeof(known); i++)
                n += (size_t)snprintf(known + n, sizeof(known) - n, "%s%s:%s", i ? ", " : "", f->field[i].name,
                                      schema_type_name(f->field[i].type, f->field[i].is_array));
        return bus_invalid(r->error, "job %s has no argument \"%.64s\"; it takes %s", r->job->name, name,
                           n ? known : "none");
}

static int read_fields(struct reading *r) {
        const struct schema_fields *fields = &r->job->args;
        const struct schema_field *f;
        uint32_t seen = 0;
        const char *name;
        int k;

        while ((k = sd_bus_message_enter_container(r->message, 'e', "sv")) > 0) {
                k = sd_bus_message_read_basic(r->message, 's', &name);
                if (k < 0)
                        return k;
                f = schema_find_field(fields, name);
                if (!f)
                        return unknown_argument(r, name);
                if (seen & 1u << (f - fields->field))
                        return bus_invalid(r->error, "argument \"%s\" of job %s is given twice", name, r->job->name);
                seen |= 1u << (f - fields->field);
                k = read_field(r, f);
                if (k >= 0)
                        k = sd_bus_message_exit_container(r->message);
                if (k < 0)
                        return k;
        }
        for (uint32_t i = 0; i < fields->n_fields && k >= 0; i++)
                if (!(seen & 1u << i))
                        return bus_invalid(r->error, "argument \"%s\" (%s) of job %s is missing", fields->field[i].name,
                                           schema_type_name(fields->field[i].type, fields->field[i].is_array),
                                           r->job->name);
        return k;
}

/* {"payload": ay} or {"payload": h}, nothing else. */
static int read_raw(struct reading *r, size_t limit, const void **ret, size_t *ret_bytes) {
        sd_bus_message *m = r->message;
        const char *name, *contents;
        char type;
        int k;

        k = sd_bus_message_enter_container(m, 'e', "sv");
        if (k == 0)
                return bus_invalid(r->error, "job %s is raw: its argument \"payload\" (ay) is missing", r->job->name);
        if (k > 0)
                k = sd_bus_message_read_basic(m, 's', &name);
        if (k >= 0 && strcmp(name, "payload") != 0)
                return bus_invalid(r->error, "job %s is raw: it has no argument \"%.64s\", only \"payload\" (ay)",
                                   r->job->name, name);
        if (k >= 0)
                k = sd_bus_message_peek_type(m, &type, &contents);
        if (k >= 0)
                k = sd_bus_message_enter_container(m, 'v', contents);
        if (k < 0)
                return k;
        *ret = "";
        *ret_bytes = 0;
        if (strcmp(contents, "h") == 0)
                k = sd_bus_message_read_basic(m, 'h', &r->scratch->payload_fd);
        else if (strcmp(contents, "ay") == 0)
                k = sd_bus_message_read_array(m, 'y', ret, ret_bytes);
        else
                return bus_invalid(
                        r->error,
                        "\"payload\" of job %s must be bytes (ay) or a memory file (h), not of D-Bus type \"%s\"",
                        r->job->name, contents);
        if (k < 0)
                return k;
        if (*ret_bytes > limit)
                return bus_invalid(
                        r->error,
                        "\"payload\" of job %s has %zu bytes, over the pool's SlotSize=%zu: send a sealed memory "
                        "file (h)",
                        r->job->name, *ret_bytes, limit);
        sd_bus_message_exit_container(m);
        sd_bus_message_exit_container(m);
        if (sd_bus_message_at_end(m, false) == 0)
                return bus_invalid(r->error, "job %s is raw: it takes \"payload\" and nothing else", r->job->name);
        return 0;
}

int value_read_args(struct bus_scratch *s, sd_bus_message *m, const struct schema_job *job, size_t limit,
                    const void **ret_map, size_t *ret_bytes, sd_bus_error *e) {
        struct reading r = {.scratch = s, .message = m, .job = job, .limit = limit, .error = e};
        int k;

        s->n_fds = 0;
        s->payload_fd = -1;

        k = sd_bus_message_enter_container(m, 'a', "{sv}");
        if (k < 0)
                return k;
        if (job->args.is_raw) {
                k = read_raw(&r, limit, ret_map, ret_bytes);
                return k < 0 ? k : sd_bus_message_exit_container(m);
        }
        k = scratch_reserve_map(s, limit);
        if (k < 0)
                return k;
        args_writer_init(&r.writer, s->map, limit);
        k = read_fields(&r);
        if (k < 0)
                return k;
        k = args_finish(&r.writer, ret_bytes);
        if (k == -EMSGSIZE)
                return too_large(&r, "", args_wanted(&r.writer));
        if (k < 0)
                return k;
        *ret_map = s->map;
        return sd_bus_message_exit_container(m);
}

int value_enter_variant(sd_bus_message *m, const char *what, const char *contents, sd_bus_error *e) {
        const char *found;
        char type;
        int r;

        r = sd_bus_message_peek_type(m, &type, &found);
        if (r < 0)
                return r;
        if (strcmp(found, contents) != 0)
                return bus_invalid(e, "%s must be of D-Bus type \"%s\", not \"%s\"", what, contents, found);
        return sd_bus_message_enter_container(m, 'v', contents);
}

int value_append_result(sd_bus_message *reply, const struct schema_fields *fields, const void *map, size_t bytes,
                        const struct variants_fds *fds, sd_bus_error *e) {
        const char *bad;
        int r;

        if (bytes > VALUE_MAX_RESULT && !(fds && fds->payload_fd >= 0 && fields->is_raw))
                return sd_bus_error_setf(
                        e, SD_BUS_ERROR_LIMITS_EXCEEDED,
                        "the typed result of %zu bytes is more than the bus carries, %d bytes: a channel "
                        "hands over a larger one",
                        bytes, VALUE_MAX_RESULT);
        if (bytes > VALUE_MAX_MESSAGE / 8 && fields && !fields->is_raw &&
            variants_length(map, bytes) > VALUE_MAX_MESSAGE)
                return sd_bus_error_setf(
                        e, SD_BUS_ERROR_LIMITS_EXCEEDED,
                        "the typed result of %zu bytes would be a message of more than %d bytes, which "
                        "a bus does not carry: a channel hands it over",
                        bytes, VALUE_MAX_MESSAGE);
        r = variants_append(reply, fields, map, bytes, fds, &bad);
        if (r == -EILSEQ)
                return sd_bus_error_setf(e, "org.drover1.Error.Failed",
                                         "the result's string \"%s\" holds a zero byte, which the bus cannot carry",
                                         bad);
        return r;
}
