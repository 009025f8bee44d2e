/* Interchangeable processes: the two workers, and (on one bell) the two clients with their slots. A state and the one
 * with two of them exchanged have the same successors but for the names, so one of a class is enough.
 *
 * The choice of the representative compares private states without slot numbers and store buffers, which another
 * exchange may rename; when they are equal nothing is exchanged. That may keep two members of a class, never lose one.
 */
#include <string.h>

#include "tests/model/jobs.h"

static void swap_procs(struct proc *a, struct proc *b) {
        struct proc t = *a;
        *a = *b;
        *b = t;
}

static unsigned swap_bits(unsigned two) { return (two & 1) << 1 | (two >> 1 & 1); }

static uint64_t proc_bits(const struct proc *p) {
        uint64_t bits;
        memcpy(&bits, p, sizeof bits);
        return bits;
}

static void map_buffer(struct proc *p, unsigned (*map)(unsigned var)) {
        p->var0 = map(p->var0) & 0x1f;
        p->var1 = map(p->var1) & 0x1f;
}

/* ---- workers ---- */

static unsigned map_worker_var(unsigned var) {
        if (var < VAR_SLEEPER || var >= VAR_DONE_BIT)
                return var;
        return var >= VAR_SPINNER ? VAR_SPINNER + ((var - VAR_SPINNER) ^ BELLS)
                                  : VAR_SLEEPER + ((var - VAR_SLEEPER) ^ BELLS);
}

static void swap_workers(struct state *s) {
        swap_procs(&s->proc[CLIENTS], &s->proc[CLIENTS + 1]);
        for (unsigned i = 0; i < PROCESSES; i++)
                map_buffer(&s->proc[i], map_worker_var);
        for (unsigned i = 0; i < BELLS; i++) {
                s->bell[i].sleepers = swap_bits(s->bell[i].sleepers) & 3;
                s->bell[i].spinners = swap_bits(s->bell[i].spinners) & 3;
        }
        for (unsigned i = 0; i < SLOTS; i++)
                s->slot[i].owner = swap_bits(s->slot[i].owner) & 3; /* 1 and 2 */
        uint8_t record = s->record[0];
        s->record[0] = s->record[1];
        s->record[1] = record;
        s->dead = (uint8_t)((s->dead & 3) | swap_bits(s->dead >> CLIENTS) << CLIENTS);
        struct proc *broker = &s->proc[BROKER];
        if (broker->pc != BROKER_IDLE && is_worker(broker->ctx))
                broker->ctx ^= 1;
}

static uint64_t worker_key(const struct proc *worker) {
        struct proc p = *worker;
        p.slot = 0;
        p.var0 = p.var1 = p.value0 = p.value1 = 0;
        return proc_bits(&p);
}

/* ---- clients ---- */

static unsigned map_slot(unsigned slot) { return (slot + config->n_slots_each) % (2 * config->n_slots_each); }

static unsigned map_cell(unsigned cell) {
        return cell_cycle(cell) == 0 ? cell : (cell & ~3u) | map_slot(cell_slot(cell));
}

static unsigned map_client_var(unsigned var) {
        if (var >= VAR_DONE_BIT && var < VAR_DONE_WAIT)
                return VAR_DONE_BIT + map_slot(var - VAR_DONE_BIT);
        if (var >= VAR_DONE_WAIT && var < VAR_CELL)
                return VAR_DONE_WAIT + ((var - VAR_DONE_WAIT) ^ 1);
        return var;
}

static bool is_pushing(const struct proc *p) { return p->pc >= PUSH_TAIL && p->pc <= PUSH_BUMP; }

