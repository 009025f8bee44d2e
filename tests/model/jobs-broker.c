/* The broker: recovery_run for a dead worker, pool_channel_drop for a dead client. The dead one's number is in ctx.
 *
 * The order in which it goes through two clients' done words is left open (jobs.h: a flip in p->queued), so that
 * clients are interchangeable (jobs-symmetry.c). */
#include "tests/model/jobs.h"

static void broker_rest(struct turn *t) {
        struct proc *p = t->p;
        if (config->has_restart && is_worker(p->ctx))
                worker_start(&t->s.proc[p->ctx]);
        *p = (struct proc){.is_alive = 1, .pc = BROKER_IDLE};
}

/* ---- bells and channels, after the jobs ---- */

static void each_bell_begin(struct turn *t) {
        t->p->left = t->p->stale = t->p->queued = 0;
        if (config->fault == NO_DEATH_BROADCAST)
                broker_rest(t);
        else
                t->p->pc = BROKER_SEQ;
}

static void channel_begin(struct turn *t) {
        t->p->pos = t->p->ring = 0;
        t->p->pc = BROKER_HEAD;
        if (t->p->left == config->n_bells)
                each_bell_begin(t);
}

static void channel_next(struct turn *t) {
        t->p->left++;
        channel_begin(t);
}

static void channel_marked(struct turn *t) {
        struct proc *p = t->p;
        p->pos = p->ring = 0;
        if (!config->has_waiters || config->fault == NO_DONE_BROADCAST) {
                channel_next(t);
                return;
        }
        p->stale = 0;
        p->pc = BROKER_DONE_SEQ;
        if (config->n_bells == 1 && config->n_clients == 2) {
                turn_emit(t);
                p->queued = 1;
        }
}

static void broker_head(struct turn *t) {
        t->p->pos = t->s.ring[ring_of(t->p->left, t->p->ring)].head;
        t->p->pc = BROKER_CELL;
}

static void broker_cell(struct turn *t) {
        struct proc *p = t->p;
        unsigned cycle = cell_cycle(jobs_load(t, var_cell(ring_of(p->left, p->ring), p->pos)));
        bool is_written = cycle == cycle_of(p->pos), is_empty = cycle == cycle_of(p->pos) - 1;
        p->pos = 0;
        p->pc = BROKER_HEAD;
        if (is_empty && p->ring + 1u < n_rings())
                p->ring++;
        else if (is_written && config->fault != NO_MARK_AFTER_DEATH)
                p->pc = BROKER_MARK;
        else if (is_written || is_empty)
                channel_marked(t);
}

static void broker_mark(struct turn *t) {
        jobs_store(t, var_work(t->p->left), 1);
        channel_marked(t);
}

static unsigned done_client(const struct proc *p) { return config->n_bells == 1 ? p->stale ^ p->queued : p->left; }

static void broker_done_seq(struct turn *t) {
        done_bump(&t->s, done_client(t->p));
        t->p->pc = BROKER_DONE_FUTEX;
}

static void broker_done_futex(struct turn *t) {
        struct proc *p = t->p;
        done_wake(&t->s, done_client(p));
        p->stale++;
        p->pc = BROKER_DONE_SEQ;
        if (config->n_bells == 1 && p->stale < config->n_clients)
                return;
        p->stale = p->queued = 0;
        channel_next(t);
}

static void broker_seq(struct turn *t) {
        bell_bump(&t->s, t->p->left, t->p->row);
        t->p->pc = BROKER_FUTEX;
}

static void broker_futex(struct turn *t) {
        bell_wake_all(&t->s, t->p->left, t->p->row);
        t->p->pc = BROKER_SEQ;
        t->p->row = config->has_rows && !t->p->row;
        if (t->p->row == 0 && ++t->p->left == config->n_bells)
                broker_rest(t);
}

/* ---- bell_forget: only the dead set these bits, so to clear a clear one is nothing ----
 * And bell_heal: the spinner bits of the living go, too, for the dead may have set them. */

static unsigned forget_find(const struct turn *t) {
        unsigned worker = t->p->ctx - CLIENTS;
        for (unsigned bell = 0; bell < config->n_bells; bell++) {
                if (jobs_load(t, var_sleeper(worker, bell)))
                        return var_sleeper(worker, bell);
                for (unsigned any = 0; any < config->n_workers; any++)
                        if (jobs_load(t, var_spinner(any, bell)))
                                return var_spinner(any, bell);
        }
        return VAR_NONE;
}

static void forget_next(struct turn *t) {
        t->p->slot = t->p->generation = t->p->seen = t->p->left = 0;
        t->p->pc = BROKER_FORGET;
        if (config->fault == NO_FORGET || forget_find(t) == VAR_NONE)
                t->p->pc = BROKER_RISE;
}

static void broker_forget(struct turn *t) {
        unsigned found = forget_find(t);
        if (found != VAR_NONE) /* one of the living may have cleared it meanwhile */
                jobs_store(t, found, 0);
        forget_next(t);
}

static void broker_rise(struct turn *t) {
        if (config->fault != NO_RISE_OF_THE_DEAD)
                bell_rise(&t->s, t->p->left);
        if (++t->p->left < config->n_bells)
                return;
        t->p->left = 0;
        channel_begin(t);
}

