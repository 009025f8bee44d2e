"""Files whose reads hang (FUSE here, a dead NFS server elsewhere): they stop nobody but who wants them, and nobody is
told what has not happened."""

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
import unittest

import fuse
from harness import (
    BUILD, DROVERD, PATIENCE, SPAWN, WORKER, Bus, Drover, Test, assert_in_time, descendants, fds_of, is_alive, kill,
    main, stat_of, wait_for, wait_surely)
from sdbus import Connection, u64

HOSTILE = 65534  # nobody: dbus-daemon wants to know him
PATIENCE_S = 10  # of drover-spawn, for one copy


@unittest.skipUnless(os.geteuid() == 0 and fuse.is_there(), "needs root and FUSE")
class HungPlugin(Test):
    def drover(self):
        d = Drover({"a": {"Plugin": "sleep", "Workers": 2}})
        d.__enter__()
        self.addCleanup(d.__exit__, None, None, None)
        return d

    def hang(self, d, name="hung"):
        f = fuse.HungFile(f"{d.plugin_dir}/{name}.so", f"{BUILD}/plugins/primes/primes.so")
        f.__enter__()
        self.addCleanup(f.__exit__)
        return f

    def check_goes_on(self, d):
        """Workers of others are killed, reaped and started, by limits and by hand."""
        for method in ("forkserver", "spawn", "fork"):
            d.write_pool("c", Plugin="sleep", Workers=1, StartMethod=method)
            d.reload()
            d.wait_state("c", "running", 5)
            worker = d.wait_workers("c", 1, seconds=5)[0]
            job, path = d.submit("c", "sleep", {"hard-timeout": ("t", 100000)}, ms=60000)
            self.assertEqual(d.wait_job(path, 5), "timed-out")
            wait_for(lambda: not is_alive(worker[3]), 5, "its worker is dead")
            worker = d.wait_workers("c", 1, ("idle",), 5)[0]
            kill(worker[3])
            wait_for(lambda: [w for w in d.wait_workers("c", 1, ("idle",), 5) if w[0] != worker[0]], 5,
                     "it is replaced")
            self.assertEqual(d.run("c", "sleep", ms=1), {"ms": 1})
            d.remove_pool_file("c")
            d.reload()

    def copiers(self):
        return [pid for pid, name in descendants().items() if name == "drover-copy"]

    def test_costs_its_own_pools_only(self):
        d = self.drover()
        hung = self.hang(d)
        d.write_pool("b", Plugin="hung", Workers=1, RestartSec="10ms", RestartMaxDelaySec="1s")
        begun = time.monotonic()
        d.reload()
        self.assertTrue(hung.is_read())
        self.check_goes_on(d)
        problem = wait_for(lambda: d.pool("b")["Problem"], PATIENCE_S + 5, "its pool says why")
        self.assertEqual(problem,
                         f"plugin {hung.path}: it was not read within {PATIENCE_S} s: the disk or server that it lies "
                         f"on "
                                  "does not answer: mend that, or copy the file to a disk of this machine")
        self.assertGreater(time.monotonic() - begun, PATIENCE_S - 1)
        # Who reads it cannot even be killed: one such process, whoever else asks for the file.
        wait_for(lambda: "hangs in the kernel, since" in d.pool("b")["Problem"], 5, "the next try is told at once")
        d.write_pool("b2", Plugin="hung.so", Workers=1)
        d.reload()
        wait_for(lambda: "hangs in the kernel, since" in d.pool("b2")["Problem"], 2, "and so is another pool")
        self.assertEqual(len(self.copiers()), 1)
        self.check_goes_on(d)
        self.assertNotIn("escaped", d.log())
        hung.let_go()
        wait_for(lambda: not self.copiers(), 5, "the process that hung is gone")
        d.wait_state("b", "running", 5)
        self.assertEqual(d.run("b", "is_prime", n=97), {"prime": True})
        d.pool_call("b2", "Start")
        d.wait_state("b2", "running", 5)
        self.assertNotIn("escaped", d.log())
        self.assertEqual(d.stop(), 0)

    def stop_in_time(self, d):
        begun = time.monotonic()
        self.assertEqual(d.stop(), 0)
        assert_in_time(time.monotonic() - begun, 2, "the service ends as if nothing hung")
        wait_surely(lambda: not [name for name in descendants().values()
                                 if name.startswith("dr") and name != "drover-copy"], 1,
                    "nothing is left but what the kernel has")

    def check_holds_little(self, d, hung, copier):
        """Nothing that somebody else waits for: not the broker's socket, its lock or a worker's descriptors."""
        fds = fds_of(copier)
        self.assertEqual([fds.pop(n) for n in range(3)], ["/dev/null"] * 3)
        self.assertRegex(fds.pop(3), r"^socket:")
        self.assertEqual(sorted(fds.values()), sorted(["/memfd:hung.so (deleted)", d.plugin_dir, hung.path]))

    def test_does_not_hold_up_the_end(self):
        d = self.drover()
        hung = self.hang(d)
        d.write_pool("b", Plugin="hung", Workers=1)
        d.reload()
        self.assertTrue(hung.is_read())
        self.check_holds_little(d, hung, self.copiers()[0])
        self.stop_in_time(d)
        self.assertEqual(len(self.copiers()), 1)  # the kernel has it
        hung.let_go()
        wait_surely(lambda: not self.copiers(), 2, "it is gone, too")

    def test_that_its_pool_gives_up(self):
        """RETIRE while it is being read: the pool ends, another file is taken."""
        d = self.drover()
        hung = self.hang(d)
        d.write_pool("b", Plugin="hung", Workers=1)
        d.reload()
        self.assertTrue(hung.is_read())
        d.write_pool("b", Plugin="primes", Workers=1)
        d.reload()
        d.wait_state("b", "running", 5)
        d.pool_call("b", "Stop")
        d.wait_state("b", "stopped", 5)
        hung.let_go()
        wait_for(lambda: not self.copiers(), 5, "it is gone")
        self.stop_in_time(d)

    def test_many_at_once(self):
        """More than the copiers that there may be: the rest is told so, and what does not hang is loaded before and
        after."""
        d = self.drover()
        files = [self.hang(d, f"hung{i}") for i in range(17)]
        for i in range(17):
            d.write_pool(f"b{i}", Plugin=f"hung{i}", Workers=1)
        d.reload()
        wait_for(lambda: len(self.copiers()) == 16, 5, "sixteen are being read")
        d.write_pool("later", Plugin="primes", Workers=1)
        d.reload()
        wait_for(lambda: d.pool("later")["Problem"], PATIENCE_S + 5, "the others are told")
        self.assertIn("so many other files hang that it is not tried", d.pool("later")["Problem"])
        for f in files:
            f.let_go()
        wait_for(lambda: not self.copiers(), 5, "all are gone")
        d.pool_call("later", "Start")
        d.wait_state("later", "running", 5)
        self.stop_in_time(d)


