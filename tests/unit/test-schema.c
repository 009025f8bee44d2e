/* Signatures and the schema text: what passes comes back the same, what does not is named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/values/schema.h"

enum { IS_PRIME = 0x17eb9db5, ECHO = 0x494d26ac };

static void test_signatures(void **state) {
        struct schema_fields f;
        char error[256];
        assert_int_equal(schema_parse_fields("n:u64,who:str,xs:f64[]", &f, error, sizeof error), 0);
        assert_int_equal(f.n_fields, 3);
        assert_int_equal(schema_find_field(&f, "who")->type, SCHEMA_STR);
        assert_true(schema_find_field(&f, "xs")->is_array);
        assert_null(schema_find_field(&f, "x"));
        assert_int_equal(schema_parse_fields("", &f, error, sizeof error), 0);
        assert_int_equal(f.n_fields, 0);
        assert_false(f.is_raw);
        assert_int_equal(schema_parse_fields("raw", &f, error, sizeof error), 0);
        assert_true(f.is_raw);
        assert_string_equal(schema_type_name(SCHEMA_STR, true), "str[]");
        assert_string_equal(schema_type_name(SCHEMA_BYTES, true), "?");
        assert_string_equal(schema_type_name((enum schema_type)99, false), "?");
}

static void test_bad_signatures_name_the_word(void **state) {
        static const struct {
                const char *signature, *word;
        } bad[] = {
                {"n", "\"n\""},           {"n:u32", "\"u32\""},      {"1n:u64", "\"1n\""}, {":u64", "\"\""},
                {"a:u64,a:str", "\"a\""}, {"b:bytes[]", "bytes[]"},  {"x:", "\"x\""},      {"a:u64,", "comma"},
                {",a:u64", "\"\""},       {"a:u64,,b:u64", "\"\""},  {"-x:u64", "\"-x\""}, {"a b:u64", "\"a b\""},
                {"q:fd[]", "\"fd[]\""},   {"n\x1b[1m:u64", "n?[1m"},
        };
        for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
                struct schema_fields f;
                char error[256] = "";
                assert_int_equal(schema_parse_fields(bad[i].signature, &f, error, sizeof error), -EINVAL);
                if (!strstr(error, bad[i].word))
                        fail_msg("%s: \"%s\" does not name %s", bad[i].signature, error, bad[i].word);
        }
}

static void test_limits_of_a_signature(void **state) {
        char text[2048] = "", name[SCHEMA_MAX_NAME + 8], error[256];
        struct schema_fields f;
        size_t n = 0;
        for (int i = 0; i < SCHEMA_MAX_FIELDS; i++)
                n += (size_t)snprintf(text + n, sizeof text - n, "%sf%d:u64", i ? "," : "", i);
        assert_int_equal(schema_parse_fields(text, &f, error, sizeof error), 0);
        snprintf(text + n, sizeof text - n, ",more:u64");
        assert_int_equal(schema_parse_fields(text, &f, error, sizeof error), -EINVAL);
        assert_non_null(strstr(error, "\"more\""));

        memset(name, 'x', sizeof name);
        snprintf(name + SCHEMA_MAX_NAME - 1, 5, ":u64");
        assert_int_equal(schema_parse_fields(name, &f, error, sizeof error), 0);
        memset(name, 'x', sizeof name);
        snprintf(name + SCHEMA_MAX_NAME, 5, ":u64");
        assert_int_equal(schema_parse_fields(name, &f, error, sizeof error), -EINVAL);
}

static uint32_t number_of(const char *name, const char *args, const char *result) {
        struct schema_job j = {0};
        char error[256];
        snprintf(j.name, sizeof j.name, "%s", name);
        assert_int_equal(schema_parse_fields(args, &j.args, error, sizeof error), 0);
        assert_int_equal(schema_parse_fields(result, &j.result, error, sizeof error), 0);
        return schema_number(&j);
}

/* Parties of different builds compare it: these values stay. */
static void test_numbers(void **state) {
        assert_int_equal(number_of("is_prime", "n:u64", "prime:bool"), IS_PRIME);
        assert_int_equal(number_of("echo", "raw", "raw"), ECHO);
        static const char *const kinds[][3] = {
                {"a", "", ""},           {"b", "", ""},      {"a", "raw", ""},         {"a", "", "raw"},
                {"a", "n:u64", ""},      {"a", "", "n:u64"}, {"a", "n:i64", ""},       {"a", "n:u64[]", ""},
                {"a", "m:u64", ""},      {"n", "a:u64", ""}, {"a", "n:u64,m:u64", ""}, {"a", "m:u64,n:u64", ""},
                {"a", "n:u64", "m:u64"},
        };
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
                for (size_t k = 0; k < i; k++)
                        assert_int_not_equal(number_of(kinds[i][0], kinds[i][1], kinds[i][2]),
                                             number_of(kinds[k][0], kinds[k][1], kinds[k][2]));
}

