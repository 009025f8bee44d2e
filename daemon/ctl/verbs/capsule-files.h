/* Where droverctl finds capsules. */
#pragma once

#include "daemon/ctl/ctl.h"
#include "ipc/capsule.h"

/* Those that the caller may see, of `pool` (NULL: of all). One that cannot be read is told and passed over. CTL_OK, or
 * the exit code, said; CTL_USAGE if some were passed over. `on_capsule` returns an exit code. */
int capsule_files_each(struct ctl *c, const char *pool, int (*on_capsule)(const struct capsule *capsule, void *user),
                       void *user);
/* The one of a job. For capsule_deinit. CTL_OK or the exit code, said. */
int capsule_files_find(struct ctl *c, uint64_t id, struct capsule *ret);
/* The one in a file. */
int capsule_files_load(const char *path, struct capsule *ret);
