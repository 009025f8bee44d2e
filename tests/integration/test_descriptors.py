"""Descriptors with jobs and results, payloads and results larger than a slot, and who sends what he should not."""

import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import tempfile
from contextlib import ExitStack

from harness import BUILD, DROVERCTL, IS_SANITIZED, PATIENCE, Drover, Test, fds_of, kill, main, wait_for
from sdbus import Connection

LIBRARY = f"{BUILD}/tests/library/library"
CLIENT = f"{BUILD}/tests/integration/fds-client"
DONE, FAILED = 5, 6


def memory_file(size):
    """A sealed one, of zeros."""
    fd = os.memfd_create("payload", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return fd


def pss_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("Pss:"))


class Base(Test):
    def case(self, d, name):
        program = subprocess.run([LIBRARY, name], env=d.env(), text=True, capture_output=True, timeout=60 * PATIENCE,
                                 check=False)
        self.assertEqual(program.returncode, 0, program.stderr)

    def client(self, d, pool, case, **popen):
        return subprocess.Popen([CLIENT, pool, case], env=d.env(), text=True,
                                **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, **popen})

    @staticmethod
    def fds(d):
        return len(os.listdir(f"/proc/{d.pid}/fd"))

    @staticmethod
    def n_of_clients(d):
        """Memory files of fds-client."""
        return sum(target.startswith("/memfd:fds-client") for target in fds_of(d.pid).values())

    def wait_fds(self, d, n):
        wait_for(lambda: self.fds(d) <= n, 10, f"the broker has its {n} descriptors and no more")


class Honest(Base):
    @classmethod
    def setUpClass(cls):
        cls.drover = Drover({"fds": {"Plugin": "fds", "Workers": 1, "Slots": 16, "MaxAttempts": 5}})
        cls.d = cls.drover.__enter__()
        cls.n_fds = cls.fds(cls.d)

    @classmethod
    def tearDownClass(cls):
        cls.drover.__exit__(None, None, None)

    def tearDown(self):
        self.wait_fds(self.d, self.n_fds)

    def test_there_and_back(self):
        self.case(self.d, "fds")
        self.case(self.d, "fds-and-numbers")

    def test_a_retry_gets_the_same(self):
        self.case(self.d, "fds-retry")

    def test_they_go_with_the_verdict(self):
        self.case(self.d, "fds-let-go")

    def test_larger_than_a_slot(self):
        self.case(self.d, "large")

    def test_memory_files_are_not_copied(self):
        self.case(self.d, "memory-files")

    def test_many_at_once(self):
        self.case(self.d, "many-fds")


class ManyResults(Base):
    def test_results_wait_for_room_before_the_work(self):
        with Drover({"fds": {"Plugin": "fds", "Workers": 1}}) as d:
            n_fds = self.fds(d)
            self.case(d, "many-fd-results")
            self.case(d, "map-of-fd-results")
            self.assertEqual(d.pool("fds")["Failed"], 0)
            self.wait_fds(d, n_fds)


class FullTable(Base):
    """The client's own table of descriptors."""

    def test_a_moment_without_free_descriptors_breaks_nothing(self):
        with Drover({name: {"Plugin": "fds", "Workers": 1} for name in ("fds", "more")}) as d:
            self.case(d, "no-descriptors")


class SharedInput(Base):
    def test_row_77_one_array_for_four_workers(self):
        with Drover({"four": {"Plugin": "fds", "Workers": 4}}) as d:
            program = subprocess.Popen([LIBRARY, "shared-array"], env=d.env(), text=True, stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE)
            self.assertEqual(program.stdout.readline(), "ready\n")
            workers = [row[3] for row in d.list_workers("four")]
            self.assertEqual(len(workers), 4)
            pss = [pss_kib(pid) for pid in (*workers, d.pid, program.pid)]
            _, err = program.communicate("\n", timeout=60 * PATIENCE)
            self.assertEqual(program.returncode, 0, err)
            for worker in pss[:4]:
                self.assertGreater(worker, 40 * 1024)  # each has it mapped
            if not IS_SANITIZED:
                self.assertLess(sum(pss), 1.2 * 256 * 1024, pss)


