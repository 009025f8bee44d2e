/* Well-formed and ill-formed UTF-8, byte by byte; and what of it a terminal gets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/values/utf8.h"

static void test_well_formed(void **state) {
        const char *good[] = {"a",
                              "\x7f",
                              "\xc2\x80",
                              "\xdf\xbf",
                              "\xe0\xa0\x80",
                              "\xed\x9f\xbf",
                              "\xee\x80\x80",
                              "\xf0\x90\x80\x80",
                              "\xf4\x8f\xbf\xbf"};
        for (unsigned i = 0; i < sizeof good / sizeof *good; i++)
                assert_int_equal(utf8_length(good[i], strlen(good[i])), strlen(good[i]));
        assert_int_equal(utf8_length("\0", 1), 1);
        assert_int_equal(utf8_length("ab", 2), 1);
}

static void test_ill_formed(void **state) {
        const char *bad[] = {
                "\x80",
                "\xbf",
                "\xc0\x80",
                "\xc1\xbf",
                "\xc2",
                "\xc2\x41",
                "\xe0\x9f\xbf",
                "\xe0\xa0",
                "\xe1\x80\x41",
                "\xed\xa0\x80",
                "\xf0\x8f\xbf\xbf",
                "\xf0\x90\x80",
                "\xf4\x90\x80\x80",
                "\xf5\x80\x80\x80",
                "\xff",
        };
        for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
                assert_int_equal(utf8_length(bad[i], strlen(bad[i])), 0);
        assert_int_equal(utf8_length("", 0), 0);
}

/* The table against the definition: every code point encodes to what is accepted, and nothing else is. */
static void test_every_code_point(void **state) {
        for (uint32_t c = 0; c < 0x120000; c++) {
                char s[4];
                size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
                const unsigned char heads[] = {0, 0, 0xc0, 0xe0, 0xf0};
                for (size_t i = n; i-- > 1;)
                        s[i] = (char)(0x80 | (c >> 6 * (n - 1 - i) & 0x3f));
                s[0] = (char)(n == 1 ? c : heads[n] | c >> 6 * (n - 1));
                int is_legal = c < 0xd800 || (c > 0xdfff && c < 0x110000);
                assert_int_equal(utf8_length(s, n), is_legal ? n : 0);
        }
}

static void test_plain_text(void **state) {
        char *plain = utf8_plain("a\tb\n\033c\0d", 8, "\t\n");

        assert_string_equal(plain, "a\tb\n?c?d");
        free(plain);
        char text[] = "a\xc2\x9b"
                      "2J\x9b\x7f\xc2\xa0\xe2\x82\xac\xe2\x82";
        size_t n = utf8_make_plain(text, text, sizeof text - 1, "", '!');
        assert_int_equal(n, 13);
        assert_memory_equal(text, "a!2J!!\xc2\xa0\xe2\x82\xac!!", n);
}

static void test_a_cut_is_behind_a_character(void **state) {
        const char *text = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80";
        const size_t whole[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10};
        for (size_t n = 0; n <= strlen(text); n++)
                assert_int_equal(utf8_cut(text, n), whole[n]);
        assert_int_equal(utf8_cut("\xa9\xa9\xa9\xa9", 4), 4); /* no UTF-8 to begin with */
        assert_int_equal(utf8_cut("\xa9", 1), 1);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_well_formed),
                cmocka_unit_test(test_ill_formed),
                cmocka_unit_test(test_every_code_point),
                cmocka_unit_test(test_plain_text),
                cmocka_unit_test(test_a_cut_is_behind_a_character),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
