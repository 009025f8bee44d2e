/* The parts of JSON output that printf cannot do. */
#pragma once

#include <stddef.h>
#include <stdio.h>

/* A quoted string; what is not valid UTF-8 becomes U+FFFD. */
void json_write_string(FILE *f, const char *s, size_t bytes);
/* Quoted base64 of any bytes. */
void json_write_base64(FILE *f, const void *data, size_t bytes);
/* The shortest decimal that reads back as the same double; null for what JSON cannot say. */
enum { JSON_MAX_F64 = 40 };
const char *json_format_f64(double v, char text[JSON_MAX_F64]);
void json_write_f64(FILE *f, double v);
