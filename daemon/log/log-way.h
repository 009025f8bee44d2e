/* How a message gets out to stderr without waiting for who reads it. For log.c. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* 1; 0: there is no way but to write and wait; -errno. `may_start_writer`: see log_detach. */
int log_way_find(bool may_start_writer);
ssize_t log_way_try(const char *text, size_t bytes); /* how much was taken, or -1 and errno: EAGAIN … */
bool log_way_has_room(void);                         /* for a good deal more */
bool log_way_is_done(void);                          /* no writer of ours has anything left to write */
