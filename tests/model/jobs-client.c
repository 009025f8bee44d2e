/* A client: session_submit until its slots or its items are used up, then (if it waits) session_next until each verdict
 * is read. After a verdict it submits the next item into the freed slot. */
#include "tests/model/jobs.h"

enum own { IDLE, BUSY, READY };
enum when { BEFORE_SLEEP, IN_WAIT };

static unsigned own_get(const struct proc *p, unsigned i) { return p->own >> 2 * i & 3; }

static void own_set(struct proc *p, unsigned i, enum own own) {
        p->own = ((p->own & ~(3u << 2 * i)) | (unsigned)own << 2 * i) & 0xf;
}

static unsigned own_find(const struct proc *p, enum own own) {
        unsigned i = 0;
        while (i < config->n_slots_each && own_get(p, i) != own)
                i++;
        return i;
}

static bool own_has(const struct proc *p, enum own own) { return own_find(p, own) < config->n_slots_each; }

static unsigned first_slot(unsigned client) { return client * config->n_slots_each; }

static unsigned own_index(const struct turn *t) { return t->p->slot - first_slot(t->who); }

/* The application's choice, private: collect what is ready, else submit, else wait. */
static void client_choose(struct proc *p, unsigned who) {
        p->slot = first_slot(who) & 3;
        p->generation = p->ctx = p->seen = p->pos = 0;
        if (own_has(p, READY)) {
                p->slot = (first_slot(who) + own_find(p, READY)) & 3;
                p->pc = CLIENT_FREE;
        } else if (p->left > 0 && own_has(p, IDLE)) {
                p->slot = (first_slot(who) + own_find(p, IDLE)) & 3;
                p->pc = CLIENT_BEGIN;
        } else if (config->has_waiters && own_has(p, BUSY))
                p->pc = CLIENT_COLLECT;
        else if (p->left > 0) { /* no slot is free, and no done words: it just sees its verdict */
                p->slot = (first_slot(who) + own_find(p, BUSY)) & 3;
                p->pc = CLIENT_FREE;
        } else
                p->pc = FINISHED;
}

void client_start(struct state *s, unsigned client) {
        struct proc *p = &s->proc[client];
        p->is_alive = 1;
        p->left = config->n_items_each & 3;
        client_choose(p, client);
}

/* ---- session_submit ---- */

static void client_begin(struct turn *t) {
        struct slot *slot = &t->s.slot[t->p->slot];
        t->p->generation = (slot->generation + 1u) % GENERATIONS & 3;
        *slot = (struct slot){.state = FILLING, .generation = t->p->generation & 3};
        t->p->pc = CLIENT_QUEUE;
}

static void client_queue(struct turn *t) {
        struct slot to = t->s.slot[t->p->slot];
        to.state = QUEUED;
        to.attempt = 1;
        jobs_slot_set(t, t->p->slot, to);
        t->p->left--;
        push_begin(t);
}

void client_after_push(struct turn *t, bool is_full) {
        if (is_full) {
                t->p->pc = CLIENT_UNDO;
                return;
        }
        own_set(t->p, own_index(t), BUSY);
        t->p->generation = 0;
        t->p->slot = first_slot(t->who) & 3;
        t->p->pc = CLIENT_WORK_LOOK;
}

static void client_undo(struct turn *t) {
        struct slot word = t->s.slot[t->p->slot];
        if (word.state != QUEUED || word.attempt != 1) { /* somebody saw it all the same: it is accepted */
                client_after_push(t, false);
                return;
        }
        jobs_slot_set(t, t->p->slot, (struct slot){.state = FREE, .generation = word.generation});
        client_choose(t->p, t->who);
}

static void client_work_look(struct turn *t) {
        if (jobs_load(t, var_work(t->who % config->n_bells)))
                wake_begin(t);
        else
                t->p->pc = CLIENT_WORK_SET;
}

static void client_work_set(struct turn *t) {
        jobs_store(t, var_work(t->who % config->n_bells), 1);
        wake_begin(t);
}

void client_after_wake(struct turn *t) { client_choose(t->p, t->who); }

/* ---- session_wait_until ---- */

static void client_collected(struct turn *t) {
        struct proc *p = t->p;
        bool is_ready = own_has(p, READY);
        if (p->ctx == IN_WAIT) {
                p->pc = is_ready ? CLIENT_WAIT_END : CLIENT_SLEEP;
                p->ctx = BEFORE_SLEEP;
                p->stale = is_ready ? 0 : p->stale;
        } else if (is_ready)
                client_choose(p, t->who);
        else
                p->pc = config->fault == SEQ_LAST ? CLIENT_WAIT_SET : CLIENT_WAIT_SEQ;
}

