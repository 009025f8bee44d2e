/* The model of the queue: the steps of those who wait at a gate and of those who signal it. */
#include "tests/model/queue.h"

/* ---- gates: producers wait for room and signal items, consumers the other way round ---- */

static void gate_changed(struct state *s, enum gate gate) {
        for (unsigned i = 0; i < PROCESSES; i++)
                if (s->proc[i].pc == SIGNAL_WAKE || s->proc[i].pc == SIGNAL_VAIN)
                        if (gate_signalled(i) == gate)
                                s->proc[i].has_changed = 1;
}

void gate_bump(struct state *s, enum gate gate) {
        gate_changed(s, gate);
        for (unsigned i = 0; i < PROCESSES; i++)
                if (s->proc[i].has_registered && !s->proc[i].is_queued && gate_waited(i) == gate)
                        s->proc[i].is_stale = 1;
}

void gate_register(struct turn *t) {
        enum gate gate = gate_waited(t->who);
        gate_changed(&t->s, gate);
        t->s.flag[gate] = 1;
        t->p->has_registered = 1;
        t->p->is_stale = 0;
        attempt_begin(t);
        if (config->fault == NO_LOOK_AGAIN)
                t->p->pc = SLEEP;
}

void gate_sleep(struct turn *t) {
        bool is_stale = t->p->is_stale;
        t->p->is_stale = 0;
        t->p->is_queued = !is_stale;
        t->p->has_registered = !is_stale;
        t->p->pc = is_stale ? REGISTER : SLEEPING;
}

void gate_sleeping(struct turn *t) {
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

void signal_look(struct turn *t) {
        if (t->s.flag[gate_signalled(t->who)])
                t->p->pc = SIGNAL_SEQ;
        else
                signal_end(t);
}

void signal_seq(struct turn *t) {
        enum gate gate = gate_signalled(t->who);
        if (!t->s.flag[gate]) {
                signal_end(t);
                return;
        }
        gate_bump(&t->s, gate);
        t->p->pc = SIGNAL_WAKE;
}

void signal_wake(struct turn *t) {
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

void signal_vain(struct turn *t) {
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
