/* Arenas and what only holds data: arrays, dictionaries; pipes; creation by many at once; a peer that writes anywhere
 * (FEATURES 22, 27, 28, 68). */
#include "tests/unit/sync-fixture.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>

#include "ipc/segment.h"
#include "ipc/sync/arena.h"

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

/* ---- values and arrays ---- */

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

/* ---- dictionaries ---- */

static void update(drover_arena *a, void *user) {
        drover_dictionary *d;
        CHECK(drover_dictionary_open(a, "d", 16, 8, 8, &d) == 0);
        for (int i = 0; i < 500; i++) {
                char key[8];
                uint64_t value = 0;
                size_t bytes;
                int n = snprintf(key, sizeof key, "k%d", i % 10);
                CHECK(drover_dictionary_lock(d, stuck()) == 0);
                int r = drover_dictionary_get(d, key, (size_t)n, &value, sizeof value, &bytes, stuck());
                CHECK(r == 0 || r == -ENOENT);
                value++;
                CHECK(drover_dictionary_put(d, key, (size_t)n, &value, sizeof value, stuck()) == 0);
                CHECK(drover_dictionary_unlock(d) == 0);
        }
        drover_dictionary_free(d);
}

static void test_three_processes_update_one_dictionary(void **state) {
        drover_arena *a = fixture_arena(1 << 16);
        drover_dictionary *d;
        assert_int_equal(drover_dictionary_open(a, "d", 16, 8, 8, &d), 0);
        OWN(dictionary, d);
        for (int processes = 0; processes < 2; processes++)
                fixture_run(a, &(struct fixture_crew){update, NULL, 3, processes});
        assert_int_equal(drover_dictionary_count(d, 0), 10);
        uint32_t position = 0, n = 0;
        char key[8];
        size_t bytes;
        while (drover_dictionary_next(d, &position, key, sizeof key, &bytes, 0) == 1) {
                uint64_t value;
                size_t value_bytes;
                assert_int_equal(drover_dictionary_get(d, key, bytes, &value, sizeof value, &value_bytes, 0), 0);
                assert_int_equal(value, 300);
                n++;
        }
        assert_int_equal(n, 10);
        fixture_free(a);
}

static void test_dictionary_edges(void **state) {
        drover_arena *a = fixture_arena(1 << 16);
        drover_dictionary *d;
        char buffer[8];
        size_t bytes;
        assert_int_equal(drover_dictionary_open(a, "d", 4, 4, 8, &d), 0);
        OWN(dictionary, d);
        assert_int_equal(drover_dictionary_put(d, "", 0, "x", 1, 0), -EINVAL);
        assert_int_equal(drover_dictionary_put(d, "toolong", 7, "x", 1, 0), -EMSGSIZE);
        assert_int_equal(drover_dictionary_get(d, "toolong", 7, buffer, 8, &bytes, 0), -ENOENT);
        for (int round = 0; round < 100; round++) {
                for (char c = 'a'; c < 'e'; c++) {
                        char key[2] = {c, (char)('0' + round % 10)};
                        assert_int_equal(drover_dictionary_put(d, key, 2, key, 2, 0), 0);
                }
                assert_int_equal(drover_dictionary_put(d, "z", 1, "x", 1, 0), -ENOSPC);
                for (char c = 'a'; c < 'e'; c++) {
                        char key[2] = {c, (char)('0' + round % 10)};
                        assert_int_equal(drover_dictionary_get(d, key, 2, buffer, 1, &bytes, 0), -EMSGSIZE);
                        assert_int_equal(bytes, 2);
                        assert_int_equal(drover_dictionary_get(d, key, 2, buffer, 8, &bytes, 0), 0);
                        assert_memory_equal(buffer, key, 2);
                        assert_int_equal(drover_dictionary_remove(d, key, 2, 0), 0);
                        assert_int_equal(drover_dictionary_remove(d, key, 2, 0), -ENOENT);
                }
                assert_int_equal(drover_dictionary_count(d, 0), 0);
        }
        assert_int_equal(drover_dictionary_consistent(d), -EINVAL);
        fixture_free(a);
}

