/* Reading INI files: line numbers, what is refused with FILE:LINE, any bytes at all; and the search by base name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/config/config-file.h"

static char directory[] = "/tmp/drover-config-file-XXXXXX";
static char path[64];

struct seen {
        unsigned n, line;
        char section[64], key[64], value[5000];
};

static int on_setting(void *user, const char *file, unsigned line, const char *section, const char *key,
                      const char *value) {
        struct seen *s = user;

        s->n++;
        s->line = line;
        snprintf(s->section, sizeof(s->section), "%s", section);
        snprintf(s->key, sizeof(s->key), "%s", key);
        snprintf(s->value, sizeof(s->value), "%s", value);
        return strcmp(key, "Stop") == 0 ? -ECANCELED : 0;
}

static int read_bytes(const void *bytes, size_t n, struct seen *s, char error[static 400]) {
        int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        assert_int_equal(write(fd, bytes, n), n);
        close(fd);
        *s = (struct seen){};
        error[0] = '\0';
        return config_file_read(path, on_setting, s, error, 400);
}

static int read_text(const char *text, struct seen *s, char error[static 400]) {
        return read_bytes(text, strlen(text), s, error);
}

static void test_settings(void **state) {
        struct seen s;
        char error[400];

        assert_int_equal(read_text("# a comment\n\n[Pool]\nWorkers = 4\n\n; another\n[Job]\nMaxAttempts=2", &s, error),
                         0);
        assert_int_equal(s.n, 2);
        assert_int_equal(s.line, 8);
        assert_string_equal(s.section, "Job");
        assert_string_equal(s.key, "MaxAttempts");
        assert_string_equal(s.value, "2");
        assert_int_equal(read_text("", &s, error), 0);
        assert_int_equal(read_text("[Pool]\nWorkers=\n", &s, error), 0);
        assert_string_equal(s.value, "");
        assert_int_equal(read_text("[Pool]\nStop=1\nWorkers=2\n", &s, error), -ECANCELED);
        assert_int_equal(s.n, 1);
        /* Blanks at the start of a line say nothing, as in unit files. */
        assert_int_equal(read_text("[Pool]\nPlugin=primes\n  Workers=3\n\t# a comment\n", &s, error), 0);
        assert_int_equal(s.n, 2);
        assert_int_equal(s.line, 3);
        assert_string_equal(s.key, "Workers");
        assert_string_equal(s.value, "3");
        assert_int_equal(read_text("[Pool]\nPlugin=primes\n  and more\n", &s, error), -EINVAL);
        assert_non_null(strstr(error, ":3: "));
}

static void test_refused_lines(void **state) {
        char text[10000] = "[Pool]\nWorkers=1\nPlugin=", where[80], error[400];
        size_t n = strlen(text);
        struct seen s;

        snprintf(where, sizeof(where), "%s:3: ", path);
        memset(text + n, 'x', 4096 - strlen("Plugin="));
        text[n + 4096 - strlen("Plugin=")] = '\0';
        assert_int_equal(read_text(text, &s, error), 0); /* the longest line there is, without its end */
        assert_int_equal(strlen(s.value), 4096 - strlen("Plugin="));
        strcat(text, "\n");
        assert_int_equal(read_text(text, &s, error), 0);
        assert_int_equal(strlen(s.value), 4096 - strlen("Plugin="));
        memset(text + n, 'x', 5000);
        strcpy(text + n + 5000, "\nWorkers=2\n");
        assert_int_equal(read_text(text, &s, error), -EINVAL);
        assert_int_equal(strncmp(error, where, strlen(where)), 0);
        assert_int_equal(s.n, 1);
        assert_int_equal(read_text("[Pool]\nWorkers=1\nPlugin\n", &s, error), -EINVAL);
        assert_int_equal(strncmp(error, where, strlen(where)), 0);
        assert_int_equal(read_text("[Pool]\nWorkers=1\n[Job\n", &s, error), -EINVAL);
        assert_int_equal(strncmp(error, where, strlen(where)), 0);
        assert_int_equal(read_text("[Pool]\nWorkers=1\nPlugin=\xff\xfe\n", &s, error), -EINVAL);
        assert_int_equal(strncmp(error, where, strlen(where)), 0);
        assert_int_equal(read_bytes("[Pool]\nWorkers=1\nA\0=2\n", 22, &s, error), -EINVAL);
        assert_int_equal(strncmp(error, where, strlen(where)), 0);
}

