/* Shared memory files. Owns the one recipe by which they are made: memfd, mode, size, seals, in this order.
 *
 * Who may only read a memory is given a description that is open for reading only (segment_open). A read-only mapping
 * of one that is open for both is no bar: mprotect makes it writable. From a description for reading nothing leads to a
 * writable one, but opening the file again by /proc/self/fd; hence mode 0600, which leaves that to the uid that made
 * it.
 *
 * SEAL_SHRINK and SEAL_GROW make every later access inside the size safe from SIGBUS; SEAL_SEAL keeps a client from
 * adding F_SEAL_FUTURE_WRITE, which would stop workers that map the file later. Seals do not stop hole punching, so
 * all zero must be a safe state of everything that lives here.
 *
 * Mappings are MADV_DONTFORK: children that a plugin makes cannot write here after its death. Nothing here looks at
 * what the memory holds. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ipc/memory/segment.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

static const int segment_seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

static int segment_fill(int fd, size_t bytes) {
        if (fchmod(fd, S_IRUSR | S_IWUSR) < 0)
                return -errno;
        if (ftruncate(fd, (off_t)bytes) < 0)
                return -errno;
        if (fcntl(fd, F_ADD_SEALS, segment_seals) < 0)
                return -errno;
        return 0;
}

int segment_create(const char *name, size_t bytes, int *ret_fd) {
        int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
        if (fd < 0 && errno == EINVAL) /* before kernel 6.3 */
                fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0)
                return -errno;

        int r = segment_fill(fd, bytes);
        if (r < 0) {
                close(fd);
                return r;
        }
        *ret_fd = fd;
        return 0;
}

int segment_open(int fd, bool writable, int *ret_fd) {
        char path[sizeof "/proc/self/fd/" + 10];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        /* O_NONBLOCK: whoever has a lease on a file (F_SETLEASE) keeps others waiting for 45 s. */
        int copy = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);
        if (copy < 0)
                return errno == EWOULDBLOCK ? -EPROTO : -errno;
        *ret_fd = copy;
        return 0;
}

int segment_check(int fd, size_t bytes) {
        struct stat st;
        int seals = fcntl(fd, F_GET_SEALS); /* EINVAL: not a memfd; of what is none, even fstat may wait for somebody */
        if (seals < 0 || (seals & segment_seals) != segment_seals)
                return seals < 0 && errno == EBADF ? -EBADF : -EPROTO;
        if (fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode) || st.st_size < 0 || (uint64_t)st.st_size != bytes)
                return -EPROTO;
        return 0;
}

int segment_map(int fd, size_t offset, size_t bytes, bool writable, void **ret) {
        int protection = PROT_READ | (writable ? PROT_WRITE : 0);
        void *p = mmap(NULL, bytes, protection, MAP_SHARED, fd, (off_t)offset);
        if (p == MAP_FAILED)
                return -errno;
        if (madvise(p, bytes, MADV_DONTFORK) < 0) {
                int r = -errno;
                munmap(p, bytes);
                return r;
        }
        *ret = p;
        return 0;
}

void segment_unmap(void *address, size_t bytes) {
        if (address)
                munmap(address, bytes);
}
