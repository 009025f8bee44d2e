"""Workers that are replaced without a dip in strength: recycled, restarted one after the other; and those that do not
come up."""

import os
import shutil
import signal
import threading
import time

from harness import PATIENCE, Drover, Test, kill, main, pause, wait_for


class Sampler:
    """Looks at a pool's workers again and again; .least is the fewest that were at work at once."""

    def __init__(self, d, pool):
        self.d, self.pool, self.least, self.seen, self.is_over = d, pool, 1 << 30, set(), threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.is_over.is_set():
            rows = self.d.list_workers(self.pool)
            self.seen |= {row[3] for row in rows if row[3]}
            self.least = min(self.least, sum(row[4] in ("idle", "running") for row in rows))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        self.thread.join()


class Recycling(Test):
    def test_row_29_ten_pids_for_a_hundred_jobs(self):
        """100 jobs at 10 per worker: 10 processes, and no hole where one follows another."""
        with Drover({"p": {"Plugin": "primes", "Workers": 1, "MaxJobs": 10, "RestartSec": "1s"}}) as d:
            pids, waits = {}, []
            for _ in range(100):
                _, job = d.submit("p", "is_prime", n=97)
                self.assertEqual(d.wait_job(job), "done")
                result = d.result(job)
                pid = result["worker-pid"]
                pids[pid] = pids.get(pid, 0) + 1
                waits.append(result["queue-usec"])
            # The machine may be late with one or another; nine holes are one for each replacement.
            self.assertLess(sorted(waits)[-5], 200000 * PATIENCE)
            self.assertEqual(sorted(pids.values()), [10] * 10)
            self.assertEqual(d.deaths("p"), [])
            self.assertEqual(d.pool("p")["WorkerDeaths"], 0)

    def test_max_jobs_under_load(self):
        with Drover({"p": {"Plugin": "primes", "Workers": 2, "MaxJobs": 1000}}) as d:
            r = d.ctl("map", "p", "is_prime", input="\n".join(str(n) for n in range(20000)))
            self.assertEqual((r.returncode, len(r.stdout.splitlines())), (0, 20000))
            self.assertGreaterEqual(max(row[0] for row in d.list_workers("p")), 20)
            self.assertEqual(d.pool("p")["Retried"], 0)

    def test_the_replacement_is_ready_first(self):
        """A start takes 300 ms here, and no job waits that long."""
        with Drover({"s": {"Plugin": "slow-start", "Workers": 1, "MaxJobs": 40, "StartMethod": "spawn"}}) as d:
            d.wait_workers("s", 1)
            ends = [d.submit("s", "sleep", ms=40)[1] for _ in range(3)]
            for _ in range(90):  # always a few queued, none for long
                ends.append(d.submit("s", "sleep", ms=40)[1])
                self.assertEqual(d.wait_job(ends[-3]), "done")
            pids = {d.result(job)["worker-pid"] for job in ends[:90]}
            self.assertEqual(len(pids), 3)
            self.assertLess(d.get(d.pool_path("s"), "org.drover1.Pool", "Latency")["all"]["queue-max-usec"],
                            200000 * PATIENCE)

    def test_nobody_stands_by_while_nothing_runs(self):
        keys = {"Plugin": "primes", "RestartSec": "1s"}
        with Drover({"one": {**keys, "Workers": 2, "MaxJobs": 1}, "four": {**keys, "Workers": 1, "MaxJobs": 4}}) as d:
            d.wait_workers("one", 2)
            for _ in range(3):
                d.run("one", "is_prime", n=97)
                d.run("four", "is_prime", n=97)
            last = d.wait_workers("four", 2)[0]  # one more job, and it is over
            for pool, n in (("one", 2), ("four", 1)):
                wait_for(lambda pool=pool, n=n: len(d.list_workers(pool)) == n, 10, "as many as Workers= says")
            self.assertEqual(d.list_workers("four")[0][3], last[3])
            d.run("four", "is_prime", n=97)
            wait_for(lambda: last[3] not in {row[3] for row in d.list_workers("four")}, 10, "it is replaced")
            d.run("four", "is_prime", n=97)
            self.assertEqual(d.deaths(), [])

    def test_max_age(self):
        with Drover({"p": {"Plugin": "primes", "Workers": 2, "MaxAge": "1s"}}) as d:
            d.wait_workers("p", 2)
            with Sampler(d, "p") as s:
                wait_for(lambda: len(s.seen) >= 6, 15, "two generations of workers")
            self.assertGreaterEqual(s.least, 2)
            self.assertEqual(d.deaths("p"), [])

    def test_recycle_memory(self):
        with Drover({"m": {"Plugin": "leak", "Workers": 1, "RecycleMemory": "64M"}}) as d:
            first = d.list_workers("m")[0][3]
            d.run("m", "leak", bytes=1 << 20, fds=0)
            pause(1)
            self.assertEqual(d.list_workers("m")[0][3], first)
            with Sampler(d, "m") as s:
                d.run("m", "leak", bytes=80 << 20, fds=0)
                wait_for(lambda: first not in {row[3] for row in d.list_workers("m")}, 10, "it is replaced")
            self.assertEqual(s.least, 1)
            self.assertEqual(d.deaths("m"), [])


