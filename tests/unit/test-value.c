/* D-Bus arguments to a job's map and back, over messages made on a private pair of connections. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/bus/value.h"

static sd_bus *bus, *peer;
static struct bus_scratch scratch;
static struct schema_job job = {.name = "try"};

static int start(void **state) {
        int fds[2];

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0 || sd_bus_new(&bus) < 0 ||
            sd_bus_new(&peer) < 0)
                return -1;
        sd_bus_set_fd(bus, fds[0], fds[0]);
        sd_bus_set_fd(peer, fds[1], fds[1]);
        sd_bus_set_server(peer, 1, (sd_id128_t){});
        return sd_bus_start(bus) < 0 || sd_bus_start(peer) < 0;
}

static int end(void **state) {
        sd_bus_close_unref(bus);
        sd_bus_close_unref(peer);
        value_scratch_free(&scratch);
        return 0;
}

static sd_bus_message *message_new(const char *args) {
        char error[100];
        sd_bus_message *m;

        memset(&job.args, 0, sizeof(job.args));
        assert_int_equal(schema_parse_fields(args, &job.args, error, sizeof(error)), 0);
        assert_true(sd_bus_message_new_method_call(bus, &m, "org.x", "/", "org.x", "Try") >= 0);
        return m;
}

#define MESSAGE(schema, ...)                                                                                           \
        ({                                                                                                             \
                sd_bus_message *m_ = message_new(schema);                                                              \
                assert_true(sd_bus_message_append(m_, "a{sv}", __VA_ARGS__) >= 0);                                     \
                m_;                                                                                                    \
        })

static int convert(sd_bus_message *m, size_t limit, const void **map, size_t *bytes, char error[static 500]) {
        sd_bus_error e = SD_BUS_ERROR_NULL;
        int r;

        sd_bus_message_seal(m, 1, 0);
        r = value_read_args(&scratch, m, &job, limit, map, bytes, &e);
        snprintf(error, 500, "%s %s", e.name ? e.name : "", e.message ? e.message : "");
        sd_bus_error_free(&e);
        return r;
}

static void assert_good(sd_bus_message *m, const char *expected) {
        const void *map;
        char error[500], *text;
        size_t bytes;

        if (convert(m, 4096, &map, &bytes, error) < 0)
                fail_msg("%s", error);
        assert_int_equal(args_check(&job.args, map, bytes, error, sizeof(error)), 0);
        assert_int_equal(args_to_text(&job.args, map, bytes, &text), 0);
        assert_string_equal(text, expected);
        free(text);
        sd_bus_message_unref(m);
}

static void assert_bad(sd_bus_message *m, const char *word, const char *other) {
        const void *map;
        char error[500];
        size_t bytes;

        assert_true(convert(m, 4096, &map, &bytes, error) < 0);
        assert_non_null(strstr(error, SD_BUS_ERROR_INVALID_ARGS));
        if (!strstr(error, word) || !strstr(error, other))
                fail_msg("\"%s\" names neither %s nor %s", error, word, other);
        sd_bus_message_unref(m);
}

static void test_any_integer_type(void **state) {
        assert_good(MESSAGE("n:u64", 1, "n", "t", UINT64_MAX), "n=18446744073709551615");
        assert_good(MESSAGE("n:u64", 1, "n", "i", 7), "n=7");
        assert_good(MESSAGE("n:u64", 1, "n", "y", 255), "n=255");
        assert_good(MESSAGE("n:u64", 1, "n", "x", INT64_C(9)), "n=9");
        assert_good(MESSAGE("n:i64", 1, "n", "n", -5), "n=-5");
        assert_good(MESSAGE("n:i64", 1, "n", "x", INT64_MIN), "n=-9223372036854775808");
        assert_good(MESSAGE("v:f64", 1, "v", "d", 0.5), "v=0.5");
        assert_good(MESSAGE("v:f64", 1, "v", "q", 3), "v=3");
        assert_good(MESSAGE("b:bool,s:str", 2, "s", "s", "hello", "b", "b", 1), "b=true s=hello");
}

static void test_wrong(void **state) {
        assert_bad(MESSAGE("n:u64", 1, "n", "i", -1), "\"n\"", "-1");
        assert_bad(MESSAGE("n:u64", 1, "n", "s", "7"), "\"n\"", "u64");
        assert_bad(MESSAGE("n:u64", 1, "n", "d", 7.0), "\"n\"", "u64");
        assert_bad(MESSAGE("n:i64", 1, "n", "t", UINT64_MAX), "\"n\"", "18446744073709551615");
        assert_bad(MESSAGE("v:f64", 1, "v", "t", (UINT64_C(1) << 53) + 1), "\"v\"", "9007199254740993");
        assert_bad(MESSAGE("b:bool", 1, "b", "i", 1), "\"b\"", "bool");
        assert_bad(MESSAGE("s:str", 1, "s", "o", "/a"), "\"s\"", "str");
        assert_bad(MESSAGE("n:u64", 1, "m", "i", 1), "\"m\"", "n:u64");
        assert_bad(MESSAGE("n:u64,s:str", 1, "n", "i", 1), "\"s\"", "missing");
        assert_bad(MESSAGE("n:u64", 0), "\"n\"", "missing");
        assert_bad(MESSAGE("n:u64", 2, "n", "i", 1, "n", "i", 1), "\"n\"", "twice");
        assert_bad(MESSAGE("f:fd", 1, "f", "i", STDIN_FILENO), "\"f\"", "fd");
        assert_bad(MESSAGE("n:u64", 1, "n", "h", STDIN_FILENO), "\"n\"", "u64");
        assert_bad(MESSAGE("n:u64[]", 1, "n", "i", 1), "\"n\"", "u64[]");
        assert_bad(MESSAGE("n:u64[]", 1, "n", "as", 1, "x"), "\"n\"", "u64[]");
        assert_bad(MESSAGE("n:u64[]", 1, "n", "ai", 2, 1, -1), "\"n\"", "-1");
        assert_bad(MESSAGE("d:bytes", 1, "d", "s", "x"), "\"d\"", "bytes");
}

/* What comes is the message's; its place among the job's is what the map says. */
static void test_descriptors(void **state) {
        const void *map;
        char error[500], *text;
        size_t bytes;
        sd_bus_message *m = MESSAGE("a:fd,n:u64,b:fd", 3, "b", "h", STDIN_FILENO, "n", "i", 3, "a", "h", STDOUT_FILENO);
        const struct variants_fds fds = {.fds = scratch.fds, .n_fds = 2, .payload_fd = -1};
        const struct variants_fds fewer = {.fds = scratch.fds, .n_fds = 1, .payload_fd = -1};
        sd_bus_error e = SD_BUS_ERROR_NULL;
        sd_bus_message *reply;

        assert_true(convert(m, 4096, &map, &bytes, error) >= 0);
        assert_int_equal(scratch.n_fds, 2);
        assert_int_equal(scratch.payload_fd, -1);
        assert_int_equal(args_to_text(&job.args, map, bytes, &text), 0);
        assert_string_equal(text, "a=1 n=3 b=0");
        free(text);
        assert_int_equal(args_check_fds(&job.args, map, bytes, 2, error, sizeof(error)), 0);
        assert_true(args_check_fds(&job.args, map, bytes, 1, error, sizeof(error)) < 0);
        assert_non_null(strstr(error, "argument \"a\": its descriptor did not come"));
        assert_true(sd_bus_message_new_method_call(bus, &reply, "org.x", "/", "org.x", "Try") >= 0);
        assert_true(value_append_result(reply, &job.args, map, bytes, &fds, &e) >= 0);
        assert_true(value_append_result(reply, &job.args, map, bytes, &fewer, &e) < 0);
        sd_bus_message_unref(reply);
        sd_bus_message_unref(m);

        m = MESSAGE("raw", 1, "payload", "h", STDIN_FILENO);
        assert_true(convert(m, 4096, &map, &bytes, error) >= 0);
        assert_true(scratch.payload_fd >= 0 && bytes == 0);
        sd_bus_message_unref(m);
}

