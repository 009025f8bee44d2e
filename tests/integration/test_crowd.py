"""Everything that somebody hostile does, all at once, to a system's droverd: it lives, others hardly notice, and nothing is left.

Three hostile users and an honest one. Hostile are callers that send rubbish as fast as they can, names that come and go, holders
of channels who do to their descriptors whatever can be done, jobs that write over their worker's shared memory, a log that nobody
reads and a plugin file that nobody can read. The honest user calls over the bus and through a channel of a pool that holders have
channels of, too. What that takes is compared with what it takes at the same time in a twin, which nobody attacks, and a call of
droverd with a ping between two honest programs on the same bus: so it is about droverd, and not about the scheduler and the bus.

DROVER_TEST_SECONDS: how long (30).
"""

import os
import statistics
import subprocess
import time
import unittest

import fuse
from harness import (BUILD, IS_SANITIZED, PATIENCE, Broken, Test, assert_in_time, fds_of, kill, main, memfds_of, pause, rss_kib, wait_for, wait_surely)
from system import PIPE_BYTES, System
from test_floods import stats_of

SECONDS = float(os.environ.get("DROVER_TEST_SECONDS") or 30)
WINDOW = 2
CALLERS, HOLDER, HONEST, SCRAWLER = 23001, 23002, 23003, 23004  # uids; a share of the bus for who scrawls

RUN_MS = 100
TIMES = 2
TURNS_MS = 25
NAMES = 600
RSS_KIB = 16 << 10

POOLS = {
    "p": {"Plugin": "echo", "Workers": 2},
    "scrawled": {"Plugin": "scrawl", "Workers": 1, "RestartSec": "10ms", "MaxAttempts": 1, "HardTimeout": "3s", "MaxAge": "1s"},
    "emits": {"Plugin": "emits", "Workers": 1},
}

# Of one uid: what they call, connections, calls under way (0: replies are not read; -1: none is wanted).
TWELVE = [("rubbish", 1, 16), ("rubbish", 1, 16), ("rubbish", 1, 64), ("rubbish", 1, -1), ("rubbish", 1, -1), ("rubbish", 1, 0), ("rubbish", 1, 0),
          ("open", 1, 16), ("open", 1, 64), ("big", 1, 4), ("fds", 1, 16), ("list-deaths", 1, 32)]


