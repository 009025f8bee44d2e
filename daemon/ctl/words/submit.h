/* Manager.Submit, from a checked map of arguments and the options of the command line. */
#pragma once

#include "daemon/ctl/remote.h"
#include "daemon/ctl/words/arguments.h"

/* Do the values of the job's options make sense? CTL_OK, or CTL_USAGE and said. */
int submit_check_options(const struct ctl *c);
/* A job's arguments: the typed map `args` (checked against `fields`) and what its fd fields mean, or the bytes of a raw
 * job, which are in a sealed memory file if there is one. */
struct submit_args {
        const struct schema_fields *fields;
        const void *args;
        size_t bytes;
        const struct arguments_fds *fds;
        int payload_fd; /* -1: none */
};

/* [number, path] in *ret; -errno as remote_call. */
int submit_job(struct ctl *c, const char *pool, const char *type, const struct submit_args *args,
               struct json_object **ret);
/* The same, as it is told: the number, or an object. */
void submit_print(struct ctl *c, struct json_object *submitted);
