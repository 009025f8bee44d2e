/* Every struct of an arena: the memory in which the sharing objects live.
 *
 * One memfd: header, wait lines, participants, directory, then the objects, each at a line. Rules as in ipc/layout.h:
 * u32 and u64 only; no pointer; all zero is a safe state; a word is loaded once and checked against sizes the reader
 * holds privately. ipc/PROTOCOL.md is normative. */
#pragma once

#include "ipc/layout.h"

#define LAYOUT_MAGIC_ARENA UINT32_C(0x41485244) /* "DRHA" */
#define LAYOUT_ARENA_VERSION 3u

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "the futex half of a u64 word is its low half, at its address");

enum {
        ARENA_DEFAULT_PARTICIPANTS = 256,
        ARENA_MAX_PARTICIPANTS = 4096,
        ARENA_WAITS = 512, /* threads and fibers that wait at once and are seen to; more wait unseen */
        ARENA_DEFAULT_OBJECTS = 256,
        ARENA_MAX_OBJECTS = 1 << 16,
        ARENA_NAME = 56, /* with the NUL */
        ARENA_PARAMETERS = 4,
        ARENA_MAX_PERMITS = 4096,
        ARENA_MAX_PARTIES = 1024,
        ARENA_MAX_CELLS = 1 << 17,
        ARENA_MAX_ITEM = 1 << 20,
        ARENA_MAX_KEY = 1 << 12,
        ARENA_MAX_ENTRIES = 1 << 16,
};

#define ARENA_MAX_BYTES (UINT64_C(1) << 32)

/* ---- owner: who holds a word. flags 8 | participant 16 | sub-owner 24 | generation 16, from bit 0 up ----
 *
 * participant: index + 1 into the arena's table; 0 = nobody. sub-owner: a thread or a fiber of that process.
 * generation: of the participant's entry, so that a word tells two processes apart that had one index in turn. */

enum lock_flag {
        LOCK_WAITERS = 1u << 0,   /* somebody may sleep on the low half */
        LOCK_OWNERDEAD = 1u << 1, /* an owner died; until somebody says that the data is consistent */
        LOCK_LOOK = 1u << 2,      /* turned over when a waiter is chosen as a victim, so that none sleeps on past it */
        LOCK_REMOVED = 1u << 3,   /* the object has no name any more: given back, but never taken again */
};

#define OWNER_FLAGS UINT64_C(0xff)
#define OWNER_PARTICIPANT_SHIFT 8
#define OWNER_SUB_SHIFT 24
#define OWNER_GENERATION_SHIFT 48
#define OWNER_SUB_MASK UINT32_C(0xffffff)

static inline unsigned owner_flags(uint64_t word) { return word & OWNER_FLAGS; }
/* index + 1, 0 = nobody */
static inline uint32_t owner_participant(uint64_t word) { return word >> OWNER_PARTICIPANT_SHIFT & 0xffff; }
static inline uint32_t owner_sub(uint64_t word) { return word >> OWNER_SUB_SHIFT & OWNER_SUB_MASK; }
static inline uint64_t owner_identity(uint64_t word) { return word & ~OWNER_FLAGS; }

/* ---- participants: state 8 | generation 16 | pid 32 | tied 1, from bit 0 up ---- */

enum participant_state {
        PARTICIPANT_FREE = 0,
        PARTICIPANT_LIVE,
        PARTICIPANT_DEAD, /* being repaired; not given out again before that is done */
        PARTICIPANT_KEPT, /* by a broker, for one process, which is not attached */
};

/* A broker gave it to one process and wrote the pid; when that process detaches it is KEPT again. */
#define PARTICIPANT_TIED (UINT64_C(1) << 56)

#define PARTICIPANT_WORD(state, generation, pid)                                                                       \
        ((uint64_t)(state) | (uint64_t)(uint16_t)(generation) << 8 | (uint64_t)(uint32_t)(pid) << 24)
static inline unsigned participant_state(uint64_t word) { return word & 0xff; }
static inline uint16_t participant_generation(uint64_t word) { return (uint16_t)(word >> 8); }
static inline uint32_t participant_pid(uint64_t word) { return (uint32_t)(word >> 24); }

struct layout_participant {
        _Atomic uint64_t word;
        _Atomic uint64_t own_pid; /* of one that is tied: what getpid() says in that process */
        uint64_t reserved[6];
};

/* ---- wait lines: what a thread that sleeps waits for. wait = object + 1 24 | victim 1 | firm 1 | sequence 38 ---- */

#define WAIT_OBJECT_MASK UINT64_C(0xffffff)
#define WAIT_VICTIM (UINT64_C(1) << 24)
#define WAIT_FIRM (UINT64_C(1) << 25) /* it cannot end with -EDEADLK: no victim */
#define WAIT_SEQUENCE_ONE (UINT64_C(1) << 26)

