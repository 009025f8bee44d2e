"""The end of droverd, of its spawner and of its templates, by request and by SIGKILL; and starts that must fail."""

import os
import signal
import subprocess
import sys
import time

from harness import (MANAGER, PATIENCE, SOURCE, Bus, Drover, Test, assert_in_time, descendants, is_alive, kill, main,
                     memfds_of, pause,
                     reap_orphans, wait_for, wait_surely)
from sdbus import Connection

LONG = 18446744073709551557  # takes seconds
METHODS = ("fork", "spawn", "forkserver")


class Drain(Test):
    is_about_losses = True

    def test_sigterm_finishes_what_was_accepted(self):
        with Drover({"sleep": {"Plugin": "sleep", "Workers": 1, "TimeoutStopSec": "20s"}}) as d:
            calls = [subprocess.Popen(["busctl", "--user", "call", "org.drover1", "/org/drover1", "org.drover1.Manager",
                                       "Run",
                                       "ssa{sv}a{sv}", "sleep", "sleep", "1", "ms", "t", "300", "0"], env=d.env(),
                                      text=True,
                                      stdout=subprocess.PIPE) for _ in range(3)]
            wait_for(lambda: (p := d.pool("sleep"))["Queued"] + p["Running"] == 3, 10, "three jobs are accepted")
            d.process.send_signal(signal.SIGTERM)
            started = time.monotonic()
            self.assertEqual([call.communicate(timeout=20 * PATIENCE)[0] for call in calls],
                             ['a{sv} 1 "ms" t 300\n'] * 3)
            self.assertEqual(d.process.wait(20 * PATIENCE), 0)
            assert_in_time(time.monotonic() - started, 5 * PATIENCE)

    def test_who_was_just_told_of_a_verdict_gets_its_result(self):
        with Drover({"squares": {"Plugin": "squares", "Workers": 1}}) as d, Connection(d.bus.address) as c:
            c.call(*MANAGER, "Subscribe")
            _, job = d.submit("squares", "sleep", seconds=0.3)
            d.process.send_signal(signal.SIGTERM)
            c.wait(lambda m: m.member == "JobRemoved" and m.path == "/org/drover1")
            pause(0.1)  # time in which one that waits for nobody is gone
            self.assertIsNotNone(c.call(job, "org.drover1.Job", "GetResult"))
            self.assertEqual(d.process.wait(20 * PATIENCE), 0)
            d.start()

    def test_a_draining_daemon_refuses_new_jobs_in_words(self):
        with Drover({"sleep": {"Plugin": "sleep", "Workers": 1}}) as d:
            d.submit("sleep", "sleep", ms=1500)
            wait_for(lambda: d.pool("sleep")["Running"] == 1, 10, "it runs")
            d.process.send_signal(signal.SIGTERM)

            def refused():
                try:
                    d.run("sleep", "sleep", ms=0)
                except Exception as e:  # the bus error, or nobody there any more
                    return e
                return None
            error = wait_for(refused, 5, "a refusal")
            self.assertIn("ShuttingDown", error.name)
            self.assertEqual(d.process.wait(20 * PATIENCE), 0)

    def test_timeout_stop_bounds_the_drain(self):
        for method in METHODS:
            with Drover({"hang": {"Plugin": "hang", "Workers": 2, "StartMethod": method, "TimeoutStopSec": "1s",
                                  "KillGraceSec": "200ms"}}) as d:
                _, running = d.submit("hang", "hang")
                wait_for(lambda d=d: d.pool("hang")["Running"] == 1, 10, "it hangs")
                started = time.monotonic()
                self.assertEqual(d.stop(), 0)
                took = time.monotonic() - started
                self.assertGreater(took, 0.9)
                assert_in_time(took, 3 * PATIENCE)
                self.assertTrue(running)

    def test_a_job_whose_worker_was_killed_is_known_to_have_run(self):
        with Drover({"sleep": {"Plugin": "sleep", "Workers": 1, "KillGraceSec": "100ms"}}) as d:
            _, path = d.submit("sleep", "sleep", {"hard-timeout": 300000}, ms=5000)
            self.assertEqual(d.wait_job(path), "timed-out")
            result = d.result(path)
            self.assertGreater(result["run-usec"], 200000)
            assert_in_time(result["queue-usec"], 200000)
            self.assertGreater(d.job(path)["StartedUSec"], 0)
            _, path = d.submit("sleep", "sleep", ms=5000)
            wait_for(lambda: d.job(path)["State"] == "running", 10, "it runs")
            d.pool_call("sleep", "Stop")
            self.assertEqual(d.wait_job(path), "cancelled")
            self.assertIn("while it ran", d.result(path)["error"])

    def test_idle_stop_is_quick(self):
        with Drover({"primes": {"Plugin": "primes", "Workers": 4}}) as d:
            d.wait_workers("primes", 4)
            started = time.monotonic()
            self.assertEqual(d.stop(), 0)
            assert_in_time(time.monotonic() - started, 2 * PATIENCE)


