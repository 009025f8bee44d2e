/* Errors told to callers: one constructor, so that a text is always there and always bounded. */
#include "daemon/supervise/facts/fault.h"

#include <stdarg.h>
#include <stdio.h>

int fault_set(struct fault *f, enum fault_code code, const char *format, ...) {
        va_list ap;
        f->code = code;
        va_start(ap, format);
        vsnprintf(f->text, sizeof(f->text), format, ap);
        va_end(ap);
        return -1;
}
