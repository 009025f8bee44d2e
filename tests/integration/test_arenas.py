"""Arenas: handed out by name on the bus and to workers; cycles of waits are named and broken; the examples that share something.

Holders that are killed while others wait: test_deaths.py."""

import ctypes
import json
import mmap
import os
import subprocess
import sys

import harness
from harness import MANAGER, Drover, Test, kill, wait_for, worker_of
from sdbus import Connection, _lib, u64

NOBODY = 65534
METHODS = ("forkserver", "spawn", "fork")


def open_arena(connection, name, size=None):
    """(fd, bytes, created) as the reply has them; the descriptor is the caller's."""
    if size is None:
        m = connection.call(*MANAGER, "OpenArena", "sa{sv}", name.encode(), 0)
    else:
        m = connection.call(*MANAGER, "OpenArena", "sa{sv}", name.encode(), 1, b"bytes", b"t", u64(size))
    found = {}
    assert _lib.sd_bus_message_enter_container(m.handle, ctypes.c_char(b"a"), b"{sv}") > 0
    while _lib.sd_bus_message_enter_container(m.handle, ctypes.c_char(b"e"), b"sv") > 0:
        key = m.read("s")[0]
        kind = {"memory": "h", "bytes": "t", "created": "b"}[key]
        value = ctypes.c_uint64()
        assert _lib.sd_bus_message_enter_container(m.handle, ctypes.c_char(b"v"), kind.encode()) > 0
        assert _lib.sd_bus_message_read_basic(m.handle, ctypes.c_char(kind.encode()), ctypes.byref(value)) > 0
        found[key] = value.value
        for _ in range(2):
            _lib.sd_bus_message_exit_container(m.handle)
    return os.dup(found["memory"]), found["bytes"], bool(found["created"])


