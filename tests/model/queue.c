/* The model of the leased FIFO queue of the sharing objects (ipc/sync/queue-cells.c, queue.c, gate.c): producers that
 * put a few items each, consumers that get, work on and finish items for ever, kills anywhere, the broker that repairs.
 *
 * A step is one access to a shared word or one futex call. A load and the CAS after it are one step where the code goes
 * round until it succeeds. A gate's sequence is known as "moved on since I registered" or not, its count of
 * registrations as "somebody registered since I woke nobody" or not; both are exact until they wrap. Left out:
 * head_seen (the head only rises), close, join and the `done` gate, the simple queue (its get frees at once), LIFO and
 * priority (under the lock: mutex.c), timeouts, spinning. All writes to shared words are locked instructions, so there
 * are no store buffers.
 *
 * Properties. A lease is ended by its holder only, and no item is done twice. At rest, that is when nothing moves but
 * the work on items, which may take for ever: no item waits (QUEUED or RETURNED) beside a sleeping consumer, no
 * producer sleeps beside an empty queue, nothing belongs to the dead, and each item whose put returned is done or in a
 * cell.
 *
 * `returned` is here a count whose lowest bit says that there may be returned items: taking it back must fail after any
 * new return. A count that goes back to 0 does not do (RESET_BY_VALUE): two deaths apart it shows the same 1.
 *
 * Reduction: consumers are interchangeable, and so are states that differ in nothing but their names. */
#include <stdio.h>
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

#define LOST_WAKE "a lost wake-up: an item waits beside a sleeping consumer"
#define LOST_ITEM "an item was lost"

static const struct queue_config configs[] = {
        {"one producer, two consumers, a kill", 1, 2, 2, 2, 1, RIGHT, NULL},
        {"two producers, one consumer, a kill", 2, 1, 2, 2, 1, RIGHT, NULL},
        {"two producers, two consumers, one item each", 2, 2, 1, 2, 0, RIGHT, NULL},
        {"four cells, one producer, two consumers", 1, 2, 2, 4, 0, RIGHT, NULL},
        {"one producer, two consumers, a kill, and one earlier", 1, 2, 2, 2, 1, RIGHT, NULL, 1},
        {"no broadcast after a death", 1, 2, 2, 2, 1, NO_BROADCAST, LOST_WAKE},
        {"returned items are not marked", 1, 2, 2, 2, 1, NO_MARK, LOST_WAKE},
        {"`returned` goes back to 0", 1, 2, 2, 2, 1, RESET_BY_VALUE, LOST_WAKE, 1},
        {"no second attempt before sleeping", 1, 1, 1, 2, 0, NO_LOOK_AGAIN, LOST_WAKE},
        {"no leases", 1, 2, 2, 2, 1, NO_LEASE, LOST_ITEM},
        {"a vain wake-up clears the flag", 1, 2, 2, 2, 0, VAIN_CLEAR, LOST_WAKE},
};
static const struct queue_config *config;

/* ---- state ---- */

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

static bool is_producer(unsigned who) { return who < config->n_producers; }
static unsigned capacity(void) { return config->n_cells / 2; }
static struct cell *cell_at(struct turn *t, unsigned position) { return &t->s.cell[position % config->n_cells]; }
static bool cell_is(const struct cell *a, const struct cell *b) {
        return a->state == b->state && a->owner == b->owner && a->position == b->position;
}
static uint8_t item_bit(unsigned item) { return (uint8_t)(1u << item); }

static void emit(struct turn *t) { explore_emit(t->x, &t->s, t->label); }

/* ---- attempts ---- */

static void attempt_begin(struct turn *t) {
        struct proc *p = t->p;
        *p = (struct proc){
                .is_alive = 1, .left = p->left, .has_registered = p->has_registered, .is_stale = p->is_stale};
        p->pc = is_producer(t->who) ? PUT_TAIL : GET_RETURNED;
}

static void call_begin(struct turn *t) {
        t->p->has_registered = t->p->is_stale = 0;
        attempt_begin(t);
        if (is_producer(t->who) && t->p->left == 0)
                t->p->pc = FINISHED;
}

/* -EAGAIN: gate_wait goes on. */
static void attempt_failed(struct turn *t) {
        bool has_registered = t->p->has_registered;
        attempt_begin(t);
        t->p->pc = has_registered ? SLEEP : REGISTER;
}

static void attempt_done(struct proc *p) { p->has_registered = p->is_stale = 0; }

