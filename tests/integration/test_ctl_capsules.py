"""droverctl's view of capsules: from droverd's directory, over the bus for who cannot read it, and from a stranger's
file."""

import json
import os
import struct
import subprocess
import tempfile
import unittest

from harness import DROVERCTL, Drover, Test, main, wait_for
from sdbus import Connection


def pack(value):
    """As little of MessagePack as a capsule takes."""
    if isinstance(value, dict):
        return struct.pack(">BH", 0xDE, len(value)) + b"".join(pack(k) + pack(v) for k, v in value.items())
    if isinstance(value, list):
        return struct.pack(">BH", 0xDC, len(value)) + b"".join(map(pack, value))
    if isinstance(value, str):
        return struct.pack(">BH", 0xDA, len(value.encode())) + value.encode()
    if isinstance(value, bytes):
        return struct.pack(">BI", 0xC6, len(value)) + value
    return struct.pack(">BQ", 0xCF, value)


def capsule(**fields):
    whole = {"id": 7, "created-usec": 1700000000000000, "uid": 0, "state": "poisoned", "pool": "p", "plugin": "x",
             "plugin-dir": "/plugins", "build-id": "00ff", "job": "j", "hard-nsec": 0, "log": "one\ntwo\n",
             "attempts": [],
             "payload": pack({"n": 97})} | fields
    body = pack(whole)
    return b"DRCAPSUL" + struct.pack("<II", 1, len(body)) + body


