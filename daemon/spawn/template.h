/* Forkserver templates: hosts that loaded the plugin once and then only fork. */
#pragma once

#include "daemon/spawn/spawner.h"

enum template_state {
        TEMPLATE_LOADING, /* exec'd; runs the plugin's preload */
        TEMPLATE_WARM,    /* forks on request */
        TEMPLATE_ENDING,  /* makes no more workers; waits for the reaper */
        TEMPLATE_N_STATES,
};

struct template {
        uint64_t serial;
        uint32_t generation;
        pid_t pid;
        int fd; /* -1 after its end of file */
        enum template_state state;
        bool was_warm, is_stuck;
        unsigned n_asked;   /* requests without an answer */
        unsigned n_crashes; /* workers of it that crashed, in a row */
        bool is_quiet;      /* its death is no news: no SPAWN_TEMPLATE */
        bool has_failed;    /* `failure` is why, for SPAWN_FAILED and SPAWN_TEMPLATE */
        struct spawn_event failure;
        char plugin[WIRE_NAME];
        char sandbox[64]; /* the layers, "" until it is closed */
};

/* A new worker, stage QUEUED: from the warm template now, or when the template, made here if there is none, is ready.
 * May end in workers_failed. */
void template_start_worker(struct spawner *s, struct generation *g, struct spawn_worker *w);
/* The broker gave up on a worker that has no pid yet. */
void template_cancel_worker(struct spawner *s, struct spawn_worker *w, int signal);
/* Its socket is readable or at its end: takes all that is there. */
void template_receive(struct spawner *s, struct template *t);
void template_receive_all(struct spawner *s);
/* The generation ends: so does its template, and every start that waits for it fails. */
void template_retire(struct spawner *s, struct generation *g);
/* A worker of template `serial` ended; after a row of crashes the next one comes from a new template, whose address
 * layout is another. */
void template_count_end(struct spawner *s, uint64_t serial, bool was_crash);

struct template *template_find_pid(struct spawner *s, pid_t pid);
/* It is dead, but not reaped yet; code and status as in siginfo. Frees it. Returns how many requests it left open: as
 * many of its workers may be running unreported. */
unsigned template_died(struct spawner *s, struct template *t, int code, int status);
/* Nothing of it lives any more, and nobody is to be told. */
void template_forget_all(struct spawner *s);
