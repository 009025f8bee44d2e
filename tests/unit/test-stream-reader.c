/* One reader's pair: what it keeps, and how its end can be told from its being cut off. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/supervise/streams/stream-reader.h"

static struct stream_reader open_reader(void) {
        struct stream_reader r;
        reader_init(&r, NULL);
        assert_false(reader_is_used(&r));
        assert_int_equal(reader_open(&r, 7), 0);
        assert_true(reader_is_used(&r));
        return r;
}

static void expect(int fd, const char *item) {
        char text[16] = "";
        assert_int_equal(recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT), strlen(item));
        assert_string_equal(text, item);
}

static void expect_cut(int fd) {
        char byte;
        assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), -1);
        assert_int_equal(errno, ECONNRESET);
}

static void test_end_and_cut(void **state) {
        struct stream_reader r = open_reader();
        int fd = reader_hand_out(&r), attempt = 0;
        assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &attempt, &(socklen_t){sizeof(attempt)}), 0);
        assert_int_equal(attempt, 7);
        assert_int_equal(reader_send(&r, "one", 3), 0);
        reader_end(&r);
        assert_false(reader_is_used(&r));
        expect(fd, "one");
        expect(fd, "");
        close(fd);

        r = open_reader();
        fd = reader_hand_out(&r);
        assert_int_equal(reader_send(&r, "one", 3), 0);
        assert_int_equal(send(fd, "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL), -1);
        assert_int_equal(errno, EPIPE);
        reader_cut(&r);
        expect_cut(fd);
        expect(fd, "one");
        expect(fd, "");
        close(fd);
}

static void test_what_is_kept(void **state) {
        struct stream_reader r = open_reader();
        char item[16];
        for (unsigned i = 0; i < 5000; i++) {
                snprintf(item, sizeof(item), "%u", i);
                assert_int_equal(reader_send(&r, item, strlen(item)), 0);
        }
        reader_end(&r);
        assert_true(reader_is_used(&r)); /* somebody may come for it */
        int fd = reader_hand_out(&r);
        expect_cut(fd); /* the oldest were dropped */
        unsigned n = 0, first = 0;
        for (ssize_t bytes; (bytes = recv(fd, item, sizeof(item) - 1, MSG_DONTWAIT)) > 0; n++) {
                item[bytes] = 0;
                first = n == 0 ? (unsigned)atoi(item) : first;
                assert_int_equal(atoi(item), first + n); /* no hole */
        }
        assert_int_equal(first + n, 5000);
        assert_true(n >= 256);
        close(fd);
}

static void test_who_lacks_the_first_sees_no_end(void **state) {
        struct stream_reader r = open_reader();
        r.is_partial = true;
        int fd = reader_hand_out(&r);
        assert_int_equal(reader_send(&r, "thirty", 6), 0);
        expect(fd, "thirty");
        assert_int_equal(reader_send(&r, "last", 4), 0);
        reader_end(&r);
        assert_false(reader_is_used(&r));
        expect_cut(fd);
        expect(fd, "last");
        expect(fd, "");
        close(fd);
        r = open_reader(); /* not the next one's */
        assert_false(r.is_partial);
        reader_cut(&r);
}

static unsigned fill(struct stream_reader *r, size_t bytes) {
        static const char item[65536];
        unsigned n = 0;
        while (reader_send(r, item, bytes) == 0)
                n++;
        return n;
}

static void test_what_does_not_fit_waits(void **state) {
        struct stream_reader r = open_reader();
        r.is_reserved = true;
        assert_in_range(fill(&r, 8), 256, 2000);
        int fd = reader_hand_out(&r);
        char item[16];
        assert_int_equal(reader_send(&r, "x", 1), -EAGAIN);
        assert_int_equal(recv(fd, item, sizeof(item), 0), 8);
        assert_int_equal(reader_send(&r, "x", 1), 0);
        close(fd);
        assert_int_equal(reader_send(&r, "x", 1), 0);
        assert_false(reader_is_used(&r)); /* nobody is there any more */

        r = open_reader();
        fd = reader_hand_out(&r);
        assert_in_range(fill(&r, 65536), 2, 8);
        reader_check(&r);
        assert_true(reader_is_used(&r));
        close(fd);
        reader_check(&r);
        assert_false(reader_is_used(&r));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_end_and_cut),
                cmocka_unit_test(test_what_is_kept),
                cmocka_unit_test(test_who_lacks_the_first_sees_no_end),
                cmocka_unit_test(test_what_does_not_fit_waits),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
