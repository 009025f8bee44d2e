/* What the spawner tells the broker: struct spawn_event packets, in order, never blocking. */
#pragma once

#include "daemon/spawn/spawner.h"

enum { EVENTS_MAX = 4096 };

/* Sends or queues; takes the descriptors whatever happens. A broker that does not read is dropped at EVENTS_MAX. */
void events_send(struct spawner *s, struct spawn_event *e, const int *fds, unsigned n_fds);
/* The socket has room again. */
void events_flush(struct spawner *s);
void events_clear(struct spawner *s);
/* Prints into e->text; control characters and bytes that are not ASCII become '?': names may come from a plugin. */
void events_text(struct spawn_event *e, const char *format, ...) __attribute__((format(printf, 2, 3)));
