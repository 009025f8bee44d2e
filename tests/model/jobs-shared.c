/* The model's memory (with store buffers) and the three subroutines of more than one party: ring_push, bell_wake_one
 * and channel_announce. */
#include "tests/model/jobs.h"

/* ---- memory ---- */

static unsigned memory_get(const struct state *s, unsigned var) {
        unsigned i;
        if (var >= VAR_TAIL)
                return s->ring[var - VAR_TAIL].tail;
        if (var >= VAR_CELL) {
                i = var - VAR_CELL;
                return i % CELLS == 0 ? s->ring[i / CELLS].cell0 : s->ring[i / CELLS].cell1;
        }
        if (var >= VAR_DONE_WAIT)
                return s->done[var - VAR_DONE_WAIT].wait;
        if (var >= VAR_DONE_BIT) {
                i = var - VAR_DONE_BIT;
                return s->done[client_of(i)].bits >> i % config->n_slots_each & 1;
        }
        if (var >= VAR_SPINNER) {
                i = var - VAR_SPINNER;
                return s->bell[i % BELLS].spinners >> i / BELLS & 1;
        }
        if (var >= VAR_SLEEPER) {
                i = var - VAR_SLEEPER;
                return s->bell[i % BELLS].sleepers >> i / BELLS & 1;
        }
        return s->bell[var - VAR_WORK].work;
}

static unsigned with_bit(unsigned bits, unsigned i, unsigned value) { return (bits & ~(1u << i)) | value << i; }

void jobs_memory_set(struct state *s, unsigned var, unsigned value) {
        unsigned i;
        if (var >= VAR_TAIL)
                s->ring[var - VAR_TAIL].tail = value & 7;
        else if (var >= VAR_CELL) {
                i = var - VAR_CELL;
                if (i % CELLS == 0)
                        s->ring[i / CELLS].cell0 = value & 0x7f;
                else
                        s->ring[i / CELLS].cell1 = value & 0x7f;
        } else if (var >= VAR_DONE_WAIT)
                s->done[var - VAR_DONE_WAIT].wait = value & 1;
        else if (var >= VAR_DONE_BIT) {
                i = var - VAR_DONE_BIT;
                struct done *d = &s->done[client_of(i)];
                d->bits = with_bit(d->bits, i % config->n_slots_each, value) & 3;
        } else if (var >= VAR_SPINNER) {
                i = var - VAR_SPINNER;
                s->bell[i % BELLS].spinners = with_bit(s->bell[i % BELLS].spinners, i / BELLS, value) & 3;
        } else if (var >= VAR_SLEEPER) {
                i = var - VAR_SLEEPER;
                s->bell[i % BELLS].sleepers = with_bit(s->bell[i % BELLS].sleepers, i / BELLS, value) & 3;
        } else
                s->bell[var - VAR_WORK].work = value & 1;
}

unsigned jobs_load(const struct turn *t, unsigned var) {
        if (t->p->var1 == var)
                return t->p->value1;
        if (t->p->var0 == var)
                return t->p->value0;
        return memory_get(&t->s, var);
}

unsigned jobs_load_bits(const struct turn *t, unsigned first_var, unsigned n, unsigned stride) {
        unsigned bits = 0;
        for (unsigned i = 0; i < n; i++)
                bits |= jobs_load(t, first_var + i * stride) << i;
        return bits;
}

void jobs_store(struct turn *t, unsigned var, unsigned value) {
        if (!t->is_plain)
                jobs_memory_set(&t->s, var, value);
        else if (!t->p->var0) {
                t->p->var0 = var & 0x1f;
                t->p->value0 = value & 0x7f;
        } else if (!t->p->var1) {
                t->p->var1 = var & 0x1f;
                t->p->value1 = value & 0x7f;
        } else
                t->is_disabled = true; /* full: it waits until a store is drained */
}

void jobs_slot_set(struct turn *t, unsigned slot, struct slot to) {
        struct slot *s = &t->s.slot[slot];
        if (s->state == RUNNING) {
                unsigned owner = CLIENTS + s->owner - 1u;
                if (t->who != owner && t->s.proc[owner].is_alive)
                        turn_fail(t, "RUNNING was changed under a live owner");
        }
        *s = to;
}

/* ---- sequences and futexes ---- */

static unsigned bell_woken_by(const struct proc *p, unsigned who) {
        return is_client(who) ? who % config->n_bells : p->left;
}

