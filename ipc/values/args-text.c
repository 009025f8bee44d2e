/* Arguments from and results to what people type and read: command-line words, plain text, JSON.
 *
 * Output follows the schema's order and is made from a checked map; a field that is not there all the same (the memory
 * changed, or nobody checked) is -EINVAL, never a guess. Control characters never reach a terminal: text that holds any
 * is quoted and escaped as JSON does. */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/values/args.h"
#include "ipc/values/json.h"

/* ---- from text ---- */

static int args_parse_u64(const char *s, uint64_t *ret) {
        bool is_hex = s[0] == '0' && (s[1] == 'x' || s[1] == 'X');
        if (!(is_hex ? isxdigit((unsigned char)s[2]) : isdigit((unsigned char)s[0])))
                return -EINVAL;
        char *end;
        errno = 0;
        unsigned long long v = strtoull(s, &end, is_hex ? 16 : 10);
        if (*end)
                return -EINVAL;
        if (errno == ERANGE)
                return -ERANGE;
        *ret = v;
        return 0;
}

static int args_parse_i64(const char *s, int64_t *ret) {
        bool is_negative = s[0] == '-';
        uint64_t v;
        int r = args_parse_u64(is_negative ? s + 1 : s, &v);
        if (r < 0) /* "-" and too many digits fall out here; so does "--1" */
                return r;
        if (v > (uint64_t)INT64_MAX + is_negative)
                return -ERANGE;
        *ret = is_negative ? (int64_t)(0 - v) : (int64_t)v;
        return 0;
}

static int args_parse_f64(const char *s, double *ret) {
        if (isspace((unsigned char)s[0]) || !s[0])
                return -EINVAL;
        char *end;
        *ret = strtod(s, &end);
        return *end ? -EINVAL : 0;
}

