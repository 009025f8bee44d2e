/* Times and sizes as people read them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <time.h>

#include "daemon/ctl/show/text.h"

static void test_durations(void **state) {
        static const struct {
                uint64_t us;
                const char *text;
        } cases[] = {{0, "0 µs"},
                     {999, "999 µs"},
                     {1000, "1.0 ms"},
                     {36642, "36.6 ms"},
                     {1000000, "1.0 s"},
                     {59900000, "59.9 s"},
                     {60000000, "1min 0s"},
                     {3599000000, "59min 59s"},
                     {12000000000, "3h 20min"},
                     {86400000000, "1d 0h"},
                     {UINT64_MAX, "213503982d 8h"}};
        char text[TEXT_MAX];

        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
                assert_string_equal(text_duration(cases[i].us, text), cases[i].text);
}

static void test_bytes(void **state) {
        static const struct {
                uint64_t bytes;
                const char *text;
        } cases[] = {{0, "0"},
                     {1023, "1023"},
                     {1024, "1.0K"},
                     {1536, "1.5K"},
                     {10 * 1024, "10K"},
                     {UINT64_C(512) << 20, "512M"},
                     {UINT64_C(3) << 29, "1.5G"},
                     {UINT64_MAX, "16E"}};
        char text[TEXT_MAX];

        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
                assert_string_equal(text_bytes(cases[i].bytes, text), cases[i].text);
}

static void test_moments(void **state) {
        char text[TEXT_MAX];

        setenv("TZ", "UTC", 1);
        tzset();
        assert_string_equal(text_moment(UINT64_C(951868799999999), text), "2000-02-29 23:59:59");
        assert_true(text_since(1) > UINT64_C(1600000000000000));
        assert_int_equal(text_since(0), 0);
        assert_int_equal(text_since(UINT64_MAX), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_durations),
                cmocka_unit_test(test_bytes),
                cmocka_unit_test(test_moments),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