static void test_dictionary_with_an_impossible_count(void **state) {
        drover_arena *a = fixture_arena(1 << 16);
        drover_dictionary *d;
        assert_int_equal(drover_dictionary_open(a, "d", 4, 4, 8, &d), 0);
        OWN(dictionary, d);
        struct layout_dictionary *words = ((struct object *)d)->at; /* it comes first */
        assert_int_equal(drover_dictionary_put(d, "a", 1, "x", 1, 0), 0);
        atomic_store(&words->n_used, 0);
        assert_int_equal(drover_dictionary_remove(d, "a", 1, 0), 0);
        assert_int_equal(drover_dictionary_count(d, 0), 0);
        atomic_store(&words->n_used, UINT32_MAX);
        assert_int_equal(drover_dictionary_count(d, 0), 4);
        assert_int_equal(drover_dictionary_put(d, "a", 1, "x", 1, 0), -ENOSPC);
        fixture_free(a);
}

static void die_updating(drover_arena *a, void *user) {
        drover_dictionary *d;
        CHECK(drover_dictionary_open(a, "d", 4, 4, 8, &d) == 0);
        OWN(dictionary, d);
        CHECK(drover_dictionary_lock(d, stuck()) == 0);
        CHECK(drover_dictionary_put(d, "a", 1, "new", 3, stuck()) == 0);
        kill(getpid(), SIGKILL); /* "b" was to follow */
}

static void test_dictionary_owner_dies(void **state) {
        drover_arena *a = fixture_arena(1 << 16);
        drover_dictionary *d;
        char buffer[8];
        size_t bytes;
        assert_int_equal(drover_dictionary_open(a, "d", 4, 4, 8, &d), 0);
        OWN(dictionary, d);
        assert_int_equal(drover_dictionary_put(d, "a", 1, "old", 3, 0), 0);
        assert_int_equal(fixture_reap(a, fixture_fork(a, die_updating, NULL)), -SIGKILL);
        assert_int_equal(drover_dictionary_get(d, "a", 1, buffer, 8, &bytes, stuck()), -EOWNERDEAD);
        assert_int_equal(drover_dictionary_get(d, "a", 1, buffer, 8, &bytes, stuck()), -EOWNERDEAD);
        assert_int_equal(drover_dictionary_consistent(d), 0);
        assert_int_equal(drover_dictionary_get(d, "a", 1, buffer, 8, &bytes, stuck()), 0);
        assert_memory_equal(buffer, "new", 3);
        fixture_free(a);
}

/* ---- pipes ---- */

static void test_pipe(void **state) {
        drover_pipe *a, *b, *none;
        char buffer[64];
        size_t bytes;
        int fd, passed;
        unsigned n = 1;
        assert_int_equal(drover_pipe_new(&a, &b), 0);
        assert_int_equal(drover_pipe_receive(b, buffer, sizeof buffer, &bytes, NULL, NULL, 0), -EAGAIN);
        assert_int_equal(drover_pipe_receive(b, buffer, sizeof buffer, &bytes, NULL, NULL, in_ms(5)), -ETIMEDOUT);
        assert_int_equal(segment_create("passed", 4096, &fd), 0);
        assert_int_equal(drover_pipe_send(a, "hello", 5, NULL, 0, 0), 0);
        assert_int_equal(drover_pipe_send(a, "memfd", 5, &fd, 1, 0), 0);
        assert_int_equal(drover_pipe_receive(b, buffer, sizeof buffer, &bytes, NULL, NULL, stuck()), 0);
        assert_int_equal(bytes, 5); /* boundaries are kept */
        assert_memory_equal(buffer, "hello", 5);
        assert_int_equal(drover_pipe_receive(b, buffer, sizeof buffer, &bytes, &passed, &n, stuck()), 0);
        assert_int_equal(n, 1);
        assert_int_equal(segment_check(passed, 4096), 0);
        close(passed);
        assert_int_equal(drover_pipe_send(b, "x", 1, NULL, 0, 0), 0); /* duplex */
        int r = 0;
        while (r == 0)
                r = drover_pipe_send(a, buffer, sizeof buffer, NULL, 0, 0);
        assert_int_equal(r, -EAGAIN);
        drover_pipe_free(a);
        while ((r = drover_pipe_receive(b, buffer, sizeof buffer, &bytes, NULL, NULL, stuck())) == 0)
                ;
        assert_int_equal(r, -EPIPE);
        assert_int_equal(drover_pipe_send(b, "x", 1, NULL, 0, 0), -EPIPE);
        drover_pipe_free(b);
        assert_int_equal(drover_pipe_new_from_fd(fd, &none), -ENOTSOCK);
}

struct pipe_side {
        drover_pipe *mine, *other;
        _Atomic uint32_t *stage;
};