class Restarts(Test):
    def test_restart_is_rolling(self):
        """One after the other: the pool is at full strength all the time, and no job notices."""
        with Drover({"p": {"Plugin": "mine", "Workers": 4}}, wait=False) as d:
            def install(source):
                path = os.path.join(d.plugin_dir, "mine.so")
                shutil.copy(os.path.join(d.plugin_dir, source + ".so"), path + ".new")
                os.rename(path + ".new", path)

            install("primes")
            d.pool_call("p", "Start")
            old = {row[3] for row in d.wait_workers("p", 4)}
            process = d.ctl_start("map", "p", "is_prime", stdin=-1, stdout=-1)
            feeder = threading.Thread(target=lambda: (process.stdin.write("999999000001\n" * 1500),
                                                      process.stdin.close()))
            feeder.start()
            with Sampler(d, "p") as s:
                d.pool_call("p", "Restart")
                wait_for(lambda: not old & {row[3] for row in d.list_workers("p")}, 20, "all are replaced")
                d.wait_workers("p", 4)
            self.assertGreaterEqual(s.least, 4)
            lines = process.stdout.read().splitlines()
            feeder.join()
            process.stdout.close()
            self.assertEqual((process.wait(60), len(lines), set(lines)), (0, 1500, {"999999000001\tprime=true"}))
            self.assertEqual(d.pool("p")["Retried"], 0)

    def test_stop_says_what_became_of_the_jobs(self):
        with Drover({"s": {"Plugin": "cancellable", "Workers": 1, "KillGraceSec": "1s"}}) as d:
            jobs = [d.submit("s", "work", ms=60000)[1] for _ in range(4)]
            wait_for(lambda: d.pool("s")["Running"] == 1, 10, "one runs")
            d.pool_call("s", "Stop")
            self.assertEqual([d.wait_job(job) for job in jobs], ["cancelled"] * 4)
            d.wait_state("s", "stopped")
            self.assertIn("pool s is stopped: 3 queued jobs cancelled, 1 running asked to stop", d.log())
            d.pool_call("s", "Start")
            d.wait_workers("s", 1)


class Trouble(Test):
    def test_a_hung_template_shows(self):
        with Drover({"p": {"Plugin": "primes", "Workers": 1}}) as d:
            worker, template = d.wait_workers("p", 1)[0], d.templates()[0]
            os.kill(template, signal.SIGSTOP)
            started = time.monotonic()
            kill(worker[3])
            d.wait_state("p", "starting")
            self.assertGreaterEqual(time.monotonic() - started, 1)  # a moment without workers is no state
            self.assertIn("waits for its process", d.pool("p")["Problem"])
            os.kill(template, signal.SIGCONT)
            d.wait_state("p", "running")
            self.assertEqual(d.pool("p")["Problem"], "")

    def test_idle_workers_that_are_killed_are_no_failed_starts(self):
        with Drover({"p": {"Plugin": "primes", "Workers": 2, "RestartSec": "10ms"}}) as d:
            gone = set()
            for _ in range(12):
                row = wait_for(lambda: next((row for row in d.list_workers("p")
                                             if row[4] == "idle" and row[3] not in gone), None))
                gone.add(row[3])
                kill(row[3])
                wait_for(lambda pid=row[3]: pid not in {r[3] for r in d.list_workers("p")}, 10, "it is gone")
                self.assertEqual(d.pool("p")["State"], "running")
            d.wait_workers("p", 2)
            self.assertEqual(d.pool("p")["WorkerDeaths"], 12)


if __name__ == "__main__":
    main()
