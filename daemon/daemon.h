/* droverd put together: loop, bus, supervisor, files, signals, the service manager. */
#pragma once

#include <stdbool.h>

#include "daemon/log/log.h"

struct daemon_options {
        bool is_user;
        const char *address;    /* --address=, NULL = the user's or the system's bus */
        const char *config_dir; /* NULL = the search path */
        const char *plugin_dir, *state_dir, *libexec_dir;
        const char *runtime_dir; /* NULL = /run/drover, of a user $XDG_RUNTIME_DIR/drover */
        enum log_level log_level;
        bool has_log_level; /* the command line outranks drover.conf */
};

/* Runs until SIGTERM or a broken bus; returns the process's exit status. Every failure was told in one line. */
int daemon_run(const struct daemon_options *o);
/* --check: reads all files, tells every error; exit status. */
int daemon_check(const struct daemon_options *o);
