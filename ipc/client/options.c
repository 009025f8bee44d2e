/* Structs of options, and words for what is wrong with one. */
#include <errno.h>

#include "ipc/client/library.h"
#include "ipc/values/options.h"

int options_read(drover *d, const char *name, const void *options, size_t least_bytes, void *ret, size_t bytes) {
        size_t byte;
        int r = options_copy(options, least_bytes, ret, bytes, &byte);
        if (r == 0)
                return 0;
        if (byte == 0)
                return connection_fail(d, r, "struct %s: struct_size is not set", name);
        return connection_fail(d, r, "struct %s: byte %zu is beyond what this library knows", name, byte);
}
