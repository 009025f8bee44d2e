/* Guards: whatever way leads out of a block, what was taken is given back, for everything that can be held (FEATURES
 * 67). */
#include "tests/unit/sync-fixture.h"

struct held {
        const char *what;
        struct drover_guard (*take)(void *object, uint64_t deadline_ns);
        void *object;
        int busy; /* what a second one is told meanwhile */
};

#define TAKE(name, type)                                                                                               \
        static struct drover_guard take_##name(void *object, uint64_t deadline_ns) {                                   \
                return drover_guard_##name((type *)object, deadline_ns);                                               \
        }
TAKE(mutex, drover_mutex)
TAKE(semaphore, drover_semaphore)
TAKE(permit, drover_permits)
TAKE(read, drover_rwlock)
TAKE(write, drover_rwlock)
TAKE(array, drover_array)
TAKE(dictionary, drover_dictionary)

enum way { TO_THE_END, RETURN, FAIL, CANCELLED, EARLY };

/* As code in a job does it: with a failure of what it calls, told to stop, or because it is done. */
static int leave(const struct held *h, enum way way) {
        DROVER_GUARD(guard, h->take(h->object, 0));
        if (guard.result < 0)
                return guard.result;
        for (int i = 0; i < 2; i++) {
                if (way == RETURN)
                        return 1;
                if (way == FAIL)
                        return -EIO;
                if (way == CANCELLED && i == 1)
                        return -ECANCELED;
        }
        if (way == EARLY) {
                drover_guard_release(&guard);
                assert_null(guard.object);
                struct drover_guard again = h->take(h->object, 0);
                assert_int_equal(again.result, 0); /* free already */
                drover_guard_release(&again);
                drover_guard_release(&again); /* nothing left to give back */
        }
        return 0;
}

static void *try_it(void *user) {
        struct held *h = user;
        struct drover_guard guard = h->take(h->object, 0);
        h->busy = guard.result;
        drover_guard_release(&guard);
        return NULL;
}

/* As another thread sees it. */
static int try_elsewhere(struct held *h) {
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, try_it, h), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
        return h->busy;
}

static void test_whatever_way_leads_out(void **state) {
        static const int results[] = {
                [TO_THE_END] = 0, [RETURN] = 1, [FAIL] = -EIO, [CANCELLED] = -ECANCELED, [EARLY] = 0};
        drover_arena *a = fixture_arena(1 << 16);
        drover_mutex *mutex;
        drover_semaphore *semaphore;
        drover_permits *permits;
        drover_rwlock *rwlock;
        drover_array *array;
        drover_dictionary *dictionary;
        assert_int_equal(drover_mutex_open(a, "mutex", 0, &mutex), 0);
        assert_int_equal(drover_semaphore_open(a, "semaphore", 1, &semaphore), 0);
        assert_int_equal(drover_permits_open(a, "permits", 1, &permits), 0);
        assert_int_equal(drover_rwlock_open(a, "rwlock", &rwlock), 0);
        assert_int_equal(drover_array_open(a, "array", 8, 4, &array), 0);
        assert_int_equal(drover_dictionary_open(a, "dictionary", 2, 8, 8, &dictionary), 0);
        OWN(mutex, mutex);
        OWN(semaphore, semaphore);
        OWN(permits, permits);
        OWN(rwlock, rwlock);
        OWN(array, array);
        OWN(dictionary, dictionary);
        struct held all[] = {
                {"mutex", take_mutex, mutex},
                {"semaphore", take_semaphore, semaphore},
                {"permit", take_permit, permits},
                {"read", take_read, rwlock},
                {"write", take_write, rwlock},
                {"array", take_array, array},
                {"dictionary", take_dictionary, dictionary},
        };
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
                struct held *h = &all[i];
                for (enum way way = TO_THE_END; way <= EARLY; way++) {
                        assert_int_equal(leave(h, way), results[way]);
                        assert_int_equal(try_elsewhere(h), 0);
                }
                struct drover_guard guard = h->take(h->object, 0);
                assert_int_equal(guard.result, 0);
                int busy = try_elsewhere(h), is_shared = strcmp(h->what, "read") == 0;
                if (busy != (is_shared ? 0 : -EAGAIN))
                        fail_msg("%s: another one is told %d while it is held", h->what, busy);
                drover_guard_release(&guard);
                assert_int_equal(try_elsewhere(h), 0);
        }
        fixture_free(a);
}

/* What was not taken is not given back. */
static void test_not_taken(void **state) {
        drover_arena *a = fixture_arena(4096);
        drover_mutex *m;
        assert_int_equal(drover_mutex_open(a, "mutex", 0, &m), 0);
        OWN(mutex, m);
        assert_int_equal(drover_mutex_lock(m, 0), 0);
        const struct held h = {"mutex", take_mutex, m};
        assert_int_equal(leave(&h, RETURN), -EAGAIN);
        assert_int_equal(drover_mutex_unlock(m), 0); /* still ours */
        fixture_free(a);
}

static void die_holding(drover_arena *a, void *user) {
        drover_mutex *m;
        CHECK(drover_mutex_open(a, "mutex", 0, &m) == 0);
        DROVER_LOCKED(guard, m, stuck());
        CHECK(guard.result == 0);
        kill(getpid(), SIGKILL);
}

/* Told of a death, the guard holds, and gives back. */
static void test_after_a_death(void **state) {
        drover_arena *a = fixture_arena(4096);
        drover_mutex *m;
        assert_int_equal(drover_mutex_open(a, "mutex", 0, &m), 0);
        OWN(mutex, m);
        assert_int_equal(fixture_reap(a, fixture_fork(a, die_holding, NULL)), -SIGKILL);
        {
                DROVER_LOCKED(guard, m, 0);
                assert_int_equal(guard.result, -EOWNERDEAD);
                assert_int_equal(drover_mutex_consistent(m), 0);
        }
        assert_int_equal(drover_mutex_unlock(m), -EPERM);
        fixture_free(a);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_whatever_way_leads_out),
                cmocka_unit_test(test_not_taken),
                cmocka_unit_test(test_after_a_death),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
