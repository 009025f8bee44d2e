/* The model of slot, ring, bell, done words and recovery: its state, and how its files share it.
 *
 * One operation (struct jobs_op) is one access to shared memory, or one system call on a futex, of ipc/channel/ring.c,
 * bell.c, channel.c, channel-recovery.c, client/session.c, session-wait.c, plugins/host/job/serve-process.c or
 * daemon/supervise/deaths/recovery.c, with all the private work up to the next one. jobs.c says what is left out and
 * why that is sound. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "tests/model/explore.h"

enum {
        CLIENTS = 2,
        WORKERS = 2,
        BROKER = CLIENTS + WORKERS, /* processes: clients, workers, broker */
        PROCESSES,
        BELLS = 2, /* a bell comes with one channel here */
        RINGS = 2, /* one for each of two bells, or both for the only one */
        CELLS = 2, /* of a ring */
        SLOTS = 4,
        GENERATIONS = 4,
        FIRST_GENERATION = 2, /* of the free slots at the start, so that the second job wraps */
        MAX_POSITION = 7,
};

/* ---- what may be done wrong, to see whether the checker sees it ---- */

enum jobs_fault {
        RIGHT = 0,
        /* A fence is dropped: the write before it stays in the store buffer while the reads after it are made. */
        FENCE_S1, /* hint published | work bit read */
        FENCE_S2, /* work bit set | spinners, sleepers read */
        FENCE_S3, /* sleeper bit set | seq, work bits read */
        FENCE_S4, /* spinner bit cleared | second look */
        FENCE_S5, /* work bit cleared | second look into the ring */
        FENCE_S6, /* work bit set again | sleepers read, by the one that passes the baton */
        FENCE_D1, /* done bit set | done_wait read */
        FENCE_D2, /* done_wait set | done_seq and done bits read */
        /* Something is left out or done in another order. */
        NO_DEATH_BROADCAST,      /* of the bells */
        NO_DONE_BROADCAST,       /* of the done words */
        NO_MARK_AFTER_DEATH,     /* work bits of channels with work are not set again */
        NO_FORGET,               /* the dead's sleeper and spinner bits stay */
        NO_ANNOUNCE_AFTER_DEATH, /* a verdict whose done bit may be missing is not announced again */
        NO_RISE,                 /* who gets up does not count it */
        NO_RISE_OF_THE_DEAD,     /* nor the broker for the dead */
        NOTE_LATE_RISES,         /* of a wake-up, with the count of after it */
        NO_BACK_ROW,             /* of a bell is ever woken */
        NO_BATON,
        NO_FULL_CHECK,
        NO_OTHER_RING,     /* a push that finds its ring full gives up */
        NO_SECOND_LOOK,    /* of a settler */
        SEQ_LAST,          /* a client reads done_seq after it has set done_wait */
        HEAD_FIRST,        /* the head is advanced before the slot is claimed */
        RESULT_IN_PLACE,   /* the worker writes its result over the job's input */
        REQUEUE_UNCHECKED, /* a live worker's job is requeued as well */
};

struct jobs_config {
        const char *test, *name;
        unsigned n_clients, n_workers, n_bells, n_slots_each, n_items_each, n_kills;
        bool may_spin;    /* workers look for a while before they sleep */
        bool has_waiters; /* clients wait for verdicts; else they just see them, and only when they need the slot */
        bool is_coarse;   /* operations that commute are joined: jobs.c */
        bool is_poisoned_at_once; /* by one death; else a job survives all there are */
        bool has_rows;            /* the bell's front row is the first worker, and the second is behind it */
        bool has_restart;         /* the dead worker's index is given to a new one */
        bool is_compact;          /* too large to keep: explore.h */
        enum jobs_fault fault;
        const char *expected; /* the violation that a fault must cause */
};

extern const struct jobs_config *config;

/* ---- state ---- */

enum slot_state { FREE, FILLING, QUEUED, RUNNING, DONE, CANCELLED, POISONED };

struct slot {
        uint16_t state : 3, generation : 2, attempt : 2, owner : 2; /* owner: worker + 1 */
        uint16_t is_spoiled : 1;                                    /* the job area is not what the client wrote */
        uint16_t has_result : 1, result : 2;                        /* the generation whose result stands there */
};

struct ring {
        uint32_t head : 3, tail : 3, cell0 : 7, cell1 : 7;
};

struct bell {
        uint8_t sleepers : 2, spinners : 2, work : 1, woken : 1; /* woken: as many rises as it says */
};

struct done {
        uint8_t bits : 2, wait : 1;
};

