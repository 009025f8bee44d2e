/* Typed arguments: written, checked, read, shown. Every refusal names the field and what is wrong with it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/values/args.h"

static struct schema_fields fields_of(const char *signature) {
        struct schema_fields f;
        char error[256];
        assert_int_equal(schema_parse_fields(signature, &f, error, sizeof error), 0);
        return f;
}

static struct args_value u64(uint64_t v) { return (struct args_value){.type = SCHEMA_U64, .u64 = v}; }

static struct args_value text(const char *s) {
        return (struct args_value){.type = SCHEMA_STR, .data = s, .bytes = strlen(s)};
}

static void test_every_type_there_and_back(void **state) {
        struct schema_fields f = fields_of("a:u64,b:i64,c:f64,d:bool,e:str,f:bytes,g:u64[],h:str[]");
        uint8_t map[512];
        struct args_writer w;
        size_t bytes;
        args_writer_init(&w, map, sizeof map);
        struct args_value a = u64(UINT64_MAX), e = text("h\xc3\xa9"), g[] = {u64(1), u64(300)},
                          h[] = {text(""), text("x")};
        struct args_value b = {.type = SCHEMA_I64, .i64 = INT64_MIN}, c = {.type = SCHEMA_F64, .f64 = -0.5};
        struct args_value d = {.type = SCHEMA_BOOL, .boolean = true},
                          v = {.type = SCHEMA_BYTES, .data = "\0\xff", .bytes = 2};
        assert_int_equal(args_put(&w, "a", &a), 0);
        assert_int_equal(args_put(&w, "b", &b), 0);
        assert_int_equal(args_put(&w, "c", &c), 0);
        assert_int_equal(args_put(&w, "d", &d), 0);
        assert_int_equal(args_put(&w, "e", &e), 0);
        assert_int_equal(args_put(&w, "f", &v), 0);
        assert_int_equal(args_put_array(&w, "g", g, 2), 0);
        assert_int_equal(args_put_array(&w, "h", h, 2), 0);
        assert_int_equal(args_finish(&w, &bytes), 0);

        char error[256] = "";
        if (args_check(&f, map, bytes, error, sizeof error) < 0)
                fail_msg("%s", error);
        assert_int_equal(args_get(map, bytes, "a", SCHEMA_U64, &v), 0);
        assert_true(v.u64 == UINT64_MAX);
        assert_int_equal(args_get(map, bytes, "b", SCHEMA_I64, &v), 0);
        assert_true(v.i64 == INT64_MIN);
        assert_int_equal(args_get(map, bytes, "c", SCHEMA_F64, &v), 0);
        assert_true(v.f64 == -0.5);
        assert_int_equal(args_get(map, bytes, "d", SCHEMA_BOOL, &v), 0);
        assert_true(v.boolean);
        assert_int_equal(args_get(map, bytes, "e", SCHEMA_STR, &v), 0);
        assert_memory_equal(v.data, "h\xc3\xa9", v.bytes);
        assert_int_equal(args_get(map, bytes, "f", SCHEMA_BYTES, &v), 0);
        assert_int_equal(v.bytes, 2);
        uint32_t n;
        assert_int_equal(args_array_length(map, bytes, "g", &n), 0);
        assert_int_equal(n, 2);
        assert_int_equal(args_get_element(map, bytes, "g", 1, SCHEMA_U64, &v), 0);
        assert_int_equal(v.u64, 300);
        assert_int_equal(args_get_element(map, bytes, "g", 2, SCHEMA_U64, &v), -ENOENT);
        assert_int_equal(args_get(map, bytes, "z", SCHEMA_U64, &v), -ENOENT);
        assert_int_equal(args_get(map, bytes, "a", SCHEMA_STR, &v), -EINVAL);
        assert_int_equal(args_get(map, bytes, "a", SCHEMA_I64, &v), -ERANGE);
        assert_int_equal(args_get(map, bytes, "g", SCHEMA_U64, &v), -EINVAL);
        assert_int_equal(args_array_length(map, bytes, "a", &n), -EINVAL);

        char *shown;
        assert_int_equal(args_to_text(&f, map, bytes, &shown), 0);
        assert_string_equal(
                shown,
                "a=18446744073709551615 b=-9223372036854775808 c=-0.5 d=true e=h\xc3\xa9 f=00ff g=1,300 h=\"\",x");
        free(shown);
        assert_int_equal(args_to_json(&f, map, bytes, &shown), 0);
        assert_string_equal(shown, "{\"a\":18446744073709551615,\"b\":-9223372036854775808,\"c\":-0.5,\"d\":true,\"e\":"
                                   "\"h\xc3\xa9\",\"f\":\"AP8=\",\"g\":[1,300],\"h\":[\"\",\"x\"]}");
        free(shown);
}

static void assert_refused(const char *signature, const char *map, size_t bytes, const char *expected) {
        struct schema_fields f = fields_of(signature);
        char error[256] = "";
        assert_int_equal(args_check(&f, map, bytes, error, sizeof error), -EINVAL);
        assert_string_equal(error, expected);
        assert_int_equal(args_check(&f, map, bytes, NULL, 0), -EINVAL);
}

#define REFUSED(signature, map, expected) assert_refused(signature, map, sizeof map - 1, expected)

static void test_refusals_name_the_field(void **state) {
        REFUSED("n:u64", "\x81\xa1n\xa1x", "argument \"n\": expected u64, got str");
        REFUSED("n:u64", "\x81\xa1n\xfd", "argument \"n\": -3 is out of range for u64");
        REFUSED("n:i64", "\x81\xa1n\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
                "argument \"n\": 18446744073709551615 is out of range for i64");
        REFUSED("n:f64", "\x81\xa1n\xcf\x00\x20\x00\x00\x00\x00\x00\x01",
                "argument \"n\": 9007199254740993 is out of range for f64");
        REFUSED("n:u64", "\x81\xa1n\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00", "argument \"n\": expected u64, got f64");
        REFUSED("n:u64", "\x80", "missing argument \"n\" (u64)");
        REFUSED("n:u64", "", "missing argument \"n\" (u64)");
        REFUSED("n:u64", "\x82\xa1n\x01\xa1m\x01", "unknown argument \"m\" (known: n)");
        REFUSED("", "\x81\xa3\x1b[m\x01", "unknown argument \"?[m\" (known: none)");
        REFUSED("n:u64", "\x82\xa1n\x01\xa1n\x01", "argument \"n\": stands twice");
        REFUSED("n:u64", "\x81\xa1n\x01\x00", "arguments: 1 bytes too many behind the map");
        REFUSED("n:u64", "\x91\x01", "arguments: expected a map, got an array");
        REFUSED("n:u64", "\x81\x01\x01", "arguments: a name must be str, got an integer");
        REFUSED("n:u64", "\x81\xa1n", "argument \"n\": cut off or not MessagePack");
        REFUSED("n:u64", "\xdf\xff\xff\xff\xff", "arguments: cut off or not MessagePack");
        REFUSED("s:str", "\x81\xa1s\xa2\xc3\x28", "argument \"s\": not valid UTF-8");
        REFUSED("s:str", "\x81\xa1s\xc4\x01x", "argument \"s\": expected str, got bytes");
        REFUSED("b:bytes",
                "\x81\xa1"
                "b\xa1x",
                "argument \"b\": expected bytes, got str");
        REFUSED("x:fd", "\x81\xa1x\x07", "argument \"x\": 7 is out of range for fd");
        REFUSED("x:fd", "\x81\xa1x\xff", "argument \"x\": -1 is out of range for fd");
        REFUSED("x:fd", "\x81\xa1x\xc3", "argument \"x\": expected fd, got bool");
        REFUSED("x:bool", "\x81\xa1x\xc0", "argument \"x\": expected bool, got nil");
        REFUSED("x:u64[]", "\x81\xa1x\x01", "argument \"x\": expected u64[], got an integer");
        REFUSED("x:u64[]", "\x81\xa1x\x92\x01\xa1y", "argument \"x\"[1]: expected u64, got str");
        REFUSED("x:u64[]", "\x81\xa1x\x91\x91\x01", "argument \"x\"[0]: expected u64, got an array");
        REFUSED("x:u64[]", "\x81\xa1x\xdd\xff\xff\xff\xff\x01", "argument \"x\"[1]: cut off or not MessagePack");

        struct schema_fields f = fields_of("s:str");
        f.is_result = true;
        char error[256];
        assert_int_equal(args_check(&f, "\x81\xa1s\x01", 4, error, sizeof error), -EINVAL);
        assert_string_equal(error, "result \"s\": expected str, got an integer");
}

static void test_generous_with_numbers(void **state) {
        struct schema_fields f = fields_of("n:u64"), d = fields_of("x:f64"), raw = fields_of("raw"),
                             none = fields_of("");
        assert_int_equal(args_check(&f, "\x81\xa1n\xd3\0\0\0\0\0\0\0\x07", 12, NULL, 0), 0);
        struct args_value v;
        assert_int_equal(args_check(&d, "\x81\xa1x\x07", 4, NULL, 0), 0);
        assert_int_equal(args_get("\x81\xa1x\x07", 4, "x", SCHEMA_F64, &v), 0);
        assert_true(v.f64 == 7.0);
        assert_int_equal(args_check(&raw, "anything", 8, NULL, 0), 0);
        assert_int_equal(args_check(&none, "", 0, NULL, 0), 0);
        assert_int_equal(args_get("", 0, "x", SCHEMA_F64, &v), -ENOENT);
}

static void test_sixteen_fields_need_a_longer_head(void **state) {
        char signature[256] = "", name[8];
        uint8_t map[256];
        struct args_writer w;
        size_t n = 0, bytes;
        args_writer_init(&w, map, sizeof map);
        for (int i = 0; i < SCHEMA_MAX_FIELDS; i++) {
                n += (size_t)sprintf(signature + n, "%sf%d:u64", i ? "," : "", i);
                sprintf(name, "f%d", i);
                struct args_value v = u64((uint64_t)i);
                assert_int_equal(args_put(&w, name, &v), 0);
        }
        size_t needed = w.bytes + 2;
        struct args_writer copy = w;
        copy.capacity = needed - 1;
        assert_int_equal(args_finish(&copy, &bytes), -EMSGSIZE);
        assert_int_equal(args_finish(&w, &bytes), 0);
        assert_int_equal(bytes, needed);
        struct schema_fields f = fields_of(signature);
        assert_int_equal(args_check(&f, map, bytes, NULL, 0), 0);

        args_writer_init(&w, map, sizeof map);
        struct args_value v = u64(1);
        for (int i = 0; i < SCHEMA_MAX_FIELDS; i++)
                assert_int_equal(args_put(&w, "x", &v), 0);
        assert_int_equal(args_put(&w, "x", &v), -E2BIG);
}

static void test_a_buffer_that_is_too_small(void **state) {
        struct args_value v = text("twelve bytes");
        for (size_t room = 0; room <= 16; room++) {
                uint8_t *map = malloc(room ? room : 1);
                struct args_writer w;
                size_t bytes = 99;
                args_writer_init(&w, map, room);
                args_put(&w, "s", &v);
                int r = args_finish(&w, &bytes);
                assert_int_equal(r, room < 16 ? -EMSGSIZE : 0);
                free(map);
        }
}

static int put_text(const char *signature, const char *name, const char *value, char *error, char **shown) {
        struct schema_fields f = fields_of(signature);
        uint8_t map[64];
        struct args_writer w;
        size_t bytes;
        args_writer_init(&w, map, sizeof map);
        int r = args_put_text(&w, &f, name, value, error, 256);
        if (r < 0)
                return r;
        assert_int_equal(args_finish(&w, &bytes), 0);
        assert_int_equal(args_check(&f, map, bytes, error, 256), 0);
        return args_to_text(&f, map, bytes, shown);
}

static void test_text_from_a_command_line(void **state) {
        static const struct {
                const char *signature, *value, *shown;
        } good[] = {
                {"x:u64", "97", "x=97"},
                {"x:u64", "0x10", "x=16"},
                {"x:u64", "18446744073709551615", "x=18446744073709551615"},
                {"x:u64", "007", "x=7"},
                {"x:i64", "-9223372036854775808", "x=-9223372036854775808"},
                {"x:i64", "-0x10", "x=-16"},
                {"x:f64", "-1.5e3", "x=-1500"},
                {"x:f64", "nan", "x=nan"},
                {"x:bool", "false", "x=false"},
                {"x:str", "", "x=\"\""},
                {"x:str", "two words", "x=\"two words\""},
                {"x:str", "1,2", "x=1,2"},
                {"x:str", "\x1b[2J", "x=\"\\u001b[2J\""},
                {"x:str", "\xc2\x9bJ", "x=\"\\u009bJ\""},
                {"x:bytes", "00fF", "x=00ff"},
                {"x:u64[]", "1,2,0x3", "x=1,2,3"},
                {"x:u64[]", "", "x="},
                {"x:str[]", "a,,b", "x=a,\"\",b"},
        };
        for (unsigned i = 0; i < sizeof good / sizeof *good; i++) {
                char error[256] = "", *shown;
                if (put_text(good[i].signature, "x", good[i].value, error, &shown) < 0)
                        fail_msg("%s %s: %s", good[i].signature, good[i].value, error);
                assert_string_equal(shown, good[i].shown);
                free(shown);
        }
}

static void test_bad_text_names_the_word(void **state) {
        static const struct {
                const char *signature, *value, *error;
        } bad[] = {
                {"x:u64", "abc", "argument \"x\": \"abc\" is not u64"},
                {"x:u64", "", "argument \"x\": \"\" is not u64"},
                {"x:u64", " 1", "argument \"x\": \" 1\" is not u64"},
                {"x:u64", "1.5", "argument \"x\": \"1.5\" is not u64"},
                {"x:u64", "0x", "argument \"x\": \"0x\" is not u64"},
                {"x:u64", "-3", "argument \"x\": -3 is out of range for u64"},
                {"x:u64", "18446744073709551616", "argument \"x\": 18446744073709551616 is out of range for u64"},
                {"x:i64", "9223372036854775808", "argument \"x\": 9223372036854775808 is out of range for i64"},
                {"x:i64", "--1", "argument \"x\": \"--1\" is not i64"},
                {"x:f64", "1,5", "argument \"x\": \"1,5\" is not f64"},
                {"x:bool", "yes", "argument \"x\": \"yes\" is not bool"},
                {"x:str", "\xff", "argument \"x\": not valid UTF-8"},
                {"x:bytes", "0", "argument \"x\": \"0\" is not bytes (write hex, two digits a byte)"},
                {"x:fd", "0", "argument \"x\": a descriptor cannot be written as text"},
                {"x:u64[]", "1,y,3", "argument \"x\": \"y\" is not u64"},
                {"y:u64", "1", "unknown argument \"x\" (known: y)"},
        };
        for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
                char error[256] = "", *shown;
                assert_int_equal(put_text(bad[i].signature, "x", bad[i].value, error, &shown), -EINVAL);
                assert_string_equal(error, bad[i].error);
        }
        char error[256], *shown;
        assert_int_equal(put_text("x:str", "x",
                                  "0123456789012345678901234567890123456789012345678901234567890123456789", error,
                                  &shown),
                         -EMSGSIZE);
        assert_non_null(strstr(error, "\"x\""));
}

static void test_raw_payloads_and_missing_fields_are_shown(void **state) {
        struct schema_fields raw = fields_of("raw"), f = fields_of("n:u64");
        char *shown;
        assert_int_equal(args_to_text(&raw, "\x01\x02", 2, &shown), 0);
        assert_string_equal(shown, "payload=0102");
        free(shown);
        assert_int_equal(args_to_json(&raw, "foo", 3, &shown), 0);
        assert_string_equal(shown, "{\"payload\":\"Zm9v\"}");
        free(shown);
        assert_int_equal(args_to_json(&f, "\x80", 1, &shown), -EINVAL);
}

/* Random and broken maps: the answer may be no, but it comes, and whatever passes the check can be read and shown. */
static void test_mutations(void **state) {
        static const char good[] = "\x84\xa1n\xcd\x01\x02\xa1s\xa6h\xc3\xa9llo\xa2xs\x93\x01\xcc\x80\x03\xa1"
                                   "f\xcb\x3f\xf0\0\0\0\0\0";
        struct schema_fields f = fields_of("n:u64,s:str,xs:u64[],f:f64");
        unsigned seed = 4, n_passed = 0;
        for (unsigned round = 0; round < 100000; round++) {
                size_t n = sizeof good;
                char *map = malloc(n);
                memcpy(map, good, n);
                for (int k = rand_r(&seed) % 4; k > 0; k--)
                        map[(size_t)rand_r(&seed) % n] = (char)rand_r(&seed);
                if (rand_r(&seed) % 4 == 0)
                        n = 1 + (size_t)rand_r(&seed) % n;
                map = realloc(map, n);
                char error[256], *shown;
                struct args_value v;
                uint32_t length;
                int r = args_check(&f, map, n, error, sizeof error);
                /* Getters must stand bytes that never passed, too. */
                args_get(map, n, "f", SCHEMA_F64, &v);
                args_array_length(map, n, "xs", &length);
                args_get_element(map, n, "xs", 2, SCHEMA_U64, &v);
                if (r == 0) {
                        n_passed++;
                        assert_int_equal(args_to_json(&f, map, n, &shown), 0);
                        free(shown);
                } else if (args_to_text(&f, map, n, &shown) == 0)
                        free(shown);
                free(map);
        }
        assert_true(n_passed > 1000);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_type_there_and_back),
                cmocka_unit_test(test_refusals_name_the_field),
                cmocka_unit_test(test_generous_with_numbers),
                cmocka_unit_test(test_sixteen_fields_need_a_longer_head),
                cmocka_unit_test(test_a_buffer_that_is_too_small),
                cmocka_unit_test(test_text_from_a_command_line),
                cmocka_unit_test(test_bad_text_names_the_word),
                cmocka_unit_test(test_raw_payloads_and_missing_fields_are_shown),
                cmocka_unit_test(test_mutations),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