class Program:
    def __init__(self, d, name, *words):
        self.name = " ".join(map(str, (name, *words)))
        env = dict(d.env(), ASAN_OPTIONS="detect_leaks=0")  # they leave in the middle of everything
        self.process = subprocess.Popen([f"{BUILD}/tests/integration/{name}", *map(str, words)], env=env, text=True, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)

    def read(self):
        line = self.process.stdout.readline().strip()
        if not line or line.startswith("failed"):
            raise Broken(f"{self.name}: {line or 'it ended'}")
        return line

    def ask(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return [int(word) for word in self.read().split()]

    def end(self):
        """What it says at its end; None: it hangs in what it did, or died of it."""
        self.process.stdin.close()
        try:
            self.process.wait(10 * PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        lines = self.process.stdout.read().split("\n")
        self.process.stdout.close()
        return lines[-2] if len(lines) > 1 else None


class Crowd:
    """All of it, at one droverd."""

    def __init__(self, d, seed):
        self.names = [Program(d, "crowd", uid, "names", "p", seed) for uid in (CALLERS, HOLDER)]
        self.shares = Program(d, "crowd", HOLDER, "shares", "p", seed)
        self.jobs = Program(d, "crowd", SCRAWLER, "jobs", "scrawled", seed)
        self.callers = [Program(d, "flooder", what, CALLERS, n, window) for what, n, window in TWELVE]
        self.all = [*self.names, self.shares, self.jobs, *self.callers]
        for program in self.all:
            assert program.read() == "ready", program.name

    def end(self):
        said = {p: p.end() for p in self.all}
        self.n_names = sum(int(said[p] or 0) for p in self.names)
        self.n_streams, self.n_shares = map(int, (said[self.shares] or "0 0").split())
        self.n_jobs = int(said[self.jobs] or 0)
        self.n_calls = [said[p] for p in self.callers]

    def __str__(self):
        calls = "; ".join(f"{p.name.split()[1]} {said}" for p, said in zip(self.callers, self.n_calls))
        return (f"{self.n_names} names, {self.n_shares} rounds of holders with {self.n_streams} streams, {self.n_jobs} jobs that scrawl; "
                f"calls sent, answered, refused: {calls}")


@unittest.skipIf(IS_SANITIZED and "DROVER_TEST_SECONDS" not in os.environ, "under a sanitizer only for DROVER_TEST_SECONDS=: its limits are times")
@unittest.skipUnless(os.geteuid() == 0 and fuse.is_there(), "needs root, to be many users, and FUSE")
class AllAtOnce(Test):
    is_about_losses = True

    def holds(self):
        """What droverd and its spawner have now of what could be left over."""
        d = self.d
        kinds = {"descriptors": len(fds_of(d.pid)), "memories": len(memfds_of(d.pid)), "descriptors of the spawner": len(fds_of(d.spawner())),
                 "processes": len(d.pids()), "rules": (stats_of(d) or {}).get("MatchRules", 0), "sessions": d.get("/org/drover1", "org.drover1.Manager", "NSessions")}
        for pool in POOLS:
            properties = d.pool(pool)
            kinds.update({f"{pool}: {key}": properties[key] for key in ("Queued", "Running")})
        return kinds

    def measure(self):
        """Of each honest program a row for each window: calls, p50, p99 and the slowest, in us."""
        rows = {name: [] for name in self.honest}
        for _ in range(round(SECONDS / WINDOW)):
            pause(WINDOW)
            for name, program in self.honest.items():
                rows[name].append(program.ask())
        return rows

    def flood(self):
        d = self.d
        with fuse.HungFile(f"{d.plugin_dir}/hung.so", f"{BUILD}/plugins/primes/primes.so") as hung:
            d.write_pool("hung", Plugin="hung", Workers=1)
            crowd = Crowd(d, 2)
            d.reload()
            self.assertTrue(hung.is_read())
            rows = self.measure()
            crowd.end()
            d.remove_pool_file("hung")
            d.reload()
            hung.let_go()
        print("crowd:", crowd)
        self.assertGreaterEqual(crowd.n_names, NAMES)
        self.assertGreater(crowd.n_shares, SECONDS / 10)
        self.assertGreater(crowd.n_streams, 0)
        if not IS_SANITIZED:  # few have a verdict: who should give it wrote over what it needs for that, and many die of it
            n_deaths = sum(death["pool"] == "scrawled" and death["reason"] == "signal" for death in d.deaths())
            print(f"{n_deaths} workers that scrawled died of it")
            self.assertGreater(crowd.n_jobs + n_deaths, 0)
        for name, of in rows.items():
            print(f"{name:<8} {sum(row[0] for row in of)} calls; ms of the slowest hundredth by window", *(f"{row[2] / 1e3:.1f}" for row in of))
        return rows

    def check_nothing_is_kept(self):
        def what_is_more():
            return {key: value for key, value in self.holds().items() if value > self.before[key]}
        try:
            wait_surely(lambda: not what_is_more(), 10, "nothing of the crowd is left")
        except AssertionError as late:
            raise type(late)(f"{late}: {what_is_more()}, before {self.before}") from None

    def check_serves(self):
        """Each pool, also the one whose memory was written over, once those who did it are dead."""
        for row in self.d.list_workers("scrawled"):
            kill(row[3])
        raw = {"payload": b"x"}
        for pool, job, arguments in (("p", "echo", raw), ("scrawled", "rest", raw), ("emits", "count", {"n": 3, "bytes": 10, "pause_ms": 0})):
            began = time.monotonic()
            self.d.run(pool, job, **arguments)
            assert_in_time(time.monotonic() - began, 2 * PATIENCE, f"pool {pool} serves")

    def check_times(self, rows):
        """Of the windows' slowest hundredths the medians: others keep the machine busy, too."""
        run, ping, channel = (statistics.median(row[2] for row in rows[name]) / 1e3 for name in ("run", "ping", "channel"))
        times = statistics.median(here[2] / there[2] for here, there in zip(rows["channel"], rows["twin"]))
        print(f"slowest hundredth: Run {run:.1f} ms, of which the bus takes {ping:.1f} ms; a channel {channel:.1f} ms, "
              f"{times:.2f} times the twin's")
        if not IS_SANITIZED:
            # What callers do to the bus is the bus's business: a call and its answer may take long on it, whoever is called.
            assert_in_time(run, max(RUN_MS, 2 * ping), "ms, the slowest hundredth of an honest Run")
            # Beside so many processes a job waits for a CPU: a few turns of the scheduler are nobody's fault.
            if channel > TURNS_MS:
                assert_in_time(times, TIMES, "times what the slowest hundredth of a channel's jobs takes elsewhere")

    def start_honest(self, twin):
        d = self.d
        peer = Program(d, "flooder", "echo")
        self.honest = {"run": Program(d, "honest", HONEST, "run", "p"), "channel": Program(d, "honest", HONEST, "channel", "p"),
                       "ping": Program(d, "honest", HONEST, "ping", peer.read()), "twin": Program(twin, "honest", HONEST, "channel", "p")}
        for program in self.honest.values():
            self.assertEqual(program.read(), "ready")
        return [*self.honest.values(), peer]

    def test_all_at_once(self):
        with System({"p": POOLS["p"]}) as twin, System(POOLS, is_log_read=False) as self.d:
            honest = self.start_honest(twin)
            pid, self.before, rss = self.d.pid, self.holds(), rss_kib(self.d.pid, "VmRSS")
            rows = self.flood()
            self.assertIsNone(self.d.process.poll(), "droverd lives")
            self.assertGreater(self.d.unread_bytes(), PIPE_BYTES * 3 // 4, "bytes of its log that nobody reads: there is no room for a line")
            self.check_serves()
            for program in honest:
                program.end()
                self.assertEqual(program.process.returncode, 0, program.name)
            twin.end()
            self.before["sessions"] -= 1
            self.check_nothing_is_kept()
            print(f"resident memory of droverd: {rss} KiB before, {rss_kib(pid, 'VmRSS')} after")
            if not IS_SANITIZED:  # which keep what is freed
                wait_for(lambda: rss_kib(pid, "VmRSS") < rss + RSS_KIB, 10, "its memory is given back")
            self.check_times(rows)


if __name__ == "__main__":
    main()
