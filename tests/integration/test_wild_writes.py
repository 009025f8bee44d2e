"""A worker writes over what it shares with its pool, and dies: the pool serves again by itself, and no other pool
notices.

DROVER_SCRIBBLE_SECONDS= is for how long anything is written anywhere after each word had its turn (some seconds)."""

import os
import signal
import subprocess
import time

from harness import BUILD, PATIENCE, Drover, Test, main, pause, wait_for

CLIENT = f"{BUILD}/tests/integration/wild-client"
SECONDS = int(os.environ.get("DROVER_SCRIBBLE_SECONDS", "3"))
POOL = {"Plugin": "wild", "Workers": 3, "Slots": 16, "RestartSec": "1ms", "StartLimitBurst": 1000, "Capsules": 0}
CLOCK = os.sysconf("SC_CLK_TCK")


def cpu_of(pids):
    """In s."""
    ticks = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
            ticks += sum(map(int, f.read().rpartition(")")[2].split()[11:13]))
    return ticks / CLOCK


class WildWrites(Test):
    def serve(self, d, pool):
        self.assertEqual(d.wait_job(d.submit(pool, "work", ms=0)[1]), "done")

    def assert_quiet(self, d):
        """Nobody spins."""
        pids = [d.pid, *[row[3] for row in d.list_workers()]]
        before, began = cpu_of(pids), time.monotonic()
        pause(0.5)
        self.assertLess(cpu_of(pids) - before, 0.2 * (time.monotonic() - began), "somebody spins")

    def test_each_word_and_then_anything(self):
        with Drover({"p": POOL, "other": {**POOL, "Workers": 1}}) as d:
            others = [row[3] for row in d.list_workers("other")]
            r = subprocess.run([CLIENT, "p", "other", str(SECONDS)], env=d.env(), capture_output=True, text=True,
                               timeout=SECONDS + 100 * PATIENCE, check=False)
            self.assertEqual(r.returncode, 0, r.stdout[-3000:] + r.stderr[-2000:])
            self.assertNotIn("WRONG", r.stdout)
            times, late = map(int, r.stdout.split("TIMES ")[1].split(" LATE "))
            self.assertGreater(times, 200)
            self.assertLess(late, 2 + times / 20, "of them took more than a second")
            self.assertEqual([row[3] for row in d.list_workers("other")], others, "no other pool noticed")
            self.serve(d, "p")
            wait_for(lambda: [row[4] for row in d.list_workers("p")] == ["idle"] * 3, 10, "all workers are back")
            self.assert_quiet(d)

    def write(self, d, pool, where, offset, value, bytes=8, lives=1):
        """By a worker that lives on."""
        job = d.submit(pool, "write", where=where, index=0, offset=offset, bytes=bytes, value=value, lives=lives)[1]
        return d.wait_job(job)

    def test_one_that_lives_on_and_an_operator(self):
        """A stray write of a plugin that goes on: Restart replaces its worker, and the pool is as new."""
        muted, placeless = 72, 32
        with Drover({"p": {**POOL, "Workers": 2}}) as d:
            for offset in (muted, placeless):
                self.assertEqual(self.write(d, "p", "pool", offset, 2**64 - 1), "done")
            before = {row[3] for row in d.list_workers("p")}
            job = d.submit("p", "work", ms=0)[1]
            d.pool_call("p", "Restart")
            self.assertEqual(d.wait_job(job), "done")
            wait_for(lambda: len(d.list_workers("p")) == 2 and not before & {row[3] for row in d.list_workers("p")}, 10,
                     "its workers are replaced")
            self.serve(d, "p")

    def test_one_that_writes_on_and_on(self):
        """It may spoil its pool as long as it lives. Others are served, it ends when its time is over or an operator
        says so, and then its pool serves again."""
        with Drover({"p": {**POOL, "Workers": 2, "KillGraceSec": "200ms"}, "q": POOL}) as d:
            others = [row[3] for row in d.list_workers("q")]
            for end in ("limit", "Stop", "Restart"):
                options = {"max-attempts": ("u", 1)}
                if end != "Stop":
                    options["hard-timeout"] = ("t", 1000000)
                attack = d.submit("p", "for_ever", options=options)[1]
                spent, began = cpu_of([d.pid]), time.monotonic()
                for _ in range(20):
                    started = time.monotonic()
                    self.serve(d, "q")
                    self.assertLess(time.monotonic() - started, 5)
                share = (cpu_of([d.pid]) - spent) / (time.monotonic() - began)
                self.assertLess(share, 0.5, "the broker works for one pool only")
                if end != "limit":
                    d.pool_call("p", end)
                d.wait_job(attack)  # whatever it writes over it
                if end == "Stop":
                    wait_for(lambda: not d.list_workers("p"), 20, "its workers are gone")
                    d.pool_call("p", "Start")
                wait_for(lambda: not any(row[4] == "running" for row in d.list_workers("p")), 20, "it is gone")
                d.wait_state("p", "running")
                self.serve(d, "p")
            self.assertEqual([row[3] for row in d.list_workers("q")], others)
            wait_for(lambda: [row[4] for row in d.list_workers("p")] == ["idle"] * 2, 20, "its workers are replaced")
            self.assert_quiet(d)

    def test_one_that_nobody_saw_begin(self):
        """It wrote over its job before droverd looked at it: it is ended all the same, and its pool serves."""
        with Drover({"p": {**POOL, "Workers": 1, "KillGraceSec": "200ms"}}) as d:
            first = d.submit("p", "work", ms=500)[1]
            wait_for(lambda: d.list_workers("p")[0][4] == "running", 10, "the first one runs")
            attack = d.submit("p", "for_ever", options={"max-attempts": ("u", 1), "hard-timeout": ("t", 1000000)})[1]
            writer = d.list_workers("p")[0][3]
            os.kill(d.pid, signal.SIGSTOP)
            try:
                spent = cpu_of([writer])
                wait_for(lambda: cpu_of([writer]) - spent > 0.2, 20, "it writes")
            finally:
                os.kill(d.pid, signal.SIGCONT)
            d.wait_job(first)
            d.wait_job(attack)  # whatever it wrote over it
            self.serve(d, "p")
            self.assertNotEqual(d.list_workers("p")[0][3], writer)

    def test_from_none(self):
        """The last worker of a pool that may have none writes, and dies: the next job starts one."""
        with Drover({"p": {**POOL, "Workers": 2, "MinWorkers": 0, "MaxWorkers": 2}}) as d:
            for offset, bytes in ((72, 4), (128, 8), (160, 8), (192, 8)):  # mode, sleepers, spinners, work
                for value in (0, 1, 2**64 - 1):
                    self.write(d, "p", "bell", offset, value, bytes, lives=0)
                    self.serve(d, "p")


if __name__ == "__main__":
    main()
