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

#include "tests/model/queue.h"

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
const struct queue_config *config;

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
