/* Asks whether descriptors that are about to arrive find room.
 *
 * Of a message whose descriptors do not fit into the table the kernel takes them away for good, and who reads it cannot
 * ask for them again. So it is read, or asked for, only when there is room. Nothing tells how many are free but to open
 * some. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "ipc/client/session/fd-room.h"

int fd_room(int fd, unsigned n) {
        int copies[FD_ROOM_MOST], r = 0;
        unsigned n_made = 0;
        for (; n_made < n && n_made < FD_ROOM_MOST && r >= 0; n_made += r >= 0) {
                copies[n_made] = fcntl(fd, F_DUPFD_CLOEXEC, 0);
                r = copies[n_made] < 0 ? -errno : 0;
        }
        for (unsigned i = 0; i < n_made; i++)
                close(copies[i]);
        return r;
}
