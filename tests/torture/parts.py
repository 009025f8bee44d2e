"""The programs of a torture run as Python sees them: what they said, and which of the long waits they had are
somebody's fault.

From a wait is taken exactly the time in which somebody that could have ended it, or the waiter itself, was stopped by
the run, or was ready and had no CPU (the sampler reads that from the kernel's books), or in which there was no spawner.
What is left counts from the last death that the wait can have suffered from: that is how long somebody was left waiting
past it.

A run fails by what was lost, doubled or left over, or was answered wrongly (Record.fail: said at once, and marked), or
only because something took too long (Record.late). ./check runs it once more in the second case alone.
"""

import bisect
import collections
import os
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))

from harness import BUILD, Late, say_broken  # noqa: E402

NS = 1000000000
EVERYBODY = ("machine", "droverd", "drover-spawn", "drover-worker")  # the last: not yet told which pool it is of
DEATHS_OF_A_KILLER = 3  # each may cost the limit
# a wait without a death is one in a queue; what would make it last, a lost wake-up, is looked for elsewhere
QUEUE_LIMITS = 5
STALL_NS = 8000000  # of a waker between publishing and waking: less than what a watched wait waits for it


class Part:
    """One program, and a thread that listens to it."""

    def __init__(self, record, name, words, env, pool=None):
        self.name, self.record, self.pool = name, record, pool
        self.process = subprocess.Popen([f"{BUILD}/tests/torture/torture-{name}", *map(str, words)], env=env,
                                        stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        self.is_ready = threading.Event()
        self.was_killed = False
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()

    @property
    def pid(self):
        return self.process.pid

    @property
    def group(self):
        """Whose stops and delays are its own: sharers wait for each other, clients for their pool."""
        return "sharer" if self.name == "sharer" else f"{self.name} {self.pid}"

    def concerns(self):
        return {self.group, self.pool, *EVERYBODY}

    def listen(self):
        for line in self.process.stdout:
            kind, _, rest = line.rstrip("\n").partition(" ")
            if kind == "ready":
                self.is_ready.set()
            elif not self.record.take(kind, rest, self):
                self.record.fail(f"{self.name} {self.pid} said: {line.strip()}")
        self.process.stdout.close()
        self.is_ready.set()

    def join(self, seconds):
        """Its exit code, once all it said is taken."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.record.late(f"{self.name} {self.pid} does not end")  # what it waited for is its caller's to judge
            self.process.kill()
            code = self.process.wait()
        self.listener.join()
        return code


Slow = collections.namedtuple("Slow", "what since until who concerns")
Judged = collections.namedtuple("Judged", "n_past_death n_judged excused longest longest_text")


def group_of(name, pid):
    """Of a process's name, as ps shows it: the pool of a worker or template, …"""
    if name.startswith(("drw:", "drt:")):
        return name[4:]
    if name.startswith("torture-"):
        return "sharer" if name == "torture-sharer" else f"{name[8:]} {pid}"
    return name


class Record:
    """Everything that was said and done, and the judgement of it."""

    def __init__(self, clock):
        self.clock = clock
        self.start = clock()
        self.lock = threading.Lock()
        self.failures, self.slow, self.rescued, self.runs = [], [], [], []
        self.deaths = collections.defaultdict(list)   # group -> when
        self.windows = collections.defaultdict(list)  # group -> (since, until, why)
        self.spawner_deaths = []  # (killed, all workers new): nobody's attempt
        self.counts = collections.Counter()

    def take(self, kind, rest, part):
        words, who = rest.split(), f"{part.name} {part.pid}"
        with self.lock:
            if kind == "fail":
                self.add_broken(f"{who}: {rest}")
            elif kind == "late":
                self.failures.append((self.clock(), f"late: {who}: {rest}"))
            elif kind == "slow":
                text = " ".join([who, *filter(None, [part.pool]), *words[3:]])
                self.slow.append(Slow(words[0], int(words[1]), int(words[2]), text, part.concerns()))
            elif kind == "rescued":
                self.rescued.append((words[0], int(words[1]), int(words[2]), who, part.concerns()))
            elif kind == "delay":
                self.windows[group_of(words[0], words[1])].append((int(words[2]), int(words[3]), "no CPU"))
            elif kind == "died":  # a worker, of a job that kills
                self.deaths[part.pool].append(int(words[0]))
            elif kind == "runs":
                self.runs.append((int(words[0]), int(words[1]), int(words[2]), int(words[3]), who))
            elif kind == "count":
                self.counts[words[0]] += int(words[1])
            else:
                return False
        return True

    def add_broken(self, text, when=None):
        """With the lock held."""
        say_broken(text)
        self.failures.append((when or self.clock(), text))

    def fail(self, text):
        with self.lock:
            self.add_broken(text)

    def late(self, text):
        with self.lock:
            self.failures.append((self.clock(), f"late: {text}"))

    def death(self, group, when):
        with self.lock:
            self.deaths[group].append(when)

    def excuse(self, group, since, until, why):
        with self.lock:
            self.windows[group].append((since, until, why))

    def sort(self):
        """Before judging: a long run has a million of them."""
        for rows in self.windows.values():
            rows.sort()
        for rows in self.deaths.values():
            rows.sort()
        self.longest_window = {group: max(b - a for a, b, _ in rows) for group, rows in self.windows.items()}

    def last_death(self, since, until, concerns):
        found = None
        for group in concerns:
            rows = self.deaths.get(group, ())
            at = bisect.bisect_right(rows, until) - 1
            if at >= 0 and rows[at] >= since:
                found = max(found or 0, rows[at])
        return found

    def whole_windows(self, since, until, concerns):
        """Those that touch [since, until]."""
        for group in concerns:
            rows = self.windows.get(group, ())
            begin = bisect.bisect_left(rows, (since - self.longest_window.get(group, 0),))
            yield from (row for row in rows[begin:bisect.bisect_left(rows, (until,))] if row[1] > since)

    def left_of(self, since, until, concerns):
        """(ns of [since, until] outside of all windows, reason -> ns of the windows' part)"""
        windows = sorted((max(a, since), min(b, until), why) for a, b,
                         why in self.whole_windows(since, until, concerns))
        left, at, why_ns = 0, since, collections.Counter()
        for a, b, why in windows:
            if a > at:
                left += a - at
            if b > at:
                why_ns[why] += b - max(a, at)
                at = b
        return left + max(0, until - at), why_ns

    def judge(self, limit_ns):
        """Judges all slow waits; those that lasted too long are failures. Excused: too long, but for what was taken
        away."""
        self.sort()
        n_past_death, excused, longest, longest_text = 0, collections.Counter(), 0, ""
        for s in self.slow:
            died = self.last_death(s.since, s.until, s.concerns)
            limit = limit_ns * (DEATHS_OF_A_KILLER + QUEUE_LIMITS if s.what == "poison" else 1 if died
                                else QUEUE_LIMITS)
            begin = max(s.since, died or 0)
            left, why_ns = self.left_of(begin, s.until, s.concerns)
            n_past_death += died is not None
            text = f"{s.who}: {s.what} waited {(s.until - s.since) / 1e6:.0f} ms, {left / 1e6:.0f} ms of them " \
                   f"{'past a death' if died else 'for no reason'} (" \
                   f"{', '.join(f'{why} {ns / 1e6:.0f} ms' for why, ns in why_ns.items()) or 'nothing taken away'})"
            if left > limit:
                self.failures.append((s.until, f"late: {text}"))
            elif s.until - begin > limit:
                excused[why_ns.most_common(1)[0][0]] += 1
            if died and s.what != "poison" and left > longest:
                longest, longest_text = left, text
        return Judged(n_past_death, len(self.slow) - sum(excused.values()), excused, longest, longest_text)

    def judge_rescued(self):
        """Wake-ups that nobody gave: (failures, those at a death or in a window in which whoever owed it stood
        still)."""
        n_bad, n_apart = 0, 0
        self.sort()
        for what, since, until, who, concerns in self.rescued:
            groups = concerns or {*self.windows, *self.deaths}  # a worker's: any client's, too
            # its broadcast may have met us between two slices
            has_death = self.last_death(since - STALL_NS, until, groups)
            if has_death or any(why != "no CPU" or b - a > STALL_NS for a, b,
                                why in self.whole_windows(since - STALL_NS, until, groups)):
                n_apart += 1
                continue
            n_bad += 1
            self.add_broken(f"{who}: {what}: a wake-up was lost; the wait was {(until - since) / 1e6:.0f} ms beside "
                            f"its reason to end", until)
        return n_bad, n_apart

    def judge_runs(self):
        """How many jobs ran again because the spawner died; any other that ran more often than it had attempts is a
        failure."""
        n_excused = 0
        for n, job, since, until, who in self.runs:
            if n > sum(since <= b and a <= until for a, b in self.spawner_deaths):
                self.add_broken(f"{who}: job {job} ran {n} times more often than it had attempts", until)
            else:
                n_excused += 1
        return n_excused

    def report_failures(self):
        for when, text in sorted(self.failures)[:20]:
            print(f"  at {(when - self.start) / NS:.3f} s: {text}")
        if len(self.failures) > 20:
            print(f"  and {len(self.failures) - 20} more")


def run(main):
    """The exit code of a run's main(). What ends it in the middle is marked, too, unless it is just late."""
    try:
        return main()
    except (Late, subprocess.TimeoutExpired):
        raise
    except Exception as e:
        say_broken(e)
        raise
