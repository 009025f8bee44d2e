/* Is this UTF-8, and where may it be cut? Needed wherever text of a plugin or a client goes on to the bus, a journal or
 * a terminal. */
#pragma once

#include <stddef.h>

/* Bytes of the well-formed character at `s` (no surrogates, nothing overlong, nothing past U+10FFFF); 0 if there is
 * none. */
size_t utf8_length(const char *s, size_t bytes);

/* `text` of a stranger as a terminal can take it, malloc'd; NULL: no memory. Control characters (also those of two
 * bytes in UTF-8) and bytes that are no UTF-8 become '?', but the control characters in `kept` stay. */
char *utf8_plain(const char *text, size_t bytes, const char *kept);
/* The same to where the caller has room for as many bytes, which may be `text` itself, and with another character than
 * '?'. Returns how many it became: never more. Not ended by a zero. */
size_t utf8_make_plain(char *plain, const char *text, size_t bytes, const char *kept, char instead);

/* How many of these bytes are whole characters, if they are UTF-8 that somebody cut at `bytes`: up to three fewer. What
 * is no UTF-8 for another reason stays. */
size_t utf8_cut(const char *s, size_t bytes);