/* ---- put ---- */

static void put_tail(struct turn *t) {
        t->p->at = t->s.tail;
        t->p->pc = PUT_CELL;
}

static void put_cell(struct turn *t) {
        t->p->seen = *cell_at(t, t->p->at);
        t->p->seen.item = 0;
        t->p->pc = t->p->seen.position >= t->p->at ? PUT_HELP : PUT_HEAD;
}

static void put_help(struct turn *t) {
        if (t->s.tail == t->p->at)
                t->s.tail = (uint8_t)(t->p->seen.position + 1);
        attempt_begin(t);
}

static void put_decide(struct turn *t, unsigned head) {
        struct proc *p = t->p;
        bool has_room = p->at < head + capacity();
        p->from = p->head = p->i = 0;
        if (!has_room || p->seen.state == WRITING || p->seen.state == QUEUED)
                attempt_failed(t);
        else
                p->pc = PUT_CLAIM;
}

static void put_head(struct turn *t) {
        struct proc *p = t->p;
        if (p->at < t->s.head + capacity()) {
                put_decide(t, t->s.head);
                return;
        }
        p->from = p->head = t->s.head;
        p->pc = PUT_WALK;
}

/* queue_push_head, a cell at a time. */
static void put_walk(struct turn *t) {
        struct proc *p = t->p;
        const struct cell *c = cell_at(t, p->head);
        bool is_end = c->position < p->head || (c->position == p->head && (c->state == WRITING || c->state == QUEUED));
        if (!is_end)
                p->head++;
        if (is_end || ++p->i == config->n_cells)
                p->pc = PUT_MOVE_HEAD;
}

static void put_move_head(struct turn *t) {
        if (t->s.head == t->p->from)
                t->s.head = t->p->head;
        put_decide(t, t->p->head);
}

static void put_claim(struct turn *t) {
        struct proc *p = t->p;
        struct cell *c = cell_at(t, p->at);
        if (!cell_is(c, &p->seen)) {
                attempt_begin(t);
                return;
        }
        c->position = p->at;
        if (c->state != FREE) { /* leased or returned: passed over */
                attempt_begin(t);
                return;
        }
        c->state = WRITING;
        c->owner = (t->who + 1) & 15;
        c->item = (uint8_t)(t->who * config->n_items + p->left - 1);
        p->seen = (struct cell){0};
        p->pc = PUT_MOVE_TAIL;
}

static void put_move_tail(struct turn *t) {
        if (t->s.tail == t->p->at)
                t->s.tail++;
        t->p->pc = PUT_PUBLISH;
}

static void put_publish(struct turn *t) {
        struct proc *p = t->p;
        struct cell *c = cell_at(t, p->at);
        if (c->state != WRITING || c->owner != t->who + 1 || c->position != p->at)
                explore_fail(t->x, "a live producer's cell was taken from it", t->label);
        c->state = QUEUED;
        c->owner = 0;
        t->s.accepted |= item_bit(c->item);
        p->left--;
        p->at = 0;
        attempt_done(p);
        p->pc = SIGNAL;
}

/* ---- get ---- */

static bool is_marked(unsigned returned) { return config->fault == RESET_BY_VALUE ? returned != 0 : returned & 1; }

static void get_returned(struct turn *t) { t->p->pc = is_marked(t->s.returned) ? GET_HINT : GET_HEAD; }

static void get_hint(struct turn *t) {
        t->p->hint = t->s.returned;
        t->p->i = 0;
        t->p->best = NO_CELL;
        t->p->pc = GET_SCAN;
        if (!is_marked(t->p->hint)) {
                t->p->hint = t->p->best = 0;
                t->p->pc = GET_HEAD;
        }
}

static void get_scan(struct turn *t) {
        struct proc *p = t->p;
        const struct cell *c = &t->s.cell[p->i];
        if (c->state == RETURNED && (p->best == NO_CELL || c->position < p->seen.position)) {
                p->best = p->i;
                p->seen = *c;
                p->seen.item = 0;
        }
        if (++p->i == config->n_cells)
                p->pc = p->best == NO_CELL ? GET_RESET : GET_LEASE_RETURNED;
}

static void get_reset(struct turn *t) {
        if (t->s.returned == t->p->hint)
                t->s.returned &= (uint8_t)(config->fault == RESET_BY_VALUE ? 0 : ~1u);
        attempt_begin(t);
        t->p->pc = GET_HEAD;
}

