/* The model of bells that change places (ipc/PROTOCOL.md, 4.3): plugins/host/serve-process.c, orders.c, ipc/bell.c and
 * daemon/supervise/pool-places.c. Two workers, which wait on the broker's own bell and on one more; two clients, each
 * with a bell of its own, of which one has that place; the broker, which gives it to the other one whenever it likes,
 * or does not. A worker may be killed anywhere.
 *
 * A step is one access to a shared word, one futex call or one claim; a sequence and the call after it are one step
 * where the waker cannot be killed between them, and so is the broker's passing on, which only adds wake-ups. A ring is
 * the number of hints in it. Whether a sequence or a control word changed since a worker read it is a bit of that
 * worker's. Left out: spinning, priorities, and that a wake-up is spared while another is on its way: the model of jobs
 * has what of that is about bells with a place. All accesses are seq_cst, so there are no store buffers.
 *
 * Property. At rest, that is when nothing moves but jobs, which may run for ever: no worker sleeps beside a queued job.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

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

static const struct places_config {
        const char *name;
        unsigned n_jobs[CLIENTS], n_kills;
        enum places_fault fault;
        bool is_violated, is_long; /* long: only with the argument `long` */
} configs[] = {
        {"one job each", {1, 1}, 0, RIGHT, false},
        {"two jobs without a place", {0, 2}, 0, RIGHT, false},
        {"one job without a place, a kill", {0, 1}, 1, RIGHT, false},
        {"one job each, a kill", {1, 1}, 1, RIGHT, false},
        {"one job, and two without a place", {1, 2}, 0, RIGHT, false, true},
        {"a place changes hands and nobody is told", {0, 1}, 0, NOT_TOLD, true},
        {"told before the modes change", {0, 2}, 0, TOLD_FIRST, true},
        {"who gets no place is left alone", {0, 1}, 0, NOBODY_WOKEN, true},
        {"no baton for bells without a place", {0, 2}, 0, NO_BATON, true},
        {"a baton by an old list", {1, 1}, 0, OLD_LIST, true},
        {"the table, then the control word", {1, 2}, 0, TABLE_FIRST, true, true},
        {"bells without a place are not looked at", {1, 1}, 0, PLACED_ONLY, true},
        {"work bits stay as they are after a death", {0, 1}, 1, NO_DEATH_MARK, true},
};
static const struct places_config *config;

#define LOST "a lost wake-up: somebody sleeps beside a queued job"

/* ---- state ---- */

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

