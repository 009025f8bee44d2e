/* The model of bells: what sequences and futexes do, and the steps of a worker. */
#include "tests/model/places.h"

/* ---- sequences and futexes ---- */

void bump(struct state *s, unsigned bell) {
        for (unsigned i = 0; i < WORKERS; i++) {
                struct worker *w = &s->worker[i];
                if (w->is_alive && w->pc >= LIE_SET && w->pc <= ASLEEP && waits_on(w, bell))
                        put(&w->changed, bell, true);
        }
}

void rouse(struct worker *w) {
        w->is_asleep = 0;
        w->pc = RISE;
        w->k = OWN;
        w->changed = 0;
}

void wake_all(struct state *s, unsigned bell) {
        for (unsigned i = 0; i < WORKERS; i++)
                if (s->worker[i].is_asleep && waits_on(&s->worker[i], bell))
                        rouse(&s->worker[i]);
}

void emit_wake_one(struct turn *t, unsigned bell) {
        const struct state before = t->s;
        bool was_any = false;
        for (unsigned i = 0; i < WORKERS; i++)
                if (before.worker[i].is_asleep && waits_on(&before.worker[i], bell)) {
                        t->s = before;
                        rouse(&t->s.worker[i]);
                        emit(t);
                        was_any = true;
                }
        if (!was_any)
                emit(t);
}

/* ---- workers ---- */

static void go(struct worker *w, enum pc pc) {
        w->pc = (uint8_t)pc;
        w->k = 0;
}

static unsigned scanned(const struct worker *w) { return 0u + ONE + w->k; }

static bool is_looked_at(const struct worker *w, unsigned bell) {
        return config->fault != PLACED_ONLY || w->waited == bell;
}

static void go_on(struct worker *w, enum pc same, enum pc after) {
        w->pc = (uint8_t)same;
        if (++w->k == CLIENTS)
                go(w, after);
}

static void step_read(struct state *s, struct worker *w) {
        unsigned bell = ONE + w->k;
        if (w->k == 0)
                w->waited = 0;
        if (!w->waited && !bit(s->placeless, bell))
                w->waited = (uint8_t)bell;
        if (w->k + 1 == CLIENTS && config->fault == TABLE_FIRST)
                w->is_told = 0;
        go_on(w, READ, SCAN_BIT);
}

static void step_scan(struct state *s, struct worker *w) {
        unsigned bell = scanned(w);
        if (w->pc == SCAN_BIT && bit(s->work, bell) && is_looked_at(w, bell)) {
                w->pc = SCAN_CLAIM;
        } else if (w->pc == SCAN_CLAIM && s->queued[bell] > 0) {
                s->queued[bell]--;
                w->job = w->from = (uint8_t)bell;
                go(w, BATON_SLEEPERS);
        } else {
                go_on(w, SCAN_BIT, SETTLE_BIT);
        }
}

/* Before sleep, or as a part of the baton. */
static void step_settle(struct state *s, struct worker *w) {
        unsigned bell = w->from ? w->from : scanned(w);
        switch ((enum pc)w->pc) {
        case SETTLE_BIT:
                if (bit(s->work, bell) && is_looked_at(w, bell))
                        w->pc = SETTLE_CLEAR;
                else
                        go_on(w, SETTLE_BIT, LIE_SET);
                return;
        case SETTLE_CLEAR:
                put(&s->work, bell, false);
                w->pc = SETTLE_LOOK;
                return;
        case SETTLE_LOOK:
                if (s->queued[bell] > 0) {
                        w->pc = SETTLE_MARK;
                        return;
                }
                break;
        default:
                put(&s->work, bell, true);
        }
        if (w->from)
                w->pc = w->waited == w->from ? BATON_WORK : OTHERS_WORK;
        else
                go_on(w, SETTLE_BIT, LIE_SET);
}

/* Its control word, then the work bits. */
static void step_reason(struct state *s, struct worker *w) {
        if (w->k == 0 ? w->is_told : bit(s->work, w->k) && is_looked_at(w, w->k))
                rouse(w);
        else if (++w->k == BELLS)
                go(w, WAIT);
}

/* Over the bells that it waits on; `after` the last. */
static void next_waited(struct worker *w, enum pc same, enum pc after) {
        w->pc = (uint8_t)same;
        do
                w->k++;
        while (w->k < BELLS && !waits_on(w, w->k));
        if (w->k == BELLS)
                go(w, after);
}

