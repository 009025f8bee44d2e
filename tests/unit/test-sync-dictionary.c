/* Dictionaries in an arena, also when one is killed who changes them (FEATURES 28). */
#include "tests/unit/sync-fixture.h"

#include "ipc/sync/arena/arena.h"

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

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_three_processes_update_one_dictionary),
                cmocka_unit_test(test_dictionary_edges),
                cmocka_unit_test(test_dictionary_with_an_impossible_count),
                cmocka_unit_test(test_dictionary_owner_dies),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
