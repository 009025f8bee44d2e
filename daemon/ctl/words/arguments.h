/* KEY=VALUE words and input lines as the arguments of a job. */
#pragma once

#include <stddef.h>

#include "ipc/values/schema.h"

enum { ARGUMENTS_MAX_ERROR = 256 };

/* What KEY=<FILE and KEY=>FILE opened; all zero at first. */
struct arguments_fds {
        int fds[SCHEMA_MAX_FDS];
        unsigned n_fds;
};

void arguments_close(struct arguments_fds *fds);

/* `words` by `f` into `buffer`, a complete map; KEY=@FILE is the content of FILE where KEY is bytes, KEY=<FILE and
 * KEY=>FILE the file itself, to be read or written anew, where KEY is fd. -EINVAL with `error`, -EMSGSIZE. Missing
 * fields are errors too. Files that were opened stay so, also on failure. */
int arguments_from_words(const struct schema_fields *f, char *const *words, int n_words, void *buffer, size_t capacity,
                         size_t *ret_bytes, struct arguments_fds *fds, char *error);
/* One line: the value of the one field `name`; with NULL the line is KEY=VALUE words (blanks between, "…" with \ around
 * a value with blanks), or the value of the only field there is. Raw: the line itself. */
int arguments_from_line(const struct schema_fields *f, const char *name, char *line, size_t line_bytes, void *buffer,
                        size_t capacity, size_t *ret_bytes, char *error);
