"""Workers killed under load: each kill costs its own attempt and nothing else."""

import fcntl
import json
import os
import random
import re
import signal
import subprocess
import threading

from harness import (IS_SANITIZED, PATIENCE, BusError, Drover, Test, assert_in_time, fds_of, is_alive, main, memfds_of,
                     wait_for,
                     wait_surely)

KILLS, MID_JOB = (60, 45) if IS_SANITIZED else (200, 160)
WORKERS, SLOTS = 4, 64

# A few ms each: long enough that a busy pool is always in mid-job, short enough that a run has thousands of them.
NUMBERS = {999999999989: True, 999983 * 999979: False, 999999000001: True}


class Load:
    """droverctl map, fed with one line after the other until told to stop."""

    def __init__(self, d):
        self.sent, self.rows, self.is_over = [], [], threading.Event()
        self.most = 1 << 30  # lines without an answer
        self.answered = threading.Condition()
        self.process = d.ctl_start("map", "primes", "is_prime", "--json=short", "--arg=n", stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE)
        # A short pipe: what is in it must be worked off at the end.
        fcntl.fcntl(self.process.stdin.fileno(), fcntl.F_SETPIPE_SZ, 4096)
        self.writer = threading.Thread(target=self.write)
        self.reader = threading.Thread(target=self.read)
        self.writer.start()
        self.reader.start()

    def write(self):
        numbers = list(NUMBERS)
        while not self.is_over.is_set():
            with self.answered:
                self.answered.wait_for(lambda: len(self.sent) - len(self.rows) < self.most or self.is_over.is_set(), 1)
                if len(self.sent) - len(self.rows) >= self.most:
                    continue
            n = random.choice(numbers)
            self.sent.append(n)
            self.process.stdin.write(f"{n}\n")
            self.process.stdin.flush()
        self.process.stdin.close()

    def read(self):
        for line in self.process.stdout:
            with self.answered:
                self.rows.append(json.loads(line))
                self.answered.notify()

    def finish(self):
        """The exit code, once every line is answered."""
        self.is_over.set()
        self.writer.join()
        code = self.process.wait(300 * PATIENCE)
        self.reader.join()
        self.process.stdout.close()
        return code


def inventory(d):
    """What must not grow: processes by name, descriptors and memfds of broker and spawner."""
    names = sorted(name.split("/")[0] for name in d.pids().values())
    return {"processes": names, "broker": len(fds_of(d.pid)), "spawner": len(fds_of(d.spawner())),
            "memfds": len(memfds_of(d.pid)), "spawner memfds": len(memfds_of(d.spawner()))}


