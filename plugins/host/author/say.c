/* Text for people, from whomever it comes.
 *
 * A plugin names its jobs, a job says why it failed, and a capsule is a file from anywhere: on the way to a terminal
 * their control characters become '?' (utf8_plain), as in droverctl. Results go another way: ipc/args quotes them. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/values/utf8.h"
#include "plugins/host/author/say.h"

__attribute__((format(printf, 2, 0))) static char *format_plain(const char *kept, const char *format, va_list ap) {
        char *text = NULL, *plain;
        int n = vasprintf(&text, format, ap);
        if (n < 0)
                return NULL;
        plain = utf8_plain(text, (size_t)n, kept);
        free(text);
        return plain;
}

void say_text(FILE *f, const char *format, ...) {
        va_list ap;
        va_start(ap, format);
        char *plain = format_plain("\n\t", format, ap);
        va_end(ap);
        fputs(plain ? plain : "out of memory\n", f);
        free(plain);
}

int say_error(int code, const char *format, ...) {
        va_list ap;
        va_start(ap, format);
        char *plain = format_plain("", format, ap);
        va_end(ap);
        fprintf(stderr, "drover-worker: %s\n", plain ? plain : "out of memory");
        free(plain);
        return code;
}
