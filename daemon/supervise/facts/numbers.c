/* Owns STATE/numbers: up to where the numbers of jobs and of channels are reserved, so that no daemon gives one out
 * that an earlier one gave out. Its text is "job N\nchannel N\n", each the first number that nobody may have used yet.
 *
 * Numbers are reserved in blocks, the next one when half of the last is used: the file is written anew and renamed
 * before the first number of the block is given out, so a SIGKILL costs the rest of a block and repeats none. A clean
 * end gives the rest back. Nothing is synced: a power failure may bring an older file back, but leaves no program,
 * channel or result of that time either, and behind the numbers of capsules, which it does leave, they begin in any
 * case.
 *
 * The disk may not answer, so it is another process that reads and writes the file (helper.h), one piece of work at a
 * time, for which nobody waits but at the beginning and, for a moment, at the end. Half a block is time enough for a
 * disk that is slow.
 *
 * Without a file that can be written in that time, or with one that makes no sense, numbers begin from the clock: it
 * runs faster than jobs and channels come (1024 a second on average, one a second), so that they do not meet those of
 * the next daemon either. What stands in the file is believed only within bounds that leave room to count.
 *
 * Does not look at who uses a number, and does not lock: a state directory is one daemon's. */
#include "daemon/supervise/facts/numbers.h"

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

#include "daemon/log/log.h"
#include "daemon/loop/helper.h"

#define NUMBERS_FILE "numbers"
#define NUMBERS_NEW_FILE ".numbers.new"
#define NUMBERS_CLOCK_EPOCH INT64_C(1735689600) /* 2025-01-01 */
enum { NUMBERS_MAX_TEXT = 128, NUMBERS_CLOCK_TICKS = 1024, NUMBERS_MAX_PATH = 4096 };

/* `max_begin`: who says that all before it are used is not believed. */
static const struct {
        const char *word;
        uint64_t max, max_begin, block;
} numbers_kinds[NUMBERS_N_KINDS] = {
        [NUMBERS_JOB] = {"job ", NUMBERS_MAX_JOB, NUMBERS_MAX_JOB - (UINT64_C(1) << 36), 4096},
        [NUMBERS_CHANNEL] = {"channel ", NUMBERS_MAX_CHANNEL, NUMBERS_MAX_CHANNEL + 1, 1024},
};

struct numbers_line {
        uint64_t next, limit; /* those below `limit` are reserved */
        uint64_t reserve_at;  /* who gets this one reserves more */
        uint64_t writing;     /* what limit the file that is being written has */
};

struct numbers {
        struct loop *loop;
        char *path;   /* NULL: there is no file */
        bool is_told; /* that the file cannot be written */
        struct numbers_line lines[NUMBERS_N_KINDS];
        struct helper_call call;
        int error; /* of the last call */
        char text[NUMBERS_MAX_TEXT + 1];
};

