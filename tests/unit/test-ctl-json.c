/* Every D-Bus type as JSON: nothing loses a bit or a sign. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#include "daemon/ctl/show/json.h"

static sd_bus *bus;
static int peer_fd;

static int start(void **state) {
        int fds[2];

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0 || sd_bus_new(&bus) < 0)
                return -1;
        peer_fd = fds[1];
        sd_bus_set_fd(bus, fds[0], fds[0]);
        return sd_bus_start(bus) < 0;
}

static int end(void **state) {
        sd_bus_close_unref(bus);
        return close(peer_fd);
}

static sd_bus_message *message_new(void) {
        sd_bus_message *m;

        assert_true(sd_bus_message_new_method_call(bus, &m, "org.x", "/", "org.x", "Try") >= 0);
        return m;
}

static void expect(sd_bus_message *m, enum json_bytes bytes, const char *wanted) {
        struct json_object *o = NULL;

        sd_bus_message_seal(m, 1, 0);
        assert_int_equal(json_from_message(m, bytes, &o), 0);
        if (wanted)
                assert_string_equal(json_format(o, CTL_JSON_SHORT), wanted);
        else
                assert_null(o);
        json_object_put(o);
        sd_bus_message_unref(m);
}

#define EXPECT(wanted, ...)                                                                                            \
        do {                                                                                                           \
                sd_bus_message *m_ = message_new();                                                                    \
                assert_true(sd_bus_message_append(m_, __VA_ARGS__) >= 0);                                              \
                expect(m_, JSON_BYTES_BASE64, wanted);                                                                 \
        } while (0)

static void test_integers(void **state) {
        EXPECT("[0,255]", "yy", 0, 255);
        EXPECT("[-32768,32767,65535]", "nnq", INT16_MIN, INT16_MAX, UINT16_MAX);
        EXPECT("[-2147483648,2147483647,4294967295]", "iiu", INT32_MIN, INT32_MAX, UINT32_MAX);
        EXPECT("[-9223372036854775808,9223372036854775807,18446744073709551615]", "xxt", INT64_MIN, INT64_MAX,
               UINT64_MAX);
}

static void test_others(void **state) {
        EXPECT("[true,false,1.5,\"a \\\"b\\\"\",\"/o\",\"a{sv}\"]", "bbdsog", 1, 0, 1.5, "a \"b\"", "/o", "a{sv}");
        EXPECT("\"fd\"", "h", peer_fd);
        EXPECT("7", "u", 7);
        EXPECT("[null,null,null,-0.0]", "dddd", NAN, INFINITY, -INFINITY, -0.0);
        EXPECT("[0.1,100,1e+300]", "ddd", 0.1, 100.0, 1e300);
}

static void test_fields_in_the_order_of_the_schema(void **state) {
        static const struct schema_fields fields = {.n_fields = 3,
                                                    .field = {{.name = "c"}, {.name = "b"}, {.name = "a"}}};
        sd_bus_message *m = message_new();
        struct json_object *o = NULL;

        assert_true(sd_bus_message_append(m, "a{sv}", 3, "a", "t", (uint64_t)1, "b", "ay", 0, "c", "s", "") >= 0);
        sd_bus_message_seal(m, 1, 0);
        assert_int_equal(json_from_message(m, JSON_BYTES_HEX, &o), 0);
        json_order_fields(o, &fields);
        assert_string_equal(json_format(o, CTL_JSON_SHORT), "{\"c\":\"\",\"b\":\"\",\"a\":1}");

        char *words = NULL;
        size_t bytes;
        FILE *f = open_memstream(&words, &bytes);
        json_print_words(f, o);
        fclose(f);
        assert_string_equal(words, "c=\"\" b= a=1\n");
        free(words);
        json_object_put(o);
        sd_bus_message_unref(m);
}

static void test_containers(void **state) {
        EXPECT("{\"a\":1,\"b\":[\"x\",\"y\"],\"c\":{\"d\":false}}", "a{sv}", 3, "a", "t", (uint64_t)1, "b", "as", 2,
               "x", "y", "c", "a{sv}", 1, "d", "b", 0);
        EXPECT("[[7,\"/p\"],[8,\"/q\"]]", "a(to)", 2, (uint64_t)7, "/p", (uint64_t)8, "/q");
        EXPECT("[]", "as", 0);
        expect(message_new(), JSON_BYTES_BASE64, NULL);
}

static void test_bytes(void **state) {
        static const struct {
                const char *bytes, *base64, *hex;
        } cases[] = {{"", "\"\"", "\"\""},
                     {"a", "\"YQ==\"", "\"61\""},
                     {"ab", "\"YWI=\"", "\"6162\""},
                     {"abc", "\"YWJj\"", "\"616263\""}};

        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
                for (int is_hex = 0; is_hex < 2; is_hex++) {
                        sd_bus_message *m = message_new();

                        assert_true(sd_bus_message_append_array(m, 'y', cases[i].bytes, strlen(cases[i].bytes)) >= 0);
                        expect(m, is_hex ? JSON_BYTES_HEX : JSON_BYTES_BASE64, is_hex ? cases[i].hex : cases[i].base64);
                }
}

/* People see what is safe, programs and files what came. */
static void test_orders_to_a_terminal(void **state) {
        static const char text[] = "\033]0;a\a\n\x7f\xc2\x9bö";
        struct json_object *o = json_object_new_object();
        char *words = NULL;
        size_t bytes;
        FILE *f = open_memstream(&words, &bytes);

        json_object_object_add(o, "plain", json_object_new_string("größer"));
        json_object_object_add(o, "bad", json_object_new_string(text));
        json_object_object_add(o, "n", json_object_new_uint64(7));
        assert_string_equal(json_text(o, "bad", ""), "?]0;a????ö");
        assert_string_equal(json_text(o, "plain", ""), "größer");
        assert_string_equal(json_text(o, "n", ""), "7");
        assert_string_equal(json_object_get_string(json_object_object_get(o, "bad")), text);
        json_print_words(f, o);
        json_print(f, o, CTL_JSON_SHORT);
        fclose(f);
        assert_string_equal(words, "plain=größer bad=\"\\u001b]0;a\\u0007\\n\\u007f\\u009bö\" n=7\n"
                                   "{\"plain\":\"größer\",\"bad\":\"\\u001b]0;a\\u0007\\n\\u007f\\u009bö\",\"n\":7}\n");
        free(words);
        json_object_put(o);
}

static void test_descriptors(void **state) {
        struct json_object *o = NULL, *word = json_object_new_string("fd");
        sd_bus_message *m = message_new();

        assert_true(sd_bus_message_append(m, "h", peer_fd) >= 0);
        sd_bus_message_seal(m, 1, 0);
        assert_int_equal(json_from_message(m, JSON_BYTES_HEX, &o), 0);
        sd_bus_message_unref(m);
        int fd = json_descriptor(o);
        assert_true(fd >= 0 && fcntl(fd, F_GETFD) >= 0);
        assert_string_equal(json_plain(o), "fd");
        assert_int_equal(json_descriptor(o), fd);
        json_object_put(o);
        assert_int_equal(fcntl(fd, F_GETFD), -1);
        assert_string_equal(json_plain(word), "fd");
        assert_int_equal(json_descriptor(word), -1);
        json_object_put(word);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_integers),
                cmocka_unit_test(test_others),
                cmocka_unit_test(test_fields_in_the_order_of_the_schema),
                cmocka_unit_test(test_containers),
                cmocka_unit_test(test_bytes),
                cmocka_unit_test(test_orders_to_a_terminal),
                cmocka_unit_test(test_descriptors),
        };
        return cmocka_run_group_tests(tests, start, end);
}