/* A sequence is known only as equal or not to what a waiter read: exact, as long as it does not come round (2^32). */
void bell_bump(struct state *s, unsigned bell, unsigned row) {
        for (unsigned i = CLIENTS; i < BROKER; i++) {
                struct proc *p = &s->proc[i];
                bool has_read = p->pc == WORKER_RELOOK || p->pc == WORKER_SLEEP ||
                                ((p->pc == WORKER_SLEEPER_SET || p->pc == WORKER_SEQ) && bell < p->left);
                if (p->is_alive && has_read && row_of(i) == row)
                        p->stale |= 1u << bell & 3;
        }
}

/* With one bell there is nothing left to leave: the one woken goes on. */
static void bell_unqueue(struct proc *p, unsigned bell) {
        if (!(p->queued >> bell & 1))
                return;
        p->queued &= ~(1u << bell) & 3;
        if (config->is_coarse && config->n_bells == 1)
                p->pc = WORKER_SLEEPER_CLEAR;
}

static void done_unqueue(struct proc *p) {
        if (p->queued && config->is_coarse)
                p->pc = CLIENT_WAIT_END;
        p->queued = 0;
}

/* `rises` is known only as equal or not to what a waker read, and to what `woken` says. */
void bell_rise(struct state *s, unsigned bell) {
        s->bell[bell].woken = 0;
        for (unsigned i = 0; i < BROKER; i++) {
                struct proc *p = &s->proc[i];
                if (p->is_alive && p->pc >= WAKE_RISES && p->pc <= WAKE_NOTE && bell_woken_by(p, i) == bell)
                        p->risen = 1;
        }
}

void bell_wake_all(struct state *s, unsigned bell, unsigned row) {
        for (unsigned i = CLIENTS; i < BROKER; i++)
                if (row_of(i) == row)
                        bell_unqueue(&s->proc[i], bell);
}

void done_wake(struct state *s, unsigned client) { done_unqueue(&s->proc[client]); }

void done_bump(struct state *s, unsigned client) {
        struct proc *p = &s->proc[client];
        bool has_read = p->pc == CLIENT_WAIT_SET || p->pc == CLIENT_SLEEP ||
                        ((p->pc == CLIENT_COLLECT || p->pc == CLIENT_TAKE || p->pc == CLIENT_LOOK) && p->ctx == 1);
        if (p->is_alive && has_read)
                p->stale = 1;
}

/* ---- channel_push: p->slot, p->generation ---- */

static unsigned push_ring(const struct turn *t) { return ring_of(bell_of(t->p->slot), t->p->ring); }

static void push_again(struct turn *t) {
        t->p->pos = t->p->seen = t->p->head = 0;
        t->p->pc = PUSH_TAIL;
}

void push_begin(struct turn *t) {
        t->p->ring = 0;
        push_again(t);
}

static void push_end(struct turn *t, bool is_full) {
        if (is_full && t->p->ring + 1u < n_rings() && config->fault != NO_OTHER_RING) {
                t->p->ring++;
                push_again(t);
                return;
        }
        t->p->pos = t->p->seen = t->p->head = t->p->ring = 0;
        if (t->who == BROKER)
                broker_after_push(t);
        else
                client_after_push(t, is_full);
}

static void push_tail(struct turn *t) {
        t->p->pos = jobs_load(t, var_tail(push_ring(t))) & 7;
        if (t->p->pos == MAX_POSITION)
                turn_fail(t, "the model's positions are too small");
        t->p->seen = 0;
        t->p->pc = PUSH_CELL;
}

static void push_cell(struct turn *t) {
        struct proc *p = t->p;
        unsigned cell = jobs_load(t, var_cell(push_ring(t), p->pos));
        if (cell_cycle(cell) == cycle_of(p->pos))
                p->pc = PUSH_HELP;
        else if (cell_cycle(cell) != cycle_of(p->pos) - 1)
                p->pc = PUSH_TAIL;
        else {
                p->seen = cell & 0x7f;
                p->pc = config->fault == NO_FULL_CHECK ? PUSH_CAS : PUSH_HEAD;
        }
        if (p->pc == PUSH_TAIL)
                p->pos = 0;
}

static void bump_tail(struct turn *t) {
        unsigned var = var_tail(push_ring(t));
        if (jobs_load(t, var) == t->p->pos)
                jobs_store(t, var, t->p->pos + 1u);
}