struct layout_wait {
        _Atomic uint64_t owner; /* identity; 0 = the line is free */
        _Atomic uint64_t wait;
        _Atomic uint64_t since_ns;
        uint64_t reserved[5];
};

/* ---- the lock word and its like ---- */

struct layout_lock {
        _Atomic uint64_t word;  /* identity | lock_flag; the low half is the futex */
        _Atomic uint32_t depth; /* of a recursive lock: only its owner touches it */
        uint32_t reserved;
};

/* An eventcount: low half sequence (the futex), high half registrations 31 | sleepers 1 (bit 63). */
struct layout_gate {
        _Atomic uint64_t word;
};

#define GATE_SLEEPERS (UINT64_C(1) << 63)

/* ---- directory ---- */

enum object_type {
        OBJECT_NONE = 0,
        OBJECT_MUTEX,
        OBJECT_RECURSIVE_MUTEX,
        OBJECT_CONDITION,
        OBJECT_SEMAPHORE,
        OBJECT_PERMITS,
        OBJECT_EVENT,
        OBJECT_BARRIER,
        OBJECT_RWLOCK,
        OBJECT_ARRAY,
        OBJECT_DICTIONARY,
        OBJECT_QUEUE,
        OBJECT_N_TYPES,
};

/* ---- an entry's word: type 8 | removed 1 | 0 23 | generation 32, from bit 0 up ----
 *
 * Stored last when an object is made: from then on the entry is valid and does not change until it has been removed and
 * nobody uses it (struct layout_arena, users). Its generation rises with every object that is made there. */

#define OBJECT_REMOVED (UINT64_C(1) << 8) /* it has no name any more; it is there for those who have it open */

#define OBJECT_WORD(type, generation) ((uint64_t)(type) | (uint64_t)(uint32_t)(generation) << 32)
static inline uint32_t object_word_type(uint64_t word) { return word & 0xff; }
static inline uint32_t object_word_generation(uint64_t word) { return (uint32_t)(word >> 32); }

struct layout_object {
        _Atomic uint64_t word;
        _Atomic uint64_t offset, bytes;
        _Atomic uint64_t parameters[ARENA_PARAMETERS];
        _Atomic uint64_t name[ARENA_NAME / sizeof(uint64_t)];
        _Atomic uint32_t n_repaired; /* deaths that changed something here */
        uint32_t pad;
        uint64_t reserved;
};

/* The hash of a name that stands beside its entry. */
enum {
        HASH_NEVER = 0, /* neither this entry nor one behind it was ever filled */
        HASH_VACANT,    /* its object is gone, the next may have it */
        HASH_FIRST,     /* from here on: of a name */
};

struct layout_arena {
        struct layout_header header;
        uint64_t bytes;
        uint32_t n_objects; /* entries of the directory: what the arena was made with, as is n_participants */
        /* Under the directory's lock, counted anew after a death there: */
        _Atomic uint32_t n_made;     /* entries that were ever filled */
        _Atomic uint64_t end, limit; /* the free memory that is given out now */
        _Atomic uint32_t n_gone;     /* of n_made: removed or vacant */
        uint32_t n_participants;
        uint64_t pad0;
        struct layout_lock directory; /* creation and removal run under it */
        uint64_t pad1[6];
        struct layout_wait waits[ARENA_WAITS];
        struct layout_participant participants[];
        /* n_participants; then n_objects entries; for each its users, arena_user_words() u64, one bit a participant and
         * one for a broker: whoever has the object open; for each the hash of its name, u32; then, at a page, objects
         */
};

static inline uint32_t arena_user_words(uint32_t n_participants) { return n_participants / 64 + 1; }

/* Where the objects of an arena with so many entries begin. */
static inline uint64_t arena_first_object(uint32_t n_objects, uint32_t n_participants) {
        uint64_t entry =
                sizeof(struct layout_object) + arena_user_words(n_participants) * sizeof(uint64_t) + sizeof(uint32_t);
        uint64_t bytes =
                sizeof(struct layout_arena) + n_participants * sizeof(struct layout_participant) + n_objects * entry;
        return (bytes + LAYOUT_PAGE - 1) / LAYOUT_PAGE * LAYOUT_PAGE;
}

/* ---- objects. Those that have a lock have it first. ---- */

struct layout_mutex {
        struct layout_lock lock;
        uint64_t pad[6];
};

struct layout_condition {
        _Atomic uint32_t sequence; /* futex; bit 0: somebody may sleep. Changed under the mutex, and by repair */
        _Atomic uint32_t is_removed;
        uint64_t pad[7];
};

#define SEMAPHORE_REMOVED (UINT32_C(1) << 31)

struct layout_semaphore {
        _Atomic uint32_t value; /* or SEMAPHORE_REMOVED and what it was */
        uint32_t pad0;
        struct layout_gate gate;
        uint64_t pad[6];
};

struct layout_permits {
        struct layout_gate gate;
        _Atomic uint32_t is_removed;
        uint32_t pad0;
        uint64_t pad[6];
        _Atomic uint64_t leases[]; /* one per permit: identity of the holder, 0 = free */
};

