/* From a name in a pool file to a sealed copy of the plugin in memory. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "ipc/wire.h"

enum { PLUGIN_FILE_MAX_BYTES = 64 << 20, PLUGIN_FILE_DESCRIPTION = 288 };

struct plugin_fault {
        bool is_permanent;    /* trying again cannot help until somebody changes the file */
        char text[WIRE_TEXT]; /* one sentence: the file, what is wrong, what to do */
};

/* `name` with or without ".so", looked up inside `dir` and never outside of it. *ret_fd: a memfd that nobody can change
 * any more, CLOEXEC. −errno with the fault filled in. Takes as long as the disk or server of the file likes. */
int plugin_file_seal(const char *dir, const char *name, int *ret_fd, struct plugin_fault *fault);

/* The file's name inside the plugin directory: equal for "x" and "x.so". A longer one than fits is no plugin's. */
void plugin_file_path(const char *name, char path[static WIRE_NAME]);
/* Directory and name, for messages; a very long directory is cut at its start. */
void plugin_file_describe(const char *dir, const char *name, char file[static PLUGIN_FILE_DESCRIPTION]);
