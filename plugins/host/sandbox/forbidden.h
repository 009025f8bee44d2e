/* What a forbidden system call says about itself: which path it was given. For the signal handler. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* A copy of `path`, which is the plugin's word and may point anywhere: 0-terminated, cut with "..." if it is too long.
 * false: nothing can be read there. */
bool forbidden_copy_path(const char *path, char *ret, size_t bytes);

/* The path among the arguments of call `number`, by its place; NULL if it has none. */
const char *forbidden_path(long number, const unsigned long arg[6]);
