/* See options.h. */
#include "ipc/values/options.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

int options_copy(const void *options, size_t least_bytes, void *ret, size_t bytes, size_t *ret_byte) {
        uint32_t own_bytes = (uint32_t)bytes, given_bytes = own_bytes;
        memset(ret, 0, bytes);
        if (options) {
                memcpy(&given_bytes, options, sizeof given_bytes);
                *ret_byte = 0;
                if (given_bytes < least_bytes)
                        return -EINVAL;
                for (size_t i = bytes; i < given_bytes; i++)
                        if (((const unsigned char *)options)[i] != 0) {
                                *ret_byte = i;
                                return -EINVAL;
                        }
                memcpy(ret, options, given_bytes < bytes ? given_bytes : bytes);
        }
        memcpy(ret, &own_bytes, sizeof own_bytes);
        return 0;
}
