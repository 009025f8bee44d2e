/* Structs of options as callers fill them in, who may have been compiled with an older header than this side, or with a
 * newer one. The first field of each is a u32: the size that the caller knows. */
#pragma once

#include <stddef.h>

/* Into one of ours, of `bytes`, whose size then stands in it; NULL: all zero. -EINVAL: the size is below `least_bytes`
 * (*ret_byte is 0), or byte *ret_byte, which we do not know, is not 0: it must not be asked for. */
int options_copy(const void *options, size_t least_bytes, void *ret, size_t bytes, size_t *ret_byte);
