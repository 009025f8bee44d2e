/* Sealed memory files: how they are made, and which descriptors pass for one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ipc/memory/sealed.h"

static void test_a_copy_cannot_be_changed(void **state) {
        const char text[] = "sealed";
        const void *data;
        uint64_t bytes;
        int fd;
        assert_int_equal(sealed_create("test", text, sizeof text, &fd), 0);
        assert_int_equal(sealed_check(fd, &bytes), 0);
        assert_int_equal(bytes, sizeof text);
        assert_int_equal(sealed_check_pages(fd), 0);
        assert_int_equal(sealed_map(fd, bytes, &data), 0);
        assert_memory_equal(data, text, sizeof text);
        sealed_unmap(data, bytes);
        assert_int_equal(write(fd, "x", 1), -1);
        assert_int_equal(ftruncate(fd, 0), -1);
        assert_int_equal(ftruncate(fd, 100), -1);
        assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), -1);
        assert_ptr_equal(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        close(fd);
}

static void test_one_for_somebody_else_to_fill(void **state) {
        uint64_t bytes;
        int fd;
        assert_int_equal(sealed_open("test", 5000, &fd), 0);
        assert_int_equal(sealed_check(fd, &bytes), -EPROTO); /* not yet */
        assert_int_equal(ftruncate(fd, 100), -1);
        assert_int_equal(pwrite(fd, "abc", 3, 4997), 3);
        void *p = mmap(NULL, 5000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        assert_ptr_not_equal(p, MAP_FAILED);
        assert_int_equal(sealed_close(fd), -EBUSY);
        munmap(p, 5000);
        assert_int_equal(sealed_close(fd), 0);
        assert_int_equal(sealed_check(fd, &bytes), 0);
        assert_int_equal(bytes, 5000);
        close(fd);
}

/* From a pipe, whose end is known only when it is there. */
static void test_what_a_descriptor_gives(void **state) {
        enum { BYTES = 200000 };
        static char given[BYTES], rest[BYTES];
        const void *data;
        uint64_t bytes;
        int pair[2], fd;
        for (unsigned i = 0; i < BYTES; i++)
                given[i] = (char)(i % 251);
        int from = memfd_create("from", MFD_CLOEXEC);
        assert_int_equal(write(from, given, BYTES), BYTES);
        assert_int_equal(lseek(from, 0, SEEK_SET), 0);
        assert_int_equal(read(from, rest, 5), 5);
        assert_int_equal(sealed_read("test", rest, 5, from, &fd), 0);
        assert_int_equal(sealed_check(fd, &bytes), 0);
        assert_int_equal(bytes, BYTES);
        assert_int_equal(sealed_map(fd, bytes, &data), 0);
        assert_memory_equal(data, given, BYTES);
        sealed_unmap(data, bytes);
        close(fd);
        close(from);
        assert_int_equal(pipe(pair), 0);
        assert_int_equal(write(pair[1], "abc", 3), 3);
        close(pair[1]);
        assert_int_equal(sealed_read("test", NULL, 0, pair[0], &fd), 0);
        assert_int_equal(sealed_check(fd, &bytes), 0);
        assert_int_equal(bytes, 3);
        close(fd);
        assert_int_equal(sealed_read("test", NULL, 0, pair[0], &fd), -EMSGSIZE); /* nothing more */
        close(pair[0]);
        assert_int_equal(sealed_read("test", "abc", 3, -1, &fd), -EBADF);
        int large = memfd_create("large", MFD_CLOEXEC);
        assert_int_equal(ftruncate(large, (off_t)SEALED_MAX_BYTES + 1), 0);
        assert_int_equal(sealed_read("test", NULL, 0, large, &fd), -EMSGSIZE);
        close(large);
}

static void test_sizes(void **state) {
        int fd;
        assert_int_equal(sealed_create("test", "", 0, &fd), -EMSGSIZE);
        assert_int_equal(sealed_open("test", SEALED_MAX_BYTES + 1, &fd), -EMSGSIZE);
}

static void test_what_is_no_sealed_file(void **state) {
        static const int seals[] = {0, F_SEAL_WRITE, F_SEAL_WRITE | F_SEAL_SHRINK, F_SEAL_WRITE | F_SEAL_GROW,
                                    F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE};
        uint64_t bytes;
        int pair[2];
        for (unsigned i = 0; i < sizeof seals / sizeof *seals; i++) {
                int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
                assert_int_equal(ftruncate(fd, 4096), 0);
                assert_int_equal(fcntl(fd, F_ADD_SEALS, seals[i]), 0);
                assert_int_equal(sealed_check(fd, &bytes), -EPROTO);
                close(fd);
        }
        int empty = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        assert_int_equal(sealed_close(empty), 0);
        assert_int_equal(sealed_check(empty, &bytes), -EPROTO);
        close(empty);
        int large = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        assert_int_equal(ftruncate(large, (off_t)SEALED_MAX_BYTES + 1), 0);
        assert_int_equal(sealed_close(large), 0);
        assert_int_equal(sealed_check(large, &bytes), -EPROTO);
        close(large);
        assert_int_equal(pipe(pair), 0);
        assert_int_equal(sealed_check(pair[0], &bytes), -EPROTO);
        close(pair[0]);
        close(pair[1]);
        assert_int_equal(sealed_check(pair[0], &bytes), -EPROTO);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_copy_cannot_be_changed), cmocka_unit_test(test_one_for_somebody_else_to_fill),
                cmocka_unit_test(test_what_a_descriptor_gives),  cmocka_unit_test(test_sizes),
                cmocka_unit_test(test_what_is_no_sealed_file),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
