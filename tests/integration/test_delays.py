"""Jobs that wait: for a time, for one more try, for other jobs; and the key by which a job is submitted once."""

import os
import time

from harness import MANAGER, PATIENCE, BusError, Drover, Test, kill, main, pause, wait_for
from processes import stat_of
from sdbus import Connection, u64

JOB = "org.drover1.Job"


def now_us():
    return int(time.time() * 1000000)


def switches(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return sum(int(line.split()[1]) for line in f if "ctxt_switches" in line)


class Delays(Test):
    @classmethod
    def setUpClass(cls):
        one = {"Plugin": "jobs", "Workers": 1, "StartMethod": "fork", "RestartSec": "10ms"}
        cls.drover = Drover({"one": one, "two": dict(one, Workers=2),
                             "pauses": dict(one, MaxAttempts=3, RetryDelay="100ms", RetryBackoff="2"),
                             "capped": dict(one, MaxAttempts=4, RetryDelay="50ms", RetryBackoff="100",
                                            RetryMaxDelay="60ms"),
                             "atmost": dict(one, Guarantee="at-most-once")})
        cls.d = cls.drover.__enter__()
        for pool in cls.drover.pools:
            cls.d.wait_state(pool, "running")

    @classmethod
    def tearDownClass(cls):
        cls.drover.__exit__(None, None, None)

    def state(self, job):
        return self.d.get(job, JOB, "State")

    def later(self, seconds, pool="one", **options):
        """(path, the time asked for in µs)"""
        due = now_us() + int(seconds * 1000000)
        return self.d.submit(pool, "tell", {"not-before": due, **options}, n=7)[1], due

    def done(self, job):
        self.assertEqual(self.d.wait_job(job), "done")
        return self.d.result(job)["result"]

    # ---- a time ----

    def test_timer(self):
        """Half a second, within 10 ms; cancelled before it fires: no side effect."""
        late = []
        for _ in range(5):
            job, due = self.later(0.5)
            self.assertEqual(self.state(job), "queued")
            late.append(self.done(job)["usec"] - due)
        self.assertGreaterEqual(min(late), -1000)
        self.assertLess(min(late), 10000)
        self.assertLess(max(late), 500000 * PATIENCE)
        job, due = self.later(0.3)
        self.assertEqual(self.d.call(job, JOB, "Cancel", "s", "queued"), "cancelled")
        completed = self.d.pool("one")["Completed"]
        wait_for(lambda: now_us() > due + 100000, 5, "its time is over")
        self.assertEqual((self.d.wait_job(job), self.d.pool("one")["Completed"]), ("cancelled", completed))

    def test_in_time_order_and_equal_times_by_priority(self):
        due = now_us() + 1000000
        order = [(due + 200000, 4), (due, 1), (due + 100000, 0), (due, 3), (due, 2), (due + 100000, 4)]
        jobs = [self.d.submit("one", "tell", {"not-before": at, "priority": priority}, n=i)[1] for i,
                (at, priority) in enumerate(order)]
        self.assertLess(now_us(), due, "all were submitted in time")
        ran = sorted((self.done(job)["usec"], i) for i, job in enumerate(jobs))
        self.assertEqual([i for _, i in ran], [3, 4, 1, 5, 2, 0])

    def test_priorities_are_the_same_in_the_shell_and_on_the_bus_and_urgent_is_first(self):
        self.d.pool_call("one", "Pause")
        worker = self.d.workers("one")[0]["Pid"]
        wait_for(lambda: stat_of(worker)[1] == "S", 10, "its worker heard of it: one that looked just before takes one more job")
        bus = [self.d.submit("one", "tell", {"priority": n}, n=n)[0] for n in (1, 2, 3, 4, 0)]
        shell = [self.d.ctl("submit", "one", "tell", "n=9", *words).stdout.strip()
                 for words in (["--priority=low"], ["--priority=normal"], ["--priority=high"], ["--priority=urgent"],
                               [])]
        self.d.pool_call("one", "Resume")
        jobs = [*bus, *map(int, shell)]
        ran = sorted((self.done(f"/org/drover1/job/{n}")["usec"], jobs.index(n)) for n in jobs)
        self.assertEqual([i for _, i in ran], [3, 8, 2, 7, 1, 4, 6, 9, 0, 5])

    def test_the_past_is_now(self):
        self.assertEqual(self.done(self.d.submit("one", "tell", {"not-before": 1}, n=1)[1])["n"], 1)

    def test_a_delayed_job_survives_its_workers(self):
        job, due = self.later(0.6)
        for _ in range(2):
            worker = self.d.wait_workers("one", 1, states=("idle",))[0]
            kill(worker[3])
            wait_for(lambda old=worker[0]: [row for row in self.d.list_workers("one")
                                            if row[0] != old and row[4] == "idle"], 10, "another worker")
        self.assertGreaterEqual(self.done(job)["usec"], due - 1000)

    def test_the_queue_timeout_counts_from_then(self):
        self.d.pool_call("two", "Pause")
        started = now_us()
        job, due = self.later(0.4, "two", **{"queue-timeout": 200000})
        self.assertEqual(self.d.wait_job(job), "expired")
        self.assertGreaterEqual(now_us(), due + 200000)
        self.assertLess(now_us(), started + 5000000 * PATIENCE)
        self.d.pool_call("two", "Resume")

    def test_stop_judges_what_is_delayed(self):
        d = self.d
        d.call(*MANAGER, "CreatePool", "sa{sv}t", "brief", 3, "Plugin", "s", "jobs", "Workers", "u", 1, "StartMethod",
               "s", "fork", 0)
        d.wait_state("brief", "running")
        job, _ = self.later(3600, "brief")
        self.assertEqual(d.pool("brief")["Queued"], 1)
        d.pool_call("brief", "Stop")
        self.assertEqual(d.wait_job(job), "cancelled")
        d.call(*MANAGER, "RemovePool", "st", "brief", 0)

    def test_a_far_delay_wakes_nobody(self):
        job, _ = self.later(3600)
        far = self.d.submit("one", "tell", {"not-before": 2 ** 64 - 1}, n=1)[1]
        self.d.wait_workers("one", 1, states=("idle",))
        pids = [self.d.pid, *[row[3] for row in self.d.list_workers("one")]]

        def rests():
            before = [switches(pid) for pid in pids]
            pause(1)
            return [switches(pid) for pid in pids] == before
        wait_for(rests, 20, "a second without a wake-up")
        for path in (job, far):
            self.assertEqual(self.d.call(path, JOB, "Cancel", "s", "queued"), "cancelled")

    # ---- one more try ----

    def test_retry(self):
        """Fails twice, then done: attempt 3."""
        started = time.monotonic()
        self.assertEqual(self.d.run("one", "flaky", fails=2, after_ms=100), {"attempt": 3})
        self.assertGreaterEqual(time.monotonic() - started, 0.2)
        job = self.d.submit("one", "flaky", fails=2, after_ms=1)[1]
        self.assertEqual((self.done(job), self.d.result(job)["attempts"]), ({"attempt": 3}, 3))

    def test_the_last_try_is_told(self):
        before = self.d.pool("one")["Failed"]
        with self.assert_error("Failed", "attempt 3", "not yet, after attempt 3"):
            self.d.run("one", "flaky", fails=9, after_ms=1)
        with self.assert_error("Failed", "not yet, after attempt 1"):
            self.d.run("one", "flaky", {"max-attempts": 1}, fails=9, after_ms=1)
        self.assertEqual(self.d.pool("one")["Failed"], before + 2)

    def test_what_may_run_once_is_not_tried_again(self):
        for pool, job in (("atmost", "flaky"), ("one", "flaky_once")):
            with self.assert_error("Failed", "not yet, after attempt 1"):
                self.d.run(pool, job, fails=1, after_ms=1)

    def test_the_pause_grows_by_backoff(self):
        started = time.monotonic()
        self.assertEqual(self.d.run("pauses", "flaky", fails=2, after_ms=0), {"attempt": 3})
        self.assertGreaterEqual(time.monotonic() - started, 0.3)  # 100 ms, 200 ms
        started = time.monotonic()
        with self.assert_error("Poisoned", "3 attempts"):
            self.d.run("pauses", "die")
        self.assertGreaterEqual(time.monotonic() - started, 0.3)
        started = time.monotonic()
        self.assertEqual(self.d.run("capped", "flaky", fails=3, after_ms=0), {"attempt": 4})
        self.assertLess(time.monotonic() - started, 3 * PATIENCE)  # not 50 ms, 5 s, 500 s

    def test_a_retry_that_is_cancelled(self):
        job = self.d.submit("one", "flaky", fails=9, after_ms=3600000)[1]
        wait_for(lambda: self.d.get(job, JOB, "Attempt") == 2, 10, "it waits for its second try")
        self.assertEqual(self.state(job), "queued")
        self.assertEqual(self.d.call(job, JOB, "Cancel", "s", "ask"), "cancelled")

    # ---- other jobs ----

    def after(self, pool, ids, n=1, **options):
        words = [1 + len(options), "after", "at", len(ids), *ids]
        for key, value in options.items():
            words += [key, "t", value]
        return self.d.call(*MANAGER, "Submit", "ssa{sv}a{sv}", pool, "tell", 1, "n", "t", n, *words)

    def test_after(self):
        ids = [self.d.submit("two", "tell", {"not-before": now_us() + 300000 + 100000 * i}, n=i)[0] for i in range(3)]
        _, job = self.after("two", ids)
        self.assertEqual(self.state(job), "queued")
        ran = self.done(job)["usec"]
        for other in ids:
            self.assertGreaterEqual(ran, self.done(f"/org/drover1/job/{other}")["usec"])
        self.assertEqual(self.done(self.after("one", ids, 2)[1])["n"], 2)  # all are done already
        due = now_us() + 300000
        self.assertGreaterEqual(self.done(self.after("one", ids, 3, **{"not-before": due})[1])["usec"], due - 1000)

    def test_chord(self):
        """It fires once though one member was retried."""
        before = self.d.pool("two")["Completed"]
        ids = [self.d.submit("two", "flaky", fails=i, after_ms=20)[0] for i in range(3)]
        chord = self.after("two", ids)[1]
        self.done(chord)
        self.assertEqual(self.d.pool("two")["Completed"], before + 4)

    def test_after_a_bad_end(self):
        bad, good = self.d.submit("one", "flaky", fails=9, after_ms=3600000), self.d.submit("one", "tell", n=1)
        chain = [self.after("one", [good[0], bad[0]])]
        for _ in range(20):
            chain.append(self.after("two", [chain[-1][0]]))
        wait_for(lambda: self.d.get(bad[1], JOB, "Attempt") == 2, 10, "it has failed once")
        self.assertEqual(self.state(chain[0][1]), "queued")
        self.d.call(bad[1], JOB, "Cancel", "s", "queued")
        for before, (_, job) in zip([bad, *chain], chain):
            self.assertEqual(self.d.wait_job(job), "cancelled")
            self.assertIn(f"job {before[0]}, which it comes after, ended as cancelled", self.d.result(job)["error"])
        late = self.after("one", [bad[0]])[1]
        self.assertEqual(self.d.wait_job(late), "cancelled")

    def test_what_waits_can_be_cancelled(self):
        first = self.later(3600)[0]
        _, job = self.after("one", [int(first.rpartition("/")[2])])
        self.assertEqual(self.d.call(job, JOB, "Cancel", "s", "ask"), "cancelled")
        self.assertIn("before it ran", self.d.result(job)["error"])
        self.assertEqual(self.d.call(first, JOB, "Cancel", "s", "ask"), "cancelled")

    # ---- once ----

    def test_idempotency_key(self):
        options = {"idempotency-key": "order-1"}
        first = self.d.submit("one", "tell", options, n=1)
        self.assertEqual(self.d.submit("one", "tell", options, n=2), first)
        ran = self.done(first[1])
        self.assertEqual(self.d.submit("one", "tell", options, n=3), first)
        self.assertEqual(self.d.run("one", "tell", options, n=4), ran)  # its result, once more
        self.assertNotEqual(self.d.submit("two", "tell", options, n=1), first)
        self.assertNotEqual(self.d.submit("one", "tell", {"idempotency-key": "order-2"}, n=1), first)
        with self.assert_error("InvalidArgs", "order-1", str(first[0])):
            self.d.run("one", "flaky", options, fails=0, after_ms=0)
        if os.geteuid() == 0:
            os.chmod(self.d.dir, 0o711)
            c = Connection(self.d.bus.address, 65534)
            self.addCleanup(c.close)
            other = c.call(*MANAGER, "Submit", "ssa{sv}a{sv}", b"one", b"tell", 1, b"n", b"t", u64(1), 1,
                           b"idempotency-key", b"s", b"order-1").read("t")[0]
            self.assertNotEqual(other, first[0])
            with self.assertRaises(BusError) as caught:
                c.call(*MANAGER, "Submit", "ssa{sv}a{sv}", b"one", b"tell", 1, b"n", b"t", u64(1), 1, b"after", b"at",
                       1, u64(first[0]))
            self.assertEqual(caught.exception.name, "org.drover1.Error.NoSuchJob")

    def test_detached(self):
        """A Run goes with its caller, a detached one does not."""
        before = self.d.pool("one")
        due = now_us() + 700000
        c = Connection(self.d.bus.address)
        for n, detached in ((1, 0), (2, 1)):
            c.send(*MANAGER, "Run", "ssa{sv}a{sv}", b"one", b"tell", 1, b"n", b"t", u64(n), 2, b"not-before", b"t",
                   u64(due), b"detached", b"b", detached)
        wait_for(lambda: self.d.pool("one")["Queued"] == 2, 10, "both are there")
        c.close()
        wait_for(lambda: self.d.pool("one")["Cancelled"] == before["Cancelled"] + 1, 10, "one went with its caller")
        wait_for(lambda: self.d.pool("one")["Completed"] == before["Completed"] + 1, 10, "the other one ran")


if __name__ == "__main__":
    main()
