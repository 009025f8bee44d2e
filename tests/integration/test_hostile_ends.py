"""Clients that misuse their ends of what they share with droverd and the workers: nobody waits for them."""

import fcntl
import mmap
import os
import signal
import socket
import struct
import subprocess
import time
import unittest

import fuse
from harness import BUILD, MANAGER, PATIENCE, BusError, Drover, Test, assert_in_time, main, wait_for, wait_surely
from sdbus import Connection, u64
from test_peers import KINDS, Offer

DONE_WAIT, DONE_DOORBELL = 68, 2
HOSTILE = 65534  # nobody: dbus-daemon wants to know him


class Ends(Test):
    POOLS = {"echo": {"Plugin": "echo", "Workers": 2}, "primes": {"Plugin": "primes", "Workers": 1}}

    def start(self):
        self.d = Drover(self.POOLS)
        self.d.__enter__()
        self.addCleanup(self.d.__exit__, None, None, None)
        for pool, keys in self.POOLS.items():
            self.d.wait_workers(pool, keys["Workers"])

    def connect(self, uid=None):
        os.chmod(self.d.dir, 0o711)  # to the bus
        c = Connection(self.d.bus.address, uid)
        self.addCleanup(c.close)
        return c

    def open(self, c, pool=b"echo"):
        offer = Offer(c.call(*MANAGER, "OpenChannel", "sa{sv}", pool, 0))
        self.addCleanup(offer.close)
        return offer

    def lose_a_worker(self):
        """Its death rings the done doorbells of all channels of its pool."""
        path, pid = self.d.list_workers("echo")[0][2:4]
        self.d.call(path, "org.drover1.Worker", "Kill", "i", int(signal.SIGKILL))
        wait_for(lambda: pid not in [w[3] for w in self.d.list_workers("echo")], 10, "the worker is gone")
        self.d.wait_workers("echo", 2)

    def assert_serves(self):
        """droverd answers at once, and so do its workers."""
        begun = time.monotonic()
        self.d.call(*MANAGER, "ListPools", timeout=20)
        assert_in_time(time.monotonic() - begun, 1 * PATIENCE, "droverd answers")
        self.assertEqual(self.d.run("primes", "is_prime", n=97, timeout=20), {"prime": True})
        self.assertEqual(self.d.run("echo", "echo", payload=b"x", timeout=20), {"payload": [ord("x")]})

    def assert_ends(self):
        """SIGTERM is heard."""
        begun = time.monotonic()
        self.assertEqual(self.d.stop(), 0)
        assert_in_time(time.monotonic() - begun, 10 * PATIENCE, "droverd ends on SIGTERM")