static void client_collect(struct turn *t) {
        if (t->s.done[t->who].bits)
                t->p->pc = CLIENT_TAKE;
        else
                client_collected(t);
}

static void client_take(struct turn *t) {
        t->p->seen = t->s.done[t->who].bits;
        t->s.done[t->who].bits = 0;
        if (t->p->seen)
                t->p->pc = CLIENT_LOOK;
        else
                client_collected(t);
}

/* One slot at a time: the lowest bit taken. */
static void client_look(struct turn *t) {
        struct proc *p = t->p;
        unsigned i = p->seen & 1 ? 0 : 1;
        if (own_get(p, i) == BUSY && slot_is_verdict(t->s.slot[first_slot(t->who) + i].state))
                own_set(p, i, READY);
        p->seen &= ~(1u << i) & 3;
        if (!p->seen)
                client_collected(t);
}

static void wait_collect(struct proc *p) {
        p->ctx = IN_WAIT;
        p->pc = CLIENT_COLLECT;
}

static void client_wait_seq(struct turn *t) {
        t->p->stale = 0;
        t->p->pc = CLIENT_WAIT_SET;
        if (config->fault == SEQ_LAST)
                wait_collect(t->p);
}

static void client_wait_set(struct turn *t) {
        jobs_store(t, var_done_wait(t->who), 1);
        if (config->fault == SEQ_LAST)
                t->p->pc = CLIENT_WAIT_SEQ;
        else
                wait_collect(t->p);
}

static void client_sleep(struct turn *t) {
        t->p->queued = !t->p->stale;
        t->p->pc = t->p->stale ? CLIENT_WAIT_END : CLIENT_SLEEPING;
        t->p->stale = 0;
}

static void client_sleeping(struct turn *t) {
        t->is_disabled = t->p->queued;
        t->p->pc = CLIENT_WAIT_END;
}

static void client_wait_end(struct turn *t) {
        if (jobs_load(t, var_done_wait(t->who)))
                jobs_store(t, var_done_wait(t->who), 0);
        t->p->pc = CLIENT_COLLECT;
}

/* session_fetch: the result, then the slot. */
static void client_free(struct turn *t) {
        struct slot word = t->s.slot[t->p->slot];
        if (!slot_is_verdict(word.state)) {
                t->is_disabled = true;
                if (config->has_waiters)
                        turn_fail(t, "a verdict was taken back");
                return;
        }
        if (word.state == DONE && (!word.has_result || word.result != word.generation))
                turn_fail(t, "DONE without the job's own result");
        if (word.state == CANCELLED || (word.state == POISONED && !config->is_poisoned_at_once))
                turn_fail(t, "a verdict that nobody may give");
        jobs_slot_set(t, t->p->slot, (struct slot){.state = FREE, .generation = word.generation});
        own_set(t->p, own_index(t), IDLE);
        client_choose(t->p, t->who);
}

const struct jobs_op jobs_client_ops[N_PCS] = {
        [CLIENT_BEGIN] = {client_begin, "FREE -> FILLING, write the job", LOCKED},
        [CLIENT_QUEUE] = {client_queue, "FILLING -> QUEUED", LOCKED, .joins = true},
        [CLIENT_UNDO] = {client_undo, "ring full: QUEUED -> FREE", LOCKED},
        [CLIENT_WORK_LOOK] = {client_work_look, "ring: read the work bit", LOAD},
        [CLIENT_WORK_SET] = {client_work_set, "ring: set the work bit", LOCKED, FENCE_S2},
        [CLIENT_COLLECT] = {client_collect, "collect: read the done bits", LOAD},
        [CLIENT_TAKE] = {client_take, "collect: take the done bits", LOCKED, .joins = true},
        [CLIENT_LOOK] = {client_look, "collect: read the slot", LOAD},
        [CLIENT_WAIT_SET] = {client_wait_set, "wait: set done_wait", LOCKED, FENCE_D2},
        [CLIENT_WAIT_SEQ] = {client_wait_seq, "wait: read done_seq", LOAD},
        [CLIENT_SLEEP] = {client_sleep, "wait: FUTEX_WAIT", LOCKED},
        [CLIENT_SLEEPING] = {client_sleeping, "wait: woken", LOAD},
        [CLIENT_WAIT_END] = {client_wait_end, "wait: clear done_wait", STORE},
        [CLIENT_FREE] = {client_free, "read the result, verdict -> FREE", LOCKED},
};
