/* Jobs of a channel that come after others of this drover's channels (the option `after`).
 *
 * Such a job has its slot and its number at once, and is held back there. Its watches tell of each of the others; when
 * all are done it is let go, when one ends otherwise it is cancelled, as the broker does with jobs over the bus. That
 * happens where verdicts are taken in: in a call that waits, or in drover_process(). Nobody else is asked.
 *
 * A job may come after one that is over. Its future may be gone by then, so how the newest AFTER_PAST ended is kept, by
 * number. Jobs over the bus are the broker's business: their numbers are not known here, and the two are not mixed. */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "ipc/client/library.h"

struct after {
        drover_future *owner;
        struct watch_group group;
        uint64_t not_before_ns;
        uint64_t failed_id; /* 0 = none */
        enum drover_state failed_state;
        size_t n_left, n_watches;
        struct watch watches[];
};

struct after_past {
        uint64_t n; /* so many ended; the newest one is at (n - 1) % AFTER_PAST */
        struct {
                uint64_t id;
                enum drover_state state;
        } job[AFTER_PAST];
};

/* ---- what is known ---- */

int after_prepare(drover *d) {
        if (!d->past)
                d->past = calloc(1, sizeof *d->past);
        return d->past ? 0 : -ENOMEM;
}

void after_note(drover *d, uint64_t id, enum drover_state state) {
        uint64_t at = d->past->n++ % AFTER_PAST;
        d->past->job[at].id = id;
        d->past->job[at].state = state;
}

static bool after_find_past(const drover *d, uint64_t id, enum drover_state *ret) {
        uint64_t n = d->past ? d->past->n : 0;
        for (uint64_t i = 0; i < n && i < AFTER_PAST; i++) { /* the newest first */
                uint64_t at = (n - 1 - i) % AFTER_PAST;
                if (d->past->job[at].id == id) {
                        *ret = d->past->job[at].state;
                        return true;
                }
        }
        return false;
}

/* A job that has no verdict yet. */
static drover_future *after_find(const drover *d, uint64_t id) {
        const drover_pool *p;
        LIST_FOREACH(p, &d->pools, of_drover)
                for (uint32_t slot = 0; slot < p->n_slots; slot++)
                        if (p->by_slot[slot] && p->by_slot[slot]->id == id)
                                return p->by_slot[slot];
        return NULL;
}

int after_are_ours(drover *d, const struct drover_options *o) {
        enum drover_state state;
        size_t n_ours = 0;
        if (!o->after)
                return connection_fail(d, -EINVAL, "after is NULL, n_after is %zu", o->n_after);
        if (o->n_after > AFTER_MOST)
                return connection_fail(d, -EINVAL, "after: %zu jobs, at most %d are taken", o->n_after, AFTER_MOST);
        for (size_t i = 0; i < o->n_after; i++)
                n_ours += after_find(d, o->after[i]) || after_find_past(d, o->after[i], &state);
        if (n_ours == 0 || n_ours == o->n_after)
                return n_ours > 0;
        return connection_fail(d, -EINVAL,
                               "after: %zu of %zu are jobs of channels of this process, the others are not, or ended "
                               "long ago",
                               n_ours, o->n_after);
}

/* ---- what becomes of it ---- */

static drover_pool *after_pool(const struct after *a) {
        drover_pool *p = a->owner->pool;
        return p && !p->is_gone && connection_is_ours(p->drover) ? p : NULL; /* else it is being lost just now */
}

static void after_fail(struct after *a, uint64_t id, enum drover_state state) {
        drover_pool *p = after_pool(a);
        if (a->failed_id)
                return;
        a->failed_id = id;
        a->failed_state = state;
        if (p)
                session_cancel_queued(p->session, a->owner->slot); /* its verdict is found like any other */
}

static void after_look(struct after *a) {
        drover_pool *p = after_pool(a);
        if (a->n_left > 0 || a->failed_id || !p)
                return;
        session_let_go(p->session, a->owner->slot, a->not_before_ns);
        if (session_next_deadline(p->session) < p->drover->wake_ns)
                p->drover->wake_ns = 0;
}

static void after_on_end(struct watch_group *g, struct watch *w) {
        struct after *a = (struct after *)((char *)g - offsetof(struct after, group));
        a->n_left--;
        if (w->future->state == DROVER_DONE)
                after_look(a);
        else
                after_fail(a, w->future->id, w->future->state);
}

void after_start(drover_future *f, struct after *a, const struct drover_options *o) {
        enum drover_state state;
        f->after = a;
        a->owner = f;
        a->not_before_ns = o->not_before_ns;
        a->n_left = 1; /* until all are looked at */
        watch_group_init(&a->group);
        a->group.on_end = after_on_end;
        for (size_t i = 0; i < o->n_after; i++) {
                drover_future *other = after_find(f->drover, o->after[i]);
                if (other) {
                        a->n_left++;
                        watch_start(&a->watches[a->n_watches++], &a->group, other);
                } else if (after_find_past(f->drover, o->after[i], &state) && state != DROVER_DONE)
                        after_fail(a, o->after[i], state);
        }
        a->n_left--;
        after_look(a);
}

struct after *after_new(const struct drover_options *o) {
        return calloc(1, sizeof(struct after) + o->n_after * sizeof(struct watch));
}

struct after *after_free(struct after *a) {
        for (size_t i = 0; a && i < a->n_watches; i++)
                watch_stop(&a->watches[i]);
        free(a);
        return NULL;
}

bool after_explain(const drover_future *f, char *text, size_t bytes) {
        const struct after *a = f->after;
        if (!a || !a->failed_id)
                return false;
        snprintf(text, bytes, "job %llu, which it comes after, ended as %s", (unsigned long long)a->failed_id,
                 drover_state_name(a->failed_state));
        return true;
}
