/* Words and lines become the arguments of a job, or an error that names the word. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/ctl/words/arguments.h"
#include "ipc/values/args.h"

static uint8_t buffer[256];

static struct schema_fields fields(const char *signature) {
        struct schema_fields f;
        char error[128];

        assert_int_equal(schema_parse_fields(signature, &f, error, sizeof error), 0);
        return f;
}

/* The map as text, or "!" and the error. */
static char *line(const char *signature, const char *name, const char *text) {
        struct schema_fields f = fields(signature);
        char copy[256], error[ARGUMENTS_MAX_ERROR], *result;
        size_t bytes;

        snprintf(copy, sizeof copy, "%s", text);
        if (arguments_from_line(&f, name, copy, strlen(copy), buffer, sizeof buffer, &bytes, error) < 0)
                assert_true(asprintf(&result, "!%s", error) > 0);
        else
                assert_int_equal(args_to_text(&f, buffer, bytes, &result), 0);
        return result;
}

static void expect(const char *signature, const char *name, const char *text, const char *wanted) {
        char *got = line(signature, name, text);

        if (wanted[0] == '!')
                assert_non_null(strstr(got, wanted + 1));
        else
                assert_string_equal(got, wanted);
        free(got);
}

static void test_lines(void **state) {
        expect("n:u64", "n", "97", "n=97");
        expect("n:u64", NULL, "97", "n=97");
        expect("n:u64", NULL, "many", "!many");
        expect("n:u64", NULL, "", "!n");
        expect("s:str", NULL, "any text = \"this\"", "s=\"any text = \\\"this\\\"\"");
        expect("a:u64,b:str", NULL, "a=1 b=x", "a=1 b=x");
        expect("a:u64,b:str", NULL, "\ta=1   b=\"x y\"", "a=1 b=\"x y\"");
        expect("a:u64,b:str", NULL, "a=1 b=\"x \\\" y\"", "a=1 b=\"x \\\" y\"");
        expect("a:u64,b:str", NULL, "a=1", "!b");
        expect("a:u64,b:str", NULL, "a=1 b=x c=2", "!c");
        expect("a:u64,b:str", NULL, "1 x", "!1");
        expect("a:u64,b:str", "a", "1", "!b");
}

static struct arguments_fds files;

static void test_words(void **state) {
        struct schema_fields f = fields("n:u64,list:i64[]");
        char one[] = "n=1", two[] = "list=-1,2", odd[] = "odd", error[ARGUMENTS_MAX_ERROR], *text;
        char *good[] = {two, one}, *bad[] = {one, odd};
        size_t bytes;

        assert_int_equal(arguments_from_words(&f, good, 2, buffer, sizeof buffer, &bytes, &files, error), 0);
        assert_int_equal(args_to_text(&f, buffer, bytes, &text), 0);
        assert_non_null(strstr(text, "n=1"));
        assert_non_null(strstr(text, "list=-1,2"));
        free(text);
        assert_string_equal(one, "n=1"); /* the caller's words are as they were */
        assert_int_equal(arguments_from_words(&f, bad, 2, buffer, sizeof buffer, &bytes, &files, error), -EINVAL);
        assert_non_null(strstr(error, "odd"));
        assert_int_equal(arguments_from_words(&f, good, 2, buffer, 4, &bytes, &files, error), -EMSGSIZE);
}

static void test_files(void **state) {
        struct schema_fields f = fields("in:fd,out:fd");
        char in[] = "in=</dev/null", out[] = "out=>/dev/null", plain[] = "out=/dev/null",
             gone[] = "out=</nonexistent/x";
        char *good[] = {out, in}, *bad[] = {in, plain}, *lost[] = {in, gone}, error[ARGUMENTS_MAX_ERROR], *text;
        size_t bytes;

        assert_int_equal(arguments_from_words(&f, good, 2, buffer, sizeof buffer, &bytes, &files, error), 0);
        assert_int_equal(files.n_fds, 2);
        assert_int_equal(fcntl(files.fds[0], F_GETFL) & O_ACCMODE, O_WRONLY);
        assert_int_equal(fcntl(files.fds[1], F_GETFL) & O_ACCMODE, O_RDONLY);
        assert_int_equal(args_to_text(&f, buffer, bytes, &text), 0);
        assert_string_equal(text, "in=1 out=0");
        free(text);
        arguments_close(&files);
        assert_int_equal(files.n_fds, 0);
        assert_int_equal(arguments_from_words(&f, bad, 2, buffer, sizeof buffer, &bytes, &files, error), -EINVAL);
        assert_non_null(strstr(error, "out: a descriptor is <FILE or >FILE"));
        assert_int_equal(arguments_from_words(&f, lost, 2, buffer, sizeof buffer, &bytes, &files, error), -EINVAL);
        assert_non_null(strstr(error, "/nonexistent/x"));
        arguments_close(&files);
        expect("in:fd", NULL, "in=</dev/null", "!as text"); /* a line of input comes from who knows where */
}

static void test_raw(void **state) {
        struct schema_fields f = fields("raw");
        char word[] = "payload=some bytes", other[] = "n=1", text[] = "a\0b", error[ARGUMENTS_MAX_ERROR];
        char *words[] = {word, other};
        size_t bytes;

        assert_int_equal(arguments_from_words(&f, words, 1, buffer, sizeof buffer, &bytes, &files, error), 0);
        assert_int_equal(bytes, 10);
        assert_memory_equal(buffer, "some bytes", 10);
        assert_int_equal(arguments_from_words(&f, words + 1, 1, buffer, sizeof buffer, &bytes, &files, error), -EINVAL);
        assert_non_null(strstr(error, "n=1"));
        assert_int_equal(arguments_from_words(&f, words, 1, buffer, 5, &bytes, &files, error), -EMSGSIZE);
        assert_int_equal(arguments_from_line(&f, NULL, text, 3, buffer, sizeof buffer, &bytes, error), 0);
        assert_int_equal(bytes, 3);
        assert_memory_equal(buffer, text, 3);
        f = fields("s:str");
        assert_int_equal(arguments_from_line(&f, NULL, text, 3, buffer, sizeof buffer, &bytes, error), -EINVAL);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_lines),
                cmocka_unit_test(test_words),
                cmocka_unit_test(test_files),
                cmocka_unit_test(test_raw),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