static void leased(struct turn *t, struct cell *c) {
        c->state = LEASED;
        c->owner = (t->who + 1) & 15;
        if (config->fault == NO_LEASE) {
                c->state = FREE;
                c->owner = 0;
        }
}

static void got(struct turn *t, unsigned cell) {
        attempt_done(t->p);
        attempt_begin(t);
        t->p->best = (uint8_t)cell;
        t->p->is_first = 1;
        t->p->pc = SIGNAL;
}

static void get_lease_returned(struct turn *t) {
        struct cell *c = &t->s.cell[t->p->best];
        if (cell_is(c, &t->p->seen)) {
                leased(t, c);
                got(t, t->p->best);
                return;
        }
        attempt_begin(t);
        t->p->pc = GET_HINT;
}

static void get_head(struct turn *t) {
        t->p->from = t->p->at = t->p->head = t->s.head;
        t->p->best = NO_CELL;
        t->p->pc = GET_CELL;
}

static void get_go_on(struct proc *p, unsigned position) {
        p->at = (uint8_t)(position == p->at ? p->at + 1u : position - config->n_cells + 1u);
        if (!p->is_blocked)
                p->head = p->at;
}

static void get_cell(struct turn *t) {
        struct proc *p = t->p;
        const struct cell *c = cell_at(t, p->at);
        p->pc = GET_CELL;
        if (c->position < p->at || p->i++ == 2 * config->n_cells)
                p->pc = GET_MOVE;
        else if (c->position == p->at && c->state == QUEUED) {
                p->seen = *c;
                p->seen.item = 0;
                p->pc = GET_LEASE;
        } else {
                p->is_blocked |= c->position == p->at && c->state == WRITING;
                get_go_on(p, c->position);
        }
}

static void get_lease(struct turn *t) {
        struct proc *p = t->p;
        struct cell *c = cell_at(t, p->at);
        p->pc = GET_CELL;
        if (cell_is(c, &p->seen)) {
                leased(t, c);
                p->best = p->at % config->n_cells & 7;
                get_go_on(p, c->position);
                p->pc = GET_MOVE;
        }
        p->seen = (struct cell){0};
}

static void get_move(struct turn *t) {
        struct proc *p = t->p;
        if (t->s.head == p->from)
                t->s.head = p->head;
        if (p->best == NO_CELL)
                attempt_failed(t);
        else
                got(t, p->best);
}

static void work(struct turn *t) {
        t->p->pc = DONE;
        if (config->fault == NO_LEASE)
                call_begin(t);
}

static void done(struct turn *t) {
        struct cell *c = &t->s.cell[t->p->best];
        if (c->state != LEASED || c->owner != t->who + 1)
                explore_fail(t->x, "a live consumer's lease was taken from it", t->label);
        if (t->s.done & item_bit(c->item))
                explore_fail(t->x, "an item was done twice", t->label);
        t->s.done |= item_bit(c->item);
        c->state = FREE;
        c->owner = c->item = 0;
        t->p->best = t->p->is_first = 0;
        t->p->pc = SIGNAL;
}

/* ---- gates: producers wait for room and signal items, consumers the other way round ---- */

static enum gate gate_waited(unsigned who) { return is_producer(who) ? ROOM : ITEMS; }
static enum gate gate_signalled(unsigned who) { return is_producer(who) ? ITEMS : ROOM; }

static void gate_changed(struct state *s, enum gate gate) {
        for (unsigned i = 0; i < PROCESSES; i++)
                if (s->proc[i].pc == SIGNAL_WAKE || s->proc[i].pc == SIGNAL_VAIN)
                        if (gate_signalled(i) == gate)
                                s->proc[i].has_changed = 1;
}

static void gate_bump(struct state *s, enum gate gate) {
        gate_changed(s, gate);
        for (unsigned i = 0; i < PROCESSES; i++)
                if (s->proc[i].has_registered && !s->proc[i].is_queued && gate_waited(i) == gate)
                        s->proc[i].is_stale = 1;
}

static void gate_register(struct turn *t) {
        enum gate gate = gate_waited(t->who);
        gate_changed(&t->s, gate);
        t->s.flag[gate] = 1;
        t->p->has_registered = 1;
        t->p->is_stale = 0;
        attempt_begin(t);
        if (config->fault == NO_LOOK_AGAIN)
                t->p->pc = SLEEP;
}

