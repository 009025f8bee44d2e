/* Capsules: what is written is read again, and no byte of a file is taken on trust. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ipc/values/capsule.h"

static struct capsule example(void) {
        struct capsule c = {
                .id = 7,
                .created_us = 1700000000000000,
                .uid = 1000,
                .state = "poisoned",
                .pool = "p",
                .plugin = "crash",
                .plugin_dir = "/plugins",
                .build_id = "00ff",
                .job = "segfault",
                .hard_ns = 5,
                .n_attempts = 2,
                .attempts = {{.attempt = 1,
                              .pid = 11,
                              .reason = "signal",
                              .signal = 11,
                              .module = "crash",
                              .offset = 0x1139},
                             {.attempt = 2, .pid = 12, .reason = "syscall", .signal = 31, .syscall = "socket"}},
                .log = "one\ntwo\n",
                .payload = "\x81\xa1n\x05",
                .payload_bytes = 4,
        };
        return c;
}

static void test_round_trip(void **state) {
        struct capsule c = example(), back;
        void *data;
        size_t bytes;
        assert_int_equal(capsule_encode(&c, &data, &bytes), 0);
        assert_int_equal(capsule_decode(data, bytes, &back), 0);
        assert_memory_equal(back.payload, c.payload, 4);
        back.payload = c.payload;
        assert_memory_equal(&back, &c, sizeof(c));
        free(data);
}

static void test_cut_anywhere(void **state) {
        struct capsule c = example(), back;
        void *data;
        size_t bytes;
        assert_int_equal(capsule_encode(&c, &data, &bytes), 0);
        for (size_t n = 0; n < bytes; n++) {
                char *cut = malloc(n ? n : 1); /* exactly as long: the sanitizer sees every look behind it */
                uint32_t body = n >= 16 ? (uint32_t)n - 16 : 0;
                memcpy(cut, data, n);
                assert_int_equal(capsule_decode(cut, n, &back), -EPROTO);
                if (n >= 16) {
                        memcpy(cut + 12, &body, 4); /* a header that agrees */
                        assert_int_equal(capsule_decode(cut, n, &back), -EPROTO);
                }
                free(cut);
        }
        free(data);
}

/* Any byte replaced: an error, or a capsule whose texts end and whose payload lies inside. */
static void test_any_byte(void **state) {
        struct capsule c = example(), back;
        void *data;
        size_t bytes;
        assert_int_equal(capsule_encode(&c, &data, &bytes), 0);
        for (size_t i = 0; i < bytes; i++)
                for (unsigned value = 0; value < 256; value += 5) {
                        char *copy = malloc(bytes);
                        memcpy(copy, data, bytes);
                        copy[i] = (char)value;
                        if (capsule_decode(copy, bytes, &back) >= 0) {
                                assert_true((const char *)back.payload >= copy);
                                assert_true((const char *)back.payload + back.payload_bytes <= copy + bytes);
                                assert_true(back.n_attempts <= CAPSULE_MAX_ATTEMPTS);
                                assert_non_null(memchr(back.log, 0, sizeof(back.log)));
                                assert_non_null(memchr(back.attempts[0].module, 0, sizeof(back.attempts[0].module)));
                        }
                        free(copy);
                }
        free(data);
}

static void test_another_version(void **state) {
        struct capsule c = example(), back;
        void *data;
        size_t bytes;
        assert_int_equal(capsule_encode(&c, &data, &bytes), 0);
        ((char *)data)[8]++;
        assert_int_equal(capsule_decode(data, bytes, &back), -EPROTONOSUPPORT);
        free(data);
}

static void test_alike(void **state) {
        struct capsule c = example();
        struct capsule_attempt a = c.attempts[0];
        a.pid = 99;
        assert_true(capsule_attempt_is_alike(&a, &c.attempts[0]));
        a.offset++;
        assert_false(capsule_attempt_is_alike(&a, &c.attempts[0]));
        a = c.attempts[0];
        a.module[0] = 'x';
        assert_false(capsule_attempt_is_alike(&a, &c.attempts[0]));
        a = c.attempts[0];
        a.signal = 6;
        assert_false(capsule_attempt_is_alike(&a, &c.attempts[0]));
        assert_false(capsule_attempt_is_alike(&c.attempts[0], &c.attempts[1]));
}

static void test_words(void **state) {
        struct capsule c = example();
        char text[128];
        capsule_describe(&c.attempts[0], text, sizeof(text));
        assert_string_equal(text, "signal 11 (SIGSEGV) at crash+0x1139");
        capsule_describe(&c.attempts[1], text, sizeof(text));
        assert_string_equal(text, "signal 31 (SIGSYS): system call socket");
}

static void test_names(void **state) {
        static const char *const bad[] = {"",    ".",    "p",    "p.",     ".7",
                                          "p.0", "p.7x", "p.-7", ".new-7", "p.99999999999999999999"};
        char name[96], pool[72];
        uint64_t id;
        capsule_name("a.b", UINT64_MAX, name, sizeof(name));
        assert_true(capsule_parse_name(name, pool, &id));
        assert_string_equal(pool, "a.b");
        assert_true(id == UINT64_MAX);
        for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
                assert_false(capsule_parse_name(bad[i], pool, &id));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_round_trip), cmocka_unit_test(test_cut_anywhere),
                cmocka_unit_test(test_any_byte),   cmocka_unit_test(test_another_version),
                cmocka_unit_test(test_alike),      cmocka_unit_test(test_words),
                cmocka_unit_test(test_names),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
