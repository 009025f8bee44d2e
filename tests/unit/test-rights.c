/* Who may not write a memory cannot: the parts of a channel by role, sealed payloads, the room of a result once it was
 * handed over, the copy of a plugin file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ipc/channel/bell.h"
#include "ipc/channel/channel.h"
#include "ipc/memory/sealed.h"
#include "ipc/memory/segment.h"
#include "plugins/host/author/trial.h"
#include "tests/unit/rights-fixture.h"
#include "tests/unit/skip.h"

enum { NOBODY = 65534, BYTES = 3 * 4096 };

/* Another uid than the one that makes the memories, where there is one. */
static uid_t stranger(void) { return geteuid() == 0 ? NOBODY : geteuid(); }

static void expect_nothing(const char *what, int fd, size_t bytes, uid_t uid) {
        char names[RIGHTS_TEXT];
        rights_try(fd, bytes, uid, names);
        if (names[0])
                fail_msg("%s is changed by uid %u: %s", what, (unsigned)uid, names);
}

/* The attempts are no sham: a description for both, mapped read-only, gives way to most of them. */
static void test_a_read_only_mapping_is_no_bar(void **state) {
        static const char *const expected[] = {"mprotect ", "mremap ", "mmap ", "write ", "sizes ", "madvise "};
        char names[RIGHTS_TEXT];
        void *p;
        int fd;
        assert_int_equal(segment_create("test", BYTES, &fd), 0);
        assert_int_equal(segment_map(fd, 0, BYTES, true, &p), 0);
        memset(p, RIGHTS_BYTE, BYTES);
        rights_try(fd, BYTES, stranger(), names);
        for (unsigned i = 0; i < sizeof expected / sizeof *expected; i++)
                if (!strstr(names, expected[i]))
                        fail_msg("not %s, only %s", expected[i], names);
        segment_unmap(p, BYTES);
        close(fd);
}

/* Nor does a file that anybody may open again. */
static void test_a_mode_is_a_bar(void **state) {
        char names[RIGHTS_TEXT];
        void *p;
        int fd, reader;
        if (geteuid() != 0)
                SKIP("only root can be somebody else");
        for (unsigned i = 0; i < 2; i++) {
                assert_int_equal(segment_create("test", BYTES, &fd), 0);
                assert_int_equal(segment_map(fd, 0, BYTES, true, &p), 0);
                memset(p, RIGHTS_BYTE, BYTES);
                if (i == 0)
                        assert_int_equal(fchmod(fd, 0666), 0);
                assert_int_equal(segment_open(fd, false, &reader), 0);
                rights_try(reader, BYTES, NOBODY, names);
                assert_string_equal(names, i == 0 ? "open " : "");
                segment_unmap(p, BYTES);
                close(reader);
                close(fd);
        }
}

static const struct {
        enum channel_role role;
        bool may_write[CHANNEL_PARTS], has[CHANNEL_PARTS];
} roles[] = {
        {CHANNEL_CLIENT, {true, true, false, false}, {true, true, true, true}},
        {CHANNEL_WORKER, {true, false, true, false}, {true, true, true, false}},
};

static void test_the_parts_of_a_channel(void **state) {
        struct channel_geometry g;
        struct channel c;
        int fds[CHANNEL_PARTS], own[CHANNEL_PARTS];
        assert_int_equal(channel_geometry_init(&g, 8, 64), 0);
        assert_int_equal(channel_create(&c, &g, "test", fds), 0);
        for (unsigned part = 0; part < CHANNEL_PARTS; part++)
                memset(c.maps[part], RIGHTS_BYTE, g.bytes[part]);
        for (unsigned i = 0; i < sizeof roles / sizeof *roles; i++) {
                assert_int_equal(channel_open(fds, roles[i].role, own), 0);
                for (unsigned part = 0; part < CHANNEL_PARTS; part++) {
                        assert_int_equal(own[part] >= 0, roles[i].has[part]);
                        if (own[part] < 0)
                                continue;
                        assert_int_equal(fcntl(own[part], F_GETFL) & O_ACCMODE,
                                         roles[i].may_write[part] ? O_RDWR : O_RDONLY);
                        if (!roles[i].may_write[part])
                                expect_nothing(channel_part_name(part), own[part], g.bytes[part], stranger());
                }
                channel_close(own);
        }
        channel_unmap(&c);
        channel_close(fds);
}

