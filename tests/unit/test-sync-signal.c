/* Semaphores, permits, events, barriers, reader-writer locks (FEATURES 10, 11, 13). */
#include <sched.h>

#include "tests/unit/sync-fixture.h"

#include "ipc/sync/arena/arena.h"

struct shared {
        _Atomic uint32_t n, peak, inside, n_told, indices, n_actions, turn;
        uint64_t a, b;
};

static void await_count(_Atomic uint32_t *word, uint32_t value) {
        uint64_t deadline = stuck();
        while (atomic_load(word) < value) {
                CHECK(event_now_ns() < deadline);
                sched_yield(); /* to whom it waits for: there may be more of them than processors */
        }
}

static drover_arena *arena;
static struct shared *shared;

static int setup(void **state) {
        arena = fixture_arena(1 << 20);
        shared = fixture_shared(sizeof *shared);
        return 0;
}

static int teardown(void **state) {
        fixture_free(arena);
        fixture_unshare(shared, sizeof *shared);
        return 0;
}

/* ---- semaphores ---- */

static void test_semaphore(void **state) {
        drover_semaphore *s;
        assert_int_equal(drover_semaphore_open(arena, "s", 1, &s), 0);
        assert_int_equal(drover_semaphore_post(s, 1), 0); /* by one who never waited: beyond its start value */
        assert_int_equal(drover_semaphore_value(s), 2);
        assert_int_equal(drover_semaphore_wait(s, 0), 0);
        assert_int_equal(drover_semaphore_wait(s, DROVER_FOREVER), 0);
        assert_int_equal(drover_semaphore_wait(s, 0), -EAGAIN);
        assert_int_equal(drover_semaphore_wait(s, 1), -ETIMEDOUT);
        assert_int_equal(drover_semaphore_post(s, INT32_MAX), 0);
        assert_int_equal(drover_semaphore_post(s, 1), -EOVERFLOW);
        drover_semaphore *same, *other;
        assert_int_equal(drover_semaphore_open(arena, "s", 0, &same), 0); /* as it is */
        assert_int_equal(drover_semaphore_value(same), INT32_MAX);
        assert_int_equal(drover_semaphore_open(arena, "s", 2, &other), -EEXIST);
        drover_semaphore_free(same);
        drover_semaphore_free(s);
}

static void post_and_die(drover_arena *a, void *user) {
        drover_semaphore *s;
        CHECK(drover_semaphore_open(a, "s", 0, &s) == 0);
        OWN(semaphore, s);
        CHECK(drover_semaphore_post(s, 2) == 0);
        kill(getpid(), SIGKILL);
}

static void test_posts_of_the_dead_stay(void **state) {
        drover_semaphore *s;
        assert_int_equal(drover_semaphore_open(arena, "s", 0, &s), 0);
        OWN(semaphore, s);
        assert_int_equal(fixture_reap(arena, fixture_fork(arena, post_and_die, NULL)), -SIGKILL);
        assert_int_equal(drover_semaphore_value(s), 2);
        assert_int_equal(drover_semaphore_wait(s, stuck()), 0);
}

static void hand_over(drover_arena *a, void *user) {
        drover_semaphore *s[2];
        CHECK(drover_semaphore_open(a, "ping", 0, &s[0]) == 0);
        OWN(semaphore, s[0]);
        CHECK(drover_semaphore_open(a, "pong", 0, &s[1]) == 0);
        OWN(semaphore, s[1]);
        uint32_t mine = atomic_fetch_add(&shared->turn, 1) % 2;
        for (int i = 0; i < 2000; i++) {
                if (mine == 0)
                        CHECK(drover_semaphore_post(s[0], 1) == 0);
                CHECK(drover_semaphore_wait(s[!mine], stuck()) == 0);
                if (mine == 1)
                        CHECK(drover_semaphore_post(s[1], 1) == 0);
                atomic_fetch_add(&shared->n, 1);
        }
}

static void test_semaphore_hand_over(void **state) {
        for (int processes = 0; processes < 2; processes++)
                fixture_run(arena, &(struct fixture_crew){hand_over, NULL, 4, processes});
        assert_int_equal(shared->n, 16000);
}

/* ---- permits ---- */

enum { PERMIT_USERS = 20 };

