/* Removing objects: what those find who have one open, when its room is used again, and SIGKILL at each step.
 *
 * The library is compiled so that a process dies at a named place. */
#include "tests/unit/sync-fixture.h"

#include <sched.h>
#include <sys/wait.h>

#include "ipc/kill-point.h"
#include "ipc/sync/arena.h"

enum { CHURNERS = 4, CHURN_ROUNDS = 3000, CHURN_WORDS = 64 };

/* ---- dying at a named place ---- */

static const char *plan;

void kill_point(const char *name) {
        if (plan && strcmp(plan, name) == 0)
                kill(getpid(), SIGKILL);
}

/* ---- one object of every kind ---- */

union handle {
        void *any;
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
        int (*open)(drover_arena *a, union handle *ret);
        void *(*free)(union handle h);
        int (*wait)(union handle h, uint64_t deadline); /* what a second one waits in */
        int (*hold)(union handle h);                    /* what makes it wait; NULL: it does so by itself */
};

static int open_mutex(drover_arena *a, union handle *h) { return drover_mutex_open(a, "x", 0, &h->mutex); }
static void *free_mutex(union handle h) { return drover_mutex_free(h.mutex); }
static int wait_mutex(union handle h, uint64_t deadline) { return drover_mutex_lock(h.mutex, deadline); }
static int hold_mutex(union handle h) { return drover_mutex_lock(h.mutex, 0); }

static int open_recursive(drover_arena *a, union handle *h) {
        return drover_mutex_open(a, "x", DROVER_RECURSIVE, &h->mutex);
}

static int open_semaphore(drover_arena *a, union handle *h) { return drover_semaphore_open(a, "x", 0, &h->semaphore); }
static void *free_semaphore(union handle h) { return drover_semaphore_free(h.semaphore); }
static int wait_semaphore(union handle h, uint64_t deadline) { return drover_semaphore_wait(h.semaphore, deadline); }

static int open_permits(drover_arena *a, union handle *h) { return drover_permits_open(a, "x", 1, &h->permits); }
static void *free_permits(union handle h) { return drover_permits_free(h.permits); }
static int wait_permits(union handle h, uint64_t deadline) { return drover_permits_acquire(h.permits, deadline); }
static int hold_permits(union handle h) { return drover_permits_acquire(h.permits, 0); }

static int open_event(drover_arena *a, union handle *h) { return drover_event_open(a, "x", &h->event); }
static void *free_event(union handle h) { return drover_event_free(h.event); }
static int wait_event(union handle h, uint64_t deadline) { return drover_event_wait(h.event, deadline); }

static int open_barrier(drover_arena *a, union handle *h) { return drover_barrier_open(a, "x", 3, &h->barrier); }
static void *free_barrier(union handle h) { return drover_barrier_free(h.barrier); }
static int wait_barrier(union handle h, uint64_t deadline) { return drover_barrier_wait(h.barrier, deadline); }

static int open_rwlock(drover_arena *a, union handle *h) { return drover_rwlock_open(a, "x", &h->rwlock); }
static void *free_rwlock(union handle h) { return drover_rwlock_free(h.rwlock); }
static int wait_read(union handle h, uint64_t deadline) { return drover_rwlock_read(h.rwlock, deadline); }
static int hold_write(union handle h) { return drover_rwlock_write(h.rwlock, 0); }
static int wait_write(union handle h, uint64_t deadline) { return drover_rwlock_write(h.rwlock, deadline); }
static int hold_read(union handle h) { return drover_rwlock_read(h.rwlock, 0); }

static int open_array(drover_arena *a, union handle *h) { return drover_array_open(a, "x", 8, 4, &h->array); }
static void *free_array(union handle h) { return drover_array_free(h.array); }
static int wait_array(union handle h, uint64_t deadline) { return drover_array_lock(h.array, deadline); }
static int hold_array(union handle h) { return drover_array_lock(h.array, 0); }

static int open_dictionary(drover_arena *a, union handle *h) {
        return drover_dictionary_open(a, "x", 4, 8, 8, &h->dictionary);
}
static void *free_dictionary(union handle h) { return drover_dictionary_free(h.dictionary); }
static int wait_dictionary(union handle h, uint64_t deadline) {
        return drover_dictionary_put(h.dictionary, "k", 1, "v", 1, deadline);
}
static int hold_dictionary(union handle h) { return drover_dictionary_lock(h.dictionary, 0); }

