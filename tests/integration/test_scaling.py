"""How many workers a pool has: by its load, and by its operator."""

import subprocess
import threading
import time
import unittest

from harness import IS_SANITIZED, PATIENCE, Drover, Test, main, pause, wait_for
from test_idle import counters


class Scaling(Test):
    def test_from_none_to_many_and_back(self):
        with Drover({name: {"Plugin": "sleep", "MinWorkers": 0, "MaxWorkers": 3} for name in "sd"}) as d:
            self.assertEqual([d.pool("s")[key] for key in ("MinWorkers", "MaxWorkers")], [0, 3])
            for look in (self.look_after_a_pause, self.look_after_a_drain):
                wait_for(lambda: not d.list_workers("s"), 15, "the pool has no worker")
                self.assertEqual(d.pool("s")["State"], "running")
                jobs = [d.submit("s", "sleep", ms=150)[1] for _ in range(16)]
                wait_for(lambda: len(d.list_workers("s")) == 3, 10, "the pool has all its workers")
                wait_for(lambda: not d.list_workers("d"), 15, "nor has the other one")
                look(d)
                for job in jobs:
                    self.assertEqual(d.wait_job(job), "done")
            pool = d.pool("s")
            self.assertEqual((pool["Completed"], pool["Retried"], pool["WorkerDeaths"]), (32, 0, 0))
            self.assertEqual(d.deaths("s"), [])

    def look_after_a_pause(self, d):
        """Who rang meanwhile rang in vain: the pool itself looks at its queues once it serves again."""
        d.pool_call("d", "Pause")
        jobs = [d.submit("d", "sleep", ms=1)[1],
                d.submit("d", "sleep", {"not-before": int(time.time() * 1e6) + 100000}, ms=1)[1]]
        process = d.ctl_start("map", "d", "sleep", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        process.stdin.write("1\n")
        process.stdin.close()
        wait_for(lambda: d.pool("d")["Queued"] == 3, 10, "a job of a channel is queued, too")
        pause(0.2)  # the one that waits for its time is due
        self.assertEqual(d.list_workers("d"), [])
        d.pool_call("d", "Resume")
        self.assertEqual([d.wait_job(job) for job in jobs], ["done"] * 2)
        self.assertEqual(process.wait(20 * PATIENCE), 0)

    def look_after_a_drain(self, d):
        d.pool_call("d", "Resize", "u", 1)
        jobs = [d.submit("d", "sleep", ms=50)[1] for _ in range(5)]
        d.write_pool("d", Plugin="sleep", MinWorkers=0, MaxWorkers=3, MaxAttempts=2)
        d.reload()  # as many as the queue asks for, and it is not empty
        self.assertEqual([d.wait_job(job) for job in jobs], ["done"] * 5)
        d.pool_call("d", "Pause")
        d.pool_call("d", "Stop")
        d.wait_state("d", "stopped")
        d.pool_call("d", "Start")
        d.wait_state("d", "paused")
        _, job = d.submit("d", "sleep", ms=1)
        self.assertEqual(d.ctl("drain", "d", timeout=20).returncode, 0)
        self.assertEqual(d.wait_job(job), "done")

    @unittest.skipIf(IS_SANITIZED, "sanitizers have threads and work of their own")
    def test_without_workers_nothing_runs(self):
        with Drover({"p": {"Plugin": "primes", "MinWorkers": 0, "MaxWorkers": 4}}) as d:
            wait_for(lambda: not d.list_workers("p"), 15, "the pool has no worker")
            pause(2)
            pids = {d.pid: "droverd", **d.pids()}
            before = counters(pids)
            pause(4)  # longer than the pool waits before it lets a worker go
            self.assertEqual(counters(pids), before)

            # and a client's bell wakes it
            r = d.ctl("map", "p", "is_prime", input="\n".join(str(n) for n in range(2000)))
            self.assertEqual((r.returncode, len(r.stdout.splitlines())), (0, 2000))
            self.assertTrue(d.list_workers("p"))

    def test_a_rate_asks_for_no_workers(self):
        with Drover({"p": {"Plugin": "primes", "MinWorkers": 1, "MaxWorkers": 4, "RateLimit": "8/s"}}) as d:
            jobs = [d.submit("p", "is_prime", n=97)[1] for _ in range(16)]
            most = 0
            for job in jobs:
                self.assertEqual(d.wait_job(job), "done")
                most = max(most, len(d.list_workers("p")))
            self.assertLess(most, 3)  # a worker that is caught with a job in hand may win a second one

    def test_bounds_are_live(self):
        with Drover({"p": {"Plugin": "primes", "MinWorkers": 1, "MaxWorkers": 2}}) as d:
            d.wait_workers("p", 1)
            d.write_pool("p", Plugin="primes", MinWorkers=3, MaxWorkers=4)
            self.assertEqual(d.reload(), [["pool", "p", "changed: MinWorkers, MaxWorkers"]])
            d.wait_workers("p", 3)
            d.pool_call("p", "Resize", "u", 2)
            wait_for(lambda: len(d.list_workers("p")) == 2, 10, "Resize holds whatever the bounds were")
            self.assertEqual([d.pool("p")[key] for key in ("MinWorkers", "MaxWorkers")], [2, 2])
            self.assertEqual(d.reload(), [], "until a reload changes the pool")
            self.assertEqual([d.pool("p")[key] for key in ("MinWorkers", "MaxWorkers")], [2, 2])
            d.write_pool("p", Plugin="primes", MinWorkers=3, MaxWorkers=4, MaxAttempts=2)
            self.assertEqual(d.reload(), [["pool", "p", "changed: MaxAttempts"]])
            self.assertEqual([d.pool("p")[key] for key in ("MinWorkers", "MaxWorkers")], [3, 4])

    def test_resize_live(self):
        """2 → 8 → 1 under load: nothing is lost."""
        with Drover({"p": {"Plugin": "primes", "Workers": 2}}) as d:
            process = d.ctl_start("map", "p", "is_prime", stdin=-1, stdout=-1)
            feeder = threading.Thread(target=lambda: (process.stdin.write("999999000001\n" * 2000),
                                                      process.stdin.close()))
            feeder.start()
            for n in (8, 1, 8, 1, 4):
                d.pool_call("p", "Resize", "u", n)
                wait_for(lambda n=n: len(d.list_workers("p")) == n, 20, f"{n} workers")
            lines = process.stdout.read().splitlines()
            feeder.join()
            process.stdout.close()
            self.assertEqual((process.wait(60), len(lines), set(lines)), (0, 2000, {"999999000001\tprime=true"}))
            self.assertEqual(d.pool("p")["Retried"], 0)


if __name__ == "__main__":
    main()