static void push_help(struct turn *t) {
        bump_tail(t);
        push_again(t);
}

static void push_head(struct turn *t) {
        struct proc *p = t->p;
        p->head = t->s.ring[push_ring(t)].head;
        if (p->head > p->pos)
                push_again(t);
        else if (p->pos - p->head < CELLS) {
                p->head = 0;
                p->pc = PUSH_CAS;
        } else
                p->pc = PUSH_HEAD_CELL;
}

static void push_head_cell(struct turn *t) {
        struct proc *p = t->p;
        unsigned cell = jobs_load(t, var_cell(push_ring(t), p->head));
        if (cell_cycle(cell) != cycle_of(p->head)) {
                push_again(t);
                return;
        }
        p->seen = cell & 0x7f;
        p->pc = PUSH_IS_LIVE;
}

static void push_is_live(struct turn *t) {
        struct proc *p = t->p;
        if (slot_is_live(&t->s, cell_slot(p->seen), cell_generation(p->seen))) {
                push_end(t, true);
                return;
        }
        p->seen = 0;
        p->pc = PUSH_DROP;
}

static void push_drop(struct turn *t) {
        struct ring *r = &t->s.ring[push_ring(t)];
        if (r->head == t->p->head)
                r->head++;
        push_again(t);
}

static void push_cas(struct turn *t) {
        struct proc *p = t->p;
        unsigned var = var_cell(push_ring(t), p->pos), cell = jobs_load(t, var);
        if (cell != p->seen) {
                push_again(t);
                return;
        }
        if (cell_cycle(cell) > 0 && t->s.ring[push_ring(t)].head <= p->pos - CELLS &&
            slot_is_live(&t->s, cell_slot(cell), cell_generation(cell)))
                turn_fail(t, "a live hint was overwritten");
        jobs_store(t, var, cell_pack(p->pos, p->generation, p->slot));
        p->seen = 0;
        p->pc = PUSH_BUMP;
}

static void push_bump(struct turn *t) {
        bump_tail(t);
        push_end(t, false);
}

/* ---- bell_wake_one: a client's bell, or the one a worker's baton has come to ---- */

static unsigned wake_bell(const struct turn *t) { return bell_woken_by(t->p, t->who); }

static void wake_end(struct turn *t) {
        if (is_client(t->who))
                client_after_wake(t);
        else
                worker_after_wake(t);
}

void wake_begin(struct turn *t) { t->p->pc = WAKE_SPINNERS; }

static void wake_spinners(struct turn *t) {
        if (jobs_load_bits(t, var_spinner(0, wake_bell(t)), WORKERS, BELLS))
                wake_end(t);
        else
                t->p->pc = WAKE_SLEEPERS;
}

static void wake_sleepers(struct turn *t) {
        if (!jobs_load_bits(t, var_sleeper(0, wake_bell(t)), WORKERS, BELLS)) {
                wake_end(t);
                return;
        }
        t->p->row = config->has_rows && config->fault != NO_BACK_ROW && !jobs_load(t, var_sleeper(0, wake_bell(t)));
        t->p->pc = WAKE_WOKEN;
}

/* The row behind, if nobody is in the futex of the one in front. */
static void wake_nobody(struct turn *t) {
        if (config->has_rows && t->p->row == 0 && config->fault != NO_BACK_ROW) {
                t->p->row = 1;
                t->p->pc = WAKE_SEQ;
                return;
        }
        t->p->risen = t->p->row = 0;
        wake_end(t);
}

/* How long somebody may be on its way is not part of the model: here for ever. */
static void wake_woken(struct turn *t) {
        t->p->risen = !t->s.bell[wake_bell(t)].woken;
        t->p->pc = WAKE_RISES;
}

static void wake_rises(struct turn *t) {
        if (!t->p->risen) {
                t->p->row = 0;
                wake_end(t);
                return;
        }
        t->p->risen = 0;
        t->p->pc = WAKE_SEQ;
}

static void wake_seq(struct turn *t) {
        bell_bump(&t->s, wake_bell(t), t->p->row);
        t->p->pc = WAKE_FUTEX;
}

/* The kernel may choose any waiter in the word's queue. One in several queues that was woken by another word, but did
 * not run yet, still takes the wake-up. */
