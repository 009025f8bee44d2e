"""Runs a command under a seccomp filter that answers io_uring_setup with EPERM, as containers do; for one test only.

    refuse_io_uring.py COMMAND [ARG...]
"""

import ctypes
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
IO_URING_SETUP = 425  # on every architecture
RET_ALLOW, RET_ERRNO, EPERM = 0x7FFF0000, 0x00050000, 1


def instruction(code, true, false, value):
    return struct.pack("=HBBI", code, true, false, value)


PROGRAM = (instruction(0x20, 0, 0, 0)                      # load the number of the system call
           + instruction(0x15, 0, 1, IO_URING_SETUP)       # is it io_uring_setup?
           + instruction(0x06, 0, 0, RET_ERRNO | EPERM)
           + instruction(0x06, 0, 0, RET_ALLOW))


def main():
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(PROGRAM, len(PROGRAM))
    program = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", len(PROGRAM) // 8, ctypes.addressof(code)))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0):
        sys.exit(f"refuse_io_uring: {os.strerror(ctypes.get_errno())}")
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
