/* Typed arguments and results as the SDK gives and takes them. Owns the letters for types in the host table (those of
 * D-Bus for single values, their capitals for arrays) and the conversion between MessagePack and C.
 *
 * Arguments are read from the job's private, checked copy; strings are copied once more, because C wants a 0 at the
 * end. Memory is the job's: it ends when the handler returns. Results go straight into the result area; whether they
 * are what the signature says is checked there, at the end (job.c). */
#include <errno.h>
#include <string.h>

#include "ipc/memory/sealed.h"
#include "plugins/host/job/job.h"

struct value_type {
        enum schema_type schema;
        size_t bytes; /* of an element in an array */
        bool is_array;
};

/* 0 if there is no such letter. */
static struct value_type value_type(char letter) {
        switch (letter) {
        case 't':
        case 'T':
                return (struct value_type){SCHEMA_U64, sizeof(uint64_t), letter == 'T'};
        case 'x':
        case 'X':
                return (struct value_type){SCHEMA_I64, sizeof(int64_t), letter == 'X'};
        case 'd':
        case 'D':
                return (struct value_type){SCHEMA_F64, sizeof(double), letter == 'D'};
        case 'b':
        case 'B':
                return (struct value_type){SCHEMA_BOOL, sizeof(bool), letter == 'B'};
        case 's':
        case 'S':
                return (struct value_type){SCHEMA_STR, sizeof(char *), letter == 'S'};
        case 'y':
                return (struct value_type){SCHEMA_BYTES, 0, false};
        case 'h':
                return (struct value_type){SCHEMA_FD, sizeof(int), false};
        default:
                return (struct value_type){0};
        }
}

/* ---- arguments ---- */

/* Stores one value the way C has it. */
static int give(const drover_job *j, const struct args_value *v, void *ret) {
        char *text;
        switch (v->type) {
        case SCHEMA_U64:
                *(uint64_t *)ret = v->u64;
                return 0;
        case SCHEMA_I64:
                *(int64_t *)ret = v->i64;
                return 0;
        case SCHEMA_F64:
                *(double *)ret = v->f64;
                return 0;
        case SCHEMA_BOOL:
                *(bool *)ret = v->boolean;
                return 0;
        case SCHEMA_STR:
                text = job_alloc(j, v->bytes + 1);
                if (!text)
                        return -ENOMEM;
                memcpy(text, v->data, v->bytes);
                text[v->bytes] = 0;
                *(const char **)ret = text;
                return 0;
        case SCHEMA_BYTES:
                *(const void **)ret = v->data;
                return 0;
        case SCHEMA_FD:
                *(int *)ret = job_fds_get(j, v->u64);
                return 0;
        }
        return -EINVAL;
}

static int give_array(const drover_job *j, const char *name, const struct value_type *t, void *ret, size_t *ret_n) {
        uint32_t n;
        int r = args_array_length(j->payload, j->payload_bytes, name, &n);
        if (r < 0)
                return r;
        struct args_value *values = job_alloc(j, n * sizeof *values);
        uint8_t *array = job_alloc(j, n * t->bytes);
        if (!values || !array)
                return -ENOMEM;
        r = args_get_array(j->payload, j->payload_bytes, name, t->schema, values, n);
        for (uint32_t i = 0; i < n && r >= 0; i++)
                r = give(j, &values[i], array + i * t->bytes);
        if (r < 0)
                return r;
        *(const void **)ret = array;
        *ret_n = n;
        return 0;
}

int job_arg_get(const drover_job *j, const char *name, char type, void *ret, size_t *ret_size) {
        const struct value_type t = value_type(type);
        if (j->schema->args.is_raw)
                return -EOPNOTSUPP;
        const struct schema_field *f = schema_find_field(&j->schema->args, name);
        if (!f)
                return -ENOENT;
        if (f->type != t.schema || f->is_array != t.is_array)
                return -EINVAL;
        size_t size;
        if (t.is_array)
                return give_array(j, name, &t, ret, ret_size ? ret_size : &size);

        struct args_value v;
        int r = args_get(j->payload, j->payload_bytes, name, t.schema, &v);
        if (r >= 0)
                r = give(j, &v, ret);
        if (r >= 0 && ret_size && (t.schema == SCHEMA_STR || t.schema == SCHEMA_BYTES))
                *ret_size = v.bytes;
        return r;
}

/* ---- results ---- */

static struct args_value take(const struct value_type *t, const void *value, size_t size) {
        struct args_value v = {.type = t->schema};
        switch (t->schema) {
        case SCHEMA_U64:
                v.u64 = *(const uint64_t *)value;
                break;
        case SCHEMA_I64:
                v.i64 = *(const int64_t *)value;
                break;
        case SCHEMA_F64:
                v.f64 = *(const double *)value;
                break;
        case SCHEMA_BOOL:
                v.boolean = *(const bool *)value;
                break;
        case SCHEMA_STR:
        case SCHEMA_BYTES:
                v.data = value;
                v.bytes = t->schema == SCHEMA_STR && size == SIZE_MAX ? strlen(value) : size;
                break;
        case SCHEMA_FD:
                break;
        }
        return v;
}

enum { VALUE_HEAD_BYTES = 12 }; /* more than a number takes, or the head of a text and of the map */

/* Room for one field more, of at most so many bytes without its name. */
static int make_room(drover_job *j, const char *name, size_t bytes) {
        int r = job_grow_result(j, j->writer.bytes, bytes + strlen(name) + 2 * VALUE_HEAD_BYTES);
        if (r < 0)
                return j->writer.error = j->writer.error < 0 ? j->writer.error : r;
        if (j->out != j->writer.buffer) {
                j->writer.buffer = j->out;
                j->writer.capacity = j->big_bytes;
        }
        return 0;
}

static int take_array(drover_job *j, const char *name, const struct value_type *t, const void *array, size_t n) {
        size_t bytes = 0;
        if (n > SEALED_MAX_BYTES / VALUE_HEAD_BYTES)
                return j->writer.error = -EMSGSIZE;
        struct args_value *values = job_alloc(j, n * sizeof *values);
        if (!values)
                return -ENOMEM;
        for (size_t i = 0; i < n; i++) {
                const void *element = (const uint8_t *)array + i * t->bytes;
                values[i] = take(t, t->schema == SCHEMA_STR ? *(const char *const *)element : element, SIZE_MAX);
                bytes += VALUE_HEAD_BYTES + (t->schema == SCHEMA_STR ? values[i].bytes : 0);
        }
        int r = make_room(j, name, bytes);
        return r < 0 ? r : args_put_array(&j->writer, name, values, n);
}

int job_ret_set(drover_job *j, const char *name, char type, const void *value, size_t size) {
        const struct value_type t = value_type(type);
        if (j->schema->result.is_raw)
                return -EOPNOTSUPP;
        if (!t.schema || !name || (!value && size > 0))
                return -EINVAL;
        if (t.is_array)
                return take_array(j, name, &t, value, size);
        struct args_value v = take(&t, value, size);
        int r = t.schema == SCHEMA_FD ? job_fds_add(j, *(const int *)value, &v.u64) : 0;
        if (r >= 0)
                r = make_room(j, name, t.schema == SCHEMA_STR || t.schema == SCHEMA_BYTES ? v.bytes : 0);
        return r < 0 ? r : args_put(&j->writer, name, &v);
}