@unittest.skipUnless(os.geteuid() == 0 and fuse.is_there(), "needs root and FUSE")
class HungJob(Test):
    """A worker that reads such a file for its job: nothing ends it before the file's server answers."""

    def setUp(self):
        self.d = Drover({"fds": {"Plugin": "fds", "Workers": 1, "HardTimeout": "300ms"}})
        self.d.__enter__()
        self.addCleanup(self.d.__exit__, None, None, None)
        self.hung = fuse.HungFile(f"{self.d.dir}/hung", f"{BUILD}/plugins/primes/primes.so")
        self.hung.__enter__()
        self.addCleanup(self.hung.__exit__)
        self.fd = os.open(self.hung.path, os.O_RDONLY)
        self.addCleanup(os.close, self.fd)
        self.c = Connection(self.d.bus.address)
        self.addCleanup(self.c.close)

    def cat(self, fd):
        return self.c.call("/org/drover1", "org.drover1.Manager", "Submit", "ssa{sv}a{sv}", b"fds", b"cat", 2, b"in",
                           b"h", fd, b"attempt",
                           b"t", u64(1), 0).read("to")[1]

    def hang(self):
        """The worker, when its job has the verdict."""
        worker = self.d.wait_workers("fds", 1)[0]
        path = self.cat(self.fd)
        self.assertTrue(self.hung.is_read())
        self.assertEqual(self.d.wait_job(path, 5), "timed-out")
        self.assertIn("its hard limit passed, its worker is being killed", self.d.result(path)["error"])
        self.assertEqual(stat_of(worker[3])[1], "D")
        return worker

    def state(self, worker):
        return next((w[4] for w in self.d.list_workers("fds") if w[0] == worker[0]), None)

    def test_verdict_and_state_are_true(self):
        worker = self.hang()
        self.assertEqual(self.state(worker), "quarantined")
        self.assertEqual(self.d.deaths("fds"), [])
        self.assertNotIn("died", self.d.log())
        with open(__file__, "rb") as f:  # another one has its place at once
            path = self.cat(f.fileno())
            self.assertEqual(self.d.wait_job(path, 5), "done")
        said = f"worker {worker[0]} (pid {worker[3]}) does not die of SIGKILL: it hangs in the kernel"
        wait_for(lambda: said in self.d.log(), 10, "the log says what hangs")
        self.assertEqual(self.state(worker), "quarantined")
        self.assertTrue(is_alive(worker[3]))
        self.d.pool_call("fds", "Stop")
        self.d.wait_state("fds", "stopped", 5)
        self.d.pool_call("fds", "Start")
        self.d.wait_state("fds", "running", 5)
        self.hung.let_go()
        death = wait_for(lambda: self.d.deaths("fds"), 5, "it is dead, and that is told")[0]
        self.assertEqual((death["worker"], death["reason"]), (worker[0], "time-limit"))
        self.assertIsNone(self.state(worker))
        self.assertEqual(self.d.log().count("does not die"), 1)
        self.assertEqual(self.d.stop(), 0)

    def test_the_end_is_not_held_up(self):
        worker = self.hang()
        begun = time.monotonic()
        self.assertEqual(self.d.stop(), 0)
        assert_in_time(time.monotonic() - begun, 15, "the service ends without it")
        wait_surely(lambda: [pid for pid, name in descendants().items() if name.startswith("dr")] == [worker[3]], 1,
                    "nothing else is left")
        self.hung.let_go()
        wait_surely(lambda: not is_alive(worker[3]), 2, "it is gone, too")

    def test_a_pool_can_go(self):
        """One that is removed goes on without it; its name can be another's."""
        worker = self.hang()
        self.d.remove_pool_file("fds")
        self.d.reload()
        self.d.write_pool("fds", Plugin="fds", Workers=1)
        self.d.reload()
        self.d.wait_state("fds", "running", 5)
        with open(__file__, "rb") as f:
            self.assertEqual(self.d.wait_job(self.cat(f.fileno()), 5), "done")
        self.assertTrue(is_alive(worker[3]))
        self.hung.let_go()
        wait_for(lambda: not is_alive(worker[3]), 5, "it is gone")
        self.assertEqual(self.d.stop(), 0)


