/* How the numbers of descriptors that this process may have are shared out. */
#pragma once

#include <stdbool.h>

/* Each part holds those before it. What is above the last is for our own: workers, files, whatever is open briefly. */
enum fd_share {
        FD_SHARE_SESSIONS, /* a half, and never the last 256: sessions, descriptors of their jobs, and of results */
        FD_SHARE_CALLS,    /* five eighths: with messages that wait for an answer */
        FD_SHARE_MESSAGES, /* three quarters: with messages whose descriptors wait to be closed */
};

/* Numbers are given out from the lowest: one that was just given tells how many are taken. */
bool fd_share_has(enum fd_share share, int fd);
/* The number that comes next, tried with a copy of a descriptor whose close does not wait. */
bool fd_share_has_next(enum fd_share share, int fd);