static void use_permit(drover_arena *a, void *user) {
        drover_permits *p;
        CHECK(drover_permits_open(a, "p", 3, &p) == 0);
        atomic_fetch_add(&shared->n, 1);
        await_count(&shared->n, PERMIT_USERS); /* together, however slowly they start */
        for (int i = 0; i < 20; i++) {
                CHECK(drover_permits_acquire(p, stuck()) == 0);
                uint32_t inside = atomic_fetch_add(&shared->inside, 1) + 1, peak = atomic_load(&shared->peak);
                while (inside > peak && !atomic_compare_exchange_weak(&shared->peak, &peak, inside))
                        ;
                usleep(20);
                atomic_fetch_sub(&shared->inside, 1);
                CHECK(drover_permits_release(p) == 0);
        }
        drover_permits_free(p);
}

static void test_permits(void **state) {
        drover_permits *p;
        assert_int_equal(drover_permits_open(arena, "p", 5000, &p), -EINVAL);
        assert_int_equal(drover_permits_open(arena, "p", 3, &p), 0);
        assert_int_equal(drover_permits_release(p), -EOVERFLOW);
        for (int processes = 0; processes < 2; processes++) {
                shared->n = 0;
                fixture_run(arena, &(struct fixture_crew){use_permit, NULL, PERMIT_USERS, processes});
                assert_int_equal(shared->peak, 3);
                assert_int_equal(drover_permits_available(p), 3);
        }
        for (int i = 0; i < 3; i++)
                assert_int_equal(drover_permits_acquire(p, 0), 0);
        assert_int_equal(drover_permits_acquire(p, 0), -EAGAIN);
        assert_int_equal(drover_permits_acquire(p, in_ms(5)), -ETIMEDOUT);
        for (int i = 0; i < 3; i++)
                assert_int_equal(drover_permits_release(p), 0);
        assert_int_equal(drover_permits_release(p), -EOVERFLOW);
        drover_permits_free(p);
}

static void hold_permit(drover_arena *a, void *user) {
        drover_permits *p;
        CHECK(drover_permits_open(a, "p", 3, &p) == 0);
        OWN(permits, p);
        CHECK(drover_permits_acquire(p, stuck()) == 0);
        atomic_fetch_add(&shared->n, 1);
        for (;;)
                pause();
}

static void want_permit(drover_arena *a, void *user) {
        drover_permits *p;
        CHECK(drover_permits_open(a, "p", 3, &p) == 0);
        OWN(permits, p);
        CHECK(drover_permits_acquire(p, stuck()) == 0);
}

static void test_kill_three_holders(void **state) {
        drover_permits *p;
        pid_t holders[3];
        assert_int_equal(drover_permits_open(arena, "p", 3, &p), 0);
        OWN(permits, p);
        for (int i = 0; i < 3; i++)
                holders[i] = fixture_fork(arena, hold_permit, NULL);
        await_count(&shared->n, 3);
        assert_int_equal(drover_permits_acquire(p, 0), -EAGAIN);
        assert_int_equal(drover_permits_release(p), -EOVERFLOW); /* theirs, not ours */
        pid_t waiter = fixture_fork(arena, want_permit, NULL);
        fixture_await_waiters(arena, "p", 1);
        for (int i = 0; i < 3; i++)
                fixture_kill(arena, holders[i]);
        assert_int_equal(fixture_reap(arena, waiter), 0);
        assert_int_equal(drover_permits_available(p), 3);
}

/* ---- events ---- */

static void wait_event(drover_arena *a, void *user) {
        drover_event *e;
        CHECK(drover_event_open(a, "e", &e) == 0);
        OWN(event, e);
        CHECK(drover_event_wait(e, stuck()) == 0);
        atomic_fetch_add(&shared->n, 1);
}

static void test_event(void **state) {
        drover_event *e;
        assert_int_equal(drover_event_open(arena, "e", &e), 0);
        OWN(event, e);
        assert_false(drover_event_is_set(e));
        assert_int_equal(drover_event_wait(e, 0), -EAGAIN);
        assert_int_equal(drover_event_wait(e, in_ms(5)), -ETIMEDOUT);
        pid_t two[2] = {fixture_fork(arena, wait_event, NULL), fixture_fork(arena, wait_event, NULL)};
        fixture_await_waiters(arena, "e", 2);
        assert_int_equal(shared->n, 0);
        assert_int_equal(drover_event_set(e), 0);
        assert_int_equal(drover_event_clear(e), 0); /* who was woken returns 0 all the same */
        for (int i = 0; i < 2; i++)
                assert_int_equal(fixture_reap(arena, two[i]), 0);
        assert_int_equal(drover_event_wait(e, 0), -EAGAIN);
        assert_int_equal(drover_event_set(e), 0); /* before the wait */
        assert_int_equal(drover_event_set(e), 0);
        assert_true(drover_event_is_set(e));
        assert_int_equal(drover_event_wait(e, 0), 0);
        assert_int_equal(drover_event_wait(e, DROVER_FOREVER), 0);
}