static void test_arrays(void **state) {
        assert_good(MESSAGE("n:u64[]", 1, "n", "ai", 3, 1, 2, 3), "n=1,2,3");
        assert_good(MESSAGE("n:u64[]", 1, "n", "at", 0), "n=");
        assert_good(MESSAGE("s:str[]", 1, "s", "as", 2, "a", "b"), "s=a,b");
        assert_good(MESSAGE("b:bool[]", 1, "b", "ab", 2, 1, 0), "b=true,false");
        assert_good(MESSAGE("d:bytes", 1, "d", "ay", 2, 0xab, 0xcd), "d=abcd");
}

static void test_raw(void **state) {
        const void *map;
        char error[500];
        size_t bytes;
        sd_bus_message *m = MESSAGE("raw", 1, "payload", "ay", 3, 1, 2, 3);

        assert_true(convert(m, 4096, &map, &bytes, error) >= 0);
        assert_int_equal(bytes, 3);
        assert_memory_equal(map, "\1\2\3", 3);
        sd_bus_message_unref(m);
        assert_bad(MESSAGE("raw", 0), "payload", "missing");
        assert_bad(MESSAGE("raw", 1, "load", "ay", 0), "\"load\"", "payload");
        assert_bad(MESSAGE("raw", 1, "payload", "s", "x"), "payload", "ay");
        assert_bad(MESSAGE("raw", 2, "payload", "ay", 0, "more", "i", 1), "payload", "nothing else");
}

