/* From a name in a pool file to a sealed copy of the plugin in memory. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "ipc/wire.h"

enum { PLUGIN_FILE_MAX_BYTES = 64 << 20 };

struct plugin_fault {
        bool is_permanent;    /* trying again cannot help until somebody changes the file */
        char text[WIRE_TEXT]; /* one sentence: the file, what is wrong, what to do */
};

/* `name` with or without ".so", looked up inside `dir` (`dir_fd`) and never outside of it. *ret_fd: a memfd that nobody
 * can change any more, CLOEXEC. −errno with the fault filled in. */
int plugin_file_seal(int dir_fd, const char *dir, const char *name, int *ret_fd, struct plugin_fault *fault);