/* ---- barriers ---- */

static int count_action(void *user) {
        atomic_fetch_add(&shared->n_actions, 1);
        return 0;
}

enum { ROUNDS = 300 };

/* Every round: the action ran once more before anybody went on, and the indices are 0…4. */
static void meet(drover_arena *a, void *user) {
        drover_barrier *b;
        CHECK(drover_barrier_open(a, "b", 5, &b) == 0);
        drover_barrier_set_action(b, count_action, NULL);
        for (uint32_t i = 0; i < ROUNDS; i++) {
                int index = drover_barrier_wait(b, stuck());
                CHECK(index >= 0 && index < 5);
                CHECK(atomic_load(&shared->n_actions) == 2 * i + 1); /* nobody can be in the next round yet */
                atomic_fetch_add(&shared->indices, 1u << (index * 6));
                int second = drover_barrier_wait(b, stuck());
                CHECK(second >= 0);
                if (second == 4)
                        CHECK(atomic_exchange(&shared->indices, 0) == 0x1041041u);
                atomic_thread_fence(memory_order_seq_cst);
        }
        drover_barrier_free(b);
}

static void wait_barrier(drover_arena *a, void *user) {
        drover_barrier *b;
        CHECK(drover_barrier_open(a, "b", 5, &b) == 0);
        CHECK(drover_barrier_wait(b, stuck()) == -EPIPE);
        atomic_fetch_add(&shared->n_told, 1);
        drover_barrier_free(b);
}

static void join_and_pause(drover_arena *a, void *user) {
        drover_barrier *b;
        CHECK(drover_barrier_open(a, "b", 5, &b) == 0);
        OWN(barrier, b);
        atomic_fetch_add(&shared->n, 1);
        for (;;)
                pause();
}

static void test_barrier_kill_one_four_told(void **state) {
        drover_barrier *b;
        pid_t pids[4];
        assert_int_equal(drover_barrier_open(arena, "b", 5, &b), 0);
        pid_t fifth = fixture_fork(arena, join_and_pause, NULL);
        await_count(&shared->n, 1);
        for (int i = 0; i < 4; i++)
                pids[i] = fixture_fork(arena, wait_barrier, NULL);
        fixture_await_waiters(arena, "b", 4);
        assert_int_equal(drover_barrier_waiting(b), 4);
        fixture_kill(arena, fifth);
        for (int i = 0; i < 4; i++)
                assert_int_equal(fixture_reap(arena, pids[i]), 0);
        assert_int_equal(shared->n_told, 4);
        assert_true(drover_barrier_is_broken(b));
        assert_int_equal(drover_barrier_wait(b, stuck()), -EPIPE);
        assert_int_equal(drover_barrier_reset(b), 0);
        assert_false(drover_barrier_is_broken(b));
        drover_barrier_free(b);
}

static void test_barrier_reset_while_waiting(void **state) {
        drover_barrier *b;
        pid_t pids[3];
        assert_int_equal(drover_barrier_open(arena, "b", 5, &b), 0);
        for (int round = 0; round < 2; round++) {
                for (int i = 0; i < 3; i++)
                        pids[i] = fixture_fork(arena, wait_barrier, NULL);
                fixture_await_waiters(arena, "b", 3);
                assert_int_equal(round == 0 ? drover_barrier_reset(b) : drover_barrier_abort(b), 0);
                for (int i = 0; i < 3; i++)
                        assert_int_equal(fixture_reap(arena, pids[i]), 0);
                assert_int_equal(drover_barrier_is_broken(b), round == 1);
                assert_int_equal(drover_barrier_waiting(b), 0);
        }
        assert_int_equal(drover_barrier_reset(b), 0);
        assert_int_equal(drover_barrier_wait(b, 0), -EAGAIN);
        assert_int_equal(drover_barrier_waiting(b), 0);
        assert_int_equal(drover_barrier_wait(b, in_ms(5)), -ETIMEDOUT);
        assert_true(drover_barrier_is_broken(b));
        assert_int_equal(drover_barrier_parties(b), 5);
        drover_barrier_free(b);
}

