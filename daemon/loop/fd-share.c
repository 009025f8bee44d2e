/* How the numbers of descriptors are shared out.
 *
 * Others decide how many descriptors we have: they open sessions, send some with jobs, and whatever they like with
 * messages. Without any left nothing goes on: no worker is started, and libsystemd gives up the bus. So each kind of
 * theirs ends where the next may still go on, and the last quarter is for nobody. */
#include "daemon/loop/fd-share.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

enum { FD_SHARE_SPARED = 256 };

bool fd_share_has(enum fd_share share, int fd) {
        static const rlim_t eighths[] = {
                [FD_SHARE_SESSIONS] = 4,
                [FD_SHARE_CALLS] = 5,
                [FD_SHARE_MESSAGES] = 6,
        };
        struct rlimit limit;
        if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
                return true;
        if (share == FD_SHARE_SESSIONS && (rlim_t)fd + FD_SHARE_SPARED >= limit.rlim_cur)
                return false;
        return (rlim_t)fd < limit.rlim_cur / 8 * eighths[share];
}

bool fd_share_has_next(enum fd_share share, int fd) {
        int next = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (next >= 0)
                close(next);
        return next >= 0 && fd_share_has(share, next);
}
