/* Arguments of a job whose schema is not at hand. */
#pragma once

#include <stddef.h>

#include "ipc/values/schema.h"

/* The fields that the bytes, which are anybody's, have by themselves, such that args_check agrees; raw if they are not
 * a map of arguments. An empty array passes for one of u64. */
void payload_guess(const void *data, size_t bytes, struct schema_fields *ret);