static const char *const texts[] = {
        [TOP] = "reads its control word",
        [READ] = "reads whether a bell has a place",
        [SCAN_BIT] = "reads a work bit",
        [SCAN_CLAIM] = "claims, if there is something",
        [SETTLE_BIT] = "settles: reads a work bit",
        [SETTLE_CLEAR] = "settles: clears it",
        [SETTLE_LOOK] = "settles: looks into the ring",
        [SETTLE_MARK] = "settles: sets it again",
        [LIE_SET] = "sets its sleeper bit",
        [LIE_READ] = "reads the sequence",
        [REASON_LYING] = "looks a last time",
        [WAIT] = "futex_waitv",
        [RISE] = "clears its sleeper bit",
        [BATON_SLEEPERS] = "baton: reads the sleepers",
        [BATON_LOOK] = "baton: looks into the ring",
        [BATON_WORK] = "baton: reads the work bit",
        [BATON_SEQ] = "baton: sequence + 1",
        [BATON_WAKE] = "baton: FUTEX_WAKE(1)",
        [OTHERS_SLEEPERS] = "baton for others: reads the sleepers of the first bell",
        [OTHERS_AWAKE] = "baton for others: reads the sleepers of a bell that it waits on",
        [OTHERS_NEXT] = "baton for others: the next",
        [OTHERS_LOOK] = "baton for others: looks into the ring",
        [OTHERS_WORK] = "baton for others: reads a work bit",
        [OTHERS_SEQ] = "baton for others: sequence + 1 of the first bell",
        [OTHERS_WAKE] = "baton for others: FUTEX_WAKE(1)",
        [RUN] = "its job ends",
        [PUSH] = "pushes a job",
        [RING_BIT] = "reads its work bit",
        [RING_SET] = "sets its work bit",
        [RING_MODE] = "reads the mode",
        [RING_BROKER] = "rings the doorbell",
        [RING_SLEEPERS] = "reads the sleepers",
        [RING_WAKE] = "sequence + 1, FUTEX_WAKE(1)",
        [HEAR] = "clears the doorbell",
        [PASS] = "passes on, if there is work and a sleeper",
        [LOOK] = "looks into the ring of the bell without a place",
        [MODE_OLD] = "the old holder: mode BROKER",
        [BIT_OLD] = "the old holder: placeless",
        [MODE_NEW] = "the new holder: mode FUTEX",
        [BIT_NEW] = "the new holder: has a place",
        [TELL] = "tells a worker: control + 1, FUTEX_WAKE",
        [ROUSE] = "makes a sleeper look: control + 1, FUTEX_WAKE",
        [DEATH_PUSH] = "death: gives the job back",
        [DEATH_FORGET] = "death: clears a sleeper bit",
        [DEATH_MARK] = "death: sets a work bit, if there is work",
        [DEATH_SEQ] = "death: sequence + 1",
        [DEATH_WAKE] = "death: FUTEX_WAKE(all)",
        [KILL] = "    SIGKILL",
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

static void emit(struct turn *t) { explore_emit(t->x, &t->s, t->label); }

static bool bit(uint8_t word, unsigned i) { return word >> i & 1; }

static void put(uint8_t *word, unsigned i, bool value) {
        *word = (uint8_t)((*word & ~(1u << i)) | (unsigned)value << i);
}

static unsigned other(unsigned bell) { return ONE + TWO - bell; }

static bool waits_on(const struct worker *w, unsigned bell) { return bell == OWN || w->waited == bell; }

/* ---- sequences and futexes ---- */

static void bump(struct state *s, unsigned bell) {
        for (unsigned i = 0; i < WORKERS; i++) {
                struct worker *w = &s->worker[i];
                if (w->is_alive && w->pc >= LIE_SET && w->pc <= ASLEEP && waits_on(w, bell))
                        put(&w->changed, bell, true);
        }
}

static void rouse(struct worker *w) {
        w->is_asleep = 0;
        w->pc = RISE;
        w->k = OWN;
        w->changed = 0;
}

static void wake_all(struct state *s, unsigned bell) {
        for (unsigned i = 0; i < WORKERS; i++)
                if (s->worker[i].is_asleep && waits_on(&s->worker[i], bell))
                        rouse(&s->worker[i]);
}

/* One of those that sleep there, whichever the kernel takes. */
static void emit_wake_one(struct turn *t, unsigned bell) {
        const struct state before = t->s;
        bool was_any = false;
        for (unsigned i = 0; i < WORKERS; i++)
                if (before.worker[i].is_asleep && waits_on(&before.worker[i], bell)) {
                        t->s = before;
                        rouse(&t->s.worker[i]);
                        emit(t);
                        was_any = true;
                }
        if (!was_any)
                emit(t);
}

/* ---- workers ---- */

static void go(struct worker *w, enum pc pc) {
        w->pc = (uint8_t)pc;
        w->k = 0;
}

static unsigned scanned(const struct worker *w) { return 0u + ONE + w->k; }

static bool is_looked_at(const struct worker *w, unsigned bell) {
        return config->fault != PLACED_ONLY || w->waited == bell;
}

static void go_on(struct worker *w, enum pc same, enum pc after) {
        w->pc = (uint8_t)same;
        if (++w->k == CLIENTS)
                go(w, after);
}

static void step_read(struct state *s, struct worker *w) {
        unsigned bell = ONE + w->k;
        if (w->k == 0)
                w->waited = 0;
        if (!w->waited && !bit(s->placeless, bell))
                w->waited = (uint8_t)bell;
        if (w->k + 1 == CLIENTS && config->fault == TABLE_FIRST)
                w->is_told = 0;
        go_on(w, READ, SCAN_BIT);
}

static void step_scan(struct state *s, struct worker *w) {
        unsigned bell = scanned(w);
        if (w->pc == SCAN_BIT && bit(s->work, bell) && is_looked_at(w, bell)) {
                w->pc = SCAN_CLAIM;
        } else if (w->pc == SCAN_CLAIM && s->queued[bell] > 0) {
                s->queued[bell]--;
                w->job = w->from = (uint8_t)bell;
                go(w, BATON_SLEEPERS);
        } else {
                go_on(w, SCAN_BIT, SETTLE_BIT);
        }
}

/* Before sleep, or as a part of the baton. */
static void step_settle(struct state *s, struct worker *w) {
        unsigned bell = w->from ? w->from : scanned(w);
        switch ((enum pc)w->pc) {
        case SETTLE_BIT:
                if (bit(s->work, bell) && is_looked_at(w, bell))
                        w->pc = SETTLE_CLEAR;
                else
                        go_on(w, SETTLE_BIT, LIE_SET);
                return;
        case SETTLE_CLEAR:
                put(&s->work, bell, false);
                w->pc = SETTLE_LOOK;
                return;
        case SETTLE_LOOK:
                if (s->queued[bell] > 0) {
                        w->pc = SETTLE_MARK;
                        return;
                }
                break;
        default:
                put(&s->work, bell, true);
        }
        if (w->from)
                w->pc = w->waited == w->from ? BATON_WORK : OTHERS_WORK;
        else
                go_on(w, SETTLE_BIT, LIE_SET);
}

/* Its control word, then the work bits. */
static void step_reason(struct state *s, struct worker *w) {
        if (w->k == 0 ? w->is_told : bit(s->work, w->k) && is_looked_at(w, w->k))
                rouse(w);
        else if (++w->k == BELLS)
                go(w, WAIT);
}

/* Over the bells that it waits on; `after` the last. */
static void next_waited(struct worker *w, enum pc same, enum pc after) {
        w->pc = (uint8_t)same;
        do
                w->k++;
        while (w->k < BELLS && !waits_on(w, w->k));
        if (w->k == BELLS)
                go(w, after);
}

static void step_sleep(struct state *s, struct worker *w, unsigned who) {
        switch ((enum pc)w->pc) {
        case LIE_SET:
                put(&s->sleepers[w->k], who, true);
                w->pc = LIE_READ;
                return;
        case LIE_READ:
                put(&w->changed, w->k, false);
                next_waited(w, LIE_SET, REASON_LYING);
                return;
        case WAIT:
                if (w->is_told || w->changed)
                        rouse(w);
                else
                        w->is_asleep = 1, w->pc = ASLEEP;
                return;
        default:
                put(&s->sleepers[w->k], who, false);
                next_waited(w, RISE, TOP);
        }
}

static void end_baton(struct worker *w) {
        w->from = 0;
        go(w, RUN);
}

/* On the bell that has the place: the own one never has work here. */
static void step_baton(struct state *s, struct worker *w) {
        switch ((enum pc)w->pc) {
        case BATON_SLEEPERS:
                if (w->waited && s->sleepers[w->waited])
                        w->pc = w->waited == w->from ? BATON_LOOK : BATON_WORK;
                else
                        go(w, OTHERS_SLEEPERS);
                return;
        case BATON_LOOK:
                w->pc = s->queued[w->from] > 0 ? BATON_WORK : SETTLE_CLEAR;
                return;
        case BATON_WORK: /* bell_pass_on reads the sleepers once more: what they are now is what counts */
                if (s->sleepers[w->waited] && bit(s->work, w->waited))
                        w->pc = BATON_SEQ;
                else
                        go(w, OTHERS_SLEEPERS);
                return;
        default:
                bump(s, w->waited);
                w->pc = BATON_WAKE;
        }
}

/* On the own bell, for bells on which nobody sleeps: also those of its own list, which may be an old one. */
static void step_others(struct state *s, struct worker *w) {
        unsigned bell = scanned(w);
        switch ((enum pc)w->pc) {
        case OTHERS_SLEEPERS:
                if (!s->sleepers[OWN] || config->fault == NO_BATON)
                        end_baton(w);
                else if (bell == w->waited)
                        w->pc = OTHERS_AWAKE;
                else
                        w->pc = bell == w->from ? OTHERS_LOOK : OTHERS_WORK;
                return;
        case OTHERS_AWAKE:
                w->pc = s->sleepers[bell] || config->fault == OLD_LIST ? OTHERS_NEXT : OTHERS_WORK;
                return;
        case OTHERS_LOOK:
                w->pc = s->queued[bell] > 0 ? OTHERS_WORK : SETTLE_CLEAR;
                return;
        case OTHERS_WORK:
                w->pc = bit(s->work, bell) ? OTHERS_SEQ : OTHERS_NEXT;
                return;
        case OTHERS_NEXT:
                if (w->k + 1 == CLIENTS)
                        end_baton(w);
                else
                        w->pc = OTHERS_SLEEPERS, w->k++;
                return;
        default:
                bump(s, OWN);
                w->pc = OTHERS_WAKE;
        }
}

static void step_worker(struct explore *x, const struct state *s, unsigned who) {
        struct turn t = {.x = x, .s = *s, .label = who << 8 | s->worker[who].pc};
        struct worker *w = &t.s.worker[who];
        if (!w->is_alive || w->pc == ASLEEP)
                return;
        if (w->pc == TOP) {
                bool is_told = w->is_told;
                if (config->fault != TABLE_FIRST)
                        w->is_told = 0;
                go(w, is_told ? READ : SCAN_BIT);
        } else if (w->pc == READ) {
                step_read(&t.s, w);
        } else if (w->pc <= SCAN_CLAIM) {
                step_scan(&t.s, w);
        } else if (w->pc <= SETTLE_MARK) {
                step_settle(&t.s, w);
        } else if (w->pc == REASON_LYING) {
                step_reason(&t.s, w);
        } else if (w->pc <= RISE) {
                step_sleep(&t.s, w, who);
        } else if (w->pc < BATON_WAKE) {
                step_baton(&t.s, w);
        } else if (w->pc == BATON_WAKE) {
                go(w, OTHERS_SLEEPERS);
                emit_wake_one(&t, s->worker[who].waited);
                return;
        } else if (w->pc < OTHERS_WAKE) {
                step_others(&t.s, w);
        } else if (w->pc == OTHERS_WAKE) {
                end_baton(w);
                emit_wake_one(&t, OWN);
                return;
        } else {
                w->job = 0;
                go(w, TOP);
        }
        emit(&t);
}

static void kill_worker(struct explore *x, const struct state *s, unsigned who) {
        if (s->n_kills == 0 || !s->worker[who].is_alive)
                return;
        struct state next = *s;
        next.n_kills--;
        next.dead = (uint8_t)(who + 1);
        next.dead_job = s->worker[who].job;
        next.worker[who] = (struct worker){0};
        explore_emit(x, &next, who << 8 | KILL);
}

/* ---- clients ---- */

static void step_client(struct explore *x, const struct state *s, unsigned who) {
        struct turn t = {.x = x, .s = *s, .label = (WHO_CLIENT + who) << 8 | s->client[who].pc};
        struct client *c = &t.s.client[who];
        const unsigned bell = ONE + who;
        enum pc next = c->left > 1 ? PUSH : FINISHED;
        switch ((enum pc)c->pc) {
        case PUSH:
                t.s.queued[bell]++;
                next = RING_BIT;
                break;
        case RING_BIT:
                next = bit(s->work, bell) ? RING_MODE : RING_SET;
                break;
        case RING_SET:
                put(&t.s.work, bell, true);
                next = RING_MODE;
                break;
        case RING_MODE:
                next = bit(s->futex, bell) ? RING_SLEEPERS : RING_BROKER;
                break;
        case RING_BROKER:
                t.s.is_rung = 1;
                c->left--;
                break;
        case RING_SLEEPERS:
                if (s->sleepers[bell])
                        next = RING_WAKE;
                else
                        c->left--;
                break;
        case RING_WAKE:
                bump(&t.s, bell);
                c->left--;
                c->pc = (uint8_t)next;
                emit_wake_one(&t, bell);
                return;
        default:
                return;
        }
        c->pc = (uint8_t)next;
        emit(&t);
}

/* ---- the broker ---- */

static void broker_go(struct state *s, enum pc pc) {
        s->broker_pc = (uint8_t)pc;
        s->broker_k = 0;
}

static void broker_next(struct state *s, enum pc same, unsigned n, enum pc after) {
        s->broker_pc = (uint8_t)same;
        if (++s->broker_k == n)
                broker_go(s, after);
}

static void step_pass(struct turn *t) {
        struct state *s = &t->s;
        const unsigned bell = ONE + s->broker_k;
        broker_next(s, PASS, CLIENTS, LOOK);
        if (!bit(s->futex, bell) || !s->sleepers[bell] || !bit(s->work, bell)) {
                emit(t);
                return;
        }
        bump(s, bell);
        emit_wake_one(t, bell);
}

/* It gives the place away or does not: who is idle, and for how long, is left open. */
static void step_look(struct turn *t) {
        const struct state before = t->s;
        if (before.queued[other(before.placed)] == 0) {
                broker_go(&t->s, IDLE);
                emit(t);
                return;
        }
        broker_go(&t->s, config->fault == TOLD_FIRST ? TELL : MODE_OLD);
        emit(t);
        t->s = before;
        broker_go(&t->s, config->fault == NOBODY_WOKEN ? IDLE : ROUSE);
        emit(t);
}

static void step_change(struct state *s) {
        const unsigned old = s->placed, new = other(old);
        switch ((enum pc)s->broker_pc) {
        case MODE_OLD:
                put(&s->futex, old, false);
                s->broker_pc = BIT_OLD;
                return;
        case BIT_OLD:
                put(&s->placeless, old, true);
                s->broker_pc = MODE_NEW;
                return;
        case MODE_NEW:
                put(&s->futex, new, true);
                s->broker_pc = BIT_NEW;
                return;
        default:
                put(&s->placeless, new, false);
                s->placed = (uint8_t) new;
                broker_go(s, config->fault == NOT_TOLD || config->fault == TOLD_FIRST ? IDLE : TELL);
        }
}

/* All workers, or those that sleep on the broker's own bell. */
static void step_tell(struct state *s) {
        struct worker *w = &s->worker[s->broker_k];
        bool is_all = s->broker_pc == TELL;
        if (w->is_alive && (is_all || bit(s->sleepers[OWN], s->broker_k))) {
                w->is_told = 1;
                if (w->is_asleep)
                        rouse(w);
        }
        broker_next(s, is_all ? TELL : ROUSE, WORKERS, is_all && config->fault == TOLD_FIRST ? MODE_OLD : IDLE);
}

static void step_death(struct state *s) {
        const unsigned who = s->dead - 1u, bell = s->broker_k;
        switch ((enum pc)s->broker_pc) {
        case DEATH_PUSH:
                if (s->dead_job)
                        s->queued[s->dead_job]++;
                s->dead_job = 0;
                broker_go(s, DEATH_FORGET);
                return;
        case DEATH_FORGET:
                put(&s->sleepers[bell], who, false);
                broker_next(s, DEATH_FORGET, BELLS, DEATH_MARK);
                return;
        case DEATH_MARK:
                if (s->queued[bell] > 0 && config->fault != NO_DEATH_MARK)
                        put(&s->work, bell, true);
                broker_next(s, DEATH_MARK, BELLS, DEATH_SEQ);
                return;
        case DEATH_SEQ:
                bump(s, bell);
                s->broker_pc = DEATH_WAKE;
                return;
        default:
                wake_all(s, bell);
                broker_next(s, DEATH_SEQ, BELLS, IDLE);
                if (s->broker_pc == IDLE)
                        s->dead = 0;
        }
}

static void step_broker(struct explore *x, const struct state *s) {
        struct turn t = {.x = x, .s = *s, .label = WHO_BROKER << 8 | s->broker_pc};
        if (s->broker_pc == IDLE) {
                t.label = WHO_BROKER << 8 | HEAR;
                if (s->is_rung) {
                        t.s.is_rung = 0;
                        broker_go(&t.s, PASS);
                        emit(&t);
                }
                if (s->dead) {
                        t.s = *s;
                        broker_go(&t.s, DEATH_PUSH);
                        step_death(&t.s);
                        t.label = WHO_BROKER << 8 | DEATH_PUSH;
                        emit(&t);
                }
                return;
        }
        if (s->broker_pc == PASS) {
                step_pass(&t);
                return;
        }
        if (s->broker_pc == LOOK) {
                step_look(&t);
                return;
        }
        if (s->broker_pc <= BIT_NEW)
                step_change(&t.s);
        else if (s->broker_pc <= ROUSE)
                step_tell(&t.s);
        else
                step_death(&t.s);
        emit(&t);
}

/* ---- the model ---- */

static void check(struct explore *x, const struct state *s) {
        bool has_sleeper = false;
        if (s->broker_pc != IDLE || s->is_rung || s->dead)
                return;
        for (unsigned i = 0; i < CLIENTS; i++)
                if (s->client[i].pc != FINISHED)
                        return;
        for (unsigned i = 0; i < WORKERS; i++) {
                const struct worker *w = &s->worker[i];
                if (w->is_alive && w->pc != RUN && w->pc != ASLEEP)
                        return;
                has_sleeper |= w->is_asleep;
        }
        if (has_sleeper && (s->queued[ONE] || s->queued[TWO]))
                explore_fail(x, LOST, EXPLORE_NO_STEP);
}

static void places_init(void *state) {
        struct state *s = state;
        memset(s, 0, sizeof *s);
        for (unsigned i = 0; i < WORKERS; i++)
                s->worker[i] = (struct worker){.is_alive = 1, .waited = ONE};
        for (unsigned i = 0; i < CLIENTS; i++)
                s->client[i] = (struct client){
                        .pc = config->n_jobs[i] ? PUSH : FINISHED,
                        .left = (uint8_t)config->n_jobs[i],
                };
        s->placed = ONE;
        s->futex = 1u << OWN | 1u << ONE;
        s->placeless = 1u << TWO;
        s->broker_pc = IDLE;
        s->n_kills = (uint8_t)config->n_kills;
}

static void places_expand(struct explore *x, const void *state) {
        const struct state *s = state;
        for (unsigned i = 0; i < WORKERS; i++) {
                step_worker(x, s, i);
                kill_worker(x, s, i);
        }
        for (unsigned i = 0; i < CLIENTS; i++)
                step_client(x, s, i);
        step_broker(x, s);
        check(x, s);
}

/* The workers are alike, but while the broker goes through them. */
static void places_canonicalize(void *state) {
        struct state *s = state;
        struct worker *w = s->worker, one = w[0];
        if (s->dead || s->broker_pc == TELL || s->broker_pc == ROUSE || memcmp(&w[0], &w[1], sizeof one) <= 0)
                return;
        w[0] = w[1];
        w[1] = one;
        for (unsigned i = 0; i < BELLS; i++)
                s->sleepers[i] = (uint8_t)((s->sleepers[i] & 1u) << 1 | s->sleepers[i] >> 1);
}

static void places_print_step(unsigned label) {
        static const char *const names[] = {"worker 0", "worker 1", "client 1", "client 2", "broker"};
        if (label == EXPLORE_NO_STEP)
                printf("(nothing more happens)\n");
        else
                printf("%-9s %s\n", names[label >> 8], texts[label & 0xff]);
}

static void places_print_state(const void *state) {
        const struct state *s = state;
        printf("  then: queued %u %u, bell %u has the place\n", s->queued[ONE], s->queued[TWO], s->placed);
}

int main(int argc, char *argv[]) {
        const struct explore_model model = {
                .state_bytes = sizeof(struct state),
                .init = places_init,
                .expand = places_expand,
                .canonicalize = places_canonicalize,
                .print_step = places_print_step,
                .print_state = places_print_state,
        };
        unsigned n_wrong = 0;
        for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
                config = &configs[i];
                if (config->is_long && (argc < 2 || strcmp(argv[1], "long") != 0))
                        continue;
                n_wrong += !explore_case(&model, config->name, config->is_violated ? LOST : NULL, MAX_STATES, false);
        }
        printf("%u wrong\n", n_wrong);
        return n_wrong > 0;
}
