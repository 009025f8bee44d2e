/* What a plugin says of its jobs: names, typed arguments, typed results. Comes from the worker with READY, so it is
 * bounded and validated like any input. Field types: u64 i64 f64 bool str bytes fd, and arrays u64[] i64[] f64[]
 * bool[] str[]; a signature is "n:u64,who:str"; the signature "raw" stands for bytes in, bytes out; "" for none. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
        SCHEMA_MAX_TYPES = 64,
        SCHEMA_MAX_FIELDS = 16,
        SCHEMA_MAX_FDS = 7,   /* fields of type fd: with the payload as many as one packet takes */
        SCHEMA_MAX_NAME = 64, /* with the final 0; [A-Za-z0-9_.-]+, not starting with a digit, '.' or '-' */
        SCHEMA_MAX_TEXT = 32768,
};

enum schema_type {
        SCHEMA_U64 = 1,
        SCHEMA_I64,
        SCHEMA_F64,
        SCHEMA_BOOL,
        SCHEMA_STR,
        SCHEMA_BYTES,
        SCHEMA_FD,
};

struct schema_field {
        char name[SCHEMA_MAX_NAME];
        enum schema_type type;
        bool is_array;
};

struct schema_fields {
        bool is_raw;
        bool is_result; /* only for the noun in error texts; schema_parse sets it */
        uint16_t n_fds; /* fields of type fd */
        uint32_t n_fields;
        struct schema_field field[SCHEMA_MAX_FIELDS];
};

struct schema_job {
        char name[SCHEMA_MAX_NAME];
        uint32_t number; /* layout_job.type: schema_number of it */
        struct schema_fields args, result;
        uint32_t models; /* enum drover_model bits */
        bool is_once;    /* at-most-once whatever the pool says */
        char help[256];
};

struct schema {
        char plugin[SCHEMA_MAX_NAME], version[32];
        uint32_t n_jobs;
        struct schema_job *jobs;
};

/* Parses one signature; sets all of *ret. -EINVAL with `error` naming the offending word. */
int schema_parse_fields(const char *signature, struct schema_fields *ret, char *error, size_t error_bytes);

/* One text for the wire: first line "plugin\tversion", then "name\targs\tresult\tmodels\tonce\thelp" per job type.
 * schema_write needs nothing but the struct; schema_parse takes any bytes. */
int schema_write(const struct schema *s, char *text, size_t text_bytes, size_t *ret_bytes);
int schema_parse(const char *text, size_t text_bytes, struct schema **ret, char *error, size_t error_bytes);
struct schema *schema_free(struct schema *s);

/* What a job says in shared memory of what it is: a hash of name, arguments and result, never 0. So it means the same
 * in every list that has this very job type, and nothing in one where it is gone, or takes or returns something else.
 */
uint32_t schema_number(const struct schema_job *j);
bool schema_is_same(const struct schema_job *a, const struct schema_job *b); /* in name, arguments and result */
const struct schema_job *schema_find_number(const struct schema *s, uint32_t number); /* NULL: none */

const struct schema_job *schema_find(const struct schema *s, const char *job, uint32_t *ret_index); /* NULL: none */
const struct schema_field *schema_find_field(const struct schema_fields *f, const char *name);
/* "u64", "str[]" … */
const char *schema_type_name(enum schema_type type, bool is_array);
/* The whole schema as JSON, malloc'd: {"plugin":"primes","version":"1.0","jobs":[{"name":"is_prime","args":{"n":"u64"},
 * "result":{"prime":"bool"},"once":false,"help":"…"}]}; fields in their order, a raw side is the string "raw". */
int schema_to_json(const struct schema *s, char **ret);
