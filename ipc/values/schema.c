/* What a plugin says of its jobs, as a struct and as text.
 *
 * The text comes from a worker, which may be compromised: every name, count and length is checked against the limits in
 * the header before it is stored, a doubled name is refused, and what passes is fit to be shown on a bus or a terminal
 * (valid UTF-8 without control characters). Parsing copies; nothing points into the input afterwards.
 *
 * Errors are one sentence that names the offending word, because the reader is a plugin author. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/values/args.h"
#include "ipc/values/json.h"
#include "ipc/values/schema.h"

#define SCHEMA_SHOW 64 /* of an offending word */

static const struct {
        const char *name, *array_name;
        enum schema_type type;
} schema_types[] = {
        {"u64", "u64[]", SCHEMA_U64},    {"i64", "i64[]", SCHEMA_I64}, {"f64", "f64[]", SCHEMA_F64},
        {"bool", "bool[]", SCHEMA_BOOL}, {"str", "str[]", SCHEMA_STR}, {"bytes", NULL, SCHEMA_BYTES},
        {"fd", NULL, SCHEMA_FD},
};

enum { SCHEMA_N_TYPES = sizeof schema_types / sizeof *schema_types };

__attribute__((format(printf, 3, 4))) static int schema_error(char *error, size_t error_bytes, const char *format,
                                                              ...) {
        va_list ap;
        va_start(ap, format);
        if (error_bytes > 0)
                vsnprintf(error, error_bytes, format, ap);
        va_end(ap);
        return -EINVAL;
}

/* A copy of a word that is safe to print. */
static const char *schema_show(const char *s, size_t bytes, char buffer[SCHEMA_SHOW + 1]) {
        size_t n = bytes < SCHEMA_SHOW ? bytes : SCHEMA_SHOW;
        for (size_t i = 0; i < n; i++)
                buffer[i] = s[i] >= 0x20 && s[i] < 0x7f ? s[i] : '?';
        buffer[n] = 0;
        return buffer;
}

static bool schema_is_name(const char *s, size_t bytes) {
        if (bytes == 0 || bytes >= SCHEMA_MAX_NAME || (s[0] >= '0' && s[0] <= '9') || s[0] == '.' || s[0] == '-')
                return false;
        return strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") >= bytes;
}

static bool schema_is_text(const char *s, size_t bytes) {
        for (size_t i = 0; i < bytes; i++)
                if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
                        return false;
        return args_is_utf8(s, bytes);
}

const char *schema_type_name(enum schema_type type, bool is_array) {
        for (size_t i = 0; i < SCHEMA_N_TYPES; i++)
                if (schema_types[i].type == type) {
                        const char *name = is_array ? schema_types[i].array_name : schema_types[i].name;
                        return name ? name : "?";
                }
        return "?";
}

static int schema_parse_type(const char *s, size_t bytes, struct schema_field *field) {
        for (size_t i = 0; i < SCHEMA_N_TYPES; i++)
                for (int is_array = 0; is_array <= 1; is_array++) {
                        const char *name = is_array ? schema_types[i].array_name : schema_types[i].name;
                        if (name && strlen(name) == bytes && memcmp(name, s, bytes) == 0) {
                                field->type = schema_types[i].type;
                                field->is_array = is_array;
                                return 0;
                        }
                }
        return -EINVAL;
}

/* One "name:type". */
static int schema_parse_field(const char *s, size_t bytes, struct schema_fields *f, char *error, size_t error_bytes) {
        char shown[SCHEMA_SHOW + 1];
        const char *colon = memchr(s, ':', bytes);
        if (!colon)
                return schema_error(error, error_bytes, "\"%s\": expected name:type", schema_show(s, bytes, shown));
        size_t name_bytes = (size_t)(colon - s), type_bytes = bytes - name_bytes - 1;
        if (!schema_is_name(s, name_bytes))
                return schema_error(error, error_bytes, "\"%s\" is not a field name",
                                    schema_show(s, name_bytes, shown));

        struct schema_field field = {0};
        memcpy(field.name, s, name_bytes);
        if (schema_find_field(f, field.name))
                return schema_error(error, error_bytes, "field \"%s\" stands twice", field.name);
        if (schema_parse_type(colon + 1, type_bytes, &field) < 0)
                return schema_error(
                        error, error_bytes,
                        "field \"%s\": unknown type \"%s\" (known: u64 i64 f64 bool str bytes fd, and u64[] "
                        "i64[] f64[] bool[] str[])",
                        field.name, schema_show(colon + 1, type_bytes, shown));
        bool is_fd = field.type == SCHEMA_FD;
        if (is_fd && f->n_fds == SCHEMA_MAX_FDS)
                return schema_error(error, error_bytes, "field \"%s\" is one too many of type fd: at most %d",
                                    field.name, SCHEMA_MAX_FDS);
        if (f->n_fields == SCHEMA_MAX_FIELDS)
                return schema_error(error, error_bytes, "field \"%s\" is one too many: at most %d", field.name,
                                    SCHEMA_MAX_FIELDS);
        f->field[f->n_fields++] = field;
        f->n_fds += is_fd;
        return 0;
}

