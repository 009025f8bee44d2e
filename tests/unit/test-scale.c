/* The scaling policy, walked through hours of load in no time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/supervise/facts/scale.h"

#define MS UINT64_C(1000000)

static struct scale_view view(uint64_t now_ns, uint32_t n_busy, uint64_t wait_ns) {
        return (struct scale_view){.now_ns = now_ns,
                                   .min = 0,
                                   .max = 8,
                                   .n_busy = n_busy,
                                   .n_held = n_busy,
                                   .has_work = wait_ns > 0,
                                   .longest_wait_ns = wait_ns};
}

static void test_up_by_half_when_a_job_waits(void **state) {
        static const uint32_t steps[] = {1, 2, 3, 5, 8, 8};
        struct scale s;
        uint64_t now_ns = 1;
        scale_init(&s, 0, now_ns);
        for (unsigned i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
                now_ns += SCALE_LOOK_NS;
                struct scale_view v = view(now_ns, s.target, SCALE_WAIT_NS);
                scale_look(&s, &v);
                assert_int_equal(s.target, steps[i]);
        }
}

static void test_waits_for_those_that_start(void **state) {
        struct scale s;
        scale_init(&s, 2, 1);
        struct scale_view v = view(2, 2, 100 * MS);
        v.is_starting = true;
        assert_false(scale_look(&s, &v));
        v.is_starting = false;
        assert_true(scale_look(&s, &v));
        assert_int_equal(s.target, 3);
}

static void test_short_waits_are_no_reason(void **state) {
        struct scale s;
        scale_init(&s, 2, 1);
        for (uint64_t t = 2; t < 60000 * MS; t += SCALE_LOOK_NS) {
                struct scale_view v = view(t, 2, SCALE_WAIT_NS - 1);
                assert_false(scale_look(&s, &v));
        }
}

/* At one start a second, say, jobs wait for a long time and another worker would not start them sooner. */
static void test_a_rate_is_no_reason(void **state) {
        struct scale s;
        uint64_t t = 1;
        scale_init(&s, 2, t);
        for (; t < SCALE_IDLE_NS + 2 * SCALE_LOOK_NS; t += SCALE_LOOK_NS) {
                struct scale_view v = view(t, t / SCALE_LOOK_NS % 50 == 0, 5000 * MS);
                v.is_rated = true;
                v.n_held = 0; /* at the very moment */
                scale_look(&s, &v);
                assert_in_range(s.target, 1, 2);
        }
        assert_int_equal(s.target, 1); /* one was busy at a time */
        for (; t < 3 * SCALE_IDLE_NS; t += SCALE_LOOK_NS) {
                struct scale_view v = view(t, 0, 5000 * MS);
                v.is_rated = true;
                assert_false(scale_look(&s, &v)); /* who waits for the next time is not sent home */
        }
        struct scale_view v = view(t, 1, 5000 * MS);
        v.is_rated = true;
        assert_true(scale_look(&s, &v)); /* all are busy: they take longer than the rate asks for */
        assert_int_equal(s.target, 2);
}

/* Down to what was needed at most in a window, in the end to the minimum, and then there is nothing to wake up for. */
static void test_down_to_what_was_needed(void **state) {
        struct scale s;
        uint64_t t = 1;
        scale_init(&s, 8, t);
        for (; t < SCALE_IDLE_NS; t += SCALE_LOOK_NS) {
                struct scale_view v = view(t, t / SCALE_LOOK_NS == 20 ? 3 : 1, 0);
                assert_false(scale_look(&s, &v));
        }
        struct scale_view v = view(t + SCALE_LOOK_NS, 1, 0);
        assert_true(scale_look(&s, &v));
        assert_int_equal(s.target, 3);
        v.n_busy = 0;
        while (scale_next_ns(&s, 0)) {
                v.now_ns = scale_next_ns(&s, 0);
                scale_look(&s, &v);
                assert_true(v.now_ns < t + 4 * SCALE_IDLE_NS);
        }
        assert_int_equal(s.target, 0);
        v.min = 2;
        assert_true(scale_look(&s, &v));
        assert_int_equal(s.target, 2);
        assert_int_equal(scale_next_ns(&s, 2), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_up_by_half_when_a_job_waits), cmocka_unit_test(test_waits_for_those_that_start),
                cmocka_unit_test(test_short_waits_are_no_reason),   cmocka_unit_test(test_a_rate_is_no_reason),
                cmocka_unit_test(test_down_to_what_was_needed),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