/* set 1 | sleepers 1 | removed 1 | epoch 29: the epoch rises with every set, so that a waiter that was woken knows it.
 */
enum { EVENT_SET = 1, EVENT_SLEEPERS = 2, EVENT_REMOVED = 4, EVENT_EPOCH = 8 };

struct layout_event {
        _Atomic uint32_t word;
        uint32_t pad0;
        uint64_t pad[7];
};

/* low half, the futex: broken 1 | phase 31; high half: how the phases before ended, a bit each (1 = broken). */
#define BARRIER_BROKEN UINT64_C(1)

struct layout_barrier {
        _Atomic uint64_t word;
        _Atomic uint32_t is_removed;
        uint32_t pad0;
        uint64_t pad[6];
        _Atomic uint32_t members[]; /* handles of each participant: the death of one breaks */
        /* then, at 8 bytes, a u64 per party: phase + 1 32 | 0 16 | participant 16, from bit 63 down */
};

struct layout_rwlock {
        struct layout_lock writer;
        struct layout_gate drained; /* the writer waits here for the readers to go */
        struct layout_gate opened;  /* readers wait here for the writer to go */
        uint64_t pad[4];
        struct layout_readers {
                _Atomic uint64_t n; /* of one participant's threads; they die together */
                uint64_t pad[7];
        } readers[];
};

struct layout_array {
        struct layout_lock lock;
        uint64_t pad[6];
        /* then the elements */
};

/* used 1 | copy 1 | key bytes 16 | value bytes 24, from bit 0 up. 0: never used. used = 0 and more: was used. */
struct layout_dictionary {
        struct layout_lock lock;
        _Atomic uint32_t n_used; /* under the lock; counted anew after a death */
        uint32_t pad0;
        uint64_t pad[5];
        _Atomic uint64_t entries[]; /* then per entry: the key, and two copies of the value */
};

/* ---- queue: one word per cell is the truth; head and tail are hints that lag ---- */

enum cell_state {
        CELL_FREE = 0,
        CELL_WRITING, /* the producer's whose participant stands there */
        CELL_QUEUED,
        CELL_RETURNED, /* queued again after a lease; found by a scan, not by way of the head */
        CELL_LEASED,   /* the consumer's whose participant stands there */
};

/* state 4 | participant 16 | position 44, from bit 0 up */
#define CELL_POSITION_MASK ((UINT64_C(1) << 44) - 1)
#define CELL_WORD(state, participant, position)                                                                        \
        ((uint64_t)(state) | (uint64_t)(participant) << 4 | ((uint64_t)(position)&CELL_POSITION_MASK) << 20)

enum queue_end {
        QUEUE_CLOSED = 1u << 0,
        QUEUE_REMOVED = 1u << 1,
};

struct layout_queue {
        struct layout_lock lock; /* LIFO and priority only */
        uint64_t pad0[6];
        _Atomic uint64_t tail; /* next position to fill */
        uint64_t pad1[7];
        _Atomic uint64_t head; /* next position to take */
        uint64_t pad2[7];
        struct layout_gate items, room, done;
        _Atomic uint32_t ends;     /* enum queue_end bits */
        _Atomic uint32_t watched;  /* cell + 1 whose end a joiner waits for */
        _Atomic uint32_t returned; /* rises with every return of an item; lowest bit: some since the last vain scan */
        uint32_t pad3;
        uint64_t pad4[3];
        _Atomic uint64_t cells[]; /* then _Atomic uint64_t meta[]: bytes 32 | priority 32; then, at a line, the items */
};

static_assert(sizeof(struct layout_participant) == LAYOUT_LINE);
static_assert(sizeof(struct layout_wait) == LAYOUT_LINE);
static_assert(sizeof(struct layout_object) == 2 * LAYOUT_LINE);
static_assert(offsetof(struct layout_arena, directory) == 64);
static_assert(offsetof(struct layout_arena, waits) == 128);
static_assert(sizeof(struct layout_lock) == 16);
static_assert(sizeof(struct layout_mutex) == LAYOUT_LINE);
static_assert(sizeof(struct layout_condition) == LAYOUT_LINE);
static_assert(sizeof(struct layout_semaphore) == LAYOUT_LINE);
static_assert(offsetof(struct layout_permits, leases) == 64);
static_assert(sizeof(struct layout_event) == LAYOUT_LINE);
static_assert(offsetof(struct layout_barrier, members) == 64);
static_assert(offsetof(struct layout_rwlock, readers) == 64);
static_assert(sizeof(struct layout_array) == LAYOUT_LINE);
static_assert(offsetof(struct layout_dictionary, entries) == 64);
static_assert(offsetof(struct layout_queue, tail) == 64);
static_assert(offsetof(struct layout_queue, items) == 192);
static_assert(offsetof(struct layout_queue, cells) == 256);
