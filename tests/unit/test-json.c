/* JSON values that printf cannot write. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/values/json.h"

#define ASSERT_WRITES(expected, call)                                                                                  \
        do {                                                                                                           \
                char *text = NULL;                                                                                     \
                size_t bytes;                                                                                          \
                FILE *f = open_memstream(&text, &bytes);                                                               \
                call;                                                                                                  \
                fclose(f);                                                                                             \
                assert_string_equal(text, expected);                                                                   \
                free(text);                                                                                            \
        } while (0)

static void test_strings(void **state) {
        ASSERT_WRITES("\"\"", json_write_string(f, "", 0));
        ASSERT_WRITES("\"a \\\"b\\\" \\\\\"", json_write_string(f, "a \"b\" \\", 7));
        ASSERT_WRITES("\"\\n\\t\\u0000\\u001b\\u007f\"", json_write_string(f, "\n\t\0\x1b\x7f", 5));
        ASSERT_WRITES("\"\\u0080\\u009f\xc2\xa0\"", json_write_string(f, "\xc2\x80\xc2\x9f\xc2\xa0", 6));
        ASSERT_WRITES("\"h\xc3\xa9\"", json_write_string(f, "h\xc3\xa9", 3));
        ASSERT_WRITES("\"\xef\xbf\xbd\xef\xbf\xbdx\"", json_write_string(f, "\xff\xc3x", 3));
}

static void test_base64(void **state) {
        ASSERT_WRITES("\"\"", json_write_base64(f, "", 0));
        ASSERT_WRITES("\"Zg==\"", json_write_base64(f, "f", 1));
        ASSERT_WRITES("\"Zm8=\"", json_write_base64(f, "fo", 2));
        ASSERT_WRITES("\"Zm9v\"", json_write_base64(f, "foo", 3));
        ASSERT_WRITES("\"Zm9vYmFy\"", json_write_base64(f, "foobar", 6));
        ASSERT_WRITES("\"AP/+\"", json_write_base64(f, "\0\xff\xfe", 3));
}

static void test_doubles_read_back(void **state) {
        ASSERT_WRITES("0.1", json_write_f64(f, 0.1));
        ASSERT_WRITES("3", json_write_f64(f, 3.0));
        ASSERT_WRITES("-0.0", json_write_f64(f, -0.0));
        ASSERT_WRITES("1e+300", json_write_f64(f, 1e300));
        ASSERT_WRITES("0.30000000000000004", json_write_f64(f, 0.1 + 0.2));
        ASSERT_WRITES("null", json_write_f64(f, NAN));
        ASSERT_WRITES("null", json_write_f64(f, -INFINITY));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_strings),
                cmocka_unit_test(test_base64),
                cmocka_unit_test(test_doubles_read_back),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