@unittest.skipUnless(os.geteuid() == 0 and fuse.is_there(), "needs root and FUSE")
class HungJobs(Test):
    """As many of them as somebody likes, who is not root."""

    def cat(self, c, fd):
        return c.call("/org/drover1", "org.drover1.Manager", "Submit", "ssa{sv}a{sv}", b"fds", b"cat", 2, b"in", b"h",
                      fd, b"attempt", b"t",
                      u64(1), 0).read("to")[1]

    def test_hang_a_few_workers_only(self):
        d = Drover({"fds": {"Plugin": "fds", "Workers": 2, "HardTimeout": "100ms"}})
        d.__enter__()
        self.addCleanup(d.__exit__, None, None, None)
        os.chmod(d.dir, 0o711)
        hung = fuse.HungFile(f"{d.dir}/hung", f"{BUILD}/plugins/primes/primes.so", is_direct=True)
        hung.__enter__()
        self.addCleanup(hung.__exit__)
        fd = os.open(hung.path, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        hostile, honest = Connection(d.bus.address, HOSTILE), Connection(d.bus.address)
        self.addCleanup(hostile.close)
        self.addCleanup(honest.close)
        jobs = [self.cat(hostile, fd) for _ in range(100)]
        for job in jobs:
            self.assertIn(d.wait_job(job, 30), ("timed-out", "failed"))
        self.assertIn("too many workers hang in files that its submitter sent before", d.result(jobs[-1])["error"])
        n_hung = len([w for w in d.list_workers("fds") if w[4] == "quarantined"])
        self.assertGreaterEqual(n_hung, 16)
        self.assertLess(n_hung, 50)  # those that began in the half second before they counted
        with open(__file__, "rb") as f:
            self.assertEqual(d.wait_job(self.cat(honest, f.fileno()), 5), "done")
            self.assertEqual(d.wait_job(self.cat(hostile, f.fileno()), 5), "failed")
            hung.let_go()
            wait_for(lambda: len(d.list_workers("fds")) == 2, 10, "they are gone")
            self.assertEqual(d.wait_job(self.cat(hostile, f.fileno()), 5), "done")
        self.assertEqual(d.stop(), 0)


@unittest.skipUnless(os.geteuid() == 0 and fuse.is_there(), "needs root and FUSE")
class LeftBehind(Test):
    """systemd's spawner outlives its brokers, and what of them cannot be ended."""

    def start_spawner(self, d):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, open(f"{d.dir}/spawn-log", "wb") as log:
            listener.bind(f"{d.dir}/runtime/spawn")
            listener.listen(5)
            n = listener.fileno()
            p = subprocess.Popen(["sh", "-c", f'exec 3<&{n}; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"', "sh", SPAWN,
                                  f"--plugin-dir={d.plugin_dir}",
                                  f"--worker={WORKER}"], pass_fds=[n], stderr=log)
        self.addCleanup(p.wait)
        self.addCleanup(p.kill)
        return p

    def hang(self, d, name):
        hung = fuse.HungFile(f"{d.dir}/{name}", f"{BUILD}/plugins/primes/primes.so")
        hung.__enter__()
        self.addCleanup(hung.__exit__)
        worker = d.wait_workers("fds", 1, ("idle",))[0]
        with open(hung.path, "rb") as f, Connection(d.bus.address) as c:
            HungJobs.cat(self, c, f.fileno())
            self.assertTrue(hung.is_read())
        kill(d.pid)
        d.process.wait()
        return hung, worker

    def test_is_no_escapee_and_hides_no_signal(self):
        d = Drover({"fds": {"Plugin": "fds", "Workers": 1}}, args=["--system"])
        d.extra_env["DBUS_SYSTEM_BUS_ADDRESS"] = f"unix:path={d.dir}/bus"
        spawner = self.start_spawner(d)
        d.__enter__()
        self.addCleanup(lambda: d.tear_down(check=False))
        hung, worker = self.hang(d, "one")
        d.start()
        d.wait_state("fds", "running", 15)
        self.assertTrue(is_alive(worker[3]))
        hung.let_go()
        wait_for(lambda: not is_alive(worker[3]), 5, "it is gone")
        d.pool_call("fds", "Restart")  # more children end
        wait_for(lambda: d.wait_workers("fds", 1, ("idle",))[0][0] > 1, 10, "another worker")
        self.assertNotIn("escaped", d.log())
        hung, worker = self.hang(d, "two")
        spawner.terminate()
        self.assertEqual(spawner.wait(10 * PATIENCE), 0)
        with open(f"{d.dir}/spawn-log", encoding="utf-8") as f:
            self.assertEqual(f.read().count("processes that do not die of SIGKILL, because they hang in the kernel: 1"),
                             2)
        hung.let_go()
        wait_for(lambda: not is_alive(worker[3]), 5, "it is gone")


class HungSpawner(Test):
    """It is stopped here; it could hang where it runs drover-worker."""

    def setUp(self):
        self.d = Drover({"a": {"Plugin": "sleep", "Workers": 1, "HardTimeout": "100ms", "KillGraceSec": "1s"}})
        self.d.__enter__()
        self.addCleanup(self.d.__exit__, None, None, None)
        self.spawner = self.d.spawner()
        kill(self.spawner, signal.SIGSTOP)

    def test_is_replaced(self):
        path = self.d.submit("a", "sleep", ms=60000)[1]
        self.assertEqual(self.d.wait_job(path, 5), "timed-out")
        wait_for(lambda: not is_alive(self.spawner), 25, "who does not answer is killed")
        self.assertIn("spawner: it does not answer", self.d.log())
        wait_for(lambda: self.d.list_workers("a") and self.d.wait_workers("a", 1), 10, "another one starts workers")
        self.assertEqual(self.d.run("a", "sleep", ms=1), {"ms": 1})
        self.assertEqual(self.d.stop(), 0)

    def test_does_not_hold_up_the_end(self):
        begun = time.monotonic()
        self.assertEqual(self.d.stop(), 0)
        assert_in_time(time.monotonic() - begun, 30, "droverd ends without it")


class SilentSpawner(Test):
    def test_is_told_and_does_not_hold_up_the_end(self):
        d = Drover({"a": {"Plugin": "sleep", "Workers": 1}}, wait=False)
        path = f"{d.dir}/libexec/drover-spawn"
        os.unlink(path)
        with open(path, "w", encoding="utf-8") as f:
            f.write("#!/bin/sh\nexec sleep 1000\n")
        os.chmod(path, 0o755)
        with d:
            wait_for(lambda: "no drover-spawn that answers" in d.pool("a")["Problem"], 5,
                     "its pools say what is missing")
            begun = time.monotonic()
            self.assertEqual(d.stop(), 0)
            assert_in_time(time.monotonic() - begun, 15, "droverd ends without it")


class Unanswered:
    """droverd --system, with somebody behind systemd's socket who does not answer."""

    def __init__(self, backlog):
        self.stack = contextlib.ExitStack()
        self.dir = self.stack.enter_context(tempfile.TemporaryDirectory())
        bus = Bus(self.dir)
        self.stack.callback(bus.stop)
        listener = self.socket()
        listener.bind(f"{self.dir}/spawn")
        listener.listen(0)
        for _ in range(backlog):  # so many others wait already
            self.socket().connect(f"{self.dir}/spawn")
        os.mkdir(f"{self.dir}/config")
        self.process = subprocess.Popen([DROVERD, "--system", f"--address={bus.address}",
                                         f"--config-dir={self.dir}/config",
                                         f"--runtime-dir={self.dir}", f"--state-dir={self.dir}/state"],
                                        stderr=subprocess.PIPE, text=True)
        self.stack.enter_context(self.process)
        self.stack.callback(self.process.kill)

    def socket(self):
        return self.stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))


class NoSpawner(Test):
    def test_does_not_hold_up_the_start(self):
        """Both at once, for they take their time."""
        full, silent = Unanswered(1), Unanswered(0)
        self.addCleanup(full.stack.close)
        self.addCleanup(silent.stack.close)
        for unanswered, words in ((full,
                                   r"no spawner at .*/spawn: it takes no connection \(systemctl restart "
                                   r"drover-spawn.service\)"),
                                  (silent, "spawner: it has not said hello")):
            self.assertEqual(unanswered.process.wait(60 * PATIENCE), 1)
            self.assertRegex(unanswered.process.stderr.read(), words)


if __name__ == "__main__":
    main()