static void test_comments(void **state) {
        char text[9000] = "[Pool]\n ; \xff", error[400];
        struct seen s;

        memset(text + strlen(text), 'x', 8000);
        strcat(text, "\nPlugin=a ; b\n#\n;\n\t# last");
        assert_int_equal(read_text(text, &s, error), 0);
        assert_int_equal(s.n, 1);
        assert_int_equal(s.line, 3);
        assert_string_equal(s.value, "a ; b");
        assert_int_equal(read_text("# Plugin=a\\\nPlugin=b\\\n", &s, error), 0);
        assert_string_equal(s.value, "b\\");
}

static void test_not_a_file(void **state) {
        char error[400], fifo[80];
        struct seen s;

        assert_int_equal(config_file_read("/nonexistent/drover.conf", on_setting, &s, error, sizeof(error)), -ENOENT);
        assert_non_null(strstr(error, "/nonexistent/drover.conf"));
        assert_int_equal(config_file_read(directory, on_setting, &s, error, sizeof(error)), -EISDIR);
        snprintf(fifo, sizeof(fifo), "%s/fifo", directory);
        assert_int_equal(mkfifo(fifo, 0600), 0);
        assert_true(config_file_read(fifo, on_setting, &s, error, sizeof(error)) <
                    0); /* and does not wait for a writer */
        unlink(fifo);
}

/* Any bytes: an answer that names the file, never a crash, and lines are counted right up to the fault. */
static void test_any_bytes(void **state) {
        static const char letters[] = "[]=:;#\n\n\n \tPW\\\r\"x\xc3\xa4\xff";
        char bytes[700], error[400];
        struct seen s;

        srandom(22);
        for (unsigned round = 0; round < 3000; round++) {
                size_t n = (size_t)random() % sizeof(bytes);

                for (size_t i = 0; i < n; i++)
                        bytes[i] = round % 3 ? letters[(size_t)random() % (sizeof(letters) - 1)] : (char)random();
                if (read_bytes(bytes, n, &s, error) < 0)
                        assert_int_equal(strncmp(error, path, strlen(path)), 0);
        }
}

static void touch(const char *dir, const char *name, const char *target) {
        char file[128];
        int fd;

        snprintf(file, sizeof(file), "%s/%s", directory, dir);
        mkdir(file, 0700);
        snprintf(file, sizeof(file), "%s/%s/d", directory, dir);
        mkdir(file, 0700);
        snprintf(file, sizeof(file), "%s/%s/d/%s", directory, dir, name);
        if (target) {
                assert_int_equal(symlink(target, file), 0);
                return;
        }
        fd = open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        close(fd);
}

static void test_search(void **state) {
        char low[64], high[64], *dirs[] = {low, high, (char *)"/nonexistent"}, expected[128];
        struct config_list l;

        snprintf(low, sizeof(low), "%s/low", directory);
        snprintf(high, sizeof(high), "%s/high", directory);
        touch("low", "b.pool", NULL);
        touch("low", "a.pool", NULL);
        touch("low", "masked.pool", NULL);
        touch("low", ".hidden.pool", NULL);
        touch("low", "note.txt", NULL);
        touch("high", "b.pool", NULL);
        touch("high", "masked.pool", "/dev/null");
        touch("high", "c.pool", NULL);
        assert_int_equal(config_list_find(dirs, 3, "d", ".pool", &l), 0);
        assert_int_equal(l.n, 3);
        assert_string_equal(config_base_name(l.paths[0]), "a.pool");
        snprintf(expected, sizeof(expected), "%s/d/b.pool", high);
        assert_string_equal(l.paths[1], expected);
        assert_string_equal(config_base_name(l.paths[2]), "c.pool");
        config_list_free(&l);
        assert_int_equal(config_list_find(dirs, 3, "nothing", ".pool", &l), 0);
        assert_int_equal(l.n, 0);
        config_list_free(&l);
        assert_int_equal(config_find_last(dirs, 3, "d/b.pool", &l), 0);
        assert_int_equal(l.n, 1);
        assert_string_equal(l.paths[0], expected);
        config_list_free(&l);
        assert_int_equal(config_find_last(dirs, 3, "d/a.pool", &l), 0);
        assert_int_equal(l.n, 1);
        config_list_free(&l);
        assert_int_equal(config_find_last(dirs, 3, "d/masked.pool", &l), 0);
        assert_int_equal(l.n, 0);
}

