/* Tables line up whatever stands in the cells. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>

#include "daemon/ctl/table.h"

static const struct table_column columns[] = {{"NAME", false}, {"N", true}, {"NOTE", false}};

static char *print(const char *const (*rows)[3], size_t n, bool with_headings) {
        struct table *t;
        char *text;
        size_t bytes;
        FILE *f = open_memstream(&text, &bytes);

        assert_int_equal(table_new(&t, columns, 3), 0);
        for (size_t i = 0; i < n; i++)
                assert_int_equal(table_add(t, rows[i]), 0);
        table_print(t, f, with_headings);
        fclose(f);
        assert_null(table_free(t));
        return text;
}

static void test_columns_line_up(void **state) {
        const char *const rows[][3] = {{"a", "1", "x"}, {"long name", "12345", "y z"}};
        char *text = print(rows, 2, true);

        assert_string_equal(text, "NAME           N  NOTE\n"
                                  "a              1  x\n"
                                  "long name  12345  y z\n");
        free(text);
        text = print(rows, 1, false);
        assert_string_equal(text, "a  1  x\n");
        free(text);
}

static void test_width_is_in_characters(void **state) {
        const char *const rows[][3] = {{"größe", "1", "x"}, {"groess", "2", "y"}};
        char *text = print(rows, 2, false);

        assert_string_equal(text, "größe   1  x\n"
                                  "groess  2  y\n");
        free(text);
}

static void test_nothing_reaches_the_terminal_but_text(void **state) {
        const char *const rows[][3] = {{"a\033[2Jb", NULL, ""}, {"a\nb\tc\x7f", "1", "x"}};
        char *text = print(rows, 2, false);

        assert_string_equal(text, "a?[2Jb  -  -\n"
                                  "a?b?c?  1  x\n");
        free(text);
}

static void test_empty_and_too_wide(void **state) {
        struct table_column many[17] = {{"X", false}};
        struct table *t;
        char *text = print(NULL, 0, true);

        assert_string_equal(text, "NAME  N  NOTE\n");
        free(text);
        assert_int_equal(table_new(&t, many, 17), -EINVAL);
        assert_null(table_free(NULL));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_columns_line_up),
                cmocka_unit_test(test_width_is_in_characters),
                cmocka_unit_test(test_nothing_reaches_the_terminal_but_text),
                cmocka_unit_test(test_empty_and_too_wide),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
