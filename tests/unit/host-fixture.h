/* A real drover-worker, started the way the spawner does it, for the tests of the host. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "ipc/wire.h"
#include "plugins/host/author/trial.h"

/* Path of a plugin of the build tree, by name; static memory. */
const char *host_fixture_plugin(const char *name);

/* Starts drover-worker --role=ROLE for the plugin; *ret_fd is our end of its control socket. Fails the test on error.
 */
pid_t host_fixture_start(const char *role, const char *plugin, int *ret_fd);

/* One event of a template. Fails the test if none comes within seconds. From TEMPLATE_CLOSED on its system calls, and
 * its workers', are answered by a thread, as the spawner does it. */
struct template_event host_fixture_event(int template_fd);

/* Lets the template that closed last fork a worker: its pid, and our end of its control socket. */
pid_t host_fixture_fork(int *ret_fd);
/* It and its workers are on their own, as if the spawner were gone. */
void host_fixture_leave(void);

/* A trial with this worker, up to READY and claiming. */
void host_fixture_trial(struct trial *t, int control_fd, bool is_of_template);

/* Runs a job without arguments (or with `bytes` of payload) in slot `slot`; its verdict state. Result in *ret_data if
 * wanted. */
unsigned host_fixture_run(struct trial *t, uint32_t slot, const char *job, const void *payload, size_t bytes);

/* Waits for the process and returns its wait status. */
int host_fixture_reap(pid_t pid);
