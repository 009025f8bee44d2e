/* The eventfd doorbell. Rings add up to one readable descriptor, so a thousand of them cost the sleeper one wake-up.
 * A counter that would overflow (EAGAIN) is readable already: nothing is lost by ignoring it. */
#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "ipc/doorbell.h"

int doorbell_create(int *ret_fd) {
        int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (fd < 0)
                return -errno;
        *ret_fd = fd;
        return 0;
}

void doorbell_ring(int fd) {
        if (fd < 0)
                return;
        static const uint64_t one = 1;
        ssize_t n;
        do
                n = write(fd, &one, sizeof one);
        while (n < 0 && errno == EINTR);
}

void doorbell_clear(int fd) {
        uint64_t count;
        ssize_t n;
        do
                n = read(fd, &count, sizeof count);
        while (n < 0 && errno == EINTR);
}