static int open_queue(drover_arena *a, union handle *h) {
        return drover_queue_open(a, "x", 1, 8, DROVER_QUEUE_FIFO, &h->queue);
}
static int open_lifo(drover_arena *a, union handle *h) {
        return drover_queue_open(a, "x", 1, 8, DROVER_QUEUE_LIFO, &h->queue);
}
static void *free_queue(union handle h) { return drover_queue_free(h.queue); }
static int wait_get(union handle h, uint64_t deadline) {
        char item[8];
        size_t bytes;
        return drover_queue_get(h.queue, item, sizeof item, &bytes, deadline);
}
static int wait_put(union handle h, uint64_t deadline) { return drover_queue_put(h.queue, "x", 1, deadline); }
static int hold_put(union handle h) { return drover_queue_put(h.queue, "x", 1, 0); }
static int wait_join(union handle h, uint64_t deadline) { return drover_queue_join(h.queue, deadline); }

static const struct kind kinds[] = {
        {"mutex", open_mutex, free_mutex, wait_mutex, hold_mutex},
        {"recursive mutex", open_recursive, free_mutex, wait_mutex, hold_mutex},
        {"semaphore", open_semaphore, free_semaphore, wait_semaphore, NULL},
        {"permits", open_permits, free_permits, wait_permits, hold_permits},
        {"event", open_event, free_event, wait_event, NULL},
        {"barrier", open_barrier, free_barrier, wait_barrier, NULL},
        {"rwlock, reader", open_rwlock, free_rwlock, wait_read, hold_write},
        {"rwlock, writer", open_rwlock, free_rwlock, wait_write, hold_read},
        {"array", open_array, free_array, wait_array, hold_array},
        {"dictionary", open_dictionary, free_dictionary, wait_dictionary, hold_dictionary},
        {"queue, get", open_queue, free_queue, wait_get, NULL},
        {"queue, put", open_queue, free_queue, wait_put, hold_put},
        {"queue, join", open_queue, free_queue, wait_join, hold_put},
        {"lifo queue, get", open_lifo, free_queue, wait_get, NULL},
};

/* ---- what those find who have it open ---- */

static void wait_until_removed(drover_arena *a, void *user) {
        const struct kind *kind = user;
        union handle h;
        CHECK(kind->open(a, &h) == 0);
        int r = kind->wait(h, stuck());
        if (r != -EIDRM)
                fprintf(stderr, "%s: %d\n", kind->name, r);
        CHECK(r == -EIDRM);
        CHECK(kind->wait(h, stuck()) == -EIDRM);
        CHECK(kind->wait(h, 0) == -EIDRM);
        kind->free(h);
        drover_arena_free(a);
}

static void test_waiters_are_told(void **state) {
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
                drover_arena *a = fixture_arena(1 << 16);
                union handle mine, other;
                assert_int_equal(kinds[i].open(a, &mine), 0);
                if (kinds[i].hold)
                        assert_int_equal(kinds[i].hold(mine), 0);
                pid_t pid = fixture_fork(a, wait_until_removed, (void *)&kinds[i]);
                fixture_await_waiters(a, "x", 1);
                assert_int_equal(drover_arena_unlink(a, "x"), 0);
                assert_int_equal(fixture_reap(a, pid), 0);
                assert_int_equal(drover_arena_list(a, NULL, 0), 0);
                assert_int_equal(drover_arena_unlink(a, "x"), -ENOENT);
                /* The name is another object's now, which is as it was made. */
                assert_int_equal(kinds[i].open(a, &other), 0);
                assert_true(((struct object *)other.any)->at != ((struct object *)mine.any)->at);
                if (kinds[i].hold)
                        assert_int_equal(kinds[i].hold(other), 0);
                kinds[i].free(mine);
                kinds[i].free(other);
                fixture_free(a);
        }
}

