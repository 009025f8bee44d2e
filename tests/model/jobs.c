/* The model of slot, ring, bell, done words and recovery: its configurations, its properties, its steps, and the
 * program that runs all configurations of one name.
 *
 * What a step is. One access to shared memory, or one futex call, of the code that jobs.h lists, in the code's order. A
 * store that the code does not lock goes to the process's store buffer (two entries, first in first out) and reaches
 * memory whenever it likes, but before the process's next locked operation: x86's order. A kill can come between any
 * two steps; what was stored before it reaches memory. Positions, generations (modulo 4), attempts are small numbers; a
 * futex sequence is known as "moved on since I read it" or not, which is exact until 2^32 wake-ups.
 *
 * Properties. In every step: RUNNING is not changed under a live owner; a hint not yet passed by the head is not
 * overwritten while live; a job sees the input its client wrote, and a client its job's own result, once for each
 * accepted job, with a verdict that somebody may give. At rest, that is when nothing moves but handlers, which may run
 * for ever: no job is QUEUED without a hint or beside a sleeping worker, RUNNING means that its live owner runs it, no
 * client sleeps beside a verdict, nobody waits if no handler runs. There is no timeout in the model that could hide a
 * lost wake-up.
 *
 * What is left out, and why nothing is lost by it:
 *   - Two clients of one channel, where the real one has a client and the broker: more pushers, not fewer. Each has
 * done words of its own, as it would in its own channel.
 *   - ring.head_seen: the head only rises, so a head seen earlier that shows room is confirmed by the real one.
 *   - Recovery's sweep over all slots: an honest record names the one slot that can be RUNNING by the dead; at rest it
 * is checked that none is left.
 *   - Two rings of the four; claims of the least urgent first. Counters, `armed`, control word, orders, queue
 * deadlines, cancel, quarantine and doorbells: not part of this model; mode is FUTEX throughout.
 *   - Stores to memory that nobody else reads before the next locked operation (job line, result, record): no buffer.
 *   - Weaker machines than x86: a C11 seq_cst access is taken for the locked instruction or plain load it is there.
 *
 * Reductions, besides symmetry (jobs-symmetry.c). A "coarse" configuration joins neighbouring operations of a process
 * to one step; each join is sound because whatever the two can do with others' steps between them, they can do at one
 * instant in that interval, or it leaves nothing behind but another try:
 *   - push up to the CAS: success means that the cell was unwritten, thus the tail there, and room at an old head is
 * room at the present one. "Full" is what one instant showed; the look at the slot named by the head stays apart.
 *   - the looks at head and its cell: the head does not pass an unwritten cell, and a cell is not written again before
 *     the head has passed it. Both are checked (overwriting) or evident (claims), so by induction up to a first error.
 *   - the slot's load and the CAS after it: the CAS holds what the load saw; a CAS that fails is a load that saw
 *     something else, with the record written all the same.
 *   - FREE -> FILLING -> QUEUED: nobody tells the first two apart. The handler and its verdict: nobody reads the result
 *     area in between. Collect's load and exchange: only the client clears done bits.
 *   - without spinners: the looks at spinner bits (always 0) and sleeper bits.
 *   - the return from a futex wait on one word: private.
 *   - sleeper bit cleared, rises + 1: a waker between the two sees a sleeper less, or one still on its way; it does
 * what one does that sees neither.
 *
 * The small configurations are fine, that is without any join. The full one (two clients, two items each, two workers,
 * a kill, all waits) is too large for the suite: `model-jobs jobs-whole` and `jobs-whole-spin` run it when told to. For
 * less it is split where it falls apart: clients' waits use words (done bits, done_wait, done_seq) that the way to a
 * worker does not, so "jobs", "jobs-kill" and "jobs-spin-kill" have clients that see a verdict when it is there, and
 * "jobs-done" and "jobs-done-kill" those that wait. In the suite are "jobs" and "jobs-done-kill".
 */
#include <stdio.h>
#include <string.h>

#include "tests/model/jobs.h"

