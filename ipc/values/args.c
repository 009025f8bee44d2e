/* Typed arguments and results: one MessagePack map, written with libmsgpack, read with token.c.
 *
 * args_check is the gate: what passed it has each field of the schema once, with its type, and nothing else. The
 * getters stay safe on bytes that did not pass, or that changed since (shared memory): they take nothing on trust
 * either, they only give an answer that means less. Nothing is allocated; strings point into the map.
 *
 * The writer keeps one byte for the map's head and moves the rest by two if the map grows past 15 fields. */
#include <errno.h>
#include <msgpack/pack.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "ipc/values/args.h"
#include "ipc/values/token.h"
#include "ipc/values/utf8.h"

enum {
        ARGS_FIXMAP_MAX = 15,
        ARGS_SHOW = 64, /* characters of a foreign name in an error */
};

bool args_is_utf8(const char *s, size_t bytes) {
        for (size_t i = 0; i < bytes;) {
                size_t n = utf8_length(s + i, bytes - i);
                if (n == 0)
                        return false;
                i += n;
        }
        return true;
}

/* ---- writing ---- */

static int args_write(void *data, const char *bytes, size_t n) {
        struct args_writer *w = data;
        if (w->error < 0 && w->error != -EMSGSIZE)
                return -1;
        w->n_put += n;
        if (w->error < 0 || n > w->capacity - w->bytes) {
                w->error = -EMSGSIZE;
                return 0;
        }
        if (n > 0) /* nothing may be NULL */
                memcpy(w->buffer + w->bytes, bytes, n);
        w->bytes += n;
        return 0;
}

void args_writer_init(struct args_writer *w, void *buffer, size_t capacity) {
        *w = (struct args_writer){.buffer = buffer, .capacity = capacity, .bytes = 1};
        if (capacity < 1)
                w->error = -EMSGSIZE;
}

static msgpack_packer args_begin(struct args_writer *w, const char *name) {
        msgpack_packer pk;
        msgpack_packer_init(&pk, w, args_write);
        if (w->n_fields == SCHEMA_MAX_FIELDS && w->error == 0)
                w->error = -E2BIG;
        w->n_fields++;
        size_t n = strlen(name);
        msgpack_pack_str(&pk, n);
        msgpack_pack_str_body(&pk, name, n);
        return pk;
}

static void args_pack(struct args_writer *w, msgpack_packer *pk, const struct args_value *v) {
        switch (v->type) {
        case SCHEMA_U64:
        case SCHEMA_FD:
                msgpack_pack_uint64(pk, v->u64);
                return;
        case SCHEMA_I64:
                msgpack_pack_int64(pk, v->i64);
                return;
        case SCHEMA_F64:
                msgpack_pack_double(pk, v->f64);
                return;
        case SCHEMA_BOOL:
                if (v->boolean)
                        msgpack_pack_true(pk);
                else
                        msgpack_pack_false(pk);
                return;
        case SCHEMA_STR:
                msgpack_pack_str(pk, v->bytes);
                msgpack_pack_str_body(pk, v->data, v->bytes);
                return;
        case SCHEMA_BYTES:
                msgpack_pack_bin(pk, v->bytes);
                msgpack_pack_bin_body(pk, v->data, v->bytes);
                return;
        }
        if (w->error == 0)
                w->error = -EINVAL;
}

int args_put(struct args_writer *w, const char *name, const struct args_value *v) {
        msgpack_packer pk = args_begin(w, name);
        args_pack(w, &pk, v);
        return w->error;
}

int args_put_array(struct args_writer *w, const char *name, const struct args_value *v, size_t n) {
        msgpack_packer pk = args_begin(w, name);
        msgpack_pack_array(&pk, n);
        for (size_t i = 0; i < n && (w->error == 0 || w->error == -EMSGSIZE); i++)
                args_pack(w, &pk, &v[i]);
        return w->error;
}

size_t args_wanted(const struct args_writer *w) { return w->n_put + (w->n_fields <= ARGS_FIXMAP_MAX ? 1 : 3); }

int args_finish(struct args_writer *w, size_t *ret_bytes) {
        if (w->error < 0)
                return w->error;
        if (w->n_fields <= ARGS_FIXMAP_MAX)
                w->buffer[0] = (uint8_t)(0x80 | w->n_fields);
        else {
                if (w->capacity - w->bytes < 2)
                        return w->error = -EMSGSIZE;
                memmove(w->buffer + 3, w->buffer + 1, w->bytes - 1);
                w->buffer[0] = 0xde; /* map 16 */
                w->buffer[1] = (uint8_t)(w->n_fields >> 8);
                w->buffer[2] = (uint8_t)w->n_fields;
                w->bytes += 2;
        }
        *ret_bytes = w->bytes;
        return 0;
}

