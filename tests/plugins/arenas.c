/* Takes things in arenas and holds them, so that a test can kill who holds what others wait for.
 *
 *   take   takes object `name` of `kind` (waits as long as it must), holds it `hold_ms` or until it is asked to stop,
 * gives it back; the outcome is how the taking went: "0", "EOWNERDEAD", … An owner that died is made good at once.
 *   cross  takes mutex `first`, meets the other jobs (`n` of them) at a barrier in arena "meet", takes mutex `second`,
 * which may be in another arena.
 *   threads  the same crossing of mutexes a and b, by two threads of this one job.
 *   order  takes three mutexes in order, `n` times, and counts how often it had to wait.
 *   put    one item into queue `name`.
 *   fd     opens an arena and says how that went.
 *   sized  opens a transient one with room for `objects` and `processes`, and says how that went. */
#include <drover/plugin.h>
#include <drover/sync.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { QUEUE_CAPACITY = 8, ITEM_BYTES = 16 };

struct thing {
        drover_arena *arena;
        drover_mutex *mutex;
        drover_condition *condition;
        drover_semaphore *semaphore;
        drover_permits *permits;
        drover_event *event;
        drover_barrier *barrier;
        drover_rwlock *rwlock;
        drover_array *array;
        drover_dictionary *dictionary;
        drover_queue *queue;
};

struct kind {
        const char *name;
        int (*open)(struct thing *t, const char *name);
        int (*take)(struct thing *t);
        int (*consistent)(struct thing *t);
        int (*give)(struct thing *t);
};

static int open_mutex(struct thing *t, const char *name) { return drover_mutex_open(t->arena, name, 0, &t->mutex); }
static int open_recursive(struct thing *t, const char *name) {
        return drover_mutex_open(t->arena, name, DROVER_RECURSIVE, &t->mutex);
}
static int take_mutex(struct thing *t) { return drover_mutex_lock(t->mutex, DROVER_FOREVER); }
static int mend_mutex(struct thing *t) { return drover_mutex_consistent(t->mutex); }
static int give_mutex(struct thing *t) { return drover_mutex_unlock(t->mutex); }

static int open_permits(struct thing *t, const char *name) {
        return drover_permits_open(t->arena, name, 1, &t->permits);
}
static int take_permit(struct thing *t) { return drover_permits_acquire(t->permits, DROVER_FOREVER); }
static int give_permit(struct thing *t) { return drover_permits_release(t->permits); }

static int open_rwlock(struct thing *t, const char *name) { return drover_rwlock_open(t->arena, name, &t->rwlock); }
static int take_read(struct thing *t) { return drover_rwlock_read(t->rwlock, DROVER_FOREVER); }
static int take_write(struct thing *t) { return drover_rwlock_write(t->rwlock, DROVER_FOREVER); }
static int mend_rwlock(struct thing *t) { return drover_rwlock_consistent(t->rwlock); }
static int give_rwlock(struct thing *t) { return drover_rwlock_unlock(t->rwlock); }

static int open_array(struct thing *t, const char *name) { return drover_array_open(t->arena, name, 8, 4, &t->array); }
static int take_array(struct thing *t) { return drover_array_lock(t->array, DROVER_FOREVER); }
static int mend_array(struct thing *t) { return drover_array_consistent(t->array); }
static int give_array(struct thing *t) { return drover_array_unlock(t->array); }

static int open_dictionary(struct thing *t, const char *name) {
        return drover_dictionary_open(t->arena, name, 8, 16, 16, &t->dictionary);
}
static int take_dictionary(struct thing *t) { return drover_dictionary_lock(t->dictionary, DROVER_FOREVER); }
static int mend_dictionary(struct thing *t) { return drover_dictionary_consistent(t->dictionary); }
static int give_dictionary(struct thing *t) { return drover_dictionary_unlock(t->dictionary); }

static int open_queue(struct thing *t, const char *name) {
        return drover_queue_open(t->arena, name, QUEUE_CAPACITY, ITEM_BYTES, DROVER_QUEUE_FIFO, &t->queue);
}
static int take_item(struct thing *t) {
        char item[ITEM_BYTES];
        size_t bytes;
        return drover_queue_get(t->queue, item, sizeof item, &bytes, DROVER_FOREVER);
}
static int give_item(struct thing *t) { return drover_queue_task_done(t->queue); }

