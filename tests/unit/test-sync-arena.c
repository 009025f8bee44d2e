/* Arenas: their sizes, creation by many at once, deadlines of every wait; values and arrays (FEATURES 27, 68). */
#include "tests/unit/sync-fixture.h"

#include <fcntl.h>

#include "ipc/memory/segment.h"
#include "ipc/sync/arena/arena.h"

static void test_attach(void **state) {
        drover_arena *a, *b;
        assert_int_equal(drover_arena_create("test", 0, &a), -EINVAL);
        assert_int_equal(drover_arena_create("test", UINT64_MAX, &a), -EINVAL);
        assert_int_equal(drover_arena_create("test", 1, &a), 0);
        assert_int_equal(drover_arena_attach(drover_arena_fd(a), &b), 0);
        assert_int_not_equal(drover_arena_participant(a), drover_arena_participant(b));
        uint32_t second = drover_arena_participant(b);
        drover_arena_free(b);
        assert_int_equal(drover_arena_repair(a, second), -EINVAL); /* gone already */
        assert_int_equal(drover_arena_repair(a, 1000000), -EINVAL);
        assert_int_equal(drover_arena_attach(drover_arena_fd(a), &b), 0);
        assert_int_equal(drover_arena_participant(b), second);
        drover_arena_free(b);

        int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        assert_int_equal(drover_arena_attach(fd, &b), -EPROTO);
        close(fd);
        assert_int_equal(segment_create("no arena", arena_first_object(1, 1) + 4096, &fd), 0);
        assert_int_equal(drover_arena_attach(fd, &b), -EPROTO);
        close(fd);
        assert_int_equal(segment_create("short", 4096, &fd), 0);
        assert_int_equal(drover_arena_attach(fd, &b), -EPROTO);
        close(fd);
        drover_arena_free(a);
        assert_null(drover_arena_free(NULL));
}

static void test_too_many(void **state) {
        drover_arena *a = fixture_arena(4096), *more[ARENA_DEFAULT_PARTICIPANTS], *last;
        for (int i = 1; i < ARENA_DEFAULT_PARTICIPANTS; i++)
                assert_int_equal(drover_arena_attach(drover_arena_fd(a), &more[i]), 0);
        assert_int_equal(drover_arena_attach(drover_arena_fd(a), &last), -EUSERS);
        for (int i = 1; i < ARENA_DEFAULT_PARTICIPANTS; i++)
                drover_arena_free(more[i]);
        drover_event *e;
        int r = 0, n = 0;
        for (; r == 0; n++) {
                char name[16];
                snprintf(name, sizeof name, "e%d", n);
                r = drover_event_open(a, name, &e);
                if (r == 0)
                        drover_event_free(e);
        }
        assert_int_equal(r, -ENOSPC);
        assert_int_equal(drover_arena_list(a, NULL, 0), n - 1);
        assert_int_equal(drover_event_open(a, "0123456789012345678901234567890123456789012345678901234", &e), -ENOSPC);
        assert_int_equal(drover_event_open(a, "01234567890123456789012345678901234567890123456789012345", &e), -EINVAL);
        fixture_free(a);
}

/* As many objects as it was made with, found by name, listed, and waited for by number. */
static void test_sized(void **state) {
        enum { N = 3000 };
        drover_arena *a, *b;
        drover_semaphore *s;
        char name[16];
        static struct drover_object_info infos[N];
        assert_int_equal(drover_arena_create_sized("test", 1 << 20, 0, 1, &a), -EINVAL);
        assert_int_equal(drover_arena_create_sized("test", 1 << 20, (1 << 16) + 1, 1, &a), -EINVAL);
        assert_int_equal(drover_arena_create_sized("test", 1 << 20, N, 256, &a), 0);
        for (uint32_t i = 0; i < N; i++) {
                snprintf(name, sizeof name, "s%u", i);
                assert_int_equal(drover_semaphore_open(a, name, i + 1, &s), 0);
                drover_semaphore_free(s);
        }
        assert_int_equal(drover_semaphore_open(a, "more", 1, &s), -ENOSPC);
        assert_int_equal(drover_arena_attach(drover_arena_fd(a), &b), 0);
        assert_int_equal(drover_arena_list(b, infos, N), N);
        assert_string_equal(infos[N - 1].name, "s2999");
        for (uint32_t i = 0; i < N; i += 7) {
                snprintf(name, sizeof name, "s%u", i);
                assert_int_equal(drover_semaphore_open(b, name, 0, &s), 0);
                assert_int_equal(drover_semaphore_value(s), i + 1);
                drover_semaphore_free(s);
        }
        drover_arena_free(b);
        drover_arena_free(a);
        assert_int_equal(drover_arena_create_sized("test", 1 << 20, 1, 256, &a), 0);
        assert_int_equal(drover_semaphore_open(a, "one", 1, &s), 0);
        drover_semaphore_free(s);
        assert_int_equal(drover_semaphore_open(a, "two", 1, &s), -ENOSPC);
        drover_arena_free(a);
}

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

