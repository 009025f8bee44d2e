/* Owns STATE/numbers: up to where the numbers of jobs and of channels are reserved, so that no daemon gives one out
 * that an earlier one gave out. Its text is "job N\nchannel N\n", each the first number that nobody may have used yet.
 *
 * Numbers are reserved in blocks, the next one when half of the last is used: the file is written anew and renamed
 * before the first number of the block is given out, so a SIGKILL costs the rest of a block and repeats none. A clean
 * end gives the rest back. Nothing is synced: a power failure may bring an older file back, but leaves no program,
 * channel or result of that time either, and behind the numbers of capsules, which it does leave, they begin in any
 * case.
 *
 * Without a file that can be written, or with one that makes no sense, numbers begin from the clock: it runs faster
 * than jobs and channels come (1024 a second on average, one a second), so that they do not meet those of the next
 * daemon either. What stands in the file is believed only within bounds that leave room to count.
 *
 * Does not look at who uses a number, and does not lock: a state directory is one daemon's. */
#include "daemon/supervise/numbers.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "daemon/log.h"

#define NUMBERS_FILE "numbers"
#define NUMBERS_NEW_FILE ".numbers.new"
#define NUMBERS_CLOCK_EPOCH INT64_C(1735689600) /* 2025-01-01 */
enum { NUMBERS_MAX_TEXT = 128, NUMBERS_CLOCK_TICKS = 1024 };

/* `max_begin`: who says that all before it are used is not believed. */
static const struct {
        const char *word;
        uint64_t max, max_begin, block;
} numbers_kinds[NUMBERS_N_KINDS] = {
        [NUMBERS_JOB] = {"job ", NUMBERS_MAX_JOB, NUMBERS_MAX_JOB - (UINT64_C(1) << 36), 4096},
        [NUMBERS_CHANNEL] = {"channel ", NUMBERS_MAX_CHANNEL, NUMBERS_MAX_CHANNEL + 1, 1024},
};

struct numbers {
        int dir; /* -1: there is no file */
        char *path;
        bool is_told; /* that the file cannot be written */
        struct numbers_line {
                uint64_t next, limit; /* those below `limit` are reserved */
                uint64_t reserve_at;  /* who gets this one reserves more */
        } lines[NUMBERS_N_KINDS];
};

static uint64_t numbers_clock(enum numbers_kind kind) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        uint64_t seconds = (uint64_t)(now.tv_sec - NUMBERS_CLOCK_EPOCH), max = numbers_kinds[kind].max;
        if (kind == NUMBERS_CHANNEL)
                return seconds % max + 1;
        return (seconds * NUMBERS_CLOCK_TICKS + (uint64_t)now.tv_nsec * NUMBERS_CLOCK_TICKS / 1000000000) % max + 1;
}

/* ---- reading ---- */

/* "WORD N\n", 1 <= N <= max_begin, and moves on behind it. */
static bool numbers_parse_line(const char **text, enum numbers_kind kind, uint64_t *ret) {
        size_t bytes = strlen(numbers_kinds[kind].word);
        const char *p = *text;
        uint64_t value = 0;
        if (strncmp(p, numbers_kinds[kind].word, bytes) != 0)
                return false;
        for (p += bytes; *p >= '0' && *p <= '9'; p++) {
                value = value * 10 + (uint64_t)(*p - '0');
                if (value > numbers_kinds[kind].max_begin)
                        return false;
        }
        if (value == 0 || *p != '\n')
                return false;
        *text = p + 1;
        *ret = value;
        return true;
}

