/* Copies of plugin files: each is made by a child with a deadline, and nobody waits for it. */
#pragma once

#include <signal.h>

#include "daemon/spawn/spawner.h"

/* Ends copiers whose time is over and begins what can begin: after a LOAD, and at every turn of the loop. */
void copier_look(struct spawner *s);
/* How long the loop may sleep, for poll(): -1 = nothing is under way. */
int copier_timeout_ms(const struct spawner *s);
/* The broker does not want this generation any more; it is forgotten. */
void copier_cancel(struct spawner *s, struct generation *g);

struct copier *copier_find_pid(struct spawner *s, pid_t pid);
/* It is dead: takes its answer and forgets it. */
void copier_ended(struct spawner *s, struct copier *c, const siginfo_t *si);
/* The broker is gone, all were killed: those that live hang in the kernel. */
void copier_forget_all(struct spawner *s);
