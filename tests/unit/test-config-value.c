/* Times, sizes, booleans and numbers as unit files spell them, and everything that is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/config/config-value.h"

#define MS UINT64_C(1000000)
#define S (1000 * MS)

static void test_times(void **state) {
        static const struct {
                const char *text;
                uint64_t ns;
        } good[] = {
                {"0", 0},
                {"20", 20 * S},
                {"5min", 300 * S},
                {"100ms", 100 * MS},
                {"1h 30min", 5400 * S},
                {"1h30min", 5400 * S},
                {"2 min", 120 * S},
                {"1.5s", 1500 * MS},
                {"0.1s", 100 * MS},
                {".5", 0},
                {"250us", 250000},
                {"250\xc2\xb5s", 250000},
                {"7ns", 7},
                {"1d 2h 3m 4s", (86400 + 7200 + 180 + 4) * S},
                {"1w", 7 * 86400 * S},
                {"1.000000001s", S + 1},
                {"infinity", VALUE_INFINITY},
        };
        uint64_t ns;

        for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
                if (good[i].text[0] == '.') {
                        assert_int_equal(value_parse_time(good[i].text, &ns), -EINVAL);
                        continue;
                }
                assert_int_equal(value_parse_time(good[i].text, &ns), 0);
                assert_true(ns == good[i].ns);
        }
}

static void test_no_times(void **state) {
        static const char *const bad[] = {
                "",    " ",    "min",   "5 parsecs", "-5", "+5",        "5min x",   "5..5s", "5.s",
                "1e3", "0x10", "5min,", " 5",        "5 ", "infinity5", "Infinity", "5mins",
        };
        uint64_t ns = 77;

        for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
                if (value_parse_time(bad[i], &ns) != -EINVAL)
                        fail_msg("\"%s\" was taken for a time", bad[i]);
                assert_true(ns == 77);
        }
        assert_int_equal(value_parse_time("99999999999999999999", &ns), -ERANGE);
        assert_int_equal(value_parse_time("1000y", &ns), -ERANGE);
        assert_int_equal(value_parse_time("500y 500y", &ns), -ERANGE);
}

static void test_sizes(void **state) {
        uint64_t n;

        assert_int_equal(value_parse_size("4096", &n), 0);
        assert_true(n == 4096);
        assert_int_equal(value_parse_size("4K", &n), 0);
        assert_true(n == 4096);
        assert_int_equal(value_parse_size("512M", &n), 0);
        assert_true(n == UINT64_C(512) << 20);
        assert_int_equal(value_parse_size("1.5G", &n), 0);
        assert_true(n == UINT64_C(3) << 29);
        assert_int_equal(value_parse_size("infinity", &n), 0);
        assert_true(n == VALUE_INFINITY);
        assert_int_equal(value_parse_size("4k", &n), -EINVAL);
        assert_int_equal(value_parse_size("4K 4K", &n), -EINVAL);
        assert_int_equal(value_parse_size("", &n), -EINVAL);
        assert_int_equal(value_parse_size("99999999T", &n), -ERANGE);
}

static void test_booleans_and_numbers(void **state) {
        uint64_t n;
        bool b = false;

        assert_int_equal(value_parse_bool("Yes", &b), 0);
        assert_true(b);
        assert_int_equal(value_parse_bool("off", &b), 0);
        assert_false(b);
        assert_int_equal(value_parse_bool("maybe", &b), -EINVAL);
        assert_int_equal(value_parse_bool("", &b), -EINVAL);
        assert_int_equal(value_parse_number("18446744073709551615", &n), 0);
        assert_true(n == UINT64_MAX);
        assert_int_equal(value_parse_number("18446744073709551616", &n), -ERANGE);
        assert_int_equal(value_parse_number("12x", &n), -EINVAL);
        assert_int_equal(value_parse_number("-1", &n), -EINVAL);
}

/* Any bytes give an answer, and what is taken is taken the same way twice. */
static void test_any_text(void **state) {
        static const char letters[] = "0123456789.. mshdwyMKGTBinu\xc2\xb5\xce\xbc-+e";
        char text[12];
        uint64_t a, b;

        srandom(20);
        for (unsigned round = 0; round < 200000; round++) {
                size_t n = (size_t)random() % sizeof(text);

                for (size_t i = 0; i < n; i++)
                        text[i] = letters[(size_t)random() % (sizeof(letters) - 1)];
                text[n ? n - 1 : 0] = '\0';
                if (value_parse_time(text, &a) == 0) {
                        assert_int_equal(value_parse_time(text, &b), 0);
                        assert_true(a == b);
                        assert_true(text[0] >= '0' && text[0] <= '9');
                }
                if (value_parse_size(text, &a) == 0)
                        assert_true(text[0] >= '0' && text[0] <= '9');
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_times),    cmocka_unit_test(test_no_times),
                cmocka_unit_test(test_sizes),    cmocka_unit_test(test_booleans_and_numbers),
                cmocka_unit_test(test_any_text),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
