/* Waiting for several futures. Whoever waits watches each of them; a future that ends tells its watchers, so a wait
 * costs what ends, not what is waited for. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/client/library.h"

void watch_group_init(struct watch_group *g) {
        *g = (struct watch_group){0};
        TAILQ_INIT(&g->ended);
}

static void watch_end(struct watch *w) {
        struct watch_group *g = w->group;
        TAILQ_INSERT_TAIL(&g->ended, w, of_group);
        g->n_ended++;
        g->n_failed += w->future->state != DROVER_DONE;
        if (g->on_end)
                g->on_end(g, w);
}

void watch_start(struct watch *w, struct watch_group *g, drover_future *f) {
        *w = (struct watch){.future = drover_future_ref(f), .group = g};
        if (future_has_ended(f))
                watch_end(w);
        else {
                w->is_watching = true;
                LIST_INSERT_HEAD(&f->watches, w, of_future);
        }
}

void watch_stop(struct watch *w) {
        if (w->is_watching)
                LIST_REMOVE(w, of_future);
        w->is_watching = false;
        w->future = drover_future_unref(w->future);
}

void watch_tell(drover_future *f) {
        struct watch *w;
        while ((w = LIST_FIRST(&f->watches))) {
                LIST_REMOVE(w, of_future);
                w->is_watching = false;
                watch_end(w);
        }
}

static int watch_compare_ends(const void *a, const void *b) {
        uint64_t x = future_ended_ns((*(struct watch *const *)a)->future);
        uint64_t y = future_ended_ns((*(struct watch *const *)b)->future);
        return (x > y) - (x < y);
}

/* One look may find many verdicts, slot by slot, so those that were found since the last look are put in order first.
 */
struct watch *watch_take_first(struct watch_group *g, struct watch **room) {
        struct watch *w;
        size_t n = 0;
        if (g->n_sorted != g->n_ended) {
                g->n_sorted = g->n_ended;
                while ((w = TAILQ_FIRST(&g->ended))) {
                        TAILQ_REMOVE(&g->ended, w, of_group);
                        room[n++] = w;
                }
                qsort(room, n, sizeof(struct watch *), watch_compare_ends);
                for (size_t i = 0; i < n; i++)
                        TAILQ_INSERT_TAIL(&g->ended, room[i], of_group);
        }
        w = TAILQ_FIRST(&g->ended);
        TAILQ_REMOVE(&g->ended, w, of_group);
        return w;
}

static bool wait_are_futures(drover_future *const *futures, size_t n) {
        if (n > 0 && !futures)
                return false;
        for (size_t i = 0; i < n; i++)
                if (!futures[i])
                        return false;
        return true;
}

static int wait_check_drovers(drover_future *const *futures, size_t n) {
        for (size_t i = 1; i < n; i++)
                if (futures[i]->drover != futures[0]->drover)
                        return connection_fail(futures[0]->drover, -EINVAL,
                                               "futures 0 and %zu are of different drovers", i);
        return 0;
}

static struct watch *wait_watch_all(drover_future *const *futures, size_t n, struct watch_group *g) {
        struct watch *watches = calloc(n + 1, sizeof *watches);
        watch_group_init(g);
        for (size_t i = 0; watches && i < n; i++)
                watch_start(&watches[i], g, futures[i]);
        return watches;
}

static void wait_unwatch_all(struct watch *watches, size_t n) {
        for (size_t i = 0; i < n; i++)
                watch_stop(&watches[i]);
        free(watches);
}

/* ---- drover_wait ---- */

struct wait_goal {
        const struct watch_group *group;
        size_t n;
        enum drover_wait_for what;
};

static bool wait_is_done(void *user) {
        const struct wait_goal *goal = user;
        if (goal->group->n_ended == goal->n)
                return true;
        switch (goal->what) {
        case DROVER_ALL_COMPLETED:
                return false;
        case DROVER_FIRST_COMPLETED:
                return goal->group->n_ended > 0;
        case DROVER_FIRST_ERROR:
                return goal->group->n_failed > 0;
        }
        return true;
}

