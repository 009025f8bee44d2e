/* Lines come whole, in order, and without blocking; the buffer stays as large as it is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/ctl/words/lines.h"

/* A reader over a pipe; what is written to *ret_fd comes out. */
static void open_pipe(struct lines *l, int *ret_fd) {
        char path[32];
        int fds[2];

        assert_int_equal(pipe(fds), 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fds[0]);
        assert_int_equal(lines_open(l, path), 0);
        close(fds[0]);
        *ret_fd = fds[1];
}

static void put(int fd, const char *text) { assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text)); }

static void expect(struct lines *l, const char *wanted) {
        char *line;
        size_t bytes;

        assert_int_equal(lines_next(l, &line, &bytes), 1);
        assert_string_equal(line, wanted);
        assert_int_equal(bytes, strlen(wanted));
}

static void test_pieces(void **state) {
        struct lines l;
        char *line;
        size_t bytes;
        int fd;

        open_pipe(&l, &fd);
        assert_int_equal(lines_next(&l, &line, &bytes), 0);
        put(fd, "one\ntw");
        expect(&l, "one");
        assert_int_equal(lines_next(&l, &line, &bytes), 0);
        put(fd, "o\n\nlast");
        expect(&l, "two");
        expect(&l, "");
        assert_int_equal(lines_next(&l, &line, &bytes), 0);
        close(fd);
        expect(&l, "last");
        assert_int_equal(lines_next(&l, &line, &bytes), -ENODATA);
        assert_int_equal(lines_next(&l, &line, &bytes), -ENODATA);
        assert_int_equal(l.n_lines, 4);
        lines_close(&l);
}

static void test_a_file_of_any_size(void **state) {
        char path[] = "/tmp/test-lines-XXXXXX", wanted[32];
        struct lines l;
        FILE *f = fdopen(mkstemp(path), "w");

        for (unsigned i = 0; i < 300000; i++)
                fprintf(f, "%u\n", i);
        assert_int_equal(fclose(f), 0);
        assert_int_equal(lines_open(&l, path), 0);
        for (unsigned i = 0; i < 300000; i++) {
                snprintf(wanted, sizeof wanted, "%u", i);
                expect(&l, wanted);
        }
        assert_int_equal(l.n_bytes, l.total_bytes);
        lines_close(&l);
        unlink(path);
}

static void test_a_line_that_never_ends(void **state) {
        static const unsigned longs[] = {LINES_MAX, LINES_MAX + 1, 3 * LINES_MAX};
        char path[] = "/tmp/test-lines-XXXXXX", *line;
        struct lines l;
        size_t bytes;
        FILE *f = fdopen(mkstemp(path), "w");

        for (unsigned k = 0; k < 3; k++) {
                for (unsigned i = 0; i < longs[k]; i++)
                        fputc('x', f);
                fputs("\nshort\n", f);
        }
        for (unsigned i = 0; i < LINES_MAX + 10; i++)
                fputc('y', f);
        assert_int_equal(fclose(f), 0);
        assert_int_equal(lines_open(&l, path), 0);
        for (unsigned k = 0; k < 3; k++) {
                assert_int_equal(lines_next(&l, &line, &bytes), longs[k] > LINES_MAX ? -EMSGSIZE : 1);
                assert_int_equal(bytes, LINES_MAX);
                assert_int_equal(strspn(line, "x"), LINES_MAX);
                expect(&l, "short");
        }
        assert_int_equal(lines_next(&l, &line, &bytes), -EMSGSIZE);
        assert_int_equal(lines_next(&l, &line, &bytes), -ENODATA);
        assert_int_equal(l.n_lines, 7);
        assert_int_equal(l.n_bytes, l.total_bytes);
        lines_close(&l);
        unlink(path);
}

/* What is dropped of a line comes when it comes, too. */
static void test_a_long_line_in_pieces(void **state) {
        char piece[4096], *line;
        struct lines l;
        size_t bytes;
        int fd, r;

        memset(piece, 'x', sizeof piece);
        open_pipe(&l, &fd);
        do {
                assert_int_equal(write(fd, piece, sizeof piece), sizeof piece);
                r = lines_next(&l, &line, &bytes);
        } while (r == 0);
        assert_int_equal(r, -EMSGSIZE);
        assert_int_equal(lines_next(&l, &line, &bytes), 0);
        put(fd, "xx");
        assert_int_equal(lines_next(&l, &line, &bytes), 0);
        put(fd, "x\nnext\n");
        expect(&l, "next");
        assert_int_equal(l.n_lines, 2);
        close(fd);
        lines_close(&l);
}

static void test_what_cannot_be_read(void **state) {
        struct lines l;

        assert_int_equal(lines_open(&l, "/nonexistent"), -ENOENT);
        assert_int_equal(lines_open(&l, "/"), -EISDIR);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_pieces),
                cmocka_unit_test(test_a_file_of_any_size),
                cmocka_unit_test(test_a_line_that_never_ends),
                cmocka_unit_test(test_a_long_line_in_pieces),
                cmocka_unit_test(test_what_cannot_be_read),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
