/* The restart policy: growth, cap, jitter bounds, start limit, reset. No clock: times are arguments. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/supervise/facts/restart.h"

#define MS UINT64_C(1000000)

static const struct restart_policy policy = {
        .delay_ns = 100 * MS, .max_delay_ns = 30000 * MS, .burst = 5, .interval_ns = 10000 * MS};

static uint64_t delay_after_failure(struct restart *r, uint64_t now) {
        restart_note_failure(r, &policy, now);
        return r->not_before_ns - now;
}

static void test_doubles_with_jitter(void **state) {
        for (uint64_t seed = 1; seed < 500; seed++) {
                struct restart r;
                restart_init(&r, seed);
                uint64_t expected = 100 * MS, now = 0;
                for (unsigned i = 0; i < 4; i++) {
                        uint64_t delay = delay_after_failure(&r, now += 11000 * MS);
                        assert_true(delay >= expected * 3 / 4 && delay <= expected * 5 / 4);
                        expected *= 2;
                }
                assert_false(r.is_degraded);
        }
}

static void test_never_past_the_cap(void **state) {
        struct restart r;
        restart_init(&r, 7);
        for (uint64_t i = 0; i < 200; i++)
                assert_true(delay_after_failure(&r, i * 60000 * MS) <= policy.max_delay_ns * 5 / 4);
}

static void test_jitter_differs(void **state) {
        struct restart a, b;
        restart_init(&a, 2);
        restart_init(&b, 4000);
        assert_int_not_equal(delay_after_failure(&a, 0), delay_after_failure(&b, 0));
}

static void test_burst_degrades(void **state) {
        struct restart r;
        restart_init(&r, 3);
        for (uint32_t i = 0; i < policy.burst; i++) {
                restart_note_failure(&r, &policy, 1000 * MS + i);
                assert_false(r.is_degraded);
        }
        uint64_t delay = delay_after_failure(&r, 1001 * MS);
        assert_true(r.is_degraded);
        assert_true(delay >= policy.max_delay_ns * 3 / 4); /* slowly, but it goes on trying */
}

static void test_spread_out_failures_do_not_degrade(void **state) {
        struct restart r;
        restart_init(&r, 3);
        for (uint64_t i = 0; i < 50; i++)
                restart_note_failure(&r, &policy, i * 3000 * MS);
        assert_false(r.is_degraded);
}

static void test_a_hang_degrades_at_once(void **state) {
        struct restart r;
        restart_init(&r, 3);
        restart_note_hang(&r, &policy, 0);
        assert_true(r.is_degraded);
        assert_true(r.not_before_ns <= 125 * MS); /* the first pause is as after any failure */
        assert_true(delay_after_failure(&r, 5) >= policy.max_delay_ns * 3 / 4);
}

static void test_healthy_and_reset(void **state) {
        struct restart r;
        restart_init(&r, 9);
        for (unsigned i = 0; i < 20; i++)
                restart_note_failure(&r, &policy, i);
        assert_true(r.is_degraded);
        restart_note_healthy(&r);
        assert_false(r.is_degraded);
        assert_int_equal(r.not_before_ns, 0);
        assert_true(delay_after_failure(&r, 5) <= 125 * MS);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_doubles_with_jitter),
                cmocka_unit_test(test_never_past_the_cap),
                cmocka_unit_test(test_jitter_differs),
                cmocka_unit_test(test_burst_degrades),
                cmocka_unit_test(test_spread_out_failures_do_not_degrade),
                cmocka_unit_test(test_a_hang_degrades_at_once),
                cmocka_unit_test(test_healthy_and_reset),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