class OnTheBus(Test):
    @classmethod
    def setUpClass(cls):
        cls.d = Drover({"w": {"Plugin": "arenas", "Workers": 2, "StartMethod": "fork", "MaxAttempts": 1}})
        cls.d.__enter__()
        os.chmod(cls.d.dir, 0o711)  # so that nobody reaches the bus

    @classmethod
    def tearDownClass(cls):
        cls.d.__exit__(None, None, None)

    def connect(self, uid=None):
        c = Connection(self.d.bus.address, uid)
        self.addCleanup(c.close)
        return c

    def objects(self, arena):
        return {o["name"]: o for o in self.d.call(*MANAGER, "ListObjects", "s", arena) or []}

    def remove(self, arena):
        self.d.call(*MANAGER, "RemoveArena", "s", arena)

    def test_same_memory_by_name(self):
        a, b = self.connect(), self.connect()
        fd1, size, created = open_arena(a, "same", 8192)
        fd2, size2, created2 = open_arena(b, "same")
        try:
            self.assertEqual((size, created, size2, created2), (8192, True, 8192, False))
            self.assertEqual(os.fstat(fd1).st_ino, os.fstat(fd2).st_ino)
            self.assertGreater(os.fstat(fd1).st_size, size)
        finally:
            os.close(fd1)
            os.close(fd2)
        with self.assert_error("InvalidArgs", "same", "8192"):
            a.call(*MANAGER, "OpenArena", "sa{sv}", b"same", 1, b"bytes", b"t", u64(10000))
        self.remove("same")
        with self.assert_error("NoSuchArena", "same"):
            self.remove("same")
        fd3, _, created3 = open_arena(a, "same")
        os.close(fd3)
        self.assertTrue(created3)
        self.remove("same")

    def test_the_memory_outlives_the_name(self):
        c = self.connect()
        fd, size, _ = open_arena(c, "outlives")
        with mmap.mmap(fd, os.fstat(fd).st_size) as memory:
            memory[-1] = 7
            self.remove("outlives")
            self.assertEqual(memory[-1], 7)
            fd2, _, created = open_arena(c, "outlives", size)
            self.assertTrue(created)
            self.assertNotEqual(os.fstat(fd).st_ino, os.fstat(fd2).st_ino)
            os.close(fd2)
        os.close(fd)
        self.remove("outlives")

    def test_arenas_are_listed_and_a_transient_one_ends_with_its_last_process(self):
        code = ("import sys; sys.path.insert(0, %r); import test_arenas as t; c = t.Connection(%r); "
                "[c.call(*t.MANAGER, 'OpenArena', 'sa{sv}', b'brief', 1, b'transient', b'b', ctypes.c_int(1)) for ctypes in [t.ctypes]]; "
                "t.open_arena(c, 'stays'); print('ready', flush=True); sys.stdin.read()" % (os.path.dirname(os.path.abspath(__file__)), self.d.bus.address))
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as p:
            self.assertEqual(p.stdout.readline(), "ready\n")
            listed = {a["name"]: a for a in self.d.call(*MANAGER, "ListArenas")}
            self.assertEqual([listed[name]["transient"] for name in ("brief", "stays")], [True, False])
            self.assertEqual([listed["brief"][key] for key in ("uid", "bytes", "objects", "max-objects", "attached", "max-attached", "processes")],
                             [os.getuid(), 1 << 20, 0, 256, 1, 256, 1])
            p.communicate("")
        wait_for(lambda: "brief" not in {a["name"] for a in self.d.call(*MANAGER, "ListArenas")}, 10, "it ends with its process")
        rows = {row.split()[0]: row for row in self.d.ctl("list-arenas").stdout.splitlines()}
        self.assertNotIn("brief", rows)
        self.assertRegex(rows["stays"], r" 0/256 .* 0/256 .* 0 .*when removed")
        self.assertEqual(self.d.ctl("remove-arena", "nowhere", "stays").returncode, 4)
        self.assertNotIn("stays", self.d.ctl("list-arenas").stdout)

    def test_the_number_of_objects_is_part_of_opening_an_arena(self):
        c = self.connect()
        c.call(*MANAGER, "OpenArena", "sa{sv}", b"many", 1, b"objects", b"u", ctypes.c_uint32(65536))
        with self.assert_error("InvalidArgs", "objects", "65537"):
            c.call(*MANAGER, "OpenArena", "sa{sv}", b"more", 1, b"objects", b"u", ctypes.c_uint32(65537))
        os.close(open_arena(c, "many")[0])
        self.assertEqual(self.d.run("w", "put", arena="many", name="q"), {"outcome": "0"})
        self.assertEqual(self.d.run("w", "put", arena="many", name="r"), {"outcome": "0"})
        listed = {a["name"]: a for a in self.d.call(*MANAGER, "ListArenas")}
        self.assertEqual([listed["many"][key] for key in ("objects", "max-objects", "max-attached")], [2, 65536, 256])
        pages, cursor = [], ""
        while not pages or cursor:
            page, cursor = self.d.call(*MANAGER, "ListObjectsFrom", "ssu", "many", cursor, 1)
            pages.append([o["name"] for o in page])
        self.assertEqual([p for p in pages if p], [["q"], ["r"]])
        self.assertEqual([o["name"] for o in json.loads(self.d.ctl("list-objects", "many", "--json=short").stdout)], ["q", "r"])
        for cursor in ("x", "-1", "65537"):
            with self.assert_error("InvalidArgs", "cursor"):
                self.d.call(*MANAGER, "ListObjectsFrom", "ssu", "many", cursor, 1)
        os.close(open_arena(c, "few")[0])
        with self.assert_error("InvalidArgs", "objects=257"):
            c.call(*MANAGER, "OpenArena", "sa{sv}", b"few", 1, b"objects", b"u", ctypes.c_uint32(257))
        self.remove("many")
        self.remove("few")

    def test_the_number_of_processes_is_part_of_opening_an_arena(self):
        c = self.connect()
        c.call(*MANAGER, "OpenArena", "sa{sv}", b"crowd", 1, b"processes", b"u", ctypes.c_uint32(3))
        listed = {a["name"]: a for a in self.d.call(*MANAGER, "ListArenas")}
        self.assertEqual(listed["crowd"]["max-attached"], 3)
        with self.assert_error("InvalidArgs", "processes=4"):
            c.call(*MANAGER, "OpenArena", "sa{sv}", b"crowd", 1, b"processes", b"u", ctypes.c_uint32(4))
        with self.assert_error("InvalidArgs", "4097"):
            c.call(*MANAGER, "OpenArena", "sa{sv}", b"hall", 1, b"processes", b"u", ctypes.c_uint32(4097))
        self.remove("crowd")

    def test_a_worker_opens_one_with_options(self):
        def of_worker():
            return {a["name"]: a for a in self.d.call(*MANAGER, "ListArenas")}.get("sized")
        self.assertEqual(self.d.run("w", "sized", arena="sized", objects=3000, processes=300), {"outcome": "0"})
        self.assertEqual([of_worker()[key] for key in ("max-objects", "max-attached", "transient")], [3000, 300, True])
        self.assertEqual(self.d.run("w", "sized", arena="sized", objects=3001, processes=0), {"outcome": "EINVAL"})
        self.assertEqual(self.d.run("w", "sized", arena="sized", objects=0, processes=301), {"outcome": "EINVAL"})
        self.assertEqual(self.d.run("w", "sized", arena="vast", objects=65537, processes=0), {"outcome": "EINVAL"})
        self.assertEqual(self.d.run("w", "sized", arena="vast", objects=0xffffffff, processes=0), {"outcome": "EINVAL"})
        self.assertEqual(self.d.run("w", "sized", arena="vast", objects=0, processes=4097), {"outcome": "EINVAL"})
        for worker in self.d.call(*MANAGER, "ListWorkers"):
            kill(worker[3])
        wait_for(lambda: of_worker() is None, 10, "it ends with the last worker that opened it")

    def test_bad_requests(self):
        for name in ("", "a/b", "x" * 65, "ä"):
            with self.assert_error("InvalidArgs", "arena name"):
                self.d.call(*MANAGER, "OpenArena", "sa{sv}", name, 0)
        with self.assert_error("InvalidArgs", "colour"):
            self.d.call(*MANAGER, "OpenArena", "sa{sv}", "bad", 1, "colour", "s", "red")
        with self.assert_error("InvalidArgs", "bytes"):
            self.d.call(*MANAGER, "OpenArena", "sa{sv}", "bad", 1, "bytes", "t", 1 << 33)
        for member in ("ListObjects", "RemoveArena"):
            with self.assert_error("NoSuchArena", "nowhere"):
                self.d.call(*MANAGER, member, "s", "nowhere")

    def test_a_share_of_4_gib(self):
        c = self.connect()
        os.close(open_arena(c, "half", 3 << 30)[0])
        with self.assert_error("LimitsExceeded"):
            open_arena(c, "other", 3 << 30)
        self.remove("half")
        with self.assert_error("LimitsExceeded"):  # this process may have it mapped
            open_arena(c, "other", 3 << 30)
        code = ("import sys; sys.path.insert(0, %r); import test_arenas as t; c = t.Connection(%r); "
                "t.open_arena(c, 'third', 512 << 20)" % (os.path.dirname(os.path.abspath(__file__)), self.d.bus.address))
        subprocess.run([sys.executable, "-c", code], check=True, timeout=30 * harness.PATIENCE)
        self.remove("third")

    def test_many_arenas_of_one_uid(self):
        c = self.connect(NOBODY) if os.getuid() == 0 else None
        if not c:
            self.skipTest("needs root, to be somebody else")
        with self.assert_error("LimitsExceeded", str(NOBODY)):
            for i in range(300):
                os.close(open_arena(c, f"many{i}", 4096)[0])
        self.assertGreaterEqual(i, 250)
        for k in range(i):
            c.call(*MANAGER, "RemoveArena", "s", b"many%d" % k)

    def test_a_foreign_arena_is_as_unknown_as_a_missing_one(self):
        if os.getuid() != 0:
            self.skipTest("needs root, to be somebody else")
        other, mine = self.connect(NOBODY), self.connect()
        fd, _, created = open_arena(mine, "private")
        fd2, _, created2 = open_arena(other, "private2")
        self.assertTrue(created and created2)
        for member in (b"ListObjects", b"RemoveArena"):
            with self.assert_error("NoSuchArena"):
                other.call(*MANAGER, member.decode(), "s", b"private")
        self.d.call(*MANAGER, "ListObjects", "s", f"{NOBODY}/private2")
        with self.assert_error("NoSuchArena"):
            self.d.call(*MANAGER, "ListObjects", "s", "private2")
        os.close(fd)
        os.close(fd2)
        self.remove("private")
        self.remove(f"{NOBODY}/private2")

    def test_workers_and_programs_share(self):
        self.assertEqual(self.d.run("w", "put", arena="shared", name="q"), {"outcome": "0"})
        self.assertEqual(self.objects("shared")["q"]["type"], "queue")
        fd, _, created = open_arena(self.connect(), "shared")
        os.close(fd)
        self.assertFalse(created)
        self.assertEqual(self.d.run("w", "take", arena="shared", kind="queue", name="q", hold_ms=0), {"outcome": "0"})
        self.assertEqual(self.objects("init"), {})

    def test_a_worker_is_told_why_not(self):
        self.assertEqual(self.d.run("w", "fd", arena="no/name", bytes=0), {"outcome": "EINVAL"})
        self.assertEqual(self.d.run("w", "fd", arena="x" * 65, bytes=0), {"outcome": "EINVAL"})
        self.assertEqual(self.d.run("w", "fd", arena="huge", bytes=1 << 40), {"outcome": "EINVAL"})
        self.assertEqual(self.d.run("w", "fd", arena="fine", bytes=1), {"outcome": "0"})


