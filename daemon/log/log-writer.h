/* The process that writes what a program says, for the program itself must not wait. */
#pragma once

#include <stdbool.h>

/* A pipe, not blocking, to a process that writes all of it to what stderr is now, and ends at its end of file. The
 * caller makes the pipe stderr. */
int log_writer_start(int *ret_fd);
bool log_writer_is_done(void);  /* nothing is left to be written */
bool log_writer_has_room(void); /* for half of what it holds at all */