class Killed(Test):
    """With a for(;;) job and a plugin that forks twice running, in every start method."""

    is_about_losses = True

    def start(self, method):
        pools = {"hang": {"Plugin": "hang", "Workers": 2, "StartMethod": method},
                 "doublefork": {"Plugin": "doublefork", "Workers": 1, "StartMethod": method, "MaxAttempts": 1},
                 "primes": {"Plugin": "primes", "Workers": 2, "StartMethod": method}}
        d = Drover(pools)
        d.__enter__()
        d.submit("hang", "hang")
        d.submit("doublefork", "escape")
        wait_for(lambda: d.pool("hang")["Running"] == 1, 10, "the endless job runs")
        return d

    def assert_nothing_runs(self, d, but=()):
        """A second later nothing of it runs: neither by parentage nor by what it maps."""
        known = [d.process.pid, d.bus.process.pid]

        def left():
            reap_orphans(known)
            return {pid: name for pid, name in descendants().items() if pid != d.bus.process.pid and pid not in but}
        wait_surely(lambda: not left(), 1, lambda: f"nothing of it runs: {left()}")
        self.assertEqual(memfds_of(os.getpid()), [])

    def end(self, d):
        d.process.wait()
        d.tear_down(check=False)

    def test_sigkill_of_droverd(self):
        """Or SIGABRT, which libsystemd sends it where it has no memory."""
        for method, number in [(method, signal.SIGKILL) for method in METHODS] + [("fork", signal.SIGABRT)]:
            d = self.start(method)
            try:
                kill(d.pid, number)
                self.assertEqual(d.process.wait(), -number)
                self.assert_nothing_runs(d)
            finally:
                self.end(d)

    def test_sigkill_of_droverd_and_spawner_at_once(self):
        for method in METHODS:
            d = self.start(method)
            try:
                spawner = d.spawner()
                self.assertTrue(spawner)
                os.kill(d.pid, signal.SIGSTOP)  # so that it cannot start another one in between
                kill(spawner)
                kill(d.pid)
                d.process.wait()
                self.assert_nothing_runs(d)
            finally:
                self.end(d)

    def test_sigkill_of_the_spawner_ends_its_workers_and_work_goes_on(self):
        for method in METHODS:
            d = self.start(method)
            try:
                spawner, old = d.spawner(), d.pids()
                kill(spawner)

                def gone():
                    reap_orphans([d.process.pid, d.bus.process.pid])
                    return not [pid for pid in old if is_alive(pid)]
                wait_surely(gone, 1, f"{method}: nothing of the old spawner runs")
                new = wait_for(lambda d=d: d.spawner(), 5, "there is a new spawner")
                self.assertNotEqual(new, spawner)
                d.wait_workers("primes", 2, seconds=5)
                self.assertEqual(d.run("primes", "is_prime", n=97), {"prime": True})
                self.assertEqual({death["reason"] for death in d.deaths("primes")}, {"spawner-lost"})
                hang = d.pool("hang")
                self.assertEqual(hang["Poisoned"], 0, "a lost spawner is not charged to the job")
                # What hung is retried and hangs again: the daemon still ends in time.
                kill(d.pid)
                d.process.wait()
                self.assert_nothing_runs(d)
            finally:
                self.end(d)

    def test_sigkill_of_a_template_spares_its_workers_and_it_is_replaced(self):
        with Drover({"primes": {"Plugin": "primes", "Workers": 2}}) as d:
            d.wait_workers("primes", 2)
            jobs = [d.submit("primes", "is_prime", n=9999999999999937)[1] for _ in range(2)]
            wait_for(lambda: d.pool("primes")["Running"] == 2, 10, "both run")
            before = {row[3] for row in d.list_workers("primes")}
            template = d.templates()
            self.assertEqual(len(template), 1)
            kill(template[0])
            wait_for(lambda: not is_alive(template[0]), 1, "the template is gone")
            for path in jobs:
                self.assertEqual(d.wait_job(path), "done")
                self.assertEqual(d.result(path)["attempts"], 1, "its workers go on with their jobs")
            self.assertEqual({row[3] for row in d.list_workers("primes")}, before)
            # The next worker needs a template: a new one is made.
            kill(min(before))
            wait_for(lambda: min(before) not in {row[3] for row in d.list_workers("primes")}, 5, "its death is noticed")
            d.wait_workers("primes", 2, seconds=5)
            self.assertEqual(len(d.templates()), 1)
            self.assertNotEqual(d.templates(), template)
            self.assertEqual(d.run("primes", "is_prime", n=97), {"prime": True})

    def test_sigkill_of_a_template_with_hostile_jobs_running(self):
        d = self.start("forkserver")
        try:
            for template in d.templates():
                kill(template)
            self.assertEqual(d.run("primes", "is_prime", n=97), {"prime": True})
            kill(d.pid)
            d.process.wait()
            self.assert_nothing_runs(d)
        finally:
            self.end(d)

    def test_a_plugin_that_forks_twice_leaves_nothing(self):
        """The sandbox stops it at the first fork; the pool goes on."""
        for method in METHODS:
            with Drover({"doublefork": {"Plugin": "doublefork", "Workers": 1, "StartMethod": method}}) as d:
                d.wait_workers("doublefork", 1)
                with self.assert_error("Poisoned", "clone"):
                    d.run("doublefork", "escape")
                d.wait_workers("doublefork", 1)
                self.assertLessEqual(len(d.pids()), 3, d.pids())