#define MAX_STATES UINT64_C(45000000) /* 64 + 4 bytes each, and 12 of hash table: less than 4 GiB */

#define MAX_PRINTS UINT64_C(800000000) /* 8 bytes each, and the states that are not expanded yet */

#define LOST_JOB "a lost wake-up: a job waits beside a sleeping worker"
#define LOST_CLIENT "a lost wake-up: a client sleeps beside its verdict"
#define STRANDED "a stranded job: QUEUED without a hint"

#define JOBS(clients, workers, bells, slots, items, kills)                                                             \
        .n_clients = clients, .n_workers = workers, .n_bells = bells, .n_slots_each = slots, .n_items_each = items,    \
        .n_kills = kills

static const struct jobs_config configs[] = {
        /* The whole way to a worker and its verdict. */
        {"jobs", "two clients, one item each, two workers that spin first, a kill", JOBS(2, 2, 1, 1, 1, 1),
         .may_spin = true, .is_coarse = true},
        {"jobs", "two items each, no kill", JOBS(2, 2, 1, 1, 2, 0), .may_spin = true, .is_coarse = true},
        /* Waits for verdicts. */
        {"jobs-done", "waiting clients, two items each", JOBS(2, 2, 1, 1, 2, 0), .has_waiters = true,
         .is_coarse = true},
        {"jobs-done-kill", "waiting clients, one item each, a kill", JOBS(2, 2, 1, 1, 1, 1), .has_waiters = true,
         .is_coarse = true},
        /* One aspect each; fine where nothing else is said. */
        {"jobs-small", "one client, one worker", JOBS(1, 1, 1, 2, 2, 1), .has_waiters = true, .may_spin = true},
        {"jobs-small", "one item each, a kill", JOBS(2, 2, 1, 1, 1, 1)},
        {"jobs-small", "one waiting client, two items, a kill", JOBS(1, 2, 1, 1, 2, 1), .has_waiters = true,
         .may_spin = true},
        {"jobs-small", "one waiting client, a window of two, a kill", JOBS(1, 2, 1, 2, 2, 1), .has_waiters = true},
        {"jobs-small", "full rings, one worker, a kill", JOBS(2, 1, 1, 2, 2, 1)},
        {"jobs-small", "two kills", JOBS(2, 2, 1, 1, 1, 2), .is_coarse = true},
        {"jobs-small", "a kill is the last attempt", JOBS(1, 2, 1, 1, 2, 1), .has_waiters = true,
         .is_poisoned_at_once = true},
        {"jobs-small", "a new worker for the dead one", JOBS(2, 2, 1, 1, 1, 1), .has_restart = true, .is_coarse = true},
        {"jobs-small", "two bells, a kill", JOBS(2, 2, 2, 1, 1, 1), .is_coarse = true},
        {"jobs-small", "two bells, two items each", JOBS(2, 2, 2, 1, 2, 0), .is_coarse = true},
        {"jobs-small", "two rows, a kill", JOBS(1, 2, 1, 2, 2, 1), .has_rows = true},
        {"jobs-small", "two rows, two clients", JOBS(2, 2, 1, 1, 1, 0), .has_rows = true, .is_coarse = true},
        /* Not in the suite, for they take from one minute to an hour, and up to 7 GiB: two items each with a kill
         * (32,745,021 states; with spinning 52,093,648), and then with clients that wait. Each whole but for what
         * explore.c says of compact runs. */
        {"jobs-kill", "two clients, two items each, two workers, a kill", JOBS(2, 2, 1, 1, 2, 1), .is_coarse = true,
         .is_compact = true},
        {"jobs-spin-kill", "two clients, two items each, workers that spin first, a kill", JOBS(2, 2, 1, 1, 2, 1),
         .may_spin = true, .is_coarse = true, .is_compact = true},
        {"jobs-whole", "waiting clients, two items each, two workers, a kill", JOBS(2, 2, 1, 1, 2, 1),
         .has_waiters = true, .is_coarse = true, .is_compact = true},
        {"jobs-whole-spin", "the same, and workers that spin first", JOBS(2, 2, 1, 1, 2, 1), .has_waiters = true,
         .may_spin = true, .is_coarse = true, .is_compact = true},
        /* What must be caught. */
        {"jobs-faults", "dropped fence S1", JOBS(1, 2, 1, 2, 2, 0), .fault = FENCE_S1, .expected = LOST_JOB},
        {"jobs-faults", "dropped fence S2", JOBS(1, 1, 1, 1, 2, 0), .fault = FENCE_S2, .expected = LOST_JOB},
        {"jobs-faults", "dropped fence S3", JOBS(1, 1, 1, 1, 2, 0), .fault = FENCE_S3, .expected = LOST_JOB},
        {"jobs-faults", "dropped fence S5", JOBS(1, 1, 1, 2, 2, 0), .fault = FENCE_S5, .expected = LOST_JOB},
        {"jobs-faults", "dropped fence S6", JOBS(1, 2, 1, 2, 2, 0), .fault = FENCE_S6, .expected = LOST_JOB},
        {"jobs-faults", "dropped fence D1", JOBS(1, 1, 1, 1, 2, 0), .has_waiters = true, .fault = FENCE_D1,
         .expected = LOST_CLIENT},
        {"jobs-faults", "dropped fence D2", JOBS(1, 1, 1, 1, 2, 0), .has_waiters = true, .fault = FENCE_D2,
         .expected = LOST_CLIENT},
        {"jobs-faults", "no death broadcast", JOBS(1, 2, 1, 2, 2, 1), .fault = NO_DEATH_BROADCAST,
         .expected = LOST_JOB},
        {"jobs-faults", "no broadcast to clients after a death", JOBS(1, 2, 1, 1, 1, 1), .has_waiters = true,
         .fault = NO_DONE_BROADCAST, .expected = LOST_CLIENT},
        {"jobs-faults", "work bits not set again after a death", JOBS(1, 2, 1, 2, 2, 1), .fault = NO_MARK_AFTER_DEATH,
         .expected = LOST_JOB},
        {"jobs-faults", "bits of the dead stay", JOBS(1, 2, 1, 2, 2, 1), .may_spin = true, .fault = NO_FORGET,
         .expected = LOST_JOB},
        {"jobs-faults", "a dead worker's verdict not announced", JOBS(1, 2, 1, 1, 2, 1), .has_waiters = true,
         .fault = NO_ANNOUNCE_AFTER_DEATH, .expected = LOST_CLIENT},
        {"jobs-faults", "who gets up does not count it", JOBS(1, 2, 1, 2, 2, 0), .fault = NO_RISE,
         .expected = LOST_JOB},
        {"jobs-faults", "the dead stay on their way", JOBS(1, 2, 1, 2, 2, 1), .fault = NO_RISE_OF_THE_DEAD,
         .expected = LOST_JOB},
        {"jobs-faults", "a wake-up is noted whoever got up meanwhile", JOBS(1, 2, 1, 2, 2, 0), .fault = NOTE_LATE_RISES,
         .expected = LOST_JOB},
        {"jobs-faults", "the back row is never woken", JOBS(1, 2, 1, 2, 2, 1), .has_rows = true, .fault = NO_BACK_ROW,
         .expected = LOST_JOB},
        {"jobs-faults", "no baton, spinners", JOBS(2, 2, 1, 1, 1, 0), .may_spin = true, .is_coarse = true,
         .fault = NO_BATON, .expected = LOST_JOB},
        {"jobs-faults", "no baton, two bells", JOBS(2, 2, 2, 1, 1, 0), .is_coarse = true, .fault = NO_BATON,
         .expected = LOST_JOB},
        {"jobs-faults", "no full check", JOBS(2, 1, 1, 2, 2, 0), .fault = NO_FULL_CHECK,
         .expected = "a live hint was overwritten"},
        {"jobs-faults", "no other ring when one is full", JOBS(2, 2, 1, 1, 1, 1), .is_coarse = true,
         .fault = NO_OTHER_RING, .expected = STRANDED},
        {"jobs-faults", "a settler does not look again", JOBS(1, 2, 1, 2, 2, 0), .fault = NO_SECOND_LOOK,
         .expected = LOST_JOB},
        {"jobs-faults", "a client reads done_seq last", JOBS(1, 1, 1, 1, 2, 0), .has_waiters = true, .fault = SEQ_LAST,
         .expected = LOST_CLIENT},
        {"jobs-faults", "the head first, then the claim", JOBS(1, 2, 1, 1, 1, 1), .fault = HEAD_FIRST,
         .expected = STRANDED},
        {"jobs-faults", "the result in the input's place", JOBS(1, 2, 1, 1, 1, 1), .fault = RESULT_IN_PLACE,
         .expected = "a job saw an input that its client did not write"},
        {"jobs-faults", "requeued without a look at the owner", JOBS(1, 2, 1, 1, 1, 1), .fault = REQUEUE_UNCHECKED,
         .expected = "RUNNING was changed under a live owner"},
        /* Not needed here: who stops spinning looks again behind its sleeper bit (S3), or claims, before it matters. */
        {"jobs-faults", "dropped fence S4", JOBS(1, 2, 1, 2, 2, 0), .may_spin = true, .fault = FENCE_S4},
};