/* A process: where it is, what it holds in private memory, and its store buffer. Fields serve several purposes:
 *
 *            client                          worker                          broker
 *   pos      tail being pushed to            head looked at                  tail, head
 *   slot     the one being pushed, ...       of the hint, the job            being repaired
 *   seen     cell; done bits taken           attempt of the word loaded      cell
 *   ring     of the channel: 0 is the job's own priority's, 1 another one (with two bells there is only the first)
 *   head     in ring_make_room                                               the same
 *   ctx      when it collects (enum when)    bell being served, next bell    the dead
 *   stale    done_seq moved on               bell i's seq moved on: bit i
 *   row      of the bell being woken         the same                        the same
 *   risen    somebody got up since `rises` of the bell was read, or `woken` named another count
 *   queued   in the futex queue              in bell i's futex queue: bit i
 *   left     items to submit                 bell of a loop                  index of a loop
 *   own      enum own, 2 bits a slot         enum after, where a subroutine returns to */
struct proc {
        uint64_t pc : 7, is_alive : 1, pos : 3, slot : 2, generation : 2, seen : 7, head : 3, ctx : 2, stale : 2,
                queued : 2, left : 2, own : 4, ring : 1, risen : 1, row : 1;
        uint64_t var0 : 5, value0 : 7, var1 : 5, value1 : 7; /* oldest first; var 0: none */
};

struct state {
        struct proc proc[PROCESSES];
        struct slot slot[SLOTS];
        struct ring ring[RINGS];
        struct bell bell[BELLS];
        struct done done[CLIENTS];
        uint8_t record[WORKERS]; /* slot | generation << 2 | written << 4 */
        uint8_t n_kills;
        uint8_t dead; /* processes the broker has not recovered yet, a bit each */
};

_Static_assert(sizeof(struct proc) == 8 && sizeof(struct state) == 64, "a state is one cache line");

/* ---- taking a step ---- */

struct turn {
        struct explore *explore;
        struct state s; /* becomes the next state */
        struct proc *p; /* in s */
        unsigned who, label;
        bool is_plain;    /* this operation's writes go to the store buffer */
        bool is_disabled; /* it cannot be taken now */
};

enum op_kind {
        LOAD,
        STORE,  /* plain: buffered */
        LOCKED, /* or a system call: the store buffer is empty before and after */
};

struct jobs_op {
        void (*run)(struct turn *t);
        const char *text;
        enum op_kind kind;
        enum jobs_fault fence; /* dropped by this fault: then LOCKED is STORE */
        bool joins;            /* in a coarse model it is one step with the operation before it (jobs.c) */
};

/* Program counters. The three subroutines are shared by the parties named. */
enum pc {
        FINISHED,
        /* push: clients and broker */
        PUSH_TAIL,
        PUSH_CELL,
        PUSH_HELP,
        PUSH_HEAD,
        PUSH_HEAD_CELL,
        PUSH_IS_LIVE,
        PUSH_DROP,
        PUSH_CAS,
        PUSH_BUMP,
        /* bell_wake_one: clients and workers */
        WAKE_SPINNERS,
        WAKE_SLEEPERS,
        WAKE_WOKEN,
        WAKE_RISES,
        WAKE_SEQ,
        WAKE_FUTEX,
        WAKE_NOTE,
        /* channel_announce: workers and broker */
        DONE_BIT,
        DONE_WAIT_LOOK,
        DONE_WAIT_TAKE,
        DONE_SEQ,
        DONE_FUTEX,
        /* client */
        CLIENT_BEGIN,
        CLIENT_QUEUE,
        CLIENT_UNDO,
        CLIENT_WORK_LOOK,
        CLIENT_WORK_SET,
        CLIENT_COLLECT,
        CLIENT_TAKE,
        CLIENT_LOOK,
        CLIENT_WAIT_SET,
        CLIENT_WAIT_SEQ,
        CLIENT_SLEEP,
        CLIENT_SLEEPING,
        CLIENT_WAIT_END,
        CLIENT_FREE,
        /* worker */
        WORKER_SCAN,
        WORKER_HEAD,
        WORKER_CELL,
        WORKER_WORD,
        WORKER_SKIP,
        WORKER_CLAIM,
        WORKER_ADVANCE,
        WORKER_MORE_HEAD,
        WORKER_MORE_CELL,
        WORKER_CLEAR,
        WORKER_MARK,
        WORKER_BATON_SLEEPERS,
        WORKER_BATON_WORK,
        WORKER_HANDLER,
        WORKER_FINISH,
        WORKER_SPIN_SET,
        WORKER_SPIN_LOOK,
        WORKER_SPIN_CLEAR,
        WORKER_SPIN_RELOOK,
        WORKER_SLEEPER_SET,
        WORKER_SEQ,
        WORKER_RELOOK,
        WORKER_SLEEP,
        WORKER_SLEEPING,
        WORKER_SLEEPER_CLEAR,
        WORKER_RISE,
        /* broker */
        BROKER_IDLE,
        BROKER_WORD,
        BROKER_REQUEUE,
        BROKER_REQUEUE_MARK,
        BROKER_FORGET,
        BROKER_RISE,
        BROKER_HEAD,
        BROKER_CELL,
        BROKER_MARK,
        BROKER_DONE_SEQ,
        BROKER_DONE_FUTEX,
        BROKER_SEQ,
        BROKER_FUTEX,
        BROKER_DROP_WORD,
        BROKER_DROP,
        N_PCS,
};

