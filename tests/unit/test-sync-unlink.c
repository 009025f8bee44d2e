/* Removing objects: what those find who have one open, and when its room is used again. */
#include "tests/unit/unlink-fixture.h"

#include <sched.h>

#include "ipc/sync/arena/arena.h"

static void test_waiters_are_told(void **state) {
        for (size_t i = 0; i < UNLINK_N_KINDS; i++) {
                drover_arena *a = fixture_arena(1 << 16);
                union unlink_handle mine, other;
                assert_int_equal(unlink_kinds[i].open(a, &mine), 0);
                if (unlink_kinds[i].hold)
                        assert_int_equal(unlink_kinds[i].hold(mine), 0);
                pid_t pid = fixture_fork(a, unlink_fixture_wait, (void *)&unlink_kinds[i]);
                fixture_await_waiters(a, "x", 1);
                assert_int_equal(drover_arena_unlink(a, "x"), 0);
                assert_int_equal(fixture_reap(a, pid), 0);
                assert_int_equal(drover_arena_list(a, NULL, 0), 0);
                assert_int_equal(drover_arena_unlink(a, "x"), -ENOENT);
                /* The name is another object's now, which is as it was made. */
                assert_int_equal(unlink_kinds[i].open(a, &other), 0);
                assert_true(((struct object *)other.any)->at != ((struct object *)mine.any)->at);
                if (unlink_kinds[i].hold)
                        assert_int_equal(unlink_kinds[i].hold(other), 0);
                unlink_kinds[i].free(mine);
                unlink_kinds[i].free(other);
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
        union unlink_handle handles[UNLINK_N_KINDS];
        for (size_t i = 0; i < UNLINK_N_KINDS; i++)
                assert_true(unlink_kinds[i].open(a, &handles[i]) == 0 || (handles[i].any = NULL) == NULL);
        drover_arena_free(a);
        for (size_t i = 0; i < UNLINK_N_KINDS; i++)
                assert_null(unlink_kinds[i].free(handles[i]));
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
        pid_t pid = fixture_fork(a, unlink_fixture_wait, (void *)&unlink_kinds[2]);
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
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