/* ---- checking ---- */

/* Where an error goes, and what it is about. */
struct args_report {
        char *error;
        size_t error_bytes;
        const char *noun;  /* "argument" or "result" */
        const char *field; /* a name of the schema's, or NULL */
        int64_t index;     /* of an array's element, or -1 */
};

__attribute__((format(printf, 2, 3))) static int args_error(const struct args_report *r, const char *format, ...) {
        if (r->error_bytes == 0)
                return -EINVAL;
        char where[SCHEMA_MAX_NAME + 64], what[256];
        if (r->field && r->index >= 0)
                snprintf(where, sizeof where, "%s \"%s\"[%lld]", r->noun, r->field, (long long)r->index);
        else if (r->field)
                snprintf(where, sizeof where, "%s \"%s\"", r->noun, r->field);
        else
                snprintf(where, sizeof where, "%ss", r->noun);
        va_list ap;
        va_start(ap, format);
        vsnprintf(what, sizeof what, format, ap);
        va_end(ap);
        snprintf(r->error, r->error_bytes, "%s: %s", where, what);
        return -EINVAL;
}

/* Is the token a value of this type? 0 and *ret, -EINVAL another type, -ERANGE. */
static int args_convert(const struct token *t, enum schema_type type, struct args_value *ret) {
        const uint64_t exact = UINT64_C(1) << 53; /* integers that a double holds exactly */
        struct args_value v = {.type = type};
        bool is_integer = t->type == TOKEN_UINT || t->type == TOKEN_INT;
        switch (type) {
        case SCHEMA_U64:
        case SCHEMA_FD:
                if (!is_integer)
                        return -EINVAL;
                if (t->type == TOKEN_INT || (type == SCHEMA_FD && t->u64 >= SCHEMA_MAX_FDS))
                        return -ERANGE;
                v.u64 = t->u64;
                break;
        case SCHEMA_I64:
                if (!is_integer)
                        return -EINVAL;
                if (t->type == TOKEN_UINT && t->u64 > INT64_MAX)
                        return -ERANGE;
                v.i64 = t->type == TOKEN_UINT ? (int64_t)t->u64 : t->i64;
                break;
        case SCHEMA_F64:
                if (t->type == TOKEN_FLOAT)
                        v.f64 = t->f64;
                else if (!is_integer)
                        return -EINVAL;
                else if (t->type == TOKEN_UINT ? t->u64 > exact : t->i64 < -(int64_t)exact)
                        return -ERANGE;
                else
                        v.f64 = t->type == TOKEN_UINT ? (double)t->u64 : (double)t->i64;
                break;
        case SCHEMA_BOOL:
                if (t->type != TOKEN_BOOL)
                        return -EINVAL;
                v.boolean = t->boolean;
                break;
        case SCHEMA_STR:
        case SCHEMA_BYTES:
                if (t->type != (type == SCHEMA_STR ? TOKEN_STR : TOKEN_BIN))
                        return -EINVAL;
                v.data = t->data;
                v.bytes = t->n;
                break;
        }
        *ret = v;
        return 0;
}

static int args_check_scalar(const struct args_report *report, const struct schema_field *field,
                             const struct token *t) {
        struct args_value v;
        int r = args_convert(t, field->type, &v);
        const char *expected = schema_type_name(field->type, false);
        if (r == -ERANGE && t->type == TOKEN_INT)
                return args_error(report, "%lld is out of range for %s", (long long)t->i64, expected);
        if (r == -ERANGE)
                return args_error(report, "%llu is out of range for %s", (unsigned long long)t->u64, expected);
        if (r < 0)
                return args_error(report, "expected %s, got %s", expected, token_name(t->type));
        if (field->type == SCHEMA_STR && !args_is_utf8(v.data, v.bytes))
                return args_error(report, "not valid UTF-8");
        return 0;
}