const struct jobs_config *config;
static struct jobs_op ops[N_PCS];

static void ops_init(void) {
        const struct jobs_op *parts[] = {jobs_shared_ops, jobs_client_ops, jobs_worker_ops, jobs_broker_ops};
        for (unsigned part = 0; part < 4; part++)
                for (unsigned pc = 0; pc < N_PCS; pc++)
                        if (parts[part][pc].run)
                                ops[pc] = parts[part][pc];
}

/* ---- steps ---- */

enum step_kind { STEP_OP, STEP_DRAIN, STEP_KILL };

static unsigned label_make(enum step_kind kind, unsigned who, unsigned what) {
        return (unsigned)kind << 16 | who << 8 | what;
}

static void print_process(unsigned who) {
        if (is_client(who))
                printf("client %u  ", who);
        else if (is_worker(who))
                printf("worker %u  ", who - CLIENTS);
        else
                printf("broker    ");
}

static void jobs_print_step(unsigned label) {
        static const char *const vars[] = {[VAR_WORK] = "a work bit",       [VAR_SLEEPER] = "a sleeper bit",
                                           [VAR_SPINNER] = "a spinner bit", [VAR_DONE_BIT] = "a done bit",
                                           [VAR_DONE_WAIT] = "done_wait",   [VAR_CELL] = "a cell",
                                           [VAR_TAIL] = "the tail",         [VAR_TAIL + 1] = NULL};
        if (label == EXPLORE_NO_STEP) {
                printf("(nothing more happens)\n");
                return;
        }
        print_process(label >> 8 & 0xff);
        unsigned what = label & 0xff;
        switch ((enum step_kind)(label >> 16)) {
        case STEP_OP:
                printf("%s\n", ops[what].text);
                break;
        case STEP_DRAIN:
                if (what > VAR_TAIL)
                        what = VAR_TAIL;
                while (!vars[what])
                        what--;
                printf("    its store buffer drains: %s\n", vars[what]);
                break;
        case STEP_KILL:
                printf("    SIGKILL\n");
                break;
        }
}

