"""Capsules: the job that killed its worker is a file, and running that file again ends the same way."""

import json
import os
import re
import shutil
import subprocess
import unittest
from unittest.mock import patch

from harness import IS_SANITIZED, MANAGER, PATIENCE, WORKER, Drover, Test, main, wait_for
from sdbus import Connection


def capsules(d):
    path = os.path.join(d.dir, "state", "capsules")
    return sorted(name for name in os.listdir(path) if not name.startswith("."))


def wait_capsules(d, n):
    wait_for(lambda: len(capsules(d)) == n, 10, f"{n} capsules")
    return [os.path.join(d.dir, "state", "capsules", name) for name in capsules(d)]


def replay(d, what, *more):
    return subprocess.run([WORKER, "--replay", str(what), f"--state-dir={d.dir}/state", *more], capture_output=True,
                          text=True,
                          timeout=60, check=False)


class Capsules(Test):
    def killer(self, d, pool, job, **args):
        job_id, path = d.submit(pool, job, **args)
        state = d.wait_job(path)
        return job_id, path, state

    def test_one_among_ten_thousand(self):
        """A job that kills its worker among 10⁴ good ones: exactly one capsule, whose replay dies at the same place."""
        with Drover({"crash": {"Plugin": "crash", "Workers": 2, "MaxAttempts": 2}}) as d:
            good = d.ctl_start("map", "crash", "fine", stdin=-1, stdout=-1)
            good.stdin.write("\n" * 5000)
            good.stdin.flush()
            job_id, path, state = self.killer(d, "crash", "segfault")
            good.stdin.write("\n" * 5000)
            good.stdin.close()
            lines = good.stdout.read().splitlines()
            good.stdout.close()
            self.assertEqual((good.wait(60 * PATIENCE), len(lines)), (0, 10000))
            self.assertEqual(state, "poisoned")
            files = wait_capsules(d, 1)
            self.assertEqual(os.path.basename(files[0]), f"crash.{job_id}")
            info = os.stat(files[0])
            self.assertEqual((info.st_mode & 0o777, os.stat(os.path.dirname(files[0])).st_mode & 0o777), (0o600, 0o700))
            for what in (job_id, files[0]):
                r = replay(d, what)
                self.assertEqual((r.returncode, r.stderr), (0, ""), r)
                self.assertIn(f"job {job_id} (segfault of pool crash, plugin crash), 1 bytes: poisoned\n", r.stdout)
                if not IS_SANITIZED:
                    ends = re.findall(r": (signal 11 \(SIGSEGV\) at crash\+0x[0-9a-f]+)", r.stdout)
                    self.assertEqual((len(ends), len(set(ends))), (3, 1), r.stdout)  # two attempts and the replay
                self.assertIn(": the same end\n", r.stdout)

    def test_each_kind_of_end(self):
        pools = {"crash": {"Plugin": "crash", "Workers": 1, "MaxAttempts": 1},
                 "hang": {"Plugin": "hang", "Workers": 1, "HardTimeout": "300ms"},
                 "exit": {"Plugin": "exit", "Workers": 1, "MaxAttempts": 1},
                 "opens": {"Plugin": "opens", "Workers": 1, "MaxAttempts": 1}}
        with Drover(pools) as d:
            n = 0
            for pool, job, args, state, words in (
                    ("crash", "abort", {}, "poisoned", "signal 6 (SIGABRT)"),
                    ("crash", "kill", {}, "poisoned", "signal 9 (SIGKILL)"),
                    ("crash", "stack", {}, "poisoned", "signal 11 (SIGSEGV)"),
                    ("crash", "once", {}, "lost", "signal 11 (SIGSEGV)"),
                    ("opens", "socket", {}, "poisoned", "signal 31 (SIGSYS): system call socket"),
                    ("exit", "_exit", {}, "poisoned", "exit status 7"),
                    ("hang", "hang", {}, "timed-out", "signal 9 (SIGKILL), its time limit passed")):
                job_id, _, told = self.killer(d, pool, job, **args)
                self.assertEqual(told, state, (pool, job))
                n += 1
                wait_capsules(d, n)
                r = replay(d, job_id)
                # Where a stack ends is at random, and what a sanitizer adds touches it at several instructions.
                self.assertIn(r.returncode, (0, 1) if IS_SANITIZED and job == "stack" else (0,), r)
                self.assertIn(words, r.stdout)
            d.run("crash", "fine")
            self.assertEqual(len(capsules(d)), n)
            death = wait_for(lambda: d.deaths("hang"), 10, "its death is told")[0]  # the verdict comes before the kill
            self.assertEqual((death["reason"], death["job"], death["attempt"]), ("time-limit", job_id, 1))
            self.assertIn(f"while running job {job_id} (attempt 1)", death["text"])
            self.assertIn(f"pid {death['pid']}", d.ctl("why", job_id).stdout)

    @unittest.skipIf(IS_SANITIZED, "a sanitizer takes the signal before gdb tells of it")
    @unittest.skipUnless(shutil.which("gdb"), "gdb is not installed")
    def test_under_gdb(self):
        with Drover({"crash": {"Plugin": "crash", "Workers": 1, "MaxAttempts": 1}}) as d:
            job_id, _, _ = self.killer(d, "crash", "segfault")
            wait_capsules(d, 1)
            r = subprocess.run([WORKER, "--replay", str(job_id), f"--state-dir={d.dir}/state", "--gdb"],
                               input="bt\nkill\nquit\n",
                               capture_output=True, text=True, timeout=60, check=False)
            self.assertIn("received signal SIGSEGV", r.stdout)
            self.assertIn("segv", r.stdout)
            self.assertEqual(r.returncode, 0, r)

    def test_the_last_attempt_in_the_callers_environment(self):
        with Drover({"crash": {"Plugin": "crash", "Workers": 1, "MaxAttempts": 2, "RestartSec": 0,
                               "Environment": "A_WAY_TO_DIE=1"}}) as d:
            job_id, _, state = self.killer(d, "crash", "exits-aborts")
            self.assertEqual(state, "poisoned")
            wait_capsules(d, 1)
            r = replay(d, job_id)
            self.assertEqual(r.returncode, 0, r)
            self.assertIn("attempt 1: exit status 9\n", r.stdout)
            self.assertRegex(r.stdout, r"replayed as attempt 2: signal 6 \(SIGABRT\).*: the same end\n")
            job_id, _, state = self.killer(d, "crash", "environment")
            self.assertEqual(state, "poisoned")
            path = next(path for path in wait_capsules(d, 2) if path.endswith(f".{job_id}"))
            with open(path, "rb") as f:
                self.assertNotIn(b"A_WAY_TO_DIE", f.read())  # it is the administrator's
            r = replay(d, job_id)
            self.assertEqual(r.returncode, 1, r)
            self.assertIn("replayed as attempt 2: the job ended as done: another end", r.stdout)
            with patch.dict(os.environ, A_WAY_TO_DIE="1"):
                self.assertEqual(replay(d, job_id).returncode, 0)

    def test_another_build_may_live(self):
        with Drover({"p": {"Plugin": "mine", "Workers": 1, "MaxAttempts": 1}}, wait=False) as d:
            path = os.path.join(d.plugin_dir, "mine.so")
            shutil.copy(os.path.join(d.plugin_dir, "crash.so"), path)
            d.pool_call("p", "Start")
            d.wait_workers("p", 1)
            job_id, _, _ = self.killer(d, "p", "segfault")
            wait_capsules(d, 1)
            r = replay(d, job_id, f"--plugin={d.plugin_dir}/echo.so")
            self.assertEqual(r.returncode, 3, r)
            self.assertIn("another build", r.stderr)
            self.assertIn("has no job segfault", r.stderr)

    def test_the_oldest_go(self):
        with Drover({"a": {"Plugin": "crash", "Workers": 1, "MaxAttempts": 1, "Capsules": 3, "RestartSec": 0},
                     "b": {"Plugin": "crash", "Workers": 1, "MaxAttempts": 1, "Capsules": 0}}) as d:
            ids = [self.killer(d, "a", "segfault")[0] for _ in range(6)]
            self.killer(d, "b", "segfault")
            wait_for(lambda: capsules(d) == sorted(f"a.{i}" for i in ids[-3:]), 10, "the newest three")
            # A restarted daemon knows them; what is not whole goes.
            with open(os.path.join(d.dir, "state", "capsules", ".new-7"), "w", encoding="utf-8"):
                pass
            self.assertEqual(d.stop(), 0)
            wait_for(lambda: not d.has_name(), 10, "the name is free")
            d.start()
            d.wait_workers("a", 1)
            self.assertEqual(sorted(os.listdir(os.path.join(d.dir, "state", "capsules"))),
                             sorted(f"a.{i}" for i in ids[-3:]))
            self.killer(d, "a", "segfault")
            wait_for(lambda: f"a.{ids[3]}" not in capsules(d) and len(capsules(d)) == 3, 10, "the oldest goes")

    def test_what_is_no_capsule(self):
        with Drover({"crash": {"Plugin": "crash", "Workers": 1, "MaxAttempts": 1}}) as d:
            job_id, _, _ = self.killer(d, "crash", "segfault")
            path = wait_capsules(d, 1)[0]
            with open(path, "rb") as f:
                data = f.read()
            bad = os.path.join(d.dir, "bad")
            for cut in (0, 7, 15, 16, 40, len(data) - 1):
                with open(bad, "wb") as f:
                    f.write(data[:cut])
                r = replay(d, bad)
                self.assertEqual((r.returncode, r.stdout), (3, ""), (cut, r))
                self.assertIn("not a capsule", r.stderr)
            r = replay(d, job_id + 1)
            self.assertEqual(r.returncode, 3)
            self.assertIn(f"no capsule of job {job_id + 1}", r.stderr)

    @unittest.skipUnless(os.geteuid() == 0, "another uid takes root")
    def test_another_uid_sees_nothing_of_it(self):
        with Drover({"crash": {"Plugin": "crash", "Workers": 1, "MaxAttempts": 1}}) as d:
            os.chmod(d.dir, 0o711)  # the bus is in there
            job_id, path, _ = self.killer(d, "crash", "segfault")
            file = wait_capsules(d, 1)[0]

            def get(uid):
                return subprocess.run(["setpriv", f"--reuid={uid}", "--clear-groups", "busctl",
                                       f"--address={d.bus.address}",
                                       "call", "org.drover1", path, "org.drover1.Job", "GetCapsule"],
                                      capture_output=True, text=True, timeout=30, check=False)

            r = get(0)
            self.assertEqual((r.returncode, r.stdout[:2]), (0, "h "), r)
            r = get(65534)
            self.assertNotEqual(r.returncode, 0)
            self.assertIn(f"there is no capsule of job {job_id}", r.stderr)
            r = subprocess.run(["setpriv", "--reuid=65534", "--clear-groups", "cat", file], capture_output=True,
                               check=False)
            self.assertNotEqual(r.returncode, 0)

    def last_words(self, d, job, before=()):
        """Of a job that dies, with others ended in its worker a moment before."""
        with Connection(d.bus.address) as c:
            for name in (*before, job):
                number, path = c.call(*MANAGER, "Submit", "ssa{sv}a{sv}", b"crash", name.encode(), 0, 0).read("to")
            self.assertEqual(d.wait_job(path), "poisoned")
            wait_for(lambda: f"crash.{number}" in capsules(d), 10, "it is kept")
        r = d.ctl("show-capsule", f"--state-dir={d.dir}/state", "--json=short", number)
        return json.loads(r.stdout)["log"]

    def test_last_words_at_once(self):
        """Printed, and dead, before droverd had looked after the jobs before it; which had printed, or had not."""
        with Drover({"crash": {"Plugin": "crash", "Workers": 1, "MaxAttempts": 1, "RestartSec": 0}}) as d:
            for before in (["fine"] * 9, ["says"], ["fine", "says", "fine"]) * 3:
                self.assertEqual(self.last_words(d, "says-aborts", before), ["a word of its own"], before)

    def test_a_line_in_two_writes(self):
        with Drover({"crash": {"Plugin": "crash", "Workers": 1, "MaxAttempts": 1, "RestartSec": 0}}) as d:
            for before in ([], ["fine"] * 3, ["says"]):
                self.assertEqual(self.last_words(d, "halves-aborts", before), ["one half, the other half"], before)
            self.assertEqual(d.log().count(": one half, the other half\n"), 3)

    def test_last_words_after_much(self):
        """64 KiB, of which the log has a budget a second: the newest 16 KiB are in log and capsule, and what is lost is
        counted."""
        with Drover({"crash": {"Plugin": "crash", "Workers": 1, "MaxAttempts": 1, "RestartSec": 0}}) as d:
            log = self.last_words(d, "says-much-aborts", ["fine"])
            lost = int(re.fullmatch(r"\((\d+) bytes before these lines are lost\)", log[0])[1])
            kept = sum(len(line) + 1 for line in log[1:])
            self.assertEqual((log[-1], lost + kept), ("a word of its own", 65536 + len("a word of its own") + 1))
            self.assertGreater(kept, 16384 - 64)
            self.assertIn("a word of its own", d.log())
            logged = [int(n) for n in re.findall(r": line (\d{4}) ", d.log())]
            lost = int(re.search(r"prints too much: (\d+) bytes are lost here", d.log())[1])
            self.assertEqual((logged, len(logged)), (sorted(set(logged)), 1024 - lost // 64))
            self.assertEqual(logged[-200:], list(range(824, 1024)))

    @unittest.skipUnless(os.geteuid() == 0, "another uid takes root")
    def test_no_word_of_a_job_before(self):
        """Its worker's last words are those of its own job: what the job of another uid printed is not among them."""
        with Drover({"crash": {"Plugin": "crash", "Workers": 1, "MaxAttempts": 1, "RestartSec": 0}}) as d:
            os.chmod(d.dir, 0o711)
            with Connection(d.bus.address, 65534) as c:

                def words_of(job):
                    number, path = c.call(*MANAGER, "Submit", "ssa{sv}a{sv}", b"crash", job, 0, 0).read("to")
                    d.wait_job(path)
                    wait_for(lambda: f"crash.{number}" in capsules(d), 10, "it is kept")
                    r = d.ctl("show-capsule", f"--state-dir={d.dir}/state", "--json=short", number)
                    return " ".join(json.loads(r.stdout)["log"])

                self.assertEqual(words_of(b"says-aborts"), "a word of its own")  # the worker's first job
                for job in (b"segfault", b"says-aborts"):
                    d.wait_job(d.submit("crash", "says")[1])
                    self.assertNotIn("another", words_of(job))

                def is_told():
                    d.wait_job(d.submit("crash", "says")[1])
                    words = words_of(b"waits-says-aborts")
                    self.assertNotIn("another", words)
                    return words == "a word of its own"

                wait_for(is_told, 20, "droverd looked while the job waited, and knows whose words came then")

    @unittest.skipUnless(os.geteuid() == 0, "another uid takes root")
    def test_nobody_pushes_out_the_capsules_of_others(self):
        with Drover({"crash": {"Plugin": "crash", "Workers": 1, "MaxAttempts": 1, "Capsules": 3}}) as d:
            os.chmod(d.dir, 0o711)
            ours = self.killer(d, "crash", "segfault")[0]
            wait_capsules(d, 1)
            with Connection(d.bus.address, 65534) as c:

                def theirs(known):
                    job, path = c.call(*MANAGER, "Submit", "ssa{sv}a{sv}", b"crash", b"segfault", 0, 0).read("to")
                    d.wait_job(path)
                    wait_for(lambda: f"crash.{job}" in capsules(d) and len(capsules(d)) == min(known + 1, 3), 10,
                             "it is kept")
                    return f"crash.{job}"

                names = [theirs(n) for n in (1, 2, 3, 3)]
                self.assertEqual(capsules(d), sorted([f"crash.{ours}"] + names[-2:]))
                d.stop()  # whose they are is known to the next one, too
                d.start()
                names.append(theirs(3))
                self.assertIn(f"crash.{ours}", capsules(d))


if __name__ == "__main__":
    main()
