/* What drover-worker says to people: nothing of a plugin, a job or a file gives orders to their terminal. */
#pragma once

#include <stdio.h>

/* Control characters but line breaks and tabs become '?'. */
__attribute__((format(printf, 2, 3))) void say_text(FILE *f, const char *format, ...);
/* "drover-worker: …" on stderr, one line. Returns `code`. */
__attribute__((format(printf, 2, 3))) int say_error(int code, const char *format, ...);