int schema_parse_fields(const char *signature, struct schema_fields *ret, char *error, size_t error_bytes) {
        struct schema_fields f = {0};
        if (strcmp(signature, "raw") == 0)
                f.is_raw = true;
        else
                for (const char *p = signature; *p;) {
                        size_t n = strcspn(p, ",");
                        int r = schema_parse_field(p, n, &f, error, error_bytes);
                        if (r < 0)
                                return r;
                        p += n;
                        if (*p == ',' && *++p == 0)
                                return schema_error(error, error_bytes, "\"%.*s\" ends in a comma", SCHEMA_SHOW,
                                                    signature);
                }
        *ret = f;
        return 0;
}

static void schema_write_fields(FILE *out, const struct schema_fields *f) {
        if (f->is_raw)
                fputs("raw", out);
        for (uint32_t i = 0; i < f->n_fields; i++)
                fprintf(out, "%s%s:%s", i ? "," : "", f->field[i].name,
                        schema_type_name(f->field[i].type, f->field[i].is_array));
}

/* Tabs and line ends are the format's own. */
static void schema_write_text(FILE *out, const char *s) {
        for (; *s; s++)
                fputc((unsigned char)*s < 0x20 || *s == 0x7f ? ' ' : *s, out);
}

int schema_write(const struct schema *s, char *text, size_t text_bytes, size_t *ret_bytes) {
        FILE *out = fmemopen(text, text_bytes, "w");
        if (!out)
                return -ENOMEM;
        setbuf(out, NULL); /* a write that does not fit must fail here, not at fclose */
        schema_write_text(out, s->plugin);
        fputc('\t', out);
        schema_write_text(out, s->version);
        fputc('\n', out);
        for (uint32_t i = 0; i < s->n_jobs; i++) {
                const struct schema_job *j = &s->jobs[i];
                fprintf(out, "%s\t", j->name);
                schema_write_fields(out, &j->args);
                fputc('\t', out);
                schema_write_fields(out, &j->result);
                fprintf(out, "\t%u\t%d\t", j->models, j->is_once);
                schema_write_text(out, j->help);
                fputc('\n', out);
        }
        long n = ftell(out);
        bool is_whole = !ferror(out) && n >= 0;
        fclose(out);
        if (!is_whole)
                return -EMSGSIZE;
        *ret_bytes = (size_t)n;
        return 0;
}

/* Cuts the next tab-separated word off *line. */
static char *schema_take_word(char **line) {
        static char none[1] = "";
        char *word = strsep(line, "\t");
        return word ? word : none;
}

static int schema_parse_number(const char *s, uint32_t max, uint32_t *ret) {
        uint32_t v = 0;
        if (!*s || strlen(s) > 3)
                return -EINVAL;
        for (; *s; s++) {
                if (*s < '0' || *s > '9')
                        return -EINVAL;
                v = v * 10 + (uint32_t)(*s - '0');
        }
        if (v > max)
                return -EINVAL;
        *ret = v;
        return 0;
}

static int schema_parse_side(const char *job, const char *side, const char *signature, struct schema_fields *ret,
                             char *error, size_t error_bytes) {
        char why[200];
        int r = schema_parse_fields(signature, ret, why, sizeof why);
        if (r < 0)
                schema_error(error, error_bytes, "job type \"%s\", %s: %s", job, side, why);
        return r;
}

