"""Whoever should read, or answer, does not: the log's reader, the service manager, a disk. droverd goes on all the
same."""

import os
import re
import select
import socket
import subprocess
import tempfile
import time
import unittest

from fusedir import HungDirectory
from harness import (
    PATIENCE, SPAWN, WORKER, Bus, Drover, Test, assert_in_time, dict_words, is_alive, main, stat_of, wait_for)
from sdbus import Connection, u64

MANAGER = ("/org/drover1", "org.drover1.Manager")
POOLS = {"primes": {"Plugin": "primes", "Workers": 1}}
N_WARNINGS, N_PIPE_WARNINGS, A_RELOAD = 1000, 8000, 100  # more than a socket holds; than the pipe to the log's writer


class Hangs(Test):
    def start(self, **how):
        d = Drover(POOLS, **how)
        d.__enter__()
        self.addCleanup(d.tear_down)
        return d

    def connect(self, d):
        c = Connection(d.bus.address)
        self.addCleanup(c.close)
        return c

    def warn(self, d, n=N_WARNINGS, first=0):
        """So many messages, each numbered: of files that are refused, A_RELOAD at a time."""
        c = self.connect(d)
        for i in range(first, first + n, A_RELOAD):
            for k in range(A_RELOAD):
                d.write_pool_text(f"bad{k:02}", f"[Pool]\nPlugin=primes\nWorkers=message-{i + k}\n")
            c.call(*MANAGER, "Reload", "t", u64(0))

    def check_goes_on(self, d, name="new"):
        """Jobs run, as fast as ever, a new pool comes up."""
        c = self.connect(d)
        for _ in range(20):
            begin = time.monotonic()
            c.call(*MANAGER, "Run", "ssa{sv}a{sv}", b"primes", b"is_prime", 1, b"n", b"t", u64(97), 0)
            assert_in_time(time.monotonic() - begin, 0.5 * PATIENCE, "a Run")
        d.write_pool(name, Plugin="primes", Workers=1)
        self.assertIn(["pool", name, "added"], d.reload())
        d.wait_state(name, "running")
        self.assertEqual(d.run(name, "is_prime", n=97), {"prime": True})

    def check_ends(self, d, seconds=5):
        begin = time.monotonic()
        self.assertEqual(d.stop(), 0)
        assert_in_time(time.monotonic() - begin, seconds * PATIENCE, "the end after SIGTERM")


def fill(write):
    """Until there is no room."""
    n = 0
    for chunk in (b"x" * 4095 + b"\n", b"\n"):
        try:
            while True:
                n += write(chunk)
        except BlockingIOError:
            pass
    return n


def fill_pipe(writer):
    """Through a description of our own: that of the daemon's stderr stays as it is."""
    fd = os.open(f"/proc/self/fd/{writer}", os.O_WRONLY | os.O_NONBLOCK)
    fill(lambda data: os.write(fd, data))
    os.close(fd)


def read_all(read, until):
    """What comes until the words do; the bytes that filled it left out."""
    text = b""
    deadline = time.monotonic() + 20 * PATIENCE
    while until not in text and time.monotonic() < deadline:
        try:
            text += read(1 << 16)
        except BlockingIOError:
            time.sleep(0.01)
    return text.lstrip(b"x\n").decode()