class Numbers(Test):
    """A job's number is never another's, whoever is killed and whatever the file of numbers says."""

    @staticmethod
    def again(d, end):
        end()
        d.process.wait()
        wait_for(lambda: not d.has_name(), 10, "the name is free")
        d.start()

    def crash(self, d):
        """The number of a job that has a capsule by now."""
        capsules = os.path.join(d.dir, "state", "capsules")
        job, path = d.submit("crash", "segfault")
        self.assertEqual(d.wait_job(path), "poisoned")
        wait_for(lambda: f"crash.{job}" in os.listdir(capsules), 10, "its capsule")
        return job

    def test_a_number_is_not_used_again(self):
        with Drover({"crash": {"Plugin": "crash", "Workers": 1, "MaxAttempts": 1, "RestartSec": 0}}) as d:
            capsules, file = os.path.join(d.dir, "state", "capsules"), os.path.join(d.dir, "state", "numbers")
            self.assertEqual(self.crash(d), 1)
            with open(os.path.join(capsules, "crash.1"), "rb") as f:
                capsule = f.read()
            self.again(d, lambda: kill(d.pid))
            second, _ = d.submit("crash", "fine")
            self.assertGreater(second, 1)
            r = d.ctl("result", "1")
            self.assertEqual((r.returncode, r.stdout), (4, ""))
            self.assertIn("no job 1", r.stderr)
            with self.assert_error("NoSuchJob"):
                d.result("/org/drover1/job/1")
            self.assertGreater(self.crash(d), second)
            with open(os.path.join(capsules, "crash.1"), "rb") as f:
                self.assertEqual(f.read(), capsule)
            last, _ = d.submit("crash", "fine")
            self.again(d, d.stop)
            self.assertEqual(d.submit("crash", "fine")[0], last + 1)  # nothing was lost by a clean end
            # A file of somebody else's.
            for text in ("", "job 18446744073709551615\nchannel 1\n", "\0" * 100000):
                kill(d.pid)
                d.process.wait()
                with open(file, "w", encoding="utf-8") as f:
                    f.write(text)
                wait_for(lambda: not d.has_name(), 10, "the name is free")
                d.start()
                before, last = last, d.submit("crash", "fine")[0]
                self.assertGreater(last, before)
            self.assertEqual(d.log().count("numbers makes no sense"), 3)
            # One that cannot be written.
            os.remove(file)
            os.mkdir(file)
            before = last
            self.again(d, lambda: kill(d.pid))
            last = d.submit("crash", "fine")[0]
            self.assertGreater(last, before)
            self.assertEqual(d.log().count("numbers cannot be written"), 1)


class Refused(Test):
    def start_alone(self, launcher=(), address=None):
        """droverd without the harness's waiting: (exit code, lines on stderr)."""
        d = Drover({"primes": {"Plugin": "primes"}}, launcher=launcher)
        try:
            d.bus = Bus(d.dir) if address is None else None
            env = d.env()
            if address is not None:
                env["DBUS_SESSION_BUS_ADDRESS"] = address
            r = subprocess.run(d.command(), env=env, capture_output=True, text=True, timeout=30 * PATIENCE, check=False)
            return r.returncode, r.stderr.strip().splitlines()
        finally:
            d.tear_down()

    def test_without_a_bus(self):
        code, lines = self.start_alone(address="unix:path=/nonexistent/bus")
        self.assertEqual(code, 1)
        self.assertEqual(len(lines), 1, lines)
        self.assertIn("bus", lines[0])

    def test_with_io_uring_refused(self):
        launcher = [sys.executable, f"{SOURCE}/tests/integration/refuse.py", "io_uring"]
        code, lines = self.start_alone(launcher)
        self.assertEqual(code, 1)
        self.assertEqual(len(lines), 1, lines)
        self.assertIn("io_uring", lines[0])
        self.assertIn("seccomp", lines[0])

    def test_a_second_one_on_the_same_bus(self):
        with Drover({"primes": {"Plugin": "primes"}}) as d:
            r = subprocess.run(d.command(), env=d.env(), capture_output=True, text=True, timeout=30 * PATIENCE,
                               check=False)
            self.assertEqual(r.returncode, 1)
            self.assertIn("org.drover1", r.stderr.splitlines()[-1])
            self.assertEqual(d.run("primes", "is_prime", n=97), {"prime": True})


if __name__ == "__main__":
    main()
