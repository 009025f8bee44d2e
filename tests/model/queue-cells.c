/* The model of the queue: the steps of put, get and task_done in its cells. */
#include "tests/model/queue.h"

/* ---- attempts ---- */

void attempt_begin(struct turn *t) {
        struct proc *p = t->p;
        *p = (struct proc){
                .is_alive = 1, .left = p->left, .has_registered = p->has_registered, .is_stale = p->is_stale};
        p->pc = is_producer(t->who) ? PUT_TAIL : GET_RETURNED;
}

void call_begin(struct turn *t) {
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

void put_tail(struct turn *t) {
        t->p->at = t->s.tail;
        t->p->pc = PUT_CELL;
}

void put_cell(struct turn *t) {
        t->p->seen = *cell_at(t, t->p->at);
        t->p->seen.item = 0;
        t->p->pc = t->p->seen.position >= t->p->at ? PUT_HELP : PUT_HEAD;
}

void put_help(struct turn *t) {
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

void put_head(struct turn *t) {
        struct proc *p = t->p;
        if (p->at < t->s.head + capacity()) {
                put_decide(t, t->s.head);
                return;
        }
        p->from = p->head = t->s.head;
        p->pc = PUT_WALK;
}

/* queue_push_head, a cell at a time. */
void put_walk(struct turn *t) {
        struct proc *p = t->p;
        const struct cell *c = cell_at(t, p->head);
        bool is_end = c->position < p->head || (c->position == p->head && (c->state == WRITING || c->state == QUEUED));
        if (!is_end)
                p->head++;
        if (is_end || ++p->i == config->n_cells)
                p->pc = PUT_MOVE_HEAD;
}

void put_move_head(struct turn *t) {
        if (t->s.head == t->p->from)
                t->s.head = t->p->head;
        put_decide(t, t->p->head);
}

void put_claim(struct turn *t) {
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

void put_move_tail(struct turn *t) {
        if (t->s.tail == t->p->at)
                t->s.tail++;
        t->p->pc = PUT_PUBLISH;
}

void put_publish(struct turn *t) {
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

void get_returned(struct turn *t) { t->p->pc = is_marked(t->s.returned) ? GET_HINT : GET_HEAD; }

void get_hint(struct turn *t) {
        t->p->hint = t->s.returned;
        t->p->i = 0;
        t->p->best = NO_CELL;
        t->p->pc = GET_SCAN;
        if (!is_marked(t->p->hint)) {
                t->p->hint = t->p->best = 0;
                t->p->pc = GET_HEAD;
        }
}

void get_scan(struct turn *t) {
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

void get_reset(struct turn *t) {
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

void get_lease_returned(struct turn *t) {
        struct cell *c = &t->s.cell[t->p->best];
        if (cell_is(c, &t->p->seen)) {
                leased(t, c);
                got(t, t->p->best);
                return;
        }
        attempt_begin(t);
        t->p->pc = GET_HINT;
}

void get_head(struct turn *t) {
        t->p->from = t->p->at = t->p->head = t->s.head;
        t->p->best = NO_CELL;
        t->p->pc = GET_CELL;
}

static void get_go_on(struct proc *p, unsigned position) {
        p->at = (uint8_t)(position == p->at ? p->at + 1u : position - config->n_cells + 1u);
        if (!p->is_blocked)
                p->head = p->at;
}

void get_cell(struct turn *t) {
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

void get_lease(struct turn *t) {
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

void get_move(struct turn *t) {
        struct proc *p = t->p;
        if (t->s.head == p->from)
                t->s.head = p->head;
        if (p->best == NO_CELL)
                attempt_failed(t);
        else
                got(t, p->best);
}

void work(struct turn *t) {
        t->p->pc = DONE;
        if (config->fault == NO_LEASE)
                call_begin(t);
}

void done(struct turn *t) {
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