class Log(Hangs):
    def check_told(self, d, read, n):
        """Every message is there, or was dropped and counted at its place. That is told with the next one for which
        there is room."""
        text, numbers, n_dropped = "", [], 0
        while "were dropped here" not in text:
            text += read_all(read, b"message-")
            self.warn(d, A_RELOAD, n)
            n += A_RELOAD
        text += read_all(read, f"message-{n - 1}".encode())
        for line in text.splitlines():
            if m := re.search(r"pool bad.*message-(\d+)", line):
                numbers.append(int(m[1]))
            elif m := re.match(r"(?:<4>|droverd: )(\d+) messages were dropped here, because nobody read", line):
                n_dropped += int(m[1])
        self.assertGreater(n_dropped, 0)
        self.assertEqual(numbers, sorted(set(numbers)), "in their order, none twice")
        self.assertGreater(len(numbers), 20, "a buffer's worth of them was kept")
        self.assertGreaterEqual(n_dropped, n - len(numbers), "no other was lost")

    def pipe(self):
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        self.addCleanup(os.close, writer)
        return reader, writer

    def test_a_pipe_whose_reader_stopped(self):
        reader, writer = self.pipe()
        d = self.start(stderr=writer)
        self.assertIn("ready: Drover", read_all(lambda n: os.read(reader, n), b"ready: Drover"))
        fill_pipe(writer)
        self.warn(d, N_PIPE_WARNINGS)
        self.check_goes_on(d)
        self.check_told(d, lambda n: os.read(reader, n), N_PIPE_WARNINGS)
        self.check_ends(d)
        self.assertIn("draining", read_all(lambda n: os.read(reader, n), b"draining"))
        os.close(reader)

    def test_sigterm_with_a_pipe_whose_reader_stopped(self):
        """Nor does the process that writes stay."""
        reader, writer = self.pipe()
        d = self.start(stderr=writer)
        fill_pipe(writer)
        self.warn(d, A_RELOAD)
        self.check_ends(d)
        self.check_no_writer()
        os.close(reader)

    def writers(self):
        return [pid for pid in filter(str.isdigit, os.listdir("/proc"))
                if (s := stat_of(pid)) and s[0] == "drover-log" and s[2] == os.getpid() and is_alive(pid)]

    def check_no_writer(self):
        wait_for(lambda: not self.writers(), 5, "the log's writer is gone")

    def test_sigkill_with_a_pipe_whose_reader_stopped(self):
        reader, writer = self.pipe()
        d = self.start(stderr=writer)
        fill_pipe(writer)
        self.warn(d, A_RELOAD)
        d.process.kill()
        d.process.wait()
        self.check_no_writer()
        os.close(reader)
        d.start()

    def test_what_was_said_last_before_a_sigkill(self):
        reader, writer = self.pipe()
        d = self.start(stderr=writer)
        self.warn(d, A_RELOAD)
        d.process.kill()
        d.process.wait()
        self.assertIn("message-99", read_all(lambda n: os.read(reader, n), b"message-99"))
        self.check_no_writer()
        os.close(reader)
        d.start()

    def check_socket(self, d, ours):
        self.warn(d)
        self.check_goes_on(d)
        ours.setblocking(False)
        self.check_told(d, ours.recv, N_WARNINGS)
        self.warn(d)
        self.check_ends(d)

    def test_a_socket_nobody_reads(self):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            d = self.start(stderr=theirs.fileno())
            self.check_socket(d, ours)

    def test_the_journal_stands_still(self):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            st = os.fstat(theirs.fileno())
            d = self.start(stderr=theirs.fileno(), env={"JOURNAL_STREAM": f"{st.st_dev}:{st.st_ino}"})
            self.check_socket(d, ours)

    def test_a_file_on_a_full_disk(self):
        """What could not be written is told, too, when there is room again."""
        with open("/dev/full", "w", encoding="utf-8") as full:
            d = self.start(stderr=full.fileno())
            self.check_goes_on(d)
            self.check_ends(d)


@unittest.skipUnless(os.geteuid() == 0, "needs another uid")
class Spawner(Test):
    """The system's, whose stderr is its own."""

    def start(self, path, stderr, env=None):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(path)
            os.chmod(path, 0o666)
            listener.listen(100)
            script = f'exec 3<&{listener.fileno()}; LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@"'
            return subprocess.Popen(["sh", "-c", script, SPAWN, f"--plugin-dir={os.path.dirname(path)}",
                                     f"--worker={WORKER}"],
                                    pass_fds=[listener.fileno()], stderr=stderr, stdin=subprocess.DEVNULL,
                                    env=dict(os.environ, **(env or {})))

    @staticmethod
    def refused_connections(path, n):
        """By nobody, of whom each is told of in the log."""
        pid = os.fork()
        if pid == 0:
            try:
                os.setresuid(65534, 65534, 65534)
                for _ in range(n):
                    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
                        s.settimeout(20)
                        s.connect(path)
                        s.recv(1)
                os._exit(0)
            finally:
                os._exit(1)
        return os.waitpid(pid, 0)[1]

    def check(self, stderr):
        with tempfile.TemporaryDirectory() as directory:
            os.chmod(directory, 0o711)
            path = directory + "/spawn"
            spawner = self.start(path, stderr)
            try:
                self.assertEqual(self.refused_connections(path, N_WARNINGS), 0)
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as broker:
                    broker.settimeout(10 * PATIENCE)
                    broker.connect(path)
                    self.assertGreater(len(broker.recv(4096)), 16, "it says hello")
                    spawner.terminate()
                    self.assertEqual(spawner.wait(10 * PATIENCE), 0)
            finally:
                spawner.kill()
                spawner.wait()

    def test_a_pipe_whose_reader_stopped(self):
        reader, writer = os.pipe()
        fill_pipe(writer)
        self.check(writer)
        os.close(writer)
        os.close(reader)

    def test_a_socket_nobody_reads(self):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self.check(theirs.fileno())


    def test_the_managers_queue_was_full(self):
        """Of others' messages: WATCHDOG=1 comes soon after there is room, not at its next turn, which may be too
        late."""
        with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, \
                socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as others:
            manager.bind(f"\0drover-test-{os.getpid()}")
            others.setblocking(False)
            others.connect(manager.getsockname())
            fill(others.send)
            turn = 20 * PATIENCE
            spawner = self.start(directory + "/spawn", subprocess.DEVNULL,
                                 {"NOTIFY_SOCKET": f"@drover-test-{os.getpid()}",
                                  "WATCHDOG_USEC": str(int(2e6 * turn))})
            try:
                manager.recv(4096)
                wait_for(lambda: not select.select([], [others], [], 0)[1], 10, "READY=1 takes the room")
                wait_for(lambda: stat_of(spawner.pid)[:2] == ("drover-spawn", "S"), 10, "the spawner serves")
                manager.settimeout(turn / 2)
                told = []
                while "WATCHDOG=1" not in told:
                    told.append(manager.recv(4096).decode(errors="replace"))
                self.assertIn("READY=1", told)
            finally:
                spawner.kill()
                spawner.wait()


