/* Runs in processes of its own, one for each call, which may hang with their disk (daemon/loop/helper.h); nothing in
 * here is called by the broker.
 *
 * A capsule is written under a name that starts with a dot, synced, then renamed, and the directory is synced: it is
 * whole or absent whatever ends first, this process, the broker or the machine. */
#include "daemon/supervise/deaths/capsules-disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ipc/layout.h"
#include "ipc/memory/sealed.h"
#include "ipc/values/capsule.h"

static int disk_open(const struct capsule_order *o, struct helper_answer *a) {
        int dir = open(o->dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (dir < 0)
                a->error = -errno;
        return dir;
}

/* ---- what there is ---- */

static int disk_make(const char *dir) {
        char path[CAPSULES_MAX_PATH];
        strcpy(path, dir);
        for (char *slash = strchr(path + 1, '/');; slash = strchr(slash + 1, '/')) {
                if (slash)
                        *slash = 0;
                if (mkdir(path, 0700) < 0 && errno != EEXIST && errno != EROFS && errno != EACCES)
                        return -errno;
                if (!slash)
                        return 0;
                *slash = '/';
        }
}

/* Whose it is stands in it. One that cannot be read is nobody's but ours. */
static uid_t disk_read_uid(int dir, const char *name) {
        struct capsule c = {0};
        int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        uid_t uid = fd >= 0 && capsule_load(fd, &c) >= 0 ? c.uid : geteuid();
        capsule_deinit(&c);
        if (fd >= 0)
                close(fd);
        return uid;
}

/* Whatever else is wrong with the file: a job had that number. */
static void disk_note_number(struct capsules_found *found, uint64_t id) {
        enum numbers_kind kind = id > LAYOUT_JOB_ID_MASK ? NUMBERS_CHANNEL : NUMBERS_JOB;
        uint64_t number = kind == NUMBERS_CHANNEL ? id / (LAYOUT_JOB_ID_MASK + 1) : id;
        if (number > found->last[kind])
                found->last[kind] = number;
}

static int disk_scan_one(int dir, const char *name, struct capsules_found *found, int fd) {
        struct capsule_found f = {0};
        struct stat st;
        if (strncmp(name, ".new-", 5) == 0) {
                unlinkat(dir, name, 0);
                return 0;
        }
        if (!capsule_parse_name(name, f.pool, &f.id))
                return 0;
        disk_note_number(found, f.id);
        if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
                return 0;
        f.uid = disk_read_uid(dir, name);
        f.bytes = (uint64_t)st.st_size;
        f.when_ns = st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec;
        off_t at = (off_t)(sizeof(*found) + found->n_files * sizeof(f));
        if (pwrite(fd, &f, sizeof(f), at) != sizeof(f))
                return -ENOMEM;
        found->n_files++;
        return 0;
}

void capsules_disk_scan(const void *order, int fd, struct helper_answer *ret) {
        const struct capsule_order *o = order;
        struct capsules_found found = {0};
        struct dirent *e;
        ret->error = disk_make(o->dir);
        int dir = ret->error < 0 ? -1 : disk_open(o, ret);
        if (dir < 0)
                return;
        DIR *d = fdopendir(dir);
        if (!d)
                found.incomplete = errno;
        while (d && found.incomplete == 0) {
                errno = 0;
                if (found.n_files == CAPSULES_MAX_FILES)
                        found.incomplete = EFBIG;
                else if ((e = readdir(d)))
                        found.incomplete = -disk_scan_one(dir, e->d_name, &found, fd);
                else if (errno)
                        found.incomplete = errno;
                else
                        break;
        }
        if (d)
                closedir(d);
        else
                close(dir);
        if (pwrite(fd, &found, sizeof(found), 0) != sizeof(found))
                ret->error = -ENOMEM;
}

/* ---- one of them ---- */

static int disk_copy(int to, int from, off_t bytes) {
        for (off_t at = 0; at < bytes;) {
                ssize_t n = sendfile(to, from, &at, (size_t)(bytes - at));
                if (n <= 0)
                        return n < 0 ? -errno : -EIO;
        }
        return 0;
}

static int disk_write(int dir, const struct capsule_order *o, int from) {
        struct stat st;
        int fd = openat(dir, o->part, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0)
                return -errno;
        int r = fstat(from, &st) < 0 ? -errno : disk_copy(fd, from, st.st_size);
        if (r >= 0 && (fsync(fd) < 0 || renameat(dir, o->part, dir, o->name) < 0))
                r = -errno;
        if (r < 0)
                unlinkat(dir, o->part, 0);
        close(fd);
        return r;
}

void capsules_disk_write(const void *order, int fd, struct helper_answer *ret) {
        int dir = disk_open(order, ret);
        if (dir < 0)
                return;
        ret->error = disk_write(dir, order, fd);
        if (ret->error >= 0 && fsync(dir) < 0)
                strcpy(ret->text, "their directory cannot be synced to the disk");
        close(dir);
}

void capsules_disk_remove(const void *order, int unused, struct helper_answer *ret) {
        const struct capsule_order *o = order;
        int dir = disk_open(o, ret);
        if (dir < 0)
                return;
        if (unlinkat(dir, o->name, 0) < 0)
                ret->error = -errno;
        close(dir);
}

void capsules_disk_read(const void *order, int unused, struct helper_answer *ret) {
        const struct capsule_order *o = order;
        struct capsule c = {0};
        int dir = disk_open(o, ret);
        if (dir < 0)
                return;
        int fd = openat(dir, o->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        int r = fd < 0 ? -errno : capsule_load(fd, &c);
        if (r >= 0)
                r = sealed_create("drover-capsule", c.buffer, c.buffer_bytes, &ret->fd);
        if (r >= 0)
                snprintf(ret->text, sizeof(ret->text), "%u", (unsigned)c.uid);
        ret->error = r;
        capsule_deinit(&c);
        if (fd >= 0)
                close(fd);
        close(dir);
}
