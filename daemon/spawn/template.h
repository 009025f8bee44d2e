/* Forkserver templates: hosts that loaded the plugin once and then only fork. */
#pragma once

#include "daemon/spawn/spawner.h"

enum template_state {
        TEMPLATE_LOADING, /* exec'd; runs the plugin's preload */
        TEMPLATE_WARM,    /* forks when it may */
        TEMPLATE_ENDING,  /* makes no more workers; waits for the reaper */
        TEMPLATE_N_STATES,
};

struct template {
        uint64_t serial;
        uint32_t generation;
        pid_t pid;
        int fd;          /* -1 after its end of file */
        int listener_fd; /* calls.c owns it */
        enum template_state state;
        bool was_warm;
        enum life_phase phase; /* what it is at while it loads */
        bool is_forking;       /* its fork waits for our word, as call fork_id */
        bool is_asked;         /* worker `asked` was let be forked and has not come yet */
        uint32_t asked;
        int asked_fds[2]; /* its control socket: the broker's end, its own */
        uint64_t fork_id;
        uint64_t deadline_ns; /* for what it owes us: a fork, or the one it forked; 0 = nothing */
        unsigned n_crashes;   /* workers of it that crashed, in a row */
        bool is_quiet;        /* its death is no news: no SPAWN_TEMPLATE */
        bool has_failed;      /* `failure` is why, for SPAWN_FAILED and SPAWN_TEMPLATE */
        struct spawn_event failure;
        char plugin[WIRE_NAME];
        char sandbox[64]; /* the layers, "" until it is closed */
};

/* A new worker, stage QUEUED: from the warm template now, or when the template, made here if there is none, is ready.
 * May end in workers_failed. */
void template_start_worker(struct spawner *s, struct generation *g, struct spawn_worker *w);
/* The broker gave up on a worker that has no pid yet. */
void template_cancel_worker(struct spawner *s, struct spawn_worker *w, int signal);
/* Its socket is readable or at its end: takes what an honest one can have sent; of a flood the rest waits. */
void template_receive(struct spawner *s, struct template *t);
/* The generation ends: so does its template, and every start that waits for it fails. */
void template_retire(struct spawner *s, struct generation *g);
/* A worker of template `serial` ended; after a row of crashes the next one comes from a new template, whose address
 * layout is another. */
void template_count_end(struct spawner *s, uint64_t serial, bool was_crash);

struct template *template_find_pid(struct spawner *s, pid_t pid);
struct template *template_find_serial(struct spawner *s, uint64_t serial);

/* Its fork waits for our word. False: it may not fork (any more), so refuse it. */
bool template_wants_fork(struct spawner *s, struct template *t, uint64_t call_id);
/* The worker that it was asked for is there. Returns the end of its control socket that it is to get. */
int template_child_came(struct spawner *s, struct template *t, pid_t pid);
/* Or will not be: a reason for the broker. */
void template_child_failed(struct spawner *s, struct template *t, int error, const char *what);
/* The template that waits for a child in this process group, as they are until they come; NULL: none. */
struct template *template_of_group(struct spawner *s, pid_t group);

/* Ends those that owe us something for too long; when to look next, in ms, -1 = never. */
void template_look(struct spawner *s);
int template_timeout_ms(const struct spawner *s);

/* It is dead, but not reaped yet; code and status as in siginfo. Frees it. True: the worker that it was to fork may
 * live, unknown to all. */
bool template_died(struct spawner *s, struct template *t, int code, int status);
/* Nothing of it lives any more, and nobody is to be told. */
void template_forget_all(struct spawner *s);
