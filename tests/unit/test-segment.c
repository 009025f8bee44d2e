/* Shared memory files: seals, checks, mappings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ipc/layout.h"
#include "ipc/memory/segment.h"

enum { BYTES = 2 * LAYOUT_PAGE };

static void test_is_sealed_and_sized(void **state) {
        int fd;
        assert_int_equal(segment_create("test", BYTES, &fd), 0);
        assert_int_equal(segment_check(fd, BYTES), 0);
        assert_int_equal(ftruncate(fd, LAYOUT_PAGE), -1);
        assert_int_equal(ftruncate(fd, 2 * BYTES), -1);
        assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), -1);
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        close(fd);
}

static void test_refuses_another_size(void **state) {
        int fd;
        assert_int_equal(segment_create("test", BYTES, &fd), 0);
        assert_int_equal(segment_check(fd, BYTES + LAYOUT_PAGE), -EPROTO);
        assert_int_equal(segment_check(fd, LAYOUT_PAGE), -EPROTO);
        close(fd);
}

static void test_refuses_what_is_not_sealed(void **state) {
        int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        assert_true(fd >= 0);
        assert_int_equal(ftruncate(fd, BYTES), 0);
        assert_int_equal(segment_check(fd, BYTES), -EPROTO);
        assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
        assert_int_equal(segment_check(fd, BYTES), -EPROTO);
        close(fd);

        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        assert_int_equal(segment_check(fd, 0), -EPROTO);
        close(fd);
        assert_int_equal(segment_check(-1, BYTES), -EBADF);
}

static void test_maps_the_same_bytes(void **state) {
        int fd;
        void *a, *b;
        assert_int_equal(segment_create("test", BYTES, &fd), 0);
        assert_int_equal(segment_map(fd, 0, BYTES, true, &a), 0);
        assert_int_equal(segment_map(fd, LAYOUT_PAGE, LAYOUT_PAGE, false, &b), 0);
        assert_int_equal(((char *)b)[5], 0);
        ((char *)a)[LAYOUT_PAGE + 5] = 'x';
        assert_int_equal(((char *)b)[5], 'x');
        segment_unmap(a, BYTES);
        segment_unmap(b, LAYOUT_PAGE);
        segment_unmap(NULL, BYTES);
        close(fd);
}

static void test_a_child_has_no_mapping(void **state) {
        int fd, status;
        void *p;
        assert_int_equal(segment_create("test", BYTES, &fd), 0);
        assert_int_equal(segment_map(fd, 0, BYTES, true, &p), 0);
        pid_t pid = fork();
        if (pid == 0) {
                unsigned char resident;
                _exit(mincore(p, LAYOUT_PAGE, &resident) == -1 && errno == ENOMEM ? 0 : 1);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        segment_unmap(p, BYTES);
        close(fd);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_is_sealed_and_sized),        cmocka_unit_test(test_refuses_another_size),
                cmocka_unit_test(test_refuses_what_is_not_sealed), cmocka_unit_test(test_maps_the_same_bytes),
                cmocka_unit_test(test_a_child_has_no_mapping),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