static void wait_for_tokens(drover_arena *a, void *user) {
        drover_mutex *m;
        drover_condition *c;
        bool is_mutex_gone = user;
        CHECK(drover_mutex_open(a, "m", 0, &m) == 0);
        CHECK(drover_condition_open(a, "c", m, &c) == 0);
        CHECK(drover_mutex_lock(m, stuck()) == 0);
        CHECK(drover_condition_wait(c, stuck()) == -EIDRM);
        CHECK(drover_mutex_unlock(m) == (is_mutex_gone ? -EPERM : 0));
        drover_condition_free(c);
        drover_mutex_free(m);
        drover_arena_free(a);
}

static void test_condition(void **state) {
        for (int is_mutex_gone = 0; is_mutex_gone < 2; is_mutex_gone++) {
                drover_arena *a = fixture_arena(1 << 16);
                drover_mutex *m, *again;
                drover_condition *c, *other;
                assert_int_equal(drover_mutex_open(a, "m", 0, &m), 0);
                assert_int_equal(drover_condition_open(a, "c", m, &c), 0);
                pid_t pid = fixture_fork(a, wait_for_tokens, is_mutex_gone ? a : NULL);
                fixture_await_waiters(a, "c", 1);
                if (is_mutex_gone)
                        assert_int_equal(drover_arena_unlink(a, "m"), 0);
                assert_int_equal(drover_arena_unlink(a, "c"), 0);
                assert_int_equal(fixture_reap(a, pid), 0);
                if (!is_mutex_gone) {
                        assert_int_equal(drover_mutex_lock(m, 0), 0);
                        assert_int_equal(drover_condition_notify_all(c), -EIDRM);
                        assert_int_equal(drover_condition_wait(c, stuck()), -EIDRM);
                        assert_int_equal(drover_mutex_unlock(m), 0);
                } else {
                        /* one of the same name is another mutex, also when it stands in the entry of the first */
                        assert_int_equal(drover_condition_open(a, "c", m, &other), 0);
                        drover_condition_free(other);
                        drover_mutex_free(m);
                        drover_condition_free(c);
                        assert_int_equal(drover_mutex_open(a, "m", 0, &m), 0);
                        assert_int_equal(drover_mutex_open(a, "m", 0, &again), 0);
                        assert_int_equal(drover_condition_open(a, "c", again, &c), -EEXIST);
                        assert_int_equal(drover_arena_unlink(a, "c"), 0);
                        assert_int_equal(drover_condition_open(a, "c", again, &c), 0);
                        drover_mutex_free(again);
                }
                drover_condition_free(c);
                drover_mutex_free(m);
                fixture_free(a);
        }
}

/* Who has it goes on, and gives it back. */
static void test_a_holder(void **state) {
        drover_arena *a = fixture_arena(1 << 16);
        drover_mutex *m;
        drover_rwlock *l;
        drover_array *array;
        uint64_t value = 7;
        assert_int_equal(drover_mutex_open(a, "m", DROVER_RECURSIVE, &m), 0);
        assert_int_equal(drover_mutex_lock(m, 0), 0);
        assert_int_equal(drover_mutex_lock(m, 0), 0);
        assert_int_equal(drover_arena_unlink(a, "m"), 0);
        assert_int_equal(drover_mutex_unlock(m), 0);
        assert_int_equal(drover_mutex_unlock(m), 0);
        assert_int_equal(drover_mutex_unlock(m), -EPERM);
        assert_int_equal(drover_mutex_lock(m, stuck()), -EIDRM);
        assert_int_equal(drover_rwlock_open(a, "l", &l), 0);
        assert_int_equal(drover_rwlock_read(l, 0), 0);
        assert_int_equal(drover_arena_unlink(a, "l"), 0);
        assert_int_equal(drover_rwlock_unlock(l), 0);
        assert_int_equal(drover_rwlock_read(l, 0), -EIDRM);
        assert_int_equal(drover_array_open(a, "a", 8, 4, &array), 0);
        assert_int_equal(drover_array_store(array, 0, 7), 0);
        assert_int_equal(drover_arena_unlink(a, "a"), 0);
        assert_int_equal(drover_array_load(array, 0, &value), -EIDRM);
        assert_int_equal(((uint64_t *)drover_array_data(array))[0], 7);
        drover_mutex_free(m);
        drover_rwlock_free(l);
        drover_array_free(array);
        assert_int_equal(drover_arena_unlink(a, ""), -EINVAL);
        assert_int_equal(drover_arena_unlink(a, "01234567890123456789012345678901234567890123456789012345"), -EINVAL);
        fixture_free(a);
}