struct numbers_order {
        char dir[NUMBERS_MAX_PATH], text[NUMBERS_MAX_TEXT];
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

static int numbers_parse(const char *text, uint64_t ret[NUMBERS_N_KINDS]) {
        for (unsigned kind = 0; kind < NUMBERS_N_KINDS; kind++)
                if (!numbers_parse_line(&text, kind, &ret[kind]))
                        return -EPROTO;
        return *text ? -EPROTO : 0;
}

/* ---- in the other process ---- */

static int numbers_open_dir(const struct numbers_order *o, struct helper_answer *a) {
        int dir = open(o->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dir < 0)
                a->error = -errno;
        return dir;
}

/* -ENOENT: there is none. */
static void numbers_read(const void *order, int unused, struct helper_answer *ret) {
        struct stat st;
        int dir = numbers_open_dir(order, ret);
        if (dir < 0)
                return;
        int fd = openat(dir, NUMBERS_FILE, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        ssize_t bytes = fd < 0 || fstat(fd, &st) < 0 ? -1
                        : S_ISREG(st.st_mode)        ? read(fd, ret->text, NUMBERS_MAX_TEXT)
                                                     : 0;
        ret->error = bytes < 0 ? -errno : bytes == 0 ? -EPROTO : 0;
        ret->text[bytes > 0 ? bytes : 0] = 0;
        if (bytes > 0 && strlen(ret->text) != (size_t)bytes)
                ret->error = -EPROTO;
        if (fd >= 0)
                close(fd);
        close(dir);
}

/* The new file under its name. */
static int numbers_store(int dir, const char *text) {
        ssize_t bytes = (ssize_t)strlen(text);
        unlinkat(dir, NUMBERS_NEW_FILE, 0);
        int fd = openat(dir, NUMBERS_NEW_FILE, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0)
                return -errno;
        ssize_t wrote = write(fd, text, (size_t)bytes);
        int r = wrote == bytes ? 0 : wrote < 0 ? -errno : -ENOSPC;
        if (r >= 0 && renameat(dir, NUMBERS_NEW_FILE, dir, NUMBERS_FILE) < 0)
                r = -errno;
        close(fd);
        return r;
}

static void numbers_write(const void *order, int unused, struct helper_answer *ret) {
        const struct numbers_order *o = order;
        int dir = numbers_open_dir(o, ret);
        if (dir < 0)
                return;
        ret->error = numbers_store(dir, o->text);
        close(dir);
}

/* ---- calls ---- */

static void numbers_begin(struct numbers *n, helper_fn fn, const char *text,
                          void (*on_answer)(struct helper_call *c, const struct helper_answer *a)) {
        struct numbers_order o;
        strcpy(o.dir, n->path);
        strcpy(o.text, text);
        n->call.on_answer = on_answer;
        int r = helper_begin(&n->call, n->loop, fn, &o, sizeof(o), -1);
        if (r < 0)
                on_answer(&n->call, &(struct helper_answer){.error = r, .fd = -1});
}

static void numbers_tell(struct numbers *n, const char *why) {
        if (!n->is_told)
                log_warning("%s/" NUMBERS_FILE " cannot be written: %s: numbers of jobs go on from the clock, so that "
                            "none is used twice",
                            n->path, why);
        n->is_told = true;
}

static void numbers_on_late(struct helper_call *c) { numbers_tell(c->user, "its disk or server does not answer"); }

static void numbers_on_read(struct helper_call *c, const struct helper_answer *a) {
        struct numbers *n = c->user;
        n->error = a->error;
        memcpy(n->text, a->text, sizeof(n->text) - 1);
}

/* ---- writing ---- */

static void numbers_reserve(struct numbers *n);

/* A file that came late is behind what was given out meanwhile, from the clock: it is written once more. */
static void numbers_on_written(struct helper_call *c, const struct helper_answer *a) {
        struct numbers *n = c->user;
        bool is_behind = false;
        n->error = a->error;
        if (a->error < 0)
                numbers_tell(n, strerror(-a->error));
        for (unsigned kind = 0; kind < NUMBERS_N_KINDS; kind++) {
                struct numbers_line *line = &n->lines[kind];
                if (a->error < 0)
                        line->reserve_at = line->limit;
                else if (line->next > line->writing) {
                        line->reserve_at = line->next;
                        is_behind = true;
                } else if (line->writing > line->limit) {
                        line->limit = line->writing;
                        line->reserve_at = line->next + (line->limit - line->next + 1) / 2;
                }
        }
        if (is_behind)
                numbers_reserve(n);
}

static void numbers_write_limits(struct numbers *n, const uint64_t limits[NUMBERS_N_KINDS]) {
        char text[NUMBERS_MAX_TEXT];
        if (!n->path || n->call.is_busy)
                return;
        for (unsigned kind = 0; kind < NUMBERS_N_KINDS; kind++)
                n->lines[kind].writing = limits[kind];
        snprintf(text, sizeof(text), "%s%" PRIu64 "\n%s%" PRIu64 "\n", numbers_kinds[NUMBERS_JOB].word,
                 limits[NUMBERS_JOB], numbers_kinds[NUMBERS_CHANNEL].word, limits[NUMBERS_CHANNEL]);
        numbers_begin(n, numbers_write, text, numbers_on_written);
}

static uint64_t numbers_block_end(const struct numbers *n, enum numbers_kind kind) {
        uint64_t end = n->lines[kind].next + numbers_kinds[kind].block, max = numbers_kinds[kind].max;
        return end <= max ? end : max + 1;
}

/* More of each kind of which half is used. */
static void numbers_reserve(struct numbers *n) {
        uint64_t limits[NUMBERS_N_KINDS];
        for (unsigned kind = 0; kind < NUMBERS_N_KINDS; kind++) {
                struct numbers_line *line = &n->lines[kind];
                limits[kind] = line->next >= line->reserve_at ? numbers_block_end(n, kind) : line->limit;
        }
        numbers_write_limits(n, limits);
}

/* Nothing is reserved, and nobody is waited for. */
static void numbers_take_clock(struct numbers *n, enum numbers_kind kind) {
        struct numbers_line *line = &n->lines[kind];
        uint64_t now = n->path ? numbers_clock(kind) : 0;
        line->next = now > line->next ? now : line->next;
        line->limit = line->reserve_at = numbers_block_end(n, kind);
}

uint64_t numbers_next(struct numbers *n, enum numbers_kind kind) {
        struct numbers_line *line = &n->lines[kind];
        if (line->next > numbers_kinds[kind].max)
                *line = (struct numbers_line){.next = 1, .limit = 1, .reserve_at = 1};
        if (line->next >= line->reserve_at)
                numbers_reserve(n);
        if (line->next >= line->limit)
                numbers_take_clock(n, kind);
        return line->next++;
}

/* ---- from the first to the last ---- */

/* 0 and what the file says; -ENOENT; or, said, why that is not known. */
static int numbers_load(struct numbers *n, uint64_t deadline_ns, uint64_t ret[NUMBERS_N_KINDS]) {
        const char *why = "cannot be read: its disk or server does not answer";
        char text[128];
        if (!n->path)
                return -ENOENT;
        numbers_begin(n, numbers_read, "", numbers_on_read);
        int r = -ETIMEDOUT;
        if (helper_wait(&n->call, deadline_ns)) {
                r = n->error < 0 ? n->error : numbers_parse(n->text, ret);
                snprintf(text, sizeof(text), "cannot be read: %s", strerror(-r));
                why = r == -EPROTO ? "makes no sense" : text;
        } else
                n->is_told = true;
        if (r < 0 && r != -ENOENT)
                log_warning("%s/" NUMBERS_FILE " %s: numbers of jobs begin past the last capsule's and from the clock, "
                            "so that none is used twice",
                            n->path, why);
        return r;
}

static void numbers_find_begin(struct numbers *n, const uint64_t *used, uint64_t deadline_ns) {
        uint64_t begin[NUMBERS_N_KINDS];
        int r = numbers_load(n, deadline_ns, begin);
        for (unsigned kind = 0; kind < NUMBERS_N_KINDS; kind++) {
                bool is_known = r >= 0 || r == -ENOENT;
                uint64_t next = r >= 0 ? begin[kind] : 1, now = is_known && used ? 0 : numbers_clock(kind);
                next = now > next ? now : next;
                if (used && used[kind] >= next && used[kind] < numbers_kinds[kind].max_begin)
                        next = used[kind] + 1;
                n->lines[kind] = (struct numbers_line){.next = next, .limit = next, .reserve_at = next};
        }
}

int numbers_new(struct numbers **ret, struct loop *l, const char *state_dir, const uint64_t *used,
                uint64_t deadline_ns) {
        if (state_dir && strlen(state_dir) >= NUMBERS_MAX_PATH)
                return -ENAMETOOLONG;
        struct numbers *n = calloc(1, sizeof(*n));
        if (!n)
                return -ENOMEM;
        *n = (struct numbers){.loop = l, .path = state_dir ? strdup(state_dir) : NULL};
        n->call.user = n;
        if (state_dir && !n->path) {
                free(n);
                return -ENOMEM;
        }
        numbers_find_begin(n, used, deadline_ns);
        n->call.on_late = numbers_on_late;
        numbers_reserve(n);
        helper_wait(&n->call, deadline_ns);
        *ret = n;
        return 0;
}

struct numbers *numbers_free(struct numbers *n, uint64_t deadline_ns) {
        if (!n)
                return NULL;
        uint64_t left[NUMBERS_N_KINDS];
        for (unsigned kind = 0; kind < NUMBERS_N_KINDS; kind++)
                left[kind] = n->lines[kind].next;
        helper_wait(&n->call, deadline_ns);
        numbers_write_limits(n, left);
        helper_wait(&n->call, deadline_ns);
        helper_forget(&n->call);
        free(n->path);
        free(n);
        return NULL;
}
