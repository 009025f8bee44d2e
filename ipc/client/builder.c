/* Arguments in the making: a MessagePack map in a buffer that grows, or the bytes of a raw job; and descriptors.
 *
 * Room for a field is made before it is written, from an upper bound of its length, so that the writer never runs out
 * of it; the first error sticks, with its text, which submitting tells. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ipc/client/library.h"
#include "ipc/memory/sealed.h"

enum {
        BUILDER_FIRST = 256,
        BUILDER_MAP_BYTES = 3,
        BUILDER_HEAD_BYTES = 5, /* of a str, bin or array */
        BUILDER_NUMBER_BYTES = 9,
        BUILDER_LARGEST = 1 << 30,
};

void builder_init(drover_args *args) { *args = (drover_args){0}; }

static void builder_close(drover_args *args) {
        for (unsigned i = 0; i < args->n_fds; i++)
                own_fd_close(&args->own[i]);
        args->n_fds = 0;
        if (args->has_payload_fd)
                own_fd_close(&args->own[SCHEMA_MAX_FDS]);
        args->has_payload_fd = false;
}

void builder_deinit(drover_args *args) {
        builder_close(args);
        free(args->why);
        free(args->buffer);
}

int drover_args_new(drover_args **ret_args) {
        drover_args *args = malloc(sizeof *args);
        if (!args)
                return -ENOMEM;
        builder_init(args);
        *ret_args = args;
        return 0;
}

drover_args *drover_args_free(drover_args *args) {
        if (args && args->is_lent) {
                drover_args_reset(args);
                return NULL;
        }
        if (args)
                builder_deinit(args);
        free(args);
        return NULL;
}

void drover_args_reset(drover_args *args) {
        builder_close(args);
        args->bytes = 0;
        args->is_raw = args->is_complete = false;
        args->error = 0;
        free(args->why);
        args->why = NULL;
        args->writer = (struct args_writer){0};
}

/* `name` is the field's, or NULL: the payload. Only the first one counts. */
__attribute__((format(printf, 4, 5))) static int builder_fail(drover_args *args, int error, const char *name,
                                                              const char *format, ...) {
        char reason[128];
        va_list ap;
        if (args->error < 0)
                return args->error;
        args->error = error;
        va_start(ap, format);
        vsnprintf(reason, sizeof reason, format, ap);
        va_end(ap);
        if (asprintf(&args->why, name ? "argument \"%.64s\": %s" : "%s%s", name ? name : "", reason) < 0)
                args->why = NULL;
        return error;
}

const char *builder_why(const drover_args *args) { return args->why ? args->why : strerror(-args->error); }

static int builder_is_null(drover_args *args, const char *name, size_t n) {
        return builder_fail(args, -EINVAL, name, "it is NULL, but its size is %zu", n);
}

static int builder_too_large(drover_args *args, const char *name) {
        return builder_fail(args, -EMSGSIZE, name, "more than %d bytes in all", BUILDER_LARGEST);
}

static int builder_no_memory(drover_args *args, const char *name) {
        return builder_fail(args, -ENOMEM, name, "out of memory");
}

/* Room for `bytes` more behind `used`. */
static int builder_reserve(drover_args *args, const char *name, size_t used, size_t bytes) {
        if (bytes > BUILDER_LARGEST || used > BUILDER_LARGEST)
                return builder_too_large(args, name);
        if (args->capacity >= used + bytes)
                return 0;
        size_t capacity = args->capacity ? 2 * args->capacity : BUILDER_FIRST;
        if (capacity < used + bytes)
                capacity = used + bytes;
        uint8_t *buffer = realloc(args->buffer, capacity);
        if (!buffer)
                return builder_no_memory(args, name);
        args->buffer = buffer;
        args->capacity = capacity;
        return 0;
}

/* Ready for one field that takes at most `bytes` without its name. */
static int builder_begin(drover_args *args, const char *name, size_t bytes) {
        if (args->error < 0)
                return args->error;
        if (!name)
                return builder_fail(args, -EINVAL, NULL, "the name of an argument is NULL");
        if (args->is_raw)
                return builder_fail(args, -EINVAL, name, "there is a raw payload already");
        if (args->is_complete)
                return builder_fail(args, -EINVAL, name, "they were submitted: drover_args_reset() comes first");
        bool is_first = args->writer.n_fields == 0;
        size_t used = is_first ? BUILDER_MAP_BYTES : args->writer.bytes + BUILDER_MAP_BYTES;
        int r = builder_reserve(args, name, used, bytes + BUILDER_HEAD_BYTES + strlen(name));
        if (r < 0)
                return r;
        if (is_first)
                args_writer_init(&args->writer, args->buffer, args->capacity);
        args->writer.buffer = args->buffer;
        args->writer.capacity = args->capacity;
        return 0;
}