class OverTheBus(Base):
    def test_there_and_back(self):
        with Drover({"fds": {"Plugin": "fds", "Workers": 1, "Slots": 16, "ResultTTL": "2s"}}) as d:
            n_fds = self.fds(d)
            self.case(d, "fds-bus")
            self.case(d, "fds-for-nobody")
            self.wait_fds(d, n_fds)

    def test_descriptors_of_results_are_kept_within_a_budget(self):
        with Drover({"fds": {"Plugin": "fds", "Workers": 1}}) as d:
            n_fds = self.fds(d)
            with Connection(d.bus.address) as c, open("/dev/null", "rb") as null:
                for i in range(1100):  # two each: over the 2,048 that one uid may keep
                    reply = c.call("/org/drover1", "org.drover1.Manager", "Submit", "ssa{sv}a{sv}", b"fds", b"make",
                                   2, b"in", b"h", null.fileno(), b"text", b"s", b"hello", 0)
                    if i % 100 == 99:  # 256 queued ones are as many as may be, and a loaded machine is slow
                        d.wait_job(reply.read("to")[1])
            self.wait_fds(d, n_fds + 2048)
            self.assertGreater(self.fds(d), 1024)

    def test_a_result_that_is_too_much_by_itself_costs_others_nothing(self):
        with Drover({"fds": {"Plugin": "fds", "Workers": 1}}) as d:
            small = d.submit("fds", "large", n=1)[1]
            d.wait_job(small)
            large = d.submit("fds", "large", n=40_000_000)[1]
            d.wait_job(large)
            self.assertEqual(d.result(small)["result"]["n"], 1)
            with self.assert_error("ResultExpired", large.rpartition("/")[2], "40000", "33554432 bytes", "a channel"):
                d.result(large)

    def test_results_that_the_bus_does_not_carry(self):
        """Each ends in one error that names its bound: typed ones end at 16 MiB, all that are kept at 32; Run hands
        over a raw one."""
        with Drover({"fds": {"Plugin": "fds", "Workers": 1}, "jobs": {"Plugin": "jobs", "Workers": 1}}) as d:
            self.assertEqual(d.run("fds", "large", n=1 << 20)["n"], 1 << 20)
            if not IS_SANITIZED:  # whose calloc touches all of it
                with self.assert_error("Failed", "larger than 1073741824 bytes"):
                    d.run("jobs", "big", bytes=1 << 30)
            with self.assert_error("LimitsExceeded", "16777216 bytes", "a channel"):
                d.run("fds", "large", n=17 << 20)
            # a bus cuts off who sends it 32 MiB
            with self.assert_error("LimitsExceeded", "32505856 bytes", "a channel"):
                d.run("fds", "count", n=5_000_000)
            job = d.submit("fds", "large", n=17 << 20)[1]
            self.assertEqual(d.wait_job(job), "done")
            with self.assert_error("LimitsExceeded", "16777216 bytes", "a channel"):
                d.result(job)
            size = 33 << 20
            with Connection(d.bus.address) as c, open(memory_file(size), "rb") as payload:
                words = ("ssa{sv}a{sv}", b"fds", b"raw", 1, b"payload", b"h", payload.fileno(), 0)
                reply = c.call("/org/drover1", "org.drover1.Manager", "Run", *words)
                reply.enter("a", "{sv}")
                reply.enter("e", "sv")
                self.assertEqual(reply.read("s"), ["payload"])
                reply.enter("v", "h")
                self.assertEqual(os.fstat(reply.read("h")[0]).st_size, size)
                del reply  # and its descriptor
                job = c.call("/org/drover1", "org.drover1.Manager", "Submit", *words).read("to")[1]
                self.assertEqual(d.wait_job(job), "done")
                with self.assert_error("ResultExpired", job.rpartition("/")[2], f"{size} bytes", "33554432 bytes",
                                       "Run"):
                    d.result(job)

    def test_files_of_droverctl(self):
        with Drover({"fds": {"Plugin": "fds", "Workers": 1}}) as d, tempfile.TemporaryDirectory() as there:
            with open(f"{there}/in", "w", encoding="utf-8") as f:
                f.write("what is in the file")
            r = d.ctl("call", "fds", "cat", f"in=<{there}/in", "attempt=1")
            self.assertEqual((r.stdout, r.stderr), ('text="what is in the file"\n', ""))
            r = d.ctl("call", "fds", "print", "text=hello", f"out=>{there}/out", "waits=false")
            self.assertEqual(r.returncode, 0, r.stderr)
            with open(f"{there}/out", encoding="utf-8") as f:
                self.assertEqual(f.read(), "hello")
            r = d.ctl("call", "fds", "cat", f"in=<{there}/none", "attempt=1")
            self.assertEqual(r.returncode, 2)
            self.assertIn(f"{there}/none", r.stderr)
            r = d.ctl("call", "fds", "cat", f"in={there}/in", "attempt=1")
            self.assertIn("<FILE or >FILE", r.stderr)
            r = d.ctl("call", "fds", "make", f"in=<{there}/in", "text=hello", "-o", f"pipe={there}/pipe", "-o",
                      f"back={there}/back")
            self.assertEqual((r.returncode, r.stdout, r.stderr), (0, "", ""))
            for name, text in (("pipe", "hello"), ("back", "what is in the file")):
                with open(f"{there}/{name}", encoding="utf-8") as f:
                    self.assertEqual(f.read(), text)
            r = d.ctl("call", "fds", "make", f"in=>{there}/back", "text=hello", "-o", f"back={there}/pipe")
            self.assertEqual(r.returncode, 5)
            self.assertIn("cannot be read", r.stderr)
            # Larger than a slot, there and back.
            text = "0123456789" * 10000
            r = d.ctl("call", "fds", "raw", "--input=-", input=text)
            self.assertEqual(r.stdout, text)
            r = d.ctl("call", "fds", "large", "n=10000", "--json=short")
            self.assertIn('"end":"end"', r.stdout)

    def test_inputs_of_droverctl_beyond_any_slot(self):
        """From a file and through a pipe, there and back as memory files; a byte more than the bound has one error."""
        with Drover({"fds": {"Plugin": "fds", "Workers": 1}}) as d, tempfile.TemporaryDirectory() as there:
            n_fds, data = self.fds(d), bytes(range(251)) * 80000
            with open(f"{there}/in", "wb") as f:
                f.write(data)
            for source, piped in ((f"{there}/in", None), ("-", data.decode("latin-1"))):
                with open(f"{there}/in", encoding="latin-1", newline="") if piped else open(os.devnull,
                                                                                            encoding="ascii") as stdin:
                    r = subprocess.run([DROVERCTL, "--user", "call", "fds", "raw", f"--input={source}",
                                        f"--output=payload={there}/out"],
                                       env=d.env(), stdin=stdin, capture_output=True, text=True, timeout=60 * PATIENCE,
                                       check=False)
                self.assertEqual((r.returncode, r.stderr), (0, ""))
                with open(f"{there}/out", "rb") as f:
                    self.assertTrue(f.read() == data)
                os.unlink(f"{there}/out")
            with open(f"{there}/in", "wb") as f:
                f.truncate((1 << 30) + 1)
            r = d.ctl("call", "fds", "raw", f"--input={there}/in")
            self.assertEqual((r.returncode, r.stdout), (2, ""))
            self.assertIn("at most 1073741824 bytes (1 GiB)", r.stderr)
            r = d.ctl("call", "fds", "echo", f"data=@{there}/in", "numbers=1")
            self.assertEqual(r.returncode, 2)
            self.assertIn("does not fit into a slot of 1048576 bytes", r.stderr)
            self.wait_fds(d, n_fds + 2)  # the two results

    def test_a_long_input_that_killed_its_worker_is_a_capsule(self):
        with Drover({"fds": {"Plugin": "fds", "Workers": 1,
                             "MaxAttempts": 2}}) as d, tempfile.TemporaryDirectory() as there:
            r = d.ctl("call", "fds", "die", "--input=-", input="." * 99999 + "x")
            self.assertIn("poisoned", r.stderr)
            row = wait_for(lambda: next(iter(json.loads(d.ctl("list-capsules", "--json=short").stdout)), None), 10,
                           "the capsule is written")
            self.assertEqual(row["payload-bytes"], 100000)
            self.assertRegex(d.log(), rf"drover-worker --replay {row['id']} --state-dir=/")
            # What came with descriptors leaves none.
            with open(f"{there}/in", "w", encoding="utf-8"):
                pass
            self.assertIn("poisoned", d.ctl("call", "fds", "cat", f"in=<{there}/in", "attempt=9").stderr)
            self.assertEqual(len(json.loads(d.ctl("list-capsules", "--json=short").stdout)), 1)
            wait_for(lambda: "leaves no capsule: it came with descriptors" in d.log(), 10, "the log says so")

    def test_what_is_no_memory_file_is_named(self):
        with Drover({"fds": {"Plugin": "fds", "Workers": 1, "Slots": 16}}) as d:
            n_fds = self.fds(d)
            with Connection(d.bus.address) as c, open("/dev/null", "rb") as null, open(memory_file((1 << 30) + 1),
                                                                                       "rb") as large:
                for name, value in ((b"raw", (b"payload", b"h", null.fileno())),
                                    (b"raw", (b"payload", b"h", large.fileno())),
                                    (b"cat", (b"in", b"h", null.fileno()))):
                    cookie = c.send("/org/drover1", "org.drover1.Manager", "Run", "ssa{sv}a{sv}", b"fds", name, 1,
                                    *value, 0)
                    answer = c.wait(lambda m: m.reply_cookie == cookie)
                    self.assertEqual(answer.error.name, "org.freedesktop.DBus.Error.InvalidArgs")
                    self.assertIn("of 1 to 1073741824 bytes that is sealed" if name == b"raw" else "attempt",
                                  answer.error.text)
            self.wait_fds(d, n_fds)


