/* UTF-8 by the table of well-formed byte sequences (Unicode, table 3-7): the first byte decides how many follow and
 * which range the second may have; that range excludes overlong forms, surrogates and what lies past U+10FFFF. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/values/utf8.h"

size_t utf8_length(const char *s, size_t bytes) {
        static const struct {
                uint8_t first, last, low, high, length;
        } rows[] = {
                {0x00, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
                {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
                {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
        };
        if (bytes == 0)
                return 0;
        const uint8_t *p = (const uint8_t *)s;
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                if (p[0] < rows[i].first || p[0] > rows[i].last)
                        continue;
                if (rows[i].length > bytes)
                        return 0;
                if (rows[i].length > 1 && (p[1] < rows[i].low || p[1] > rows[i].high))
                        return 0;
                for (size_t k = 2; k < rows[i].length; k++)
                        if ((p[k] & 0xc0) != 0x80)
                                return 0;
                return rows[i].length;
        }
        return 0;
}

size_t utf8_make_plain(char *plain, const char *text, size_t bytes, const char *kept, char instead) {
        char *p = plain;

        while (bytes > 0) {
                size_t n = utf8_length(text, bytes);
                uint8_t first = (uint8_t)text[0], second = n == 2 ? (uint8_t)text[1] : 0xff;
                bool is_control = first < ' ' || first == 0x7f || (first == 0xc2 && second < 0xa0);

                if (n == 0 || (is_control && !(first && strchr(kept, first)))) {
                        *p++ = instead;
                } else {
                        memmove(p, text, n);
                        p += n;
                }
                n = n ? n : 1;
                text += n;
                bytes -= n;
        }
        return (size_t)(p - plain);
}

char *utf8_plain(const char *text, size_t bytes, const char *kept) {
        char *plain = malloc(bytes + 1);

        if (plain)
                plain[utf8_make_plain(plain, text, bytes, kept, '?')] = 0;
        return plain;
}

size_t utf8_cut(const char *s, size_t bytes) {
        for (size_t n = 1; n <= 3 && n <= bytes; n++) {
                const uint8_t first = (uint8_t)s[bytes - n];
                if ((first & 0xc0) == 0x80)
                        continue;
                size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc0 ? 2 : 1;
                return length > n ? bytes - n : bytes;
        }
        return bytes;
}