/* What the writer said of a field. */
static int builder_written(drover_args *args, const char *name, int r) {
        if (r == -E2BIG)
                return builder_fail(args, r, name, "more than %d arguments", SCHEMA_MAX_FIELDS);
        return r < 0 ? builder_fail(args, r, name, "%s", strerror(-r)) : 0;
}

static int builder_put(drover_args *args, const char *name, const struct args_value *v) {
        size_t bytes = v->type == SCHEMA_STR || v->type == SCHEMA_BYTES ? v->bytes : 0;
        if (bytes > 0 && !v->data)
                return builder_is_null(args, name, bytes);
        if (bytes > BUILDER_LARGEST)
                return builder_too_large(args, name);
        int r = builder_begin(args, name, BUILDER_NUMBER_BYTES + bytes);
        return r < 0 ? r : builder_written(args, name, args_put(&args->writer, name, v));
}

int drover_args_u64(drover_args *args, const char *name, uint64_t value) {
        return builder_put(args, name, &(struct args_value){.type = SCHEMA_U64, .u64 = value});
}

int drover_args_i64(drover_args *args, const char *name, int64_t value) {
        return builder_put(args, name, &(struct args_value){.type = SCHEMA_I64, .i64 = value});
}

int drover_args_f64(drover_args *args, const char *name, double value) {
        return builder_put(args, name, &(struct args_value){.type = SCHEMA_F64, .f64 = value});
}

int drover_args_bool(drover_args *args, const char *name, bool value) {
        return builder_put(args, name, &(struct args_value){.type = SCHEMA_BOOL, .boolean = value});
}

int drover_args_str(drover_args *args, const char *name, const char *text) {
        return text ? drover_args_str_sized(args, name, text, strlen(text))
                    : builder_fail(args, -EINVAL, name, "its text is NULL");
}

int drover_args_str_sized(drover_args *args, const char *name, const char *text, size_t bytes) {
        return builder_put(args, name, &(struct args_value){.type = SCHEMA_STR, .data = text, .bytes = bytes});
}

int drover_args_bytes(drover_args *args, const char *name, const void *data, size_t bytes) {
        return builder_put(args, name, &(struct args_value){.type = SCHEMA_BYTES, .data = data, .bytes = bytes});
}

/* Its own duplicate, so that the caller's may be closed. */
static int builder_dup(drover_args *args, const char *name, int fd, int *ret) {
        int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (copy < 0)
                return builder_fail(args, -errno, name, "descriptor %d: %s", fd, strerror(errno));
        *ret = copy;
        return 0;
}

int drover_args_fd(drover_args *args, const char *name, int fd) {
        if (args->n_fds == SCHEMA_MAX_FDS)
                return builder_fail(args, -EINVAL, name, "more than %d descriptors", SCHEMA_MAX_FDS);
        int r = builder_put(args, name, &(struct args_value){.type = SCHEMA_FD, .u64 = args->n_fds});
        if (r >= 0)
                r = builder_dup(args, name, fd, &args->fds[args->n_fds]);
        if (r >= 0)
                own_fd_init(&args->own[args->n_fds], args->fds[args->n_fds]);
        if (r >= 0)
                args->n_fds++;
        return r;
}

/* ---- arrays ---- */

/* Element i of a C array of this type. -EINVAL: a text that is NULL. */
static int builder_element(enum schema_type type, const void *values, size_t i, struct args_value *ret) {
        const char *text;
        *ret = (struct args_value){.type = type};
        switch (type) {
        case SCHEMA_U64:
                ret->u64 = ((const uint64_t *)values)[i];
                return 0;
        case SCHEMA_I64:
                ret->i64 = ((const int64_t *)values)[i];
                return 0;
        case SCHEMA_F64:
                ret->f64 = ((const double *)values)[i];
                return 0;
        case SCHEMA_BOOL:
                ret->boolean = ((const bool *)values)[i];
                return 0;
        case SCHEMA_STR:
                text = ((const char *const *)values)[i];
                ret->data = text;
                ret->bytes = text ? strlen(text) : 0;
                return text ? 0 : -EINVAL;
        case SCHEMA_BYTES:
        case SCHEMA_FD:
                return -EINVAL;
        }
        return -EINVAL;
}

static int builder_put_array(drover_args *args, const char *name, enum schema_type type, const void *values, size_t n) {
        if (n > BUILDER_LARGEST / sizeof(struct args_value))
                return builder_too_large(args, name);
        struct args_value *v = calloc(n + 1, sizeof *v);
        size_t bytes = BUILDER_HEAD_BYTES + n * BUILDER_NUMBER_BYTES;
        int r = v ? 0 : builder_no_memory(args, name);
        if (r >= 0 && n > 0 && !values)
                r = builder_is_null(args, name, n);
        for (size_t i = 0; i < n && r >= 0; i++) {
                if (builder_element(type, values, i, &v[i]) < 0)
                        r = builder_fail(args, -EINVAL, name, "text %zu is NULL", i);
                if (type == SCHEMA_STR)
                        bytes += v[i].bytes;
        }
        if (r >= 0)
                r = builder_begin(args, name, bytes);
        if (r >= 0)
                r = builder_written(args, name, args_put_array(&args->writer, name, v, n));
        free(v);
        return r;
}