/* ---- its room ---- */

static drover_arena *make_small(uint32_t n_objects) {
        drover_arena *a;
        assert_int_equal(drover_arena_create_sized("small", 8192, n_objects, 4, &a), 0);
        return a;
}

static void test_room_is_used_again(void **state) {
        drover_arena *a = make_small(2);
        drover_array *first, *second, *more;
        assert_int_equal(drover_array_open(a, "first", 1, 4000, &first), 0);
        memset(drover_array_data(first), 1, 4000);
        assert_int_equal(drover_array_open(a, "second", 1, 4000, &second), 0);
        assert_int_equal(drover_array_open(a, "more", 1, 4000, &more), -ENOSPC);
        assert_non_null(strstr(drover_arena_error(), "objects"));
        assert_non_null(strstr(drover_arena_error(), "there are 2"));
        assert_non_null(strstr(drover_arena_error(), "0 of them removed"));

        assert_int_equal(drover_arena_unlink(a, "first"), 0);
        assert_int_equal(drover_array_open(a, "more", 1, 4000, &more), -ENOSPC); /* it is still open */
        assert_non_null(strstr(drover_arena_error(), "1 of them removed"));
        drover_array_free(first);
        assert_int_equal(drover_array_open(a, "more", 1, 4000, &more), 0);
        for (int i = 0; i < 4000; i++)
                assert_int_equal(((char *)drover_array_data(more))[i], 0);
        assert_int_equal(drover_array_open(a, "first", 0, 0, &first), -ENOENT);

        /* nobody has it open: at once */
        drover_array_free(second);
        assert_int_equal(drover_arena_unlink(a, "second"), 0);
        assert_int_equal(drover_array_open(a, "too large", 1, 5000, &second), -ENOSPC);
        assert_non_null(strstr(drover_arena_error(), "memory"));
        assert_non_null(strstr(drover_arena_error(), "of 8192"));
        assert_int_equal(drover_array_open(a, "second", 1, 4000, &second), 0);
        drover_array_free(second);
        drover_array_free(more);
        assert_int_equal(drover_arena_list(a, NULL, 0), 2);
        drover_arena_free(a);
}

/* Pieces that lie together are one again. */
static void test_pieces(void **state) {
        drover_arena *a;
        drover_array *array;
        char name[16];
        assert_int_equal(drover_arena_create_sized("pieces", 64 * 128, 300, 4, &a), 0);
        for (unsigned round = 0; round < 20; round++) {
                for (unsigned i = 0; i < 64; i++) {
                        snprintf(name, sizeof name, "%u", i);
                        assert_int_equal(drover_array_open(a, name, 1, 64, &array), 0);
                        drover_array_free(array);
                }
                assert_int_equal(drover_array_open(a, "more", 1, 64, &array), -ENOSPC);
                for (unsigned i = 0; i < 64; i++) {
                        snprintf(name, sizeof name, "%u", (i * 37 + round) % 64);
                        assert_int_equal(drover_arena_unlink(a, name), 0);
                }
                assert_int_equal(drover_array_open(a, "large", 1, 64 * 127, &array), 0);
                drover_array_free(array);
                assert_int_equal(drover_arena_unlink(a, "large"), 0);
        }
        drover_arena_free(a);
}

static void have_it_open(drover_arena *a, void *user) {
        drover_array *array;
        CHECK(drover_array_open(a, "x", 1, 4000, &array) == 0);
        CHECK(drover_array_lock(array, 0) == 0);
        atomic_store((_Atomic uint32_t *)user, 1);
        for (;;)
                pause();
}

