/* Owns the table of calls that take a path, and the safe way to one: whether memory can be read is asked of the kernel,
 * by a futex call that does not wait. */
#include <errno.h>
#include <linux/futex.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "plugins/host/sandbox/forbidden.h"

/* Aligned to a word, so it lies in one page. */
static bool is_readable(const char *at) {
        const struct timespec now = {0};
        uintptr_t word = (uintptr_t)at & ~(uintptr_t)3;
        return syscall(SYS_futex, word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, &now) == 0 ||
               (errno != EFAULT && errno != EINVAL);
}

__attribute__((no_sanitize("address"))) bool forbidden_copy_path(const char *path, char *ret, size_t bytes) {
        static const char cut[] = "...";
        size_t n = 0;
        for (; n < bytes; n++) {
                if ((n == 0 || ((uintptr_t)(path + n) & 3) == 0) && !is_readable(path + n))
                        return false;
                ret[n] = path[n];
                if (!ret[n])
                        return true;
        }
        memcpy(ret + bytes - sizeof cut, cut, sizeof cut);
        return true;
}

const char *forbidden_path(long number, const unsigned long arg[6]) {
        static const struct {
                int call;
                unsigned at;
        } paths[] = {
#ifdef SYS_open
                {SYS_open, 0},      {SYS_creat, 0},     {SYS_mkdir, 0},     {SYS_rmdir, 0},
                {SYS_unlink, 0},    {SYS_rename, 0},    {SYS_link, 0},      {SYS_chmod, 0},
                {SYS_chown, 0},     {SYS_lchown, 0},    {SYS_mknod, 0},     {SYS_symlink, 0},
                {SYS_utime, 0},     {SYS_utimes, 0},    {SYS_uselib, 0},
#endif
                {SYS_openat, 1},    {SYS_openat2, 1},   {SYS_execve, 0},    {SYS_execveat, 1},
                {SYS_mkdirat, 1},   {SYS_unlinkat, 1},  {SYS_renameat2, 1}, {SYS_renameat, 1},
                {SYS_linkat, 1},    {SYS_symlinkat, 0}, {SYS_fchmodat, 1},  {SYS_fchownat, 1},
                {SYS_mknodat, 1},   {SYS_utimensat, 1}, {SYS_truncate, 0},  {SYS_chdir, 0},
                {SYS_chroot, 0},    {SYS_mount, 1},     {SYS_umount2, 0},   {SYS_getxattr, 0},
                {SYS_lgetxattr, 0}, {SYS_setxattr, 0},  {SYS_listxattr, 0}, {SYS_inotify_add_watch, 1},
        };
        for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
                if (paths[i].call == number)
                        return (const char *)arg[paths[i].at];
        return NULL;
}