/* A mapping that grows shows nothing of what its process may not see, nor writes it. */
static void test_nothing_lies_behind_a_part(void **state) {
        struct channel_geometry g;
        struct channel c, worker;
        int fds[CHANNEL_PARTS], own[CHANNEL_PARTS];
        assert_int_equal(channel_geometry_init(&g, 8, 64), 0);
        assert_int_equal(channel_create(&c, &g, "test", fds), 0);
        assert_int_equal(channel_open(fds, CHANNEL_WORKER, own), 0);
        assert_int_equal(channel_map(&worker, &g, own, CHANNEL_WORKER), 0);
        for (unsigned part = 0; part < CHANNEL_PARTS; part++) {
                unsigned char resident;
                size_t bytes = g.bytes[part];
                if (!worker.maps[part])
                        continue;
                void *p = mremap(worker.maps[part], bytes, bytes + 4096, MREMAP_MAYMOVE);
                assert_true(p != MAP_FAILED);
                worker.maps[part] = p;
                int pair[2]; /* the kernel looks for us: EFAULT where a look would be SIGBUS */
                assert_int_equal(pipe(pair), 0);
                assert_int_equal(write(pair[1], (uint8_t *)p + bytes - 1, 1), 1);
                assert_int_equal(write(pair[1], (uint8_t *)p + bytes, 1), -1);
                assert_int_equal(mincore((uint8_t *)p + bytes, 4096, &resident), 0);
                close(pair[0]);
                close(pair[1]);
        }
        channel_unmap(&worker);
        channel_unmap(&c);
        channel_close(own);
        channel_close(fds);
}

/* For ever, and for whoever made it, too: its descriptor is open for writing. */
static void test_sealed_files(void **state) {
        static uint8_t data[BYTES];
        int fd;
        memset(data, RIGHTS_BYTE, sizeof data);
        assert_int_equal(sealed_create("test", data, sizeof data, &fd), 0);
        assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL), 0); /* more of them would change nothing */
        expect_nothing("a sealed payload", fd, sizeof data, geteuid());
        expect_nothing("a sealed payload", fd, sizeof data, stranger());
        close(fd);
}

/* The worker wrote it, and keeps its descriptor and a mapping of it. */
static void test_the_room_of_a_result(void **state) {
        static uint8_t data[BYTES];
        int fd, worker;
        memset(data, RIGHTS_BYTE, sizeof data);
        assert_int_equal(sealed_open("test", sizeof data, &fd), 0);
        worker = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        assert_int_equal(pwrite(worker, data, sizeof data, 0), (ssize_t)sizeof data);
        void *mapped = mmap(NULL, sizeof data, PROT_READ | PROT_WRITE, MAP_SHARED, worker, 0);
        assert_true(mapped != MAP_FAILED);
        assert_int_equal(sealed_close(fd), -EBUSY); /* not taken while it can be written so */
        assert_int_equal(mprotect(mapped, sizeof data, PROT_READ), 0);
        assert_int_equal(sealed_close(fd), -EBUSY);
        assert_int_equal(munmap(mapped, sizeof data), 0);
        assert_int_equal(sealed_close(fd), 0);
        assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL), 0);
        expect_nothing("the room of a result", worker, sizeof data, geteuid());
        close(worker);
        close(fd);
}

static void test_the_copy_of_a_plugin_file(void **state) {
        static uint8_t data[BYTES];
        char path[] = "/tmp/drover-test-XXXXXX";
        int file = mkstemp(path), fd;
        assert_true(file >= 0);
        memset(data, RIGHTS_BYTE, sizeof data);
        assert_int_equal(write(file, data, sizeof data), (ssize_t)sizeof data);
        assert_int_equal(trial_open_plugin(path, &fd), 0);
        unlink(path);
        expect_nothing("a plugin file", fd, sizeof data, geteuid());
        close(fd);
        close(file);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_read_only_mapping_is_no_bar),
                cmocka_unit_test(test_a_mode_is_a_bar),
                cmocka_unit_test(test_the_parts_of_a_channel),
                cmocka_unit_test(test_nothing_lies_behind_a_part),
                cmocka_unit_test(test_sealed_files),
                cmocka_unit_test(test_the_room_of_a_result),
                cmocka_unit_test(test_the_copy_of_a_plugin_file),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