/* A process that has it open is killed: until it is known for dead the memory is its. */
static void test_a_user_is_killed(void **state) {
        drover_arena *a = make_small(2);
        drover_array *array;
        _Atomic uint32_t *stage = fixture_shared(4096);
        pid_t pid = fixture_fork(a, have_it_open, stage);
        uint64_t deadline = stuck();
        while (atomic_load(stage) == 0) {
                assert_true(event_now_ns() < deadline);
                sched_yield();
        }
        assert_int_equal(drover_arena_unlink(a, "x"), 0);
        assert_int_equal(drover_array_open(a, "y", 1, 5000, &array), -ENOSPC);
        fixture_kill(a, pid);
        assert_int_equal(drover_array_open(a, "y", 1, 5000, &array), 0);
        assert_int_equal(drover_array_lock(array, 0), 0); /* whose death this was is another's business */
        drover_array_free(array);
        fixture_unshare((void *)stage, 4096);
        drover_arena_free(a);
}

/* Handles outlive their arena, and are given back then, too. */
static void test_free_the_arena_first(void **state) {
        drover_arena *a = fixture_arena(4096);
        union handle handles[sizeof kinds / sizeof *kinds];
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
                assert_true(kinds[i].open(a, &handles[i]) == 0 || (handles[i].any = NULL) == NULL);
        drover_arena_free(a);
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
                assert_null(kinds[i].free(handles[i]));
}

/* Lines are told apart by their place in a list, objects by their entry. */
static void test_list(void **state) {
        drover_arena *a = fixture_arena(1 << 16);
        drover_semaphore *s;
        const char *const names[] = {"first", "x", "last"};
        struct drover_object_info infos[4];
        for (int i = 0; i < 3; i++) {
                assert_int_equal(drover_semaphore_open(a, names[i], 0, &s), 0);
                drover_semaphore_free(s);
        }
        pid_t pid = fixture_fork(a, wait_until_removed, (void *)&kinds[2]);
        fixture_await_waiters(a, "x", 1);
        assert_int_equal(drover_arena_unlink(a, "first"), 0);
        assert_int_equal(drover_arena_list(a, infos, 4), 2);
        assert_string_equal(infos[0].name, "x");
        assert_int_equal(infos[0].n_waiters, 1);
        assert_string_equal(infos[1].name, "last");
        assert_int_equal(infos[1].n_waiters, 0);
        assert_int_equal(drover_arena_list(a, infos, 1), 2);
        assert_int_equal(arena_count_objects(a), 2);
        assert_int_equal(drover_arena_unlink(a, "x"), 0);
        assert_int_equal(fixture_reap(a, pid), 0);
        fixture_free(a);
}

/* ---- SIGKILL at each step ---- */

static void unlink_and_die(drover_arena *a, void *user) {
        plan = user;
        drover_arena_unlink(a, "x");
        _exit(1); /* it did not come by */
}

/* Everything can be made that could at first. */
static void check_whole(drover_arena *a) {
        drover_array *array;
        char name[16];
        for (unsigned i = 0; i < 4; i++) {
                snprintf(name, sizeof name, "%u", i);
                int r = drover_array_open(a, name, 1, 1984, &array);
                if (r < 0)
                        print_message("%s\n", drover_arena_error());
                assert_int_equal(r, 0);
                assert_int_equal(drover_array_lock(array, 0), 0);
                assert_int_equal(drover_array_unlock(array), 0);
                drover_array_free(array);
        }
        assert_int_equal(drover_arena_list(a, NULL, 0), 4);
        assert_int_equal(arena_count_objects(a), 4);
        assert_int_equal(drover_array_open(a, "more", 1, 1, &array), -ENOSPC);
}

static void test_killed_at_each_step(void **state) {
        static const char *const points[] = {"lock-taken",        "unlink-removed", "unlink-told", "unlink-left",
                                             "object-taken-back", "unlink-vacant",  "lock-given"};
        for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
                for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
                        bool has_users = strcmp(points[i], "object-taken-back") != 0;
                        drover_arena *a;
                        union handle mine;
                        assert_int_equal(drover_arena_create_sized("small", 8448, 4, 4, &a), 0);
                        assert_int_equal(kinds[k].open(a, &mine), 0);
                        pid_t waiter = 0;
                        if (has_users) {
                                if (kinds[k].hold)
                                        assert_int_equal(kinds[k].hold(mine), 0);
                                waiter = fixture_fork(a, wait_until_removed, (void *)&kinds[k]);
                                fixture_await_waiters(a, "x", 1);
                        } else
                                kinds[k].free(mine);
                        assert_int_equal(fixture_reap(a, fixture_fork(a, unlink_and_die, (void *)points[i])), -SIGKILL);
                        if (i == 0)
                                assert_int_equal(drover_arena_unlink(a, "x"), 0);
                        if (has_users) {
                                assert_int_equal(fixture_reap(a, waiter), 0);
                                kinds[k].free(mine);
                        }
                        assert_int_equal(drover_arena_unlink(a, "x"), -ENOENT);
                        check_whole(a);
                        drover_arena_free(a);
                }
        }
}