class Cycles(Test):
    """Named to whoever asks while it lasts, logged in one line, and broken within 100 ms of the soft limit."""

    SOFT_US = 1000000

    def soft_limits(self):
        """Who asks on a busy machine may come when it is over; then it is made once more, to last longer."""
        for n in (1, 4, 16):
            yield n * self.SOFT_US

    def check_told(self, waits_by_job):
        """While it lasts: droverctl why and WaitingFor name every side. {job: the locks, in the order of the walk}"""
        for job, locks in waits_by_job.items():
            pattern = ", which waits for ".join(rf"mutex {lock} held by worker \d+ \(job \d+\) for \d+\.\d s" for lock in locks)
            why = wait_for(lambda: (t := self.d.ctl("why", job).stdout) and ", which waits for" in t and t, 5, "why tells")
            self.assertRegex(why, "It waits for " + pattern)
        waiting = [w["WaitingFor"] for w in self.d.workers("w")]
        self.assertTrue(all(", which waits for " in text for text in waiting if text), waiting)
        self.assertEqual(len([text for text in waiting if text]), len(waits_by_job), waiting)
        tasks = [task for row in self.d.list_workers("w") for task in self.d.call(row[2], "org.drover1.Worker", "ListTasks") or []
                 if "finished-usec" not in task]
        self.assertEqual({(task["state"], task["waiting-for"].split()[0]) for task in tasks}, {("waiting", "mutex")}, tasks)
        self.assertEqual({task["job"] for task in tasks}, set(waits_by_job))

    def was_told(self, jobs, check, *args):
        """False: it was over before everybody was asked."""
        try:
            check(*args)
        except AssertionError:
            if all(self.d.job(path)["State"] == "running" for _, path in jobs):
                raise
            return False
        return True

    def check_broken(self, jobs, n, locks, soft_us):
        d = self.d
        for _, path in jobs:
            self.assertEqual(d.wait_job(path), "done")
        took = max(d.job(p)["FinishedUSec"] for _, p in jobs) - max(d.job(p)["StartedUSec"] for _, p in jobs)
        self.assertLess(took, soft_us + 100000 * harness.PATIENCE)
        lines = [line for line in d.log().splitlines() if "a cycle of" in line]
        self.assertEqual(len(lines), 1, lines)
        self.assertIn(f"a cycle of {n} waits", lines[0])
        for number, _ in jobs:
            self.assertIn(f"(job {number})", lines[0])
        for lock in locks:
            self.assertRegex(lines[0], rf"waits for mutex {lock} held by worker \d+ \(job \d+\)")
        self.assertIn("EDEADLK", lines[0])

    def cross(self, *sides):
        """Each side: (arena, lock) held, (arena, lock) wanted."""
        for soft_us in self.soft_limits():
            with Drover({"w": {"Plugin": "arenas", "Workers": len(sides), "MaxAttempts": 1}}) as self.d:
                jobs = [self.d.submit("w", "cross", {"soft-timeout": soft_us}, arena=held[0], first=held[1], other=wanted[0],
                                      second=wanted[1], n=len(sides)) for held, wanted in sides]
                names = ["/".join(wanted) for _, wanted in sides]
                was_told = self.was_told(jobs, self.check_told, {jobs[i][0]: (names[i:] + names[:i])[:4] for i in range(len(jobs))})
                self.check_broken(jobs, len(sides), names, soft_us)
                outcomes = sorted(self.d.result(path)["result"]["outcome"] for _, path in jobs)
                self.assertEqual(outcomes, ["0"] * (len(sides) - 1) + ["EDEADLK"])
            if was_told:
                return
        self.fail("nobody was told while it lasted")

    def test_two_locks_two_workers(self):
        self.cross((("x", "a"), ("x", "b")), (("x", "b"), ("x", "a")))

    def test_two_locks_in_two_arenas(self):
        self.cross((("x", "a"), ("y", "b")), (("y", "b"), ("x", "a")))

    def test_three_workers_three_arenas(self):
        """No two of them share more than one."""
        self.cross((("x", "a"), ("y", "b")), (("y", "b"), ("z", "c")), (("z", "c"), ("x", "a")))

    def test_two_threads_of_one_worker(self):
        with Drover({"w": {"Plugin": "arenas", "Workers": 1, "MaxAttempts": 1}}) as self.d:
            job = self.d.submit("w", "threads", {"soft-timeout": self.SOFT_US}, arena="x")
            why = wait_for(lambda: (t := self.d.ctl("why", job[0]).stdout) and "which waits for" in t and t, 5, "why tells")
            for lock in "ab":
                self.assertRegex(why, rf"waits for mutex x/{lock} held by worker \d+ \(job {job[0]}\) for")
            self.check_broken([job], 2, ("x/a", "x/b"), self.SOFT_US)
            self.assertEqual(sorted(self.d.result(job[1])["result"]["outcome"].split()), ["0", "EDEADLK"])

    def test_honest_waits_give_no_alarm(self):
        """The daemon searches all the time, because all these jobs are past their soft limit (a million waits with a search
        beside each: tests/unit/test-sync-cycle.c)."""
        with Drover({"w": {"Plugin": "arenas", "Workers": 3, "MaxAttempts": 1}}) as d:
            jobs = [d.submit("w", "order", {"soft-timeout": 1000}, arena="x", n=100000)[1] for _ in range(3)]
            self.assertEqual([d.wait_job(path) for path in jobs], ["done"] * 3)
            outcomes = [d.result(path)["result"]["outcome"].split() for path in jobs]
            self.assertEqual([r for r, _ in outcomes], ["0"] * 3)
            self.assertGreater(sum(int(n) for _, n in outcomes), 1000)
            self.assertNotIn("a cycle", d.log())

    def test_slow_holders_are_no_cycle(self):
        with Drover({"w": {"Plugin": "arenas", "Workers": 2, "MaxAttempts": 1}}) as d:
            _, first = d.submit("w", "take", arena="x", kind="mutex", name="m", hold_ms=600)
            wait_for(lambda: d.job(first)["Progress"][0] == 1, 10, "it is held")
            _, second = d.submit("w", "take", {"soft-timeout": 50000}, arena="x", kind="mutex", name="m", hold_ms=0)
            self.assertEqual(d.wait_job(second), "done")
            self.assertEqual(d.result(second)["result"], {"outcome": "0"})
            self.assertNotIn("a cycle", d.log())


