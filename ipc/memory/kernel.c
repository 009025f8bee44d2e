/* Asks the kernel for what will be needed, all at once and before it is needed: a call that is refused in the middle of
 * something is an error with no name, and a wait that is refused is a loop that spins.
 *
 * Refused is ENOSYS or EPERM, which is what filters answer. The arguments are such that the kernel itself answers
 * neither: it says EINVAL, EBADF or EFAULT. */
#include <errno.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ipc/memory/kernel.h"

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

static const struct {
        unsigned call;
        const char *name;
        int number;
        unsigned long arg[3]; /* the others are 0 */
} probes[] = {
        {KERNEL_FUTEX_WAITV, "futex_waitv", SYS_futex_waitv, {0}},
        {KERNEL_PIDFD_OPEN, "pidfd_open", SYS_pidfd_open, {-1ul}},
        {KERNEL_PIDFD_SEND_SIGNAL, "pidfd_send_signal", SYS_pidfd_send_signal, {-1ul}},
        {KERNEL_CLOSE_RANGE, "close_range", SYS_close_range, {1, 0}},
        {KERNEL_MEMFD_CREATE, "memfd_create", SYS_memfd_create, {0}},
        {KERNEL_SECCOMP, "seccomp", SYS_seccomp, {SECCOMP_GET_ACTION_AVAIL}},
        {KERNEL_SIGNALFD, "signalfd4", SYS_signalfd4, {-1ul}},
        {KERNEL_IO_URING_SETUP, "io_uring_setup", SYS_io_uring_setup, {0}},
        {KERNEL_IO_URING_ENTER, "io_uring_enter", SYS_io_uring_enter, {-1ul}},
        {KERNEL_IO_URING_REGISTER, "io_uring_register", SYS_io_uring_register, {-1ul}},
};

enum { N_PROBES = sizeof probes / sizeof *probes };

/* 0, or the error that refuses it. */
static int probe(unsigned i) {
        const unsigned long *a = probes[i].arg;
        long r = syscall(probes[i].number, a[0], a[1], a[2], 0ul, 0ul, 0ul);
        return r < 0 && (errno == ENOSYS || errno == EPERM) ? errno : 0;
}

unsigned kernel_find_refused(unsigned calls) {
        unsigned refused = 0;
        for (unsigned i = 0; i < N_PROBES; i++)
                if (calls & probes[i].call && probe(i) != 0)
                        refused |= probes[i].call;
        return refused;
}

void kernel_describe_refused(unsigned refused, char *text, size_t bytes) {
        size_t at = 0;
        for (unsigned i = 0; i < N_PROBES && at < bytes; i++) {
                int error = refused & probes[i].call ? probe(i) : 0;
                if (error)
                        at += (size_t)snprintf(text + at, bytes - at, "%s%s (%s)", at ? ", " : "", probes[i].name,
                                               error == ENOSYS ? "ENOSYS" : "EPERM");
        }
        if (at < bytes)
                snprintf(text + at, bytes - at,
                         ": allow them in the container's seccomp profile, or use Linux 6.1 or later");
}