static void step_sleep(struct state *s, struct worker *w, unsigned who) {
        switch ((enum pc)w->pc) {
        case LIE_SET:
                put(&s->sleepers[w->k], who, true);
                w->pc = LIE_READ;
                return;
        case LIE_READ:
                put(&w->changed, w->k, false);
                next_waited(w, LIE_SET, REASON_LYING);
                return;
        case WAIT:
                if (w->is_told || w->changed)
                        rouse(w);
                else
                        w->is_asleep = 1, w->pc = ASLEEP;
                return;
        default:
                put(&s->sleepers[w->k], who, false);
                next_waited(w, RISE, TOP);
        }
}

static void end_baton(struct worker *w) {
        w->from = 0;
        go(w, RUN);
}

/* On the bell that has the place: the own one never has work here. */
static void step_baton(struct state *s, struct worker *w) {
        switch ((enum pc)w->pc) {
        case BATON_SLEEPERS:
                if (w->waited && s->sleepers[w->waited])
                        w->pc = w->waited == w->from ? BATON_LOOK : BATON_WORK;
                else
                        go(w, OTHERS_SLEEPERS);
                return;
        case BATON_LOOK:
                w->pc = s->queued[w->from] > 0 ? BATON_WORK : SETTLE_CLEAR;
                return;
        case BATON_WORK: /* bell_pass_on reads the sleepers once more: what they are now is what counts */
                if (s->sleepers[w->waited] && bit(s->work, w->waited))
                        w->pc = BATON_SEQ;
                else
                        go(w, OTHERS_SLEEPERS);
                return;
        default:
                bump(s, w->waited);
                w->pc = BATON_WAKE;
        }
}

/* On the own bell, for bells on which nobody sleeps: also those of its own list, which may be an old one. */
static void step_others(struct state *s, struct worker *w) {
        unsigned bell = scanned(w);
        switch ((enum pc)w->pc) {
        case OTHERS_SLEEPERS:
                if (!s->sleepers[OWN] || config->fault == NO_BATON)
                        end_baton(w);
                else if (bell == w->waited)
                        w->pc = OTHERS_AWAKE;
                else
                        w->pc = bell == w->from ? OTHERS_LOOK : OTHERS_WORK;
                return;
        case OTHERS_AWAKE:
                w->pc = s->sleepers[bell] || config->fault == OLD_LIST ? OTHERS_NEXT : OTHERS_WORK;
                return;
        case OTHERS_LOOK:
                w->pc = s->queued[bell] > 0 ? OTHERS_WORK : SETTLE_CLEAR;
                return;
        case OTHERS_WORK:
                w->pc = bit(s->work, bell) ? OTHERS_SEQ : OTHERS_NEXT;
                return;
        case OTHERS_NEXT:
                if (w->k + 1 == CLIENTS)
                        end_baton(w);
                else
                        w->pc = OTHERS_SLEEPERS, w->k++;
                return;
        default:
                bump(s, OWN);
                w->pc = OTHERS_WAKE;
        }
}

void step_worker(struct explore *x, const struct state *s, unsigned who) {
        struct turn t = {.x = x, .s = *s, .label = who << 8 | s->worker[who].pc};
        struct worker *w = &t.s.worker[who];
        if (!w->is_alive || w->pc == ASLEEP)
                return;
        if (w->pc == TOP) {
                bool is_told = w->is_told;
                if (config->fault != TABLE_FIRST)
                        w->is_told = 0;
                go(w, is_told ? READ : SCAN_BIT);
        } else if (w->pc == READ) {
                step_read(&t.s, w);
        } else if (w->pc <= SCAN_CLAIM) {
                step_scan(&t.s, w);
        } else if (w->pc <= SETTLE_MARK) {
                step_settle(&t.s, w);
        } else if (w->pc == REASON_LYING) {
                step_reason(&t.s, w);
        } else if (w->pc <= RISE) {
                step_sleep(&t.s, w, who);
        } else if (w->pc < BATON_WAKE) {
                step_baton(&t.s, w);
        } else if (w->pc == BATON_WAKE) {
                go(w, OTHERS_SLEEPERS);
                emit_wake_one(&t, s->worker[who].waited);
                return;
        } else if (w->pc < OTHERS_WAKE) {
                step_others(&t.s, w);
        } else if (w->pc == OTHERS_WAKE) {
                end_baton(w);
                emit_wake_one(&t, OWN);
                return;
        } else {
                w->job = 0;
                go(w, TOP);
        }
        emit(&t);
}

void kill_worker(struct explore *x, const struct state *s, unsigned who) {
        if (s->n_kills == 0 || !s->worker[who].is_alive)
                return;
        struct state next = *s;
        next.n_kills--;
        next.dead = (uint8_t)(who + 1);
        next.dead_job = s->worker[who].job;
        next.worker[who] = (struct worker){0};
        explore_emit(x, &next, who << 8 | KILL);
}
