/* Values of settings as unit files spell them. All: 0, -EINVAL (not that kind of value), -ERANGE (too large). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define VALUE_INFINITY UINT64_MAX

/* "20" (seconds), "100ms", "1h 30min", "1.5s", "infinity" = VALUE_INFINITY. */
int value_parse_time(const char *text, uint64_t *ret_ns);
/* "4096", "4K", "512M", "1.5G": powers of 1024; "infinity" = VALUE_INFINITY. */
int value_parse_size(const char *text, uint64_t *ret_bytes);
/* 1 yes y true t on, 0 no n false f off; in any case. */
int value_parse_bool(const char *text, bool *ret);
/* Decimal digits and nothing else. */
int value_parse_number(const char *text, uint64_t *ret);