static int open_barrier(struct thing *t, const char *name) {
        return drover_barrier_open(t->arena, name, 3, &t->barrier);
}
static int take_barrier(struct thing *t) {
        int r = drover_barrier_wait(t->barrier, DROVER_FOREVER);
        return r < 0 ? r : 0;
}

static int open_semaphore(struct thing *t, const char *name) {
        return drover_semaphore_open(t->arena, name, 1, &t->semaphore);
}
static int take_semaphore(struct thing *t) { return drover_semaphore_wait(t->semaphore, DROVER_FOREVER); }
static int give_semaphore(struct thing *t) { return drover_semaphore_post(t->semaphore, 1); }

static int open_event(struct thing *t, const char *name) { return drover_event_open(t->arena, name, &t->event); }
static int take_event(struct thing *t) { return drover_event_wait(t->event, DROVER_FOREVER); }
static int set_event(struct thing *t) { return drover_event_set(t->event); }

static int open_condition(struct thing *t, const char *name) {
        char mutex[64];
        snprintf(mutex, sizeof mutex, "%s.mutex", name);
        int r = drover_mutex_open(t->arena, mutex, 0, &t->mutex);
        return r < 0 ? r : drover_condition_open(t->arena, name, t->mutex, &t->condition);
}
static int take_condition(struct thing *t) {
        int r = drover_mutex_lock(t->mutex, DROVER_FOREVER);
        if (r == 0)
                r = drover_condition_wait(t->condition, DROVER_FOREVER);
        drover_mutex_unlock(t->mutex);
        return r;
}

static int open_value(struct thing *t, const char *name) { return drover_array_open(t->arena, name, 8, 1, &t->array); }

static int open_simple(struct thing *t, const char *name) {
        return drover_queue_open(t->arena, name, QUEUE_CAPACITY, ITEM_BYTES, DROVER_QUEUE_SIMPLE, &t->queue);
}
static int put_item(struct thing *t) { return drover_queue_put(t->queue, "item", 4, DROVER_FOREVER); }

static const struct kind kinds[] = {
        {"mutex", open_mutex, take_mutex, mend_mutex, give_mutex},
        {"recursive", open_recursive, take_mutex, mend_mutex, give_mutex},
        {"permits", open_permits, take_permit, NULL, give_permit},
        {"rwlock-read", open_rwlock, take_read, NULL, give_rwlock},
        {"rwlock-write", open_rwlock, take_write, mend_rwlock, give_rwlock},
        {"array", open_array, take_array, mend_array, give_array},
        {"dictionary", open_dictionary, take_dictionary, mend_dictionary, give_dictionary},
        {"queue", open_queue, take_item, NULL, give_item},
        {"barrier", open_barrier, take_barrier, NULL, NULL},
        {"semaphore", open_semaphore, take_semaphore, NULL, give_semaphore},
        {"post-semaphore", open_semaphore, give_semaphore, NULL, NULL},
        {"condition", open_condition, take_condition, NULL, NULL},
        {"value", open_value, take_array, mend_array, give_array},
        {"simple", open_simple, take_item, NULL, NULL},
        {"put-simple", open_simple, put_item, NULL, NULL},
        {"event", open_event, take_event, NULL, NULL},
        {"set-event", open_event, set_event, NULL, NULL},
};

/* The handles live as long as the process: one job, a few arenas, a few objects. */
static int attach(drover_job *job, const char *name, drover_arena **ret) {
        static struct {
                char name[72];
                drover_arena *arena;
        } known[8];
        size_t i = 0;
        while (i < DROVER_COUNT(known) && known[i].arena && strcmp(known[i].name, name) != 0)
                i++;
        if (i == DROVER_COUNT(known))
                return drover_fail(job, ENOSPC, "too many arenas");
        if (!known[i].arena) {
                int fd, r = drover_arena_open_fd(job, name, 0, &fd);
                if (r < 0)
                        return drover_fail(job, -r, "arena %s: %s", name, strerror(-r));
                r = drover_arena_attach(fd, &known[i].arena);
                close(fd);
                if (r < 0)
                        return r;
                strncpy(known[i].name, name, sizeof known[i].name - 1);
        }
        *ret = known[i].arena;
        return 0;
}

static int hold(drover_job *job, uint64_t ms) {
        for (uint64_t i = 0; i < ms; i++) {
                if (drover_checkpoint(job) < 0)
                        break;
                nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        }
        return 0;
}

