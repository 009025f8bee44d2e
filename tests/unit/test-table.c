/* Tables line up whatever stands in the cells. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>

#include "daemon/ctl/show/table.h"

static const struct table_column columns[] = {{"NAME"}, {"N", true}, {"NOTE", .is_state = true, .rank = 1}};

static char *print_as(const char *const (*rows)[3], size_t n, const struct table_look *look) {
        struct table *t;
        char *text;
        size_t bytes;
        FILE *f = open_memstream(&text, &bytes);

        assert_int_equal(table_new(&t, columns, 3), 0);
        for (size_t i = 0; i < n; i++)
                assert_int_equal(table_add(t, rows[i]), 0);
        table_print(t, f, look);
        fclose(f);
        assert_null(table_free(t));
        return text;
}

static char *print(const char *const (*rows)[3], size_t n, bool with_headings) {
        return print_as(rows, n, &(const struct table_look){.with_headings = with_headings});
}

static void expect(const char *const (*rows)[3], size_t n, const struct table_look *look, const char *wanted) {
        char *text = print_as(rows, n, look);

        assert_string_equal(text, wanted);
        free(text);
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
        const char *const rows[][3] = {{"a\033[2Jb", NULL, ""}, {"a\nb\tc\x7f", "\xc2\x9b", "x"}};
        char *text = print(rows, 2, false);

        assert_string_equal(text, "a?[2Jb  -  -\n"
                                  "a?b?c?  ?  x\n");
        free(text);
}

static void test_fits_the_terminal(void **state) {
        const char *const rows[][3] = {{"a rather long name", "12345", "running"}, {"größte Länge", "1", "paused"}};

        expect(rows, 2, &(const struct table_look){true, false, 80},
               "NAME                    N  NOTE\n"
               "a rather long name  12345  running\n"
               "größte Länge            1  paused\n");
        expect(rows, 2, &(const struct table_look){true, false, 30},
               "NAME                N  NOTE\n"
               "a rather long…  12345  running\n"
               "größte Länge        1  paused\n");
        /* Not even with the name at its shortest: the column of the highest rank goes. */
        expect(rows, 2, &(const struct table_look){true, false, 20},
               "NAME               N\n"
               "a rather lon…  12345\n"
               "größte Länge       1\n");
        expect(rows, 2, &(const struct table_look){false, false, 12},
               "a rathe…  12345\n"
               "größte …      1\n"); /* no further: numbers are never cut */
}

static void test_without_ranks_the_last_columns_go(void **state) {
        static const struct table_column plain[] = {{"A", true}, {"B", true}, {"C", true}, {"D", true}};
        const struct table_look look = {.with_headings = true, .max_width = 7};
        struct table *t;
        char *text;
        size_t bytes;
        FILE *f = open_memstream(&text, &bytes);

        assert_int_equal(table_new(&t, plain, 4), 0);
        assert_int_equal(table_add(t, (const char *const[]){"1", "2", "3", "4"}), 0);
        table_print(t, f, &look);
        fclose(f);
        assert_string_equal(text, "A  B  C\n1  2  3\n");
        free(text);
        table_free(t);
}

static void test_colours(void **state) {
        const char *const rows[][3] = {{"running", "1", "running"}, {"x", "2", "idle"}, {"x", "3", "poisoned"}};

        expect(rows, 3, &(const struct table_look){false, true, 0},
               "running  1  \033[32mrunning\033[0m\n"
               "x        2  idle\n"
               "x        3  \033[31mpoisoned\033[0m\n");
        expect(rows, 1, &(const struct table_look){true, true, 0},
               "\033[1mNAME\033[0m     \033[1mN\033[0m  \033[1mNOTE\033[0m\n"
               "running  1  \033[32mrunning\033[0m\n");
}

static void test_empty_and_too_wide(void **state) {
        struct table_column many[17] = {{"X"}};
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
                cmocka_unit_test(test_fits_the_terminal),
                cmocka_unit_test(test_without_ranks_the_last_columns_go),
                cmocka_unit_test(test_colours),
                cmocka_unit_test(test_empty_and_too_wide),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
