/* The plugin in memory: the only user of dlopen. */
#pragma once

#include <drover/plugin.h>
#include <stdbool.h>
#include <stddef.h>

#include "ipc/values/schema.h"
#include "plugins/host/load/metadata.h"

/* The host's own view of the plugin: sizes of the ABI it was built against are behind us. */
struct plugin {
        struct metadata metadata;
        struct drover_plugin declared; /* copied; what an older plugin lacks is zero */
        struct drover_job_type jobs[SCHEMA_MAX_TYPES];
        struct schema_job schema_jobs[SCHEMA_MAX_TYPES];
        struct schema schema;               /* points at schema_jobs */
        uint32_t numbers[SCHEMA_MAX_TYPES]; /* theirs, close together: searched for every job */
        void *shared;                       /* of preload */
};

/* All fill `error` with one sentence that names the plugin. */

/* Reads and checks the metadata of the sealed file `fd`: runs nothing. -ENOEXEC, -ENODATA, -EINVAL, -ENOTSUP, -ELIBACC
 * as in metadata.h, -EBADF if it is no sealed memfd. */
int load_metadata(struct plugin *p, int fd, char *error, size_t error_bytes);

/* The system libraries it needs, one by one, before the sandbox closes: after it nothing can be opened. `on_loaded`, if
 * any, is asked after each and may refuse (-errno; it filled `error`). */
int load_needed(struct plugin *p, int (*on_loaded)(void *user, const char *soname, char *error, size_t error_bytes),
                void *user, char *error, size_t error_bytes);

/* dlopen of WIRE_PLUGIN_FD, which sandbox_admit_plugin has been told of, and the entry point: constructors run here.
 * Checks and copies what the plugin declares. */
int load_plugin(struct plugin *p, const struct drover_host *table, char *error, size_t error_bytes);