static void open_the_same(drover_arena *a, void *user) {
        for (int i = 0; i < 50; i++) {
                char name[16];
                drover_semaphore *s;
                snprintf(name, sizeof name, "s%d", i);
                CHECK(drover_semaphore_open(a, name, 10, &s) == 0);
                CHECK(drover_semaphore_wait(s, 0) == 0); /* ten of us: enough if it was made once */
                drover_semaphore_free(s);
        }
}

static void test_made_once(void **state) {
        for (int processes = 0; processes < 2; processes++) {
                drover_arena *a = fixture_arena(1 << 16);
                fixture_run(a, &(struct fixture_crew){open_the_same, NULL, 10, processes});
                assert_int_equal(drover_arena_list(a, NULL, 0), 50);
                for (int i = 0; i < 50; i++) {
                        char name[16];
                        drover_semaphore *s;
                        snprintf(name, sizeof name, "s%d", i);
                        assert_int_equal(drover_semaphore_open(a, name, 10, &s), 0);
                        assert_int_equal(drover_semaphore_value(s), 0);
                        drover_semaphore_free(s);
                }
                fixture_free(a);
        }
}

static void test_deadlines(void **state) {
        assert_true(drover_deadline_in(DROVER_FOREVER) == DROVER_FOREVER);
        assert_true(drover_deadline_in(UINT64_MAX - 1) == DROVER_FOREVER);
        assert_true(drover_deadline_in(0) > 0);
}

struct patience {
        drover_semaphore *semaphore;
        drover_event *event;
        drover_queue *queue;
        drover_rwlock *rwlock;
        drover_permits *permits;
};

static int wait_semaphore(struct patience *p, uint64_t deadline) {
        return drover_semaphore_wait(p->semaphore, deadline);
}
static int wait_event(struct patience *p, uint64_t deadline) { return drover_event_wait(p->event, deadline); }
static int wait_queue(struct patience *p, uint64_t deadline) {
        size_t bytes;
        char item[8];
        return drover_queue_get(p->queue, item, sizeof item, &bytes, deadline);
}
static int wait_join(struct patience *p, uint64_t deadline) { return drover_queue_join(p->queue, deadline); }
static int wait_rwlock(struct patience *p, uint64_t deadline) { return drover_rwlock_read(p->rwlock, deadline); }
static int wait_permits(struct patience *p, uint64_t deadline) { return drover_permits_acquire(p->permits, deadline); }

static void end_semaphore(struct patience *p) { drover_semaphore_post(p->semaphore, 1); }
static void end_event(struct patience *p) { drover_event_set(p->event); }
static void end_queue(struct patience *p) { drover_queue_put(p->queue, "x", 1, 0); }
static void end_join(struct patience *p) { drover_queue_task_done(p->queue); } /* of what wait_queue got */
static void end_rwlock(struct patience *p) { drover_rwlock_unlock(p->rwlock); }
static void end_permits(struct patience *p) { drover_permits_release(p->permits); }

struct waiter {
        struct patience *patience;
        int (*wait)(struct patience *p, uint64_t deadline);
        int result;
};

static void *wait_long(void *user) {
        struct waiter *w = user;
        w->result = w->wait(w->patience, UINT64_MAX - 1);
        return NULL;
}

