/* Messages of the programs, one write a line, so that lines of several processes do not mix.
 *
 * Under systemd stderr is the journal's socket ($JOURNAL_STREAM names it): a line then starts with its priority in
 * angle brackets and the journal keeps it with unit and pid. Else it starts with the program's name. Text may quote a
 * peer: control characters, and bytes that are no UTF-8, are replaced, so that nobody forges a line or moves a
 * terminal's cursor.
 *
 * A daemon's loop never waits for a log: log-way.h, after log_detach. The socket or pipe that stderr is by then is the
 * buffer, as large as the kernel makes it. When it is full lines are dropped until there is room again (of a socket
 * poll says so only when it is nearly empty), and one message tells how many. */
#include "daemon/log/log.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/log/log-way.h"
#include "ipc/values/utf8.h"

enum { LOG_LINE = 2048, LOG_PATIENCE_MS = 1000 };

static struct {
        const char *program;
        enum log_level level;
        bool is_journal;
        bool is_detached; /* by log-way.h */
        bool is_cut;      /* a part of a line was taken only */
        unsigned long n_dropped;
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

enum log_level log_get_level(void) { return log_state.level; }

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

/* ---- a line ---- */

static size_t log_prefix(char line[static LOG_LINE], enum log_level level) {
        int n = log_state.is_journal ? snprintf(line, LOG_LINE, "<%d>", (int)level)
                                     : snprintf(line, LOG_LINE, "%s: ", log_state.program);

        return n > 0 && n < LOG_LINE - 1 ? (size_t)n : 0;
}

/* False: there is no room for it. Where nobody is left to read, lines go nowhere. */
static bool log_try(const char *line, size_t n) {
        ssize_t sent;

        if (log_state.is_cut && log_way_try("\n", 1) != 1)
                return false;
        log_state.is_cut = false;
        sent = log_way_try(line, n);
        log_state.is_cut = sent > 0 && (size_t)sent < n;
        return sent == (ssize_t)n || (sent < 0 && errno != EAGAIN && errno != ENOBUFS && errno != ENOMEM);
}

/* Those that were dropped come first. */
static bool log_tell_dropped(void) {
        char line[LOG_LINE];
        size_t n = log_prefix(line, LOG_LEVEL_WARNING);

        if (log_state.n_dropped == 0)
                return true;
        if (!log_way_has_room())
                return false;
        n += (size_t)snprintf(line + n, sizeof(line) - n,
                              "%lu messages were dropped here, because nobody read what this program says\n",
                              log_state.n_dropped);
        if (!log_try(line, n))
                return false;
        log_state.n_dropped = 0;
        return true;
}

static void log_emit(const char *line, size_t n) {
        if (log_state.is_detached) {
                if (!log_tell_dropped() || !log_try(line, n))
                        log_state.n_dropped++;
                return;
        }
        while (write(STDERR_FILENO, line, n) < 0 && errno == EINTR)
                ;
}

void log_write(enum log_level level, const char *format, ...) {
        char line[LOG_LINE];
        size_t start, n;
        va_list ap;
        int r, saved_errno = errno;

        if (level > log_state.level)
                return;
        start = log_prefix(line, level);
        va_start(ap, format);
        r = vsnprintf(line + start, sizeof(line) - 1 - start, format, ap);
        va_end(ap);
        if (r < 0)
                return;
        n = strlen(line + start);
        if ((size_t)r > n) /* it was too long */
                n = utf8_cut(line + start, n);
        n = start + utf8_make_plain(line + start, line + start, n, "", ' ');
        line[n++] = '\n';
        log_emit(line, n);
        errno = saved_errno;
}

/* ---- nobody is waited for ---- */

int log_detach(enum log_way way) {
        int r = log_way_find(way == LOG_WRITER);

        log_state.is_detached = r > 0;
        return r < 0 ? r : 0;
}

void log_finish(void) {
        for (unsigned i = 0; log_state.is_detached && i < LOG_PATIENCE_MS; i++) {
                log_tell_dropped();
                if (log_way_is_done())
                        return;
                poll(NULL, 0, 1);
        }
}
