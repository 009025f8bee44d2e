/* The model of the sharing objects' lock word (ipc/sync/lock.c, mutex.c): three participants that lock and unlock twice
 * each, may give up while they sleep, and may be killed anywhere; the broker repairs.
 *
 * A step is one access to the word, one futex call, or one half of a critical section, which first breaks the data and
 * then mends it. A load and the CAS after it are one step where the code goes round until the CAS succeeds, two where
 * it decides by what it loaded. Sub-owner and generation are one with the participant. Wait lines, alarms, spinning and
 * recursion are left out: they change neither the word's owner nor who sleeps.
 *
 * Properties. One owner at a time, and it is the one in the word; who gets the lock over broken data is told
 * (OWNERDEAD), until somebody said that it is consistent. At rest, that is when nothing moves but owners, which may
 * hold the lock for ever: nobody sleeps beside a free lock, and no dead one owns it.
 *
 * Store buffers: every write to the word is a CAS; the fault "released by a store" has one entry for it. */
#include <stdio.h>
#include <string.h>

#include "tests/model/explore.h"

enum { PARTICIPANTS = 3, ROUNDS = 2, BROKER = PARTICIPANTS, NOBODY = 0, MAX_STATES = 20000000 };

enum mutex_fault {
        RIGHT,
        NO_REPAIR_WAKE,     /* repair changes the word, but wakes nobody */
        NO_WAKE_IF_NOTHING, /* repair wakes only if the dead held the lock */
        NO_OWNERDEAD,       /* repair frees the word and says nothing */
        NO_WAITERS_KEPT,    /* who was woken takes the lock without LOCK_WAITERS */
        STORE_RELEASE,      /* the lock is given back by a load and a store */
        UNFLAGGED_SLEEP,    /* sleeps on the value it saw, without LOCK_WAITERS in it */
};

struct mutex_config {
        const char *name;
        unsigned n_kills;
        enum mutex_fault fault;
        const char *expected;
};

#define LOST "a lost wake-up: somebody sleeps beside a free lock"

static const struct mutex_config configs[] = {
        {"three participants, two rounds, two kills", 2, RIGHT, NULL},
        {"repair does not wake", 1, NO_REPAIR_WAKE, LOST},
        {"repair wakes only if the dead held the lock", 1, NO_WAKE_IF_NOTHING, LOST},
        {"repair does not say that an owner died", 1, NO_OWNERDEAD, "broken data, and nobody was told"},
        {"the woken one forgets the other sleepers", 0, NO_WAITERS_KEPT, LOST},
        {"released by a store", 0, STORE_RELEASE, LOST},
        {"asleep without the flag", 0, UNFLAGGED_SLEEP, LOST},
};
static const struct mutex_config *config;

/* ---- state ---- */

struct word {
        uint8_t owner : 3, has_waiters : 1, is_ownerdead : 1; /* owner: participant + 1 */
};

struct proc {
        uint8_t pc : 5, is_alive : 1, is_queued : 1, keeps_waiters : 1;
        uint8_t left : 2, is_told : 1, must_wake : 1, has_store : 1; /* has_store: `stored` is in its store buffer */
        struct word seen, stored;
};

struct state {
        struct proc proc[PARTICIPANTS];
        struct word word;
        uint8_t is_broken : 1, n_kills : 3;
        uint8_t dead;      /* not repaired yet: a bit each */
        uint8_t broker_pc; /* IDLE, REPAIR, REPAIR_WAKE */
        uint8_t repaired;  /* the participant being repaired */
        uint8_t pad[7];
};

_Static_assert(sizeof(struct state) % 8 == 0, "states are hashed in words");

enum pc {
        FINISHED,
        TAKE_FAST,
        LOAD,
        TAKE,
        FLAG,
        SLEEP,
        SLEEPING,
        BREAK,
        MEND,
        CONSISTENT,
        GIVE,
        GIVE_WAKE,
        IDLE,
        REPAIR,
        REPAIR_WAKE,
        DRAIN,
        GIVE_UP,
        KILL,
};

static const char *const texts[] = {
        [FINISHED] = "", /* no step */
        [TAKE_FAST] = "lock: CAS 0 -> self",
        [LOAD] = "lock: read the word",
        [TAKE] = "lock: CAS what was read -> self",
        [FLAG] = "lock: set LOCK_WAITERS",
        [SLEEP] = "lock: FUTEX_WAIT",
        [SLEEPING] = "lock: woken",
        [BREAK] = "changes half of the data",
        [MEND] = "changes the other half",
        [CONSISTENT] = "makes the data consistent, says so",
        [GIVE] = "unlock: CAS self -> 0",
        [GIVE_WAKE] = "unlock: FUTEX_WAKE(1)",
        [IDLE] = "",
        [REPAIR] = "repair: the dead one's word -> OWNERDEAD",
        [REPAIR_WAKE] = "repair: FUTEX_WAKE(all)",
        [DRAIN] = "    its store buffer drains: the word",
        [GIVE_UP] = "lock: timed out",
        [KILL] = "    SIGKILL",
};

