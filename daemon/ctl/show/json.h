/* D-Bus values as json-c objects, and json-c objects for people. */
#pragma once

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "daemon/ctl/ctl.h"
#include "ipc/values/schema.h"

typedef struct sd_bus_message sd_bus_message;

enum json_bytes { JSON_BYTES_BASE64, JSON_BYTES_HEX };

/* Everything from the message's read position to its end: one value is itself, several are an array, none is NULL.
 * A variant is its content, a{s…} an object, other arrays and structs an array; a sealed memory
 * file is its bytes, any other descriptor the text "fd". */
int json_from_message(sd_bus_message *m, enum json_bytes bytes, struct json_object **ret);

/* The descriptor that a value of json_from_message was, as long as the value lives; -1: it was none. */
int json_descriptor(struct json_object *o);

/* Was it bytes, with JSON_BYTES_HEX? */
bool json_is_hex(struct json_object *o);

/* JSON is UTF-8: a byte that is not becomes U+FFFD. */
struct json_object *json_text_new(const char *text, size_t bytes);

/* One line (short, off) or indented (pretty); lives as long as the object, until the next json_format of it. */
const char *json_format(struct json_object *o, enum ctl_json mode);
/* The same with a line break behind it. */
void json_print(FILE *f, struct json_object *o, enum ctl_json mode);
/* A string as it is, a number as C writes it, others as JSON. */
void json_write_value(FILE *f, struct json_object *o);
/* prime=true who="a b": fields as words, as args_to_text has them: text that is empty or has blanks, quotes or what a
 * terminal would obey is quoted as in JSON. */
void json_print_words(FILE *f, struct json_object *o);

/* Puts the fields of a result in the order of its schema; a plugin may have set them in any. */
void json_order_fields(struct json_object *o, const struct schema_fields *fields);

/* A value as text for people: what a terminal would obey became '?'. Lives as long as the value, and is of its first
 * text. */
const char *json_plain(struct json_object *o);

/* Fields of an object, with a default for missing ones; the text as by json_plain. */
const char *json_text(struct json_object *o, const char *key, const char *otherwise);
uint64_t json_number(struct json_object *o, const char *key);

static inline void json_putp(struct json_object **o) { json_object_put(*o); }

/* json-c ends the process over a value of another type than it takes, and a daemon of another release, a plugin's
 * schema or a job's result has any. These take them all: what is no array is an empty one, what is no object has no
 * members, nothing is no text. */
size_t json_length(struct json_object *o);
struct json_object *json_at(struct json_object *o, size_t i);
size_t json_n_members(struct json_object *o);
const char *json_string(struct json_object *o);
