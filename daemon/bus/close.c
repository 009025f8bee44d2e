/* What libsystemd closes.
 *
 * Descriptors come with messages, as many as a sender likes and whichever it likes, and libsystemd closes them wherever
 * it lets go of a message; it cannot be asked for them, nor told to leave them. So the close() that it calls is this
 * one: what it closes goes to closer.c, as somebody's whose message was handled last. Everybody else's close() is the
 * system call, as ever.
 *
 * libsystemd does not look at a number again that it has closed; that it stays taken a moment longer harms nobody. */
#include <dlfcn.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#include "daemon/bus/bus.h"
#include "daemon/loop/closer.h"

static const void *libsystemd; /* where it is mapped */

static const void *object_of(const void *address) {
        Dl_info info;

        return dladdr(address, &info) ? info.dli_fbase : NULL;
}

/* A unix socket in which nothing lies keeps nobody waiting, and our own readers' ends, which go with replies, are to be
 * gone at once: their number is bounded. */
static bool is_quick(int fd) {
        int domain = 0;
        socklen_t bytes = sizeof(domain);
        struct pollfd p = {.fd = fd, .events = POLLIN};

        return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &bytes) == 0 && domain == AF_UNIX && poll(&p, 1, 0) == 0;
}

void close_catch_libsystemd(void) { libsystemd = object_of((const void *)sd_bus_process); }

__attribute__((visibility("default"))) int close(int fd) {
        if (!libsystemd || fd < 0 || object_of(__builtin_return_address(0)) != libsystemd || is_quick(fd))
                return (int)syscall(SYS_close, fd);
        closer_close_blamed(fd);
        return 0;
}
