/* Messages of the programs, one write a line, so that lines of several processes do not mix.
 *
 * Under systemd stderr is the journal's socket ($JOURNAL_STREAM names it): a line then starts with its priority in
 * angle brackets and the journal keeps it with unit and pid. Else it starts with the program's name. Text may quote a
 * peer: control characters are replaced, so that nobody forges a line or moves a terminal's cursor. */
#include "daemon/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct {
        const char *program;
        enum log_level level;
        bool is_journal;
} log_state = {.program = "drover", .level = LOG_LEVEL_INFO};

static bool stderr_is_journal(void) {
        const char *stream = getenv("JOURNAL_STREAM");
        uintmax_t device, inode;
        struct stat st;

        return stream && sscanf(stream, "%ju:%ju", &device, &inode) == 2 && fstat(STDERR_FILENO, &st) == 0 &&
               (uintmax_t)st.st_dev == device && (uintmax_t)st.st_ino == inode;
}

void log_open(const char *program, enum log_level level) {
        log_state.program = program;
        log_state.level = level;
        log_state.is_journal = stderr_is_journal();
}

int log_level_from_string(const char *word, enum log_level *ret) {
        static const struct {
                const char *word;
                enum log_level level;
        } levels[] = {
                {"error", LOG_LEVEL_ERROR}, {"warning", LOG_LEVEL_WARNING}, {"notice", LOG_LEVEL_NOTICE},
                {"info", LOG_LEVEL_INFO},   {"debug", LOG_LEVEL_DEBUG},
        };

        for (size_t i = 0; i < sizeof(levels) / sizeof(*levels); i++)
                if (strcmp(levels[i].word, word) == 0) {
                        *ret = levels[i].level;
                        return 0;
                }
        return -EINVAL;
}

void log_write(enum log_level level, const char *format, ...) {
        char line[2048];
        size_t start, n;
        va_list ap;
        int r, saved_errno = errno;

        if (level > log_state.level)
                return;
        r = log_state.is_journal ? snprintf(line, sizeof(line), "<%d>", (int)level)
                                 : snprintf(line, sizeof(line), "%s: ", log_state.program);
        start = r > 0 && (size_t)r < sizeof(line) - 1 ? (size_t)r : 0;
        va_start(ap, format);
        r = vsnprintf(line + start, sizeof(line) - 1 - start, format, ap);
        va_end(ap);
        if (r < 0)
                return;
        n = start + strlen(line + start);
        for (size_t i = start; i < n; i++)
                if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
                        line[i] = ' ';
        line[n++] = '\n';
        while (write(STDERR_FILENO, line, n) < 0 && errno == EINTR)
                ;
        errno = saved_errno;
}
