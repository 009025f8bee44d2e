/* A test build's waits end after a moment each time and ask whether they should have ended before: a wake-up that is
 * lost is found where it is waited for. Nothing in a normal build.
 *
 * What a wait is for, said just before it: WAIT_LOOK gives a function that names what would end it (0 = nothing yet),
 * without changing anything; WAIT_LOOK_SINCE one that names only what was there before a given time; WAIT_GATE says
 * that the caller will try again itself, each time after it has registered anew, and WAIT_FOUND that it found
 * something. */
#pragma once

#ifdef DROVER_WATCHED_WAITS
#include <stdbool.h>

#include "ipc/memory/event.h"

typedef uint64_t (*wait_look)(const void *user, uint64_t before_ns);
typedef int (*wait_sleeper)(const struct event_wait *waits, unsigned n_waits, uint64_t deadline_ns);

void wait_watch_look(const char *what, wait_look look, const void *user, bool is_timed);
void wait_watch_gate(const char *what, const _Atomic uint64_t *gate);
void wait_watch_found(void);
/* In place of `sleep`: the same, in slices. */
int wait_watch_sleep(const struct event_wait *waits, unsigned n_waits, uint64_t deadline_ns, wait_sleeper sleep);

#define WAIT_LOOK(what, look, user) wait_watch_look(what, look, user, false)
#define WAIT_LOOK_SINCE(what, look, user) wait_watch_look(what, look, user, true)
#define WAIT_GATE(what, gate) wait_watch_gate(what, gate)
#define WAIT_FOUND() wait_watch_found()
#else
#define WAIT_LOOK(what, look, user) ((void)0)
#define WAIT_LOOK_SINCE(what, look, user) ((void)0)
#define WAIT_GATE(what, gate) ((void)0)
#define WAIT_FOUND() ((void)0)
#endif
