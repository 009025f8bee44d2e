/* Which plugin files are refused, in what words, and that the copy of the others is for ever. */
#include "daemon/spawn/plugin-file.h"
#include "skip.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <seccomp.h>

struct place {
        char dir[64];
        int fd;
};

static void write_file(struct place *p, const char *name, const char *content, mode_t mode) {
        int fd = openat(p->fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, content, strlen(content)), (ssize_t)strlen(content));
        assert_int_equal(fchmod(fd, mode), 0);
        close(fd);
}

static int setup(void **state) {
        struct place *p = calloc(1, sizeof *p);
        snprintf(p->dir, sizeof p->dir, "/tmp/drover-test-XXXXXX");
        assert_non_null(mkdtemp(p->dir));
        p->fd = open(p->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
        assert_true(p->fd >= 0);
        *state = p;
        return 0;
}

static int teardown(void **state) {
        struct place *p = *state;
        close(p->fd);
        char command[96];
        snprintf(command, sizeof command, "rm -r %s", p->dir);
        assert_int_equal(system(command), 0);
        free(p);
        return 0;
}

static void expect_text(struct place *p, const char *name, int error, const char *text) {
        struct plugin_fault fault;
        int fd = -1;
        assert_int_equal(plugin_file_seal(p->dir, name, &fd, &fault), -error);
        assert_int_equal(fd, -1);
        assert_true(fault.is_permanent);
        assert_string_equal(fault.text, text);
}

/* "plugin DIR/FILE: WORDS" */
static void expect_refusal(struct place *p, const char *name, int error, const char *file, const char *words) {
        char text[512];
        snprintf(text, sizeof text, "plugin %s/%s: %s", p->dir, file, words);
        expect_text(p, name, error, text);
}

static int expect_sealed(struct place *p, const char *name, const char *content) {
        struct plugin_fault fault = {0};
        int fd = -1;
        int r = plugin_file_seal(p->dir, name, &fd, &fault);
        if (r < 0)
                print_message("%s\n", fault.text);
        assert_int_equal(r, 0);
        char text[64] = "";
        assert_int_equal(pread(fd, text, sizeof text, 0), (ssize_t)strlen(content));
        assert_string_equal(text, content);
        return fd;
}

static void test_sealed(void **state) {
        struct place *p = *state;
        write_file(p, "x.so", "content", 0644);
        close(expect_sealed(p, "x", "content"));
        int fd = expect_sealed(p, "x.so", "content");
        int wanted = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;
        assert_int_equal(fcntl(fd, F_GET_SEALS) & wanted, wanted);
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        assert_int_equal(pwrite(fd, "x", 1, 0), -1);
        assert_int_equal(ftruncate(fd, 0), -1);
        assert_ptr_equal(mmap(NULL, 7, PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
        void *code = mmap(NULL, 7, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0); /* as dlopen does */
        assert_ptr_not_equal(code, MAP_FAILED);
        munmap(code, 7);
        write_file(p, "x.so", "changed", 0644);
        char text[8] = "";
        assert_int_equal(pread(fd, text, 7, 0), 7);
        assert_string_equal(text, "content");
        close(fd);
}

static void test_names(void **state) {
        struct place *p = *state;
        static const char *const bad[] = {"", "/etc/passwd", "..", "../x", "a/../../x", "a/..", "x\n", "x\x7f"};
        char text[256];
        for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
                snprintf(text, sizeof text,
                         "plugin \"%s\": not a name inside the plugin directory %s: correct Plugin=", bad[i], p->dir);
                expect_text(p, bad[i], EINVAL, text);
        }
        char large[WIRE_NAME] = "";
        memset(large, 'x', sizeof large - 1);
        struct plugin_fault fault;
        int fd;
        assert_int_equal(plugin_file_seal(p->dir, large, &fd, &fault), -EINVAL);

        write_file(p, "..so", "dots", 0644);
        write_file(p, ".so", "suffix only", 0644);
        close(expect_sealed(p, "..so", "dots"));
        expect_refusal(p, "absent", ENOENT, "absent.so", "no such file: install it there or correct Plugin=");
        expect_refusal(p, ".so", ENOENT, ".so.so", "no such file: install it there or correct Plugin=");
        expect_refusal(p, "..so/x", ENOENT, "..so/x.so", "no such file: install it there or correct Plugin=");
}

static void test_directories_and_links(void **state) {
        struct place *p = *state;
        assert_int_equal(mkdirat(p->fd, "sub", 0755), 0);
        write_file(p, "sub/x.so", "below", 0644);
        close(expect_sealed(p, "sub/x", "below"));
        close(expect_sealed(p, "sub//x", "below"));
        assert_int_equal(symlinkat("sub/x.so", p->fd, "in.so"), 0);
        close(expect_sealed(p, "in", "below"));
        assert_int_equal(symlinkat("/bin/sh", p->fd, "out.so"), 0);
        assert_int_equal(symlinkat("..", p->fd, "up"), 0);
        assert_int_equal(symlinkat("loop.so", p->fd, "loop.so"), 0);
        expect_refusal(p, "out", EXDEV, "out.so",
                       "a symbolic link leads out of the plugin directory: copy the file there instead");
        expect_refusal(p, "up/x", EXDEV, "up/x.so",
                       "a symbolic link leads out of the plugin directory: copy the file there instead");
        expect_refusal(p, "loop", ELOOP, "loop.so", "a symbolic link in the way: copy the file there instead");
}

static void test_not_a_file(void **state) {
        struct place *p = *state;
        assert_int_equal(mkdirat(p->fd, "dir.so", 0755), 0);
        assert_int_equal(mkfifoat(p->fd, "fifo.so", 0644), 0);
        expect_refusal(p, "dir", EINVAL, "dir.so",
                       "a directory, not a regular file: put the shared object itself there");
        expect_refusal(p, "fifo", EINVAL, "fifo.so",
                       "a device, pipe or socket, not a regular file: put the shared object itself there");
}

static void test_mode_and_size(void **state) {
        struct place *p = *state;
        write_file(p, "world.so", "x", 0646);
        write_file(p, "group.so", "x", 0664);
        write_file(p, "empty.so", "", 0644);
        write_file(p, "large.so", "x", 0644);
        write_file(p, "most.so", "x", 0644);
        char path[96];
        snprintf(path, sizeof path, "%s/large.so", p->dir);
        assert_int_equal(truncate(path, PLUGIN_FILE_MAX_BYTES + 1), 0);
        expect_refusal(p, "world", EPERM, "world.so", "world-writable (mode 0646): chmod go-w it");
        expect_refusal(p, "group", EPERM, "group.so", "group-writable (mode 0664): chmod go-w it");
        expect_refusal(p, "empty", ENOEXEC, "empty.so", "empty: install it again");
        expect_refusal(p, "large", EFBIG, "large.so", "67108865 bytes, more than the 67108864 allowed: strip it");
}

static void test_owner(void **state) {
        struct place *p = *state;
        if (geteuid() != 0)
                SKIP("only root can make a file that belongs to somebody else");
        write_file(p, "foreign.so", "x", 0644);
        assert_int_equal(fchownat(p->fd, "foreign.so", 65534, 65534, 0), 0);
        expect_refusal(p, "foreign", EPERM, "foreign.so", "belongs to uid 65534, not to root: chown root it");
        write_file(p, "secret.so", "x", 0600);
        write_file(p, "own.so", "x", 0644);
        assert_int_equal(fchownat(p->fd, "own.so", 65533, 65533, 0), 0);
        assert_int_equal(chmod(p->dir, 0755), 0);
        pid_t pid = fork();
        if (pid == 0) { /* as another user: root's and its own */
                if (seteuid(65533) < 0)
                        _exit(2);
                expect_refusal(p, "foreign", EPERM, "foreign.so",
                               "belongs to uid 65534, not to root or to whom the service runs as: chown root it");
                expect_refusal(p, "secret", EACCES, "secret.so", "uid 65533 may not read it: chmod a+r it");
                close(expect_sealed(p, "own", "x"));
                _exit(0);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

static bool write_map(const char *path, const char *text) {
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        bool is_written = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
        close(fd);
        return is_written;
}

/* A container with one uid: whatever is another's, root's too, is seen as 65534's, which nobody there can change. */
static void test_owner_without_a_uid(void **state) {
        struct place *p = *state;
        char one[32];
        if (geteuid() != 0)
                SKIP("only root can make a file that belongs to another");
        write_file(p, "foreign.so", "x", 0644);
        write_file(p, "own.so", "x", 0644);
        assert_int_equal(fchownat(p->fd, "foreign.so", 12, 12, 0), 0);
        snprintf(one, sizeof one, "1000 %u 1", geteuid());
        pid_t pid = fork();
        if (pid == 0) {
                if (unshare(CLONE_NEWUSER) < 0 || !write_map("/proc/self/uid_map", one))
                        _exit(77);
                expect_refusal(
                        p, "foreign", EPERM, "foreign.so",
                        "nobody in this user namespace owns it: copy it as uid 1000 to a --plugin-dir= of yours");
                close(expect_sealed(p, "own", "x"));
                _exit(0);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
                SKIP("there are no user namespaces here");
        assert_int_equal(status, 0);
}

static void test_long_directory_is_cut_in_words_only(void **state) {
        struct place *p = *state;
        char dir[300];
        size_t n = (size_t)snprintf(dir, sizeof dir, "%s", p->dir);
        for (; n + 3 < sizeof dir; n += 2)
                memcpy(dir + n, "/.", 3);
        struct plugin_fault fault;
        int fd;
        assert_int_equal(plugin_file_seal(dir, "absent", &fd, &fault), -ENOENT);
        assert_non_null(strstr(fault.text, "plugin ..../"));
        assert_non_null(strstr(fault.text, "/./absent.so: no such file: install it there or correct Plugin="));
}

/* It may come yet: nobody gives up for good. */
static void test_no_directory(void **state) {
        struct place *p = *state;
        char dir[96], text[256];
        struct plugin_fault fault;
        int fd;
        snprintf(dir, sizeof dir, "%s/none", p->dir);
        snprintf(text, sizeof text,
                 "plugin %s/x.so: the plugin directory cannot be opened: No such file or directory: create it, or "
                 "correct --plugin-dir=",
                 dir);
        assert_int_equal(plugin_file_seal(dir, "x", &fd, &fault), -ENOENT);
        assert_string_equal(fault.text, text);
        assert_false(fault.is_permanent);
}

/* Kernels and filters without openat2 and MFD_NOEXEC_SEAL: no link at all, the rest as ever. */
static void test_without_openat2(void **state) {
        struct place *p = *state;
        assert_int_equal(mkdirat(p->fd, "sub", 0755), 0);
        write_file(p, "sub/x.so", "below", 0644);
        assert_int_equal(symlinkat("/bin/sh", p->fd, "out.so"), 0);
        assert_int_equal(symlinkat("sub", p->fd, "link"), 0);
        pid_t pid = fork();
        if (pid == 0) {
                scmp_filter_ctx c = seccomp_init(SCMP_ACT_ALLOW);
                if (!c || seccomp_rule_add(c, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(openat2), 0) < 0 ||
                    seccomp_rule_add(c, SCMP_ACT_ERRNO(EINVAL), SCMP_SYS(memfd_create), 1,
                                     SCMP_A1(SCMP_CMP_MASKED_EQ, 8, 8)) < 0 ||
                    seccomp_load(c) < 0)
                        _exit(2);
                seccomp_release(c);
                close(expect_sealed(p, "sub/x", "below"));
                close(expect_sealed(p, "sub//x", "below"));
                expect_refusal(p, "out", ELOOP, "out.so", "a symbolic link in the way: copy the file there instead");
                expect_refusal(p, "link/x", ENOENT, "link/x.so", "no such file: install it there or correct Plugin=");
                expect_refusal(p, "sub/y", ENOENT, "sub/y.so", "no such file: install it there or correct Plugin=");
                _exit(0);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_sealed),
                TEST(test_names),
                TEST(test_directories_and_links),
                TEST(test_not_a_file),
                TEST(test_mode_and_size),
                TEST(test_owner),
                TEST(test_owner_without_a_uid),
                TEST(test_long_directory_is_cut_in_words_only),
                TEST(test_no_directory),
                TEST(test_without_openat2),
        };
        return cmocka_run_group_tests_name("plugin-file", tests, NULL, NULL);
}
