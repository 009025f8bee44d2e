/* The doorbell: rings add up, clearing empties, and nothing waits, whatever the holder of either end does with it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "ipc/memory/doorbell.h"

enum { RINGS = 5000, PATIENCE_S = 5 };

static struct doorbell bell;

static int open_bell(void **state) { return doorbell_open(&bell); }

static int close_bell(void **state) {
        doorbell_close(&bell);
        assert_int_equal(bell.hear_fd, -1);
        return 0;
}

static int events(int fd) {
        struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};
        assert_true(poll(&p, 1, 0) >= 0);
        return p.revents;
}

static bool is_rung(void) { return events(bell.hear_fd) & POLLIN; }

static void set_blocking(int fd) { assert_int_equal(fcntl(fd, F_SETFL, 0), 0); }

static void test_rings_add_up(void **state) {
        assert_true(fcntl(bell.hear_fd, F_GETFD) & FD_CLOEXEC && fcntl(bell.ring_fd, F_GETFD) & FD_CLOEXEC);
        assert_true(fcntl(bell.hear_fd, F_GETFL) & O_NONBLOCK && fcntl(bell.ring_fd, F_GETFL) & O_NONBLOCK);
        assert_false(is_rung());
        assert_int_equal(doorbell_clear(bell.hear_fd), 0); /* empty: must not block */
        doorbell_ring(bell.ring_fd);
        doorbell_ring(bell.ring_fd);
        assert_true(is_rung());
        assert_int_equal(doorbell_clear(bell.hear_fd), 0);
        assert_false(is_rung());
        for (unsigned i = 0; i < RINGS; i++) /* more than it holds */
                doorbell_ring(bell.ring_fd);
        assert_true(is_rung());
        assert_int_equal(doorbell_clear(bell.hear_fd), 0);
        assert_false(is_rung());
        doorbell_ring(bell.ring_fd);
        assert_true(is_rung());
}

static void test_no_descriptor_is_no_bell(void **state) {
        doorbell_ring(-1);
        assert_int_equal(doorbell_clear(-1), 0);
}

static void test_either_side_goes(void **state) {
        doorbell_ring(bell.ring_fd);
        close(bell.ring_fd);
        bell.ring_fd = -1;
        assert_int_equal(doorbell_clear(bell.hear_fd), 0); /* the ring before it */
        assert_int_equal(doorbell_clear(bell.hear_fd), -EPIPE);
        doorbell_close(&bell);
        assert_int_equal(doorbell_open(&bell), 0);
        close(bell.hear_fd);
        bell.hear_fd = -1;
        doorbell_ring(bell.ring_fd); /* and no SIGPIPE */
}

/* ---- hostile ---- */

/* What the sleeper may do with its end, of which the ringers must not notice anything. */

static void hear_blocking(void) { set_blocking(bell.hear_fd); }
static void hear_shut_down_in(void) { assert_int_equal(shutdown(bell.hear_fd, SHUT_RD), 0); }
static void hear_shut_down(void) { assert_int_equal(shutdown(bell.hear_fd, SHUT_RDWR), 0); }