int drover_wait(drover_future *const *futures, size_t n, enum drover_wait_for what, uint64_t deadline_ns,
                size_t *ret_n_completed) {
        struct watch_group group;
        if (!wait_are_futures(futures, n))
                return -EINVAL; /* there is no drover to tell it in words */
        if ((unsigned)what > DROVER_FIRST_ERROR)
                return n ? connection_fail(futures[0]->drover, -EINVAL, "drover_wait: %d is nothing to wait for",
                                           (int)what)
                         : -EINVAL;
        int r = wait_check_drovers(futures, n);
        if (r < 0)
                return r;
        struct watch *watches = wait_watch_all(futures, n, &group);
        if (!watches)
                return -ENOMEM;
        drover *d = n ? futures[0]->drover : NULL;
        struct wait_goal goal = {.group = &group, .n = n, .what = what};
        if (!wait_is_done(&goal)) {
                r = connection_check(d);
                if (r >= 0)
                        r = engine_wait(d, wait_is_done, &goal, deadline_ns);
        }
        if (ret_n_completed)
                *ret_n_completed = group.n_ended;
        wait_unwatch_all(watches, n);
        return r;
}

/* ---- iterators ---- */

int drover_iterator_next(drover_iterator *iterator, drover_future **ret_future, uint64_t deadline_ns) {
        return iterator->next(iterator, ret_future, deadline_ns);
}

uint64_t drover_iterator_pulled(const drover_iterator *iterator) { return iterator->n_pulled; }

drover_iterator *drover_iterator_free(drover_iterator *iterator) {
        if (iterator)
                iterator->free(iterator);
        return NULL;
}

struct completed {
        struct drover_iterator base;
        struct watch_group group;
        struct watch *watches, **found; /* `found`: room to sort them */
        size_t n, n_returned;
};

static bool completed_has_one(void *user) { return !TAILQ_EMPTY(&((struct completed *)user)->group.ended); }

static int completed_next(drover_iterator *it, drover_future **ret, uint64_t deadline_ns) {
        struct completed *c = (struct completed *)it;
        if (c->n_returned == c->n)
                return 0;
        if (!completed_has_one(c)) {
                int r = connection_check(it->drover);
                if (r >= 0)
                        r = engine_wait(it->drover, completed_has_one, c, deadline_ns);
                if (r < 0)
                        return r;
                engine_collect(it->drover); /* a wait ends with one; others may have ended before that one */
        }
        struct watch *w = watch_take_first(&c->group, c->found);
        c->n_returned++;
        *ret = drover_future_ref(w->future);
        return 1;
}

static void completed_free(drover_iterator *it) {
        struct completed *c = (struct completed *)it;
        wait_unwatch_all(c->watches, c->n);
        free(c->found);
        free(c);
}

static int completed_compare_pointers(const void *a, const void *b) {
        uintptr_t x = (uintptr_t)(*(drover_future *const *)a), y = (uintptr_t)(*(drover_future *const *)b);
        return (x > y) - (x < y);
}

/* Each future once, however often it was given. How many that are. */
static size_t completed_unique(drover_future **futures, size_t n) {
        size_t n_unique = 0;
        qsort(futures, n, sizeof(drover_future *), completed_compare_pointers);
        for (size_t i = 0; i < n; i++)
                if (i == 0 || futures[i] != futures[i - 1])
                        futures[n_unique++] = futures[i];
        return n_unique;
}

int drover_as_completed(drover_future *const *futures, size_t n, drover_iterator **ret_iterator) {
        if (!wait_are_futures(futures, n))
                return -EINVAL;
        int r = wait_check_drovers(futures, n);
        if (r < 0)
                return r;
        struct completed *c = calloc(1, sizeof *c);
        drover_future **unique = calloc(n + 1, sizeof(drover_future *));
        if (c && unique) {
                if (n > 0)
                        memcpy(unique, futures, n * sizeof(drover_future *));
                *c = (struct completed){.base = {.next = completed_next, .free = completed_free},
                                        .n = completed_unique(unique, n)};
                c->base.drover = n ? futures[0]->drover : NULL;
                c->found = calloc(n + 1, sizeof(struct watch *));
                c->watches = c->found ? wait_watch_all(unique, c->n, &c->group) : NULL;
        }
        free(unique);
        if (!c || !c->watches) {
                free(c ? c->found : NULL);
                free(c);
                return -ENOMEM;
        }
        *ret_iterator = &c->base;
        return 0;
}