/* Has its end, and does nothing with it. */
static void hold_pipe(drover_arena *a, void *user) {
        struct pipe_side *side = user;
        drover_pipe_free(side->other);
        atomic_store(side->stage, 1);
        for (;;)
                pause();
}

struct pipe_waiter {
        drover_pipe *pipe;
        bool is_sender;
        _Atomic int result;
        _Atomic uint32_t tid;
        uint64_t told_ns;
};

static void *wait_for_end(void *user) {
        struct pipe_waiter *w = user;
        char buffer[64] = {0};
        size_t bytes;
        int r = 0;
        while (w->is_sender && r == 0)
                r = drover_pipe_send(w->pipe, buffer, sizeof buffer, NULL, 0, 0);
        atomic_store(&w->tid, (uint32_t)gettid());
        r = w->is_sender ? drover_pipe_send(w->pipe, buffer, sizeof buffer, NULL, 0, stuck())
                         : drover_pipe_receive(w->pipe, buffer, sizeof buffer, &bytes, NULL, NULL, stuck());
        w->told_ns = event_now_ns();
        atomic_store(&w->result, r);
        return NULL;
}

/* Asleep in the kernel: its last step before the pipe's was to say its tid. */
static void await_sleep(const struct pipe_waiter *w) {
        uint64_t deadline = stuck();
        char path[64], line[256] = "";
        while (!strstr(line, ") S")) {
                assert_true(event_now_ns() < deadline);
                sched_yield();
                uint32_t tid = atomic_load(&w->tid);
                snprintf(path, sizeof path, "/proc/self/task/%u/stat", tid);
                FILE *f = tid ? fopen(path, "re") : NULL;
                if (f && !fgets(line, sizeof line, f))
                        line[0] = 0;
                if (f)
                        fclose(f);
        }
}

/* FEATURES 22: one side is killed while the other waits for room, or for a message. */
static void test_pipe_kill_one_side(void **state) {
        drover_arena *arena = fixture_arena(4096);
        _Atomic uint32_t *stage = fixture_shared(4096);
        for (int is_sender = 0; is_sender < 2; is_sender++) {
                struct pipe_side side = {.stage = stage};
                struct pipe_waiter waiter = {.is_sender = is_sender, .result = 1};
                pthread_t id;
                atomic_store(stage, 0);
                assert_int_equal(drover_pipe_new(&side.mine, &side.other), 0);
                pid_t pid = fixture_fork(arena, hold_pipe, &side);
                drover_pipe_free(side.mine);
                waiter.pipe = side.other;
                uint64_t deadline = stuck();
                while (atomic_load(stage) == 0)
                        assert_true(event_now_ns() < deadline);
                assert_int_equal(pthread_create(&id, NULL, wait_for_end, &waiter), 0);
                await_sleep(&waiter);
                assert_int_equal(atomic_load(&waiter.result), 1);
                uint64_t killed = event_now_ns();
                fixture_kill(arena, pid);
                pthread_join(id, NULL);
                assert_int_equal(atomic_load(&waiter.result), -EPIPE);
                assert_in_range(waiter.told_ns - killed, 0, 500 * MS);
                drover_pipe_free(side.other);
        }
        fixture_unshare(stage, 4096);
        fixture_free(arena);
}

/* ---- a hostile peer ---- */

static void scribble(drover_arena *a, void *user) {
        struct stat st;
        CHECK(fstat(drover_arena_fd(a), &st) == 0);
        uint64_t *words = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, drover_arena_fd(a), 0);
        CHECK(words != MAP_FAILED);
        unsigned seed = 7;
        for (uint64_t i = 0;; i++) {
                uint64_t at = ((uint64_t)rand_r(&seed) << 16 ^ (uint64_t)rand_r(&seed)) % ((uint64_t)st.st_size / 8);
                uint64_t value = (uint64_t)rand_r(&seed) << 32 | (uint64_t)rand_r(&seed);
                if (at < 8)
                        continue; /* or nobody could attach */
                __atomic_store_n(&words[at], i % 3 == 0 ? 0 : i % 3 == 1 ? value : value & 0xffffff, __ATOMIC_RELAXED);
                atomic_fetch_add((_Atomic uint64_t *)user, 1);
        }
}

/* Nobody who shares memory with such a peer gets sense out of it, but nobody crashes, and what looks and repairs never
 * blocks. */