static void gate_sleep(struct turn *t) {
        bool is_stale = t->p->is_stale;
        t->p->is_stale = 0;
        t->p->is_queued = !is_stale;
        t->p->has_registered = !is_stale;
        t->p->pc = is_stale ? REGISTER : SLEEPING;
}

static void gate_sleeping(struct turn *t) {
        t->is_disabled = t->p->is_queued;
        t->p->has_registered = 0;
        t->p->pc = REGISTER;
}

static void signal_end(struct turn *t) {
        if (!is_producer(t->who) && t->p->is_first)
                t->p->pc = WORK;
        else
                call_begin(t);
}

static void signal_look(struct turn *t) {
        if (t->s.flag[gate_signalled(t->who)])
                t->p->pc = SIGNAL_SEQ;
        else
                signal_end(t);
}

static void signal_seq(struct turn *t) {
        enum gate gate = gate_signalled(t->who);
        if (!t->s.flag[gate]) {
                signal_end(t);
                return;
        }
        gate_bump(&t->s, gate);
        t->p->pc = SIGNAL_WAKE;
}

static void signal_wake(struct turn *t) {
        enum gate gate = gate_signalled(t->who);
        unsigned waiters = 0;
        for (unsigned i = 0; i < PROCESSES; i++)
                if (t->s.proc[i].is_queued && gate_waited(i) == gate)
                        waiters |= 1u << i;
        t->p->pc = SIGNAL_VAIN;
        if (!waiters)
                return;
        t->p->has_changed = 0;
        signal_end(t);
        const struct state before = t->s;
        for (unsigned i = 0; waiters; i++, waiters &= waiters - 1) {
                t->s = before;
                t->s.proc[__builtin_ctz(waiters)].is_queued = 0;
                if (waiters & (waiters - 1))
                        emit(t);
        }
}

static void signal_vain(struct turn *t) {
        enum gate gate = gate_signalled(t->who);
        bool has_changed = t->p->has_changed;
        t->p->has_changed = 0;
        if (!has_changed || config->fault == VAIN_CLEAR) {
                t->s.flag[gate] = 0;
                gate_changed(&t->s, gate);
        }
        t->p->has_changed = 0;
        signal_end(t);
}

static const struct {
        void (*run)(struct turn *t);
        const char *text;
} ops[N_PCS] = {
        [PUT_TAIL] = {put_tail, "put: read the tail"},
        [PUT_CELL] = {put_cell, "put: read the tail's cell"},
        [PUT_HELP] = {put_help, "put: move the tail on over what is decided"},
        [PUT_HEAD] = {put_head, "put: read the head"},
        [PUT_WALK] = {put_walk, "put: full; read a cell behind the head"},
        [PUT_MOVE_HEAD] = {put_move_head, "put: move the head on"},
        [PUT_CLAIM] = {put_claim, "put: CAS the cell: FREE -> WRITING, or passed over"},
        [PUT_MOVE_TAIL] = {put_move_tail, "put: move the tail on"},
        [PUT_PUBLISH] = {put_publish, "put: WRITING -> QUEUED"},
        [GET_RETURNED] = {get_returned, "get: read `returned`"},
        [GET_HINT] = {get_hint, "get: read `returned` before the scan"},
        [GET_SCAN] = {get_scan, "get: scan for returned items: read a cell"},
        [GET_RESET] = {get_reset, "get: none found: take `returned` back"},
        [GET_LEASE_RETURNED] = {get_lease_returned, "get: RETURNED -> LEASED"},
        [GET_HEAD] = {get_head, "get: read the head"},
        [GET_CELL] = {get_cell, "get: read a cell"},
        [GET_LEASE] = {get_lease, "get: QUEUED -> LEASED"},
        [GET_MOVE] = {get_move, "get: move the head on"},
        [WORK] = {work, "works on the item"},
        [DONE] = {done, "task_done: LEASED -> FREE"},
        [REGISTER] = {gate_register, "wait: register at the gate"},
        [SLEEP] = {gate_sleep, "wait: FUTEX_WAIT"},
        [SLEEPING] = {gate_sleeping, "wait: woken"},
        [SIGNAL] = {signal_look, "signal: read the gate's flag"},
        [SIGNAL_SEQ] = {signal_seq, "signal: sequence + 1"},
        [SIGNAL_WAKE] = {signal_wake, "signal: FUTEX_WAKE(1)"},
        [SIGNAL_VAIN] = {signal_vain, "signal: woke nobody, clear the flag"},
        [REPAIR_CELL] = {NULL, "a cell: WRITING -> FREE, LEASED -> RETURNED"},
        [REPAIR_COUNT] = {NULL, "counts in `returned`"},
        [REPAIR_MARK] = {NULL, "marks `returned`"},
        [REPAIR_SEQ] = {NULL, "broadcast: sequence + 1"},
        [REPAIR_WAKE] = {NULL, "broadcast: FUTEX_WAKE(all)"},
        [KILL] = {NULL, "    SIGKILL"},
};