static void repair_and_die(drover_arena *a, void *user) {
        pid_t dead = *(pid_t *)user;
        plan = "repair-removals";
        drover_arena_repair_pid(a, dead);
        _exit(1);
}

/* Who repairs dies, too, before it has told anybody; the next goes on with both. */
static void test_the_repairer_is_killed(void **state) {
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
                drover_arena *a;
                union handle mine;
                int status;
                assert_int_equal(drover_arena_create_sized("small", 8448, 4, 5, &a), 0);
                assert_int_equal(kinds[k].open(a, &mine), 0);
                if (kinds[k].hold)
                        assert_int_equal(kinds[k].hold(mine), 0);
                pid_t waiter = fixture_fork(a, wait_until_removed, (void *)&kinds[k]);
                fixture_await_waiters(a, "x", 1);
                pid_t first = fixture_fork(a, unlink_and_die, "unlink-removed");
                assert_int_equal(waitpid(first, &status, 0), first);
                pid_t second = fixture_fork(a, repair_and_die, &first);
                assert_int_equal(fixture_reap(a, second), -SIGKILL);
                drover_arena_repair_pid(a, first);
                assert_int_equal(fixture_reap(a, waiter), 0);
                kinds[k].free(mine);
                check_whole(a);
                drover_arena_free(a);
        }
}

/* ---- many at once ---- */

struct churn {
        const char *dies_at; /* NULL: nobody dies */
        _Atomic uint32_t *n_done;
};

/* All words of an object are one number, whoever wrote it: memory that is two objects' would be told by that. */
static int churn_one(drover_arena *a, unsigned random) {
        char name[16];
        drover_array *array;
        uint32_t n = CHURN_WORDS << (random % 3);
        snprintf(name, sizeof name, "array %u", random % 3);
        int r = drover_array_open(a, name, 8, n, &array);
        if (r == -ENOSPC)
                return 0;
        CHECK(r == 0);
        r = drover_array_lock(array, stuck());
        if (r == -EOWNERDEAD) {
                memset(drover_array_data(array), 0, n * 8);
                CHECK(drover_array_consistent(array) == 0);
                r = 0;
        }
        CHECK(r == 0 || r == -EIDRM);
        if (r == 0) {
                uint64_t *words = drover_array_data(array);
                for (uint32_t i = 1; i < n; i++)
                        CHECK(words[i] == words[0]);
                for (uint32_t i = 0; i < n; i++)
                        words[i] = random;
                KILL_POINT("churned");
                CHECK(drover_array_unlock(array) == 0);
        }
        drover_array_free(array);
        return r;
}

static void churn(drover_arena *a, void *user) {
        struct churn *c = user;
        unsigned seed = atomic_fetch_add(c->n_done, 1);
        uint32_t rounds = CHURN_ROUNDS / SLOWER;
        for (uint32_t i = 0; i < rounds; i++) {
                unsigned random = (unsigned)rand_r(&seed);
                if (c->dies_at && i == rounds / 2 + random % 8)
                        plan = c->dies_at;
                if (random % 4 != 0) {
                        churn_one(a, random >> 4);
                        continue;
                }
                char name[16];
                snprintf(name, sizeof name, "array %u", (random >> 4) % 3);
                int r = drover_arena_unlink(a, name);
                CHECK(r == 0 || r == -ENOENT);
        }
}

static void test_many_at_once(void **state) {
        for (int processes = 0; processes < 2; processes++) {
                drover_arena *a;
                struct churn c = {.n_done = fixture_shared(4096)};
                assert_int_equal(drover_arena_create_sized("churn", 8192, 8, 64, &a), 0);
                fixture_run(a, &(struct fixture_crew){churn, &c, CHURNERS, processes});
                for (int i = 0; i < 3; i++)
                        drover_arena_unlink(a, (const char *[]){"array 0", "array 1", "array 2"}[i]);
                assert_int_equal(drover_arena_list(a, NULL, 0), 0);
                check_whole(a);
                drover_arena_free(a);
                fixture_unshare((void *)c.n_done, 4096);
        }
}

