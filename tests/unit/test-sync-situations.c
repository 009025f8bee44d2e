/* What users of other libraries reported, tried with ours (tests/SITUATIONS.md): deadlines that pass in the moment of a
 * wake-up, waiters whom newcomers overtake, forks in the midst of calls, producers that end before anybody reads. */
#include "tests/unit/sync-fixture.h"

#include <sched.h>

enum {
        ITEMS = 20000 / SLOWER,
        ROUNDS = 3000 / SLOWER,
        TURNS = 50,
        FORKS = 30,
        LARGE = 256 * 1024,
        ROOM = 16 << 20,
};

struct shared {
        _Atomic uint32_t n_ready, n_done, n_got, is_over;
        uint32_t n_tokens; /* under the mutex */
        _Atomic uint8_t seen[ITEMS];
};

static drover_arena *arena;
static struct shared *shared;

static int setup(void **state) {
        (void)state;
        arena = fixture_arena(ROOM);
        shared = fixture_shared(sizeof *shared);
        return 0;
}

static int teardown(void **state) {
        (void)state;
        fixture_free(arena);
        fixture_unshare(shared, sizeof *shared);
        return 0;
}

static drover_queue *open_queue(drover_arena *a, uint32_t capacity, uint32_t item_bytes) {
        drover_queue *q;
        CHECK(drover_queue_open(a, "queue", capacity, item_bytes, DROVER_QUEUE_SIMPLE, &q) == 0);
        OWN(queue, q);
        return q;
}

static drover_mutex *open_mutex(drover_arena *a) {
        drover_mutex *m;
        CHECK(drover_mutex_open(a, "mutex", 0, &m) == 0);
        OWN(mutex, m);
        return m;
}

static drover_condition *open_condition(drover_arena *a, drover_mutex *m) {
        drover_condition *c;
        CHECK(drover_condition_open(a, "condition", m, &c) == 0);
        OWN(condition, c);
        return c;
}

static drover_semaphore *open_semaphore(drover_arena *a, const char *name) {
        drover_semaphore *s;
        CHECK(drover_semaphore_open(a, name, 0, &s) == 0);
        OWN(semaphore, s);
        return s;
}

/* A deadline that passes about when a waker comes. */
static uint64_t soon(uint64_t *random) {
        *random = *random * UINT64_C(6364136223846793005) + 1442695040888963407;
        return drover_deadline_in(1000 + (*random >> 33) % 60000);
}

static void await(const _Atomic uint32_t *word, uint32_t value) {
        uint64_t until = stuck();
        while (atomic_load(word) < value) {
                CHECK(event_now_ns() < until);
                sched_yield();
        }
}

/* Threads and processes: the first does `one`, the others `many` and, the last, `last`. */
struct parts {
        void (*one)(drover_arena *a), (*many)(drover_arena *a, uint64_t random), (*last)(drover_arena *a);
};

static void take_part(drover_arena *a, void *user) {
        const struct parts *p = user;
        uint32_t mine = atomic_fetch_add(&shared->n_ready, 1);
        await(&shared->n_ready, 4);
        if (mine == 0)
                p->one(a);
        else if (mine < 3)
                p->many(a, mine);
        else
                p->last(a);
}

static void run_parts(const struct parts *parts) {
        struct parts p = *parts;
        for (int processes = 0; processes < 2; processes++) {
                memset(shared, 0, sizeof *shared);
                fixture_run(arena, &(struct fixture_crew){take_part, &p, 4, processes});
        }
}

/* ---- a deadline that passes in the moment of a wake-up costs nobody anything ---- */

static void put_impatiently(drover_arena *a) {
        drover_queue *q = open_queue(a, 4, sizeof(uint32_t));
        uint64_t random = 7;
        for (uint32_t i = 0; i < ITEMS;) {
                int r = drover_queue_put(q, &i, sizeof i, soon(&random));
                CHECK(r == 0 || r == -ETIMEDOUT);
                i += r == 0;
        }
}