/* ---- deaths ---- */

static void kill_one(struct explore *x, const struct state *s, unsigned who) {
        if (s->n_kills == 0 || s->proc[who].pc == FINISHED)
                return;
        struct state next = *s;
        next.proc[who] = (struct proc){0};
        next.n_kills--;
        next.dead |= (uint8_t)(1u << who);
        explore_emit(x, &next, who << 8 | KILL);
}

static void repair_cell(struct state *s) {
        struct cell *c = &s->cell[s->repair_i];
        if (c->owner == s->repaired + 1) {
                c->state = c->state == LEASED ? RETURNED : FREE;
                c->owner = 0;
                if (c->state == FREE)
                        c->item = 0;
        }
        if (++s->repair_i < config->n_cells)
                return;
        s->repair_i = 0;
        s->repair_pc = REPAIR_COUNT;
}

static void repair_step(struct explore *x, const struct state *s) {
        struct state next = *s;
        unsigned label = (unsigned)REPAIRER << 8 | s->repair_pc;
        switch (s->repair_pc) {
        case REPAIR_CELL:
                repair_cell(&next);
                break;
        case REPAIR_COUNT:
                next.returned = (uint8_t)(s->returned + (config->fault == RESET_BY_VALUE ? 1 : 2));
                next.repair_pc = REPAIR_MARK;
                break;
        case REPAIR_MARK:
                if (config->fault != RESET_BY_VALUE && config->fault != NO_MARK)
                        next.returned |= 1;
                next.repair_pc = config->fault == NO_BROADCAST ? IDLE : REPAIR_SEQ;
                next.repaired = 0;
                break;
        case REPAIR_SEQ:
                gate_bump(&next, next.repair_i);
                next.repair_pc = REPAIR_WAKE;
                break;
        case REPAIR_WAKE:
                for (unsigned i = 0; i < PROCESSES; i++)
                        if (gate_waited(i) == next.repair_i)
                                next.proc[i].is_queued = 0;
                next.repair_pc = REPAIR_SEQ;
                if (++next.repair_i == GATES) {
                        next.repair_pc = IDLE;
                        next.repair_i = 0;
                }
                break;
        default:
                for (unsigned i = 0; i < PROCESSES; i++) {
                        if (!(s->dead >> i & 1))
                                continue;
                        next = *s;
                        next.dead &= (uint8_t) ~(1u << i);
                        next.repaired = (uint8_t)i;
                        repair_cell(&next);
                        next.repair_pc = REPAIR_CELL;
                        explore_emit(x, &next, (unsigned)REPAIRER << 8 | REPAIR_CELL);
                }
                return;
        }
        explore_emit(x, &next, label);
}

/* ---- the model ---- */

static void check(struct explore *x, const struct state *s) {
        unsigned n_asleep = 0, n_putting = 0;
        if (s->repair_pc != IDLE || s->dead)
                return;
        for (unsigned i = 0; i < PROCESSES; i++) {
                const struct proc *p = &s->proc[i];
                if (!p->is_alive || p->pc == FINISHED || p->pc == WORK)
                        continue;
                if (p->pc != SLEEPING || !p->is_queued)
                        return;
                n_asleep += !is_producer(i);
                n_putting += is_producer(i);
        }
        unsigned n_used = 0, found = s->done;
        for (unsigned i = 0; i < config->n_cells; i++) {
                const struct cell *c = &s->cell[i];
                n_used += c->state != FREE;
                if (c->state != FREE)
                        found |= item_bit(c->item);
                if ((c->state == QUEUED || c->state == RETURNED) && n_asleep > 0)
                        explore_fail(x, LOST_WAKE, EXPLORE_NO_STEP);
                if (c->owner && !s->proc[c->owner - 1].is_alive)
                        explore_fail(x, "a cell belongs to the dead", EXPLORE_NO_STEP);
        }
        if (n_putting > 0 && n_used == 0)
                explore_fail(x, "a lost wake-up: a producer sleeps beside an empty queue", EXPLORE_NO_STEP);
        if (s->accepted & ~found)
                explore_fail(x, LOST_ITEM, EXPLORE_NO_STEP);
}