class Capsules(Test):
    @classmethod
    def setUpClass(cls):
        cls.drover = Drover({"crash": {"Plugin": "crash", "Workers": 1, "MaxAttempts": 2, "RestartSec": 0},
                             "fine": {"Plugin": "primes", "Workers": 1}})
        cls.d = cls.drover.__enter__()
        cls.state = os.path.join(cls.d.dir, "state")
        cls.jobs = []
        for _ in range(2):
            number, path = cls.d.submit("crash", "segfault")
            cls.d.wait_job(path)
            cls.jobs.append(number)
        wait_for(lambda: all(os.path.exists(cls.file(job)) for job in cls.jobs), 10, "two capsules")

    @classmethod
    def tearDownClass(cls):
        cls.drover.__exit__(None, None, None)

    @classmethod
    def file(cls, job):
        return os.path.join(cls.state, "capsules", f"crash.{job}")

    def ways(self):
        """Through the directory, and through the bus."""
        return [f"--state-dir={self.state}"], [f"--address={self.d.bus.address}"]

    def ctl(self, *words, code=0):
        r = self.d.ctl(*words)
        self.assertEqual(r.returncode, code, (words, r))
        return r.stdout if code == 0 else r.stderr

    def test_both_ways_tell_the_same(self):
        for words in (["list-capsules"], ["list-capsules", "crash"], ["show-capsule", self.jobs[1]]):
            told = [self.ctl(*words, *way, "--json=short") for way in self.ways()]
            self.assertEqual(told[0], told[1], words)
        rows = json.loads(self.ctl("list-capsules", *self.ways()[0], "--json=short"))
        self.assertEqual([(row["id"], row["pool"], row["job"], row["state"], row["attempts"]) for row in rows],
                         [(job, "crash", "segfault", "poisoned", 2) for job in self.jobs])
        for way in self.ways():
            self.assertEqual(self.ctl("list-capsules", "fine", "-q", *way), "")
            lines = self.ctl("list-capsules", "-q", *way).splitlines()
            self.assertEqual([line.split()[:4] for line in lines],
                             [[str(job), "crash", "segfault", "poisoned"] for job in self.jobs])
            self.assertIn("signal 11 (SIGSEGV) at crash+0x", lines[0])

    def test_show(self):
        shown = json.loads(self.ctl("show-capsule", self.jobs[0], *self.ways()[0], "--json=short"))
        self.assertEqual((shown["id"], shown["plugin"], shown["arguments"], len(shown["attempts"])),
                         (self.jobs[0], "crash", {}, 2))
        text = self.ctl("show-capsule", self.file(self.jobs[0]))
        self.assertEqual(text, self.ctl("show-capsule", self.jobs[0], f"--address={self.d.bus.address}"))
        for attempt in shown["attempts"]:
            self.assertIn(f"attempt {attempt['attempt']}, worker pid {attempt['pid']}: {attempt['text']}\n", text)
        self.assertIn(f"Job:  {self.jobs[0]} (segfault of pool crash)\n", text)
        self.assertIn(f"Build id:  {shown['build-id'] or 'none'}\n", text)
        self.assertIn("Arguments:  none\n", text)

    def test_save(self):
        with open(self.file(self.jobs[0]), "rb") as f:
            data = f.read()
        for i, way in enumerate(self.ways()):
            path = os.path.join(self.d.dir, f"saved{i}")
            self.assertEqual(self.ctl("show-capsule", self.jobs[0], *way, f"--output={path}"), "")
            with open(path, "rb") as f:
                self.assertEqual(f.read(), data)
            self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
            self.ctl("show-capsule", path, "-o", path)  # over itself
            with open(path, "rb") as f:
                self.assertEqual(f.read(), data)
        self.assertIn("/nonexistent/x",
                      self.ctl("show-capsule", self.jobs[0], *self.ways()[0], "-o", "/nonexistent/x", code=5))
        self.assertIn("one file", self.ctl("show-capsule", self.jobs[0], "-o", "a", "-o", "b", code=2))

    def test_what_is_not_there(self):
        number, path = self.d.submit("fine", "is_prime", n=97)
        self.d.wait_job(path)
        for way in self.ways():
            self.assertIn(f"no capsule of job {number}", self.ctl("show-capsule", number, *way, code=4))
        self.assertIn("/nonexistent", self.ctl("list-capsules", "--state-dir=/nonexistent", code=2))
        self.assertIn("/nonexistent", self.ctl("show-capsule", "7", "--state-dir=/nonexistent", code=2))
        self.assertIn("No such file", self.ctl("show-capsule", "/nonexistent", code=2))
        self.ctl("show-capsule", "0", code=2)
        self.ctl("show-capsule", "9" * 30, code=2)
        self.assertIn("is no option of", self.ctl("list-pools", "--state-dir=/", code=2))

    def test_they_are_those_of_the_daemon_that_is_asked(self):
        place = os.path.join(self.d.dir, "others")
        path = os.path.join(place, "drover", "capsules", "p.7")  # left by another daemon in the usual place
        os.makedirs(os.path.dirname(path))
        with open(path, "wb") as f:
            f.write(capsule())
        self.d.extra_env["XDG_STATE_HOME"] = place
        self.addCleanup(self.d.extra_env.pop, "XDG_STATE_HOME")
        rows = json.loads(self.ctl("list-capsules", "--json=short"))
        self.assertEqual([row["id"] for row in rows], self.jobs)
        self.assertIn("no capsule of job 7", self.ctl("show-capsule", 7, code=4))
        listed = self.d.call("/org/drover1", "org.drover1.Manager", "ListCapsules", "su", "", 0)
        self.assertEqual([(row["id"], row["pool"], row["uid"]) for row in listed],
                         [(job, "crash", os.getuid()) for job in self.jobs[::-1]])
        self.assertEqual(len(self.d.call("/org/drover1", "org.drover1.Manager", "ListCapsules", "su", "crash", 1)), 1)
        self.d.extra_env["DBUS_SESSION_BUS_ADDRESS"] = "unix:path=/nonexistent"
        self.addCleanup(self.d.extra_env.pop, "DBUS_SESSION_BUS_ADDRESS")
        for words in (["list-capsules"], ["show-capsule", "7"]):
            self.assertIn(f"--state-dir=DIR reads what one left in DIR (usually {place}/drover)",
                          self.ctl(*words, code=3))
            self.ctl(*words, f"--state-dir={place}/drover")

    def test_completion(self):
        offered = self.ctl("complete", "--", f"--address={self.d.bus.address}", "show-capsule", "").split()
        self.assertEqual(sorted(map(int, offered)), self.jobs)

    @unittest.skipUnless(os.geteuid() == 0, "another uid takes root")
    def test_another_uid_sees_its_own_only(self):
        os.chmod(self.d.dir, 0o711)  # the bus is in there

        def ctl(*words):
            return subprocess.run(["setpriv", "--reuid=65534", "--clear-groups", DROVERCTL,
                                   f"--address={self.d.bus.address}", *map(str, words)],
                                  env=self.d.env(), capture_output=True, text=True, timeout=60, check=False)

        r = ctl("list-capsules", "-q")
        self.assertEqual((r.returncode, r.stdout, r.stderr), (0, "", ""))
        r = ctl("show-capsule", self.jobs[0])
        self.assertEqual((r.returncode, r.stdout), (4, ""))
        self.assertIn("no capsule", r.stderr)


