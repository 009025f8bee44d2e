/* Length and descriptors of a message, from its header as it lies in the socket: whole, cut, of either byte order, and
 * of no kind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/bus/header.h"

struct message {
        uint8_t bytes[512];
        size_t n;
        bool is_big;
};

static void put_word(struct message *m, size_t at, uint32_t word) {
        uint32_t raw = m->is_big ? htobe32(word) : htole32(word);
        memcpy(m->bytes + at, &raw, sizeof(raw));
}

static void begin(struct message *m, bool is_big, uint32_t body_bytes) {
        *m = (struct message){.n = HEADER_MIN, .is_big = is_big};
        memcpy(m->bytes, is_big ? "B\1\0\1" : "l\1\0\1", 4);
        put_word(m, 4, body_bytes);
        put_word(m, 8, 77);
}

static void put_field(struct message *m, uint8_t code, char kind, const char *text, uint32_t number) {
        m->n = (m->n + 7) / 8 * 8;
        memcpy(m->bytes + m->n, (uint8_t[]){code, 1, (uint8_t)kind, 0}, 4);
        m->n += 4;
        if (kind == 'g') {
                m->bytes[m->n] = (uint8_t)strlen(text);
                memcpy(m->bytes + m->n + 1, text, strlen(text) + 1);
                m->n += strlen(text) + 2;
        } else if (kind == 'u') {
                put_word(m, m->n, number);
                m->n += 4;
        } else {
                put_word(m, m->n, (uint32_t)strlen(text));
                memcpy(m->bytes + m->n + 4, text, strlen(text) + 1);
                m->n += 4 + strlen(text) + 1;
        }
        put_word(m, 12, (uint32_t)(m->n - HEADER_MIN));
}

static void build(struct message *m, bool is_big, uint32_t n_fds) {
        begin(m, is_big, 1000);
        put_field(m, 1, 'o', "/org/drover1", 0);
        put_field(m, 3, 's', "Run", 0);
        put_field(m, 8, 'g', "ssa{sv}a{sv}", 0);
        if (n_fds)
                put_field(m, 9, 'u', NULL, n_fds);
        put_field(m, 7, 's', ":1.7", 0);
}

static void test_length_and_descriptors(void **state) {
        struct message m;
        struct header h;
        for (int is_big = 0; is_big < 2; is_big++)
                for (uint32_t n_fds = 0; n_fds <= 16; n_fds += 8) {
                        build(&m, is_big, n_fds);
                        assert_true(header_read(m.bytes, m.n, &h));
                        assert_int_equal(h.n_bytes, (m.n + 7) / 8 * 8 + 1000);
                        assert_true(h.is_whole);
                        assert_int_equal(h.n_fds, n_fds);
                }
}

/* Nothing behind what is there is read: the copy ends where the message is cut. */
static void test_cut_anywhere(void **state) {
        struct message m;
        struct header h;
        build(&m, false, 16);
        for (size_t n = HEADER_MIN; n < m.n; n++) {
                uint8_t *copy = malloc(n);
                memcpy(copy, m.bytes, n);
                assert_true(header_read(copy, n, &h));
                assert_int_equal(h.n_bytes, (m.n + 7) / 8 * 8 + 1000);
                assert_false(h.is_whole);
                assert_int_equal(h.n_fds, 0);
                free(copy);
        }
}

static void test_no_header(void **state) {
        struct message m;
        struct header h;
        build(&m, false, 0);
        m.bytes[0] = 'x';
        assert_false(header_read(m.bytes, m.n, &h));
        build(&m, false, 0);
        m.bytes[3] = 2;
        assert_false(header_read(m.bytes, m.n, &h));
        build(&m, false, 0);
        put_word(&m, 4, UINT32_MAX);
        assert_false(header_read(m.bytes, m.n, &h));
}

/* Whatever is written in it: it ends, and reads nothing that is not there. */
static void test_nonsense(void **state) {
        struct message m;
        struct header h;
        srandom(7);
        for (unsigned i = 0; i < 100000; i++) {
                build(&m, i % 2, 3);
                for (unsigned k = 0; k <= i % 4; k++)
                        m.bytes[4 + random() % (m.n - 4)] = (uint8_t)random();
                uint8_t *copy = malloc(m.n);
                memcpy(copy, m.bytes, m.n);
                header_read(copy, m.n, &h);
                free(copy);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_length_and_descriptors),
                cmocka_unit_test(test_cut_anywhere),
                cmocka_unit_test(test_no_header),
                cmocka_unit_test(test_nonsense),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