static const char *outcome(int r) { return r == 0 ? "0" : strerrorname_np(-r); }

static int take(drover_job *job) {
        const char *arena, *kind, *name;
        uint64_t ms;
        struct thing t = {0};
        drover_arg_str(job, "arena", &arena, NULL);
        drover_arg_str(job, "kind", &kind, NULL);
        drover_arg_str(job, "name", &name, NULL);
        drover_arg_u64(job, "hold_ms", &ms);
        const struct kind *k = NULL;
        for (size_t i = 0; i < DROVER_COUNT(kinds); i++)
                if (strcmp(kinds[i].name, kind) == 0)
                        k = &kinds[i];
        if (!k)
                return drover_fail(job, EINVAL, "no kind %s", kind);
        int r = attach(job, arena, &t.arena);
        if (r < 0)
                return r;
        r = k->open(&t, name);
        if (r < 0)
                return drover_fail(job, -r, "%s %s cannot be opened", kind, name);
        r = k->take(&t);
        if (r == -EOWNERDEAD && k->consistent)
                k->consistent(&t);
        if (r == 0 || r == -EOWNERDEAD) {
                drover_progress(job, 1, 1, "holds");
                hold(job, ms);
                if (k->give)
                        k->give(&t);
        }
        return drover_ret_str(job, "outcome", outcome(r));
}

static int cross(drover_job *job) {
        const char *arena, *first, *other, *second;
        uint64_t n;
        drover_arena *a1, *a2, *meet;
        drover_mutex *m1, *m2;
        drover_barrier *all;
        drover_arg_str(job, "arena", &arena, NULL);
        drover_arg_str(job, "first", &first, NULL);
        drover_arg_str(job, "other", &other, NULL);
        drover_arg_str(job, "second", &second, NULL);
        drover_arg_u64(job, "n", &n);
        int r = attach(job, arena, &a1);
        if (r == 0)
                r = attach(job, other, &a2);
        if (r == 0)
                r = attach(job, "meet", &meet);
        if (r < 0)
                return r;
        if (drover_mutex_open(a1, first, 0, &m1) < 0 || drover_mutex_open(a2, second, 0, &m2) < 0 ||
            drover_barrier_open(meet, "all", (uint32_t)n, &all) < 0)
                return drover_fail(job, EIO, "cannot open");
        drover_mutex_lock(m1, DROVER_FOREVER);
        drover_barrier_wait(all, DROVER_FOREVER);
        r = drover_mutex_lock(m2, DROVER_FOREVER);
        if (r == 0)
                drover_mutex_unlock(m2);
        drover_mutex_unlock(m1);
        return drover_ret_str(job, "outcome", outcome(r));
}

struct side {
        drover_mutex *first, *second;
        drover_barrier *both;
        int r;
};

static void *take_side(void *argument) {
        struct side *s = argument;
        drover_mutex_lock(s->first, DROVER_FOREVER);
        drover_barrier_wait(s->both, DROVER_FOREVER);
        s->r = drover_mutex_lock(s->second, DROVER_FOREVER);
        if (s->r == 0)
                drover_mutex_unlock(s->second);
        drover_mutex_unlock(s->first);
        return NULL;
}

static int threads(drover_job *job) {
        const char *arena;
        drover_arena *a;
        drover_mutex *m[2];
        drover_barrier *both;
        pthread_t id;
        drover_arg_str(job, "arena", &arena, NULL);
        int r = attach(job, arena, &a);
        if (r < 0)
                return r;
        if (drover_mutex_open(a, "a", 0, &m[0]) < 0 || drover_mutex_open(a, "b", 0, &m[1]) < 0 ||
            drover_barrier_open(a, "both", 2, &both) < 0)
                return drover_fail(job, EIO, "cannot open");
        struct side sides[2] = {{m[0], m[1], both, 0}, {m[1], m[0], both, 0}};
        if (pthread_create(&id, NULL, take_side, &sides[1]) != 0)
                return drover_fail(job, EAGAIN, "no thread");
        take_side(&sides[0]);
        pthread_join(id, NULL);
        char text[64];
        snprintf(text, sizeof text, "%s %s", outcome(sides[0].r), outcome(sides[1].r));
        return drover_ret_str(job, "outcome", text);
}