static int fail_action(void *user) { return -EIO; }

static void test_barrier_action_fails(void **state) {
        drover_barrier *b;
        assert_int_equal(drover_barrier_open(arena, "one", 1, &b), 0);
        assert_int_equal(drover_barrier_wait(b, 0), 0);
        assert_int_equal(drover_barrier_wait(b, stuck()), 0);
        drover_barrier_set_action(b, fail_action, NULL);
        assert_int_equal(drover_barrier_wait(b, stuck()), -EIO);
        assert_int_equal(drover_barrier_wait(b, stuck()), -EPIPE);
        drover_barrier_free(b);
}

static void test_barrier_with_impossible_arrivals(void **state) {
        drover_barrier *b;
        assert_int_equal(drover_barrier_open(arena, "b", 3, &b), 0);
        struct object *o = (struct object *)b; /* it comes first */
        struct layout_barrier *words = o->at;
        _Atomic uint64_t *arrivals = (_Atomic uint64_t *)&words->members[o->arena->n_participants];
        atomic_store(&arrivals[0], UINT64_C(5) << 32 | 1); /* of the phase after the next three */
        assert_int_equal(drover_barrier_wait(b, 1), -EPROTO);
        assert_int_equal(drover_barrier_wait(b, stuck()), -EPROTO);
        assert_int_equal(drover_barrier_waiting(b), 0);
        drover_barrier_free(b);
}

/* ---- reader-writer locks ---- */

static void read_and_write(drover_arena *a, void *user) {
        drover_rwlock *l;
        CHECK(drover_rwlock_open(a, "l", &l) == 0);
        unsigned seed = (unsigned)getpid() ^ atomic_fetch_add(&shared->turn, 1);
        for (int i = 0; i < 300; i++) {
                if (rand_r(&seed) % 4 == 0) {
                        CHECK(drover_rwlock_write(l, stuck()) == 0);
                        CHECK(atomic_load(&shared->inside) == 0);
                        shared->a++;
                        if (i % 8 == 0)
                                usleep(1);
                        shared->b++;
                } else {
                        CHECK(drover_rwlock_read(l, stuck()) == 0);
                        atomic_fetch_add(&shared->inside, 1);
                        CHECK(shared->a == shared->b);
                        if (i % 8 == 0)
                                usleep(1);
                        atomic_fetch_sub(&shared->inside, 1);
                }
                CHECK(drover_rwlock_unlock(l) == 0);
        }
        drover_rwlock_free(l);
}

static void test_rwlock(void **state) {
        drover_rwlock *l;
        assert_int_equal(drover_rwlock_open(arena, "l", &l), 0);
        OWN(rwlock, l);
        for (int processes = 0; processes < 2; processes++)
                fixture_run(arena, &(struct fixture_crew){read_and_write, NULL, 6, processes});
        assert_int_equal(shared->a, shared->b);
        assert_int_equal(drover_rwlock_unlock(l), -EPERM);
        assert_int_equal(drover_rwlock_read(l, 0), 0);
        assert_int_equal(drover_rwlock_read(l, 0), 0);
        assert_int_equal(drover_rwlock_write(l, 0), -EAGAIN);
        assert_int_equal(drover_rwlock_write(l, in_ms(5)), -ETIMEDOUT);
        assert_int_equal(drover_rwlock_read(l, 0), 0); /* the writer that gave up keeps nobody out */
        for (int i = 0; i < 3; i++)
                assert_int_equal(drover_rwlock_unlock(l), 0);
        assert_int_equal(drover_rwlock_unlock(l), -EPERM);
        assert_int_equal(drover_rwlock_write(l, 0), 0);
        assert_int_equal(drover_rwlock_write(l, stuck()), -EDEADLK);
        assert_int_equal(drover_rwlock_read(l, 0), -EAGAIN);
        assert_int_equal(drover_rwlock_unlock(l), 0);
}

enum { UNLOCKS = 600 / SLOWER };

/* All leave the one reading that there is; the count must never go below it. */
static void unlock_too_often(drover_arena *a, void *user) {
        drover_rwlock *l = user;
        for (uint32_t round = 1; round <= UNLOCKS; round++) {
                atomic_fetch_add(&shared->turn, 1);
                await_count(&shared->turn, round * 2);
                if (drover_rwlock_unlock(l) == 0) {
                        atomic_fetch_add(&shared->n, 1);
                        CHECK(drover_rwlock_read(l, stuck()) == 0);
                }
                atomic_fetch_add(&shared->inside, 1);
                await_count(&shared->inside, round * 2);
        }
}

