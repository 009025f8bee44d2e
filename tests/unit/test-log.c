/* One line a message, whatever it quotes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/log.h"

/* What one message looks like on stderr. */
static void capture(const char *journal, const char *text, char ret[static 4096]) {
        int fds[2], saved;
        struct stat st;
        char stream[64];
        ssize_t n;

        assert_int_equal(pipe(fds), 0);
        saved = dup(STDERR_FILENO);
        dup2(fds[1], STDERR_FILENO);
        if (journal) {
                assert_int_equal(fstat(STDERR_FILENO, &st), 0);
                snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
                setenv("JOURNAL_STREAM", stream, 1);
        } else
                setenv("JOURNAL_STREAM", "1:1", 1);
        log_open("droverd", LOG_LEVEL_INFO);
        errno = ENOTTY;
        log_warning("%s", text);
        log_debug("not at this level");
        assert_int_equal(errno, ENOTTY);
        dup2(saved, STDERR_FILENO);
        close(saved);
        close(fds[1]);
        n = read(fds[0], ret, 4095);
        close(fds[0]);
        ret[n < 0 ? 0 : n] = '\0';
}

static void test_lines(void **state) {
        char line[4096], longest[3000];

        capture(NULL, "hello", line);
        assert_string_equal(line, "droverd: hello\n");
        capture("journal", "hello", line);
        assert_string_equal(line, "<4>hello\n");
        capture(NULL, "forged\n<0>droverd: line\x1b[2J", line);
        assert_string_equal(line, "droverd: forged <0>droverd: line [2J\n");
        memset(longest, 'x', sizeof(longest) - 1);
        longest[sizeof(longest) - 1] = '\0';
        capture(NULL, longest, line);
        assert_int_equal(strlen(line), 2047);
        assert_ptr_equal(strchr(line, '\n'), line + 2046);
}

static void test_levels(void **state) {
        enum log_level level;

        assert_int_equal(log_level_from_string("debug", &level), 0);
        assert_int_equal(level, LOG_LEVEL_DEBUG);
        assert_int_equal(log_level_from_string("loud", &level), -EINVAL);
}

int main(void) {
        const struct CMUnitTest tests[] = {cmocka_unit_test(test_lines), cmocka_unit_test(test_levels)};

        return cmocka_run_group_tests(tests, NULL, NULL);
}
