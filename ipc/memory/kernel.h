/* System calls that a process cannot do without, and that an older kernel or the filter of a container may refuse. */
#pragma once

#include <stddef.h>

enum kernel_call {
        KERNEL_FUTEX_WAITV = 1u << 0,
        KERNEL_PIDFD_OPEN = 1u << 1,
        KERNEL_PIDFD_SEND_SIGNAL = 1u << 2,
        KERNEL_CLOSE_RANGE = 1u << 3,
        KERNEL_MEMFD_CREATE = 1u << 4,
        KERNEL_SECCOMP = 1u << 5,
        KERNEL_SIGNALFD = 1u << 6,
        KERNEL_IO_URING_SETUP = 1u << 7,
        KERNEL_IO_URING_ENTER = 1u << 8,
        KERNEL_IO_URING_REGISTER = 1u << 9,
};
#define KERNEL_IO_URING (KERNEL_IO_URING_SETUP | KERNEL_IO_URING_ENTER | KERNEL_IO_URING_REGISTER)

/* Those of `calls` that are refused. Each is tried with arguments that make nothing of it. */
unsigned kernel_find_refused(unsigned calls);

/* "futex_waitv (ENOSYS), pidfd_open (EPERM)", and what to do about it. */
void kernel_describe_refused(unsigned refused, char *text, size_t bytes);