int drover_args_u64_array(drover_args *args, const char *name, const uint64_t *values, size_t n) {
        return builder_put_array(args, name, SCHEMA_U64, values, n);
}

int drover_args_i64_array(drover_args *args, const char *name, const int64_t *values, size_t n) {
        return builder_put_array(args, name, SCHEMA_I64, values, n);
}

int drover_args_f64_array(drover_args *args, const char *name, const double *values, size_t n) {
        return builder_put_array(args, name, SCHEMA_F64, values, n);
}

int drover_args_bool_array(drover_args *args, const char *name, const bool *values, size_t n) {
        return builder_put_array(args, name, SCHEMA_BOOL, values, n);
}

int drover_args_str_array(drover_args *args, const char *name, const char *const *texts, size_t n) {
        return builder_put_array(args, name, SCHEMA_STR, texts, n);
}

/* ---- the whole ---- */

static int builder_not_raw(drover_args *args) {
        return builder_fail(args, -EINVAL, NULL, "a raw payload is all there is, and there is something already");
}

int drover_args_raw(drover_args *args, const void *data, size_t bytes) {
        if (args->error < 0)
                return args->error;
        if (args->writer.n_fields > 0 || args->has_payload_fd)
                return builder_not_raw(args);
        if (bytes > 0 && !data)
                return builder_is_null(args, "payload", bytes);
        int r = builder_reserve(args, NULL, 0, bytes);
        if (r < 0)
                return r;
        if (bytes > 0)
                memcpy(args->buffer, data, bytes);
        args->is_raw = true;
        args->bytes = bytes;
        return 0;
}

int drover_args_raw_fd(drover_args *args, int fd) {
        uint64_t bytes;
        if (args->error < 0)
                return args->error;
        if (args->writer.n_fields > 0 || args->has_payload_fd)
                return builder_not_raw(args);
        int r = sealed_check(fd, &bytes);
        if (r < 0)
                return builder_fail(args, -EINVAL, NULL, "descriptor %d is no sealed memory file of 1 byte to 1 GiB",
                                    fd);
        r = builder_dup(args, NULL, fd, &args->payload_fd);
        if (r < 0)
                return r;
        own_fd_init(&args->own[SCHEMA_MAX_FDS], args->payload_fd);
        args->has_payload_fd = args->is_raw = true;
        args->bytes = 0;
        return 0;
}

int builder_complete(drover_args *args, const void **ret_payload, size_t *ret_bytes) {
        if (args->error < 0)
                return args->error;
        if (!args->is_raw && !args->is_complete && args->writer.n_fields > 0) {
                int r = args_finish(&args->writer, &args->bytes);
                if (r < 0)
                        return builder_fail(args, r, NULL, "%s", strerror(-r));
        }
        args->is_complete = true;
        *ret_payload = args->buffer;
        *ret_bytes = args->bytes;
        return 0;
}

static int builder_put_next(drover_args *args, const struct schema_field *f, va_list *ap) {
        if (f->is_array) {
                const void *values = va_arg(*ap, const void *);
                return builder_put_array(args, f->name, f->type, values, va_arg(*ap, size_t));
        }
        struct args_value v = {.type = f->type};
        switch (f->type) {
        case SCHEMA_U64:
                v.u64 = va_arg(*ap, uint64_t);
                break;
        case SCHEMA_I64:
                v.i64 = va_arg(*ap, int64_t);
                break;
        case SCHEMA_F64:
                v.f64 = va_arg(*ap, double);
                break;
        case SCHEMA_BOOL:
                v.boolean = va_arg(*ap, int);
                break;
        case SCHEMA_STR:
                return drover_args_str(args, f->name, va_arg(*ap, const char *));
        case SCHEMA_BYTES:
                v.data = va_arg(*ap, const void *);
                v.bytes = va_arg(*ap, size_t);
                break;
        case SCHEMA_FD:
                return drover_args_fd(args, f->name, va_arg(*ap, int));
        }
        return builder_put(args, f->name, &v);
}

int builder_put_all(drover_args *args, const char *signature, va_list ap, char *error, size_t error_bytes) {
        struct schema_fields fields;
        int r = schema_parse_fields(signature ? signature : "", &fields, error, error_bytes);
        if (r < 0)
                return r;
        va_list list;
        va_copy(list, ap);
        if (fields.is_raw) {
                const void *data = va_arg(list, const void *);
                r = drover_args_raw(args, data, va_arg(list, size_t));
        }
        for (uint32_t i = 0; i < fields.n_fields && r >= 0; i++)
                r = builder_put_next(args, &fields.field[i], &list);
        va_end(list);
        if (r < 0)
                snprintf(error, error_bytes, "%s", builder_why(args));
        return r;
}
