/* Packets with descriptors: every descriptor that arrives is handed out or closed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ipc/memory/packet.h"

static unsigned count_fds(void) {
        unsigned n = 0;
        DIR *d = opendir("/proc/self/fd");
        assert_non_null(d);
        while (readdir(d))
                n++;
        closedir(d);
        return n;
}

static int setup(void **state) {
        static int pair[2];
        *state = pair;
        return packet_pair(pair);
}

static int teardown(void **state) {
        int *pair = *state;
        close(pair[0]);
        close(pair[1]);
        return 0;
}

static void test_carries_data_and_descriptors(void **state) {
        int *pair = *state, out[2], in[PACKET_MAX_FDS];
        char data[64];
        size_t bytes;
        assert_int_equal(pipe2(out, O_CLOEXEC), 0);
        assert_int_equal(packet_send(pair[0], "hello", 6, out, 2), 0);
        unsigned n = PACKET_MAX_FDS;
        assert_int_equal(packet_receive(pair[1], data, sizeof data, &bytes, in, &n), 0);
        assert_int_equal(bytes, 6);
        assert_string_equal(data, "hello");
        assert_int_equal(n, 2);
        for (unsigned i = 0; i < 2; i++) {
                assert_true(fcntl(in[i], F_GETFD) & FD_CLOEXEC);
                close(in[i]);
                close(out[i]);
        }
}

static void test_one_end_blocks_and_one_does_not(void **state) {
        int *pair = *state;
        char data[8];
        size_t bytes;
        assert_int_equal(packet_receive(pair[0], data, sizeof data, &bytes, NULL, NULL), -EAGAIN);
        assert_false(fcntl(pair[1], F_GETFL) & O_NONBLOCK);
        assert_true(fcntl(pair[1], F_GETFD) & FD_CLOEXEC);
}

static void test_too_many_descriptors_are_closed(void **state) {
        int *pair = *state, fd = open("/dev/null", O_RDONLY | O_CLOEXEC), fds[PACKET_MAX_FDS], in[1];
        char data[8];
        size_t bytes;
        for (unsigned i = 0; i < PACKET_MAX_FDS; i++)
                fds[i] = fd;
        unsigned before = count_fds(), n = 1;
        assert_int_equal(packet_send(pair[0], "x", 1, fds, PACKET_MAX_FDS), 0);
        assert_int_equal(packet_receive(pair[1], data, sizeof data, &bytes, in, &n), -EPROTO);
        assert_int_equal(packet_send(pair[0], "x", 1, fds, 1), 0);
        assert_int_equal(packet_receive(pair[1], data, sizeof data, &bytes, NULL, NULL), -EPROTO);
        assert_int_equal(count_fds(), before);
        assert_int_equal(packet_send(pair[0], "x", 1, fds, PACKET_MAX_FDS + 1), -EINVAL);
        close(fd);
}

static void test_a_peer_with_more_than_we_ever_take(void **state) {
        int *pair = *state, fd = open("/dev/null", O_RDONLY | O_CLOEXEC), in[PACKET_MAX_FDS];
        union {
                struct cmsghdr align;
                char bytes[CMSG_SPACE(40 * sizeof(int))];
        } control = {0};
        char data[8] = "x";
        struct iovec iov = {data, 1};
        struct msghdr m = {
                .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(40 * sizeof(int));
        for (unsigned i = 0; i < 40; i++)
                memcpy(CMSG_DATA(c) + i * sizeof(int), &fd, sizeof fd);
        unsigned before = count_fds(), n = PACKET_MAX_FDS;
        size_t bytes;
        assert_int_equal(sendmsg(pair[0], &m, 0), 1);
        assert_int_equal(packet_receive(pair[1], data, sizeof data, &bytes, in, &n), -EPROTO);
        assert_int_equal(count_fds(), before);
        close(fd);
}

static void test_a_long_packet_is_refused_whole(void **state) {
        int *pair = *state, fd = open("/dev/null", O_RDONLY | O_CLOEXEC), in[1];
        char data[8];
        size_t bytes;
        unsigned before = count_fds(), n = 1;
        assert_int_equal(packet_send(pair[0], "longer than eight", 18, &fd, 1), 0);
        assert_int_equal(packet_receive(pair[1], data, sizeof data, &bytes, in, &n), -EPROTO);
        assert_int_equal(count_fds(), before);
        assert_int_equal(packet_send(pair[0], "", 0, NULL, 0), -EINVAL);
        close(fd);
}

static void test_the_end_of_the_peer(void **state) {
        int *pair = *state;
        char data[8];
        size_t bytes = 99;
        unsigned n = 0;
        assert_int_equal(packet_send(pair[1], "unread", 7, NULL, 0), 0);
        close(pair[1]);
        assert_int_equal(packet_receive(pair[0], data, sizeof data, &bytes, NULL, &n), 0);
        assert_int_equal(bytes, 7);
        assert_int_equal(packet_receive(pair[0], data, sizeof data, &bytes, NULL, &n), 0);
        assert_int_equal(bytes, 0);
        assert_int_equal(packet_send(pair[0], "x", 1, NULL, 0), -EPIPE);
        pair[1] = dup(pair[0]);
}

static void test_a_full_socket_does_not_block(void **state) {
        int *pair = *state, r = 0;
        static char data[4096];
        for (unsigned i = 0; i < 10000 && r == 0; i++)
                r = packet_send(pair[1], data, sizeof data, NULL, 0);
        assert_int_equal(r, -EAGAIN);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_carries_data_and_descriptors, setup, teardown),
                cmocka_unit_test_setup_teardown(test_one_end_blocks_and_one_does_not, setup, teardown),
                cmocka_unit_test_setup_teardown(test_too_many_descriptors_are_closed, setup, teardown),
                cmocka_unit_test_setup_teardown(test_a_peer_with_more_than_we_ever_take, setup, teardown),
                cmocka_unit_test_setup_teardown(test_a_long_packet_is_refused_whole, setup, teardown),
                cmocka_unit_test_setup_teardown(test_the_end_of_the_peer, setup, teardown),
                cmocka_unit_test_setup_teardown(test_a_full_socket_does_not_block, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
