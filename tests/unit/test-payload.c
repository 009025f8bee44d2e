/* Arguments without their schema: a map says itself what it holds, everything else is bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "daemon/ctl/words/payload.h"
#include "ipc/values/args.h"

static void assert_text(const void *data, size_t bytes, const char *expected) {
        struct schema_fields fields;
        char *text;

        payload_guess(data, bytes, &fields);
        assert_int_equal(args_to_text(&fields, data, bytes, &text), 0);
        assert_string_equal(text, expected);
        free(text);
}
#define ASSERT_TEXT(data, expected) assert_text(data, sizeof(data) - 1, expected)

static void test_maps(void **state) {
        ASSERT_TEXT("", "");
        ASSERT_TEXT("\x80", "");
        ASSERT_TEXT("\x82\xa1n\x61\xa1s\xa3x y", "n=97 s=\"x y\"");
        ASSERT_TEXT("\x83\xa1i\xff\xa1t\xc3\xa1y\xc4\x02\x01\xfe", "i=-1 t=true y=01fe");
        ASSERT_TEXT("\x82\xa1l\x93\x01\xfe\x03\xa1m\x92\x01\xcb\x3f\xe0\0\0\0\0\0\0", "l=1,-2,3 m=1,0.5");
        ASSERT_TEXT("\x81\xa1"
                    "e\x90",
                    "e=");
}

static void assert_raw(const void *data, size_t bytes) {
        struct schema_fields fields;

        payload_guess(data, bytes, &fields);
        assert_true(fields.is_raw);
}
#define ASSERT_RAW(data) assert_raw(data, sizeof(data) - 1)

static void test_what_is_none(void **state) {
        ASSERT_RAW("hello");
        ASSERT_RAW("\x05");
        ASSERT_RAW("\x81\xa1n");                         /* cut off */
        ASSERT_RAW("\x80\x80");                          /* something behind it */
        ASSERT_RAW("\x81\x01\x02");                      /* no name */
        ASSERT_RAW("\x81\xa2\x1b[\x02");                 /* no name that a field can have */
        ASSERT_RAW("\x81\xa1n\xc0");                     /* nil */
        ASSERT_RAW("\x81\xa1n\x81\x01\x02");             /* a map in it */
        ASSERT_RAW("\x82\xa1n\x01\xa1n\x02");            /* twice */
        ASSERT_RAW("\x81\xa1l\x92\x01\xa1x");            /* mixed */
        ASSERT_RAW("\x81\xa1l\xdd\xff\xff\xff\xff\x01"); /* 2^32 - 1 elements, it says */
        ASSERT_RAW("\xdf\xff\xff\xff\xff\xa1n\x01");
        ASSERT_RAW("\x81\xa1s\xdb\xff\xff\xff\xffx");
        ASSERT_RAW("\x81\xa1s\xa1\xff"); /* text that is no UTF-8 */
}

int main(void) {
        const struct CMUnitTest tests[] = {cmocka_unit_test(test_maps), cmocka_unit_test(test_what_is_none)};

        return cmocka_run_group_tests(tests, NULL, NULL);
}
