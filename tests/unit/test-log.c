/* One line a message, whatever it quotes. */
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
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/log/log.h"

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
        capture(NULL,
                "a\xc2\x9b"
                "2Jb\x9b"
                "2Jc\x7f"
                "d \xc3\xa9 \xe2\x82\xac",
                line); /* U+009B, and as a byte, is ESC [ */
        assert_string_equal(line, "droverd: a 2Jb 2Jc d \xc3\xa9 \xe2\x82\xac\n");
        memset(longest, 'x', sizeof(longest) - 1);
        longest[sizeof(longest) - 1] = '\0';
        capture(NULL, longest, line);
        assert_int_equal(strlen(line), 2047);
        assert_ptr_equal(strchr(line, '\n'), line + 2046);
}

/* Of a stderr that is small, read late, and not blocking because somebody wants it so. */
static void test_detached(void **state) {
        enum { N = 200 };
        int fds[2], status;
        char text[64], *line = NULL;
        size_t bytes = 0;
        unsigned n = 0;

        assert_int_equal(pipe2(fds, O_NONBLOCK | O_CLOEXEC), 0);
        assert_true(fcntl(fds[1], F_SETPIPE_SZ, 4096) > 0);
        pid_t pid = fork();
        if (pid == 0) {
                dup2(fds[1], STDERR_FILENO);
                close(fds[0]);
                close(fds[1]);
                setenv("JOURNAL_STREAM", "1:1", 1);
                log_open("droverd", LOG_LEVEL_INFO);
                if (log_detach(LOG_WRITER) < 0)
                        _exit(1);
                for (unsigned i = 0; i < N; i++)
                        log_info("message %u of many that are a little longer than the pipe is wide", i);
                log_finish();
                _exit(0);
        }
        close(fds[1]);
        assert_int_equal(fcntl(fds[0], F_SETFL, 0), 0);
        FILE *f = fdopen(fds[0], "r");
        while (getline(&line, &bytes, f) > 0) {
                snprintf(text, sizeof(text), "droverd: message %u of many", n++);
                assert_int_equal(strncmp(line, text, strlen(text)), 0);
        }
        free(line);
        fclose(f);
        assert_int_equal(n, N);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

/* Nobody reads, then somebody does: what is missing is told where it is missing. */
static void check_dropped(const int fds[2], enum log_way way) {
        static char text[1 << 20];
        size_t bytes = 0;

        pid_t pid = fork();
        if (pid == 0) {
                dup2(fds[1], STDERR_FILENO);
                close(fds[1]);
                setenv("JOURNAL_STREAM", "1:1", 1);
                log_open("droverd", LOG_LEVEL_INFO);
                if (log_detach(way) < 0)
                        _exit(1);
                for (unsigned i = 0; i < 3000; i++)
                        log_info("message %u", i);
                fcntl(fds[0], F_SETFL, O_NONBLOCK);
                while (read(fds[0], text, sizeof(text)) > 0)
                        ;
                fcntl(fds[0], F_SETFL, 0);
                log_info("message 3000");
                log_finish();
                _exit(0);
        }
        close(fds[1]);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        for (ssize_t got; (got = read(fds[0], text + bytes, sizeof(text) - 1 - bytes)) > 0;)
                bytes += (size_t)got;
        close(fds[0]);
        text[bytes] = '\0';
        const char *notice = strstr(text, " messages were dropped here"),
                   *last = strstr(text, "droverd: message 3000\n");
        assert_non_null(notice);
        assert_non_null(last);
        assert_true(notice < last);
}

static void test_dropped(void **state) {
        int fds[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        check_dropped(fds, LOG_WRITER);
        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        check_dropped(fds, LOG_NO_WRITER);
}

static void test_levels(void **state) {
        enum log_level level;

        assert_int_equal(log_level_from_string("debug", &level), 0);
        assert_int_equal(level, LOG_LEVEL_DEBUG);
        assert_int_equal(log_level_from_string("loud", &level), -EINVAL);
}

int main(void) {
        const struct CMUnitTest tests[] = {cmocka_unit_test(test_lines), cmocka_unit_test(test_detached),
                                           cmocka_unit_test(test_dropped), cmocka_unit_test(test_levels)};

        return cmocka_run_group_tests(tests, NULL, NULL);
}
