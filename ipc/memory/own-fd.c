/* A descriptor of the library's in a program that may close what it does not know (closefrom in a child, a daemon): the
 * number may be that of another file afterwards, which is not ours to close. Told by the inode. */
#include <sys/stat.h>
#include <unistd.h>

#include "ipc/memory/own-fd.h"

void own_fd_init(struct own_fd *o, int fd) {
        struct stat st;
        *o = (struct own_fd){.fd = -1};
        if (fd >= 0 && fstat(fd, &st) == 0)
                *o = (struct own_fd){.fd = fd, .device = st.st_dev, .inode = st.st_ino};
}

bool own_fd_is_there(const struct own_fd *o) {
        struct stat st;
        return o->fd >= 0 && fstat(o->fd, &st) == 0 && st.st_dev == o->device && st.st_ino == o->inode;
}

void own_fd_close(struct own_fd *o) {
        if (own_fd_is_there(o))
                close(o->fd);
        o->fd = -1;
}