static int order(drover_job *job) {
        const char *arena;
        uint64_t n, n_waits = 0;
        drover_arena *a;
        drover_mutex *m[3];
        drover_arg_str(job, "arena", &arena, NULL);
        drover_arg_u64(job, "n", &n);
        int r = attach(job, arena, &a);
        for (unsigned k = 0; k < DROVER_COUNT(m) && r == 0; k++)
                r = drover_mutex_open(a, (const char *[]){"x", "y", "z"}[k], 0, &m[k]);
        for (uint64_t i = 0; i < n && r == 0; i++) {
                unsigned taken = 0;
                for (; taken < DROVER_COUNT(m) && r == 0; taken++) {
                        r = drover_mutex_lock(m[taken], 0);
                        if (r == -EAGAIN) {
                                n_waits++;
                                r = drover_mutex_lock(m[taken], DROVER_FOREVER);
                        }
                }
                if (i % 32 == 0) /* so that the others come and wait */
                        nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
                for (unsigned k = 0; k < taken; k++)
                        drover_mutex_unlock(m[k]);
        }
        char text[64];
        snprintf(text, sizeof text, "%s %llu", outcome(r), (unsigned long long)n_waits);
        return drover_ret_str(job, "outcome", text);
}

static int put(drover_job *job) {
        const char *arena, *name;
        struct thing t = {0};
        drover_arg_str(job, "arena", &arena, NULL);
        drover_arg_str(job, "name", &name, NULL);
        int r = attach(job, arena, &t.arena);
        if (r == 0)
                r = open_queue(&t, name);
        if (r == 0)
                r = drover_queue_put(t.queue, "item", 4, DROVER_FOREVER);
        return r < 0 ? r : drover_ret_str(job, "outcome", outcome(r));
}

static int open_fd(drover_job *job) {
        const char *arena;
        uint64_t bytes;
        int fd;
        drover_arg_str(job, "arena", &arena, NULL);
        drover_arg_u64(job, "bytes", &bytes);
        int r = drover_arena_open_fd(job, arena, bytes, &fd);
        if (r == 0)
                close(fd);
        return drover_ret_str(job, "outcome", outcome(r));
}

static int open_sized(drover_job *job) {
        struct drover_arena_options options = {.struct_size = sizeof options, .flags = DROVER_ARENA_TRANSIENT};
        const char *arena;
        uint64_t objects, processes;
        int fd;
        drover_arg_str(job, "arena", &arena, NULL);
        drover_arg_u64(job, "objects", &objects);
        drover_arg_u64(job, "processes", &processes);
        options.max_objects = (uint32_t)objects;
        options.max_processes = (uint32_t)processes;
        int r = drover_arena_open_fd_with(job, arena, &options, &fd);
        if (r == 0)
                close(fd);
        options.flags = 1u << 31;
        if (drover_arena_open_fd_with(job, arena, &options, &fd) != -EINVAL)
                return -EIO;
        options.struct_size = 0;
        if (drover_arena_open_fd_with(job, arena, &options, &fd) != -EINVAL)
                return -EIO;
        return drover_ret_str(job, "outcome", outcome(r));
}

static int on_init(drover_worker *worker, void **state) {
        int fd, r = drover_arena_open_fd(worker, "init", 4096, &fd);
        if (r == 0)
                close(fd);
        return r;
}

static int on_preload(drover_preload_ctx *ctx, void **shared) {
        int fd;
        return drover_arena_open_fd(ctx, "preload", 0, &fd) == -EPERM ? 0 : -EIO;
}

static const struct drover_job_type jobs[] = {
        {.name = "take", .args = "arena:str,kind:str,name:str,hold_ms:u64", .result = "outcome:str", .handle = take},
        {.name = "cross",
         .args = "arena:str,first:str,other:str,second:str,n:u64",
         .result = "outcome:str",
         .handle = cross},
        {.name = "threads", .args = "arena:str", .result = "outcome:str", .handle = threads},
        {.name = "order", .args = "arena:str,n:u64", .result = "outcome:str", .handle = order},
        {.name = "put", .args = "arena:str,name:str", .result = "outcome:str", .handle = put},
        {.name = "sized", .args = "arena:str,objects:u64,processes:u64", .result = "outcome:str", .handle = open_sized},
        {.name = "fd", .args = "arena:str,bytes:u64", .result = "outcome:str", .handle = open_fd},
};
static struct drover_plugin plugin = {
        .jobs = jobs, .n_jobs = DROVER_COUNT(jobs), .preload = on_preload, .worker_init = on_init};
DROVER_REGISTER(plugin, "arenas", "1.0.0")
