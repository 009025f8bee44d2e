/* An arena as one process sees it, and what every kind of object is built from. */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/memory/own-fd.h"
#include "ipc/sync/arena/dead.h"
#include "ipc/sync/arena/owner.h"
#include "ipc/sync/include/drover/sync.h"
#include "ipc/sync/layout.h"

struct drover_arena {
        struct layout_arena *shared;
        uint64_t bytes;     /* of the mapping: the size that addresses are checked against */
        uint64_t process;   /* that mapped it: process_number */
        uint64_t first;     /* where objects begin */
        uint32_t n_objects; /* entries of the directory, whose index as an object this is */
        uint32_t n_participants;
        struct layout_object *objects;
        _Atomic uint64_t *users; /* n_user_words for each entry */
        uint32_t n_user_words;
        _Atomic uint32_t *hashes; /* of the names of entries: HASH_NEVER, … */
        uint64_t identity;    /* participant and generation, as in an owner word; 0: attached to look and repair only */
        uint32_t participant; /* index; n_participants: of one that looks */
        struct own_fd memory;
        _Atomic uint32_t n_refs; /* this one's own and its handles': these may be given back later */
        pthread_mutex_t mutex;   /* of what follows, and of this participant's bits among the users */
        uint32_t *n_handles;     /* of each entry; NULL if it looks only, from one thread */
};

/* The calling thread or fiber as the owner of a word. */
static inline uint64_t arena_self(const struct drover_arena *a) {
        return a->identity | (uint64_t)owner_sub_self() << OWNER_SUB_SHIFT;
}

/* false in the child of a fork, where the memory is not mapped, and what is at its address is not ours. */
bool arena_is_mapped(const struct drover_arena *a);

void arena_ref(struct drover_arena *a);
void arena_unref(struct drover_arena *a);
/* arena_unref() behind a callback of the program's. 0; -EBUSY: that freed the arena, whose memory is gone, and what was
 * opened in it may be. */
int arena_leave(struct drover_arena *a);

/* What drover_arena_error() says in this thread from now on. */
void arena_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- for a broker, which hands arenas out and keeps its own books of who is which participant ---- */

/* Makes and seals the memory file, attaches nobody. -EINVAL, -errno. */
int arena_make(const char *name, uint64_t bytes, uint32_t n_objects, uint32_t n_participants, int *ret_fd);
/* Attaches without becoming a participant: to list, to repair, to find cycles. */
int arena_watch(int fd, struct drover_arena **ret);

/* Keeps an entry for the process that the broker knows as `pid`, and that calls itself `own_pid`. -EUSERS. */
int arena_keep(struct drover_arena *a, uint32_t pid, uint32_t own_pid, uint32_t *ret_participant);
/* Nobody has attached as it so far, or they have detached. */
bool arena_is_kept(const struct drover_arena *a, uint32_t participant);
/* How many entries of its table are not free. */
uint32_t arena_count_places(const struct drover_arena *a);
/* How many objects have a name, as those say who made and removed them. */
uint32_t arena_count_objects(const struct drover_arena *a);
/* A descriptor of the memory file whose file offset tells drover_arena_attach() which entry is kept for it. */
int arena_open_for(const struct drover_arena *a, uint32_t participant, int *ret_fd);
/* That process is dead, and was repaired if it had attached: the entry is anybody's. */
void arena_let_go(struct drover_arena *a, uint32_t participant);

/* The objects from entry *position on, 0 at first: fills up to `n`, returns how many, and moves *position on, to
 * n_objects behind the last. Each line as drover_arena_list's. */
uint32_t arena_list_from(struct drover_arena *a, uint32_t *position, struct drover_object_info *infos, size_t n);

/* The longest wait of a process, as its entries say who they are, or of one thread of it (thread != 0). false: none. */
bool arena_find_wait(struct drover_arena *a, int32_t pid, uint32_t thread, struct drover_wait_info *ret);

/* ---- objects ---- */

/* One object as one process sees it: everything in here was checked once and is private. */
struct object {
        struct drover_arena *arena;
        void *at;
        uint64_t bytes;
        uint64_t parameters[ARENA_PARAMETERS];
        uint32_t index, type, generation;
        bool is_removed; /* when it was looked at */
};