static bool word_is(struct word a, struct word b) {
        return a.owner == b.owner && a.has_waiters == b.has_waiters && a.is_ownerdead == b.is_ownerdead;
}

static bool is_inside(const struct proc *p) {
        return p->is_alive && (p->pc == BREAK || p->pc == MEND || p->pc == CONSISTENT || p->pc == GIVE);
}

/* ---- steps ---- */

struct turn {
        struct explore *x;
        struct state s;
        unsigned who, label;
};

static void emit(struct turn *t) { explore_emit(t->x, &t->s, t->label); }

static void start_round(struct proc *p) {
        *p = (struct proc){.is_alive = 1, .left = p->left, .pc = p->left ? TAKE_FAST : FINISHED};
}

static void enter(struct turn *t, struct proc *p) {
        for (unsigned i = 0; i < PARTICIPANTS; i++)
                if (i != t->who && is_inside(&t->s.proc[i]))
                        explore_fail(t->x, "two owners", t->label);
        if (t->s.is_broken && !t->s.word.is_ownerdead)
                explore_fail(t->x, "broken data, and nobody was told", t->label);
        p->is_told = t->s.word.is_ownerdead;
        p->seen = (struct word){0};
        p->keeps_waiters = 0;
        p->pc = p->is_told ? CONSISTENT : BREAK;
}

static void step_take(struct turn *t, struct proc *p) {
        if (p->pc == TAKE_FAST)
                p->seen = (struct word){0};
        if (!word_is(t->s.word, p->seen)) {
                p->seen = (struct word){0};
                p->pc = LOAD;
                return;
        }
        t->s.word.owner = (t->who + 1) & 7;
        if (p->pc == TAKE && p->keeps_waiters && config->fault != NO_WAITERS_KEPT)
                t->s.word.has_waiters = 1;
        enter(t, p);
}

static void step_load(struct turn *t, struct proc *p) {
        p->seen = t->s.word;
        if (p->seen.owner == NOBODY)
                p->pc = TAKE;
        else
                p->pc = p->seen.has_waiters || config->fault == UNFLAGGED_SLEEP ? SLEEP : FLAG;
}

static void step_flag(struct turn *t, struct proc *p) {
        p->pc = LOAD;
        if (word_is(t->s.word, p->seen)) {
                t->s.word.has_waiters = 1;
                p->seen.has_waiters = 1;
                p->pc = SLEEP;
        } else
                p->seen = (struct word){0};
}

static void step_sleep(struct turn *t, struct proc *p) {
        bool is_same = word_is(t->s.word, p->seen);
        p->seen = (struct word){0};
        p->keeps_waiters = 1;
        p->is_queued = is_same;
        p->pc = is_same ? SLEEPING : LOAD;
}

/* lock_give and lock_release are one CAS: what it leaves is 0 or OWNERDEAD, and it sees LOCK_WAITERS. */
static void step_give(struct turn *t, struct proc *p) {
        struct word *w = &t->s.word;
        if (w->owner != t->who + 1)
                explore_fail(t->x, "an owner's word names another", t->label);
        p->must_wake = w->has_waiters;
        struct word left = {.is_ownerdead = w->is_ownerdead};
        p->left--;
        if (config->fault == STORE_RELEASE) {
                p->has_store = 1;
                p->stored = left;
        } else
                *w = left;
        p->pc = GIVE_WAKE;
        if (!p->must_wake && !p->has_store)
                start_round(p);
}

/* One of the sleepers, whichever the kernel takes. */
static void step_give_wake(struct turn *t) {
        struct proc *p = &t->s.proc[t->who];
        bool is_waking = p->must_wake;
        start_round(p);
        const struct state before = t->s;
        bool was_any = false;
        for (unsigned i = 0; is_waking && i < PARTICIPANTS; i++) {
                if (!before.proc[i].is_queued)
                        continue;
                t->s = before;
                t->s.proc[i].is_queued = 0;
                emit(t);
                was_any = true;
        }
        if (!was_any)
                emit(t);
}

static void step(struct explore *x, const struct state *s, unsigned who) {
        struct turn t = {.x = x, .s = *s, .who = who, .label = who << 8 | s->proc[who].pc};
        struct proc *p = &t.s.proc[who];
        if (p->has_store) { /* what follows is locked */
                p->has_store = 0;
                t.s.word = p->stored;
                p->stored = (struct word){0};
                t.label = who << 8 | DRAIN;
                emit(&t);
                return;
        }
        switch ((enum pc)p->pc) {
        case TAKE_FAST:
        case TAKE:
                step_take(&t, p);
                break;
        case LOAD:
                step_load(&t, p);
                break;
        case FLAG:
                step_flag(&t, p);
                break;
        case SLEEP:
                step_sleep(&t, p);
                break;
        case SLEEPING:
                if (p->is_queued)
                        return;
                p->pc = LOAD;
                break;
        case CONSISTENT:
                t.s.word.is_ownerdead = 0;
                t.s.is_broken = 0;
                p->is_told = 0;
                p->pc = BREAK;
                break;
        case BREAK:
                t.s.is_broken = 1;
                p->pc = MEND;
                break;
        case MEND:
                t.s.is_broken = 0;
                p->pc = GIVE;
                break;
        case GIVE:
                step_give(&t, p);
                break;
        case GIVE_WAKE:
                step_give_wake(&t);
                return;
        case FINISHED:
        case IDLE:
        case REPAIR:
        case REPAIR_WAKE:
        case DRAIN:
        case GIVE_UP:
        case KILL:
                return;
        }
        emit(&t);
}

