/* A forbidden system call in words. What a process says of itself is cleaned here before anybody sees it. */
#pragma once

#include <stddef.h>

#include "ipc/layout.h"

/* What a worker's line says of it, copied once and cleaned. */
void breach_read(const struct layout_worker *line, struct layout_breach *ret);

/* Ends a text of a plugin's, in an array of so many bytes, and makes it printable ASCII. */
void breach_clean_text(char *text, size_t bytes);

/* Ends its texts and makes them printable ASCII, its phase a known one. */
void breach_clean(struct layout_breach *b);

/* `openat("/etc/hostname") at opens+0x1139, in a constructor`. `call` is the name of the system call; `b` is clean. */
void breach_describe(const struct layout_breach *b, const char *call, char *text, size_t bytes);
