/* The model of bells: the steps of clients and of the broker. */
#include "tests/model/places.h"

/* ---- clients ---- */

void step_client(struct explore *x, const struct state *s, unsigned who) {
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

void step_broker(struct explore *x, const struct state *s) {
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
