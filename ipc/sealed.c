/* Sealed memory files, for payloads and results that do not fit into a slot.
 *
 * F_SEAL_WRITE can only be had while nobody has the file mapped for writing, and forbids writing and punching holes for
 * ever, so whoever has checked it may read it in place: no copy, and no second look that sees something else. Made by
 * writing, not by mapping, so that there is nothing to unmap before the seals.
 *
 * A worker's sandbox has no way to make one: the broker makes it, the worker writes, the broker closes it.
 *
 * The seals are asked first: only memory files have any, so no other descriptor is ever looked at more closely. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "ipc/sealed.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

static const int sealed_seals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW;

static int sealed_fill(int fd, const uint8_t *data, size_t bytes) {
        for (size_t at = 0; at < bytes;) {
                ssize_t n = write(fd, data + at, bytes - at);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return n < 0 ? -errno : -EIO;
                at += (size_t)n;
        }
        return sealed_close(fd);
}

static int sealed_new(const char *name, size_t bytes) {
        if (bytes == 0 || bytes > SEALED_MAX_BYTES)
                return -EMSGSIZE;
        int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
        if (fd < 0 && errno == EINVAL) /* before kernel 6.3 */
                fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
        return fd < 0 ? -errno : fd;
}

int sealed_create(const char *name, const void *data, size_t bytes, int *ret_fd) {
        int fd = sealed_new(name, bytes);
        int r = fd < 0 ? fd : sealed_fill(fd, data, bytes);
        if (r < 0) {
                if (fd >= 0)
                        close(fd);
                return r;
        }
        *ret_fd = fd;
        return 0;
}

int sealed_open(const char *name, size_t bytes, int *ret_fd) {
        int fd = sealed_new(name, bytes);
        if (fd < 0)
                return fd;
        if (ftruncate(fd, (off_t)bytes) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0) {
                int r = -errno;
                close(fd);
                return r;
        }
        *ret_fd = fd;
        return 0;
}

int sealed_close(int fd) { return fcntl(fd, F_ADD_SEALS, sealed_seals) < 0 ? -errno : 0; }

int sealed_check(int fd, uint64_t *ret_bytes) {
        struct stat st;
        int seals = fcntl(fd, F_GET_SEALS); /* EINVAL: not a memory file */
        if (seals < 0 || (seals & sealed_seals) != sealed_seals)
                return -EPROTO;
        if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size <= 0 || (uint64_t)st.st_size > SEALED_MAX_BYTES)
                return -EPROTO;
        *ret_bytes = (uint64_t)st.st_size;
        return 0;
}

int sealed_check_pages(int fd) {
        struct statfs fs;
        return fstatfs(fd, &fs) < 0 ? -errno : fs.f_type == TMPFS_MAGIC ? 0 : -EPROTO;
}

int sealed_map(int fd, size_t bytes, const void **ret) {
        void *p = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0); /* children may have it, too: it cannot change */
        if (p == MAP_FAILED)
                return -errno;
        *ret = p;
        return 0;
}

void sealed_unmap(const void *data, size_t bytes) {
        if (data)
                munmap((void *)data, bytes);
}
