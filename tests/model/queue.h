/* What the files of the model of the queue share (queue.c says what is modelled): its state, and the steps in it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "tests/model/explore.h"

enum { PROCESSES = 4, CELLS = 4, NO_CELL = 7, REPAIRER = PROCESSES, MAX_STATES = 40000000 };

enum queue_fault {
        RIGHT,
        NO_BROADCAST,   /* repair returns items, but wakes nobody */
        NO_MARK,        /* repair does not say that items came back */
        RESET_BY_VALUE, /* `returned` is a count that goes back to 0: a new return may look like the old one */
        NO_LOOK_AGAIN,  /* who registered sleeps without another attempt */
        NO_LEASE,       /* a get frees the cell: the item dies with its consumer */
        VAIN_CLEAR,     /* a waker that woke nobody clears the flag, whoever registered since */
};

struct queue_config {
        const char *name;
        unsigned n_producers, n_consumers, n_items, n_cells, n_kills;
        enum queue_fault fault;
        const char *expected;
        unsigned returned; /* at the start: the mark of an earlier death, whose item was taken already */
};

extern const struct queue_config *config;

enum cell_state { FREE, WRITING, QUEUED, LEASED, RETURNED };
enum gate { ITEMS, ROOM, GATES };

struct cell {
        uint8_t state : 4, owner : 4; /* process + 1 */
        uint8_t position;
        uint8_t item; /* what stands in it: not part of the word */
};

struct proc {
        uint8_t pc, left;
        uint8_t is_alive : 1, is_queued : 1, is_stale : 1, has_changed : 1, has_registered : 1, is_blocked : 1,
                is_first : 1;
        uint8_t at, from, head; /* positions */
        uint8_t i, best, hint;
        struct cell seen;
};

struct state {
        struct proc proc[PROCESSES];
        struct cell cell[CELLS];
        uint8_t head, tail, returned, n_kills;
        uint8_t flag[GATES]; /* GATE_SLEEPERS */
        uint8_t dead, repaired, repair_pc, repair_i;
        uint8_t accepted, done; /* items, a bit each */
};

_Static_assert(sizeof(struct state) % 8 == 0, "states are hashed in words");

enum pc {
        FINISHED,
        PUT_TAIL,
        PUT_CELL,
        PUT_HELP,
        PUT_HEAD,
        PUT_WALK,
        PUT_MOVE_HEAD,
        PUT_CLAIM,
        PUT_MOVE_TAIL,
        PUT_PUBLISH,
        GET_RETURNED,
        GET_HINT,
        GET_SCAN,
        GET_RESET,
        GET_LEASE_RETURNED,
        GET_HEAD,
        GET_CELL,
        GET_LEASE,
        GET_MOVE,
        WORK,
        DONE,
        REGISTER,
        SLEEP,
        SLEEPING,
        SIGNAL,
        SIGNAL_SEQ,
        SIGNAL_WAKE,
        SIGNAL_VAIN,
        IDLE,
        REPAIR_CELL,
        REPAIR_COUNT,
        REPAIR_MARK,
        REPAIR_SEQ,
        REPAIR_WAKE,
        KILL,
        N_PCS,
};

struct turn {
        struct explore *x;
        struct state s;
        struct proc *p;
        unsigned who, label;
        bool is_disabled;
};

static inline bool is_producer(unsigned who) { return who < config->n_producers; }
static inline unsigned capacity(void) { return config->n_cells / 2; }
static inline struct cell *cell_at(struct turn *t, unsigned position) { return &t->s.cell[position % config->n_cells]; }
static inline bool cell_is(const struct cell *a, const struct cell *b) {
        return a->state == b->state && a->owner == b->owner && a->position == b->position;
}
static inline uint8_t item_bit(unsigned item) { return (uint8_t)(1u << item); }

static inline void emit(struct turn *t) { explore_emit(t->x, &t->s, t->label); }

static inline enum gate gate_waited(unsigned who) { return is_producer(who) ? ROOM : ITEMS; }
static inline enum gate gate_signalled(unsigned who) { return is_producer(who) ? ITEMS : ROOM; }

/* A call starts, and the first attempt of it; one was in vain. queue-cells.c */
void attempt_begin(struct turn *t);
void call_begin(struct turn *t);

/* ---- cells: put and get, a step each; queue-cells.c ---- */

void put_tail(struct turn *t);
void put_cell(struct turn *t);
void put_help(struct turn *t);
void put_head(struct turn *t);
void put_walk(struct turn *t);
void put_move_head(struct turn *t);
void put_claim(struct turn *t);
void put_move_tail(struct turn *t);
void put_publish(struct turn *t);
void get_returned(struct turn *t);
void get_hint(struct turn *t);
void get_scan(struct turn *t);
void get_reset(struct turn *t);
void get_lease_returned(struct turn *t);
void get_head(struct turn *t);
void get_cell(struct turn *t);
void get_lease(struct turn *t);
void get_move(struct turn *t);
void work(struct turn *t);
void done(struct turn *t);

/* ---- gates: producers wait for room and signal items, consumers the other way round; queue-gate.c ---- */

void gate_bump(struct state *s, enum gate gate);
void gate_register(struct turn *t);
void gate_sleep(struct turn *t);
void gate_sleeping(struct turn *t);
void signal_look(struct turn *t);
void signal_seq(struct turn *t);
void signal_wake(struct turn *t);
void signal_vain(struct turn *t);