static void wake_futex(struct turn *t) {
        unsigned bell = wake_bell(t), waiters = 0;
        for (unsigned i = CLIENTS; i < BROKER; i++)
                if (t->s.proc[i].queued >> bell & 1 && row_of(i) == t->p->row)
                        waiters |= 1u << i;
        if (!waiters) {
                wake_nobody(t);
                return;
        }
        t->p->pc = WAKE_NOTE;
        const struct state before = t->s;
        for (unsigned i = CLIENTS; i < BROKER; i++) {
                if (!(waiters >> i & 1))
                        continue;
                waiters &= ~(1u << i);
                bell_unqueue(&t->s.proc[i], bell);
                if (waiters) {
                        turn_emit(t);
                        t->s = before;
                }
        }
}

static void wake_note(struct turn *t) {
        t->s.bell[wake_bell(t)].woken = !t->p->risen || config->fault == NOTE_LATE_RISES;
        t->p->risen = t->p->row = 0;
        wake_end(t);
}

/* ---- channel_announce: p->slot ---- */

static void announce_end(struct turn *t) {
        if (t->who == BROKER)
                broker_after_announce(t);
        else
                worker_after_announce(t);
}

void announce_begin(struct turn *t) {
        if (config->has_waiters)
                t->p->pc = DONE_BIT;
        else
                announce_end(t);
}

static void done_bit(struct turn *t) {
        jobs_store(t, var_done_bit(t->p->slot), 1);
        t->p->pc = DONE_WAIT_LOOK;
}

static void done_wait_look(struct turn *t) {
        if (jobs_load(t, var_done_wait(client_of(t->p->slot))))
                t->p->pc = DONE_WAIT_TAKE;
        else
                announce_end(t);
}

static void done_wait_take(struct turn *t) {
        struct done *d = &t->s.done[client_of(t->p->slot)];
        unsigned wait = d->wait;
        d->wait = 0;
        if (wait)
                t->p->pc = DONE_SEQ;
        else
                announce_end(t);
}

static void done_seq(struct turn *t) {
        done_bump(&t->s, client_of(t->p->slot));
        t->p->pc = DONE_FUTEX;
}

static void done_futex(struct turn *t) {
        done_wake(&t->s, client_of(t->p->slot));
        announce_end(t);
}

const struct jobs_op jobs_shared_ops[N_PCS] = {
        [PUSH_TAIL] = {push_tail, "push: read the tail", LOAD},
        [PUSH_CELL] = {push_cell, "push: read the tail's cell", LOAD, .joins = true},
        [PUSH_HELP] = {push_help, "push: advance the tail for another", LOCKED, FENCE_S1},
        [PUSH_HEAD] = {push_head, "push: read the head", LOAD, .joins = true},
        [PUSH_HEAD_CELL] = {push_head_cell, "push: full; read the head's cell", LOAD, .joins = true},
        [PUSH_IS_LIVE] = {push_is_live, "push: full; read the slot named by the head", LOAD},
        [PUSH_DROP] = {push_drop, "push: advance the head past a stale hint", LOCKED},
        [PUSH_CAS] = {push_cas, "push: CAS the cell", LOCKED, FENCE_S1, .joins = true},
        [PUSH_BUMP] = {push_bump, "push: advance the tail", LOCKED, FENCE_S1},
        [WAKE_SPINNERS] = {wake_spinners, "wake: read the spinner bits", LOAD},
        [WAKE_SLEEPERS] = {wake_sleepers, "wake: read the sleeper bits", LOAD, .joins = true},
        [WAKE_WOKEN] = {wake_woken, "wake: read woken", LOAD},
        [WAKE_RISES] = {wake_rises, "wake: read rises", LOAD},
        [WAKE_SEQ] = {wake_seq, "wake: seq + 1", LOCKED},
        [WAKE_FUTEX] = {wake_futex, "wake: FUTEX_WAKE(1)", LOCKED},
        [WAKE_NOTE] = {wake_note, "wake: write woken", LOCKED},
        [DONE_BIT] = {done_bit, "announce: set the done bit", LOCKED, FENCE_D1},
        [DONE_WAIT_LOOK] = {done_wait_look, "announce: read done_wait", LOAD},
        [DONE_WAIT_TAKE] = {done_wait_take, "announce: take done_wait", LOCKED},
        [DONE_SEQ] = {done_seq, "announce: done_seq + 1", LOCKED},
        [DONE_FUTEX] = {done_futex, "announce: FUTEX_WAKE(1)", LOCKED},
};
