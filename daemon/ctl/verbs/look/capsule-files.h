/* Where droverctl finds capsules. */
#pragma once

#include "daemon/ctl/show/json.h"
#include "ipc/values/capsule.h"

/* Those that the caller may see, of `pool` (NULL: of all). One that cannot be read is told and passed over. CTL_OK, or
 * the exit code, said; CTL_USAGE if some were passed over. `on_capsule` returns an exit code. */
int capsule_files_each(struct ctl *c, const char *pool, int (*on_capsule)(const struct capsule *capsule, void *user),
                       void *user);
/* The one of an operand, the number of a job or a file. For capsule_deinit. CTL_OK or the exit code, said. */
int capsule_files_get(struct ctl *c, const char *what, struct capsule *ret);
/* The one of a job on the bus, if there is one: then true. Nothing is said. */
bool capsule_files_look(struct ctl *c, uint64_t id, struct capsule *ret);

/* ---- capsule.c ---- */

/* What a list shows of one, as an object, and its `attempts`, added to that. Texts are as in the file. */
struct json_object *capsule_describe_all(const struct capsule *c);
void capsule_add_attempts(struct json_object *o, const struct capsule *c);