void turn_emit(struct turn *t) { explore_emit(t->explore, &t->s, t->label); }

void turn_fail(struct turn *t, const char *what) { explore_fail(t->explore, what, t->label); }

static bool is_plain(const struct jobs_op *op) {
        return op->kind == STORE || (op->fence && op->fence == config->fault);
}

static bool is_joined(const struct jobs_op *op) {
        return config->is_coarse && op->joins && (op->run != ops[WAKE_SLEEPERS].run || !config->may_spin);
}

static void take_step(struct explore *x, const struct state *s, unsigned who) {
        const struct jobs_op *op = &ops[s->proc[who].pc];
        if (!op->run)
                return;
        struct turn t = {.explore = x, .s = *s, .who = who};
        t.p = &t.s.proc[who];
        do {
                t.is_plain = is_plain(op);
                if (op->kind == LOCKED && !t.is_plain && t.p->var0)
                        return; /* waits until the buffer is drained */
                t.label = label_make(STEP_OP, who, t.p->pc);
                op->run(&t);
                op = &ops[t.p->pc];
        } while (!t.is_disabled && op->run && is_joined(op));
        if (!t.is_disabled)
                turn_emit(&t);
}

static void drain_one(struct state *s, unsigned who) {
        struct proc *p = &s->proc[who];
        jobs_memory_set(s, p->var0, p->value0);
        p->var0 = p->var1;
        p->value0 = p->value1;
        p->var1 = p->value1 = 0;
}