static void test_many_at_once_and_deaths(void **state) {
        static const char *const points[] = {"churned",     "object-zeroed", "object-filled",
                                             "object-made", "room-found",    "unlink-removed",
                                             "unlink-told", "unlink-left",   "object-taken-back"};
        for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
                drover_arena *a;
                struct churn dying = {points[i], fixture_shared(4096)}, c = {NULL, dying.n_done};
                pid_t pids[CHURNERS];
                assert_int_equal(drover_arena_create_sized("churn", 8448, 4, 64, &a), 0);
                for (int k = 0; k < CHURNERS; k++)
                        pids[k] = fixture_fork(a, churn, k < 2 ? &dying : &c);
                for (int k = 0; k < CHURNERS; k++) {
                        int status;
                        pid_t pid = waitpid(-1, &status, 0);
                        assert_true(pid > 0);
                        drover_arena_repair_pid(a, pid);
                        for (int m = 0; m < CHURNERS; m++)
                                if (pids[m] == pid)
                                        assert_true(m < 2 ? WIFSIGNALED(status) || WEXITSTATUS(status) == 0
                                                          : WIFEXITED(status) && WEXITSTATUS(status) == 0);
                }
                for (int k = 0; k < 3; k++)
                        drover_arena_unlink(a, (const char *[]){"array 0", "array 1", "array 2"}[k]);
                assert_int_equal(drover_arena_list(a, NULL, 0), 0);
                check_whole(a);
                drover_arena_free(a);
                fixture_unshare((void *)dying.n_done, 4096);
        }
}

/* ---- more than 256 processes ---- */

static void test_many_processes(void **state) {
        enum { N = 600 };
        drover_arena *a, *more[N], *last;
        drover_rwlock *first, *far;
        drover_barrier *b;
        assert_int_equal(drover_arena_create_sized("many", 1 << 20, 16, 0, &a), -EINVAL);
        assert_int_equal(drover_arena_create_sized("many", 1 << 20, 16, ARENA_MAX_PARTICIPANTS + 1, &a), -EINVAL);
        assert_int_equal(drover_arena_create_sized("many", 1 << 20, 16, N, &a), 0);
        for (int i = 1; i < N; i++)
                assert_int_equal(drover_arena_attach(drover_arena_fd(a), &more[i]), 0);
        assert_int_equal(drover_arena_attach(drover_arena_fd(a), &last), -EUSERS);
        assert_non_null(strstr(drover_arena_error(), "processes: 600"));
        assert_int_equal(drover_rwlock_open(a, "l", &first), 0);
        assert_int_equal(drover_rwlock_open(more[N - 1], "l", &far), 0);
        assert_int_equal(drover_barrier_open(more[N - 1], "b", 2, &b), 0);
        assert_int_equal(drover_rwlock_read(far, 0), 0);
        assert_int_equal(drover_rwlock_write(first, 0), -EAGAIN);
        assert_int_equal(drover_arena_unlink(a, "l"), 0);
        assert_int_equal(drover_rwlock_write(first, 0), -EIDRM);
        drover_rwlock_free(far);
        drover_rwlock_free(first);
        drover_barrier_free(b);
        for (int i = 1; i < N; i++)
                drover_arena_free(more[i]);
        drover_arena_free(a);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_waiters_are_told),
                cmocka_unit_test(test_condition),
                cmocka_unit_test(test_a_holder),
                cmocka_unit_test(test_room_is_used_again),
                cmocka_unit_test(test_pieces),
                cmocka_unit_test(test_a_user_is_killed),
                cmocka_unit_test(test_free_the_arena_first),
                cmocka_unit_test(test_list),
                cmocka_unit_test(test_killed_at_each_step),
                cmocka_unit_test(test_the_repairer_is_killed),
                cmocka_unit_test(test_many_at_once),
                cmocka_unit_test(test_many_at_once_and_deaths),
                cmocka_unit_test(test_many_processes),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
