"""The programs of a torture run as Python sees them: what they said, and which of the long waits they had are somebody's fault.

A wait is excused while something that the run itself did stood in its way: a worker or client that was stopped, no spawner,
a machine that had no CPU to give (all programs measure that all the time). What is left counts from the last death before
its end: that is the time that somebody was left waiting past a death.
"""

import collections
import os
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))

from harness import BUILD  # noqa: E402

NS = 1000000000
ASLEEP_NS = 15000000  # beside work, and nobody even ready to run: told in pieces of 20 ms, and no matter of patience


class Part:
    """One program, and a thread that listens to it."""

    def __init__(self, record, name, words, env):
        self.name, self.record = name, record
        self.process = subprocess.Popen([f"{BUILD}/tests/torture/torture-{name}", *map(str, words)], env=env, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, text=True, errors="replace")
        self.is_ready = threading.Event()
        self.was_killed = False
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()

    @property
    def pid(self):
        return self.process.pid

    def listen(self):
        for line in self.process.stdout:
            kind, _, rest = line.rstrip("\n").partition(" ")
            if kind == "ready":
                self.is_ready.set()
            elif not self.record.take(kind, rest, f"{self.name} {self.pid}"):
                self.record.fail(f"{self.name} {self.pid} said: {line.strip()}")
        self.process.stdout.close()
        self.is_ready.set()

    def join(self, seconds):
        """Its exit code, once all it said is taken."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.record.fail(f"{self.name} {self.pid} does not end")
            self.process.kill()
            code = self.process.wait()
        self.listener.join()
        return code


class Record:
    """Everything that was said and done, and the judgement of it."""

    def __init__(self, clock):
        self.clock = clock
        self.start = clock()
        self.lock = threading.Lock()
        self.failures, self.slow, self.windows, self.deaths, self.runs = [], [], [], [], []
        self.spawner_deaths = []  # (killed, all workers new): nobody's attempt
        self.counts = collections.Counter()

    def take(self, kind, rest, who):
        words = rest.split()
        with self.lock:
            if kind == "fail":
                self.failures.append((self.clock(), f"{who}: {rest}"))
            elif kind == "slow":
                self.slow.append((words[0], int(words[1]), int(words[2]), " ".join([who] + words[3:])))
            elif kind == "stall":
                self.windows.append((int(words[0]), int(words[1])))
            elif kind == "runs":
                self.runs.append((int(words[0]), int(words[1]), int(words[2]), int(words[3]), who))
            elif kind == "count":
                self.counts[words[0]] += int(words[1])
            else:
                return False
        return True

    def fail(self, text):
        with self.lock:
            self.failures.append((self.clock(), text))

    def death(self, when):
        with self.lock:
            self.deaths.append(when)

    def excuse(self, since, until):
        with self.lock:
            self.windows.append((since, until))

    def judge(self, limit_ns):
        """Longest wait past a death in ns, how many waits lasted too long, and how many were excused; the former are failures."""
        longest, n_bad, n_excused = 0, 0, 0
        for what, since, until, who in self.slow:
            died = max((d for d in self.deaths if since <= d <= until), default=None)
            begin, bare = max(since, died or 0), until
            for a, b in sorted(self.windows):
                if a < bare and b > begin:  # only what came after the last excuse counts
                    begin = min(max(begin, b), bare)
            left = bare - begin
            if left < until - max(since, died or 0):
                n_excused += 1
            if died:
                longest = max(longest, left)
            if left > (ASLEEP_NS if what.endswith("asleep") else limit_ns):
                n_bad += 1
                self.failures.append((until, f"{who}: {what} waited {(until - since) / 1e6:.0f} ms, {left / 1e6:.0f} ms of them "
                                             f"{'past a death' if died else 'for no reason'}"))
        return longest, n_bad, n_excused

    def judge_runs(self):
        for n, job, since, until, who in self.runs:
            if n > sum(since <= b and a <= until for a, b in self.spawner_deaths):
                self.failures.append((until, f"{who}: job {job} ran {n} times more often than it had attempts"))

    def report_failures(self):
        for when, text in sorted(self.failures)[:20]:
            print(f"  at {(when - self.start) / NS:.3f} s: {text}")
        if len(self.failures) > 20:
            print(f"  and {len(self.failures) - 20} more")
