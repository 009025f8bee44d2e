/* Numbers that no daemon gives out twice: over clean ends, kills, files that are damaged or cannot be written. A kill
 * is a copy of the file as it stood: what the next daemon would find. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/log/log.h"
#include "daemon/supervise/facts/numbers.h"

static const uint64_t nothing[NUMBERS_N_KINDS];
static char directory[64], file[96], log_file[96];

static int setup(void **state) {
        strcpy(directory, "/tmp/test-numbers-XXXXXX");
        assert_non_null(mkdtemp(directory));
        snprintf(file, sizeof(file), "%s/numbers", directory);
        snprintf(log_file, sizeof(log_file), "%s/log", directory);
        log_open("test", LOG_LEVEL_WARNING);
        return 0;
}

static int teardown(void **state) {
        static const char *const names[] = {"numbers", "log", ".numbers.new", "elsewhere"};
        for (unsigned i = 0; i < sizeof(names) / sizeof(*names); i++) {
                char path[128];
                snprintf(path, sizeof(path), "%s/%s", directory, names[i]);
                remove(path);
        }
        return rmdir(directory);
}

static struct numbers *begin(const uint64_t used[NUMBERS_N_KINDS]) {
        struct numbers *n;
        assert_int_equal(numbers_new(&n, NULL, directory, used, 0), 0);
        return n;
}

static void store(const char *text) {
        int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        assert_int_equal(write(fd, text, strlen(text)), strlen(text));
        close(fd);
}

static void load(char text[static 128]) {
        int fd = open(file, O_RDONLY);
        ssize_t bytes = read(fd, text, 127);
        assert_true(bytes > 0);
        text[bytes] = 0;
        close(fd);
}

/* One that is not there any more, and wrote nothing at its end. */
static void kill_it(struct numbers *n) {
        char text[128];
        load(text);
        numbers_free(n, 0);
        store(text);
}

/* What is said from now on. */
static int log_begin(void) {
        int saved = dup(STDERR_FILENO), fd = open(log_file, O_RDWR | O_CREAT | O_TRUNC, 0600);
        dup2(fd, STDERR_FILENO);
        close(fd);
        return saved;
}

static unsigned log_end(int saved, const char *word) {
        char text[4096];
        unsigned n = 0;
        dup2(saved, STDERR_FILENO);
        close(saved);
        int fd = open(log_file, O_RDONLY);
        ssize_t bytes = read(fd, text, sizeof(text) - 1);
        close(fd);
        text[bytes > 0 ? bytes : 0] = 0;
        for (const char *p = text; (p = strstr(p, word)); p++)
                n++;
        return n;
}

static void test_begins_at_one_and_goes_on_after_a_clean_end(void **state) {
        char text[128];
        struct numbers *n = begin(nothing);
        assert_int_equal(numbers_next(n, NUMBERS_JOB), 1);
        assert_int_equal(numbers_next(n, NUMBERS_JOB), 2);
        assert_int_equal(numbers_next(n, NUMBERS_CHANNEL), 1);
        numbers_free(n, 0);
        load(text);
        assert_string_equal(text, "job 3\nchannel 2\n");
        n = begin(nothing);
        assert_int_equal(numbers_next(n, NUMBERS_JOB), 3);
        assert_int_equal(numbers_next(n, NUMBERS_CHANNEL), 2);
        numbers_free(n, 0);
}

/* At whichever number it is killed. */
static void test_a_kill_repeats_none(void **state) {
        uint64_t last[NUMBERS_N_KINDS] = {0};
        for (unsigned i = 0; i < 60; i++) {
                struct numbers *n = begin(nothing);
                for (unsigned k = 0; k < 1 + i * 97; k++)
                        for (unsigned kind = 0; kind < NUMBERS_N_KINDS; kind++) {
                                uint64_t next = numbers_next(n, kind);
                                assert_true(next > last[kind]);
                                last[kind] = next;
                        }
                kill_it(n);
        }
        assert_true(last[NUMBERS_JOB] < 60 * (59 * 97 + 8192)); /* nor are many lost */
}

