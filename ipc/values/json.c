/* Writing JSON values to a stream. Reading JSON and building documents is json-c's work, in the programs that do it;
 * the library layer writes flat objects whose shape it knows, and needs no document for that. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "ipc/values/json.h"
#include "ipc/values/utf8.h"

void json_write_string(FILE *f, const char *s, size_t bytes) {
        fputc('"', f);
        for (size_t i = 0; i < bytes;) {
                size_t n = utf8_length(s + i, bytes - i);
                unsigned char c = (unsigned char)s[i];
                if (n == 0) {
                        fputs("\xef\xbf\xbd", f);
                        n = 1;
                } else if (c == '"' || c == '\\')
                        fprintf(f, "\\%c", c);
                else if (c == '\n')
                        fputs("\\n", f);
                else if (c == '\t')
                        fputs("\\t", f);
                else if (c < 0x20 || c == 0x7f)
                        fprintf(f, "\\u%04x", c);
                else if (c == 0xc2 && (unsigned char)s[i + 1] < 0xa0) /* a terminal obeys U+0080 to U+009F, too */
                        fprintf(f, "\\u%04x", (unsigned char)s[i + 1]);
                else
                        fwrite(s + i, 1, n, f);
                i += n;
        }
        fputc('"', f);
}

void json_write_base64(FILE *f, const void *data, size_t bytes) {
        static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        const uint8_t *p = data;
        fputc('"', f);
        for (size_t i = 0; i < bytes; i += 3) {
                size_t n = bytes - i < 3 ? bytes - i : 3;
                uint32_t v = (uint32_t)p[i] << 16;
                if (n > 1)
                        v |= (uint32_t)p[i + 1] << 8;
                if (n > 2)
                        v |= p[i + 2];
                fputc(digits[v >> 18], f);
                fputc(digits[v >> 12 & 63], f);
                fputc(n > 1 ? digits[v >> 6 & 63] : '=', f);
                fputc(n > 2 ? digits[v & 63] : '=', f);
        }
        fputc('"', f);
}

const char *json_format_f64(double v, char text[JSON_MAX_F64]) {
        if (!isfinite(v))
                return "null";
        if (v == 0 && signbit(v))
                return "-0.0"; /* who reads -0 as an integer loses the sign */
        for (int precision = 15; precision <= 17; precision++) {
                snprintf(text, JSON_MAX_F64, "%.*g", precision, v);
                if (strtod(text, NULL) == v)
                        break;
        }
        return text;
}

void json_write_f64(FILE *f, double v) {
        char text[JSON_MAX_F64];
        fputs(json_format_f64(v, text), f);
}