static const char text_of_two[] =
        "primes\t1.0\nis_prime\tn:u64\tprime:bool\t7\t0\tIs n a prime?\necho\traw\traw\t1\t1\t\n";

static void test_text_there_and_back(void **state) {
        struct schema *s;
        char error[256], text[512];
        size_t bytes;
        assert_int_equal(schema_parse(text_of_two, sizeof text_of_two - 1, &s, error, sizeof error), 0);
        assert_string_equal(s->plugin, "primes");
        assert_int_equal(s->n_jobs, 2);
        uint32_t index;
        const struct schema_job *j = schema_find(s, "echo", &index);
        assert_int_equal(index, 1);
        assert_true(j->is_once && j->args.is_raw && j->result.is_raw && j->models == 1);
        assert_true(s->jobs[0].result.is_result);
        assert_false(s->jobs[0].args.is_result);
        assert_null(schema_find(s, "ech", NULL));
        assert_ptr_equal(schema_find_number(s, ECHO), j);
        assert_null(schema_find_number(s, 1));
        assert_true(schema_is_same(j, j));
        assert_false(schema_is_same(j, &s->jobs[0]));

        assert_int_equal(schema_write(s, text, sizeof text, &bytes), 0);
        assert_int_equal(bytes, sizeof text_of_two - 1);
        assert_memory_equal(text, text_of_two, bytes);
        for (size_t room = 1; room < sizeof text_of_two - 1; room += 7)
                assert_int_equal(schema_write(s, text, room, &bytes), -EMSGSIZE);

        char *json;
        assert_int_equal(schema_to_json(s, &json), 0);
        assert_string_equal(
                json, "{\"plugin\":\"primes\",\"version\":\"1.0\",\"jobs\":[{\"name\":\"is_prime\",\"args\":{\"n\":"
                      "\"u64\"},\"result\":{\"prime\":\"bool\"},\"once\":false,\"help\":\"Is n a prime?\"},{"
                      "\"name\":\"echo\",\"args\":\"raw\",\"result\":\"raw\",\"once\":true,\"help\":\"\"}]}");
        free(json);
        schema_free(s);
        assert_null(schema_free(NULL));
}

