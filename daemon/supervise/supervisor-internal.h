/* The supervisor's own fields, for supervise/ only. */
#pragma once

#include <sys/queue.h>

#include "daemon/loop/wall-clock.h"
#include "daemon/supervise/arenas/arenas.h"
#include "daemon/supervise/deaths/capsules.h"
#include "daemon/supervise/facts/numbers.h"
#include "daemon/supervise/facts/spawner.h"
#include "daemon/supervise/pools/pool.h"
#include "daemon/supervise/workers/worker.h"

struct supervisor {
        struct loop *loop;
        struct supervisor_hooks hooks;
        struct spawner *spawner;
        struct jobs *jobs;
        struct arenas *arenas;
        struct capsules *capsules;
        struct numbers *numbers;
        struct wall_clock wall_clock;
        struct streams *streams;
        char plugin_dir[256];
        TAILQ_HEAD(, pool) pools;     /* by name */
        TAILQ_HEAD(, worker) workers; /* by id */
        void *workers_by_id;          /* tsearch tree */
        uint64_t last_worker;
        uint32_t last_generation, n_workers, n_sessions;
        uint32_t max_pools;
        struct quota channel_bytes_of;
        struct quota hung_of; /* workers that hang in the kernel, by whose job they ran */
        struct {              /* worker-output.c */
                uint64_t turn, n_read;
        } output;
        bool is_shutting_down;
        bool is_leaving; /* this daemon ends: channels are left to their clients, for the next daemon */
        void (*on_down)(void *user);
        void *on_down_user;
};

void supervisor_add_worker(struct supervisor *s, struct worker *w);
void supervisor_forget_worker(struct supervisor *s, struct worker *w);
struct pool *supervisor_find_generation(struct supervisor *s, uint32_t generation);
/* for one more that is not refused */
int supervisor_check_room(struct supervisor *s, const char *pool, struct fault *f);
void supervisor_pool_is_empty(struct supervisor *s, struct pool *p); /* its last worker is gone */

#define SUPERVISOR_TELL(s, hook, ...)                                                                                  \
        do {                                                                                                           \
                if ((s)->hooks.hook)                                                                                   \
                        (s)->hooks.hook((s)->hooks.user, __VA_ARGS__);                                                 \
        } while (0)