struct object_kind {
        const char *name;
        /* How much memory an object with these parameters needs; 0: they make no sense. */
        uint64_t (*bytes)(const struct drover_arena *a, const uint64_t parameters[ARENA_PARAMETERS]);
        void (*init)(void *at, const uint64_t parameters[ARENA_PARAMETERS]); /* NULL: all zero is right */
        /* Takes from the dead what they hold, and broadcasts what they could have been about to signal. Each step one
         * CAS, repeatable. No more work than the object has bytes. true if something was theirs. */
        bool (*repair)(const struct object *o, const struct dead *dead);
        /* Makes every call for it, also those that wait, return -EIDRM. Repeatable, and as little work for a large
         * object as for a small one. */
        void (*remove)(const struct object *o);
        bool has_lock; /* a struct layout_lock stands first */
        /* Makes whoever waits here look at its wait line. NULL: they sleep at the lock, if there is one. */
        void (*alarm)(const struct object *o);
};

/* NULL for a type that does not exist. */
const struct object_kind *object_kind(uint32_t type);

extern const struct object_kind mutex_kind, recursive_mutex_kind, condition_kind, semaphore_kind, permits_kind,
        event_kind, barrier_kind, rwlock_kind, array_kind, dictionary_kind, queue_kind;

/* Finds or makes, and allocates `handle_bytes` whose first member is a struct object. A parameter of 0 takes what an
 * existing object has. -EINVAL; -EEXIST: another type or other parameters; -ENOSPC; -ENOENT: parameters that are not
 * enough to make one; -ENOMEM; -EPROTO. */
int object_open(struct drover_arena *a, const char *name, enum object_type type,
                const uint64_t parameters[ARENA_PARAMETERS], size_t handle_bytes, void **ret);
/* Gives a handle back, of whatever kind. NULL is fine. */
void object_close(void *handle);

/* The object of directory entry `index`, checked; also one that was removed and is still there. What was looked at may
 * be gone, and its memory another's, unless the entry is used. -ENOENT: no such entry, or it is vacant; -EPROTO. */
int object_look(struct drover_arena *a, uint32_t index, struct object *ret);
/* Its name, with a NUL. */
void object_get_name(const struct drover_arena *a, uint32_t index, char ret[static ARENA_NAME]);

/* ---- users.c: who uses an entry, so that what was removed stays while somebody does ---- */

/* From here to users_leave what object_look finds there stays what it is, removed or not, if it had a name then. */
void users_enter(struct drover_arena *a, uint32_t index);
void users_leave(struct drover_arena *a, uint32_t index);
/* The same for a participant that is dead, and for all that are. */
void users_enter_for(struct drover_arena *a, uint32_t index, uint32_t participant);
void users_leave_dead(struct drover_arena *a, uint32_t index, const struct dead *dead);
bool users_has_any(const struct drover_arena *a, uint32_t index);

/* For one that died with the directory's lock, which it has still: ends what it may have begun to remove there. false:
 * nothing. */
bool object_finish_removal(struct drover_arena *a, uint32_t index);

/* ---- waiting ---- */

/* One wait of one thread, from its first sleep to its end; published in a wait line. */
struct wait {
        struct drover_arena *arena;
        uint64_t deadline_ns;
        uint64_t published;
        uint32_t object;
        uint32_t line; /* + 1; 0 = none */
        bool is_firm;  /* the caller cannot do with -EDEADLK */
};

#define WAIT(a, o, deadline)                                                                                           \
        (struct wait) { .arena = (a), .object = (o), .deadline_ns = (deadline) }

/* Sleeps while *word == seen. 0: look again; -ETIMEDOUT; -EDEADLK: chosen to break a cycle. No wake-up is lost in an
 * error: neither is returned by a call that a waker has counted. */
int wait_sleep(struct wait *w, const _Atomic uint32_t *word, uint32_t seen);
void wait_end(struct wait *w);

/* A wait line in words; `object` is what its word said. */
void wait_describe(struct drover_arena *a, uint32_t line, uint32_t object, struct drover_wait_info *ret);
/* The pid in the entry that an owner word names; 0 = none. */
int32_t wait_pid(const struct drover_arena *a, uint64_t owner);
/* The word of an object's lock, and where it is; NULL if it has none. */
struct layout_lock *wait_lock(struct drover_arena *a, uint32_t object);

/* Takes their lines from the dead. */
void wait_repair(struct drover_arena *a, const struct dead *dead);
