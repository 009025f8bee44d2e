/* Who waits for what in the arenas, in words: for WaitingFor, for `why`, and for the log when a cycle is broken. */
#pragma once

#include "daemon/supervise/supervisor.h"

/* What the process waits for, and what the owner of that waits for: "mutex bank/a held by worker 3 (job 790) for 3.1
 * s".
 * "" if it waits in no arena that it opened. It ends in words that say so if not all could be looked into. Valid UTF-8.
 */
struct waiting_viewer { /* who reads it: jobs of others are not named, unless sees_all */
        uid_t uid;
        bool sees_all;
};
void waiting_describe(struct supervisor *s, pid_t pid, const struct waiting_viewer *v, char *text, size_t bytes);

enum waiting_found {
        WAITING_NONE, /* the process waits in no arena */
        WAITING_SOME,
        WAITING_CUT_OFF, /* the search would have taken too long */
};

/* Looks for a cycle that the process waits in, or behind, through whatever arenas. It is broken, and logged once. */
enum waiting_found waiting_break_cycles(struct supervisor *s, pid_t pid);