static void test_hostile_peer(void **state) {
        drover_arena *a = fixture_arena(1 << 16);
        _Atomic uint64_t *n_writes = fixture_shared(4096);
        drover_queue *q;
        drover_dictionary *d;
        drover_barrier *b;
        drover_mutex *m;
        assert_int_equal(drover_queue_open(a, "q", 8, 16, DROVER_QUEUE_FIFO, &q), 0);
        OWN(queue, q);
        assert_int_equal(drover_dictionary_open(a, "d", 8, 8, 8, &d), 0);
        OWN(dictionary, d);
        assert_int_equal(drover_barrier_open(a, "b", 3, &b), 0);
        OWN(barrier, b);
        assert_int_equal(drover_mutex_open(a, "m", 0, &m), 0);
        OWN(mutex, m);
        pid_t pid = fixture_fork(a, scribble, n_writes);
        uint64_t end = in_ms(300);
        for (unsigned i = 0; event_now_ns() < end || atomic_load(n_writes) < 100000; i++) {
                struct drover_object_info infos[8];
                struct drover_wait_info waits[8];
                char buffer[16];
                size_t bytes;
                drover_arena_list(a, infos, 8);
                drover_arena_list_waits(a, waits, 8);
                drover_arena_find_cycle(a, waits, 8);
                drover_arena_repair(a, 1 + i % 255);
                drover_queue_put(q, buffer, sizeof buffer, 0);
                drover_queue_get(q, buffer, sizeof buffer, &bytes, 0);
                drover_queue_task_done(q);
                drover_queue_size(q);
                drover_dictionary_put(d, "key", 3, "value", 5, 0);
                drover_dictionary_get(d, "key", 3, buffer, 8, &bytes, 0);
                drover_dictionary_remove(d, "key", 3, 0);
                drover_barrier_wait(b, 0);
                drover_barrier_reset(b);
                if (drover_mutex_lock(m, 0) == 0)
                        drover_mutex_unlock(m);
        }
        kill(pid, SIGKILL);
        fixture_reap(a, pid);
        fixture_unshare((void *)n_writes, 4096);
        fixture_free(a);
}

static void lock_and_die(drover_arena *a, void *user) {
        drover_mutex *m;
        CHECK(drover_mutex_open(a, "first", 0, &m) == 0);
        CHECK(drover_mutex_lock(m, 0) == 0);
        kill(getpid(), SIGKILL);
}

/* Entries that all name one queue: the repair of a dead peer does no more than if they lay beside each other. What it
 * does not get to ends, rather than to keep somebody waiting. */
static void test_entries_that_name_the_same_memory(void **state) {
        enum { OBJECTS = ARENA_MAX_OBJECTS };
        drover_arena *a;
        drover_mutex *m;
        drover_event *e;
        struct timespec began, ended;
        assert_int_equal(drover_arena_create_sized("same", 11 << 20, OBJECTS, 8, &a), 0);
        assert_int_equal(drover_mutex_open(a, "first", 0, &m), 0);
        OWN(mutex, m);
        for (uint32_t i = 1; i < OBJECTS - 1; i++) {
                a->objects[i].offset = a->first + LAYOUT_PAGE;
                a->objects[i].parameters[0] = ARENA_MAX_CELLS / 2;
                a->objects[i].parameters[1] = 1;
                a->objects[i].parameters[2] = DROVER_QUEUE_FIFO;
                a->objects[i].word = OBJECT_WORD(OBJECT_QUEUE, 1);
                a->hashes[i] = HASH_FIRST;
        }
        a->shared->n_made = OBJECTS - 1;
        assert_int_equal(drover_event_open(a, "last", &e), 0);
        OWN(event, e);
        pid_t pid = fixture_fork(a, lock_and_die, NULL);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &began);
        assert_int_equal(fixture_reap(a, pid), -SIGKILL);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ended);
        assert_in_range(ended.tv_sec - began.tv_sec, 0, 2 * SLOWER);
        assert_int_equal(drover_mutex_lock(m, 0), -EOWNERDEAD);
        assert_int_equal(drover_event_wait(e, stuck()), -EIDRM);
        drover_event *next;
        assert_int_equal(drover_event_open(a, "last", &next), 0); /* there is room again */
        OWN(event, next);
        assert_int_equal(drover_event_wait(next, 0), -EAGAIN);
        fixture_free(a);
}

