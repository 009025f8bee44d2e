/* Closes that wait cost whoever they belong to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/loop/closer.h"
#include "daemon/loop/loop.h"
#include "ipc/memory/event.h"

enum { SLOW = 6, OF_USER = 4 };

static struct loop *loop;

static void on_turn(struct loop_timer *t) { loop_exit(t->loop, 0); }

static void turn(void) {
        static struct loop_timer timer;
        loop_timer_set(loop, &timer, event_now_ns() + 1000000, on_turn, NULL);
        loop_run(loop);
}

static bool is_open(int fd) { return fcntl(fd, F_GETFD) >= 0; }

static void await_closed(int fd) {
        for (unsigned i = 0; i < 10000 && is_open(fd); i++)
                turn();
        assert_false(is_open(fd));
}

static void await_none(uid_t uid) {
        for (unsigned i = 0; i < 10000 && closer_count(uid) > 0; i++)
                turn();
        assert_int_equal(closer_count(uid), 0);
}

/* A socket whose close waits until its peer is closed. */
static int make_slow(int *ret_peer) {
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t bytes = sizeof address;
        static const char data[65536];
        int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), small = 4096;
        setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
        assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
        assert_int_equal(listen(listener, 1), 0);
        assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &bytes), 0);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
        assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
        *ret_peer = accept(listener, NULL, NULL);
        assert_true(*ret_peer >= 0);
        close(listener);
        const struct linger linger = {.l_onoff = 1, .l_linger = 600};
        assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
        while (send(fd, data, sizeof data, MSG_DONTWAIT) > 0)
                ;
        assert_int_equal(errno, EAGAIN);
        return fd;
}

static int make_quick(void) {
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        assert_true(fd >= 0);
        return fd;
}

/* A close that waits is over for the table at once, so what it keeps waiting tells of it. */
static void test_everybody_waits_for_himself(void **state) {
        int peers[SLOW];
        for (unsigned i = 0; i < SLOW; i++)
                closer_close(make_slow(&peers[i]), 1);
        int mine = make_quick(), others = make_quick();
        closer_close(mine, 1);
        closer_close(others, 2);
        await_closed(others);
        assert_true(is_open(mine)); /* four of this user's wait, and others before it */
        for (unsigned i = 0; i < SLOW; i++)
                close(peers[i]);
        await_closed(mine);
        await_none(1);
        await_none(2);
}

static void test_of_too_many_no_more_are_taken(void **state) {
        int peers[OF_USER], last_peer;
        for (unsigned i = 0; i < OF_USER; i++)
                closer_close(make_slow(&peers[i]), 1);
        for (unsigned i = OF_USER; i < CLOSER_MAX_OF_USER; i++) {
                assert_true(closer_has_room(1));
                closer_close(make_quick(), 1);
        }
        assert_true(closer_has_room(1)); /* they may be on their way */
        for (unsigned i = 0; i < 10000 && closer_has_room(1); i++)
                turn();
        assert_false(closer_has_room(1)); /* none moved for a while */
        assert_true(closer_has_room(2));
        int more = make_quick(), last = make_slow(&last_peer), others = make_quick();
        closer_close(more, 1);
        closer_close(last, 1);
        assert_int_equal(closer_count(1), CLOSER_MAX_OF_USER + 2);
        closer_close(others, 2);
        await_closed(others);
        assert_true(is_open(more)); /* they wait like all others, and nobody waits for them */
        assert_true(is_open(last));
        for (unsigned i = 0; i < OF_USER; i++)
                close(peers[i]);
        await_closed(more);
        close(last_peer);
        await_none(1);
        await_none(2);
        assert_true(closer_has_room(1));
}

static void test_numbers_that_wait_are_told_when_they_are_high(void **state) {
        int peers[OF_USER];
        struct rlimit limit;
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
        for (unsigned i = 0; i < OF_USER; i++)
                closer_close(make_slow(&peers[i]), 1);
        closer_close(make_quick(), 1);
        assert_false(closer_is_short());
        int high = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, (int)(limit.rlim_cur / 8 * 6));
        assert_true(high >= 0);
        closer_close(high, 1);
        assert_true(closer_is_short());
        for (unsigned i = 0; i < OF_USER; i++)
                close(peers[i]);
        await_closed(high);
        await_none(1);
        assert_false(closer_is_short());
}

static void test_what_has_no_name_is_whose_it_was_said_to_be(void **state) {
        int peers[OF_USER + 1];
        closer_blame(1);
        for (unsigned i = 0; i < OF_USER; i++)
                closer_close_blamed(make_slow(&peers[i]));
        closer_blame(2);
        closer_close_blamed(make_slow(&peers[OF_USER]));
        assert_int_equal(closer_count(1), OF_USER);
        assert_int_equal(closer_count(2), 1);
        for (unsigned i = 0; i <= OF_USER; i++)
                close(peers[i]);
        await_none(1);
        await_none(2);
}

static int setup(void **state) {
        const char *why;
        assert_int_equal(loop_new(&loop, &why), 0);
        return closer_start(loop);
}

static int teardown(void **state) {
        closer_stop();
        loop = loop_free(loop);
        int fd = make_quick();
        closer_close(fd, 1); /* without a loop: as anybody would */
        assert_false(is_open(fd));
        return 0;
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_everybody_waits_for_himself),
                cmocka_unit_test(test_of_too_many_no_more_are_taken),
                cmocka_unit_test(test_numbers_that_wait_are_told_when_they_are_high),
                cmocka_unit_test(test_what_has_no_name_is_whose_it_was_said_to_be),
        };
        return cmocka_run_group_tests(tests, setup, teardown);
}