static void got(uint32_t item) {
        CHECK(item < ITEMS);
        CHECK(atomic_fetch_add(&shared->seen[item], 1) == 0);
        atomic_fetch_add(&shared->n_got, 1);
}

static void get_impatiently(drover_arena *a, uint64_t random) {
        drover_queue *q = open_queue(a, 4, sizeof(uint32_t));
        uint64_t until = stuck();
        while (atomic_load(&shared->n_got) < ITEMS) {
                uint32_t item;
                size_t bytes;
                int r = drover_queue_get(q, &item, sizeof item, &bytes, soon(&random));
                CHECK(r == 0 || r == -ETIMEDOUT);
                if (r == 0)
                        got(item);
                CHECK(event_now_ns() < until);
        }
}

static void get_impatiently_too(drover_arena *a) { get_impatiently(a, 3); }

static void test_timeouts_lose_no_item(void **state) {
        (void)state;
        run_parts(&(struct parts){put_impatiently, get_impatiently, get_impatiently_too});
}

/* One token at a time, which only who was notified takes: a notification that is lost leaves it there. */
static void notify_for_each(drover_arena *a) {
        drover_mutex *m = open_mutex(a);
        drover_condition *c = open_condition(a, m);
        for (uint32_t i = 0; i < ROUNDS; i++) {
                CHECK(drover_mutex_lock(m, stuck()) == 0);
                shared->n_tokens++;
                CHECK(drover_condition_notify(c, 1) == 0);
                CHECK(drover_mutex_unlock(m) == 0);
                await(&shared->n_got, i + 1);
        }
        CHECK(drover_mutex_lock(m, stuck()) == 0);
        atomic_store(&shared->is_over, 1);
        CHECK(drover_condition_notify_all(c) == 0);
        CHECK(drover_mutex_unlock(m) == 0);
}

static void take_token(void) {
        if (shared->n_tokens > 0) {
                shared->n_tokens--;
                atomic_fetch_add(&shared->n_got, 1);
        }
}

static void wait_impatiently(drover_arena *a, uint64_t random) {
        drover_mutex *m = open_mutex(a);
        drover_condition *c = open_condition(a, m);
        while (!atomic_load(&shared->is_over)) {
                CHECK(drover_mutex_lock(m, stuck()) == 0);
                int r = drover_condition_wait(c, soon(&random));
                CHECK(r == 0 || r == -ETIMEDOUT);
                if (r == 0)
                        take_token();
                CHECK(drover_mutex_unlock(m) == 0);
        }
}

static bool has_token(void *user) {
        (void)user;
        return shared->n_tokens > 0 || atomic_load(&shared->is_over);
}

static void wait_patiently(drover_arena *a) {
        drover_mutex *m = open_mutex(a);
        drover_condition *c = open_condition(a, m);
        while (!atomic_load(&shared->is_over)) {
                CHECK(drover_mutex_lock(m, stuck()) == 0);
                CHECK(drover_condition_wait_for(c, has_token, NULL, stuck()) == 0);
                take_token();
                CHECK(drover_mutex_unlock(m) == 0);
        }
}

static void test_timeouts_swallow_no_notification(void **state) {
        (void)state;
        run_parts(&(struct parts){notify_for_each, wait_impatiently, wait_patiently});
}

static void post_one_by_one(drover_arena *a) {
        drover_semaphore *s = open_semaphore(a, "units");
        uint64_t random = 7;
        for (uint32_t i = 0; i < ROUNDS; i++) {
                for (uint64_t until = soon(&random); event_now_ns() < until;)
                        sched_yield();
                CHECK(drover_semaphore_post(s, 1) == 0);
                await(&shared->n_got, i + 1);
        }
        CHECK(drover_semaphore_value(s) == 0);
        atomic_store(&shared->is_over, 1);
        CHECK(drover_semaphore_post(s, 3) == 0);
        await(&shared->n_done, 3);
        while (drover_semaphore_wait(s, 0) == 0) /* for the next run */
                ;
}