class HostileClients(Base):
    def test_nonsense_costs_the_session(self):
        with Drover({"fds": {"Plugin": "fds", "Workers": 1, "Slots": 16}}) as d:
            n_fds = self.fds(d)
            for case in ("unsealed", "half-sealed", "future-write", "shorter", "no-memory", "no-such-slot", "twice",
                         "fds-with-a-question",
                         "rubbish", "asks"):
                with self.subTest(case):
                    self.assertEqual(self.client(d, "fds", case).communicate(timeout=30)[0], "dropped\n")
                    self.assertIn("what makes no sense", d.log())
            self.wait_fds(d, n_fds)
            self.case(d, "fds")

    def test_descriptors_that_are_not_there_fail_the_job(self):
        with Drover({"fds": {"Plugin": "fds", "Workers": 1, "Slots": 16}}) as d:
            for case, words in (("none-came", "did not come"), ("too-few-came", "arguments")):
                out = self.client(d, "fds", case).communicate(timeout=30)[0]
                self.assertTrue(out.startswith(f"{FAILED} "), out)
                self.assertIn(words, out)

    def test_those_that_the_broker_has_not_read_yet(self):
        with Drover({"fds": {"Plugin": "fds", "Workers": 1, "Slots": 16}}) as d:
            client = self.client(d, "fds", "late")
            self.assertEqual(client.stdout.readline(), "ready\n")
            os.kill(d.pid, signal.SIGSTOP)
            try:
                client.stdin.write("\n")
                client.stdin.flush()
                self.assertEqual(client.stdout.readline(), "sent\n")
            finally:
                os.kill(d.pid, signal.SIGCONT)
            self.assertTrue(client.communicate(timeout=30)[0].startswith(f"{DONE} "))

    def test_descriptors_without_a_job_are_bounded_and_go_with_the_client(self):
        with Drover({"fds": {"Plugin": "fds", "Workers": 1, "Slots": 16}}) as d:
            n_fds = self.fds(d)
            client = self.client(d, "fds", "no-push")
            self.assertEqual(client.stdout.readline(), "ready\n")
            # 16 slots: 64 at most, and the session's own.
            wait_for(lambda: d.pool("fds")["State"] == "running", 10)
            self.wait_fds(d, n_fds + 64 + 8)
            kill(client.pid)
            client.communicate()
            self.wait_fds(d, n_fds)

    def test_those_of_jobs_whose_end_was_said_in_vain(self):
        with Drover({"fds": {"Plugin": "fds", "Workers": 1, "Slots": 16}}) as d:
            client = self.client(d, "fds", "ended-in-vain")
            self.assertEqual(client.stdout.readline(), "ready\n")
            client.stdin.write("\n")
            client.stdin.flush()
            self.assertEqual(client.stdout.readline(), "ready\n")
            wait_for(lambda: self.n_of_clients(d) == 8, 10, "the broker has those of all jobs")
            os.kill(d.pid, signal.SIGSTOP)
            try:
                client.stdin.write("\n")
                client.stdin.flush()
                self.assertEqual(client.stdout.readline(), "sent\n")
            finally:
                os.kill(d.pid, signal.SIGCONT)
            wait_for(lambda: self.n_of_clients(d) == 0, 10, "the broker has found out")
            kill(client.pid)
            client.communicate()

    def test_those_of_a_result_go_when_it_is_handed_over(self):
        with Drover({"fds": {"Plugin": "fds", "Workers": 1, "Slots": 16}}) as d:
            client = self.client(d, "fds", "unfetched")
            self.assertEqual(client.stdout.readline(), "ready\n")
            client.stdin.write("\n")
            client.stdin.flush()
            self.assertEqual(client.stdout.readline(), "found\n")
            wait_for(lambda: self.n_of_clients(d) == 0, 10, "the broker has none of the job's, nor of its result's")
            kill(client.pid)
            client.communicate()

    def test_a_killed_client(self):
        with Drover({"fds": {"Plugin": "fds", "Workers": 1, "Slots": 16}}) as d:
            n_fds = self.fds(d)
            client = self.client(d, "fds", "hang")
            self.assertEqual(client.stdout.readline(), "ready\n")
            wait_for(lambda: d.pool("fds")["Running"] == 1, 10, "one of its jobs runs")
            self.assertGreater(self.fds(d), n_fds + 8)
            kill(client.pid)
            client.communicate()
            wait_for(lambda: d.pool("fds")["Running"] + d.pool("fds")["Queued"] == 0, 10, "nothing is left of it")
            self.wait_fds(d, n_fds)
            self.case(d, "fds")

    def test_a_worker_killed_in_the_middle(self):
        with Drover({"fds": {"Plugin": "fds", "Workers": 1, "Slots": 16}}) as d:
            n_fds = self.fds(d)
            client = self.client(d, "fds", "hang")
            self.assertEqual(client.stdout.readline(), "ready\n")
            for _ in range(2):
                worker = wait_for(lambda: next((row[3] for row in d.list_workers("fds") if row[4] == "running"), 0), 10,
                                  "a worker runs it")
                kill(worker)
                wait_for(lambda: all(row[3] != worker for row in d.list_workers("fds")), 10, "it is replaced")
            self.assertEqual(d.pool("fds")["Retried"], 2)
            kill(client.pid)
            client.communicate()
            self.wait_fds(d, n_fds)


