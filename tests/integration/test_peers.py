"""Who is behind a call: the kernel and the bus say so, and nothing that a client holds says it in their place.
FEATURES.md row 70."""

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import unittest

from harness import MANAGER, BusError, Drover, Test, kill, main, stat_of, wait_for
from sdbus import Connection, u64

NOBODY = 65534
SYS_CLONE3 = 435

MEMORIES = ("channel", "jobs", "results", "verdicts")
KINDS = {**dict.fromkeys(MEMORIES, "h"), "bell": "h", "doorbell": "h", "done": "h", "session": "h", "index": "u",
         "slots": "u", "slot-size": "u", "id-base": "t", "clock": "t"}


class Offer:
    """What OpenChannel tells, with descriptors of our own."""

    def __init__(self, message):
        self.values = {}
        message.enter("a", "{sv}")
        while message.more("e", "sv"):
            key, = message.read("s")
            kind = KINDS.get(key, "ay")
            message.enter("v", kind)
            value = message.read_bytes() if kind == "ay" else message.read(kind)[0]
            self.values[key] = os.dup(value) if kind == "h" else value
            message.exit()
            message.exit()

    def __getitem__(self, key):
        return self.values[key]

    def close(self):
        for key, kind in KINDS.items():
            if kind == "h" and self.values.get(key, -1) >= 0:
                os.close(self.values[key])
                self.values[key] = -1


def clone_with_pid(pid):
    """A sleeping child of this pid."""
    tid = ctypes.c_int(pid)
    fields = [0] * 11  # struct clone_args
    fields[4], fields[8], fields[9] = signal.SIGCHLD, ctypes.addressof(tid), 1
    arguments = (ctypes.c_uint64 * 11)(*fields)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    r = libc.syscall(SYS_CLONE3, arguments, ctypes.sizeof(arguments))
    if r == 0:
        os.execv("/bin/sleep", ["sleep", "1000"])
    if r < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return r


def ticks():
    with open("/proc/uptime", encoding="ascii") as f:
        return int(float(f.read().split()[0]) * os.sysconf("SC_CLK_TCK"))


