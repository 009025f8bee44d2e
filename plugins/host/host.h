/* drover-worker: one process, one plugin, its jobs. The spawner links this library for StartMethod=fork.
 *
 * A worker's life, in chapters (host.c):
 *
 *   become    signals, session, environment, descriptors 0-4 and nothing else, no capability, death with the parent
 *   set up    ORDER_SETUP: pool memory, doorbell, output            (a template's workers: after the fork)
 *   enclose   limits, system libraries of the plugin, Landlock, the first filter
 *   load      dlopen maps the plugin, the last filter, CLOSED; constructors, ABI, preload      (a template stops here
 *             and forks)
 *   open      worker_open, worker_init, thread_init, READY
 *   serve     claim, run, finish; until RETIRE or the broker is gone
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "ipc/layout.h"
#include "ipc/wire.h"
#include "plugins/host/job/orders.h"
#include "plugins/host/load/load.h"
#include "plugins/host/sandbox/limits.h"
#include "plugins/host/sandbox/privileges.h"
#include "plugins/host/sandbox/sandbox.h"

enum host_role { HOST_WORKER, HOST_TEMPLATE };

/* Exit codes of a worker or template that was not killed. */
enum host_exit {
        HOST_EXIT_DONE = 0,   /* retired, or the broker is gone */
        HOST_EXIT_FAILED = 1, /* told why in REPORT_FAILED or TEMPLATE_FAILED */
        HOST_EXIT_USAGE = 2,
        HOST_EXIT_STALE = 3, /* its job was judged meanwhile (or the broker spoke nonsense): it must not claim again */
};

struct host_config {
        enum host_role role;
        pid_t parent;     /* must be getppid(): who else could have started us? */
        int control_fd;   /* any number; both are moved to WIRE_CONTROL_FD and WIRE_PLUGIN_FD, all others are closed */
        int plugin_fd;    /* sealed memfd */
        const char *name; /* the pool, for the process name */
        char *const *environment; /* replaces environ (NULL-terminated); NULL = keep it */
        struct limits limits;
};

/* Optional, once, before forking children that call host_main: compiles the filters so that each child need not.
 * Uses no descriptor and no thread afterwards. 0 or -errno. */
int host_prepare(void);

/* Turns the calling process into a worker or a template. The caller is single-threaded; whatever it had open is closed.
 */
_Noreturn void host_main(const struct host_config *c);

/* ---- for the other files of this library ---- */

struct host;

/* Head of every object that plugins get: the SDK's part, then ours. */
struct host_object {
        struct drover_object sdk;
        struct host *host;
};

struct drover_worker {
        struct host_object object;
};

struct drover_preload_ctx {
        struct host_object object;
};

struct host {
        struct host_config config;
        struct sandbox sandbox;
        char threads_by[64]; /* the last library that started threads when it was loaded, "" if none did */
        struct plugin plugin;
        enum life_phase phase; /* of the main thread; and the plugin's function that it is in, 0 in a constructor */
        uintptr_t callback;
        struct layout_pool *pool; /* NULL until ORDER_SETUP */
        struct layout_worker *line;
        uint32_t index;
        uint64_t id;
        int doorbell_fd;
        int items_fd;  /* never blocks */
        int output_fd; /* as 1 and 2, which are the plugin's to change; -1 = what is printed is not marked: job-mark.c
                        */
        char name[72];
        struct drover_worker worker;
        struct drover_preload_ctx preload;
        void *state; /* of worker_init */
        struct orders_held held;

        /* a template's: what its fork must set right in the child */
        void *tid_address, *robust_list;
        size_t robust_list_bytes;
};

/* Chapter "set up". -EPIPE: the broker is gone; any other trouble ends the process. */
int host_set_up(struct host *h);
/* The plugin's `function` is called next. */
static inline void host_enter(struct host *h, enum life_phase phase, uintptr_t function) {
        h->phase = phase;
        h->callback = function;
}

/* Chapters "open" and "serve". */
_Noreturn void host_serve(struct host *h);

/* One packet to whoever made us; waits while its queue is full. */
int host_send(const struct host *h, const void *data, size_t bytes);
int host_send_fds(const struct host *h, const void *data, size_t bytes, const int *fds, unsigned n_fds);
/* Until there is something to read on the control socket. 0 or -errno. */
int host_wait_readable(void);

/* The end: tells the broker (or, in a template, the spawner) and exits. `error` is positive. */
_Noreturn void host_fail(struct host *h, enum death_reason reason, int error, bool is_permanent, const char *format,
                         ...) __attribute__((format(printf, 5, 6)));