static void test_too_large(void **state) {
        char text[200], error[500];
        const void *map;
        size_t bytes;
        sd_bus_message *m;

        memset(text, 'x', sizeof(text) - 1);
        text[sizeof(text) - 1] = '\0';
        m = MESSAGE("s:str", 1, "s", "s", text);
        assert_true(convert(m, 64, &map, &bytes, error) < 0);
        assert_non_null(strstr(error, "take 204 bytes, over the pool's SlotSize=64")); /* 1 + 2 + 2 + 199 */
        assert_non_null(strstr(error, "channel"));
        sd_bus_message_unref(m);
        m = MESSAGE("b:bool[],n:u64", 2, "b", "ab", 4, 1, 1, 1, 1, "n", "t", UINT64_MAX);
        assert_true(convert(m, 8, &map, &bytes, error) < 0);
        assert_non_null(strstr(error, "take 19 bytes, over the pool's SlotSize=8")); /* 1 + 2 + 5 + 2 + 9 */
        sd_bus_message_unref(m);
        m = MESSAGE("b:bool[]", 1, "b", "ab", 4, 1, 1, 1, 1);
        assert_true(convert(m, 3, &map, &bytes, error) < 0);
        assert_non_null(strstr(error, "take more than 3 bytes, over the pool's SlotSize=3"));
        sd_bus_message_unref(m);
        m = MESSAGE("raw", 1, "payload", "ay", 3, 1, 2, 3);
        assert_true(convert(m, 2, &map, &bytes, error) < 0);
        assert_non_null(strstr(error, "SlotSize=2"));
        sd_bus_message_unref(m);
}

/* A map made from a message gives the same message back. */
static void test_results(void **state) {
        sd_bus_error e = SD_BUS_ERROR_NULL;
        sd_bus_message *m, *reply;
        const char *s, *name;
        const void *map;
        char error[500];
        uint64_t t;
        size_t bytes;
        double d;
        int b;

        m = MESSAGE("t:u64,x:i64,d:f64,b:bool,s:str,y:bytes,a:str[],e:u64[]", 8, "t", "y", 9, "x", "i", -3, "d", "d",
                    1.5, "b", "b", 1, "s", "s", "hi", "y", "ay", 1, 7, "a", "as", 2, "p", "q", "e", "at", 0);
        assert_true(convert(m, 4096, &map, &bytes, error) >= 0);
        assert_true(sd_bus_message_new_method_call(bus, &reply, "org.x", "/", "org.x", "Reply") >= 0);
        assert_true(value_append_result(reply, &job.args, map, bytes, NULL, &e) >= 0);
        sd_bus_message_seal(reply, 2, 0);
        assert_string_equal(sd_bus_message_get_signature(reply, true), "a{sv}");
        assert_true(sd_bus_message_enter_container(reply, 'a', "{sv}") > 0);
        assert_true(sd_bus_message_read(reply, "{sv}", &name, "t", &t) > 0);
        assert_true(t == 9);
        assert_true(sd_bus_message_skip(reply, "{sv}") > 0);
        assert_true(sd_bus_message_read(reply, "{sv}", &name, "d", &d) > 0);
        assert_true(d == 1.5);
        assert_true(sd_bus_message_read(reply, "{sv}", &name, "b", &b) > 0);
        assert_true(sd_bus_message_read(reply, "{sv}", &name, "s", &s) > 0);
        assert_string_equal(s, "hi");
        sd_bus_message_unref(reply);
        assert_true(sd_bus_message_new_method_call(bus, &reply, "org.x", "/", "org.x", "Reply") >= 0);
        assert_true(value_append_result(reply, &job.args, map, bytes - 3, NULL, &e) < 0); /* cut off: never a guess */
        sd_bus_message_unref(reply);
        sd_bus_message_unref(m);
}

static void test_zero_byte_in_a_string(void **state) {
        static const uint8_t map[] = {0x81, 0xa1, 's', 0xa3, 'a', 0, 'b'};
        sd_bus_error e = SD_BUS_ERROR_NULL;
        sd_bus_message *m = message_new("s:str");

        assert_true(value_append_result(m, &job.args, map, sizeof(map), NULL, &e) < 0);
        assert_string_equal(e.name, "org.drover1.Error.Failed");
        assert_non_null(strstr(e.message, "\"s\""));
        sd_bus_error_free(&e);
        sd_bus_message_unref(m);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_any_integer_type),
                cmocka_unit_test(test_wrong),
                cmocka_unit_test(test_descriptors),
                cmocka_unit_test(test_arrays),
                cmocka_unit_test(test_raw),
                cmocka_unit_test(test_too_large),
                cmocka_unit_test(test_results),
                cmocka_unit_test(test_zero_byte_in_a_string),
        };

        return cmocka_run_group_tests(tests, start, end);
}