/* By program counter; each file fills in its own. */
extern const struct jobs_op jobs_shared_ops[N_PCS], jobs_client_ops[N_PCS], jobs_worker_ops[N_PCS],
        jobs_broker_ops[N_PCS];

/* t->s is one outcome; the caller makes the next (of an operation that has several). */
void turn_emit(struct turn *t);
void turn_fail(struct turn *t, const char *what);

/* Shared words that may stand in a store buffer: a store buffer's own view first. */
enum {
        VAR_NONE,
        VAR_WORK = 1,
        VAR_SLEEPER = 3,
        VAR_SPINNER = 7,
        VAR_DONE_BIT = 11,
        VAR_DONE_WAIT = 15,
        VAR_CELL = 17,
        VAR_TAIL = 21
};

static inline unsigned var_work(unsigned bell) { return VAR_WORK + bell; }
static inline unsigned var_sleeper(unsigned worker, unsigned bell) { return VAR_SLEEPER + worker * BELLS + bell; }
static inline unsigned var_spinner(unsigned worker, unsigned bell) { return VAR_SPINNER + worker * BELLS + bell; }
static inline unsigned var_done_bit(unsigned slot) { return VAR_DONE_BIT + slot; }
static inline unsigned var_done_wait(unsigned client) { return VAR_DONE_WAIT + client; }
static inline unsigned var_cell(unsigned ring, unsigned position) { return VAR_CELL + ring * CELLS + position % CELLS; }
static inline unsigned var_tail(unsigned ring) { return VAR_TAIL + ring; }

unsigned jobs_load(const struct turn *t, unsigned var);
void jobs_store(struct turn *t, unsigned var, unsigned value);
void jobs_memory_set(struct state *s, unsigned var, unsigned value);
unsigned jobs_load_bits(const struct turn *t, unsigned first_var, unsigned n, unsigned stride);

/* A slot's transition: whoever makes it, it must be allowed to. */
void jobs_slot_set(struct turn *t, unsigned slot, struct slot to);

static inline unsigned bells_mask(void) { return (1u << config->n_bells) - 1; }
static inline unsigned client_of(unsigned slot) { return slot / config->n_slots_each; }
static inline unsigned bell_of(unsigned slot) { return client_of(slot) % config->n_bells; }
/* Rings of a channel, and which of all is ring `i` of the channel of `bell`. */
static inline unsigned n_rings(void) { return RINGS / config->n_bells; }
static inline unsigned ring_of(unsigned bell, unsigned i) { return config->n_bells == 1 ? i : bell; }
static inline unsigned row_of(unsigned worker) { return config->has_rows ? worker - CLIENTS : 0; }
static inline bool is_client(unsigned who) { return who < CLIENTS; }
static inline bool is_worker(unsigned who) { return who >= CLIENTS && who < BROKER; }

static inline unsigned cycle_of(unsigned position) { return position / CELLS + 1; }
static inline unsigned cell_pack(unsigned position, unsigned generation, unsigned slot) {
        return cycle_of(position) << 4 | generation << 2 | slot;
}
static inline unsigned cell_cycle(unsigned cell) { return cell >> 4; }
static inline unsigned cell_generation(unsigned cell) { return cell >> 2 & 3; }
static inline unsigned cell_slot(unsigned cell) { return cell & 3; }

static inline bool slot_is_verdict(enum slot_state state) { return state >= DONE; }

static inline bool slot_is_live(const struct state *s, unsigned slot, unsigned generation) {
        return s->slot[slot].state == QUEUED && s->slot[slot].generation == generation;
}

/* FUTEX_WAKE on a bell or on a client's done_seq, and the seq + 1 before it. */
void bell_bump(struct state *s, unsigned bell, unsigned row);
void bell_wake_all(struct state *s, unsigned bell, unsigned row);
void bell_rise(struct state *s, unsigned bell);
void done_wake(struct state *s, unsigned client);
void done_bump(struct state *s, unsigned client);

/* Entries of the subroutines, and what their callers do next. */
void push_begin(struct turn *t);
void client_after_push(struct turn *t, bool is_full);
void broker_after_push(struct turn *t);
void wake_begin(struct turn *t);
void client_after_wake(struct turn *t);
void worker_after_wake(struct turn *t);
void announce_begin(struct turn *t);
void worker_after_announce(struct turn *t);
void broker_after_announce(struct turn *t);

void client_start(struct state *s, unsigned client);
void worker_start(struct proc *p);

/* jobs-symmetry.c */
void jobs_canonicalize(void *state);
