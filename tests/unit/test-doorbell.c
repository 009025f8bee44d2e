/* The eventfd doorbell: rings add up, clearing empties, nothing blocks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "ipc/doorbell.h"

static int is_readable(int fd) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        return poll(&p, 1, 0);
}

static void test_rings_add_up(void **state) {
        int fd;
        assert_int_equal(doorbell_create(&fd), 0);
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        assert_int_equal(is_readable(fd), 0);
        doorbell_clear(fd); /* empty: must not block */
        doorbell_ring(fd);
        doorbell_ring(fd);
        assert_int_equal(is_readable(fd), 1);
        doorbell_clear(fd);
        assert_int_equal(is_readable(fd), 0);
        close(fd);
}

static void test_a_full_counter_does_not_block(void **state) {
        int fd;
        const uint64_t most = UINT64_MAX - 1;
        assert_int_equal(doorbell_create(&fd), 0);
        assert_int_equal(write(fd, &most, sizeof most), sizeof most);
        doorbell_ring(fd);
        assert_int_equal(is_readable(fd), 1);
        close(fd);
}

static void test_no_descriptor_is_no_bell(void **state) {
        doorbell_ring(-1);
        doorbell_clear(-1);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_rings_add_up),
                cmocka_unit_test(test_a_full_counter_does_not_block),
                cmocka_unit_test(test_no_descriptor_is_no_bell),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
