"""Runs a command under a seccomp filter that refuses a kernel facility, as a container or an older kernel does.

    refuse.py io_uring COMMAND [ARG...]    io_uring_setup answers EPERM, as in Docker
    refuse.py landlock COMMAND [ARG...]    the Landlock calls answer ENOSYS, as before Linux 5.13
    refuse.py listener COMMAND [ARG...]    somebody listens to its system calls (seccomp user notification), as LXC may,
                                           so it can have no listener of its own
    refuse.py futex_waitv COMMAND [ARG...] that one answers ENOSYS, as before Linux 5.16; also pidfd_open (EPERM),
                                           close_range (ENOSYS), and several, with a comma between them

The command finds the name in DROVER_TEST_REFUSED.
"""

import ctypes
import errno
import os
import platform
import signal
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_PDEATHSIG, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER = 38, 1, 1, 8
SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}
RET_ALLOW, RET_ERRNO = 0x7FFF0000, 0x00050000

# Numbers of system calls, the same on every architecture, and the answer.
REFUSED = {
    "io_uring": ((425,), errno.EPERM),
    "landlock": ((444, 445, 446), errno.ENOSYS),
    "listener": ((), 0),
    "futex_waitv": ((449,), errno.ENOSYS),
    "pidfd_open": ((434,), errno.EPERM),
    "close_range": ((436,), errno.ENOSYS),
}


def instruction(code, true, false, value):
    return struct.pack("=HBBI", code, true, false, value)


def program_of(names):
    program = instruction(0x20, 0, 0, 0)  # load the number of the system call
    for numbers, answer in (REFUSED[name] for name in names):
        for number in numbers:
            program += instruction(0x15, 0, 1, number)  # is it this one?
            program += instruction(0x06, 0, 0, RET_ERRNO | answer)
    return program + instruction(0x06, 0, 0, RET_ALLOW)


def main():
    program = program_of(sys.argv[1].split(","))
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(program, len(program))
    head = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", len(program) // 8, ctypes.addressof(code)))
    flags = SECCOMP_FILTER_FLAG_NEW_LISTENER if sys.argv[1] == "listener" else 0
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.syscall(SYS_SECCOMP[platform.machine()],
                                                                   SECCOMP_SET_MODE_FILTER, flags, head) < 0:
        sys.exit(f"refuse: {os.strerror(ctypes.get_errno())}")
    if flags and os.fork() == 0:  # holds the listener as long as the command runs
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        while True:
            signal.pause()
    os.environ["DROVER_TEST_REFUSED"] = sys.argv[1]
    os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
