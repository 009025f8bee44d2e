/* From configuration files to pools: at start, and again at every Reload. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "daemon/config/config.h"
#include "daemon/supervise/supervisor.h"

struct reload_change {
        char kind[16];                /* "pool", "daemon" */
        char name[POOL_NAME_MAX + 1]; /* of a file that no pool can be named after: the file's */
        char what[600];               /* "added", "removed", "changed: Workers", "refused: FILE:LINE: …" */
};

struct reload_report {
        struct reload_change *changes;
        size_t n_changes;
};

/* Either a report or a fault. */
typedef void (*reload_done_fn)(void *user, const struct reload_report *report, const struct fault *f);

/* A bad pool file refuses that pool (kept as it runs if it does, with the reason as its Problem) and is told in the
 * report. -1 with a fault when memory is short: nothing was changed then. `ret` is filled on success;
 * reload_report_deinit it. */
int reload_apply(struct supervisor *s, const struct config_files *files, struct reload_report *ret, struct fault *f);
/* One more change of droverd's own. Of too little memory nobody hears: it was done all the same. */
void reload_report_add(struct reload_report *r, const char *what);
void reload_report_deinit(struct reload_report *r);

/* What --check prints: the errors of drover.conf and of every pool file, one a line on stderr through log.h.
 * Returns how many there were. */
size_t reload_check(const struct config_paths *p);