/* FEATURES 68: 0, the past, UINT64_MAX - 1, which sleeps and is no overflow. */
static void test_deadlines_of_every_wait(void **state) {
        static const struct {
                const char *name;
                int (*wait)(struct patience *p, uint64_t deadline);
                void (*end)(struct patience *p);
        } waits[] = {
                {"semaphore", wait_semaphore, end_semaphore},
                {"event", wait_event, end_event},
                {"queue", wait_queue, end_queue},
                {"queue", wait_join, end_join},
                {"rwlock", wait_rwlock, end_rwlock},
                {"permits", wait_permits, end_permits},
        };
        drover_arena *a = fixture_arena(1 << 16);
        struct patience p;
        assert_int_equal(drover_semaphore_open(a, "semaphore", 0, &p.semaphore), 0);
        OWN(semaphore, p.semaphore);
        assert_int_equal(drover_event_open(a, "event", &p.event), 0);
        OWN(event, p.event);
        assert_int_equal(drover_queue_open(a, "queue", 2, 8, DROVER_QUEUE_FIFO, &p.queue), 0);
        OWN(queue, p.queue);
        assert_int_equal(drover_rwlock_open(a, "rwlock", &p.rwlock), 0);
        OWN(rwlock, p.rwlock);
        assert_int_equal(drover_rwlock_write(p.rwlock, 0), 0);
        assert_int_equal(drover_permits_open(a, "permits", 1, &p.permits), 0);
        OWN(permits, p.permits);
        assert_int_equal(drover_permits_acquire(p.permits, 0), 0);
        for (unsigned i = 0; i < sizeof waits / sizeof *waits; i++) {
                struct waiter w = {.patience = &p, .wait = waits[i].wait, .result = 1};
                pthread_t id;
                assert_int_equal(w.wait(&p, 0), -EAGAIN);
                assert_int_equal(w.wait(&p, 1), -ETIMEDOUT);
                assert_int_equal(w.wait(&p, event_now_ns() - 1), -ETIMEDOUT);
                assert_int_equal(pthread_create(&id, NULL, wait_long, &w), 0);
                fixture_await_waiters(a, waits[i].name, 1);
                waits[i].end(&p);
                pthread_join(id, NULL);
                assert_int_equal(w.result, 0);
        }
        fixture_free(a);
}

static void fill(drover_arena *a, void *user) {
        drover_array *number, *numbers;
        CHECK(drover_array_open(a, "number", sizeof(double), 1, &number) == 0);
        OWN(array, number);
        CHECK(drover_array_open(a, "numbers", sizeof(int32_t), 10, &numbers) == 0);
        OWN(array, numbers);
        CHECK(drover_array_lock(number, stuck()) == 0);
        *(double *)drover_array_data(number) = 3.1415927;
        CHECK(drover_array_unlock(number) == 0);
        int32_t *n = drover_array_data(numbers);
        for (int i = 0; i < 10; i++)
                n[i] = -i;
}

static void count(drover_arena *a, void *user) {
        drover_array *counters;
        CHECK(drover_array_open(a, "counters", 8, 2, &counters) == 0);
        for (int i = 0; i < 1000; i++) {
                uint64_t seen;
                CHECK(drover_array_add(counters, 0, 1, NULL) == 0);
                CHECK(drover_array_load(counters, 1, &seen) == 0);
                while (drover_array_compare_exchange(counters, 1, &seen, seen + 2) == 0)
                        ;
        }
        drover_array_free(counters);
}

static void test_value_and_array(void **state) {
        drover_arena *a = fixture_arena(1 << 16);
        drover_array *number, *numbers, *counters;
        assert_int_equal(fixture_reap(a, fixture_fork(a, fill, NULL)), 0);
        assert_int_equal(drover_array_open(a, "number", 0, 0, &number), 0);
        OWN(array, number);
        assert_true(*(double *)drover_array_data(number) == 3.1415927);
        assert_int_equal(drover_array_open(a, "numbers", sizeof(int32_t), 10, &numbers), 0);
        OWN(array, numbers);
        assert_int_equal(drover_array_length(numbers), 10);
        for (int i = 0; i < 10; i++)
                assert_int_equal(((int32_t *)drover_array_data(numbers))[i], -i);
        uint64_t value;
        assert_int_equal(drover_array_load(numbers, 0, &value), -EINVAL);
        assert_int_equal(drover_array_open(a, "counters", 8, 2, &counters), 0);
        OWN(array, counters);
        for (int processes = 0; processes < 2; processes++)
                fixture_run(a, &(struct fixture_crew){count, NULL, 4, processes});
        assert_int_equal(drover_array_load(counters, 0, &value), 0);
        assert_int_equal(value, 8000);
        assert_int_equal(drover_array_load(counters, 1, &value), 0);
        assert_int_equal(value, 16000);
        assert_int_equal(drover_array_store(counters, 2, 0), -ERANGE);
        assert_int_equal(drover_array_store(counters, 1, 7), 0);
        assert_int_equal(drover_array_unlock(counters), -EPERM);
        assert_int_equal(drover_array_lock(counters, 0), 0);
        assert_int_equal(drover_array_lock(counters, 0), 0); /* recursive, as Python's */
        fixture_free(a);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_attach),
                cmocka_unit_test(test_too_many),
                cmocka_unit_test(test_sized),
                cmocka_unit_test(test_many_processes),
                cmocka_unit_test(test_made_once),
                cmocka_unit_test(test_deadlines),
                cmocka_unit_test(test_deadlines_of_every_wait),
                cmocka_unit_test(test_value_and_array),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