static void test_rwlock_unlocked_too_often(void **state) {
        drover_rwlock *l;
        assert_int_equal(drover_rwlock_open(arena, "l", &l), 0);
        assert_int_equal(drover_rwlock_read(l, 0), 0);
        fixture_run(arena, &(struct fixture_crew){unlock_too_often, l, 2, 0});
        assert_in_range(shared->n, UNLOCKS, 2 * UNLOCKS);
        assert_int_equal(drover_rwlock_unlock(l), 0);
        assert_int_equal(drover_rwlock_unlock(l), -EPERM);
        assert_int_equal(drover_rwlock_write(l, 0), 0);
        drover_rwlock_free(l);
}

static void read_and_pause(drover_arena *a, void *user) {
        drover_rwlock *l;
        CHECK(drover_rwlock_open(a, "l", &l) == 0);
        OWN(rwlock, l);
        CHECK((user ? drover_rwlock_write : drover_rwlock_read)(l, stuck()) == 0);
        atomic_fetch_add(&shared->n, 1);
        for (;;)
                pause();
}

static void write_after_death(drover_arena *a, void *user) {
        drover_rwlock *l;
        CHECK(drover_rwlock_open(a, "l", &l) == 0);
        OWN(rwlock, l);
        CHECK(drover_rwlock_write(l, stuck()) == (user ? -EOWNERDEAD : 0));
        CHECK(drover_rwlock_unlock(l) == 0);
}

static void test_rwlock_deaths(void **state) {
        drover_rwlock *l;
        assert_int_equal(drover_rwlock_open(arena, "l", &l), 0);
        OWN(rwlock, l);
        pid_t reader = fixture_fork(arena, read_and_pause, NULL);
        await_count(&shared->n, 1);
        pid_t writer = fixture_fork(arena, write_after_death, NULL);
        fixture_await_waiters(arena, "l", 1);
        assert_int_equal(drover_rwlock_read(l, 0), -EAGAIN); /* a writer waits */
        fixture_kill(arena, reader);
        assert_int_equal(fixture_reap(arena, writer), 0);

        pid_t holder = fixture_fork(arena, read_and_pause, l);
        await_count(&shared->n, 2);
        writer = fixture_fork(arena, write_after_death, l);
        fixture_await_waiters(arena, "l", 1);
        fixture_kill(arena, holder);
        assert_int_equal(fixture_reap(arena, writer), 0);
        assert_int_equal(drover_rwlock_read(l, stuck()), -EOWNERDEAD);
        assert_int_equal(drover_rwlock_write(l, stuck()), -EOWNERDEAD);
        assert_int_equal(drover_rwlock_consistent(l), 0);
        assert_int_equal(drover_rwlock_unlock(l), 0);
        assert_int_equal(drover_rwlock_read(l, stuck()), 0);
        assert_int_equal(drover_rwlock_unlock(l), 0);
}

static void test_barrier(void **state) {
        for (int processes = 0; processes < 2; processes++) {
                atomic_store(&shared->n_actions, 0);
                fixture_run(arena, &(struct fixture_crew){meet, NULL, 5, processes});
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_semaphore, setup, teardown),
                cmocka_unit_test_setup_teardown(test_posts_of_the_dead_stay, setup, teardown),
                cmocka_unit_test_setup_teardown(test_semaphore_hand_over, setup, teardown),
                cmocka_unit_test_setup_teardown(test_permits, setup, teardown),
                cmocka_unit_test_setup_teardown(test_kill_three_holders, setup, teardown),
                cmocka_unit_test_setup_teardown(test_event, setup, teardown),
                cmocka_unit_test_setup_teardown(test_barrier, setup, teardown),
                cmocka_unit_test_setup_teardown(test_barrier_kill_one_four_told, setup, teardown),
                cmocka_unit_test_setup_teardown(test_barrier_reset_while_waiting, setup, teardown),
                cmocka_unit_test_setup_teardown(test_barrier_action_fails, setup, teardown),
                cmocka_unit_test_setup_teardown(test_barrier_with_impossible_arrivals, setup, teardown),
                cmocka_unit_test_setup_teardown(test_rwlock, setup, teardown),
                cmocka_unit_test_setup_teardown(test_rwlock_unlocked_too_often, setup, teardown),
                cmocka_unit_test_setup_teardown(test_rwlock_deaths, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
