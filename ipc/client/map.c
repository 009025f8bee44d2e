/* One job for each input, in constant memory.
 *
 * A window of inputs is pulled, submitted, and handed out again as futures: in the order of the inputs from a ring, or
 * as they end by watching each. The window is refilled by chunks, each handed over with one wake-up: one by one, a
 * worker that is faster than its client would be woken for every single job.
 *
 * Arguments that do not fit, and jobs that fail, are futures like others. An input that finds the channel full, because
 * the program submits other jobs there, is kept until there is room. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/client/bus/bus-call.h"
#include "ipc/client/library.h"
#include "ipc/memory/event.h"

enum { MAP_LARGEST_WINDOW = 1024, MAP_LARGEST_CHUNK = 64 };

struct map_entry {
        drover_future *future;
        struct watch watch; /* unordered only */
        uint32_t next_free;
};

struct map {
        struct drover_iterator base;
        drover_pool *pool;
        char *job;
        drover_input_fn input;
        void *user;
        struct drover_options options;
        struct submission submission;
        drover_args args;
        enum drover_order order;
        uint32_t window, chunk;
        struct map_entry *entries;   /* `window` of them; ordered: a ring that starts at `first` */
        uint32_t first, n_out, free; /* free: unordered, the first of the list of those not in use */
        struct watch_group group;
        struct watch **ended; /* unordered: room to put those that ended in order */
        bool has_input;       /* args hold one that found no room, or no memory */
        int input_error;      /* or does not fit: its future says so */
        bool is_pulling;      /* the input function runs, or was left by longjmp */
        bool is_freed;        /* by the input function: it is free when that returns */
        bool is_over;         /* nothing more is pulled */
        int error;            /* why, or what there was not enough of; told once, after everything else */
};

/* ---- in ---- */

static void map_add(struct map *m, drover_future *f) {
        uint32_t i = m->order == DROVER_ORDERED ? (m->first + m->n_out) % m->window : m->free;
        struct map_entry *e = &m->entries[i];
        e->future = f;
        m->n_out++;
        if (m->order == DROVER_UNORDERED) {
                m->free = e->next_free;
                watch_start(&e->watch, &m->group, f);
        }
}

/* The input's arguments do not fit: its future says so. */
static int map_add_failed(struct map *m, int code) {
        drover_future *f;
        int r = future_new(&f, m->base.drover, NULL, 2);
        if (r < 0)
                return r;
        const char *text = drover_error_text(m->base.drover);
        future_end(f, &(struct future_verdict){.state = DROVER_FAILED,
                                               .code = code,
                                               .data = text,
                                               .bytes = strlen(text),
                                               .job = m->job,
                                               .pool = m->pool->name});
        map_add(m, f);
        return 0;
}

/* The next input into args. 1, 0 at the end, -errno. */
static int map_read(struct map *m) {
        if (m->has_input)
                return 1;
        drover_args_reset(&m->args);
        m->is_pulling = true;
        int r = m->input(m->user, m->base.n_pulled, &m->args);
        m->is_pulling = false;
        int check = m->is_freed ? -ECANCELED : connection_check(m->base.drover); /* it may have closed it, or forked */
        if (r <= 0 || check < 0)
                return check < 0 ? check : r;
        m->base.n_pulled++;
        m->has_input = true;
        m->input_error = submit_read_args(m->pool, &m->args, &m->submission);
        return 1;
}

/* Hands it over. An input whose arguments do not fit is one as well. */
static int map_submit(struct map *m) {
        drover_future *f;
        int r = m->input_error < 0 ? 0 : submit_try(m->pool, &m->submission, &f);
        if (r == -EMSGSIZE)
                m->input_error = r;
        if (m->input_error < 0)
                return map_add_failed(m, m->input_error);
        if (r == 0)
                map_add(m, f);
        return r;
}

/* Takes in one. true: there may be more. What finds no memory is kept, and tried again in the next call. */
static bool map_pull_one(struct map *m) {
        int r = map_read(m);
        if (r <= 0) {
                m->is_over = true;
                m->error = r;
                return false;
        }
        r = map_submit(m);
        if (r == -EAGAIN)
                return false;
        m->error = r;
        m->has_input = bus_is_short(r);
        m->is_over = r < 0 && !m->has_input;
        return r == 0;
}

static void map_pull(struct map *m) {
        if (m->is_over || (m->n_out > 0 && m->window - m->n_out < m->chunk))
                return;
        while (!m->is_over && m->n_out < m->window && map_pull_one(m))
                ;
        if (m->pool->session)
                pool_ring(m->pool);
}

/* ---- out ---- */

static bool map_has_one(void *user) {
        struct map *m = user;
        if (m->order == DROVER_UNORDERED)
                return !TAILQ_EMPTY(&m->group.ended);
        return m->n_out > 0 && future_has_ended(m->entries[m->first].future);
}

static drover_future *map_take(struct map *m) {
        struct map_entry *e = &m->entries[m->first];
        if (m->order == DROVER_ORDERED)
                m->first = (m->first + 1) % m->window;
        else {
                struct watch *w = watch_take_first(&m->group, m->ended);
                e = (struct map_entry *)((char *)w - offsetof(struct map_entry, watch));
                watch_stop(w);
                e->next_free = m->free;
                m->free = (uint32_t)(e - m->entries);
        }
        drover_future *f = e->future;
        e->future = NULL;
        m->n_out--;
        return f;
}

