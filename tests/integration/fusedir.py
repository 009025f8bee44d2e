"""A directory that works until it is told to hang, as one does whose disk or server is dead: FUSE, in memory, with its
own process that serves it.

    with HungDirectory(path) as d:    # an empty directory of its own over `path`
        d.hang()                      # from now on whoever asks anything of it waits, and does not even die of SIGKILL
        d.is_asked()                  # somebody waits
        d.let_go()                    # all are answered, and it works again

Nobody in the test may touch it while it hangs. As in fuse.py the server is no thread of the test.
"""

import ctypes
import errno
import os
import select
import stat
import struct
import subprocess
import sys
import time

MNT_DETACH, PR_SET_PDEATHSIG, SIGKILL = 2, 1, 9
FORGET, BATCH_FORGET, INTERRUPT, INIT = 2, 42, 36, 26
HEAD = struct.Struct("=IIQQIIII")
FATTR_MODE, FATTR_SIZE = 1, 8
DIRECT_IO = 1


class HungDirectory:
    def __init__(self, path):
        self.path = path

    def __enter__(self):
        self.server = subprocess.Popen([sys.executable, __file__, self.path], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, text=True, bufsize=1)
        self.is_there = self.server.stdout.readline().strip() == "there"
        return self

    def __exit__(self, *_):
        if self.server.poll() is None:
            self.server.communicate()

    def say(self, word):
        self.server.stdin.write(word + "\n")
        self.server.stdin.flush()
        self.server.stdout.readline()

    def hang(self):
        self.say("hang")

    def let_go(self):
        self.say("go")

    def is_asked(self, seconds=10):
        return bool(select.select([self.server.stdout], [], [], seconds)[0])


class Node:
    def __init__(self, number, mode):
        self.number, self.mode, self.data, self.entries = number, mode, bytearray(), {}
        self.when = time.time()