static int args_check_value(struct args_report *report, const struct schema_field *field, const uint8_t **p,
                            const uint8_t *end) {
        struct token t;
        if (token_next(p, end, &t) < 0)
                return args_error(report, "cut off or not MessagePack");
        if (!field->is_array)
                return args_check_scalar(report, field, &t);
        if (t.type != TOKEN_ARRAY)
                return args_error(report, "expected %s, got %s", schema_type_name(field->type, true),
                                  token_name(t.type));
        for (uint32_t i = 0, n = t.n; i < n; i++) {
                report->index = i;
                if (token_next(p, end, &t) < 0)
                        return args_error(report, "cut off or not MessagePack");
                int r = args_check_scalar(report, field, &t);
                if (r < 0)
                        return r;
        }
        report->index = -1;
        return 0;
}

static const struct schema_field *args_find_field(const struct schema_fields *f, const struct token *key) {
        for (uint32_t i = 0; i < f->n_fields; i++)
                if (strlen(f->field[i].name) == key->n && memcmp(f->field[i].name, key->data, key->n) == 0)
                        return &f->field[i];
        return NULL;
}

/* A name that is not in the schema may hold anything: show it so that it can do no harm, and say which there are. */
static int args_unknown(const struct args_report *report, const struct schema_fields *f, const char *name,
                        size_t bytes) {
        char shown[ARGS_SHOW + 1], known[200] = "";
        size_t n = bytes < ARGS_SHOW ? bytes : ARGS_SHOW, used = 0;
        for (size_t i = 0; i < n; i++)
                shown[i] = name[i] >= 0x20 && name[i] < 0x7f ? name[i] : '?';
        shown[n] = 0;
        for (uint32_t i = 0; i < f->n_fields && used < sizeof known; i++)
                used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", f->field[i].name);
        if (report->error_bytes > 0)
                snprintf(report->error, report->error_bytes, "unknown %s \"%s\" (known: %s)", report->noun, shown,
                         f->n_fields ? known : "none");
        return -EINVAL;
}

static const char *args_noun(const struct schema_fields *f) { return f->is_result ? "result" : "argument"; }

static int args_check_missing(const struct args_report *report, const struct schema_fields *f, uint32_t seen) {
        for (uint32_t i = 0; i < f->n_fields; i++)
                if (!(seen & 1u << i)) {
                        if (report->error_bytes > 0)
                                snprintf(report->error, report->error_bytes, "missing %s \"%s\" (%s)", report->noun,
                                         f->field[i].name, schema_type_name(f->field[i].type, f->field[i].is_array));
                        return -EINVAL;
                }
        return 0;
}

int args_check(const struct schema_fields *f, const void *map, size_t bytes, char *error, size_t error_bytes) {
        if (f->is_raw)
                return 0;
        struct args_report report = {.error = error, .error_bytes = error_bytes, .noun = args_noun(f), .index = -1};
        const uint8_t *p = map, *end = p + bytes;
        struct token t = {.type = TOKEN_MAP};
        if (bytes > 0 && token_next(&p, end, &t) < 0)
                return args_error(&report, "cut off or not MessagePack");
        if (t.type != TOKEN_MAP)
                return args_error(&report, "expected a map, got %s", token_name(t.type));

        uint32_t seen = 0;
        for (uint32_t i = 0, n = t.n; i < n; i++) {
                report.field = NULL;
                if (token_next(&p, end, &t) < 0)
                        return args_error(&report, "cut off or not MessagePack");
                if (t.type != TOKEN_STR)
                        return args_error(&report, "a name must be str, got %s", token_name(t.type));
                const struct schema_field *field = args_find_field(f, &t);
                if (!field)
                        return args_unknown(&report, f, t.data, t.n);
                report.field = field->name;
                uint32_t bit = 1u << (field - f->field);
                if (seen & bit)
                        return args_error(&report, "stands twice");
                seen |= bit;
                int r = args_check_value(&report, field, &p, end);
                if (r < 0)
                        return r;
        }
        report.field = NULL;
        if (p != end)
                return args_error(&report, "%zu bytes too many behind the map", (size_t)(end - p));
        return args_check_missing(&report, f, seen);
}

int args_check_fds(const struct schema_fields *f, const void *map, size_t bytes, uint32_t n_fds, char *error,
                   size_t error_bytes) {
        struct args_report report = {.error = error, .error_bytes = error_bytes, .noun = args_noun(f), .index = -1};
        for (uint32_t i = 0; i < f->n_fields && !f->is_raw; i++) {
                struct args_value v;
                if (f->field[i].type != SCHEMA_FD)
                        continue;
                report.field = f->field[i].name;
                if (args_get(map, bytes, report.field, SCHEMA_FD, &v) < 0 || v.u64 >= n_fds)
                        return args_error(&report, "its descriptor did not come");
        }
        return 0;
}