/* Does p->slot of a worker or the broker name a slot now, or is it an unused 0? */
static bool has_slot(const struct proc *p, unsigned who) {
        if (is_client(who) || is_pushing(p) || (p->pc >= DONE_BIT && p->pc <= DONE_FUTEX))
                return true;
        if (who == BROKER)
                return (p->pc >= BROKER_WORD && p->pc <= BROKER_REQUEUE_MARK) || p->pc == BROKER_DROP_WORD ||
                       p->pc == BROKER_DROP;
        if ((p->pc >= WORKER_WORD && p->pc <= WORKER_ADVANCE) || (p->pc >= WAKE_SPINNERS && p->pc <= WAKE_NOTE) ||
            (p->pc >= WORKER_BATON_SLEEPERS && p->pc <= WORKER_FINISH))
                return true;
        return p->pc >= WORKER_MORE_HEAD && p->pc <= WORKER_MARK && p->own & 1; /* HAS_CLAIMED */
}

static void map_proc(struct proc *p, unsigned who) {
        if (has_slot(p, who))
                p->slot = map_slot(p->slot) & 3;
        if (is_pushing(p))
                p->seen = map_cell(p->seen) & 0x7f;
        if (p->var0 >= VAR_CELL && p->var0 < VAR_TAIL)
                p->value0 = map_cell(p->value0) & 0x7f;
        if (p->var1 >= VAR_CELL && p->var1 < VAR_TAIL)
                p->value1 = map_cell(p->value1) & 0x7f;
        map_buffer(p, map_client_var);
}

static void swap_clients(struct state *s) {
        const unsigned n = config->n_slots_each;
        swap_procs(&s->proc[0], &s->proc[1]);
        for (unsigned i = 0; i < PROCESSES; i++)
                if (s->proc[i].is_alive)
                        map_proc(&s->proc[i], i);
        for (unsigned i = 0; i < n; i++) {
                struct slot slot = s->slot[i];
                s->slot[i] = s->slot[i + n];
                s->slot[i + n] = slot;
        }
        for (unsigned i = 0; i < RINGS; i++) {
                s->ring[i].cell0 = map_cell(s->ring[i].cell0) & 0x7f;
                s->ring[i].cell1 = map_cell(s->ring[i].cell1) & 0x7f;
        }
        struct done done = s->done[0];
        s->done[0] = s->done[1];
        s->done[1] = done;
        for (unsigned i = 0; i < WORKERS; i++)
                if (s->record[i] >> 4)
                        s->record[i] = (uint8_t)((s->record[i] & ~3u) | map_slot(s->record[i] & 3));
        s->dead = (uint8_t)((s->dead & ~3u) | swap_bits(s->dead));
        struct proc *broker = &s->proc[BROKER];
        if (broker->pc == BROKER_IDLE)
                return;
        if (is_client(broker->ctx))
                broker->ctx ^= 1;
        if (broker->pc == BROKER_DONE_SEQ || broker->pc == BROKER_DONE_FUTEX)
                broker->queued ^= 1;
}

static uint64_t client_key(const struct state *s, unsigned client) {
        struct proc p = s->proc[client];
        p.slot %= config->n_slots_each;
        p.var0 = p.var1 = p.value0 = p.value1 = 0;
        if (is_pushing(&p))
                p.seen &= ~3u & 0x7f;
        return proc_bits(&p);
}

static unsigned client_slots_key(const struct state *s, unsigned client) {
        unsigned key = s->done[client].bits | (unsigned)s->done[client].wait << 2;
        for (unsigned i = 0; i < config->n_slots_each; i++) {
                const struct slot *slot = &s->slot[client * config->n_slots_each + i];
                key = key << 8 | slot->state | (unsigned)slot->generation << 3 | (unsigned)slot->attempt << 5 |
                      (unsigned)slot->has_result << 7;
        }
        return key;
}

static bool clients_are_unordered(const struct state *s) {
        uint64_t a = client_key(s, 0), b = client_key(s, 1);
        return a != b ? a > b : client_slots_key(s, 0) > client_slots_key(s, 1);
}

void jobs_canonicalize(void *state) {
        struct state *s = state;
        if (config->n_workers == 2) {
                uint64_t a = worker_key(&s->proc[CLIENTS]), b = worker_key(&s->proc[CLIENTS + 1]);
                if (a > b || (a == b && s->record[0] >> 2 > s->record[1] >> 2))
                        swap_workers(s);
        }
        if (config->n_clients == 2 && config->n_bells == 1 && clients_are_unordered(s))
                swap_clients(s);
}
