/* Sealed memory files, for payloads and results that do not fit into a slot.
 *
 * F_SEAL_WRITE can only be had while nobody has the file mapped for writing, and forbids writing and punching holes for
 * ever, so whoever has checked it may read it in place: no copy, and no second look that sees something else. Made by
 * writing, not by mapping, so that there is nothing to unmap before the seals.
 *
 * A worker's sandbox has no way to make one: the broker makes it, the worker writes and seals it, the broker looks
 * whether it did.
 *
 * The seals are asked first: only memory files have any, so no other descriptor is ever looked at more closely. */
#include <errno.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "ipc/memory/sealed.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

enum { SEALED_CHUNK = 65536 };

static int sealed_write(int fd, const uint8_t *data, size_t bytes) {
        for (size_t at = 0; at < bytes;) {
                ssize_t n = write(fd, data + at, bytes - at);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return n < 0 ? -errno : -EIO;
                at += (size_t)n;
        }
        return 0;
}

/* All that `from` gives, and how much that was. */
static int sealed_fill(int fd, int from, uint64_t *bytes) {
        uint8_t chunk[SEALED_CHUNK];
        struct stat st;
        if (fstat(from, &st) >= 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size > SEALED_MAX_BYTES)
                return -EMSGSIZE;
        for (;;) {
                ssize_t n = read(from, chunk, sizeof chunk);
                if (n <= 0)
                        return n < 0 ? -errno : *bytes == 0 ? -EMSGSIZE : 0;
                if ((*bytes += (uint64_t)n) > SEALED_MAX_BYTES)
                        return -EMSGSIZE;
                int r = sealed_write(fd, chunk, (size_t)n);
                if (r < 0)
                        return r;
        }
}

static int sealed_memory(const char *name) {
        int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
        if (fd < 0 && errno == EINVAL) /* before kernel 6.3 */
                fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
        return fd < 0 ? -errno : fd;
}

/* Given away if it was made and nothing failed. */
static int sealed_finish(int fd, int error, int *ret_fd) {
        int r = fd < 0 ? fd : error < 0 ? error : sealed_close(fd);
        if (r >= 0)
                *ret_fd = fd;
        else if (fd >= 0)
                close(fd);
        return r;
}

static int sealed_new(const char *name, size_t bytes) {
        return bytes == 0 || bytes > SEALED_MAX_BYTES ? -EMSGSIZE : sealed_memory(name);
}

int sealed_create(const char *name, const void *data, size_t bytes, int *ret_fd) {
        int fd = sealed_new(name, bytes);
        return sealed_finish(fd, fd < 0 ? 0 : sealed_write(fd, data, bytes), ret_fd);
}

int sealed_read(const char *name, const void *data, size_t bytes, int from, int *ret_fd) {
        uint64_t total = bytes;
        int fd = sealed_memory(name);
        int r = fd < 0 ? 0 : sealed_write(fd, data, bytes);
        return sealed_finish(fd, fd < 0 || r < 0 ? r : sealed_fill(fd, from, &total), ret_fd);
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

int sealed_close(int fd) { return fcntl(fd, F_ADD_SEALS, SEALED_SEALS) < 0 ? -errno : 0; }

int sealed_check(int fd, uint64_t *ret_bytes) {
        struct stat st;
        int seals = fcntl(fd, F_GET_SEALS); /* EINVAL: not a memory file */
        if (seals < 0 || (seals & SEALED_SEALS) != SEALED_SEALS)
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