class HostileEnds(Ends):
    def test_a_client_with_jobs(self):
        """Everything that it can do, while its jobs run: they end, and nobody else notices."""
        self.start()
        client = subprocess.Popen([f"{BUILD}/tests/integration/hostile-ends", "echo"], env=self.d.env(),
                                  stdout=subprocess.PIPE, text=True)
        self.addCleanup(client.wait)
        self.addCleanup(client.kill)
        self.assertEqual(client.stdout.readline(), "ready\n")
        self.lose_a_worker()
        self.assert_serves()
        self.assertEqual(client.stdout.readline(), "ran\n")
        self.assert_serves()
        self.assert_ends()

    def misuse(self, offer):
        """Of a session without jobs: everything at once, and nothing is read."""
        for key in (key for key, kind in KINDS.items() if kind == "h"):
            fd = offer[key]
            fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)
            try:
                while key in ("doorbell", "done"):
                    os.write(fd, struct.pack("=Q", 2**64 - 2))
            except OSError:
                pass
            for command, argument in ((fcntl.F_SETLEASE, fcntl.F_WRLCK), (fcntl.F_SETOWN, os.getpid()),
                                      (fcntl.F_SETFL, 0)):
                try:
                    fcntl.fcntl(fd, command, argument)
                except OSError:
                    pass
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with mmap.mmap(offer["channel"], 4096) as head:
            head[DONE_WAIT] = DONE_DOORBELL

    def test_other_users(self):
        """As many sessions as one user may have, all misused: it stops nobody."""
        self.start()
        hostile = self.connect(HOSTILE)
        for _ in range(32):
            self.misuse(self.open(hostile))
        self.lose_a_worker()
        self.assert_serves()
        self.assert_ends()

    def count_fds(self):
        return len(os.listdir(f"/proc/{self.d.pid}/fd"))

    def count_fds_known(self, c):
        """With what droverd keeps for whoever has called it."""
        before = self.count_fds()
        self.open(c).close()
        wait_for(lambda: self.count_fds() <= before + 1, 10, "the session is gone, and the pidfd of its client is here")
        return before + 1

    def send(self, offer, fds):
        """As a ring with descriptors."""
        with socket.socket(fileno=os.dup(offer["doorbell"])) as s:
            socket.send_fds(s, [b"x"], fds)

    def test_descriptors_on_a_doorbell(self):
        """Nobody sends any there: the session ends, and droverd keeps none."""
        self.start()
        hostile = self.connect(HOSTILE)
        before = self.count_fds_known(hostile)
        for _ in range(3):
            offer = self.open(hostile)
            self.send(offer, [0] * 200)
            with socket.socket(fileno=os.dup(offer["session"])) as s:
                s.settimeout(10 * PATIENCE)
                self.assertEqual(s.recv(1), b"")
            offer.close()
        wait_surely(lambda: self.count_fds() <= before, 5, "droverd has let go of all descriptors")
        self.assert_serves()

    @unittest.skipUnless(os.geteuid() == 0 and fuse.is_there(), "needs root and FUSE")
    def test_slow_descriptors_on_a_doorbell(self):
        """Whose close takes as long as their sender likes."""
        self.start()
        hostile = self.connect(HOSTILE)
        slow = fuse.SlowFile(self.d.pid)
        slow.__enter__()
        self.addCleanup(slow.__exit__)
        fd = os.open(slow.path, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        before = self.count_fds_known(hostile)
        for n in (1, 200):
            self.send(self.open(hostile), [fd] * n)
        self.assert_serves()
        slow.let_go()
        wait_surely(lambda: self.count_fds() <= before, 20, "all of them are closed")


@unittest.skipUnless(os.geteuid() == 0 and fuse.is_there(), "needs root and FUSE")
class HeldLocks(Ends):
    """Whoever writes into a pipe or file holds its lock while the kernel fetches what is to be written: for ever, if it
    comes from a file whose reads hang."""

    POOLS = {**Ends.POOLS, "holds": {"Plugin": "holds", "Workers": 1, "MaxAttempts": 1},
             "crash": {"Plugin": "crash", "Workers": 1, "MaxAttempts": 1, "Capsules": 1, "RestartSec": "10ms"}}

    def hung_file(self):
        hung = fuse.HungFile(f"{self.d.dir}/hung", f"{BUILD}/tests/plugins/holds.so")
        hung.__enter__()
        self.addCleanup(hung.__exit__)
        fd = os.open(hung.path, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        self.assertGreater(os.fstat(fd).st_size, 4096)  # and the kernel knows it
        return hung, fd

    def check_job(self, job):
        self.start()
        hung, fd = self.hung_file()
        c = self.connect()
        c.send(*MANAGER, "Submit", "ssa{sv}a{sv}", b"holds", job, 1, b"in", b"h", fd, 1, b"hard-timeout", b"t",
               u64(300000))
        self.assertTrue(hung.is_read())
        self.assert_serves()
        path = self.d.call(*MANAGER, "ListJobs", "a{sv}su", 1, "pool", "s", "holds", "", 10)[0][0][1]
        self.assertEqual(self.d.wait_job(path), "timed-out")
        hung.let_go()
        self.d.wait_workers("holds", 1)
        self.assert_ends()

    def test_of_the_output(self):
        self.check_job(b"output")

    def test_of_the_room_for_a_result(self):
        self.check_job(b"room")

    def crash(self):
        job, path = self.d.submit("crash", "segfault")
        self.assertEqual(self.d.wait_job(path), "poisoned")
        return path

    def get_capsule(self, path):
        def look():
            try:
                m = self.connect().call(path, "org.drover1.Job", "GetCapsule")
            except BusError:
                return None
            return os.dup(m.read("h")[0])
        fd = wait_for(look, 10, "the capsule is kept")
        self.addCleanup(os.close, fd)
        return fd

    def test_of_a_capsule(self):
        """Who reads past the page cache locks the file meanwhile: whoever removes it waits."""
        self.start()
        hung, fd = self.hung_file()
        capsule = self.get_capsule(self.crash())
        reader = os.fork()
        if reader == 0:
            to = mmap.mmap(fd, 4096, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
            try:
                fcntl.fcntl(capsule, fcntl.F_SETFL, os.O_DIRECT)
                os.preadv(capsule, [to], 0)
            finally:
                os._exit(0)
        self.addCleanup(os.waitpid, reader, 0)
        self.addCleanup(hung.let_go)
        if not hung.is_read():
            self.skipTest("the file system that capsules lie on here knows no O_DIRECT")
        self.crash()  # the other one has to go for it
        self.assert_serves()
        wait_for(lambda: len(os.listdir(f"{self.d.dir}/state/capsules")) == 1, 10, "one capsule is kept")
        self.assert_serves()


if __name__ == "__main__":
    main()
