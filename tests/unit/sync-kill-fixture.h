/* SIGKILL at named places of the sharing objects: the library is compiled so that a process dies there. One object of
 * every kind that survives it, and what the broker does. */
#pragma once

#include "tests/unit/sync-fixture.h"

enum { PERMITS = 2, CAPACITY = 16 };

/* Where this process is to die; no name: nowhere. */
struct sync_kill_plan {
        const char *name;
        _Atomic uint32_t *n_deaths; /* or NULL */
        unsigned n_left;            /* visits of that place, this one's too */
        int signal;                 /* 0: SIGKILL */
};
extern struct sync_kill_plan sync_kill_plan;

/* What a child is told of its end. */
struct sync_kill_order {
        unsigned seed;
        int point; /* −1: it lives */
};

/* DROVER_KILL_SEEDS: how often every place is tried. */
unsigned sync_kill_seeds(void);

struct sync_kill_objects {
        drover_mutex *mutex, *bank;
        drover_condition *tokens;
        drover_semaphore *semaphore;
        drover_permits *permits;
        drover_event *event;
        drover_rwlock *rwlock;
        drover_dictionary *dictionary;
        drover_queue *queue, *simple, *lifo;
};
/* Opens, or makes, all of them. */
void sync_kill_open(drover_arena *a, struct sync_kill_objects *o);

/* Waits for whoever ends first, as the others may wait for what it held, and repairs. It must have ended well or of
 * SIGKILL: else a CHECK said why. */
void sync_kill_reap_any(drover_arena *arena);