static int schema_parse_job(struct schema *s, char *line, char *error, size_t error_bytes) {
        char shown[SCHEMA_SHOW + 1];
        const char *name = schema_take_word(&line), *args = schema_take_word(&line), *result = schema_take_word(&line);
        const char *models = schema_take_word(&line), *once = schema_take_word(&line), *help = schema_take_word(&line);
        if (!schema_is_name(name, strlen(name)))
                return schema_error(error, error_bytes, "\"%s\" is not a name for a job type",
                                    schema_show(name, strlen(name), shown));
        if (schema_find(s, name, NULL))
                return schema_error(error, error_bytes, "job type \"%s\" stands twice", name);
        if (s->n_jobs == SCHEMA_MAX_TYPES)
                return schema_error(error, error_bytes, "job type \"%s\" is one too many: at most %d", name,
                                    SCHEMA_MAX_TYPES);

        struct schema_job *j = &s->jobs[s->n_jobs];
        *j = (struct schema_job){0};
        strcpy(j->name, name);
        int r = schema_parse_side(name, "arguments", args, &j->args, error, error_bytes);
        if (r < 0)
                return r;
        r = schema_parse_side(name, "result", result, &j->result, error, error_bytes);
        if (r < 0)
                return r;
        j->result.is_result = true;

        uint32_t is_once;
        if (schema_parse_number(models, 7, &j->models) < 0 || j->models == 0)
                return schema_error(error, error_bytes, "job type \"%s\": \"%s\" is no set of models", name,
                                    schema_show(models, strlen(models), shown));
        if (schema_parse_number(once, 1, &is_once) < 0)
                return schema_error(error, error_bytes, "job type \"%s\": \"%s\" is neither 0 nor 1", name,
                                    schema_show(once, strlen(once), shown));
        j->is_once = is_once;
        if (line || strlen(help) >= sizeof j->help || !schema_is_text(help, strlen(help)))
                return schema_error(error, error_bytes, "job type \"%s\": its help is not one line of text", name);
        strcpy(j->help, help);
        j->number = schema_number(j);
        const struct schema_job *other = schema_find_number(s, j->number);
        if (other)
                return schema_error(error, error_bytes,
                                    "job types \"%s\" and \"%s\" happen to have the same number: rename one",
                                    other->name, name);
        s->n_jobs++;
        return 0;
}

static int schema_parse_lines(struct schema *s, char *text, char *error, size_t error_bytes) {
        char shown[SCHEMA_SHOW + 1];
        char *line = strsep(&text, "\n");
        const char *plugin = schema_take_word(&line), *version = schema_take_word(&line);
        if (!schema_is_name(plugin, strlen(plugin)))
                return schema_error(error, error_bytes, "\"%s\" is not a plugin name",
                                    schema_show(plugin, strlen(plugin), shown));
        if (line || strlen(version) >= sizeof s->version || !schema_is_text(version, strlen(version)))
                return schema_error(error, error_bytes, "\"%s\" is not a plugin version",
                                    schema_show(version, strlen(version), shown));
        strcpy(s->plugin, plugin);
        strcpy(s->version, version);

        while ((line = strsep(&text, "\n"))) {
                if (!text && !*line) /* behind the last line end */
                        break;
                int r = schema_parse_job(s, line, error, error_bytes);
                if (r < 0)
                        return r;
        }
        if (s->n_jobs == 0)
                return schema_error(error, error_bytes, "plugin \"%s\" has no job type", s->plugin);
        return 0;
}

int schema_parse(const char *text, size_t text_bytes, struct schema **ret, char *error, size_t error_bytes) {
        if (text_bytes == 0 || text_bytes > SCHEMA_MAX_TEXT)
                return schema_error(error, error_bytes, "a schema of %zu bytes: 1 to %d are allowed", text_bytes,
                                    SCHEMA_MAX_TEXT);
        if (memchr(text, 0, text_bytes))
                return schema_error(error, error_bytes, "the schema holds a 0 byte");

        char *copy = strndup(text, text_bytes);
        struct schema *s = calloc(1, sizeof *s);
        if (s)
                s->jobs = calloc(SCHEMA_MAX_TYPES, sizeof *s->jobs);
        int r = -ENOMEM;
        if (!copy || !s || !s->jobs)
                schema_error(error, error_bytes, "out of memory");
        else
                r = schema_parse_lines(s, copy, error, error_bytes);
        free(copy);
        if (r < 0) {
                schema_free(s);
                return r;
        }
        struct schema_job *jobs = realloc(s->jobs, s->n_jobs * sizeof *jobs);
        if (jobs)
                s->jobs = jobs;
        *ret = s;
        return 0;
}

