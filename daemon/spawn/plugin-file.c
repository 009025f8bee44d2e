/* Owns the way from a plugin's name to its generation: a sealed memfd.
 *
 * The copy is what makes a generation: replacing the file, in place or by rename, never mixes code, and no worker needs
 * a path. The file is opened beneath the plugin directory only (openat2; where that is missing, component by component
 * without following any link), checked through its descriptor, copied, and looked at again: one that changed meanwhile
 * is refused. Only somebody who may replace us anyhow (root, our own uid) may own or write it.
 * The copy cannot be executed as a program (MFD_NOEXEC_SEAL where the kernel has it); mapping it for dlopen works.
 * What is in the file is not looked at: parsing it is for a process without privileges. */
#include "daemon/spawn/plugin-file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

enum { OPEN_FLAGS = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY };

static int refuse(struct plugin_fault *fault, int error, bool is_permanent, const char *format, ...)
        __attribute__((format(printf, 4, 5)));

static int refuse(struct plugin_fault *fault, int error, bool is_permanent, const char *format, ...) {
        va_list args;
        va_start(args, format);
        vsnprintf(fault->text, sizeof fault->text, format, args);
        va_end(args);
        fault->is_permanent = is_permanent;
        return -error;
}

static bool name_is_fine(const char *name) {
        if (!*name || *name == '/' || strlen(name) > WIRE_NAME - sizeof ".so")
                return false;
        for (const char *c = name; *c; c++)
                if (*c < ' ' || *c == 0x7f)
                        return false;
        for (const char *part = name; part; part = strchr(part, '/') ? strchr(part, '/') + 1 : NULL)
                if (strncmp(part, "../", 3) == 0 || strcmp(part, "..") == 0)
                        return false;
        return true;
}

