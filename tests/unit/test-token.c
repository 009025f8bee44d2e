/* One token at a time from bytes nobody vouches for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/values/token.h"

static struct token take(const char *bytes, size_t n) {
        const uint8_t *p = (const uint8_t *)bytes, *end = p + n;
        struct token t;
        assert_int_equal(token_next(&p, end, &t), 0);
        assert_ptr_equal(p, end);
        return t;
}

static void test_integers_of_every_width(void **state) {
        assert_int_equal(take("\x05", 1).u64, 5);
        assert_int_equal(take("\xcc\xff", 2).u64, 255);
        assert_int_equal(take("\xcd\x01\x00", 3).u64, 256);
        assert_int_equal(take("\xce\xff\xff\xff\xff", 5).u64, UINT32_MAX);
        assert_int_equal(take("\xcf\xff\xff\xff\xff\xff\xff\xff\xff", 9).u64, UINT64_MAX);
        assert_int_equal(take("\xff", 1).i64, -1);
        assert_int_equal(take("\xd0\x80", 2).i64, -128);
        assert_int_equal(take("\xd1\xff\x00", 3).i64, -256);
        assert_int_equal(take("\xd2\x80\x00\x00\x00", 5).i64, INT32_MIN);
        assert_int_equal(take("\xd3\x80\x00\x00\x00\x00\x00\x00\x00", 9).i64, INT64_MIN);
        /* A signed form that holds a positive number is an unsigned integer. */
        assert_int_equal(take("\xd0\x07", 2).type, TOKEN_UINT);
        assert_int_equal(take("\xd3\x00\x00\x00\x00\x00\x00\x00\x07", 9).u64, 7);
}

static void test_the_other_types(void **state) {
        assert_int_equal(take("\xc0", 1).type, TOKEN_NIL);
        assert_true(take("\xc3", 1).boolean);
        assert_false(take("\xc2", 1).boolean);
        assert_true(take("\xca\x3f\x80\x00\x00", 5).f64 == 1.0);
        assert_true(take("\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00", 9).f64 == 1.0);
        assert_int_equal(take("\xa3"
                              "abc",
                              4)
                                 .n,
                         3);
        assert_int_equal(take("\xd9\x01"
                              "a",
                              3)
                                 .type,
                         TOKEN_STR);
        assert_int_equal(take("\xda\x00\x01"
                              "a",
                              4)
                                 .type,
                         TOKEN_STR);
        assert_int_equal(take("\xdb\x00\x00\x00\x01"
                              "a",
                              6)
                                 .type,
                         TOKEN_STR);
        assert_int_equal(take("\xc4\x02"
                              "ab",
                              4)
                                 .type,
                         TOKEN_BIN);
        assert_int_equal(take("\x93", 1).n, 3);
        assert_int_equal(take("\x82", 1).type, TOKEN_MAP);
        assert_int_equal(take("\xdd\xff\xff\xff\xff", 5).n, UINT32_MAX); /* a claim: nothing is read or made */
        assert_int_equal(take("\xdf\x00\x00\x00\x02", 5).n, 2);
        assert_int_equal(take("\xd4\x01x", 3).type, TOKEN_EXT);
        assert_int_equal(take("\xc7\x02\x01xy", 5).type, TOKEN_EXT);
}

static void test_cut_off_input(void **state) {
        const char *cut[] = {"\xcc",
                             "\xcd\x01",
                             "\xcf\x01\x01",
                             "\xa2"
                             "a",
                             "\xd9",
                             "\xd9\x02"
                             "a",
                             "\xdb\xff\xff\xff\xff"
                             "a",
                             "\xc6\x00\x00\x00\x02"
                             "a",
                             "\xca\x01",
                             "\xdc\x01",
                             "\xd8\x01",
                             "\xc7\x01"};
        const size_t bytes[] = {1, 2, 3, 2, 1, 3, 6, 6, 2, 2, 2, 2};
        for (unsigned i = 0; i < sizeof bytes / sizeof *bytes; i++) {
                const uint8_t *p = (const uint8_t *)cut[i], *start = p;
                struct token t;
                assert_int_equal(token_next(&p, p + bytes[i], &t), -EPROTO);
                assert_ptr_equal(p, start);
        }
        const uint8_t *p = (const uint8_t *)"\xc1"; /* never used by the format */
        struct token t;
        assert_int_equal(token_next(&p, p + 1, &t), -EPROTO);
        assert_int_equal(token_next(&p, p, &t), -EPROTO);
}

/* Exact allocations, so that a sanitizer sees the first byte read too far. */
static void test_random_bytes(void **state) {
        unsigned seed = 1;
        for (unsigned round = 0; round < 200000; round++) {
                size_t n = (size_t)rand_r(&seed) % 24;
                uint8_t *bytes = malloc(n + 1);
                for (size_t i = 0; i < n; i++)
                        bytes[i] = (uint8_t)rand_r(&seed);
                uint8_t *exact = realloc(bytes, n ? n : 1);
                const uint8_t *p = exact;
                struct token t;
                while (token_next(&p, exact + n, &t) == 0) {
                        assert_true(p <= exact + n);
                        if (t.type == TOKEN_STR || t.type == TOKEN_BIN || t.type == TOKEN_EXT)
                                assert_true((const uint8_t *)t.data + t.n == p);
                        assert_string_not_equal(token_name(t.type), "?");
                }
                free(exact);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_integers_of_every_width),
                cmocka_unit_test(test_the_other_types),
                cmocka_unit_test(test_cut_off_input),
                cmocka_unit_test(test_random_bytes),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
