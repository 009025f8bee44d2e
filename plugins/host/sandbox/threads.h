/* The threads that a plugin's libraries start before the sandbox is there. */
#pragma once

#include <stddef.h>

/* How many this process has, by /proc/self/stat, which was opened while that was possible; -1: it cannot be read. */
long threads_count(int stat_fd);

/* Waits until none of them blocks SIGSYS, two seconds at most: the filter stops calls by that signal, and who blocks it
 * dies of the first one, unnamed. glibc blocks all signals in a thread that starts, for a moment. To be called before
 * the first filter. -ETIMEDOUT: one does it for good; `error` names it. */
int threads_await_traps(char *error, size_t error_bytes);