class Kills(Test):
    is_about_losses = True

    def setUp(self):
        self.killed = set()

    def kill_one(self, d, want_busy):
        """Stops a worker so that its state cannot change, looks whether it holds a job, kills it. Was it in mid-job?
        None: it was not as wanted and goes on. An idle one is only killed if it served: deaths of workers that never
        did anything are a plugin that does not come up, and slow the pool down on purpose."""
        rows = [row for row in d.list_workers("primes") if row[3] and row[0] not in self.killed]
        if not rows:
            return None
        number, _, path, pid, _ = random.choice(rows)
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
            properties = d.get_all(path, "org.drover1.Worker")
            if not properties or properties["Pid"] != pid or not is_alive(pid):
                return None
            is_busy = properties["CurrentJob"] != 0
            is_wanted = is_busy if want_busy else not is_busy and properties["JobsDone"] > 0
            if not is_wanted or properties["State"] not in ("idle", "running"):
                signal.pidfd_send_signal(pidfd, signal.SIGCONT)
                return None
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            self.killed.add(number)  # its row may stand while it dies
            return is_busy
        except ProcessLookupError:
            return None
        finally:
            os.close(pidfd)

    def kill_many(self, d, n, want_busy, after_each=lambda: None):
        killed = 0

        def one():
            nonlocal killed
            if self.kill_one(d, want_busy) is not None:
                killed += 1
                after_each()
            return killed == n
        wait_for(one, 120, f"{n} workers killed", step=0)

    def test_every_job_has_its_answer_and_nothing_leaks(self):
        with Drover({"primes": {"Plugin": "primes", "Workers": WORKERS, "Slots": SLOTS, "MaxAttempts": 60}}) as d:
            d.wait_workers("primes", WORKERS)
            warm = Load(d)
            wait_for(lambda: len(warm.rows) > 50, 20, "the load runs")
            self.assertEqual(warm.finish(), 0)
            before, counters, log_before = self.settle(d), d.pool("primes"), d.log()

            load = Load(d)
            wait_for(lambda: len(load.rows) > 50, 20, "the load runs")
            self.kill_many(d, MID_JOB, True)
            self.back_to_strength(d)
            # The rest between two jobs, under a load that leaves workers idle now and then.
            load.most = 3
            self.kill_many(d, KILLS - MID_JOB, False, lambda: self.back_to_strength(d))
            self.assertEqual(load.finish(), 0)
            self.back_to_strength(d)

            self.assertEqual([row["input"] for row in load.rows], [str(n) for n in load.sent])
            for row in load.rows:
                self.assertEqual(row["state"], "done", row)
                self.assertEqual(row["result"]["prime"], NUMBERS[int(row["input"])], row)
            charged = len(re.findall("while running job", d.log())) - len(re.findall("while running job", log_before))
            self.assertEqual((sum(row["attempt"] - 1 for row in load.rows), charged), (MID_JOB, MID_JOB))

            after = d.pool("primes")
            self.assertEqual(after["WorkerDeaths"] - counters["WorkerDeaths"], KILLS)
            self.assertEqual(after["Retried"] - counters["Retried"], MID_JOB)
            self.assertEqual(after["Completed"] - counters["Completed"], len(load.rows))
            self.assertEqual((after["Queued"], after["Running"]), (0, 0))
            self.assertEqual(self.settle(d), before)
            self.all_slots_are_usable(d)

    def back_to_strength(self, d):
        """Alive, ready and as many as there should be: a killed worker's row may stand for a moment after its death."""
        def whole():
            rows = d.list_workers("primes")
            return len(rows) == WORKERS and all(row[4] in ("idle", "running") and is_alive(row[3]) for row in rows)
        wait_surely(whole, 1, "the pool is back to strength")

    def settle(self, d):
        """The inventory, once the sessions of earlier clients are gone."""
        wait_surely(lambda: d.get("/org/drover1", "org.drover1.Manager", "NSessions") == 0, 10, "no session is left")
        self.back_to_strength(d)
        found = [inventory(d)]

        def steady():
            found.append(inventory(d))
            return found[-1] == found[-2]
        wait_for(steady, 10, "the inventory is steady")
        return found[-1]

    def all_slots_are_usable(self, d):
        """A leaked slot of the bus's own channel would show as an early QueueFull."""
        d.pool_call("primes", "Pause")
        jobs = [d.submit("primes", "is_prime", n=97) for _ in range(SLOTS)]
        with self.assert_error("QueueFull", "primes"):
            d.submit("primes", "is_prime", n=97)
        d.pool_call("primes", "Resume")
        for _, path in jobs:
            self.assertEqual(d.wait_job(path), "done")

    def test_bus_jobs_survive_kills_too(self):
        with Drover({"primes": {"Plugin": "primes", "Workers": 2, "MaxAttempts": 20}}) as d:
            d.wait_workers("primes", 2)
            jobs = [d.submit("primes", "is_prime", n=9999999999999937) for _ in range(12)]
            self.kill_many(d, 5, True)
            attempts = 0
            for _, path in jobs:
                self.assertEqual(d.wait_job(path, 60), "done")
                result = d.result(path)
                self.assertEqual(result["result"], {"prime": True})
                attempts += result["attempts"] - 1
            self.assertEqual(attempts, 5)
            deaths = d.deaths("primes")
            self.assertEqual(len(deaths), 5)
            for death in deaths:
                self.assertEqual((death["reason"], death["status"]), ("signal", 9))
                self.assertNotEqual(death["job"], 0)

    def test_a_job_past_its_attempts_by_kills_is_poisoned_and_says_so(self):
        with Drover({"primes": {"Plugin": "primes", "Workers": 1, "MaxAttempts": 2}}) as d:
            d.wait_workers("primes", 1)
            number, path = d.submit("primes", "is_prime", n=18446744073709551557)
            self.kill_many(d, 2, True)
            self.assertEqual(d.wait_job(path), "poisoned")
            result = d.result(path)
            self.assertEqual((result["state"], result["reason"], result["signal"], result["attempts"]),
                             ("poisoned", "signal", 9, 2))
            why = d.ctl("why", number).stdout
            self.assertIn("poisoned", why)
            self.assertIn("SIGKILL", why)
            self.assertIn("Attempt 1", why)
            self.assertIn("Attempt 2", why)
            with self.assertRaises(BusError) as e:
                d.run("primes", "is_prime", options={"max-attempts": ("u", 99999)}, n=2)
            self.assertIn("max-attempts", e.exception.text)
            self.assertEqual(d.run("primes", "is_prime", n=97), {"prime": True})

    def test_a_result_half_written_is_not_seen_and_the_input_is_untouched(self):
        for method in ("forkserver", "spawn", "fork"):
            with Drover({"half": {"Plugin": "half-result", "Workers": 2, "StartMethod": method}}) as d:
                text = "the quick brown fox " * 50
                self.assertEqual(d.run("half", "typed", text=text), {"length": len(text), "text": text})
                number, path = d.submit("half", "raw", payload=text.encode())
                self.assertEqual(d.wait_job(path), "done")
                result = d.result(path)
                self.assertEqual(bytes(result["result"]["payload"]), text.upper().encode())
                self.assertEqual(result["attempts"], 2)
                deaths = d.deaths("half")
                self.assertEqual([death["reason"] for death in deaths], ["signal", "signal"])
                self.assertIn(number, [death["job"] for death in deaths])

    def test_a_job_that_always_kills_its_worker(self):
        """Poisoned with the signal named, everywhere it can be asked for; others in its pool wait for its restarts
        only."""
        with Drover({"crash": {"Plugin": "crash", "Workers": 1}, "primes": {"Plugin": "primes", "Workers": 1}}) as d:
            for job, name, number in (("segfault", "SIGSEGV", 11), ("abort", "SIGABRT", 6), ("kill", "SIGKILL", 9)):
                with self.assert_error("Poisoned", name, "3 attempts", job) as e:
                    d.run("crash", job)
                id_, path = d.submit("crash", job)
                others = [d.submit("crash", "fine")[1] for _ in range(5)]
                self.assertEqual(d.wait_job(path), "poisoned")
                result = d.result(path)
                self.assertEqual((result["state"], result["reason"], result["signal"], result["attempts"]),
                                 ("poisoned", "signal", number, 3))
                self.assertIn(name, result["error"])
                why = d.ctl("why", id_).stdout
                self.assertIn(name, why)
                self.assertIn("poisoned", why)
                self.assertEqual([line[:9] for line in why.splitlines() if line.startswith("Attempt")],
                                 ["Attempt 1", "Attempt 2", "Attempt 3"])
                r = d.ctl("call", "crash", job)
                self.assertEqual(r.returncode, 1)
                self.assertIn(name, r.stderr)
                for other in others:
                    self.assertEqual(d.wait_job(other), "done")
                    assert_in_time(d.result(other)["queue-usec"], 1000000 * PATIENCE, "three restarts take less")
                self.assertEqual(d.job(path)["State"], "poisoned")
                self.assertTrue(e.error.name.endswith(".Poisoned"))
            self.assertEqual(d.run("crash", "fine"), {})
            self.assertEqual(d.pool("primes")["WorkerDeaths"], 0)
            self.assertEqual(d.run("primes", "is_prime", n=97), {"prime": True})

    def test_why_knows_the_deaths_of_a_channel_job(self):
        with Drover({"crash": {"Plugin": "crash", "Workers": 1}}) as d:
            r = d.ctl("map", "crash", "segfault", "--json=short", input="\n")
            self.assertEqual(r.returncode, 1)
            row = json.loads(r.stdout)
            self.assertEqual((row["state"], row["attempt"]), ("poisoned", 3))
            self.assertIn("SIGSEGV", row["error"])
            why = d.ctl("why", d.deaths("crash")[0]["job"])
            self.assertEqual((why.returncode, why.stdout.count("SIGSEGV")), (0, 3), why.stderr)

    def test_a_job_type_that_may_run_once_only_is_lost_not_repeated(self):
        with Drover({"crash": {"Plugin": "crash", "Workers": 1}}) as d:
            with self.assert_error("Lost", "SIGSEGV"):
                d.run("crash", "once")
            self.assertEqual(d.pool("crash")["WorkerDeaths"], 1)


if __name__ == "__main__":
    main()
