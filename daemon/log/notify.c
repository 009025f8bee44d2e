/* The service manager's socket, as sd_notify(3) describes it.
 *
 * Not by sd_notify itself: that waits in the kernel while the queue of the receiver is full, which holds ten messages
 * or so, and a manager that does not read would stop whoever tells it something. The socket is connected, so that no
 * path is looked up later and poll knows of the receiver's queue. */
#include "daemon/log/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int notify_open(void) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        const char *path = getenv("NOTIFY_SOCKET");
        size_t n = path ? strlen(path) : 0;

        if (n == 0)
                return -ENOENT;
        if ((path[0] != '/' && path[0] != '@') || n >= sizeof(address.sun_path))
                return -EAFNOSUPPORT;
        memcpy(address.sun_path, path, n);
        if (path[0] == '@')
                address.sun_path[0] = '\0';
        int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;
        socklen_t bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + (path[0] == '/'));
        if (connect(fd, (struct sockaddr *)&address, bytes) < 0) {
                int r = -errno;
                close(fd);
                return r;
        }
        return fd;
}

int notify_send(int fd, const char *text) {
        ssize_t n = send(fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL);

        return n < 0 ? errno == ENOBUFS ? -EAGAIN : -errno : 0;
}