/* Nothing of ours is out, and there is no room for the next input: until something changes. */
static int map_wait_room(struct map *m, uint64_t deadline_ns) {
        if (deadline_ns == 0)
                return connection_late(m->base.drover, -EAGAIN);
        if (event_now_ns() >= deadline_ns)
                return connection_late(m->base.drover, -ETIMEDOUT);
        engine_wait_room(m->base.drover, submit_is_for_bus(m->pool, &m->submission), deadline_ns);
        return 0;
}

static void map_free(drover_iterator *it);

static int map_check(struct map *m) {
        if (m->is_pulling)
                return connection_fail(m->base.drover, -EBUSY,
                                       "drover_iterator_next() was called from the input function of this map, or that "
                                       "was left by longjmp()");
        return connection_check(m->base.drover);
}

static int map_end_freed(struct map *m) {
        int r = connection_fail(m->base.drover, -ECANCELED,
                                "drover_iterator_free() was called from the input function of this map");
        map_free(&m->base);
        return r;
}

static int map_next(drover_iterator *it, drover_future **ret, uint64_t deadline_ns) {
        struct map *m = (struct map *)it;
        int r = 0;
        for (;;) {
                if (map_has_one(m)) {
                        *ret = map_take(m);
                        return 1;
                }
                r = map_check(m);
                if (r < 0)
                        return r;
                map_pull(m);
                if (m->is_freed)
                        return map_end_freed(m);
                if (m->n_out > 0) {
                        r = engine_wait(it->drover, map_has_one, m, deadline_ns);
                        if (r == 0 && m->order == DROVER_UNORDERED)
                                engine_collect(
                                        it->drover); /* others may have ended before the one that ended the wait */
                } else if (m->has_input && !m->is_over && m->error == 0)
                        r = map_wait_room(m, deadline_ns);
                else {
                        r = m->error;
                        m->error = 0;
                        return r;
                }
                if (r < 0)
                        return r;
        }
}

/* ---- making and ending ---- */

static void map_free(drover_iterator *it) {
        struct map *m = (struct map *)it;
        if (m->is_pulling) {
                m->is_freed = true;
                return;
        }
        for (uint32_t i = 0; m->entries && i < m->window; i++)
                if (m->entries[i].future) {
                        if (m->order == DROVER_UNORDERED)
                                watch_stop(&m->entries[i].watch);
                        drover_future_unref(m->entries[i].future);
                }
        builder_deinit(&m->args);
        drover_pool_unref(m->pool);
        connection_unref(m->base.drover);
        free(m->entries);
        free(m->ended);
        free(m->job);
        free(m);
}

static int map_read_options(drover *d, const struct drover_map_options *options, struct drover_map_options *ret) {
        int r = options_read(d, "drover_map_options", options, offsetof(struct drover_map_options, window), ret,
                             sizeof *ret);
        if (r < 0)
                return r;
        if (ret->order != DROVER_ORDERED && ret->order != DROVER_UNORDERED)
                return connection_fail(d, -EINVAL, "order %u is neither DROVER_ORDERED nor DROVER_UNORDERED",
                                       ret->order);
        return 0;
}

static uint32_t map_min(uint32_t a, uint32_t b) { return a < b ? a : b; }

static int map_prepare(struct map *m, const struct drover_map_options *o) {
        uint32_t half = (m->pool->n_slots + 1) / 2;
        m->order = o->order;
        m->window = map_min(o->window ? o->window : map_min(half, MAP_LARGEST_WINDOW), m->pool->n_slots);
        m->chunk = map_min(o->chunk ? o->chunk : map_min((m->window + 3) / 4, MAP_LARGEST_CHUNK), m->window);
        m->entries = calloc(m->window, sizeof *m->entries);
        m->job = strdup(m->submission.job);
        m->ended = m->order == DROVER_UNORDERED ? calloc(m->window, sizeof(struct watch *)) : NULL;
        if (!m->entries || !m->job || (m->order == DROVER_UNORDERED && !m->ended))
                return -ENOMEM;
        for (uint32_t i = 0; i < m->window; i++)
                m->entries[i].next_free = i + 1;
        m->submission.job = m->job;
        m->submission.options = &m->options;
        m->submission.is_quiet = true;
        watch_group_init(&m->group);
        builder_init(&m->args);
        m->args.is_lent = true;
        return 0;
}

int drover_map(drover_pool *pool, const char *job, drover_input_fn input, void *user,
               const struct drover_map_options *options, drover_iterator **ret_iterator) {
        drover *d = pool->drover;
        struct drover_map_options o;
        int r = connection_check(d);
        if (r >= 0)
                r = map_read_options(d, options, &o);
        struct map *m = r >= 0 ? calloc(1, sizeof *m) : NULL;
        if (!m)
                return r < 0 ? r : -ENOMEM;
        *m = (struct map){.base = {.drover = connection_ref(d), .next = map_next, .free = map_free},
                          .pool = drover_pool_ref(pool),
                          .input = input,
                          .user = user,
                          .submission = {.job = job}};
        r = submit_read_options(d, o.job, &m->options);
        if (r >= 0)
                r = submit_find_type(pool, job, &m->submission.type);
        if (r >= 0 && pool->is_shut)
                r = connection_fail(d, -ESHUTDOWN, "pool %s: drover_pool_drain() was called", pool->name);
        if (r >= 0)
                r = map_prepare(m, &o);
        if (r < 0) {
                map_free(&m->base);
                return r;
        }
        map_pull(m);
        *ret_iterator = &m->base;
        return 0;
}