static void queue_init(void *state) {
        struct turn t = {0};
        t.s.n_kills = (uint8_t)config->n_kills;
        t.s.returned = (uint8_t)config->returned;
        t.s.repair_pc = IDLE;
        for (t.who = 0; t.who < config->n_producers + config->n_consumers; t.who++) {
                t.p = &t.s.proc[t.who];
                t.p->left = (uint8_t)(is_producer(t.who) ? config->n_items : 0);
                call_begin(&t);
        }
        memcpy(state, &t.s, sizeof t.s);
}

/* Consumers are interchangeable: in the order of their private states. */
static void queue_canonicalize(void *state) {
        struct state *s = state;
        const unsigned first = config->n_producers, end = first + config->n_consumers;
        for (unsigned i = first + 1; i < end; i++)
                for (unsigned j = i; j > first && memcmp(&s->proc[j - 1], &s->proc[j], sizeof *s->proc) > 0; j--) {
                        struct proc p = s->proc[j];
                        s->proc[j] = s->proc[j - 1];
                        s->proc[j - 1] = p;
                        for (unsigned c = 0; c < config->n_cells; c++)
                                if (s->cell[c].owner == j || s->cell[c].owner == j + 1)
                                        s->cell[c].owner = (s->cell[c].owner == j ? j + 1 : j) & 15;
                        for (unsigned k = 0; k < PROCESSES; k++)
                                if (s->proc[k].seen.owner == j || s->proc[k].seen.owner == j + 1)
                                        s->proc[k].seen.owner = (s->proc[k].seen.owner == j ? j + 1 : j) & 15;
                        unsigned a = s->dead >> (j - 1) & 1, b = s->dead >> j & 1;
                        s->dead = (uint8_t)((s->dead & ~(3u << (j - 1))) | b << (j - 1) | a << j);
                        if ((s->repair_pc == REPAIR_CELL || s->repair_pc == REPAIR_COUNT ||
                             s->repair_pc == REPAIR_MARK) &&
                            (s->repaired == j - 1 || s->repaired == j))
                                s->repaired = (uint8_t)(s->repaired == j ? j - 1 : j);
                }
}

static void queue_expand(struct explore *x, const void *state) {
        const struct state *s = state;
        for (unsigned i = 0; i < PROCESSES; i++) {
                if (!s->proc[i].is_alive)
                        continue;
                kill_one(x, s, i);
                if (!ops[s->proc[i].pc].run)
                        continue;
                struct turn t = {.x = x, .s = *s, .who = i, .label = i << 8 | s->proc[i].pc};
                t.p = &t.s.proc[i];
                ops[t.p->pc].run(&t);
                if (!t.is_disabled)
                        emit(&t);
        }
        repair_step(x, s);
        check(x, s);
}

static void queue_print_step(unsigned label) {
        if (label == EXPLORE_NO_STEP)
                printf("(nothing more happens)\n");
        else if (label >> 8 == REPAIRER)
                printf("broker      %s\n", ops[label & 0xff].text);
        else if (is_producer(label >> 8))
                printf("producer %u  %s\n", label >> 8, ops[label & 0xff].text);
        else
                printf("consumer %u  %s\n", (label >> 8) - config->n_producers, ops[label & 0xff].text);
}

static void queue_print_state(const void *state) {
        static const char *const names[] = {"FREE", "WRITING", "QUEUED", "LEASED", "RETURNED"};
        const struct state *s = state;
        printf("  then: head %u tail %u returned %u;", s->head, s->tail, s->returned);
        for (unsigned i = 0; i < config->n_cells; i++)
                printf(" cell %u %s position %u;", i, names[s->cell[i].state], s->cell[i].position);
        printf(" flags %u %u\n", s->flag[ITEMS], s->flag[ROOM]);
}

int main(void) {
        struct explore_model model = {
                .state_bytes = sizeof(struct state),
                .init = queue_init,
                .expand = queue_expand,
                .print_step = queue_print_step,
                .print_state = queue_print_state,
        };
        unsigned n_wrong = 0;
        for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
                config = &configs[i];
                model.canonicalize = config->expected ? NULL : queue_canonicalize;
                n_wrong += !explore_case(&model, config->name, config->expected, MAX_STATES, false);
        }
        printf("%u wrong\n", n_wrong);
        return n_wrong > 0;
}
