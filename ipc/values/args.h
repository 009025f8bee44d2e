/* Typed arguments and results as one MessagePack map (libmsgpack), checked against a schema. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/values/schema.h"

struct args_value {
        enum schema_type type;
        union {
                uint64_t u64; /* fd: its number among the job's descriptors */
                int64_t i64;
                double f64;
                bool boolean;
                struct {
                        const char *data; /* str (not 0-terminated) and bytes */
                        size_t bytes;
                };
        };
};

/* Writes a map field by field into a caller's buffer. */
struct args_writer {
        uint8_t *buffer;
        size_t capacity, bytes;
        size_t n_put; /* of all fields, also of what did not fit */
        uint32_t n_fields;
        int error; /* first error sticks: -EMSGSIZE … */
};

void args_writer_init(struct args_writer *w, void *buffer, size_t capacity);
int args_put(struct args_writer *w, const char *name, const struct args_value *v);
int args_put_array(struct args_writer *w, const char *name, const struct args_value *v, size_t n);
/* Completes the map. -EMSGSIZE if it did not fit. */
int args_finish(struct args_writer *w, size_t *ret_bytes);
/* What the map would take if there were room. */
size_t args_wanted(const struct args_writer *w);

/* Is `map` exactly one map that has every field of `f` once, with the right type and range, valid UTF-8 in strings,
 * and nothing else? -EINVAL with `error` naming the field and what is wrong. Numbers may come in any MessagePack
 * integer width; an integer that fits is taken for f64 too. No nesting but arrays, no allocation at all. Zero bytes are
 * an empty map; anything passes for a raw job. */
int args_check(const struct schema_fields *f, const void *map, size_t bytes, char *error, size_t error_bytes);

/* Is there a descriptor for each fd field of a checked map, if `n_fds` came? -EINVAL with `error` as args_check. */
int args_check_fds(const struct schema_fields *f, const void *map, size_t bytes, uint32_t n_fds, char *error,
                   size_t error_bytes);

/* unknown argument "x" (known: n, who) → `error`; always -EINVAL. */
int args_unknown_name(const struct schema_fields *f, const char *name, char *error, size_t error_bytes);

/* Reads one field of a checked map. -ENOENT, -EINVAL (another type), -ERANGE. Strings point into `map`. */
int args_get(const void *map, size_t bytes, const char *name, enum schema_type type, struct args_value *ret);
/* An array field, element by element: open, then args_next until -ENOENT. Or by index, which walks from the start. */
struct args_list {
        const uint8_t *p, *end;
        uint32_t n; /* elements left */
};
int args_open_array(const void *map, size_t bytes, const char *name, struct args_list *ret);
int args_next(struct args_list *list, enum schema_type type, struct args_value *ret);
int args_array_length(const void *map, size_t bytes, const char *name, uint32_t *ret);
int args_get_element(const void *map, size_t bytes, const char *name, uint32_t i, enum schema_type type,
                     struct args_value *ret);
/* Elements 0 to n - 1 in one pass. */
int args_get_array(const void *map, size_t bytes, const char *name, enum schema_type type, struct args_value *ret,
                   uint32_t n);

/* "n=97" by the schema: decimal, 0x…, true|false, text; bytes as hex; arrays 1,2,3. For command lines. -EINVAL names
 * the word. */
int args_put_text(struct args_writer *w, const struct schema_fields *f, const char *name, const char *text, char *error,
                  size_t error_bytes);
/* prime=true, one field a space-separated word; strings quoted only when they hold blanks or quotes; bytes as hex. A
 * raw payload reads as one field `payload` of bytes. */
int args_to_text(const struct schema_fields *f, const void *map, size_t bytes, char **ret);
/* {"prime":true}; bytes as base64. */
int args_to_json(const struct schema_fields *f, const void *map, size_t bytes, char **ret);

bool args_is_utf8(const char *s, size_t bytes);