/* 0; -ENOENT; -EPROTO, or whatever else keeps it from being read. */
static int numbers_read(const struct numbers *n, uint64_t ret[NUMBERS_N_KINDS]) {
        char text[NUMBERS_MAX_TEXT + 1];
        const char *p = text;
        struct stat st;
        int fd = openat(n->dir, NUMBERS_FILE, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        ssize_t bytes = fstat(fd, &st) < 0 ? -1 : S_ISREG(st.st_mode) ? read(fd, text, NUMBERS_MAX_TEXT) : 0;
        int error = bytes < 0 ? errno : EPROTO;
        close(fd);
        if (bytes <= 0)
                return -error;
        text[bytes] = 0;
        for (unsigned kind = 0; kind < NUMBERS_N_KINDS; kind++)
                if (!numbers_parse_line(&p, kind, &ret[kind]))
                        return -EPROTO;
        return p == text + bytes ? 0 : -EPROTO;
}

/* ---- writing ---- */

static void numbers_tell(struct numbers *n, int error) {
        if (!n->is_told)
                log_warning("%s/" NUMBERS_FILE " cannot be written: %s: numbers of jobs go on from the clock, so that "
                            "none is used twice",
                            n->path, strerror(-error));
        n->is_told = true;
}

/* The new file under its name. */
static int numbers_write(const struct numbers *n, const uint64_t limits[NUMBERS_N_KINDS]) {
        char text[NUMBERS_MAX_TEXT];
        int bytes = snprintf(text, sizeof(text), "%s%" PRIu64 "\n%s%" PRIu64 "\n", numbers_kinds[NUMBERS_JOB].word,
                             limits[NUMBERS_JOB], numbers_kinds[NUMBERS_CHANNEL].word, limits[NUMBERS_CHANNEL]);
        if (n->dir < 0)
                return -ENOENT;
        unlinkat(n->dir, NUMBERS_NEW_FILE, 0);
        int fd = openat(n->dir, NUMBERS_NEW_FILE, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0)
                return -errno;
        ssize_t wrote = write(fd, text, (size_t)bytes);
        int r = wrote == bytes ? 0 : wrote < 0 ? -errno : -ENOSPC;
        if (r >= 0 && renameat(n->dir, NUMBERS_NEW_FILE, n->dir, NUMBERS_FILE) < 0)
                r = -errno;
        close(fd);
        return r;
}

/* More of a kind. If they cannot be: those that are left first, then from the clock. */
static void numbers_reserve(struct numbers *n, enum numbers_kind kind) {
        struct numbers_line *line = &n->lines[kind];
        uint64_t limits[NUMBERS_N_KINDS], max = numbers_kinds[kind].max, block = numbers_kinds[kind].block;
        for (unsigned k = 0; k < NUMBERS_N_KINDS; k++)
                limits[k] = n->lines[k].limit;
        limits[kind] = line->next + block <= max ? line->next + block : max + 1;
        int r = numbers_write(n, limits);
        if (r >= 0) {
                line->limit = limits[kind];
                line->reserve_at = line->next + (line->limit - line->next + 1) / 2;
                return;
        }
        if (n->path)
                numbers_tell(n, r);
        if (line->next >= line->limit) {
                uint64_t now = n->path ? numbers_clock(kind) : 0;
                line->next = now > line->next ? now : line->next;
                line->limit = line->next + block <= max ? line->next + block : max + 1;
        }
        line->reserve_at = line->limit;
}

uint64_t numbers_next(struct numbers *n, enum numbers_kind kind) {
        struct numbers_line *line = &n->lines[kind];
        if (line->next > numbers_kinds[kind].max)
                *line = (struct numbers_line){.next = 1, .limit = 1, .reserve_at = 1};
        if (line->next >= line->reserve_at)
                numbers_reserve(n, kind);
        return line->next++;
}

/* ---- from the first to the last ---- */

static void numbers_begin(struct numbers *n, const uint64_t *used) {
        uint64_t begin[NUMBERS_N_KINDS];
        int r = n->dir < 0 ? -ENOENT : numbers_read(n, begin);
        bool is_bad = r < 0 && r != -ENOENT;
        if (is_bad)
                log_warning("%s/" NUMBERS_FILE " %s%s: numbers of jobs begin past the last capsule's and from the "
                            "clock, so that none is used twice",
                            n->path,
                            r == -EPROTO ? "makes no sense" : "cannot be read: ", r == -EPROTO ? "" : strerror(-r));
        for (unsigned kind = 0; kind < NUMBERS_N_KINDS; kind++) {
                uint64_t next = r >= 0 ? begin[kind] : 1, now = is_bad || !used ? numbers_clock(kind) : 0;
                next = now > next ? now : next;
                if (used && used[kind] >= next && used[kind] < numbers_kinds[kind].max_begin)
                        next = used[kind] + 1;
                n->lines[kind] = (struct numbers_line){.next = next, .limit = next, .reserve_at = next};
        }
}

int numbers_new(struct numbers **ret, const char *state_dir, const uint64_t *used) {
        struct numbers *n = calloc(1, sizeof(*n));
        if (!n)
                return -ENOMEM;
        *n = (struct numbers){.dir = -1, .path = state_dir ? strdup(state_dir) : NULL};
        if (state_dir && !n->path) {
                free(n);
                return -ENOMEM;
        }
        if (state_dir && (n->dir = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
                numbers_tell(n, -errno);
        numbers_begin(n, used);
        for (unsigned kind = 0; kind < NUMBERS_N_KINDS; kind++)
                numbers_reserve(n, kind);
        *ret = n;
        return 0;
}

struct numbers *numbers_free(struct numbers *n) {
        if (!n)
                return NULL;
        uint64_t left[NUMBERS_N_KINDS];
        for (unsigned kind = 0; kind < NUMBERS_N_KINDS; kind++)
                left[kind] = n->lines[kind].next;
        numbers_write(n, left);
        if (n->dir >= 0)
                close(n->dir);
        free(n->path);
        free(n);
        return NULL;
}
