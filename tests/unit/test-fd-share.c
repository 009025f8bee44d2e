/* Which numbers are whose. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/resource.h>
#include <unistd.h>

#include "daemon/loop/fd-share.h"

static void set_limit(rlim_t n) {
        struct rlimit limit;
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
        limit.rlim_cur = n;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static void test_each_part_ends_where_the_next_goes_on(void **state) {
        set_limit(800);
        assert_true(fd_share_has(FD_SHARE_SESSIONS, 399));
        assert_false(fd_share_has(FD_SHARE_SESSIONS, 400));
        assert_true(fd_share_has(FD_SHARE_CALLS, 499));
        assert_false(fd_share_has(FD_SHARE_CALLS, 500));
        assert_true(fd_share_has(FD_SHARE_MESSAGES, 599));
        assert_false(fd_share_has(FD_SHARE_MESSAGES, 600));
}

static void test_of_few_the_last_are_not_for_sessions(void **state) {
        set_limit(320);
        assert_true(fd_share_has(FD_SHARE_SESSIONS, 63));
        assert_false(fd_share_has(FD_SHARE_SESSIONS, 64));
        assert_true(fd_share_has(FD_SHARE_CALLS, 64));
}

static void test_the_next_number(void **state) {
        set_limit(320);
        assert_true(fd_share_has_next(FD_SHARE_SESSIONS, STDERR_FILENO));
        int fds[240];
        for (unsigned i = 0; i < 240; i++)
                assert_true((fds[i] = dup(STDERR_FILENO)) >= 0);
        assert_false(fd_share_has_next(FD_SHARE_MESSAGES, STDERR_FILENO));
        for (unsigned i = 0; i < 240; i++)
                close(fds[i]);
        assert_true(fd_share_has_next(FD_SHARE_SESSIONS, STDERR_FILENO));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_each_part_ends_where_the_next_goes_on),
                cmocka_unit_test(test_of_few_the_last_are_not_for_sessions),
                cmocka_unit_test(test_the_next_number),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