/* futex(2) tells a timeout from a wake-up: who gives up was not woken. */
static void give_up(struct explore *x, const struct state *s, unsigned who) {
        if (s->proc[who].pc != SLEEPING || !s->proc[who].is_queued)
                return;
        struct state next = *s;
        next.proc[who].left--;
        start_round(&next.proc[who]);
        explore_emit(x, &next, who << 8 | GIVE_UP);
}

static void kill_one(struct explore *x, const struct state *s, unsigned who) {
        if (s->n_kills == 0 || s->proc[who].pc == FINISHED)
                return;
        struct state next = *s;
        if (next.proc[who].has_store)
                next.word = next.proc[who].stored;
        next.proc[who] = (struct proc){0};
        next.n_kills--;
        next.dead |= (uint8_t)(1u << who);
        explore_emit(x, &next, who << 8 | KILL);
}

static void repair_step(struct explore *x, const struct state *s) {
        struct state next = *s;
        if (s->broker_pc == IDLE) {
                for (unsigned i = 0; i < PARTICIPANTS; i++) {
                        if (!(s->dead >> i & 1))
                                continue;
                        next = *s;
                        next.dead &= (uint8_t) ~(1u << i);
                        next.repaired = (uint8_t)i;
                        bool was_held = s->word.owner == i + 1;
                        if (was_held)
                                next.word = (struct word){.is_ownerdead = config->fault != NO_OWNERDEAD};
                        next.broker_pc = REPAIR_WAKE;
                        if (config->fault == NO_REPAIR_WAKE || (config->fault == NO_WAKE_IF_NOTHING && !was_held)) {
                                next.broker_pc = IDLE;
                                next.repaired = 0;
                        }
                        explore_emit(x, &next, BROKER << 8 | REPAIR);
                }
                return;
        }
        for (unsigned i = 0; i < PARTICIPANTS; i++)
                next.proc[i].is_queued = 0;
        next.broker_pc = IDLE;
        next.repaired = 0;
        explore_emit(x, &next, BROKER << 8 | REPAIR_WAKE);
}

/* ---- the model ---- */

static void check(struct explore *x, const struct state *s) {
        bool has_sleeper = false;
        if (s->broker_pc != IDLE || s->dead)
                return;
        for (unsigned i = 0; i < PARTICIPANTS; i++) {
                const struct proc *p = &s->proc[i];
                if (!p->is_alive || p->pc == FINISHED || p->pc == BREAK)
                        continue;
                if (p->pc != SLEEPING || !p->is_queued)
                        return;
                has_sleeper = true;
        }
        if (has_sleeper && s->word.owner == NOBODY)
                explore_fail(x, LOST, EXPLORE_NO_STEP);
        if (s->word.owner != NOBODY && !is_inside(&s->proc[s->word.owner - 1]))
                explore_fail(x, "locked by nobody", EXPLORE_NO_STEP);
}

static void mutex_init(void *state) {
        struct state *s = state;
        memset(s, 0, sizeof *s);
        s->n_kills = config->n_kills & 7;
        s->broker_pc = IDLE;
        for (unsigned i = 0; i < PARTICIPANTS; i++) {
                s->proc[i].left = ROUNDS;
                start_round(&s->proc[i]);
        }
}

static void mutex_expand(struct explore *x, const void *state) {
        const struct state *s = state;
        for (unsigned i = 0; i < PARTICIPANTS; i++) {
                if (!s->proc[i].is_alive)
                        continue;
                step(x, s, i);
                give_up(x, s, i);
                kill_one(x, s, i);
        }
        repair_step(x, s);
        check(x, s);
}

static void mutex_print_step(unsigned label) {
        if (label == EXPLORE_NO_STEP)
                printf("(nothing more happens)\n");
        else if (label >> 8 == BROKER)
                printf("broker  %s\n", texts[label & 0xff]);
        else
                printf("%u       %s\n", label >> 8, texts[label & 0xff]);
}

static void mutex_print_state(const void *state) {
        const struct state *s = state;
        printf("  then: owner %d%s%s%s\n", s->word.owner - 1, s->word.has_waiters ? " WAITERS" : "",
               s->word.is_ownerdead ? " OWNERDEAD" : "", s->is_broken ? ", data broken" : "");
}

int main(void) {
        const struct explore_model model = {
                .state_bytes = sizeof(struct state),
                .init = mutex_init,
                .expand = mutex_expand,
                .print_step = mutex_print_step,
                .print_state = mutex_print_state,
        };
        unsigned n_wrong = 0;
        for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
                config = &configs[i];
                n_wrong += !explore_case(&model, config->name, config->expected, MAX_STATES, false);
        }
        printf("%u wrong\n", n_wrong);
        return n_wrong > 0;
}