class Peers(Test):
    def setUp(self):
        self.drover = Drover({"p": {"Plugin": "squares", "Workers": 1}})
        self.d = self.drover.__enter__()

    def tearDown(self):
        self.doCleanups()  # whatever a test holds of this daemon
        self.drover.__exit__(None, None, None)

    def connect(self, uid=None, fd=None):
        c = Connection(self.d.bus.address, uid, fd)
        self.addCleanup(c.close)
        return c

    def open(self, c):
        offer = Offer(c.call(*MANAGER, "OpenChannel", "sa{sv}", b"p", 0))
        self.addCleanup(offer.close)
        return offer

    def hand_back(self, c, old):
        schema = old["schema"]
        memories = [word for name in MEMORIES for word in (name.encode(), b"h", old[name])]
        cookie = c.send(*MANAGER, "OpenChannel", "sa{sv}", b"p", 7, *memories, b"slots", b"u", old["slots"],
                        b"slot-size", b"u",
                        old["slot-size"], b"schema", b"ay", len(schema), *schema)
        offer = Offer(c.reply(cookie))
        self.addCleanup(offer.close)
        return offer

    def other(self):
        """A connection of another uid."""
        if os.geteuid() != 0:
            self.skipTest("only root has another uid")
        os.chmod(self.d.dir, 0o711)
        return self.connect(NOBODY)

    def assert_refused(self, name, words, call, *args):
        with self.assertRaises(BusError) as caught:
            call(*args)
        self.assertEqual(caught.exception.name.rpartition(".")[2], name, caught.exception)
        self.assertIn(words, caught.exception.text)

    def test_row_70_another_uid(self):
        """It knows the number of a job and holds the memory of a channel, and that is no key."""
        mine, other = self.connect(), self.other()
        held = self.open(mine)
        job_id, job = mine.call(*MANAGER, "Submit", "ssa{sv}a{sv}", b"p", b"sleep", 1, b"seconds", b"d",
                                ctypes.c_double(30), 0).read("to")
        self.assert_refused("NoSuchJob", str(job_id), other.call, *MANAGER, "GetJob", "t", u64(job_id))
        for member, types, arguments in (("Cancel", "s", (b"kill",)), ("GetResult", "", ()), ("Wait", "t", (u64(0),)),
                                         ("Requeue", "", ())):
            with self.assertRaises(BusError, msg=member):
                other.call(job, "org.drover1.Job", member, types, *arguments)
        self.assert_refused("InvalidArgs", "a session has it already", self.hand_back, other, held)
        self.assertIn(self.d.get(job, "org.drover1.Job", "State"), ("queued", "running"))
        self.assertEqual(self.d.get(*MANAGER, "NSessions"), 1)
        mine.call(job, "org.drover1.Job", "Cancel", "s", b"ask")

    def test_what_a_client_may_write(self):
        """Jobs, not results nor verdicts, and another uid than the daemon's has no way to open these for writing."""
        held = self.open(self.other())
        modes = [fcntl.fcntl(held[name], fcntl.F_GETFL) & os.O_ACCMODE for name in MEMORIES]
        self.assertEqual(modes, [os.O_RDWR, os.O_RDWR, os.O_RDONLY, os.O_RDONLY])

        def tries():
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: its own /proc/self/fd is open to it
            os.close(os.open(f"/proc/self/fd/{os.open('/dev/null', os.O_RDONLY)}", os.O_RDONLY))
            for name in MEMORIES:
                for flags in (os.O_RDWR, os.O_WRONLY, os.O_RDONLY):
                    with contextlib.suppress(PermissionError):
                        os.open(f"/proc/self/fd/{held[name]}", flags)
                        return 1
            return 0
        pid = os.fork()
        if pid == 0:
            result = 2
            try:
                result = tries()
            finally:
                os._exit(result)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)

    def test_row_70_a_replayed_descriptor(self):
        """The memory of a channel is good for one session: not while it has one, and not for a second one after the
        daemon's death."""
        mine, thief = self.connect(), self.connect()
        held = self.open(mine)
        for c in (mine, thief):
            self.assert_refused("InvalidArgs", "a session has it already", self.hand_back, c, held)
        kill(self.d.pid)
        self.d.process.wait()
        wait_for(lambda: not self.d.has_name(), 10, "the bus knows that it is dead")
        self.d.start()
        self.d.wait_state("p", "running")
        back = self.hand_back(mine, held)
        self.assertFalse(set(MEMORIES) & set(back.values), "who hands the memories back has them")
        self.assertEqual((back["slots"], back["slot-size"]), (held["slots"], held["slot-size"]))
        for c in (mine, thief):
            self.assert_refused("InvalidArgs", "a session has it already", self.hand_back, c, held)
        # What is of no channel: the bell, a socket, a file of the right size with nothing in it.
        for name in ("bell", "session", "done"):
            fake = dict(held.values, **dict.fromkeys(MEMORIES, back[name]))
            self.assert_refused("InvalidArgs", "not the memories of a channel", self.hand_back, thief, fake)
        self.assertEqual(self.d.get(*MANAGER, "NSessions"), 1)

    def lent_socket(self):
        """A socket that a process connected to the bus which is dead by now, and its pid."""
        path = self.d.bus.address.partition("unix:path=")[2].partition(",")[0]
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        pid = os.fork()
        if pid == 0:
            s.connect(path)
            os._exit(0)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        return s.detach(), pid

    def test_row_70_a_recycled_pid(self):
        """The bus says that a connection is of process N; N died, and another process is N now."""
        fd, pid = self.lent_socket()
        c = self.connect(fd=fd)
        c.call(*MANAGER, "ListPools")  # the daemon knows the name from now on
        self.assert_refused("AccessDenied", "which process", self.open, c)  # N is nobody
        heard = ticks()
        wait_for(lambda: ticks() > heard + 1, 5, "the clock of process starts goes on")
        try:
            self.assertEqual(clone_with_pid(pid), pid)
        except PermissionError:
            raise unittest.SkipTest("a pid cannot be chosen here") from None
        try:
            wait_for(lambda: (stat_of(pid) or [""])[0].startswith("sleep"), 5, "it is another program")
            self.assert_refused("AccessDenied", "which process", self.open, c)
            self.assertEqual(self.d.get(*MANAGER, "NSessions"), 0)
            self.open(self.connect())  # who is who it says gets one
            self.assertEqual(self.d.get(*MANAGER, "NSessions"), 1)
        finally:
            kill(pid)
            os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