/* ---- what is there and cannot be read ---- */

static void test_a_file_that_breaks_off(void **state) {
        char error[400];
        struct seen s = {};

        /* A regular file whose first page nobody has. */
        assert_int_equal(config_file_read("/proc/self/mem", on_setting, &s, error, sizeof(error)), -EIO);
        assert_string_equal(error, "/proc/self/mem: Input/output error");
}

/* Each of these is a folder "d" of a directory of its own, beside one that is fine. */
static void check_folder(const char *target, int expected, const char *why) {
        char odd[64], fine[64], name[80], words[200], *dirs[] = {fine, odd};
        struct config_list l = {};

        snprintf(fine, sizeof(fine), "%s/low", directory);
        snprintf(odd, sizeof(odd), "%s/odd", directory);
        snprintf(name, sizeof(name), "%s/d", odd);
        touch("low", "a.pool", NULL);
        mkdir(odd, 0700);
        if (target)
                assert_int_equal(symlink(target, name), 0);
        assert_int_equal(config_list_find(dirs, 2, "d", ".pool", &l), expected);
        if (why) {
                snprintf(words, sizeof(words), "%s: %s", name, why);
                assert_string_equal(l.error, words);
        } else {
                assert_string_equal(l.error, "");
                config_list_free(&l);
        }
        unlink(name);
}

static void test_folders(void **state) {
        check_folder(NULL, 0, NULL);
        check_folder("/dev/null", 0, NULL);
        check_folder("d", -ELOOP, strerror(ELOOP));
        check_folder("/nonexistent/d", -ENXIO, "a link that leads nowhere");
        check_folder("/etc/passwd", -ENOTDIR, strerror(ENOTDIR));
}

/* Nobody's: root reads what it likes. */
static void test_may_not_be_read(void **state) {
        char odd[64], name[80], error[400], *dirs[] = {odd};
        struct config_list l;
        struct seen s;
        int status;

        snprintf(odd, sizeof(odd), "%s/closed", directory);
        snprintf(name, sizeof(name), "%s/d", odd);
        touch("closed", "a.pool", NULL);
        assert_int_equal(chmod(directory, 0755), 0);
        assert_int_equal(chmod(odd, 0), 0);
        pid_t pid = fork();
        if (pid == 0) {
                if (geteuid() == 0 && setresuid(65534, 65534, 65534) < 0)
                        _exit(1);
                bool is_told = config_list_find(dirs, 1, "d", ".pool", &l) == -EACCES && strstr(l.error, name) &&
                               config_find_last(dirs, 1, "drover.conf", &l) == -EACCES &&
                               strstr(l.error, "drover.conf");
                strcat(name, "/a.pool");
                _exit(is_told && config_file_read(name, on_setting, &s, error, sizeof(error)) == -EACCES ? 0 : 2);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_int_equal(chmod(odd, 0700), 0);
}

/* No descriptor is left: what is not there is known not to be there all the same. */
static void test_no_descriptors(void **state) {
        char low[64], *dirs[] = {low};
        struct config_list l;
        struct rlimit before, none;

        snprintf(low, sizeof(low), "%s/low", directory);
        touch("low", "a.pool", NULL);
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
        none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
        int r = config_list_find(dirs, 1, "d", ".pool", &l),
            nothing = config_list_find(dirs, 1, "nothing", ".pool", &l);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
        assert_int_equal(r, -EMFILE);
        assert_int_equal(nothing, 0);
        config_list_free(&l);
}

static int set_up(void **state) {
        if (!mkdtemp(directory))
                return -1;
        snprintf(path, sizeof(path), "%s/file.conf", directory);
        return 0;
}

static int tear_down(void **state) {
        char command[80];

        snprintf(command, sizeof(command), "rm -r %s", directory);
        return system(command);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_settings),        cmocka_unit_test(test_refused_lines),
                cmocka_unit_test(test_comments),        cmocka_unit_test(test_not_a_file),
                cmocka_unit_test(test_any_bytes),       cmocka_unit_test(test_search),
                cmocka_unit_test(test_folders),         cmocka_unit_test(test_a_file_that_breaks_off),
                cmocka_unit_test(test_may_not_be_read), cmocka_unit_test(test_no_descriptors),
        };

        return cmocka_run_group_tests(tests, set_up, tear_down);
}
