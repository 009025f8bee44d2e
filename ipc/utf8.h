/* Is this UTF-8? Needed wherever text of a plugin or a client goes on to the bus, a journal or a terminal. */
#pragma once

#include <stddef.h>

/* Bytes of the well-formed character at `s` (no surrogates, nothing overlong, nothing past U+10FFFF); 0 if there is
 * none. */
size_t utf8_length(const char *s, size_t bytes);