/* Without openat2: no link anywhere on the way, not even one that stays inside. */
static int open_step_by_step(int dir_fd, const char *path) {
        int at = dir_fd, fd;
        char part[WIRE_NAME];
        for (const char *slash; (slash = strchr(path, '/')); path = slash + 1) {
                snprintf(part, sizeof part, "%.*s", (int)(slash - path), path);
                if (!*part)
                        continue;
                fd = openat(at, part, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
                int error = errno;
                if (at != dir_fd)
                        close(at);
                if (fd < 0)
                        return -error;
                at = fd;
        }
        fd = openat(at, path, OPEN_FLAGS | O_NOFOLLOW);
        int r = fd < 0 ? -errno : fd;
        if (at != dir_fd)
                close(at);
        return r;
}

static int open_beneath(int dir_fd, const char *path) {
        struct open_how how = {.flags = OPEN_FLAGS, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
        for (unsigned i = 0; i < 8; i++) { /* -EAGAIN: something was renamed while ".." was resolved */
                int fd = (int)syscall(SYS_openat2, dir_fd, path, &how, sizeof how);
                if (fd >= 0)
                        return fd;
                if (errno == ENOSYS || errno == EPERM)
                        return open_step_by_step(dir_fd, path);
                if (errno != EAGAIN)
                        break;
        }
        return -errno;
}

static int open_refused(struct plugin_fault *fault, const char *file, int error) {
        switch (error) {
        case ENOENT:
        case ENOTDIR:
                return refuse(fault, ENOENT, true,
                              "plugin %s: no such file: install it there or correct Plugin=", file);
        case EXDEV:
                return refuse(
                        fault, error, true,
                        "plugin %s: a symbolic link leads out of the plugin directory: copy the file there instead",
                        file);
        case ELOOP:
                return refuse(fault, error, true, "plugin %s: a symbolic link in the way: copy the file there instead",
                              file);
        case EACCES:
                return refuse(fault, error, true, "plugin %s: uid %u may not read it: chmod a+r it", file, geteuid());
        case ENXIO:
                return refuse(fault, error, true, "plugin %s: not a regular file: put the shared object itself there",
                              file);
        default:
                return refuse(fault, error, false, "plugin %s: cannot be opened: %s: try again", file, strerror(error));
        }
}

/* The uid by which a user namespace shows everybody that it does not map, root outside of it too. */
static bool is_unmapped(uid_t uid) {
        uint32_t begin, outside, n;
        bool is_mapped = false;
        FILE *f = fopen("/proc/self/uid_map", "re");
        if (!f)
                return false;
        while (fscanf(f, "%" SCNu32 " %" SCNu32 " %" SCNu32, &begin, &outside, &n) == 3)
                is_mapped |= uid >= begin && uid - begin < n;
        fclose(f);
        return !is_mapped;
}

static int refuse_owner(uid_t uid, uid_t own, const char *file, struct plugin_fault *fault) {
        if (is_unmapped(uid))
                return refuse(fault, EPERM, true,
                              "plugin %s: nobody in this user namespace owns it: copy it as uid %u to a --plugin-dir= "
                              "of yours",
                              file, own);
        return refuse(fault, EPERM, true, "plugin %s: belongs to uid %u, not to root%s: chown root it", file, uid,
                      own ? " or to whom the service runs as" : "");
}

static int check(const struct stat *st, const char *file, struct plugin_fault *fault) {
        uid_t own = geteuid();
        if (!S_ISREG(st->st_mode))
                return refuse(fault, EINVAL, true,
                              "plugin %s: %s, not a regular file: put the shared object itself there", file,
                              S_ISDIR(st->st_mode) ? "a directory" : "a device, pipe or socket");
        if (st->st_uid != 0 && st->st_uid != own)
                return refuse_owner(st->st_uid, own, file, fault);
        if (st->st_mode & S_IWOTH)
                return refuse(fault, EPERM, true, "plugin %s: world-writable (mode %04o): chmod go-w it", file,
                              st->st_mode & 07777);
        if (st->st_mode & S_IWGRP)
                return refuse(fault, EPERM, true, "plugin %s: group-writable (mode %04o): chmod go-w it", file,
                              st->st_mode & 07777);
        if (st->st_size == 0)
                return refuse(fault, ENOEXEC, true, "plugin %s: empty: install it again", file);
        if (st->st_size > PLUGIN_FILE_MAX_BYTES)
                return refuse(fault, EFBIG, true, "plugin %s: %lld bytes, more than the %d allowed: strip it", file,
                              (long long)st->st_size, PLUGIN_FILE_MAX_BYTES);
        return 0;
}

static bool is_unchanged(const struct stat *a, const struct stat *b) {
        return a->st_size == b->st_size && a->st_mode == b->st_mode && a->st_uid == b->st_uid &&
               a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
               a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static int new_memfd(const char *file) {
        const char *slash = strrchr(file, '/');
        const char *name = slash ? slash + 1 : file;
        int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
        if (fd < 0 && errno == EINVAL)
                fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
        return fd < 0 ? -errno : fd;
}

/* 0 also when the file was too short: the caller compares sizes. */
static int copy(int to, int from, off_t bytes) {
        while (bytes > 0) {
                ssize_t n = sendfile(to, from, NULL, (size_t)bytes);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                if (n == 0)
                        return 0;
                bytes -= n;
        }
        return 0;
}

static int seal(int from, const struct stat *st, const char *file, int *ret_fd, struct plugin_fault *fault) {
        struct stat after, copied;
        int to = new_memfd(file);
        int r = to < 0 ? to : copy(to, from, st->st_size);
        if (r == 0 && (fstat(from, &after) < 0 || fstat(to, &copied) < 0))
                r = -errno;
        if (r == 0 && (copied.st_size != st->st_size || !is_unchanged(st, &after))) {
                close(to);
                return refuse(
                        fault, EAGAIN, false,
                        "plugin %s: changed while it was being copied: install it under another name and rename it",
                        file);
        }
        if (r == 0 && fcntl(to, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
                r = -errno;
        if (r == 0) {
                *ret_fd = to;
                return 0;
        }
        if (to >= 0)
                close(to);
        return refuse(fault, -r, false, "plugin %s: cannot be copied: %s: try again", file, strerror(-r));
}

void plugin_file_path(const char *name, char path[static WIRE_NAME]) {
        size_t n = strlen(name);
        bool has_suffix = n > 3 && strcmp(name + n - 3, ".so") == 0;
        snprintf(path, WIRE_NAME, "%s%s", name, has_suffix ? "" : ".so");
}

void plugin_file_describe(const char *dir, const char *name, char file[static PLUGIN_FILE_DESCRIPTION]) {
        char path[WIRE_NAME];
        size_t dir_bytes = strlen(dir); /* the sentence must fit WIRE_TEXT */
        plugin_file_path(name, path);
        snprintf(file, PLUGIN_FILE_DESCRIPTION, "%s%s/%s", dir_bytes > 140 ? "..." : "",
                 dir_bytes > 140 ? dir + dir_bytes - 137 : dir, path);
}

static int open_and_seal(int dir_fd, const char *path, const char *file, int *ret_fd, struct plugin_fault *fault) {
        int from = open_beneath(dir_fd, path);
        if (from < 0)
                return open_refused(fault, file, -from);
        struct stat st;
        int r = fstat(from, &st) < 0 ? refuse(fault, errno, false, "plugin %s: %s: try again", file, strerror(errno))
                                     : check(&st, file, fault);
        if (r == 0)
                r = seal(from, &st, file, ret_fd, fault);
        close(from);
        return r;
}

int plugin_file_seal(const char *dir, const char *name, int *ret_fd, struct plugin_fault *fault) {
        if (!name_is_fine(name))
                return refuse(fault, EINVAL, true,
                              "plugin \"%s\": not a name inside the plugin directory %s: correct Plugin=", name, dir);
        char path[WIRE_NAME], file[PLUGIN_FILE_DESCRIPTION];
        plugin_file_path(name, path);
        plugin_file_describe(dir, name, file);
        int dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (dir_fd < 0)
                return refuse(fault, errno, false,
                              "plugin %s: the plugin directory cannot be opened: %s: create it, or correct "
                              "--plugin-dir=",
                              file, strerror(errno));
        int r = open_and_seal(dir_fd, path, file, ret_fd, fault);
        close(dir_fd);
        return r;
}