/* Who was too impatient for a unit leaves it to the others. */
static void take_units(drover_arena *a, uint64_t random) {
        drover_semaphore *s = open_semaphore(a, "units");
        while (!atomic_load(&shared->is_over)) {
                uint32_t n_got = atomic_load(&shared->n_got);
                int r = drover_semaphore_wait(s, random ? soon(&random) : stuck());
                CHECK(r == 0 || (random && r == -ETIMEDOUT));
                if (r == 0)
                        atomic_fetch_add(&shared->n_got, 1);
                while (r < 0 && atomic_load(&shared->n_got) == n_got && !atomic_load(&shared->is_over))
                        sched_yield();
        }
        atomic_fetch_add(&shared->n_done, 1);
}

static void take_units_patiently(drover_arena *a) { take_units(a, 0); }

static void test_timeouts_swallow_no_unit(void **state) {
        (void)state;
        run_parts(&(struct parts){post_one_by_one, take_units, take_units_patiently});
}

/* ---- who waits is not overtaken for ever ---- */

enum lock { MUTEX, PERMIT, SEMAPHORE, LOCKS };

struct locks {
        drover_mutex *mutex;
        drover_permits *permit;
        drover_semaphore *semaphore;
};

static struct locks open_locks(drover_arena *a) {
        struct locks l = {.mutex = open_mutex(a), .semaphore = open_semaphore(a, "lock")};
        CHECK(drover_permits_open(a, "permit", 1, &l.permit) == 0);
        OWN(permits, l.permit);
        return l;
}

static void take(struct locks *l, uint32_t which, uint64_t deadline) {
        int r = which == MUTEX    ? drover_mutex_lock(l->mutex, deadline)
                : which == PERMIT ? drover_permits_acquire(l->permit, deadline)
                                  : drover_semaphore_wait(l->semaphore, deadline);
        CHECK(r == 0);
}

static void give(struct locks *l, uint32_t which) {
        int r = which == MUTEX    ? drover_mutex_unlock(l->mutex)
                : which == PERMIT ? drover_permits_release(l->permit)
                                  : drover_semaphore_post(l->semaphore, 1);
        CHECK(r == 0);
}

static void take_turns(drover_arena *a) {
        struct locks l = open_locks(a);
        CHECK(drover_semaphore_post(l.semaphore, 1) == 0);
        for (uint32_t which = 0; which < LOCKS; which++) {
                for (int i = 0; i < TURNS; i++) {
                        take(&l, which, stuck());
                        give(&l, which);
                }
                atomic_store(&shared->is_over, which + 1);
                await(&shared->n_done, 3 * (which + 1));
        }
        CHECK(drover_semaphore_wait(l.semaphore, 0) == 0); /* for the next run */
}

static void hog(drover_arena *a, uint64_t random) {
        (void)random;
        struct locks l = open_locks(a);
        for (uint32_t which = 0; which < LOCKS; which++) {
                while (atomic_load(&shared->is_over) <= which) {
                        take(&l, which, stuck());
                        give(&l, which);
                }
                atomic_fetch_add(&shared->n_done, 1);
        }
}

static void hog_too(drover_arena *a) { hog(a, 0); }

static void test_who_waits_gets_its_turn(void **state) {
        (void)state;
        run_parts(&(struct parts){take_turns, hog, hog_too});
}

/* ---- a fork while other threads are in calls ---- */

static void *call_and_call(void *user) {
        drover_queue *q = open_queue(arena, 4, sizeof(uint32_t));
        drover_mutex *m = open_mutex(arena);
        uint32_t item = 1;
        size_t bytes;
        (void)user;
        while (!atomic_load(&shared->is_over)) {
                CHECK(drover_mutex_lock(m, stuck()) == 0);
                CHECK(drover_queue_put(q, &item, sizeof item, stuck()) == 0);
                CHECK(drover_mutex_unlock(m) == 0);
                CHECK(drover_queue_get(q, &item, sizeof item, &bytes, stuck()) == 0);
        }
        return NULL;
}