static void test_a_damaged_file(void **state) {
        static const char *const bad[] = {
                "",
                "\n",
                "job 5\n",
                "job 5\nchannel 7",
                "job 5\nchannel 7\n\n",
                "job 5\nchannel 7\nworker 3\n",
                "job -5\nchannel 7\n",
                "job 0\nchannel 7\n",
                "job 5\nchannel 0\n",
                "job 1099511627776\nchannel 7\n",        /* one of a channel */
                "job 1099511627775\nchannel 7\n",        /* leaves no room */
                "job 18446744073709551621\nchannel 7\n", /* 5, with an overflow */
                "job 5\nchannel 16777216\n",
                "channel 7\njob 5\n",
                "job 5x\nchannel 7\n",
                "job 00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000005\n",
        };
        static const uint64_t used[NUMBERS_N_KINDS] = {900000000000, 0};
        for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
                store(bad[i]);
                int saved = log_begin();
                struct numbers *n = begin(i % 2 ? used : nothing);
                unsigned n_said = log_end(saved, "numbers makes no sense");
                uint64_t job = numbers_next(n, NUMBERS_JOB), channel = numbers_next(n, NUMBERS_CHANNEL);
                if (n_said != 1 || job < 1000000 || (i % 2 && job <= used[NUMBERS_JOB]) || channel < 1)
                        fail_msg("\"%s\": job %llu, channel %llu, %u warnings", bad[i], (unsigned long long)job,
                                 (unsigned long long)channel, n_said);
                numbers_free(n, 0);
                n = begin(nothing); /* and is a good one now */
                assert_int_equal(numbers_next(n, NUMBERS_JOB), job + 1);
                assert_int_equal(numbers_next(n, NUMBERS_CHANNEL), channel + 1);
                numbers_free(n, 0);
        }
}

/* A link, a pipe: neither is followed, neither blocks, and what it points to stays as it is. */
static void test_a_file_that_is_none(void **state) {
        char elsewhere[128], text[8] = {0};
        snprintf(elsewhere, sizeof(elsewhere), "%s/elsewhere", directory);
        int fd = open(elsewhere, O_RDWR | O_CREAT, 0600);
        assert_int_equal(write(fd, "mine", 4), 4);
        for (unsigned i = 0; i < 2; i++) {
                assert_int_equal(i == 0 ? symlink(elsewhere, file) : mkfifo(file, 0600), 0);
                int saved = log_begin();
                struct numbers *n = begin(nothing);
                assert_int_equal(log_end(saved, "numbers of jobs begin past"), 1);
                assert_true(numbers_next(n, NUMBERS_JOB) > 1000000);
                numbers_free(n, 0);
                assert_int_equal(remove(file), 0);
        }
        assert_int_equal(pread(fd, text, sizeof(text), 0), 4);
        assert_string_equal(text, "mine");
        close(fd);
}

/* Only the one who could not write it can tell: a directory has its name. */
static void test_a_file_that_cannot_be_written(void **state) {
        uint64_t last = 0;
        assert_int_equal(mkdir(file, 0700), 0);
        for (unsigned i = 0; i < 3; i++) {
                int saved = log_begin();
                struct numbers *n = begin(nothing);
                for (unsigned k = 0; k < 10000; k++) {
                        uint64_t job = numbers_next(n, NUMBERS_JOB);
                        assert_true(job > last || k == 0);
                        assert_true(job > 1000000);
                        last = job;
                }
                assert_true(numbers_next(n, NUMBERS_CHANNEL) > 0);
                numbers_free(n, 0);
                assert_int_equal(log_end(saved, "cannot be written"), 1);
                last = 0;
        }
}

/* It was fine, and then it cannot be written: first those that are reserved, then from the clock. */
static void test_a_directory_that_goes_away(void **state) {
        struct numbers *n = begin(nothing);
        assert_int_equal(numbers_next(n, NUMBERS_JOB), 1);
        assert_int_equal(remove(file), 0);
        assert_int_equal(mkdir(file, 0700), 0);
        int saved = log_begin();
        for (uint64_t i = 2; i <= 4096; i++)
                assert_int_equal(numbers_next(n, NUMBERS_JOB), i);
        uint64_t job = numbers_next(n, NUMBERS_JOB);
        assert_true(job > 1000000);
        for (unsigned i = 0; i < 9000; i++)
                assert_true(numbers_next(n, NUMBERS_JOB) > job);
        assert_int_equal(log_end(saved, "cannot be written"), 1);
        assert_int_equal(remove(file), 0);
        numbers_free(n, 0); /* it is back: what the next one finds is behind them all */
        n = begin(nothing);
        assert_true(numbers_next(n, NUMBERS_JOB) > job + 9000);
        numbers_free(n, 0);
}

