/* A second process of the same program, for what the first must not wait for. */
#pragma once

enum { DETACHED_FD = 3 };

/* Forks one that runs `run`, which does not return, under the name of `name`. It has /dev/null, stderr and, at
 * DETACHED_FD, `fd`, which is closed here; it is nobody's child, in a session of its own, and no signal that ends
 * programs ends it: end of file does. Only while there is one thread. -errno */
int detached_start(const char *name, int fd, void (*run)(void));