/* ---- what a dead worker held ---- */

static bool is_run_by_dead(const struct proc *p, struct slot word) {
        return word.state == RUNNING && word.generation == p->generation &&
               (word.owner + CLIENTS - 1u == p->ctx || config->fault == REQUEUE_UNCHECKED);
}

static void worker_gone(struct turn *t) {
        struct proc *p = t->p;
        unsigned record = t->s.record[p->ctx - CLIENTS];
        if (!(record >> 4)) {
                forget_next(t);
                return;
        }
        p->slot = record & 3;
        p->generation = record >> 2 & 3;
        p->pc = BROKER_WORD;
}

static void broker_word(struct turn *t) {
        struct proc *p = t->p;
        struct slot word = t->s.slot[p->slot];
        if (is_run_by_dead(p, word))
                p->pc = BROKER_REQUEUE;
        else if (slot_is_verdict(word.state) && word.generation == p->generation &&
                 config->fault != NO_ANNOUNCE_AFTER_DEATH)
                announce_begin(t);
        else
                forget_next(t);
}

static void broker_requeue(struct turn *t) {
        struct proc *p = t->p;
        struct slot word = t->s.slot[p->slot];
        if (!is_run_by_dead(p, word)) {
                forget_next(t);
                return;
        }
        bool is_final = config->is_poisoned_at_once;
        word.state = is_final ? POISONED : QUEUED;
        word.owner = 0;
        word.has_result = word.result = 0;
        if (!is_final)
                word.attempt++;
        jobs_slot_set(t, p->slot, word);
        if (is_final)
                announce_begin(t);
        else
                push_begin(t);
}

void broker_after_push(struct turn *t) { t->p->pc = BROKER_REQUEUE_MARK; }

static void broker_requeue_mark(struct turn *t) {
        jobs_store(t, var_work(bell_of(t->p->slot)), 1);
        forget_next(t);
}

void broker_after_announce(struct turn *t) { forget_next(t); }

/* ---- a dead client: what is queued is cancelled ---- */

static void drop_next(struct turn *t, unsigned slot) {
        t->p->seen = 0;
        t->p->slot = slot & 3;
        t->p->pc = BROKER_DROP_WORD;
        if (slot == (t->p->ctx + 1u) * config->n_slots_each)
                broker_rest(t);
}

static void broker_drop_word(struct turn *t) {
        struct slot word = t->s.slot[t->p->slot];
        if (word.state != QUEUED) {
                drop_next(t, t->p->slot + 1u);
                return;
        }
        t->p->seen = word.attempt;
        t->p->pc = BROKER_DROP;
}

static void broker_drop(struct turn *t) {
        struct slot word = t->s.slot[t->p->slot];
        if (word.state == QUEUED && word.attempt == t->p->seen) {
                word.state = CANCELLED;
                jobs_slot_set(t, t->p->slot, word);
        }
        drop_next(t, t->p->slot + 1u);
}

/* ---- which death first: any ---- */

static void broker_idle(struct turn *t) {
        unsigned dead = t->s.dead;
        const struct state before = t->s;
        t->is_disabled = !dead;
        for (unsigned i = 0; i < BROKER; i++) {
                if (!(dead >> i & 1))
                        continue;
                dead &= ~(1u << i);
                t->s.dead = (uint8_t)(t->s.dead & ~(1u << i));
                t->p->ctx = i & 3;
                if (is_worker(i))
                        worker_gone(t);
                else
                        drop_next(t, i * config->n_slots_each);
                if (dead) {
                        turn_emit(t);
                        t->s = before;
                }
        }
}

const struct jobs_op jobs_broker_ops[N_PCS] = {
        [BROKER_IDLE] = {broker_idle, "a death: read the record", LOCKED},
        [BROKER_WORD] = {broker_word, "read the slot", LOAD},
        [BROKER_REQUEUE] = {broker_requeue, "RUNNING -> QUEUED again, or POISONED", LOCKED, .joins = true},
        [BROKER_REQUEUE_MARK] = {broker_requeue_mark, "set the work bit for the requeued job", LOCKED},
        [BROKER_FORGET] = {broker_forget, "clear a sleeper bit of the dead, or a spinner bit", LOCKED},
        [BROKER_RISE] = {broker_rise, "rises + 1, for the dead", LOCKED, .joins = true},
        [BROKER_HEAD] = {broker_head, "is there work: read the head", LOAD},
        [BROKER_CELL] = {broker_cell, "is there work: read the head's cell", LOAD, .joins = true},
        [BROKER_MARK] = {broker_mark, "set the work bit", LOCKED},
        [BROKER_DONE_SEQ] = {broker_done_seq, "done_seq + 1", LOCKED},
        [BROKER_DONE_FUTEX] = {broker_done_futex, "FUTEX_WAKE(all) on done_seq", LOCKED},
        [BROKER_SEQ] = {broker_seq, "seq + 1", LOCKED},
        [BROKER_FUTEX] = {broker_futex, "FUTEX_WAKE(all) on the bell", LOCKED},
        [BROKER_DROP_WORD] = {broker_drop_word, "channel dropped: read a slot", LOAD},
        [BROKER_DROP] = {broker_drop, "channel dropped: QUEUED -> CANCELLED", LOCKED, .joins = true},
};
