/* Which process this is, for memory that a fork copies. */
#pragma once

#include <stdint.h>

/* A number that no process has of which this one was forked, by whatever system call, also if both have the same pid,
 * each in a namespace of its own. Costs two loads. 0: there was no memory for the page that it needs. */
uint64_t process_number(void);
