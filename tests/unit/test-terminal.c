/* What a stranger wrote reaches no terminal as an order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "daemon/ctl/show/terminal.h"

static void assert_plain(const char *text, const char *expected) {
        char *plain = terminal_plain(text, strlen(text));

        assert_string_equal(plain, expected);
        free(plain);
}

static void test_plain(void **state) {
        assert_plain("", "");
        assert_plain("größer 写", "größer 写");
        assert_plain("\033[31mred\a\n\t\x7f", "?[31mred????");
        assert_plain("\xc2\x9b\x33\x31m\xc2\xa0", "?31m\xc2\xa0");
        assert_plain("\xff\xc3(\xe2\x82", "?\?(?\?");
}

int main(void) {
        const struct CMUnitTest tests[] = {cmocka_unit_test(test_plain)};

        return cmocka_run_group_tests(tests, NULL, NULL);
}
