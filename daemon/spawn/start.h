/* A new process with the host in it: by fork, or by exec of drover-worker. */
#pragma once

#include <sys/types.h>

#include "daemon/spawn/spawner.h"

enum start_role { START_ROLE_WORKER, START_ROLE_TEMPLATE };

/* Once at the start of the program: signals to their defaults, 0 to 4 taken so that no descriptor of ours ever has
 * these numbers. *ret_null_fd is /dev/null, from 5 up. */
int start_prepare(int *ret_null_fd);

/* exec of drover-worker, the parent waits until it is done (vfork). Its −errno is returned; the descriptors stay ours.
 * *ret_pidfd may be NULL. */
int start_exec(const struct spawner *s, const struct generation *g, enum start_role role, int control_fd,
               pid_t *ret_pid, int *ret_pidfd);
bool start_error_is_permanent(int error); /* of start_exec: a broken installation, not a lack of something */
/* A child that calls `fn` and ends: a copy of the spawner that has /dev/null at 0 to 2, `fd` as 3 and nothing else
 * open, and dies with the spawner. −errno; `fd` stays ours. */
int start_helper(const struct spawner *s, void (*fn)(void *user, int fd), void *user, int fd, pid_t *ret_pid);
/* The host without exec. */
int start_fork(const struct generation *g, int control_fd, pid_t *ret_pid);
