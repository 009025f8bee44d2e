/* Structs of options as callers fill them in, who may have been compiled with an older header of the library than this
 * one, or with a newer one. */
#include <errno.h>
#include <string.h>

#include "ipc/client/library.h"

int options_read(drover *d, const char *name, const void *options, size_t least_bytes, void *ret, size_t bytes) {
        uint32_t own_bytes = (uint32_t)bytes, given_bytes = own_bytes;
        memset(ret, 0, bytes);
        if (options) {
                memcpy(&given_bytes, options, sizeof given_bytes);
                if (given_bytes < least_bytes)
                        return connection_fail(d, -EINVAL, "struct %s: struct_size is not set", name);
                for (size_t i = bytes; i < given_bytes; i++) /* what we do not know must not be asked for */
                        if (((const unsigned char *)options)[i] != 0)
                                return connection_fail(
                                        d, -EINVAL, "struct %s: byte %zu is beyond what this library knows", name, i);
                memcpy(ret, options, given_bytes < bytes ? given_bytes : bytes);
        }
        memcpy(ret, &own_bytes, sizeof own_bytes); /* it is the first field of each of them */
        return 0;
}