static void call_in_child(drover_arena *a, void *user) {
        (void)user;
        alarm(STUCK_NS / 1000000000);
        drover_mutex *m = open_mutex(a);
        drover_queue *q = open_queue(a, 4, sizeof(uint32_t));
        uint32_t item = 1;
        size_t bytes;
        for (int i = 0; i < 20; i++) {
                CHECK(drover_mutex_lock(m, stuck()) == 0);
                CHECK(drover_mutex_unlock(m) == 0);
                CHECK(drover_queue_put(q, &item, sizeof item, stuck()) == 0);
                CHECK(drover_queue_get(q, &item, sizeof item, &bytes, stuck()) == 0);
        }
}

static void test_a_fork_amid_calls(void **state) {
        (void)state;
        pthread_t threads[2];
        for (unsigned i = 0; i < 2; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, call_and_call, NULL), 0);
        for (unsigned i = 0; i < FORKS; i++)
                assert_int_equal(fixture_reap(arena, fixture_fork(arena, call_in_child, NULL)), 0);
        atomic_store(&shared->is_over, 1);
        for (unsigned i = 0; i < 2; i++)
                pthread_join(threads[i], NULL);
}

/* ---- queues ---- */

static void put_much_and_end(drover_arena *a, void *user) {
        drover_queue *q = open_queue(a, 4, LARGE);
        alarm(STUCK_NS / 1000000000);
        for (int i = 0; i < 4; i++) {
                memset(user, 'a' + i, LARGE);
                CHECK(drover_queue_put(q, user, LARGE, stuck()) == 0);
        }
}

static void test_a_producer_ends_before_anybody_reads(void **state) {
        (void)state;
        char *buffer = test_malloc(LARGE);
        drover_queue *q = open_queue(arena, 4, LARGE);
        assert_int_equal(fixture_reap(arena, fixture_fork(arena, put_much_and_end, buffer)), 0);
        for (int i = 0; i < 4; i++) {
                size_t bytes;
                assert_int_equal(drover_queue_get(q, buffer, LARGE, &bytes, 0), 0);
                assert_int_equal(bytes, LARGE);
                for (size_t b = 0; b < LARGE; b++)
                        assert_int_equal(buffer[b], 'a' + i);
        }
        test_free(buffer);
}

static void test_a_queue_of_65536(void **state) {
        (void)state;
        drover_queue *q;
        uint32_t item, n = UINT32_C(1) << 16;
        size_t bytes;
        assert_int_equal(drover_queue_open(arena, "queue", n + 1, sizeof item, DROVER_QUEUE_SIMPLE, &q), -EINVAL);
        q = open_queue(arena, n, sizeof item);
        for (item = 0; item < n; item++)
                assert_int_equal(drover_queue_put(q, &item, sizeof item, 0), 0);
        assert_int_equal(drover_queue_put(q, &item, sizeof item, 0), -EAGAIN);
        assert_int_equal(drover_queue_size(q), n);
        for (uint32_t i = 0; i < n; i++) {
                assert_int_equal(drover_queue_get(q, &item, sizeof item, &bytes, 0), 0);
                assert_int_equal(item, i);
        }
        assert_int_equal(drover_queue_get(q, &item, sizeof item, &bytes, 0), -EAGAIN);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_timeouts_lose_no_item),    TEST(test_timeouts_swallow_no_notification),
                TEST(test_timeouts_swallow_no_unit), TEST(test_who_waits_gets_its_turn),
                TEST(test_a_fork_amid_calls),        TEST(test_a_producer_ends_before_anybody_reads),
                TEST(test_a_queue_of_65536),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
