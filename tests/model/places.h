/* What the files of the model of bells share (places.c says what is modelled): its state, and who takes steps in it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "tests/model/explore.h"

enum { WORKERS = 2, CLIENTS = 2, MAX_STATES = 80000000 };
enum { OWN, ONE, TWO, BELLS }; /* ONE and TWO are the clients' */
enum { WHO_CLIENT = WORKERS, WHO_BROKER = WORKERS + CLIENTS };

enum places_fault {
        RIGHT,
        NOT_TOLD,      /* a place changes hands, and no worker hears of it */
        TOLD_FIRST,    /* the workers are told, then the modes change */
        NOBODY_WOKEN,  /* who gets no place is left alone */
        NO_BATON,      /* a claimer wakes nobody for bells without a place */
        OLD_LIST,      /* nor for those that had one when it read the table, and on which nobody sleeps any more */
        TABLE_FIRST,   /* a worker reads the table, then takes note of the control word */
        PLACED_ONLY,   /* a worker looks only at bells that have a place */
        NO_DEATH_MARK, /* after a death work bits stay as they are */
};

struct places_config {
        const char *name;
        unsigned n_jobs[CLIENTS], n_kills;
        enum places_fault fault;
        bool is_violated, is_long; /* long: only with the argument `long` */
};
extern const struct places_config *config;

enum pc {
        TOP,
        READ,
        SCAN_BIT,
        SCAN_CLAIM,
        SETTLE_BIT,
        SETTLE_CLEAR,
        SETTLE_LOOK,
        SETTLE_MARK,
        LIE_SET,
        LIE_READ,
        REASON_LYING,
        WAIT,
        ASLEEP,
        RISE,
        BATON_SLEEPERS,
        BATON_LOOK,
        BATON_WORK,
        BATON_SEQ,
        BATON_WAKE,
        OTHERS_SLEEPERS,
        OTHERS_AWAKE,
        OTHERS_LOOK,
        OTHERS_WORK,
        OTHERS_NEXT,
        OTHERS_SEQ,
        OTHERS_WAKE,
        RUN,
        /* clients */
        PUSH,
        RING_BIT,
        RING_SET,
        RING_MODE,
        RING_BROKER,
        RING_SLEEPERS,
        RING_WAKE,
        FINISHED,
        /* broker */
        IDLE,
        HEAR,
        PASS,
        LOOK,
        MODE_OLD,
        BIT_OLD,
        MODE_NEW,
        BIT_NEW,
        TELL,
        ROUSE,
        DEATH_PUSH,
        DEATH_FORGET,
        DEATH_MARK,
        DEATH_SEQ,
        DEATH_WAKE,
        KILL,
};

struct worker {
        uint8_t pc, k;  /* k: how far it is in a loop over bells */
        uint8_t waited; /* ONE, TWO, or 0: only on OWN */
        uint8_t pad;
        uint8_t from;    /* the bell that it claimed from, while it passes the baton; else 0 */
        uint8_t job;     /* the same, while it runs */
        uint8_t changed; /* bit = bell: its sequence is not what it read */
        uint8_t is_alive : 1, is_asleep : 1, is_told : 1; /* told: its control word is not what it read */
};

struct client {
        uint8_t pc, left;
};

struct state {
        struct worker worker[WORKERS];
        struct client client[CLIENTS];
        uint8_t queued[BELLS], sleepers[BELLS]; /* sleepers: bit = worker */
        uint8_t work, futex, placeless;         /* bit = bell; futex: mode FUTEX */
        uint8_t is_rung;
        uint8_t broker_pc, broker_k, placed; /* placed: the broker knows who has the place */
        uint8_t dead, dead_job;              /* dead: worker + 1 that is to be recovered from */
        uint8_t n_kills;
        uint8_t pad[4];
};

_Static_assert(sizeof(struct state) % 8 == 0, "states are hashed in words");

struct turn {
        struct explore *x;
        struct state s;
        unsigned label;
};

static inline void emit(struct turn *t) { explore_emit(t->x, &t->s, t->label); }

static inline bool bit(uint8_t word, unsigned i) { return word >> i & 1; }

static inline void put(uint8_t *word, unsigned i, bool value) {
        *word = (uint8_t)((*word & ~(1u << i)) | (unsigned)value << i);
}

static inline unsigned other(unsigned bell) { return ONE + TWO - bell; }

static inline bool waits_on(const struct worker *w, unsigned bell) { return bell == OWN || w->waited == bell; }

/* ---- sequences and futexes: places-worker.c ---- */

void bump(struct state *s, unsigned bell);
void rouse(struct worker *w);
void wake_all(struct state *s, unsigned bell);
/* One of those that sleep there, whichever the kernel takes. */
void emit_wake_one(struct turn *t, unsigned bell);

/* ---- all steps that somebody can take: places-worker.c, places-broker.c ---- */

void step_worker(struct explore *x, const struct state *s, unsigned who);
void kill_worker(struct explore *x, const struct state *s, unsigned who);
void step_client(struct explore *x, const struct state *s, unsigned who);
void step_broker(struct explore *x, const struct state *s);
