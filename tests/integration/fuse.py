"""A file that keeps others waiting until it is told not to: one file of FUSE, and its own process that serves it.

    with SlowFile(pid) as f:
        fd = os.open(f.path, os.O_RDONLY)    # sent to pid; whatever it asks of the file waits, closes, too
        f.let_go()                           # from now on nothing waits

    with HungFile(path, content) as f:       # looks like the file `content`, at `path`; whoever reads it waits, and
        f.let_go()                           # does not even die of SIGKILL before this

The server is no thread of the test: a child that closes what it inherits would wait for it, and hold up all threads.
"""

import ctypes
import errno
import os
import select
import stat
import struct
import subprocess
import sys
import tempfile

MNT_DETACH, PR_SET_PDEATHSIG, SIGKILL = 2, 1, 9
FORGET, GETATTR, OPEN, READ, RELEASE, FLUSH, INIT, INTERRUPT, BATCH_FORGET = 2, 3, 14, 15, 18, 25, 26, 36, 42
FOPEN_DIRECT_IO = 1
HEAD = struct.Struct("=IIQQIIII")


def is_there():
    """May we mount one?"""
    with SlowFile(0) as f:
        return f.path != ""


class File:
    def __init__(self, *args):
        self.args = args

    def __enter__(self):
        self.server = subprocess.Popen([sys.executable, __file__, *map(str, self.args)], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, text=True)
        self.path = self.server.stdout.readline().strip()
        return self

    def __exit__(self, *_):
        self.server.communicate()

    def let_go(self):
        self.server.stdin.write("go\n")
        self.server.stdin.flush()


class SlowFile(File):
    def __init__(self, pid):
        super().__init__(pid)


class HungFile(File):
    def __init__(self, path, content, is_direct=False):
        """`is_direct`: each read is one of its own; else those of the same page wait for the first, and can be
        killed."""
        super().__init__(0, path, content, int(is_direct))

    def is_read(self, seconds=10):
        """Somebody waits for what is in it."""
        return bool(select.select([self.server.stdout], [], [], seconds)[0])


class Server:
    def __init__(self, pid, path=None, content=None, is_direct="0"):
        self.open_flags = FOPEN_DIRECT_IO if is_direct == "1" else 0
        self.pid = pid
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
        self.waiting = []
        self.is_slow = True
        self.data = b""
        if content:
            with open(content, "rb") as f:
                self.data = f.read()
        self.device = os.open("/dev/fuse", os.O_RDWR | os.O_NONBLOCK)
        if path:
            fd, self.path = os.open(path, os.O_CREAT | os.O_EXCL, 0o644), path
        else:
            fd, self.path = tempfile.mkstemp(prefix="drover-fuse-")
        os.close(fd)
        options = f"fd={self.device},rootmode={stat.S_IFREG | 0o644:o},user_id=0,group_id=0,allow_other"
        if self.libc.mount(b"drover-test", self.path.encode(), b"fuse", 0, options.encode()) != 0:
            os.unlink(self.path)
            raise OSError(ctypes.get_errno(), "mount")

    def end(self):
        self.libc.umount2(self.path.encode(), MNT_DETACH)
        os.unlink(self.path)

    def serve(self):
        while True:
            ready = select.select([self.device, 0], [], [])[0]
            if self.device in ready:
                self.take()
            if 0 in ready:
                if not os.read(0, 64):
                    return
                self.is_slow = False
                for request in self.waiting:
                    self.answer(*request)

    def take(self):
        try:
            data = os.read(self.device, 1 << 17)
        except OSError:
            return  # taken back
        _, opcode, unique, _, _, _, thread, _ = HEAD.unpack_from(data)
        offset, size = struct.unpack_from("=8xQI", data, HEAD.size) if opcode == READ else (0, 0)
        if self.is_slow and (opcode == READ if self.data else os.path.exists(f"/proc/{self.pid}/task/{thread}")):
            if opcode == READ and not self.waiting:
                print("read", flush=True)
            self.waiting.append((opcode, unique, offset, size))
        else:
            self.answer(opcode, unique, offset, size)

    def answer(self, opcode, unique, offset, size):
        if opcode in (FORGET, INTERRUPT, BATCH_FORGET):
            return
        n = len(self.data)
        body = {
            INIT: struct.pack("=IIIIHHIIHHI7I", 7, 31, 65536, 0, 16, 12, 65536, 1, 32, 0, 0, *[0] * 7),
            GETATTR: struct.pack("=QII6Q3I7I", 0, 0, 0, 1, n, (n + 511) // 512, *[0] * 6, stat.S_IFREG | 0o644, 1, 0, 0,
                                 0, 4096, 0),
            OPEN: struct.pack("=QII", 1, self.open_flags, 0),
            READ: self.data[offset:offset + size],
            RELEASE: b"",
            FLUSH: b"",
        }.get(opcode)
        error = 0 if body is not None else -errno.ENOSYS
        try:
            os.write(self.device, struct.pack("=IiQ", 16 + len(body or b""), error, unique) + (body or b""))
        except OSError:
            pass  # nobody waits for it any more


if __name__ == "__main__":
    try:
        server = Server(int(sys.argv[1]), *sys.argv[2:])
    except OSError:
        sys.exit(0)  # no path: none may be mounted here
    print(server.path, flush=True)
    try:
        server.serve()
    finally:
        server.end()