class ServiceManager(Hangs):
    def test_nobody_reads(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(f"\0drover-test-{os.getpid()}")
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
                ours.setblocking(False)
                ours.connect(manager.getsockname())
                fill(ours.send)
            d = self.start(env={"NOTIFY_SOCKET": f"@drover-test-{os.getpid()}", "WATCHDOG_USEC": "200000"})
            self.check_goes_on(d)
            manager.settimeout(5 * PATIENCE)
            told = ""
            while "READY=1" not in told or "WATCHDOG=1" not in told:
                told += manager.recv(4096).decode() + "\n"
            self.assertIn("STATUS=2 of 2 pools well", told)
            self.check_ends(d)
            manager.setblocking(False)
            while "STOPPING=1" not in told:
                told += manager.recv(4096).decode() + "\n"


def can_mount():
    with tempfile.TemporaryDirectory() as directory, HungDirectory(directory) as d:
        return d.is_there


class Disks(Hangs):
    """The disk of a directory does not answer. Whoever waits for it does not even die of SIGKILL."""

    def setUp(self):
        self.d = Drover(POOLS)
        self.addCleanup(self.d.tear_down)

    def mount(self, name):
        disk = HungDirectory(os.path.join(self.d.dir, name))
        disk.__enter__()
        self.addCleanup(disk.__exit__)
        return disk

    def check_start_ends(self, *words):
        """With an error, in bounded time."""
        self.d.bus = self.d.bus or Bus(self.d.dir)
        begin = time.monotonic()
        self.d.start(wait=False)
        self.assertEqual(self.d.process.wait(30 * PATIENCE), 1)
        assert_in_time(time.monotonic() - begin, 15 * PATIENCE, "the start's end")
        for word in words:
            self.assertIn(word, self.d.log())


@unittest.skipUnless(os.geteuid() == 0 and can_mount(), "needs root and FUSE")
class Configuration(Disks):
    def setUp(self):
        super().setUp()
        self.disk = self.mount("config/pools.d")
        self.path = os.path.join(self.d.config_dir, "pools.d")
        self.d.write_pool("primes", **POOLS["primes"])

    def test_at_a_reload(self):
        d = self.d
        d.__enter__()
        self.disk.hang()
        c = self.connect(d)
        begin = time.monotonic()
        reload = c.send(*MANAGER, "Reload", "t", u64(0))
        self.assertTrue(self.disk.is_asked())
        also = c.send(*MANAGER, "Reload", "t", u64(0))
        for _ in range(20):
            self.assertEqual(d.run("primes", "is_prime", n=97), {"prime": True})
        d.call(*MANAGER, "CreatePool", "sa{sv}t", "new", *dict_words({"Plugin": "primes", "Workers": 1}), 0)
        d.wait_state("new", "running")
        for cookie in (reload, also):
            with self.assert_error("Failed", f"{self.path}: no answer, for 1"):
                c.reply(cookie, 15)
        assert_in_time(time.monotonic() - begin, 13 * PATIENCE, "the answer to a reload")
        begin = time.monotonic()
        with self.assert_error("Failed", self.path):
            d.reload()
        r = d.ctl("reload")
        self.assertNotEqual(r.returncode, 0)
        self.assertIn(self.path, r.stderr)
        assert_in_time(time.monotonic() - begin, 2 * PATIENCE, "it is known to hang")
        self.assertIn(f"reload refused, everything stays as it is: {self.path}: no answer", d.log())
        self.assertEqual(d.run("primes", "is_prime", n=97), {"prime": True})
        self.disk.let_go()
        wait_for(lambda: f"{self.path} answers again" in d.log(), 10, "it is heard of")
        self.check_goes_on(d, "newer")
        self.disk.hang()
        c.send(*MANAGER, "Reload", "t", u64(0))
        self.assertTrue(self.disk.is_asked())
        self.check_ends(d)
        self.disk.let_go()

    def test_at_the_start(self):
        self.disk.hang()
        self.check_start_ends(f"{self.path}: no answer, for 10 s")
        self.disk.let_go()


@unittest.skipUnless(os.geteuid() == 0 and can_mount(), "needs root and FUSE")
class State(Disks):
    """Capsules and the numbers of jobs."""

    def setUp(self):
        super().setUp()
        self.d.pools = {**POOLS, "crash": {"Plugin": "crash", "Workers": 1, "MaxAttempts": 1, "RestartSec": 0}}
        self.d.write_pool("crash", **self.d.pools["crash"])
        self.disk = self.mount("state")

    def crash(self):
        job, path = self.d.submit("crash", "segfault")
        self.assertEqual(self.d.wait_job(path), "poisoned")
        return job, path

    def numbers(self):
        """What stands in the file."""
        with open(f"{self.d.dir}/state/numbers", encoding="utf-8") as f:
            return [int(line.split()[1]) for line in f]

    def take_numbers(self, c, n):
        """Of that many jobs; none twice."""
        seen = []
        for _ in range(0, n, 100):
            cookies = [c.send(*MANAGER, "Submit", "ssa{sv}a{sv}", b"primes", b"is_prime", 1, b"n", b"t", u64(97), 0)
                       for _ in range(100)]
            seen += [c.reply(cookie).read("to")[0] for cookie in cookies]
        self.assertEqual(len(set(seen)), len(seen), "no number twice")
        return seen

    def test_while_jobs_run(self):
        d = self.d
        d.__enter__()
        c = self.connect(d)
        kept, path = self.crash()
        wait_for(lambda: f"job {kept} is kept as a capsule" in d.log(), 10, "it is kept")
        self.disk.hang()
        late = c.send(path, "org.drover1.Job", "GetCapsule")
        self.assertTrue(self.disk.is_asked())
        begin = time.monotonic()
        lost, _ = self.crash()
        self.check_goes_on(d)
        before = self.take_numbers(c, 4200)  # more than are reserved: then they go on from the clock
        self.assertGreater(max(before), 1000000)
        self.check_goes_on(d, "newer")
        with self.assert_error("Failed",
                               f"the capsule of job {kept} cannot be read: its disk or server does not answer"):
            c.reply(late, 15)
        assert_in_time(time.monotonic() - begin, 13 * PATIENCE, "the answer to GetCapsule")
        wait_for(lambda: "/capsules: its disk or server does not answer" in d.log(), 5, "that is told")
        wait_for(lambda: "state/numbers cannot be written: its disk or server does not answer" in d.log(), 5,
                 "and that, too")
        self.disk.let_go()
        wait_for(lambda: f"job {lost} is kept as a capsule" in d.log(), 10, "what waited is written")
        wait_for(lambda: self.numbers()[0] > max(before), 10, "and the numbers that are in use by now")
        self.disk.hang()
        lost, _ = self.crash()
        self.assertTrue(self.disk.is_asked())
        self.check_ends(d)
        self.disk.let_go()
        d.start()
        d.wait_state("primes", "running")
        after = self.take_numbers(c := self.connect(d), 100)
        self.assertGreater(min(after), max(before), "no number is given out again")
        self.check_ends(d)

    def test_at_the_start(self):
        self.disk.hang()
        self.d.__enter__()
        self.assertIn("/capsules: its disk or server does not answer", self.d.log())
        self.check_goes_on(self.d)
        self.assertGreater(self.d.submit("primes", "is_prime", n=97)[0], 1000000)
        self.disk.let_go()
        wait_for(lambda: "/capsules answers again" in self.d.log(), 10, "it is heard of")
        job, _ = self.crash()
        wait_for(lambda: f"job {job} is kept as a capsule" in self.d.log(), 10, "from then on capsules are kept")

    def test_a_disk_that_is_full(self):
        self.disk.__exit__()
        state = os.path.join(self.d.dir, "state")
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "drover-test", state], check=False).returncode:
            self.skipTest("no tmpfs may be mounted here")
        self.addCleanup(subprocess.run, ["umount", "-l", state], check=True)
        with open(state + "/full", "wb") as f:
            f.write(b"x" * 4096)
        d = self.d
        d.__enter__()
        job, _ = self.crash()
        wait_for(lambda: f"the capsule of job {job} cannot be kept: No space left on device" in d.log(), 10,
                 "that is told")
        self.assertIn("state/numbers cannot be written: No space left on device", d.log())
        self.check_goes_on(d)
        self.check_ends(d)


if __name__ == "__main__":
    main()