static void test_bad_texts_name_the_word(void **state) {
        static const struct {
                const char *text, *word;
        } bad[] = {
                {"", "0 bytes"},
                {"bad name\t1\nj\t\t\t1\t0\t\n", "\"bad name\""},
                {"p\tan version that is longer than it may be\nj\t\t\t1\t0\t\n", "version"},
                {"p\t1\textra\nj\t\t\t1\t0\t\n", "version"},
                {"p\t1", "no job type"},
                {"p\t1\n", "no job type"},
                {"p\t1\n\nj\t\t\t1\t0\t\n", "\"\""},
                {"p\t1\nj\tn:u65\t\t1\t0\t\n", "\"j\", arguments: field \"n\": unknown type \"u65\""},
                {"p\t1\nj\t\tn:u65\t1\t0\t\n", "\"j\", result"},
                {"p\t1\nj\t\t\t8\t0\t\n", "\"8\""},
                {"p\t1\nj\t\t\t0\t0\t\n", "\"0\""},
                {"p\t1\nj\t\t\tx\t0\t\n", "\"x\""},
                {"p\t1\nj\t\t\t1\t2\t\n", "\"2\""},
                {"p\t1\nj\t\t\t1\n", "\"\""},
                {"p\t1\nj\t\t\t1\t0\t\nj\t\t\t1\t0\t\n", "\"j\" stands twice"},
                /* FNV-1a makes the same number of these two words */
                {"p\t1\nliquid\t\t\t1\t0\t\ncostarring\t\t\t1\t0\t\n",
                 "\"liquid\" and \"costarring\" happen to have the same number"},
                {"p\t1\nj\t\t\t1\t0\thelp\tmore\n", "help"},
                {"p\t1\nj\t\t\t1\t0\t\xff\n", "help"},
                {"p\t1\nj\t\t\t1\t0\t\x1b[2J\n", "help"},
        };
        for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
                struct schema *s;
                char error[256] = "";
                assert_int_equal(schema_parse(bad[i].text, strlen(bad[i].text), &s, error, sizeof error), -EINVAL);
                if (!strstr(error, bad[i].word))
                        fail_msg("%s: \"%s\" does not name %s", bad[i].text, error, bad[i].word);
        }
        struct schema *s;
        assert_int_equal(schema_parse("p\t1\nj\0\t\t\t1\t0\t\n", 16, &s, NULL, 0), -EINVAL);
}

static void test_too_many_and_too_long(void **state) {
        char *text = malloc(SCHEMA_MAX_TEXT + 2), error[256];
        size_t n = (size_t)sprintf(text, "p\t1\n");
        for (int i = 0; i < SCHEMA_MAX_TYPES; i++)
                n += (size_t)sprintf(text + n, "j%d\t\t\t1\t0\t\n", i);
        struct schema *s;
        assert_int_equal(schema_parse(text, n, &s, error, sizeof error), 0);
        assert_int_equal(s->n_jobs, SCHEMA_MAX_TYPES);
        schema_free(s);
        n += (size_t)sprintf(text + n, "more\t\t\t1\t0\t\n");
        assert_int_equal(schema_parse(text, n, &s, error, sizeof error), -EINVAL);
        assert_non_null(strstr(error, "\"more\""));
        memset(text, 'x', SCHEMA_MAX_TEXT + 1);
        assert_int_equal(schema_parse(text, SCHEMA_MAX_TEXT + 1, &s, error, sizeof error), -EINVAL);
        free(text);
}

/* Broken copies of a good text: parsed or refused, never worse; what is accepted can be written again. */
static void test_mutations(void **state) {
        unsigned seed = 3;
        for (unsigned round = 0; round < 20000; round++) {
                size_t n = sizeof text_of_two - 1;
                char *text = malloc(n);
                memcpy(text, text_of_two, n);
                for (int k = rand_r(&seed) % 6; k >= 0; k--)
                        text[(size_t)rand_r(&seed) % n] = "\t\n:,raw0\xff\0u64[]"[rand_r(&seed) % 16];
                n -= (size_t)rand_r(&seed) % 8;
                text = realloc(text, n);
                struct schema *s;
                char error[256] = "", again[1024];
                size_t bytes;
                if (schema_parse(text, n, &s, error, sizeof error) == 0) {
                        assert_int_equal(schema_write(s, again, sizeof again, &bytes), 0);
                        schema_free(s);
                } else
                        assert_string_not_equal(error, "");
                free(text);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_signatures),
                cmocka_unit_test(test_bad_signatures_name_the_word),
                cmocka_unit_test(test_limits_of_a_signature),
                cmocka_unit_test(test_numbers),
                cmocka_unit_test(test_text_there_and_back),
                cmocka_unit_test(test_bad_texts_name_the_word),
                cmocka_unit_test(test_too_many_and_too_long),
                cmocka_unit_test(test_mutations),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