int args_unknown_name(const struct schema_fields *f, const char *name, char *error, size_t error_bytes) {
        struct args_report report = {.error = error, .error_bytes = error_bytes, .noun = args_noun(f)};
        return args_unknown(&report, f, name, strlen(name));
}

/* ---- reading ---- */

/* Steps over one value; arrays one level deep, as everywhere here. */
static int args_skip(const uint8_t **p, const uint8_t *end) {
        struct token t;
        int r = token_next(p, end, &t);
        if (r < 0 || t.type == TOKEN_MAP)
                return -EINVAL;
        for (uint32_t n = t.type == TOKEN_ARRAY ? t.n : 0; n > 0; n--)
                if (token_next(p, end, &t) < 0 || t.type == TOKEN_MAP || t.type == TOKEN_ARRAY)
                        return -EINVAL;
        return 0;
}

/* *ret_at = the token behind the key. */
static int args_seek(const void *map, size_t bytes, const char *name, const uint8_t **ret_at) {
        const uint8_t *p = map, *end = p + bytes;
        struct token t;
        if (bytes == 0)
                return -ENOENT;
        if (token_next(&p, end, &t) < 0 || t.type != TOKEN_MAP)
                return -EINVAL;
        size_t name_bytes = strlen(name);
        for (uint32_t n = t.n; n > 0; n--) {
                if (token_next(&p, end, &t) < 0 || t.type != TOKEN_STR)
                        return -EINVAL;
                if (t.n == name_bytes && memcmp(t.data, name, name_bytes) == 0) {
                        *ret_at = p;
                        return 0;
                }
                if (args_skip(&p, end) < 0)
                        return -EINVAL;
        }
        return -ENOENT;
}

int args_get(const void *map, size_t bytes, const char *name, enum schema_type type, struct args_value *ret) {
        const uint8_t *p, *end = (const uint8_t *)map + bytes;
        struct token t;
        int r = args_seek(map, bytes, name, &p);
        if (r < 0)
                return r;
        return token_next(&p, end, &t) < 0 ? -EINVAL : args_convert(&t, type, ret);
}

int args_open_array(const void *map, size_t bytes, const char *name, struct args_list *ret) {
        const uint8_t *p, *end = (const uint8_t *)map + bytes;
        struct token t;
        int r = args_seek(map, bytes, name, &p);
        if (r < 0)
                return r;
        /* Each element takes a byte at least: a longer claim is no array. */
        if (token_next(&p, end, &t) < 0 || t.type != TOKEN_ARRAY || t.n > (size_t)(end - p))
                return -EINVAL;
        *ret = (struct args_list){.p = p, .end = end, .n = t.n};
        return 0;
}

int args_next(struct args_list *list, enum schema_type type, struct args_value *ret) {
        struct token t;
        if (list->n == 0)
                return -ENOENT;
        if (token_next(&list->p, list->end, &t) < 0 || t.type == TOKEN_ARRAY || t.type == TOKEN_MAP)
                return -EINVAL;
        list->n--;
        return args_convert(&t, type, ret);
}

int args_array_length(const void *map, size_t bytes, const char *name, uint32_t *ret) {
        struct args_list list;
        int r = args_open_array(map, bytes, name, &list);
        if (r == 0)
                *ret = list.n;
        return r;
}

int args_get_element(const void *map, size_t bytes, const char *name, uint32_t i, enum schema_type type,
                     struct args_value *ret) {
        struct args_list list;
        int r = args_open_array(map, bytes, name, &list);
        for (uint32_t k = 0; r == 0 && k <= i; k++)
                r = args_next(&list, type, ret);
        return r;
}

int args_get_array(const void *map, size_t bytes, const char *name, enum schema_type type, struct args_value *ret,
                   uint32_t n) {
        const uint8_t *p, *end = (const uint8_t *)map + bytes;
        struct token t;
        int r = args_seek(map, bytes, name, &p);
        if (r < 0)
                return r;
        if (token_next(&p, end, &t) < 0 || t.type != TOKEN_ARRAY)
                return -EINVAL;
        if (n > t.n)
                return -ENOENT;
        for (uint32_t i = 0; i < n; i++) {
                if (token_next(&p, end, &t) < 0)
                        return -EINVAL;
                r = args_convert(&t, type, &ret[i]);
                if (r < 0)
                        return r;
        }
        return 0;
}
