/* Arenas and who opened them, as arenas.c and arena-users.c share them. */
#pragma once

#include <sys/queue.h>

#include "daemon/supervise/arenas/arenas.h"
#include "ipc/sync/arena/repair.h"
#include "ipc/sync/wait/cycle.h"

struct arena_user;

struct arena {
        struct arenas *arenas;
        char name[POOL_NAME_MAX + 1];
        uid_t uid;
        uint64_t bytes;
        uint32_t n_objects; /* at most */
        uint32_t n_places;  /* at most */
        uint32_t n_taken;   /* of them, when they were last counted */
        struct drover_arena *watch;
        struct arena_user **holders; /* for whom each of its places is kept; NULL = nobody */
        uint32_t n_users;
        uint64_t last_cycle; /* since when its waiters waited, added up: tells it from the next */
        bool is_removed;
        bool is_transient; /* removed when its last user ends */
        TAILQ_ENTRY(arena) link;
};

struct arena_place {
        struct arena *arena;
        uint32_t participant;
};

struct arena_user {
        struct arenas *arenas;
        uid_t uid;
        bool is_worker;
        pid_t pid;
        uint32_t own_pid; /* what getpid() says there */
        int pidfd;
        struct loop_poll poll;
        struct arena **opened;
        size_t n_opened;
        struct arena_place *places; /* that are kept for it */
        size_t n_places;
        struct repair repair; /* when it is dead: of the last that it opened; of no arena: not begun */
        TAILQ_ENTRY(arena_user) link;
};

/* What searches may cost, all together: given anew from time to time. */
struct arena_looks {
        struct cycle_budget left;
        uint64_t given_ns;
};

struct arenas {
        struct loop *loop;
        TAILQ_HEAD(, arena) all;
        TAILQ_HEAD(arena_users, arena_user) users, dead; /* the dead: until they are repaired */
        struct loop_timer repair_timer;
        size_t n_all, n_users;              /* n_users: the dead are counted, too */
        struct drover_object_info *objects; /* ARENAS_MAX_LISTED, of the arena that was looked at last; NULL before */
        struct arena_looks cycle_looks, wait_looks;
        uint64_t count_given_ns, count_spent_ns; /* the same, of counting places */
        struct cycle_step steps[CYCLE_MAX];
        uint32_t n_steps;
        struct arena_wait cycle[CYCLE_MAX];
};

void arena_collect(struct arena *a); /* frees it if it has no name and no users */

struct arena_user *arena_user_find(struct arenas *as, pid_t pid);
void arena_users_free(struct arenas *as); /* nothing is repaired */

/* The process of the request opens the arena: from now on it is watched, and a place is kept for it. */
int arena_user_open(struct arena *a, const struct arena_request *q, uint32_t *ret_participant, struct fault *f);