class OnceMore(Test):
    """From the capsule of a job that is not kept any more."""

    def test_once_more_though_it_is_forgotten(self):
        """Neither ResultTTL= nor a restart of the daemon ends what its capsule knows."""
        with Drover({"crash": {"Plugin": "crash", "Workers": 1, "MaxAttempts": 2, "RestartSec": 0,
                               "ResultTTL": "1s"}}) as d:
            number, path = d.submit("crash", "segfault")
            self.assertEqual(d.wait_job(path), "poisoned")
            file = os.path.join(d.dir, "state", "capsules", f"crash.{number}")
            wait_for(lambda: os.path.exists(file), 10, "its capsule")
            done, done_path = d.submit("crash", "fine")
            self.assertEqual(d.wait_job(done_path), "done")
            wait_for(lambda: "NoSuchJob" in d.ctl("result", done).stderr, 20, "ResultTTL= is over")
            self.assertEqual(d.job(path)["State"], "poisoned", "it lives as long as its capsule")
            self.assertIn(f"Job {number} (segfault of pool crash) is poisoned", d.ctl("why", number).stdout)
            self.assertEqual(d.ctl("requeue", "crash").stdout, "crash: 1 jobs are queued again\n")
            self.assertEqual(d.wait_job(path), "poisoned")
            d.stop()
            d.start()
            d.wait_workers("crash", 1)
            self.assertIn("NoSuchJob", d.ctl("result", number).stderr, "the record does not outlive the daemon")
            r = d.ctl("why", number)
            self.assertRegex(r.stdout,
                             rf"(?s)^Job {number} \(segfault of pool crash\) is poisoned, since 20.*: its capsule says "
                             rf"so\.\n"
                             r"Attempt 1: the worker with pid \d+ died: signal 11 \(SIGSEGV\).*\nAttempt 2: "
                             r".*show-capsule", r)
            told = json.loads(d.ctl("why", number, "--json=short").stdout)
            self.assertEqual((told["id"], told["state"], len(told["attempts"])), (number, "poisoned", 4),
                             "two of each run")
            before = len(d.deaths("crash"))
            r = d.ctl("requeue", number)
            self.assertEqual((r.returncode, r.stdout), (0, f"{number} queued\n"), r)
            self.assertEqual(d.wait_job(path), "poisoned", "it ran again, under its number")
            self.assertEqual(wait_for(lambda: len(d.deaths("crash")) - before, 10, "deaths"), 2)
            self.assertEqual(d.job(path)["Uid"], os.getuid())
            newer = d.submit("crash", "fine")[0]
            listed = [row[0]
                      for row in d.call("/org/drover1", "org.drover1.Manager", "ListJobs", "a{sv}su", 0, "", 0)[0]]
            self.assertEqual(listed, sorted(listed), "in the order of numbers")
            self.assertIn(newer, listed)
            r = d.ctl("requeue", 999999)
            self.assertEqual((r.returncode, "no record, nor a capsule, of job 999999 of yours" in r.stderr), (4, True),
                             r)
            r = d.ctl("resubmit", number, "--max-attempts=1")
            again = int(r.stdout)
            self.assertGreater(again, newer)
            self.assertEqual(d.wait_job(f"/org/drover1/job/{again}"), "poisoned")
            self.assertEqual(d.result(f"/org/drover1/job/{again}")["attempts"], 1, "by the option of the command line")
            self.assertGreater(int(d.ctl("resubmit", file).stdout), again)
            d.remove_pool_file("crash")
            d.reload()
            r = d.ctl("requeue", number)
            self.assertEqual(r.returncode, 4, r)
            self.assertEqual(d.ctl("resubmit", file).returncode, 4)

    def test_a_channels_job_once_more(self):
        with Drover({"crash": {"Plugin": "crash", "Workers": 1, "MaxAttempts": 2, "RestartSec": 0}}) as d:
            r = d.ctl("map", "crash", "segfault", input="\n")
            self.assertEqual(r.returncode, 1, r)
            number = wait_for(lambda: json.loads(d.ctl("list-capsules", "--json=short").stdout), 10,
                              "its capsule")[0]["id"]
            r = d.ctl("requeue", number)
            self.assertEqual((r.returncode, "came through a channel" in r.stderr), (2, True), r)
            again = int(d.ctl("resubmit", number).stdout)
            self.assertEqual(d.wait_job(f"/org/drover1/job/{again}"), "poisoned")

    @unittest.skipUnless(os.geteuid() == 0, "needs root, to call as somebody else")
    def test_a_foreign_capsule_is_not_queued_again(self):
        with Drover({"crash": {"Plugin": "crash", "Workers": 1, "MaxAttempts": 1, "RestartSec": 0}}) as d:
            number, path = d.submit("crash", "segfault")
            d.wait_job(path)
            wait_for(lambda: os.path.exists(os.path.join(d.dir, "state", "capsules", f"crash.{number}")), 10,
                     "its capsule")
            d.stop()
            d.start()
            d.wait_workers("crash", 1)
            os.chmod(d.dir, 0o711)
            c = Connection(d.bus.address, 65534)
            self.addCleanup(c.close)
            with self.assert_error("NoSuchJob"):
                c.call(path, "org.drover1.Job", "Requeue")


