/* The buckets of the latency histograms, and quantiles from them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ipc/memory/latency.h"

static void test_buckets_cover_all_values_in_order(void **state) {
        uint64_t bottom_ns = 0;
        for (unsigned i = 0; i < LAYOUT_LATENCY_BUCKETS; i++) {
                uint64_t top_ns = latency_bucket_top_ns(i);
                assert_int_equal(latency_bucket(bottom_ns), i);
                assert_int_equal(latency_bucket(top_ns), i);
                if (i >= 8 && i < LAYOUT_LATENCY_BUCKETS - 1) /* the promise: an eighth */
                        assert_true(top_ns - bottom_ns < bottom_ns / 8 + 1);
                bottom_ns = top_ns + 1;
        }
        assert_int_equal(bottom_ns, 0); /* past the last one the values are over */
        assert_true(latency_bucket_top_ns(LAYOUT_LATENCY_BUCKETS - 2) > UINT64_C(3600) * 1000000000);
}

static int compare(const void *a, const void *b) {
        uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
        return (x > y) - (x < y);
}

static void test_quantiles_are_at_most_an_eighth_too_large(void **state) {
        enum { N = 5000 };
        static struct layout_latency lines[2];
        static uint64_t values[N];
        struct latency_sum sum = {0};
        memset(lines, 0, sizeof(lines));
        srand(7);
        for (unsigned i = 0; i < N; i++) {
                values[i] = (uint64_t)(unsigned)rand() >> (unsigned)rand() % 24;
                latency_count(&lines[i % 2], values[i]);
        }
        qsort(values, N, sizeof(*values), compare);
        latency_add(&sum, &lines[0]);
        latency_add(&sum, &lines[1]);
        assert_int_equal(sum.n, N);
        assert_int_equal(sum.max_ns, values[N - 1]);
        for (unsigned per_mille = 1; per_mille <= 1000; per_mille++) {
                uint64_t exact = values[(N * per_mille + 999) / 1000 - 1], told = latency_quantile_ns(&sum, per_mille);
                assert_true(told >= exact);
                assert_true(told <= exact + exact / 8 + 128);
        }
        assert_int_equal(latency_quantile_ns(&sum, 1000), values[N - 1]);
}

static void test_nothing_and_nonsense(void **state) {
        struct latency_sum sum = {0};
        static struct layout_latency line;
        assert_int_equal(latency_quantile_ns(&sum, 500), 0);
        memset(&line, 0xff, sizeof(line)); /* a worker can write what it likes */
        latency_add(&sum, &line);
        latency_add(&sum, &line);
        assert_true(latency_quantile_ns(&sum, 500) <= sum.max_ns);
        assert_int_equal(sum.n, 0);
        memset(&line, 0x01, sizeof(line));
        memset(&line.counts[1], 0, sizeof(line.counts) - sizeof(line.counts[0]));
        line.counts[0] = 5;
        latency_add(&sum, &line);
        sum.max_ns = 1;
        assert_int_equal(latency_quantile_ns(&sum, 500), 1); /* never more than what was the most */
        memset(&line, 0, sizeof(line));
        latency_count(&line, UINT64_MAX);
        sum = (struct latency_sum){0};
        latency_add(&sum, &line);
        uint64_t century_ns = UINT64_C(100) * 365 * 86400 * 1000000000, said_ns = latency_quantile_ns(&sum, 500);
        assert_true(said_ns > century_ns && said_ns < 2 * century_ns); /* nothing takes longer */
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_buckets_cover_all_values_in_order),
                cmocka_unit_test(test_quantiles_are_at_most_an_eighth_too_large),
                cmocka_unit_test(test_nothing_and_nonsense),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
