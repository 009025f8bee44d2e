/* Arenas: the memories with sharing objects (ipc/sync) that the broker makes, hands out by name, accounts to a uid, and
 * repairs when a process that opened one dies. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/config/config.h"
#include "daemon/loop/loop.h"
#include "daemon/supervise/facts/fault.h"
#include "ipc/sync/include/drover/sync.h"

enum {
        ARENAS_MAX = 1024,
        ARENAS_PER_UID = 256,
        ARENAS_MAX_USERS = 4096, /* processes watched at once */
        ARENAS_USERS_PER_UID = 512,
        ARENAS_USERS_OF_WORKERS = 1024, /* of all, that only workers get */
        ARENAS_DEFAULT_BYTES = 1 << 20,
        ARENAS_MAX_LISTED = 1000, /* objects in one answer */
        /* How many tables of lines are looked through in one search for cycles, in all such within ARENAS_LOOKS_NS, and
         * in that time to say who waits for what. */
        ARENAS_SEARCH_LOOKS = 1024,
        ARENAS_CYCLE_LOOKS = 2048,
        ARENAS_WAIT_LOOKS = 4096,
};

#define ARENAS_LOOKS_NS UINT64_C(25000000)
#define ARENAS_COUNT_NS UINT64_C(5000000) /* in that time, to count places that are taken */

#define ARENAS_BYTES_PER_UID (UINT64_C(4) << 30)

struct arenas;
struct arena;

int arenas_new(struct arenas **ret, struct loop *loop);
struct arenas *arenas_free(struct arenas *as); /* forgets them; who has one mapped keeps it */

struct arena_request {
        const char *name;
        uid_t uid;
        uint64_t bytes;       /* for objects; 0 = as it is, or ARENAS_DEFAULT_BYTES */
        uint32_t n_objects;   /* at most; 0 = as it is, or ARENA_DEFAULT_OBJECTS */
        uint32_t n_processes; /* at most; 0 = as it is, or ARENA_DEFAULT_PARTICIPANTS */
        bool is_transient;    /* if it is made: it ends with its last user */
        bool is_worker;       /* its process is: its uid's share is not asked, the pools bound how many there are */
        pid_t pid;            /* who will have it, and a descriptor of that process, which is borrowed */
        int pidfd;
};

struct arena_offer {
        int memory_fd; /* the caller's to close; to this process only: it says which place is its */
        uint64_t bytes;
        bool is_created;
};

/* Finds or makes. From now on the process is watched. -EINVAL: a bad name, or too few or too many bytes; -EDQUOT: the
 * uid's share is used up; -ENFILE: ARENAS_MAX; -EUSERS: too many processes, or no place left; -ESRCH: it is dead;
 * -ENOMEM, -EMFILE …; with the same in words. */
int arenas_open(struct arenas *as, const struct arena_request *q, struct arena_offer *ret, struct fault *f);

struct arena *arenas_find(struct arenas *as, uid_t uid, const char *name);
/* The name is free again. The memory is accounted until the last process that opened it has ended. */
void arenas_remove(struct arena *a);

struct arena_info {
        const char *name;
        uid_t uid;
        uint64_t bytes;
        uint32_t n_objects, max_objects;
        uint32_t n_places,
                max_places; /* of its table of processes: how many are taken, or were when it was last counted */
        uint32_t n_users;   /* processes that opened it and live */
        bool is_transient;
};

/* The arena after `after` (NULL: the first) that has a name. NULL: there is no more. */
struct arena *arenas_next(struct arenas *as, const struct arena *after);
void arena_get_info(struct arena *a, struct arena_info *ret);

const char *arena_name(const struct arena *a);
uid_t arena_uid(const struct arena *a);
/* The objects from position *position on (0: the first), at most ARENAS_MAX_LISTED; belongs to the arenas, until the
 * next call. *position is moved on; 0: there are no more. How many, or -ENOMEM. */
int arena_list_objects(struct arena *a, uint32_t *position, size_t limit, const struct drover_object_info **ret);

struct arena_wait {
        struct arena *arena;
        struct drover_wait_info info;
        bool ends; /* with -EDEADLK, if the cycle is broken */
};

/* The longest wait of a process, or of one thread of it (thread != 0), in the arenas that it opened; of no arena: there
 * is none. false: not all of these were looked into, because too much was lately. */
bool arenas_find_wait(struct arenas *as, pid_t pid, uint32_t thread, struct arena_wait *ret);

struct arena_cycle {
        const struct arena_wait *waits; /* in their order */
        size_t n;
        bool is_new;     /* it was not found before */
        bool is_cut_off; /* none was found, and the search would take longer than one may */
};

/* A cycle that a wait of this process is in or leads to, through whatever arenas; valid until the next call. */
void arenas_find_cycle(struct arenas *as, pid_t pid, struct arena_cycle *ret);
/* Breaks what was found last: its youngest waiter is told. */
void arenas_break_cycle(struct arenas *as);

/* Arena number `i` of those that a process has opened; NULL: it has no more. */
struct arena *arenas_opened_by(struct arenas *as, pid_t pid, size_t i);
