"""Workers killed under load: each kill costs its own attempt and nothing else."""

import fcntl
import json
import os
import random
import signal
import subprocess
import threading

from harness import (IS_SANITIZED, PATIENCE, BusError, Drover, Test, fds_of, is_alive, main, memfds_of, wait_for)

KILLS, MID_JOB = (60, 45) if IS_SANITIZED else (200, 160)
WORKERS, SLOTS = 4, 64

# A few ms each: long enough that a busy pool is always in mid-job, short enough that a run has thousands of them.
NUMBERS = {999999999989: True, 999983 * 999979: False, 999999000001: True}


class Load:
    """droverctl map, fed with one line after the other until told to stop."""

    def __init__(self, d):
        self.sent, self.rows, self.is_over = [], [], threading.Event()
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
            n = random.choice(numbers)
            self.sent.append(n)
            self.process.stdin.write(f"{n}\n")
            self.process.stdin.flush()
        self.process.stdin.close()

    def read(self):
        for line in self.process.stdout:
            self.rows.append(json.loads(line))

    def finish(self):
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
    def kill_one(self, d, want_busy):
        """Stops a worker so that its state cannot change, looks whether it holds a job, kills it. Was it in mid-job?
        None: it was not as wanted and goes on."""
        rows = d.list_workers("primes")
        _, _, path, pid, _ = random.choice(rows)
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
            if is_busy != want_busy or properties["State"] not in ("idle", "running"):
                signal.pidfd_send_signal(pidfd, signal.SIGCONT)
                return None
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
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
            before, counters = self.settle(d), d.pool("primes")

            load = Load(d)
            wait_for(lambda: len(load.rows) > 50, 20, "the load runs")
            self.kill_many(d, MID_JOB, True)
            self.assertEqual(load.finish(), 0)
            d.wait_workers("primes", WORKERS, seconds=1)

            # The rest while idle: after each the pool is whole again within a second.
            self.kill_many(d, KILLS - MID_JOB, False, lambda: self.back_to_strength(d))

            self.assertEqual([row["input"] for row in load.rows], [str(n) for n in load.sent])
            for row in load.rows:
                self.assertEqual(row["state"], "done", row)
                self.assertEqual(row["result"]["prime"], NUMBERS[int(row["input"])], row)
            self.assertEqual(sum(row["attempt"] - 1 for row in load.rows), MID_JOB)

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
            return len(rows) == WORKERS and all(row[4] == "idle" and is_alive(row[3]) for row in rows)
        wait_for(whole, 1, "the pool is back to strength")

    def settle(self, d):
        """The inventory, once the sessions of earlier clients are gone."""
        wait_for(lambda: d.get("/org/drover1", "org.drover1.Manager", "NSessions") == 0, 10, "no session is left")
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
            jobs = [d.submit("primes", "is_prime", n=1099726899285419) for _ in range(12)]
            self.kill_primes(d, 5)
            attempts = 0
            for _, path in jobs:
                self.assertEqual(d.wait_job(path, 60), "done")
                result = d.result(path)
                self.assertEqual(result["result"], {"prime": False})
                attempts += result["attempts"] - 1
            self.assertEqual(attempts, 5)
            deaths = d.deaths("primes")
            self.assertEqual(len(deaths), 5)
            for death in deaths:
                self.assertEqual((death["reason"], death["status"]), ("signal", 9))
                self.assertNotEqual(death["job"], 0)

    def kill_primes(self, d, n):
        self.kill_many(d, n, True)

    def test_a_job_past_its_attempts_by_kills_is_poisoned_and_says_so(self):
        with Drover({"primes": {"Plugin": "primes", "Workers": 1, "MaxAttempts": 2}}) as d:
            d.wait_workers("primes", 1)
            number, path = d.submit("primes", "is_prime", n=18446744073709551557)
            self.kill_many(d, 2, True)
            self.assertEqual(d.wait_job(path), "poisoned")
            result = d.result(path)
            self.assertEqual((result["state"], result["reason"], result["signal"], result["attempts"]), ("poisoned", "signal", 9, 2))
            why = d.ctl("why", number).stdout
            self.assertIn("poisoned", why)
            self.assertIn("SIGKILL", why)
            self.assertIn("Attempt 1", why)
            self.assertIn("Attempt 2", why)
            with self.assertRaises(BusError) as e:
                d.run("primes", "is_prime", options={"max-attempts": ("u", 99999)}, n=2)
            self.assertIn("max-attempts", e.exception.text)
            self.assertEqual(d.run("primes", "is_prime", n=97), {"prime": True})


if __name__ == "__main__":
    main()