class Server:
    def __init__(self, path):
        self.path = path
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
        self.nodes = {1: Node(1, stat.S_IFDIR | 0o700)}
        self.waiting, self.is_hung, self.is_told = [], False, False
        self.device = os.open("/dev/fuse", os.O_RDWR | os.O_NONBLOCK)
        options = (f"fd={self.device},rootmode={stat.S_IFDIR | 0o700:o},user_id={os.getuid()},group_id={os.getgid()},"
                   "allow_other")
        if self.libc.mount(b"drover-test", path.encode(), b"fuse", 0, options.encode()) != 0:
            raise OSError(ctypes.get_errno(), "mount")

    def serve(self):
        words = b""
        while True:
            ready = select.select([self.device, 0], [], [])[0]
            if self.device in ready:
                self.take()
            if 0 in ready:
                more = os.read(0, 64)
                if not more:
                    return
                words += more
                while b"\n" in words:
                    word, _, words = words.partition(b"\n")
                    self.obey(word)

    def obey(self, word):
        print("yes", flush=True)
        self.is_hung, self.is_told = word == b"hang", False
        if not self.is_hung:
            for data in self.waiting:
                self.answer(data)
            self.waiting = []

    def take(self):
        try:
            data = os.read(self.device, 1 << 18)
        except OSError:
            return  # taken back
        opcode = HEAD.unpack_from(data)[1]
        if not self.is_hung or opcode in (FORGET, BATCH_FORGET, INTERRUPT):
            self.answer(data)
            return
        self.waiting.append(data)
        if not self.is_told:
            print("asked", flush=True)
        self.is_told = True

    def answer(self, data):
        _, opcode, unique, number, _, _, _, _ = HEAD.unpack_from(data)
        if opcode in (FORGET, BATCH_FORGET, INTERRUPT):
            return
        handler = HANDLERS.get(opcode)
        try:
            body = handler(self, self.nodes.get(number), data[HEAD.size:]) if handler else -errno.ENOSYS
        except KeyError:
            body = -errno.ENOENT
        error, body = (body, b"") if isinstance(body, int) else (0, body)
        try:
            os.write(self.device, struct.pack("=IiQ", 16 + len(body), error, unique) + body)
        except OSError:
            pass  # nobody waits for it any more

    # ---- what it knows ----

    @staticmethod
    def attributes(node):
        size, when = len(node.data), int(node.when)
        return struct.pack("=6Q10I", node.number, size, (size + 511) // 512, when, when, when, 0, 0, 0, node.mode, 1,
                           os.getuid(), os.getgid(),
                           0, 4096, 0)

    def entry(self, node):
        return struct.pack("=4Q2I", node.number, 0, 0, 0, 0, 0) + self.attributes(node)

    def init(self, _, body):
        return struct.pack("=IIIIHHIIHHI7I", 7, 31, 65536, 0, 16, 12, 65536, 1, 32, 0, 0, *[0] * 7)

    def lookup(self, node, body):
        return self.entry(node.entries[name_in(body)])

    def getattr(self, node, body):
        return struct.pack("=QII", 0, 0, 0) + self.attributes(node)

    def setattr(self, node, body):
        valid, _, _, size = struct.unpack_from("=IIQQ", body)
        mode = struct.unpack_from("=I", body, 68)[0]
        if valid & FATTR_SIZE:
            node.data = node.data[:size].ljust(size, b"\0")
        if valid & FATTR_MODE:
            node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(mode)
        return self.getattr(node, body)

    def add(self, node, name, mode):
        if name in node.entries:
            return None
        new = Node(max(self.nodes) + 1, mode)
        self.nodes[new.number] = node.entries[name] = new
        return new

    def mkdir(self, node, body):
        new = self.add(node, name_in(body[8:]), stat.S_IFDIR | struct.unpack_from("=I", body)[0])
        return self.entry(new) if new else -errno.EEXIST

    def create(self, node, body):
        new = self.add(node, name_in(body[16:]), stat.S_IFREG | stat.S_IMODE(struct.unpack_from("=II", body)[1]))
        return self.entry(new) + struct.pack("=QII", new.number, DIRECT_IO, 0) if new else -errno.EEXIST

    def unlink(self, node, body):
        del node.entries[name_in(body)]
        return b""

    def move(self, node, body, skip):
        old, new = body[skip:].split(b"\0")[:2]
        self.nodes[struct.unpack_from("=Q", body)[0]].entries[new.decode()] = node.entries.pop(old.decode())
        return b""

    def open(self, node, body):
        return struct.pack("=QII", node.number, DIRECT_IO if stat.S_ISREG(node.mode) else 0, 0)

    def read(self, node, body):
        offset, size = struct.unpack_from("=8xQI", body)
        return bytes(node.data[offset:offset + size])

    def write(self, node, body):
        offset, size = struct.unpack_from("=8xQI", body)
        node.data[offset:offset + size] = body[40:40 + size]
        node.when = time.time()
        return struct.pack("=II", size, 0)

    def readdir(self, node, body):
        offset, size = struct.unpack_from("=8xQI", body)
        found, entries = b"", [(".", node), ("..", node), *node.entries.items()]
        for i, (name, entry) in enumerate(entries[offset:], offset + 1):
            text = name.encode()
            row = struct.pack("=QQII", entry.number, i, len(text), stat.S_IFMT(entry.mode) >> 12) + text
            row += bytes(-len(row) % 8)
            if len(found) + len(row) > size:
                break
            found += row
        return found

    def nothing(self, node, body):
        return b""


def name_in(body):
    return body.split(b"\0")[0].decode()


HANDLERS = {
    1: Server.lookup, 3: Server.getattr, 4: Server.setattr, 9: Server.mkdir, 10: Server.unlink, 11: Server.unlink,
    12: lambda s, n, b: s.move(n, b, 8), 45: lambda s, n, b: s.move(n, b, 16), 14: Server.open, 15: Server.read,
    16: Server.write,
    18: Server.nothing, 20: Server.nothing, 25: Server.nothing, INIT: Server.init, 27: Server.open, 28: Server.readdir,
    29: Server.nothing,
    30: Server.nothing, 35: Server.create,
}

if __name__ == "__main__":
    try:
        server = Server(sys.argv[1])
    except OSError:
        sys.exit(0)  # none may be mounted here
    print("there", flush=True)
    try:
        server.serve()
    finally:
        server.libc.umount2(server.path.encode(), MNT_DETACH)