static int args_hex_digit(char c) {
        if (c >= '0' && c <= '9')
                return c - '0';
        c |= 0x20;
        return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* In place: two digits a byte. */
static int args_parse_hex(char *s, size_t *ret_bytes) {
        size_t n = strlen(s);
        if (n % 2)
                return -EINVAL;
        for (size_t i = 0; i < n; i += 2) {
                int high = args_hex_digit(s[i]), low = args_hex_digit(s[i + 1]);
                if (high < 0 || low < 0)
                        return -EINVAL;
                s[i / 2] = (char)(high << 4 | low);
        }
        *ret_bytes = n / 2;
        return 0;
}

static int args_parse_value(enum schema_type type, char *s, struct args_value *ret) {
        *ret = (struct args_value){.type = type};
        switch (type) {
        case SCHEMA_U64:
                /* Not "no number": a negative one is out of range. */
                return s[0] == '-' && isdigit((unsigned char)s[1]) ? -ERANGE : args_parse_u64(s, &ret->u64);
        case SCHEMA_I64:
                return args_parse_i64(s, &ret->i64);
        case SCHEMA_F64:
                return args_parse_f64(s, &ret->f64);
        case SCHEMA_BOOL:
                ret->boolean = strcmp(s, "true") == 0;
                return ret->boolean || strcmp(s, "false") == 0 ? 0 : -EINVAL;
        case SCHEMA_STR:
                ret->data = s;
                ret->bytes = strlen(s);
                return args_is_utf8(s, ret->bytes) ? 0 : -EILSEQ;
        case SCHEMA_BYTES:
                ret->data = s;
                return args_parse_hex(s, &ret->bytes);
        case SCHEMA_FD:
                return -ENOTSUP;
        }
        return -EINVAL;
}

static int args_text_error(int r, const struct schema_field *field, const char *word, char *error, size_t error_bytes) {
        const char *type = schema_type_name(field->type, false);
        if (error_bytes == 0)
                return -EINVAL;
        if (r == -ERANGE)
                snprintf(error, error_bytes, "argument \"%s\": %.64s is out of range for %s", field->name, word, type);
        else if (r == -EILSEQ)
                snprintf(error, error_bytes, "argument \"%s\": not valid UTF-8", field->name);
        else if (r == -ENOTSUP)
                snprintf(error, error_bytes, "argument \"%s\": a descriptor cannot be written as text", field->name);
        else if (r == -EMSGSIZE)
                snprintf(error, error_bytes, "argument \"%s\": does not fit, the arguments are too large", field->name);
        else if (r == -ENOMEM)
                snprintf(error, error_bytes, "argument \"%s\": out of memory", field->name);
        else if (field->type == SCHEMA_BYTES)
                snprintf(error, error_bytes, "argument \"%s\": \"%.64s\" is not bytes (write hex, two digits a byte)",
                         field->name, word);
        else
                snprintf(error, error_bytes, "argument \"%s\": \"%.64s\" is not %s", field->name, word, type);
        return r == -EMSGSIZE || r == -ENOMEM ? r : -EINVAL;
}

/* "1,2,3"; "" is no element at all. On failure *ret_word is the element to blame, inside `text`. */
static int args_put_list(struct args_writer *w, const struct schema_field *field, char *text, char **ret_word) {
        size_t n = text[0] != 0;
        for (const char *p = text; *p; p++)
                n += *p == ',';
        struct args_value *v = calloc(n + 1, sizeof *v);
        if (!v)
                return -ENOMEM;
        int r = 0;
        char *rest = text;
        for (size_t i = 0; i < n && r == 0; i++) {
                *ret_word = strsep(&rest, ",");
                r = args_parse_value(field->type, *ret_word, &v[i]);
        }
        if (r == 0)
                r = args_put_array(w, field->name, v, n);
        free(v);
        return r;
}

int args_put_text(struct args_writer *w, const struct schema_fields *f, const char *name, const char *text, char *error,
                  size_t error_bytes) {
        const struct schema_field *field = schema_find_field(f, name);
        if (!field)
                return args_unknown_name(f, name, error, error_bytes);

        char *copy = strdup(text), *word = copy;
        if (!copy)
                return args_text_error(-ENOMEM, field, text, error, error_bytes);
        int r;
        if (field->is_array)
                r = args_put_list(w, field, copy, &word);
        else {
                struct args_value v;
                r = args_parse_value(field->type, copy, &v);
                if (r == 0)
                        r = args_put(w, field->name, &v);
        }
        if (r < 0)
                r = args_text_error(r, field, field->is_array ? word : text, error, error_bytes);
        free(copy);
        return r;
}

/* ---- to text ---- */

struct args_style {
        void (*write_str)(FILE *f, const char *s, size_t bytes);
        void (*write_bytes)(FILE *f, const void *data, size_t bytes);
        void (*write_f64)(FILE *f, double v);
        const char *open, *close, *between, *equals; /* around and between fields */
        const char *list_open, *list_close;
        bool is_name_quoted;
};

static bool args_is_plain(const char *s, size_t bytes) {
        for (size_t i = 0; i < bytes; i++)
                if ((unsigned char)s[i] <= 0x20 || s[i] == 0x7f || s[i] == '"' || s[i] == '\'' || s[i] == '\\' ||
                    ((uint8_t)s[i] == 0xc2 && i + 1 < bytes && (uint8_t)s[i + 1] < 0xa0)) /* U+0080 to U+009F */
                        return false;
        return bytes > 0;
}

static void args_write_word(FILE *f, const char *s, size_t bytes) {
        if (args_is_plain(s, bytes))
                fwrite(s, 1, bytes, f);
        else
                json_write_string(f, s, bytes);
}

static void args_write_hex(FILE *f, const void *data, size_t bytes) {
        for (size_t i = 0; i < bytes; i++)
                fprintf(f, "%02x", ((const uint8_t *)data)[i]);
}

static void args_write_f64(FILE *f, double v) {
        if (v == v && v - v == 0)
                json_write_f64(f, v);
        else
                fprintf(f, "%f", v); /* nan, inf */
}

static const struct args_style args_plain_style = {
        .write_str = args_write_word,
        .write_bytes = args_write_hex,
        .write_f64 = args_write_f64,
        .open = "",
        .close = "",
        .between = " ",
        .equals = "=",
        .list_open = "",
        .list_close = "",
};

static const struct args_style args_json_style = {
        .write_str = json_write_string,
        .write_bytes = json_write_base64,
        .write_f64 = json_write_f64,
        .open = "{",
        .close = "}",
        .between = ",",
        .equals = ":",
        .list_open = "[",
        .list_close = "]",
        .is_name_quoted = true,
};

static void args_write_value(FILE *f, const struct args_style *style, const struct args_value *v) {
        switch (v->type) {
        case SCHEMA_U64:
        case SCHEMA_FD: /* its number among the job's */
                fprintf(f, "%llu", (unsigned long long)v->u64);
                return;
        case SCHEMA_I64:
                fprintf(f, "%lld", (long long)v->i64);
                return;
        case SCHEMA_F64:
                style->write_f64(f, v->f64);
                return;
        case SCHEMA_BOOL:
                fputs(v->boolean ? "true" : "false", f);
                return;
        case SCHEMA_STR:
                style->write_str(f, v->data, v->bytes);
                return;
        case SCHEMA_BYTES:
                style->write_bytes(f, v->data, v->bytes);
                return;
        }
}

static int args_write_field(FILE *f, const struct args_style *style, const struct schema_field *field, const void *map,
                            size_t bytes) {
        struct args_value v;
        fprintf(f, style->is_name_quoted ? "\"%s\"%s" : "%s%s", field->name, style->equals);
        if (!field->is_array) {
                int r = args_get(map, bytes, field->name, field->type, &v);
                if (r == 0)
                        args_write_value(f, style, &v);
                return r;
        }

        struct args_list list;
        int r = args_open_array(map, bytes, field->name, &list);
        if (r < 0)
                return r;
        fputs(style->list_open, f);
        for (const char *between = ""; (r = args_next(&list, field->type, &v)) == 0; between = ",") {
                fputs(between, f);
                args_write_value(f, style, &v);
        }
        fputs(style->list_close, f);
        return r == -ENOENT ? 0 : r;
}

static int args_write_map(FILE *f, const struct args_style *style, const struct schema_fields *fields, const void *map,
                          size_t bytes) {
        fputs(style->open, f);
        if (fields->is_raw) {
                fprintf(f, style->is_name_quoted ? "\"payload\"%s" : "payload%s", style->equals);
                style->write_bytes(f, map, bytes);
        }
        for (uint32_t i = 0; i < fields->n_fields; i++) {
                if (i > 0)
                        fputs(style->between, f);
                int r = args_write_field(f, style, &fields->field[i], map, bytes);
                if (r < 0)
                        return -EINVAL;
        }
        fputs(style->close, f);
        return 0;
}

static int args_render(const struct args_style *style, const struct schema_fields *fields, const void *map,
                       size_t bytes, char **ret) {
        char *text = NULL;
        size_t text_bytes;
        FILE *f = open_memstream(&text, &text_bytes);
        if (!f)
                return -ENOMEM;
        int r = args_write_map(f, style, fields, map, bytes);
        if (ferror(f) && r == 0)
                r = -ENOMEM;
        if (fclose(f) != 0 && r == 0)
                r = -ENOMEM;
        if (r < 0) {
                free(text);
                return r;
        }
        *ret = text;
        return 0;
}

int args_to_text(const struct schema_fields *f, const void *map, size_t bytes, char **ret) {
        return args_render(&args_plain_style, f, map, bytes, ret);
}

int args_to_json(const struct schema_fields *f, const void *map, size_t bytes, char **ret) {
        return args_render(&args_json_style, f, map, bytes, ret);
}