class Lingering:
    """A socket whose last close waits for ten minutes, or until __exit__."""

    def __enter__(self):
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            self.socket = socket.socket()
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            self.socket.connect(listener.getsockname())
            self.peer = listener.accept()[0]
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 600))
        self.socket.setblocking(False)
        self.inode = f"socket:[{os.fstat(self.socket.fileno()).st_ino}]"
        try:
            while True:
                self.socket.send(b"x" * 65536)
        except BlockingIOError:
            return self

    def __exit__(self, *_):
        self.peer.close()
        self.socket.close()

    def is_held_by(self, pid):
        return self.inode in fds_of(pid).values()


class SlowCloses(Base):
    """Whoever sends a descriptor whose close takes for ever keeps nobody waiting but himself."""

    def check_goes_on(self, d):
        self.assertEqual(d.pool("fds")["State"], "running")
        self.case(d, "fds-let-go")

    def test_of_a_session(self):
        with Drover({"fds": {"Plugin": "fds", "Workers": 1, "Slots": 16}}) as d:
            n_fds = self.fds(d)
            for case in ("no-push", "second", "too-many", "nonsense-first"):
                with self.subTest(case), Lingering() as slow:
                    client = self.client(d, "fds", case, stdin=slow.socket)
                    self.assertEqual(client.stdout.readline(), "ready\n")
                    os.kill(d.pid, signal.SIGSTOP)  # so that its references are the last ones
                    try:
                        if case != "no-push":
                            client.send_signal(signal.SIGUSR1)
                            self.assertEqual(client.stdout.readline(), "sent\n")
                        kill(client.pid)
                        client.communicate()
                        slow.socket.close()
                    finally:
                        os.kill(d.pid, signal.SIGCONT)
                    self.check_goes_on(d)
            self.wait_fds(d, n_fds)

    def test_over_the_bus(self):
        with Drover({"fds": {"Plugin": "fds", "Workers": 1, "Slots": 16}}) as d, ExitStack() as stack:
            n_fds = self.fds(d)
            c = stack.enter_context(Connection(d.bus.address))
            # one less than a uid has threads: we are the same
            many = [stack.enter_context(Lingering()) for _ in range(3)]
            os.kill(d.pid, signal.SIGSTOP)
            try:
                for i, slow in enumerate(many):
                    what = (b"cat", 1, b"in", b"h", slow.socket.fileno(), 0)  # no `attempt`: refused
                    if i % 2:
                        c.send("/org/drover1", "org.drover1.Manager", "Submit", "ssa{sv}a{sv}", b"fds", *what)
                    else:
                        c.send("/org/drover1", "org.drover1.Manager", "NoSuchMethod", "h", slow.socket.fileno())
                    slow.socket.close()
                    wait_for(lambda s=slow: not s.is_held_by(d.bus.process.pid), 10, "the bus has passed it on")
            finally:
                os.kill(d.pid, signal.SIGCONT)
            self.check_goes_on(d)
            self.assertGreater(len(os.listdir(f"/proc/{d.pid}/task")), len(many))  # each is waited for, by somebody
            for slow in many:
                slow.peer.close()
            self.wait_fds(d, n_fds)


class HostileWorkers(Base):
    def test_results_that_are_none_cost_the_worker(self):
        with Drover({"fds-hostile": {"Plugin": "fds-hostile", "Workers": 1, "MaxAttempts": 2}}) as d:
            n_fds = self.fds(d)
            for job in ("pipe", "no_room", "question"):
                with self.subTest(job):
                    with self.assert_error("Poisoned", job):
                        d.run("fds-hostile", job)
            self.assertIn("a report that makes no sense", d.log())
            with self.assert_error("Failed", "refused"):
                d.run("fds-hostile", "of_others")
            self.case(d, "foreign-fd")
            d.wait_workers("fds-hostile", 1)
            self.wait_fds(d, n_fds)


if __name__ == "__main__":
    main()
