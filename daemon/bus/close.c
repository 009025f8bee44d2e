/* What libsystemd closes.
 *
 * Descriptors come with messages, as many as a sender likes and whichever it likes, and libsystemd closes them wherever
 * it lets go of a message; it cannot be asked for them, nor told to leave them. So the close() that it calls is this
 * one: what it closes goes to closer.c. Everybody else's close() is the system call, as ever.
 *
 * libsystemd does not look at a number again that it has closed; that it stays taken a moment longer harms nobody. */
#include <dlfcn.h>
#include <sys/syscall.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#include "daemon/bus/bus.h"
#include "daemon/closer.h"

static const void *libsystemd; /* where it is mapped */

static const void *object_of(const void *address) {
        Dl_info info;

        return dladdr(address, &info) ? info.dli_fbase : NULL;
}

void close_catch_libsystemd(void) { libsystemd = object_of((const void *)sd_bus_process); }

__attribute__((visibility("default"))) int close(int fd) {
        if (!libsystemd || fd < 0 || object_of(__builtin_return_address(0)) != libsystemd)
                return (int)syscall(SYS_close, fd);
        closer_close(fd, CLOSER_BUS);
        return 0;
}
