/* Who gives up a place and who gets it, without bells. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/supervise/facts/places.h"

#define MS UINT64_C(1000000)

static void test_the_longest_idle_goes(void **state) {
        const struct places_holder holders[] = {
                {.is_busy = true, .active_ns = 900 * MS, .since_ns = 1 * MS},
                {.active_ns = 500 * MS, .since_ns = 10 * MS},
                {.active_ns = 300 * MS, .since_ns = 290 * MS},
                {.active_ns = 400 * MS, .since_ns = 2 * MS},
        };
        assert_int_equal(places_victim(holders, 4, 900 * MS), 2);
}

/* Seen by one look only: then whoever has had it longer. */
static void test_equally_idle(void **state) {
        const struct places_holder holders[] = {
                {.active_ns = 300 * MS, .since_ns = 30 * MS},
                {.active_ns = 300 * MS, .since_ns = 20 * MS},
                {.active_ns = 300 * MS, .since_ns = 25 * MS},
        };
        assert_int_equal(places_victim(holders, 3, 300 * MS), 1);
}

/* Idle is idle: it has no term. */
static void test_idle_goes_at_once(void **state) {
        const struct places_holder holders[] = {
                {.is_busy = true, .since_ns = 1 * MS},
                {.active_ns = 1000 * MS, .since_ns = 1000 * MS},
        };
        assert_int_equal(places_victim(holders, 2, 1000 * MS), 1);
}

static void test_all_busy(void **state) {
        const struct places_holder holders[] = {
                {.is_busy = true, .active_ns = 1, .since_ns = 30 * MS},
                {.is_busy = true, .active_ns = 3, .since_ns = 20 * MS},
                {.is_busy = true, .active_ns = 2, .since_ns = 25 * MS},
        };
        assert_int_equal(places_victim(holders, 3, 20 * MS + PLACES_TERM_NS - 1), -1);
        assert_int_equal(places_victim(holders, 3, 20 * MS + PLACES_TERM_NS), 1);
        assert_int_equal(places_victim(holders, 0, 20 * MS + PLACES_TERM_NS), -1);
}

/* 40 that never rest and 15 places: in any time that all of them need to come round, each has its term. */
static void test_all_come_round(void **state) {
        enum { ALL = 40, PLACES = 15, ROUNDS = 12 };
        struct places_holder holders[PLACES];
        unsigned who[PLACES], n_terms[ALL] = {0};
        uint64_t until_ns[ALL] = {0}, now_ns = 1;
        for (unsigned i = 0; i < PLACES; i++) {
                who[i] = i;
                n_terms[i] = 1;
                holders[i] = (struct places_holder){.is_busy = true, .since_ns = now_ns + i};
        }
        while (n_terms[0] < ROUNDS) {
                now_ns += PLACES_TERM_NS / 7;
                int victim = places_victim(holders, PLACES, now_ns);
                if (victim < 0)
                        continue;
                uint64_t asking_ns[ALL];
                unsigned asking[ALL], n = 0;
                for (unsigned i = 0; i < ALL; i++) {
                        unsigned k = 0;
                        while (k < PLACES && who[k] != i)
                                k++;
                        if (k == PLACES) {
                                asking_ns[n] = until_ns[i];
                                asking[n++] = i;
                        }
                }
                assert_int_equal(n, ALL - PLACES);
                unsigned next = asking[places_next(asking_ns, n)];
                until_ns[who[victim]] = now_ns;
                who[victim] = next;
                holders[victim].since_ns = now_ns;
                n_terms[next]++;
        }
        for (unsigned i = 0; i < ALL; i++)
                assert_in_range(n_terms[i], ROUNDS - 1, ROUNDS);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_the_longest_idle_goes), cmocka_unit_test(test_equally_idle),
                cmocka_unit_test(test_idle_goes_at_once),     cmocka_unit_test(test_all_busy),
                cmocka_unit_test(test_all_come_round),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
