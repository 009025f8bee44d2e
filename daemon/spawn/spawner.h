/* All that the spawner knows: generations, templates, workers and the broker it serves. Bounded tables in one struct.
 *
 * Layers: events ← {workers, generations} ← {start, template} ← {copier, calls} ← reap ← requests ← main; plugin-file
 * stands alone. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "ipc/wire.h"
#include "plugins/host/host.h"

enum {
        SPAWNER_MAX_WORKERS = 4096,
        /* of MaxPools= pools, at most 1000: one to go back to, the current one, the next */
        SPAWNER_MAX_GENERATIONS = 3072,
        SPAWNER_MAX_TEMPLATES = 4096, /* current ones and those that were told to end but are not reaped yet */
        SPAWNER_MAX_COPIERS = 16,     /* also those that were killed and hang in the kernel */
        SPAWNER_MAX_LISTENERS = SPAWNER_MAX_TEMPLATES + SPAWNER_MAX_WORKERS, /* workers outlive their templates */
        SPAWNER_MAX_LEFT = 64,
};

struct event_node;
struct template;

/* One sealed copy of a plugin file and how its workers are started. */
struct generation {
        uint32_t id;
        int plugin_fd; /* sealed memfd; -1 = still being copied: it has no template and no worker */
        char pool[sizeof(((struct spawn_request *)0)->pool)];
        char plugin[WIRE_NAME];
        char environment[WIRE_ENVIRONMENT];
        struct limits limits;      /* of its workers */
        char **envp;               /* the fixed part and pointers into `environment`; NULL-ended */
        struct template *template; /* the one that new workers come from; NULL = none yet */
};

enum copier_stage {
        COPIER_AT_WORK,
        COPIER_KILLED, /* nobody waits for it any more */
        COPIER_STUCK,  /* the kernel does not let it die: it waits for a disk or server */
};

/* A child that copies one plugin file. */
struct copier {
        pid_t pid;
        int fd;              /* its answer, once it has ended */
        uint32_t generation; /* 0 = nobody's */
        enum copier_stage stage;
        uint64_t started_ns, deadline_ns; /* of its stage; STUCK has none */
        char path[WIRE_NAME];             /* inside the plugin directory */
};

enum worker_stage {
        WORKER_QUEUED,  /* forkserver: waits for its template to be ready or to have room */
        WORKER_ASKED,   /* forkserver: its template's fork was let go on */
        WORKER_STARTED, /* has a pid */
        WORKER_CLOSING, /* dead and reaped, but something of its process group is not gone yet */
};

struct spawn_worker {
        uint32_t id, generation;
        enum worker_stage stage;
        pid_t pid;
        uint32_t pending_signal;  /* ASKED: to be sent once it has a pid */
        uint64_t template_serial; /* 0 = not from a template */
        struct {                  /* CLOSING: to be told once the group is gone */
                int32_t code, status;
                uint64_t cpu_us, max_rss_kib;
        } exited;
};

/* By which a template and its workers wait for our word: calls.c. Lives as long as the last of them. */
struct listener {
        int fd;
        uint64_t template_serial;
        uint64_t window_ns; /* begin of the time in which n_calls were answered */
        unsigned n_calls;
};

struct spawner {
        const char *plugin_dir, *worker_path;
        char *environment[4]; /* what every worker gets */
        unsigned n_environment;
        int null_fd;     /* /dev/null, for 0, 1 and 2 of every child */
        int children_fd; /* /proc/thread-self/children */
        int signal_fd, listen_fd;
        int notify_fd;                         /* the service manager's, -1 = none */
        uint64_t alive_every_ns, alive_due_ns; /* its watchdog; 0 = it has none */
        uid_t broker_uid;                      /* listener: who may connect, beside root */

        int broker_fd;            /* -1 = none */
        const char *broker_fault; /* set: drop the broker at the next turn; "" = it went away by itself */
        struct event_node *first_event, **last_event; /* not taken by the broker's socket yet */
        unsigned n_events;

        struct generation *generations[SPAWNER_MAX_GENERATIONS];
        unsigned n_generations;
        struct copier copiers[SPAWNER_MAX_COPIERS]; /* compact, as workers */
        unsigned n_copiers;
        struct template *templates[SPAWNER_MAX_TEMPLATES];
        unsigned n_templates;
        uint64_t template_serial;
        struct spawn_worker workers[SPAWNER_MAX_WORKERS]; /* compact: the first n_workers */
        unsigned n_workers;
        struct listener listeners[SPAWNER_MAX_LISTENERS]; /* compact */
        unsigned n_listeners;

        pid_t left[SPAWNER_MAX_LEFT]; /* of brokers before this one: killed, but they hang in the kernel */
        unsigned n_left;

        bool is_ending;        /* told to end */
        bool is_reap_due;      /* a child may have ended without a SIGCHLD still to come */
        bool is_hunt_due;      /* an unknown child may be there without any child's end */
        unsigned n_unknown;    /* children in the last hunt that nobody started */
        unsigned n_unreported; /* workers that a template may have forked just before it died */
};
