/* Answers system calls of templates and their workers, those that wait for our word (plugins/host/sandbox/filter.c). */
#pragma once

#include "daemon/spawn/spawner.h"

struct pollfd;

/* The listeners to be heard now, into `p`; how many. */
unsigned calls_fill_polls(const struct spawner *s, struct pollfd *p);
/* When one of the others is to be heard again, in ms; -1 = none. */
int calls_timeout_ms(const struct spawner *s);
/* One of them is readable or at its end: one call of it is answered. */
void calls_answer(struct spawner *s, int listener_fd, short revents);

void calls_forget_all(struct spawner *s);
