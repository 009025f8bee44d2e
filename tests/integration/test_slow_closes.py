"""Descriptors whose close takes as long as their sender likes (files of FUSE): he stops nobody but himself."""

import os
import resource
import socket
import struct
import unittest

import fuse
from harness import BusError, Drover, Test, main, wait_for
from sdbus import Connection
from test_peers import Offer

HOSTILE = 65534  # nobody: dbus-daemon wants to know him
MANAGER = ("/org/drover1", "org.drover1.Manager")
SESSION_FDS, WIRE_VERSION = 1, 1
FDS_A_PACKET = 8


class Session:
    """A session on a pool, of which we keep the socket."""

    def __init__(self, c, pool):
        self.offer = Offer(c.call(*MANAGER, "OpenChannel", "sa{sv}", pool, 0))
        self.socket = socket.socket(fileno=os.dup(self.offer["session"]))
        self.offer.close()

    def send(self, generation, fd):
        """False: it is over."""
        packet = struct.pack("=IIIIiIQ", SESSION_FDS, WIRE_VERSION, generation % 16, generation // 16 + 1, 0, 0, 0)
        try:
            socket.send_fds(self.socket, [packet], [fd] * FDS_A_PACKET)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True


@unittest.skipUnless(os.geteuid() == 0 and fuse.is_there(), "needs root and FUSE")
class SlowFiles(Test):
    def setUp(self):
        self.d = Drover({"fds": {"Plugin": "fds", "Workers": 1, "Slots": 16},
                         "primes": {"Plugin": "primes", "Workers": 1}})
        self.d.__enter__()
        self.addCleanup(self.d.__exit__, None, None, None)
        os.chmod(self.d.dir, 0o711)  # to the bus
        self.slow = fuse.SlowFile(self.d.pid)
        self.slow.__enter__()
        self.addCleanup(self.slow.__exit__)
        self.fd = os.open(self.slow.path, os.O_RDONLY)
        self.addCleanup(os.close, self.fd)
        self.hostile = self.connect(HOSTILE)
        self.honest = self.connect()
        for c in (self.hostile, self.honest):
            Session(c, b"fds").socket.close()
        self.n_fds = self.fds()  # with all that is made once

    def connect(self, uid=None):
        c = Connection(self.d.bus.address, uid)
        self.addCleanup(c.close)
        return c

    def fds(self):
        return len(os.listdir(f"/proc/{self.d.pid}/fd"))

    def check_goes_on(self):
        """Another uid has its calls answered, opens sessions, and its descriptors are closed."""
        self.assertEqual(self.d.run("primes", "is_prime", n=97), {"prime": True})
        for _ in range(8):
            session = Session(self.honest, b"fds")
            with open("/dev/null", "rb") as f:
                session.send(0, f.fileno())
            session.socket.close()

    def is_refused(self):
        try:
            Session(self.hostile, b"fds").socket.close()
        except BusError as e:
            self.assertIn(f"uid {HOSTILE} has sent are not closed yet", str(e))
            return True
        return False

    def check_all_is_closed(self):
        self.slow.let_go()
        wait_for(lambda: self.fds() <= self.n_fds, 20, "all of them are closed")
        Session(self.hostile, b"fds").socket.close()
        self.check_goes_on()

    def test_of_sessions(self):
        session = Session(self.hostile, b"fds")
        session.socket.settimeout(20)
        generation = 0
        while session.send(generation, self.fd):
            generation += 1
        session.socket.close()
        self.check_goes_on()
        with self.assert_error("LimitsExceeded", f"uid {HOSTILE} has sent are not closed yet"):
            Session(self.hostile, b"fds")
        self.assertIn(f"uid {HOSTILE} has sent are not closed yet", self.d.log())
        # A sixteenth of all, the packet that was the last, what the jobs of a channel may have, and the few of
        # sessions.
        most = max(256, resource.prlimit(self.d.pid, resource.RLIMIT_NOFILE)[0] // 16)
        most += self.n_fds + FDS_A_PACKET + 64 + 32
        wait_for(lambda: self.fds() <= most, 10,
                 f"the broker has {most} descriptors and no more, when those of others are gone")
        self.check_all_is_closed()

    def test_of_messages(self):
        """Also of who never calls anything that is there, and so is nobody."""
        for i in range(120):
            c = self.hostile if i % 2 else self.connect(HOSTILE)
            c.send(*MANAGER, "NoSuchMethod", "hhhhhhhh", *[self.fd] * 8)
        self.hostile.call("/org/drover1", "org.freedesktop.DBus.Peer", "Ping")
        self.check_goes_on()
        wait_for(self.is_refused, 10, "none of them moved for a while")
        with self.assert_error("LimitsExceeded", f"uid {HOSTILE} has sent are not closed yet"):
            self.hostile.call(*MANAGER, "Submit", "ssa{sv}a{sv}", b"fds", b"cat", 2, b"in", b"h", self.fd, b"attempt",
                              b"t", 1, 0)
        self.assertGreater(self.fds(), self.n_fds + 256)
        self.check_all_is_closed()

    def test_that_is_no_channel(self):
        session = Session(self.hostile, b"fds")
        session.socket.close()
        schema = session.offer["schema"]
        with self.assert_error("InvalidArgs", "not the memories of a channel"):
            self.hostile.call(*MANAGER, "OpenChannel", "sa{sv}", b"fds", 7, b"channel", b"h", self.fd, b"jobs", b"h",
                              self.fd,
                              b"results", b"h", self.fd, b"verdicts", b"h", self.fd, b"slots", b"u",
                              session.offer["slots"],
                              b"slot-size", b"u", session.offer["slot-size"], b"schema", b"ay", len(schema), *schema)
        self.check_all_is_closed()

    def test_of_so_many_that_numbers_are_short(self):
        """The bus is not read, and nothing is lost."""
        soft, hard = resource.prlimit(self.d.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.d.pid, resource.RLIMIT_NOFILE, (400, hard))
        for _ in range(60):
            self.hostile.send(*MANAGER, "NoSuchMethod", "hhhhhhhh", *[self.fd] * 8)
        late = self.honest.send(*MANAGER, "ListPools")
        wait_for(lambda: "no message is read from the bus" in self.d.log(), 10, "the bus is left alone")
        self.assertLess(self.fds(), 350)
        self.slow.let_go()
        self.honest.reply(late)
        resource.prlimit(self.d.pid, resource.RLIMIT_NOFILE, (soft, hard))
        self.check_all_is_closed()


if __name__ == "__main__":
    main()