static void scribble_but_lock(drover_arena *a, void *user) {
        struct layout_arena *shared = a->shared;
        uint64_t *words = (uint64_t *)shared, skip = offsetof(struct layout_arena, directory) / 8;
        unsigned seed = 11;
        for (uint64_t i = 0;; i++) {
                uint64_t at = ((uint64_t)rand_r(&seed) << 16 ^ (uint64_t)rand_r(&seed)) % (a->bytes / 8);
                if (i % 2) /* what says where objects are */
                        at = 2 + at % ((a->first + 64) / 8);
                uint64_t value = (uint64_t)rand_r(&seed) << 32 | (uint64_t)rand_r(&seed);
                if (at < 2 || at == skip || at == skip + 1) /* nobody could attach; each call would wait 5 s */
                        continue;
                __atomic_store_n(&words[at], i % 3 == 0 ? 0 : i % 3 == 1 ? value : value & 0xffff, __ATOMIC_RELAXED);
                atomic_fetch_add((_Atomic uint64_t *)user, 1);
        }
}

/* Objects are made and removed in a directory, and memory found between others, that somebody writes over. */
static void test_making_and_removing_beside_a_hostile_peer(void **state) {
        drover_arena *a, *attached;
        _Atomic uint64_t *n_writes = fixture_shared(4096);
        assert_int_equal(drover_arena_create_sized("hostile", 1 << 16, 16, 8, &a), 0);
        pid_t pid = fixture_fork(a, scribble_but_lock, n_writes);
        uint64_t end = in_ms(300);
        for (unsigned i = 0; event_now_ns() < end || atomic_load(n_writes) < 100000; i++) {
                drover_array *array;
                drover_barrier *barrier;
                struct drover_object_info infos[8];
                char name[16];
                snprintf(name, sizeof name, "%u", i % 20);
                if (drover_array_open(a, name, 8, 1 + i % 1000, &array) == 0) {
                        memset(drover_array_data(array), 0, drover_array_length(array) * 8);
                        drover_array_free(array);
                }
                if (drover_barrier_open(a, "b", 3, &barrier) == 0) {
                        drover_barrier_wait(barrier, 0);
                        drover_barrier_free(barrier);
                }
                snprintf(name, sizeof name, "%u", (i + 7) % 20);
                drover_arena_unlink(a, i % 5 ? name : "b");
                drover_arena_list(a, infos, 8);
                arena_count_objects(a);
                drover_arena_repair(a, 1 + i % 6);
                if (drover_arena_attach(drover_arena_fd(a), &attached) == 0)
                        drover_arena_free(attached);
        }
        kill(pid, SIGKILL);
        fixture_reap(a, pid);
        fixture_unshare((void *)n_writes, 4096);
        drover_arena_free(a);
}

/* A maker that never finishes: who wants an object, or the dictionary it has, is told, and does not hang. */
static void test_the_directory_is_held(void **state) {
        (void)state;
        drover_arena *a = fixture_arena(4096);
        drover_mutex *m;
        assert_int_equal(drover_mutex_open(a, "there", 0, &m), 0);
        drover_mutex_free(m);
        atomic_store(&a->shared->directory.word, UINT64_C(0x7777) << OWNER_PARTICIPANT_SHIFT);
        uint64_t since_ns = event_now_ns();
        assert_int_equal(drover_mutex_open(a, "another", 0, &m), -ETIMEDOUT);
        assert_true(event_now_ns() - since_ns >= 4900 * MS);
        assert_int_equal(drover_mutex_open(a, "there", 0, &m), 0); /* what exists needs no lock */
        drover_mutex_free(m);
        fixture_free(a);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_attach),
                cmocka_unit_test(test_too_many),
                cmocka_unit_test(test_sized),
                cmocka_unit_test(test_made_once),
                cmocka_unit_test(test_deadlines),
                cmocka_unit_test(test_deadlines_of_every_wait),
                cmocka_unit_test(test_value_and_array),
                cmocka_unit_test(test_three_processes_update_one_dictionary),
                cmocka_unit_test(test_dictionary_edges),
                cmocka_unit_test(test_dictionary_with_an_impossible_count),
                cmocka_unit_test(test_dictionary_owner_dies),
                cmocka_unit_test(test_pipe),
                cmocka_unit_test(test_pipe_kill_one_side),
                cmocka_unit_test(test_hostile_peer),
                cmocka_unit_test(test_entries_that_name_the_same_memory),
                cmocka_unit_test(test_making_and_removing_beside_a_hostile_peer),
                cmocka_unit_test(test_the_directory_is_held),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