class Hostile(Test):
    """No daemon: files that anybody may have written."""

    def write(self, data, name="p.7"):
        path = os.path.join(self.tmp, "capsules", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data)
        return path

    def ctl(self, *words):
        return subprocess.run([DROVERCTL, *words], capture_output=True, timeout=60, check=False)

    def setUp(self):
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.tmp = directory.name

    def test_arguments(self):
        for payload, text, value in ((pack({"n": 97, "who": "a b"}), 'n=97 who="a b"', {"n": 97, "who": "a b"}),
                                     (b"\x01\xff", "payload=01ff", {"payload": "Af8="})):
            path = self.write(capsule(payload=payload))
            self.assertIn(f"Arguments:  {text}\n", self.ctl("show-capsule", path).stdout.decode())
            self.assertEqual(json.loads(self.ctl("show-capsule", path, "--json=short").stdout)["arguments"], value)
        r = self.ctl("show-capsule", self.write(capsule(payload=b"\xff" * (1 << 20))))
        self.assertIn(b"(1048576 bytes; --output=FILE saves all)", r.stdout)
        self.assertLess(len(r.stdout), 4000)

    def test_damaged_files_get_one_error(self):
        whole = capsule(attempts=[{"attempt": 1, "pid": 5, "reason": "signal", "signal": 11}])
        huge = whole[:16] + b"\xdf\xff\xff\xff\xff" + whole[19:]
        longest = whole.replace(pack("one\ntwo\n"), struct.pack(">BI", 0xDB, 0xFFFFFFFF) + b"one\ntwo\n")
        longest = longest[:12] + struct.pack("<I", len(longest) - 16) + longest[16:]
        bad = [whole[:n] for n in range(0, len(whole), 7)] + [huge, longest, whole + b"x", capsule(id=8, job=""),
                                                              capsule(pool="p" * 72), capsule(attempts=[{}] * 17),
                                                              bytes(1 << 22)]
        for data in bad:
            path = self.write(data)
            for words in (["show-capsule", path], ["show-capsule", "7", f"--state-dir={self.tmp}"],
                          ["list-capsules", "-q", f"--state-dir={self.tmp}"]):
                r = self.ctl(*words)
                self.assertEqual((r.returncode, r.stdout, r.stderr.count(b"\n")), (2, b"", 1), (words, data[:80], r))
                self.assertIn(b"not a capsule", r.stderr)
        self.write(whole)
        self.assertIn(b"another release",
                      self.ctl("show-capsule", self.write(whole[:8] + b"\2" + whole[9:], "p.9")).stderr)
        self.write(whole, "q.7")
        r = self.ctl("list-capsules", "-q", f"--state-dir={self.tmp}")
        self.assertEqual((r.returncode, r.stdout.count(b"\n"), r.stderr.count(b"\n")), (2, 1, 2), r)
        self.assertIn(b"q.7: the capsule of another job than its name says", r.stderr)
        for odd in (self.tmp, "/dev/zero"):
            self.assertEqual(self.ctl("show-capsule", odd).returncode, 2)

    def test_no_control_character_gets_through(self):
        evil = "\x1b]0;x\x07\x9b31m\x7f\r"
        path = self.write(capsule(job="j" + evil, pool="p" + evil, state=evil[:12], plugin=evil, build_id=evil,
                                  log=f"{evil}\n{evil}",
                                  payload=pack({"s": evil}),
                                  attempts=[{"attempt": 1, "module": evil, "syscall": evil, "reason": evil}],
                                  **{"plugin-dir": evil, "build-id": evil}), f"p{evil}.7")
        self.write(b"", f"x{evil}.8")
        for words in (["show-capsule", path], ["show-capsule", "7", f"--state-dir={self.tmp}"],
                      ["list-capsules", f"--state-dir={self.tmp}"],
                      ["show-capsule", os.path.dirname(path) + f"/x{evil}.8"], ["show-capsule", path + "x"]):
            for mode in ("off", "short", "pretty"):
                r = self.ctl(*words, f"--json={mode}")
                self.assertTrue(r.stdout or r.stderr)
                left = set((r.stdout + r.stderr).decode()) & {chr(i)
                                                              for i in [*range(10), *range(11, 32), *range(127, 160)]}
                self.assertEqual(left, set(), (words, mode, r))
        shown = json.loads(self.ctl("show-capsule", path, "--json=short").stdout)
        self.assertEqual((shown["arguments"]["s"], shown["job"]), (evil, "j" + evil))  # nothing is lost there


if __name__ == "__main__":
    main()