class Examples(Test):
    """The programs in plugins/ that share something, under each start method."""

    def grid(self, plugin, check, workers=3, **keys):
        for method in METHODS:
            with self.subTest(method):
                with Drover({"p": {"Plugin": plugin, "Workers": workers, "StartMethod": method, **keys}}) as self.d:
                    check()

    def objects(self, arena):
        return {o["name"]: o for o in self.d.call(*MANAGER, "ListObjects", "s", arena) or []}

    def test_bank_account(self):
        def check():
            lines = "".join("account=shared amount=1\n" for _ in range(100))
            r = self.d.ctl("map", "p", "deposit", input=lines)
            self.assertEqual(r.returncode, 0, r.stderr)
            self.assertEqual(sorted(int(line.rpartition("=")[2]) for line in r.stdout.splitlines()), list(range(1, 101)))
            self.assertEqual(self.d.run("p", "balance", account="shared"), {"balance": 100})
        self.grid("bank", check)

    def test_bank_with_withdrawals(self):
        def check():
            d = self.d
            waiting = [d.submit("p", "withdraw", account="w", amount=60)[1] for _ in range(2)]
            wait_for(lambda: self.objects("bank").get("w.funds", {}).get("waiters") == 2, 10, "two wait for funds")
            # Their wait is cut into slices, so not every look sees them in it.
            wait_for(lambda: any(w["WaitingFor"].startswith("condition bank/w.funds for ") for w in d.workers("p")), 10, "it is told")
            self.assertEqual(d.run("p", "deposit", account="w", amount=70), {"balance": 70})
            done = wait_for(lambda: [path for path in waiting if d.job(path)["State"] == "done"], 10, "one was paid")
            self.assertEqual(len(done), 1)
            self.assertEqual(d.run("p", "balance", account="w"), {"balance": 10})
            d.run("p", "deposit", account="w", amount=50)
            self.assertEqual([d.wait_job(path) for path in waiting], ["done", "done"])
            self.assertEqual(d.run("p", "balance", account="w"), {"balance": 0})
            _, poor = d.submit("p", "withdraw", account="w", amount=1)
            worker_of(d, poor)
            d.call(poor, "org.drover1.Job", "Cancel", "s", "ask")
            self.assertEqual(d.wait_job(poor), "cancelled")
        self.grid("bank", check)

    def test_bank_survives_its_tellers(self):
        def check():
            d = self.d
            _, waits = d.submit("p", "withdraw", account="k", amount=1)
            wait_for(lambda: self.objects("bank").get("k.funds", {}).get("waiters") == 1, 10, "it waits for funds")
            kill(worker_of(d, waits))
            self.assertEqual(d.wait_job(waits), "lost")
            self.assertEqual(d.run("p", "deposit", account="k", amount=5), {"balance": 5})
            wait_for(lambda: self.objects("bank")["k.funds"]["waiters"] == 0, 10, "nobody waits any more")
        self.grid("bank", check)

    def stages(self, run, n, slow_ms=0):
        return [self.d.submit("p", stage, run=run, n=n, slow_ms=slow_ms)[1] for stage in ("put_away", "dry", "wash")]

    def test_dishes_as_processes(self):
        def check():
            jobs = self.stages("a", 50)
            self.assertEqual([self.d.wait_job(job) for job in jobs], ["done"] * 3)
            self.assertEqual(self.d.result(jobs[0])["result"], {"shelf": 50})
        self.grid("dishes", check)

    def test_dishes_as_threads(self):
        self.grid("dishes", lambda: self.assertEqual(self.d.run("p", "together", run="a", n=50, slow_ms=0), {"shelf": 50}))

    def test_dishes_when_a_stage_is_killed(self):
        """What was leased to it comes back, and its next attempt goes on."""
        def check():
            d = self.d
            jobs = self.stages("k", 30, slow_ms=50)
            for job in jobs[:2]:
                kill(worker_of(d, job))
            self.assertEqual([d.wait_job(job) for job in jobs], ["done"] * 3)
            self.assertEqual(d.result(jobs[0])["result"], {"shelf": 30})
            self.assertEqual([d.job(job)["Attempt"] for job in jobs], [2, 2, 1])
        self.grid("dishes", check, MaxAttempts=3)

    def test_producer_and_consumer(self):
        def check():
            d = self.d
            _, consumer = d.submit("p", "consume")
            self.assertEqual(d.run("p", "produce", n=5), {"sum": 15})
            self.assertEqual(d.job(consumer)["State"], "running")
            self.assertEqual(d.call(consumer, "org.drover1.Job", "Cancel", "s", "ask"), "asked")
            self.assertEqual(d.wait_job(consumer), "cancelled")
            self.assertEqual(self.objects("producer")["items"]["waiters"], 0)
        self.grid("producer", check, workers=2)


if __name__ == "__main__":
    harness.main()