static void drain(struct explore *x, const struct state *s, unsigned who) {
        if (!s->proc[who].var0)
                return;
        struct state next = *s;
        drain_one(&next, who);
        explore_emit(x, &next, label_make(STEP_DRAIN, who, s->proc[who].var0));
}

/* What a process has stored is stored; what it knew is gone. */
static void kill_one(struct explore *x, const struct state *s, unsigned who) {
        if (s->n_kills == 0 || who == BROKER || s->proc[who].pc == FINISHED)
                return;
        struct state next = *s;
        while (next.proc[who].var0)
                drain_one(&next, who);
        next.proc[who] = (struct proc){0};
        next.n_kills--;
        next.dead |= (uint8_t)(1u << who);
        explore_emit(x, &next, label_make(STEP_KILL, who, 0));
}

/* ---- properties of a state in which nothing happens but that handlers run, as long as they like ---- */

struct rest {
        unsigned n_workers, n_asleep, n_running, n_waiting;
};

static bool is_at_rest(const struct state *s, struct rest *ret) {
        *ret = (struct rest){0};
        for (unsigned i = 0; i < PROCESSES; i++) {
                const struct proc *p = &s->proc[i];
                if (!p->is_alive)
                        continue;
                if (p->var0)
                        return false;
                ret->n_workers += is_worker(i);
                switch (p->pc) {
                case FINISHED:
                        break;
                case WORKER_HANDLER:
                        ret->n_running++;
                        break;
                case WORKER_SLEEPING:
                        if (p->queued != bells_mask())
                                return false;
                        ret->n_asleep++;
                        break;
                case CLIENT_SLEEPING:
                        if (!p->queued)
                                return false;
                        ret->n_waiting++;
                        break;
                case CLIENT_FREE:
                        if (slot_is_verdict(s->slot[p->slot].state))
                                return false;
                        ret->n_waiting++;
                        break;
                case BROKER_IDLE:
                        if (s->dead)
                                return false;
                        break;
                default:
                        return false;
                }
        }
        return true;
}

static bool has_hint(const struct state *s, unsigned slot) {
        for (unsigned i = 0; i < n_rings(); i++) {
                const struct ring *r = &s->ring[ring_of(bell_of(slot), i)];
                for (unsigned position = r->head; position < r->head + 0u + CELLS; position++) {
                        unsigned cell = position % CELLS == 0 ? r->cell0 : r->cell1;
                        if (cell_cycle(cell) == cycle_of(position) && cell_slot(cell) == slot &&
                            cell_generation(cell) == s->slot[slot].generation)
                                return true;
                }
        }
        return false;
}