static void test_begins_behind_what_is_known(void **state) {
        static const uint64_t used[NUMBERS_N_KINDS] = {41, 6},
                              too_large[NUMBERS_N_KINDS] = {NUMBERS_MAX_JOB, UINT64_MAX};
        struct numbers *n = begin(used);
        assert_int_equal(numbers_next(n, NUMBERS_JOB), 42);
        assert_int_equal(numbers_next(n, NUMBERS_CHANNEL), 7);
        numbers_free(n, 0);
        n = begin(too_large); /* a name that somebody put there does not use them up */
        assert_int_equal(numbers_next(n, NUMBERS_JOB), 43);
        assert_int_equal(numbers_next(n, NUMBERS_CHANNEL), 8);
        numbers_free(n, 0);
        n = begin(NULL); /* nobody can tell which numbers jobs had: not the file alone */
        assert_true(numbers_next(n, NUMBERS_JOB) > 1000000);
        assert_true(numbers_next(n, NUMBERS_CHANNEL) > 9);
        numbers_free(n, 0);
}

/* Not "makes no sense": it cannot be read. */
static void test_a_file_that_cannot_be_read(void **state) {
        int status;
        store("job 5\nchannel 7\n");
        assert_int_equal(chmod(file, 0), 0);
        assert_int_equal(chmod(directory, 0755), 0);
        int saved = log_begin();
        pid_t pid = fork();
        if (pid == 0) {
                if (geteuid() == 0 && setresuid(65534, 65534, 65534) < 0)
                        _exit(1);
                struct numbers *n = begin(nothing);
                _exit(numbers_next(n, NUMBERS_JOB) > 1000000 ? 0 : 2);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(log_end(saved, "numbers cannot be read: Permission denied"), 1);
        assert_int_equal(status, 0);
}

static void test_after_the_last_comes_the_first(void **state) {
        store("job 5\nchannel 16777213\n");
        struct numbers *n = begin(nothing);
        assert_int_equal(numbers_next(n, NUMBERS_CHANNEL), NUMBERS_MAX_CHANNEL - 1);
        assert_int_equal(numbers_next(n, NUMBERS_CHANNEL), NUMBERS_MAX_CHANNEL);
        numbers_free(n, 0);
        n = begin(nothing);
        assert_int_equal(numbers_next(n, NUMBERS_CHANNEL), 1);
        assert_int_equal(numbers_next(n, NUMBERS_CHANNEL), 2);
        kill_it(n);
        n = begin(nothing);
        assert_int_equal(numbers_next(n, NUMBERS_CHANNEL), 1025);
        numbers_free(n, 0);
}

static void test_without_a_directory(void **state) {
        struct numbers *n;
        int saved = log_begin();
        assert_int_equal(numbers_new(&n, NULL, NULL, nothing, 0), 0);
        for (uint64_t i = 1; i < 10000; i++)
                assert_int_equal(numbers_next(n, NUMBERS_JOB), i);
        numbers_free(n, 0);
        assert_int_equal(log_end(saved, "numbers"), 0);
        saved = log_begin();
        assert_int_equal(numbers_new(&n, NULL, "/nowhere/at/all", nothing, 0), 0);
        assert_true(numbers_next(n, NUMBERS_JOB) > 1000000);
        numbers_free(n, 0);
        assert_int_equal(log_end(saved, "cannot be written"), 1);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_begins_at_one_and_goes_on_after_a_clean_end, setup, teardown),
                cmocka_unit_test_setup_teardown(test_a_kill_repeats_none, setup, teardown),
                cmocka_unit_test_setup_teardown(test_a_damaged_file, setup, teardown),
                cmocka_unit_test_setup_teardown(test_a_file_that_is_none, setup, teardown),
                cmocka_unit_test_setup_teardown(test_a_file_that_cannot_be_written, setup, teardown),
                cmocka_unit_test_setup_teardown(test_a_directory_that_goes_away, setup, teardown),
                cmocka_unit_test_setup_teardown(test_begins_behind_what_is_known, setup, teardown),
                cmocka_unit_test_setup_teardown(test_a_file_that_cannot_be_read, setup, teardown),
                cmocka_unit_test_setup_teardown(test_after_the_last_comes_the_first, setup, teardown),
                cmocka_unit_test_setup_teardown(test_without_a_directory, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
