/* Input lines, a bounded piece at a time, without ever blocking. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LINES_MAX = 1 << 20 }; /* longest line */

struct lines {
        int fd;
        char *buffer;
        size_t start, end; /* unread bytes */
        bool at_end;
        bool is_skipping;          /* within a line that is too long */
        int error;                 /* why it cannot be read: -errno */
        uint64_t n_lines, n_bytes; /* handed out */
        uint64_t total_bytes;      /* 0 = not a regular file */
};

/* "-" or NULL: standard input. 0 or -errno, -EISDIR among them. */
int lines_open(struct lines *l, const char *path);
void lines_close(struct lines *l);
/* 1: a line without its end, 0-terminated, valid until the next call. 0: nothing there now. -ENODATA: the end.
 * -EMSGSIZE: longer than LINES_MAX; *ret is its beginning, and the next call goes on with the line behind it. Other
 * errors stay in `error`. */
int lines_next(struct lines *l, char **ret, size_t *ret_bytes);
/* Sleeps until there may be something, a signal came or the time is over. */
void lines_wait(const struct lines *l, int timeout_ms);
