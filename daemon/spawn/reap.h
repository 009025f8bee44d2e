/* The end of every process below the spawner, its own children and those that nobody started. */
#pragma once

#include "daemon/spawn/spawner.h"

/* Makes us the reaper of all that is orphaned below us and opens the list of our children. −errno. */
int reap_init(struct spawner *s);
/* What the signalfd has: sets is_reap_due and is_ending. */
void reap_take_signals(struct spawner *s);
/* After SIGCHLD, or when is_reap_due: reports what ended, kills what nobody started. Never blocks. */
void reap_run(struct spawner *s);
/* The broker is gone or we are told to end: kills every process below us and waits until none is left, or but those
 * that hang in the kernel, which are told from escapees from then on. */
void reap_everything(struct spawner *s);
/* SIGKILL to the worker's process group, another signal to it alone. */
void reap_kill(const struct spawn_worker *w, int signal);