static const char *check_slot(const struct state *s, unsigned i, const struct rest *rest) {
        const struct slot *slot = &s->slot[i];
        const struct proc *client = &s->proc[client_of(i)];
        switch ((enum slot_state)slot->state) {
        case FREE:
                return NULL;
        case FILLING:
                return client->is_alive ? "a live client left its slot FILLING" : NULL;
        case QUEUED:
                if (rest->n_workers > 0 && !has_hint(s, i))
                        return "a stranded job: QUEUED without a hint";
                return rest->n_asleep > 0 ? "a lost wake-up: a job waits beside a sleeping worker" : NULL;
        case RUNNING:
                if (!s->proc[CLIENTS + slot->owner - 1].is_alive)
                        return "RUNNING by the dead";
                return s->proc[CLIENTS + slot->owner - 1].pc != WORKER_HANDLER ? "RUNNING, but nobody runs it" : NULL;
        case DONE:
        case CANCELLED:
        case POISONED:
                return client->is_alive && client->pc == CLIENT_SLEEPING
                               ? "a lost wake-up: a client sleeps beside its verdict"
                               : NULL;
        }
        return NULL;
}

static void check(struct explore *x, const struct state *s) {
        struct rest rest;
        if (!is_at_rest(s, &rest))
                return;
        for (unsigned i = 0; i < config->n_clients * config->n_slots_each; i++) {
                const char *what = check_slot(s, i, &rest);
                if (what)
                        explore_fail(x, what, EXPLORE_NO_STEP);
        }
        if (rest.n_workers > 0 && rest.n_running == 0 && rest.n_waiting > 0)
                explore_fail(x, "a client waits for ever", EXPLORE_NO_STEP);
}

/* ---- the model ---- */

static void jobs_init(void *state) {
        struct state *s = state;
        *s = (struct state){.n_kills = (uint8_t)config->n_kills};
        for (unsigned i = 0; i < config->n_clients * config->n_slots_each; i++)
                s->slot[i].generation = FIRST_GENERATION;
        for (unsigned i = 0; i < config->n_clients; i++)
                client_start(s, i);
        for (unsigned i = 0; i < config->n_workers; i++)
                worker_start(&s->proc[CLIENTS + i]);
        s->proc[BROKER] = (struct proc){.is_alive = 1, .pc = BROKER_IDLE};
}

static void jobs_expand(struct explore *x, const void *state) {
        const struct state *s = state;
        for (unsigned i = 0; i < PROCESSES; i++) {
                if (!s->proc[i].is_alive)
                        continue;
                take_step(x, s, i);
                drain(x, s, i);
                kill_one(x, s, i);
        }
        check(x, s);
}

static void jobs_print_state(const void *state) {
        static const char *const names[] = {"FREE", "FILLING", "QUEUED", "RUNNING", "DONE", "CANCELLED", "POISONED"};
        const struct state *s = state;
        printf("  then:");
        for (unsigned i = 0; i < config->n_clients * config->n_slots_each; i++) {
                printf(" slot %u %s", i, names[s->slot[i].state]);
                if (s->slot[i].owner)
                        printf(" by worker %u", s->slot[i].owner - 1);
                putchar(';');
        }
        for (unsigned i = 0; i < config->n_bells; i++)
                printf(" ring %u head %u tail %u; bell %u work %u sleepers %u spinners %u;", i, s->ring[i].head,
                       s->ring[i].tail, i, s->bell[i].work, s->bell[i].sleepers, s->bell[i].spinners);
        putchar('\n');
}

/* true: the outcome is the expected one. */
static bool run(void) {
        const struct explore_model model = {
                .state_bytes = sizeof(struct state),
                .init = jobs_init,
                .expand = jobs_expand,
                .canonicalize = config->expected || config->has_rows ? NULL : jobs_canonicalize,
                .print_step = jobs_print_step,
                .print_state = jobs_print_state,
        };
        return explore_case(&model, config->name, config->expected, config->is_compact ? MAX_PRINTS : MAX_STATES,
                            config->is_compact);
}

int main(int argc, char **argv) {
        unsigned n_run = 0, n_wrong = 0;
        ops_init();
        for (size_t i = 0; argc == 2 && i < sizeof configs / sizeof *configs; i++) {
                config = &configs[i];
                if (strcmp(config->test, argv[1]) != 0)
                        continue;
                n_run++;
                n_wrong += !run();
        }
        printf("%s: %u configurations, %u wrong\n", argc == 2 ? argv[1] : "no such test", n_run, n_wrong);
        return n_run == 0 || n_wrong > 0;
}