static void hear_options(void) {
        static const struct {
                int option, value;
        } options[] = {{SO_RCVBUF, 1}, {SO_SNDBUF, 1}, {SO_PEEK_OFF, 7}, {SO_PASSCRED, 1}, {SO_RCVLOWAT, 1000}};
        for (size_t i = 0; i < sizeof options / sizeof *options; i++)
                assert_int_equal(setsockopt(bell.hear_fd, SOL_SOCKET, options[i].option, &options[i].value,
                                            sizeof options[i].value),
                                 0);
        const struct linger linger = {.l_onoff = 1, .l_linger = 3600};
        assert_int_equal(setsockopt(bell.hear_fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
}

static void hear_signals(void) {
        assert_int_equal(signal(SIGIO, SIG_IGN) == SIG_ERR, 0);
        assert_int_equal(fcntl(bell.hear_fd, F_SETOWN, getpid()), 0);
        assert_int_equal(fcntl(bell.hear_fd, F_SETFL, O_ASYNC), 0);
        assert_int_equal(flock(bell.hear_fd, LOCK_EX), 0);
}

/* In the direction that is none: nothing gets into the ringers' end, so nothing lies there when it is closed. */
static void hear_answers(void) {
        assert_int_equal(send(bell.hear_fd, "x", 1, MSG_NOSIGNAL), -1);
        assert_int_equal(errno, EPIPE);
        int unread = 0;
        assert_int_equal(ioctl(bell.ring_fd, FIONREAD, &unread), 0);
        assert_int_equal(unread, 0);
        char byte;
        assert_int_equal(recv(bell.ring_fd, &byte, 1, 0), 0);
}

static void hear_peeks(void) {
        char byte;
        doorbell_ring(bell.ring_fd);
        for (unsigned i = 0; i < 10; i++)
                assert_int_equal(recv(bell.hear_fd, &byte, 1, MSG_PEEK), 1);
}

static void hear_elsewhere(void) {
        const struct sockaddr_un nobody = {.sun_family = AF_UNSPEC};
        assert_int_equal(connect(bell.hear_fd, (const struct sockaddr *)&nobody, sizeof nobody), -1);
}

static void test_whatever_the_sleeper_does(void **state) {
        static void (*const does[])(void) = {hear_blocking, hear_shut_down_in, hear_shut_down, hear_options,
                                             hear_signals,  hear_answers,      hear_peeks,     hear_elsewhere};
        for (size_t i = 0; i < sizeof does / sizeof *does; i++) {
                does[i]();
                alarm(PATIENCE_S);
                for (unsigned n = 0; n < RINGS; n++) /* nobody reads them */
                        doorbell_ring(bell.ring_fd);
                alarm(0);
                doorbell_close(&bell);
                assert_int_equal(doorbell_open(&bell), 0);
        }
}

/* What a ringer may do with the end that it shares with others. */

static void ring_blocking(void) { set_blocking(bell.ring_fd); }

static void ring_full(void) {
        char data[4096] = {0};
        int most = 1 << 30;
        assert_int_equal(setsockopt(bell.ring_fd, SOL_SOCKET, SO_SNDBUF, &most, sizeof most), 0);
        while (send(bell.ring_fd, data, sizeof data, MSG_DONTWAIT) > 0)
                ;
        set_blocking(bell.ring_fd);
}

static void ring_urgent(void) {
        if (send(bell.ring_fd, "!", 1, MSG_OOB | MSG_DONTWAIT) < 0) /* a kernel may not have that */
                doorbell_ring(bell.ring_fd);
}

static void send_descriptors(int fd) {
        union {
                struct cmsghdr align;
                char bytes[CMSG_SPACE(253 * sizeof(int))];
        } control = {0};
        int fds[253];
        struct iovec iov = {"x", 1};
        struct msghdr m = {
                .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fds);
        for (size_t i = 0; i < 253; i++)
                fds[i] = STDERR_FILENO;
        memcpy(CMSG_DATA(c), fds, sizeof fds);
        assert_int_equal(sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL), 1);
}

static void ring_timeouts(void) {
        const struct timeval ever = {.tv_sec = 1 << 30};
        set_blocking(bell.ring_fd);
        assert_int_equal(setsockopt(bell.ring_fd, SOL_SOCKET, SO_SNDTIMEO, &ever, sizeof ever), 0);
        assert_int_equal(setsockopt(bell.ring_fd, SOL_SOCKET, SO_RCVTIMEO, &ever, sizeof ever), 0);
}

static void test_whatever_a_ringer_does(void **state) {
        static void (*const does[])(void) = {ring_blocking, ring_full, ring_urgent, ring_timeouts};
        for (size_t i = 0; i < sizeof does / sizeof *does; i++) {
                does[i]();
                set_blocking(bell.hear_fd); /* nor by what its own holder forgot */
                alarm(PATIENCE_S);
                doorbell_ring(bell.ring_fd); /* another ringer */
                assert_true(is_rung());
                while (is_rung())
                        assert_int_equal(doorbell_clear(bell.hear_fd), 0);
                alarm(0);
                doorbell_close(&bell);
                assert_int_equal(doorbell_open(&bell), 0);
        }
        assert_int_equal(shutdown(bell.ring_fd, SHUT_RDWR), 0);
        assert_int_equal(doorbell_clear(bell.hear_fd), -EPIPE);
        doorbell_ring(bell.ring_fd);
}

/* None is taken in, none is closed by the kernel in our name. */
static void test_descriptors_are_refused(void **state) {
        int before = dup(STDERR_FILENO);
        close(before);
        send_descriptors(bell.ring_fd);
        assert_true(is_rung());
        assert_int_equal(doorbell_clear(bell.hear_fd), -EPROTO);
        int after = dup(STDERR_FILENO);
        close(after);
        assert_int_equal(after, before);
        assert_false(is_rung());
        doorbell_ring(bell.ring_fd);
        assert_int_equal(doorbell_clear(bell.hear_fd), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_rings_add_up, open_bell, close_bell),
                cmocka_unit_test(test_no_descriptor_is_no_bell),
                cmocka_unit_test_setup_teardown(test_either_side_goes, open_bell, close_bell),
                cmocka_unit_test_setup_teardown(test_whatever_the_sleeper_does, open_bell, close_bell),
                cmocka_unit_test_setup_teardown(test_whatever_a_ringer_does, open_bell, close_bell),
                cmocka_unit_test_setup_teardown(test_descriptors_are_refused, open_bell, close_bell),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