struct schema *schema_free(struct schema *s) {
        if (s)
                free(s->jobs);
        free(s);
        return NULL;
}

/* FNV-1a; a 0 byte ends each word. */
static uint32_t schema_hash(uint32_t hash, const char *word) {
        do
                hash = (hash ^ (uint8_t)*word) * UINT32_C(16777619);
        while (*word++);
        return hash;
}

static uint32_t schema_hash_fields(uint32_t hash, const struct schema_fields *f) {
        hash = schema_hash(hash, f->is_raw ? "raw" : "");
        for (uint32_t i = 0; i < f->n_fields; i++) {
                hash = schema_hash(hash, f->field[i].name);
                hash = schema_hash(hash, schema_type_name(f->field[i].type, f->field[i].is_array));
        }
        return schema_hash(hash, ""); /* where the arguments end and the result begins */
}

uint32_t schema_number(const struct schema_job *j) {
        uint32_t hash = schema_hash(UINT32_C(2166136261), j->name);
        hash = schema_hash_fields(schema_hash_fields(hash, &j->args), &j->result);
        return hash ? hash : 1;
}

static bool schema_are_same_fields(const struct schema_fields *a, const struct schema_fields *b) {
        bool is_same = a->is_raw == b->is_raw && a->n_fields == b->n_fields;
        for (uint32_t i = 0; is_same && i < a->n_fields; i++)
                is_same = strcmp(a->field[i].name, b->field[i].name) == 0 && a->field[i].type == b->field[i].type &&
                          a->field[i].is_array == b->field[i].is_array;
        return is_same;
}

bool schema_is_same(const struct schema_job *a, const struct schema_job *b) {
        return strcmp(a->name, b->name) == 0 && schema_are_same_fields(&a->args, &b->args) &&
               schema_are_same_fields(&a->result, &b->result);
}

const struct schema_job *schema_find_number(const struct schema *s, uint32_t number) {
        for (uint32_t i = 0; i < s->n_jobs; i++)
                if (s->jobs[i].number == number)
                        return &s->jobs[i];
        return NULL;
}

const struct schema_job *schema_find(const struct schema *s, const char *job, uint32_t *ret_index) {
        for (uint32_t i = 0; i < s->n_jobs; i++)
                if (strcmp(s->jobs[i].name, job) == 0) {
                        if (ret_index)
                                *ret_index = i;
                        return &s->jobs[i];
                }
        return NULL;
}

const struct schema_field *schema_find_field(const struct schema_fields *f, const char *name) {
        for (uint32_t i = 0; i < f->n_fields; i++)
                if (strcmp(f->field[i].name, name) == 0)
                        return &f->field[i];
        return NULL;
}

static void schema_write_json_fields(FILE *out, const char *key, const struct schema_fields *f) {
        fprintf(out, ",\"%s\":", key);
        if (f->is_raw) {
                fputs("\"raw\"", out);
                return;
        }
        fputc('{', out);
        for (uint32_t i = 0; i < f->n_fields; i++)
                fprintf(out, "%s\"%s\":\"%s\"", i ? "," : "", f->field[i].name,
                        schema_type_name(f->field[i].type, f->field[i].is_array));
        fputc('}', out);
}

int schema_to_json(const struct schema *s, char **ret) {
        char *text = NULL;
        size_t bytes;
        FILE *out = open_memstream(&text, &bytes);
        if (!out)
                return -ENOMEM;
        fputs("{\"plugin\":", out);
        json_write_string(out, s->plugin, strlen(s->plugin));
        fputs(",\"version\":", out);
        json_write_string(out, s->version, strlen(s->version));
        fputs(",\"jobs\":[", out);
        for (uint32_t i = 0; i < s->n_jobs; i++) {
                const struct schema_job *j = &s->jobs[i];
                fprintf(out, "%s{\"name\":\"%s\"", i ? "," : "", j->name);
                schema_write_json_fields(out, "args", &j->args);
                schema_write_json_fields(out, "result", &j->result);
                fprintf(out, ",\"once\":%s,\"help\":", j->is_once ? "true" : "false");
                json_write_string(out, j->help, strlen(j->help));
                fputc('}', out);
        }
        fputs("]}", out);
        bool is_whole = !ferror(out);
        if (fclose(out) != 0 || !is_whole) {
                free(text);
                return -ENOMEM;
        }
        *ret = text;
        return 0;
}
