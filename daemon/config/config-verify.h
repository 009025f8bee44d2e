/* One configuration file on its own, for who edits it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* `text` starts with FILE:LINE. What is no error is a warning. */
typedef void (*config_problem_fn)(void *user, bool is_error, const char *text);

/* Tells everything that droverd would say of the file when it loads it, not only the first; what the file is says its
 * name: NAME.pool, drover.conf, or NAME.conf in a folder NAME.pool.d or drover.conf.d. The number of errors; -EINVAL:
 * the name is none of these. */
int config_verify(const char *path, config_problem_fn fn, void *user);
