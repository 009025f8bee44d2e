"""droverctl's verbs: the JSON of each is a contract, jobs by number, the switches of pools, output that cannot be
written."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile

from harness import DROVERCTL, PATIENCE, SOURCE, Drover, Test, kill, main, wait_for

# Takes seconds: a prime near 2^64.
LONG = "n=18446744073709551557"


def verbs():
    """Every verb of --help."""
    text = subprocess.run([DROVERCTL, "--help"], capture_output=True, text=True, check=True).stdout
    return re.findall(r"^  ([a-z][a-z-]*) ", text.partition("\nOptions")[0], re.MULTILINE)


def catches(pid, number):
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        return next(int(line.split()[1], 16) for line in f if line.startswith("SigCgt:")) >> number - 1 & 1


class Json(Test):
    """One JSON value a call (map: one a line), with these keys; pretty and short are the same value."""

    POOL = {"Name", "Plugin", "PluginVersion", "StartMethod", "Model", "State", "Problem", "Workers", "MinWorkers",
            "MaxWorkers", "Queued", "Running", "Submitted", "Completed", "Failed", "Cancelled", "Expired", "TimedOut",
            "Poisoned", "Lost", "Retried", "WorkerDeaths", "Latency"}
    WORKER = {"Id", "Pid", "Pool", "StartMethod", "State", "SandboxLevel", "Status", "WaitingFor", "JobsDone",
              "CurrentJob", "StartedUSec"}
    JOB = {"Id", "Pool", "Name", "State", "Attempt", "WorkerPid", "Progress", "SubmittedUSec", "StartedUSec",
           "FinishedUSec", "CancelAskedUSec", "CancelAskedBy", "Uid", "Pid", "Connection"}
    MANAGER = {"Version", "Features", "StartMethods", "Models", "NPools", "NWorkers", "NSessions"}
    RESULT = {"state", "attempts", "queue-usec", "run-usec", "worker-pid", "cpu-usec", "result"}
    DEATH = {"worker", "pool", "pid", "reason", "status", "realtime-usec", "text"}
    CAPSULE = {"id", "pool", "job", "state", "created-usec", "uid", "plugin", "build-id", "payload-bytes", "attempts",
               "text"}
    STATE = {"pool", "state"}
    ARENA = {"name", "uid", "bytes", "objects", "max-objects", "attached", "max-attached", "processes", "transient"}
    SESSION = {"pool", "uid", "pid", "connection", "opened-usec", "id-base", "slots", "queued", "running"}
    LISTED = {"id", "path", "pool", "job", "state", "uid", "pid", "connection", "submitted-usec"}

    # verb -> [(words, keys of the object, or of each element in a list)]; verbs that speak no JSON have none.
    CONTRACT = {
        "status": [([], MANAGER | {"Pools"}), (["--full"], MANAGER | {"Pools", "Workers"})],
        "list-pools": [([], [POOL])],
        "list-workers": [([], [WORKER]), (["primes"], [WORKER])],
        "list-jobs": [([], [LISTED]), (["primes", "-n", "1"], [LISTED])],
        "list-sessions": [([], [SESSION]), (["primes"], [SESSION])],
        "list-arenas": [([], [ARENA])],
        "remove-arena": [(["shared"], [{"arena"}])],
        "list-objects": [(["shared"], [{"name", "type", "owner-pid", "waiters", "deaths-repaired", "inconsistent"}])],
        "list-deaths": [([], [DEATH]), (["primes", "-n", "1"], [DEATH])],
        "show": [(["primes"], POOL | {"Schema", "Deaths"}), (["worker/{worker}"], WORKER), (["job/{job}"], JOB)],
        "cat": [(["primes"], {"pool", "files", "settings"})],
        "schema": [(["primes"], {"plugin", "jobs"})],
        "why": [(["{job}"], JOB | {"Result", "Deaths", "WaitingFor"})],
        "call": [(["primes", "is_prime", "n=97"], RESULT)],
        "submit": [(["primes", "is_prime", "n=97"], {"id", "path"})],
        "wait": [(["{job}"], [{"id", "state"}])],
        "result": [(["{job}"], RESULT)],
        "cancel": [(["{job}"], [{"id", "outcome"}])],
        "requeue": [(["{failed}"], [{"id", "state"}]), (["primes"], [{"pool", "requeued"}])],
        "resubmit": [(["{failed}", "--address={address}"], {"id", "path"})],
        "list-capsules": [(["--state-dir={state}"], [CAPSULE]), (["crash", "--address={address}"], [CAPSULE])],
        "show-capsule": [(["{failed}", "--state-dir={state}"], CAPSULE | {"plugin-dir", "arguments", "log"}),
                         (["{failed}", "--address={address}"], CAPSULE | {"plugin-dir", "arguments", "log"})],
        "top": [(["--once", "--interval=100ms"], {"time-usec", "Manager", "Pools", "Workers"})],
        "map": [(["primes", "is_prime"], {"input", "state", "attempt", "result"})],
        "start": [(["second"], [STATE])],
        "stop": [(["second"], [STATE])],
        "restart": [(["second"], [STATE])],
        "drain": [(["second"], [STATE])],
        "pause": [(["second"], [STATE])],
        "resume": [(["second"], [STATE])],
        "resize": [(["second", "1"], {"pool", "workers"})],
        "reset-failed": [(["second"], [STATE])],
        "kill": [(["{worker}"], [{"worker", "signal"}])],
        "reload": [([], [{"kind", "name", "what"}])],
        "verify": [(["{file}"], [{"severity", "text"}])],
        "run": [],
        "complete": [],
        "help": [],
    }

    @classmethod
    def setUpClass(cls):
        cls.drover = Drover({"primes": {"Plugin": "primes", "Workers": 2}, "second": {"Plugin": "primes", "Workers": 1},
                             "bank": {"Plugin": "bank", "Workers": 1},
                             "crash": {"Plugin": "crash", "Workers": 1, "MaxAttempts": 1}})
        cls.d = cls.drover.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.drover.__exit__(None, None, None)

    def prepare(self, verb):
        """What the verb needs to have something to say; the words that stand for numbers."""
        if verb in ("list-deaths", "show", "status"):
            number = self.d.list_workers("primes")[0][0]
            before = len(self.d.deaths("primes"))
            self.assertEqual(self.d.ctl("kill", number, "-s", "KILL").returncode, 0)
            wait_for(lambda: len(self.d.deaths("primes")) > before, 10, "a death")
        if verb in ("list-arenas", "list-objects", "remove-arena"):
            self.d.call("/org/drover1", "org.drover1.Manager", "OpenArena", "sa{sv}", "shared", 0)
        if verb == "list-sessions":
            client = self.d.ctl_start("map", "primes", "is_prime", stdin=subprocess.PIPE)
            self.addCleanup(client.communicate)
            wait_for(lambda: self.d.call("/org/drover1", "org.drover1.Manager", "ListSessions"), 10, "its channel")
        if verb == "reload":
            self.d.write_pool("second", Plugin="primes", Workers=2 if self.d.pools["second"]["Workers"] == 1 else 1)
        if verb in ("start", "resume"):
            self.d.ctl("stop" if verb == "start" else "pause", "second")
        self.d.ctl("start", "second")
        self.d.wait_workers("primes", 2)
        job, path = self.d.submit("primes", "is_prime", n=97)
        self.assertEqual(self.d.wait_job(path), "done")
        failed, path = self.d.submit("crash", "segfault")
        self.assertEqual(self.d.wait_job(path), "poisoned")
        state = os.path.join(self.d.dir, "state")
        wait_for(lambda: os.path.exists(os.path.join(state, "capsules", f"crash.{failed}")), 10, "its capsule")
        with open(os.path.join(self.d.dir, "odd.pool"), "w", encoding="utf-8") as f:
            f.write("[Pool]\nPlugin=primes\nColour=blue\n")
        return {"job": job, "failed": failed, "file": f.name, "worker": self.d.list_workers("primes")[0][0],
                "state": state,
                "address": self.d.bus.address}

    def check(self, value, keys, words):
        if isinstance(keys, list):
            self.assertIsInstance(value, list, words)
            if words[0] != "list-objects":
                self.assertTrue(value, f"{words}: an empty list shows nothing")
            for row in value:
                self.check(row, keys[0], words)
        else:
            self.assertIsInstance(value, dict, words)
            self.assertEqual(keys - set(value), set(), f"{words}: keys are missing")

    def test_of_every_verb(self):
        self.assertEqual(sorted(self.CONTRACT), sorted(verbs()), "the contract has a row for each verb of --help")
        for verb, forms in self.CONTRACT.items():
            for form, keys in forms:
                for mode in ("short", "pretty"):
                    numbers = self.prepare(verb)
                    words = [verb] + [word.format(**numbers) for word in form]
                    r = self.d.ctl(f"--json={mode}", *words, input="97\n")
                    self.assertEqual((r.returncode, r.stderr), (0, ""), words)
                    self.check(json.loads(r.stdout), keys, words)
                    if mode == "short":
                        self.assertEqual(r.stdout.count("\n"), 1, f"{words}: one line")

    def test_without_it_no_verb_prints_json(self):
        for verb, forms in self.CONTRACT.items():
            for form, _ in forms:
                numbers = self.prepare(verb)
                r = self.d.ctl(verb, *[word.format(**numbers) for word in form], input="97\n")
                self.assertEqual(r.returncode, 0, (verb, r.stderr))
                self.assertNotRegex(r.stdout, r"(?m)^\s*[{\[]\"", verb)


class Jobs(Test):
    @classmethod
    def setUpClass(cls):
        cls.drover = Drover({"cancellable": {"Plugin": "cancellable", "Workers": 1},
                             "typed": {"Plugin": "typed", "Workers": 1},
                             "brief": {"Plugin": "primes", "Workers": 1, "ResultTTL": "100ms"},
                             "primes": {"Plugin": "primes", "Workers": 1}})
        cls.d = cls.drover.__enter__()
        cls.tmp = tempfile.TemporaryDirectory()

    @classmethod
    def tearDownClass(cls):
        cls.tmp.cleanup()
        cls.drover.__exit__(None, None, None)

    def path(self, name, content=None):
        path = os.path.join(self.tmp.name, name)
        if content is not None:
            with open(path, "wb") as f:
                f.write(content)
        return path

    def submit(self, *words):
        r = self.d.ctl("submit", *words)
        self.assertEqual((r.returncode, r.stderr), (0, ""))
        return int(r.stdout)

    def test_submit_wait_result(self):
        number = self.submit("cancellable", "work", "ms=50")
        r = self.d.ctl("wait", number)
        self.assertEqual((r.returncode, r.stdout, r.stderr), (0, f"{number} done\n", ""))
        self.assertEqual(self.d.ctl("result", number).stdout, "ms=50\n")
        self.assertEqual(self.d.ctl("result", f"/org/drover1/job/{number}").stdout, "ms=50\n")

    def test_wait_for_several_tells_each_and_fails_if_one_does(self):
        numbers = [self.submit("cancellable", "work", f"ms={ms}") for ms in (30, 60000, 10)]
        r = self.d.ctl("result", numbers[1])
        self.assertEqual(r.returncode, 4)
        self.assertIn("NotFinished", r.stderr)
        waiting = self.d.ctl_start("wait", *numbers, stdout=subprocess.PIPE)
        self.assertEqual(waiting.stdout.readline(), f"{numbers[0]} done\n")
        wait_for(lambda: self.d.job(f"/org/drover1/job/{numbers[1]}")["State"] == "running", 10, "the second runs")
        r = self.d.ctl("cancel", numbers[1], numbers[0])
        self.assertEqual((r.returncode, r.stdout), (0, f"{numbers[1]} asked\n{numbers[0]} finished\n"))
        self.assertEqual(waiting.communicate()[0], f"{numbers[1]} cancelled\n{numbers[2]} done\n")
        self.assertEqual(waiting.returncode, 1)
        r = self.d.ctl("result", numbers[1])
        self.assertEqual((r.returncode, r.stdout), (1, ""))
        self.assertIn("cancelled", r.stderr)

    def test_wait_for_several_keeps_what_is_forgotten_meanwhile(self):
        first, slow = self.submit("cancellable", "work", "ms=1"), self.submit("cancellable", "work", "ms=60000")
        brief = self.submit("brief", "is_prime", LONG)
        waiting = self.d.ctl_start("wait", first, slow, brief, stdout=subprocess.PIPE)
        self.assertEqual(waiting.stdout.readline(), f"{first} done\n")
        self.assertEqual(self.d.ctl("cancel", brief).returncode, 0)
        wait_for(lambda: self.d.ctl("show", f"job/{brief}").returncode == 4, 10, "it is forgotten")
        self.assertEqual(self.d.ctl("cancel", slow).returncode, 0)
        self.assertEqual(waiting.communicate(), (f"{slow} cancelled\n{brief} cancelled\n", None))
        self.assertEqual(waiting.returncode, 1)

    def test_interrupt_of_wait_leaves_the_job_alone(self):
        number = self.submit("cancellable", "work", "ms=1500")
        waiting = self.d.ctl_start("wait", number, stdout=subprocess.PIPE)
        wait_for(lambda: self.d.pool("cancellable")["Running"] == 1, 10, "it runs")
        wait_for(lambda: catches(waiting.pid, signal.SIGINT), 10, "droverctl is up")
        waiting.send_signal(signal.SIGINT)
        self.assertEqual(waiting.communicate()[0], "")
        self.assertEqual(waiting.returncode, 130)
        self.assertEqual(self.d.ctl("wait", number).stdout, f"{number} done\n")

    def test_modes_of_cancel(self):
        running, queued = self.submit("cancellable", "work", "ms=60000"), self.submit("cancellable", "work", "ms=1")
        wait_for(lambda: self.d.pool("cancellable")["Running"] == 1, 10, "the first runs")
        self.assertEqual(self.d.ctl("cancel", "--mode=queued", running, queued).stdout,
                         f"{running} running\n{queued} cancelled\n")
        self.assertEqual(self.d.ctl("cancel", "--mode=kill", running).returncode, 0)
        self.assertEqual(self.d.ctl("wait", running).stdout, f"{running} cancelled\n")
        r = self.d.ctl("cancel", "--mode=gently", running)
        self.assertEqual(r.returncode, 2)
        self.assertIn("gently", r.stderr)

    def test_options_of_a_job(self):
        r = self.d.ctl("call", "cancellable", "work", "ms=60000", "--soft-timeout=50ms")
        self.assertEqual(r.returncode, 1)
        self.assertIn("timed out", r.stderr)
        number = self.submit("cancellable", "work", "ms=1", "--priority=urgent", "--max-attempts=1",
                             "--queue-timeout=1min")
        self.assertEqual(self.d.ctl("wait", number).stdout, f"{number} done\n")
        for option, text in (("--soft-timeout=soon", "soon"), ("--priority=higher", "urgent"),
                             ("--hard-timeout=infinity", "infinity")):
            r = self.d.ctl("submit", "cancellable", "work", "ms=1", option)
            self.assertEqual((r.returncode, r.stdout), (2, ""))
            self.assertIn(text, r.stderr)
        first = self.submit("cancellable", "work", "ms=200", "--delay=100ms", "--idempotency-key=one")
        self.assertEqual(self.submit("cancellable", "work", "ms=200", "--idempotency-key=one"), first, "the same job")
        second = self.submit("cancellable", "work", "ms=1", f"--after={number},{first}")
        self.assertEqual(self.d.ctl("wait", second, first).stdout, f"{second} done\n{first} done\n")
        times = [self.d.job(f"/org/drover1/job/{n}") for n in (first, second)]
        self.assertGreaterEqual(times[0]["StartedUSec"], times[0]["SubmittedUSec"] + 90000)
        self.assertGreaterEqual(times[1]["StartedUSec"], times[0]["FinishedUSec"])
        self.assertEqual(self.d.ctl("submit", "cancellable", "work", "ms=1", "--after=one").returncode, 2)
        many = ",".join([str(number)] * 1024)
        last = self.submit("cancellable", "work", "ms=1", f"--after={many}")
        self.assertEqual(self.d.ctl("wait", last).stdout, f"{last} done\n")
        r = self.d.ctl("submit", "cancellable", "work", "ms=1", f"--after={many},{number}")
        self.assertEqual((r.returncode, "up to 1024 numbers" in r.stderr), (2, True), r.stderr)
        for option in ("--priority=5", "--max-attempts=64", "--idempotency-key="):
            r = self.d.ctl("submit", "cancellable", "work", "ms=1", option)
            self.assertEqual((r.returncode, r.stdout), (2, ""), option)
            self.assertIn(option.split("=")[0].strip("-"), r.stderr)
        self.assertEqual(self.d.ctl("call", "cancellable", "work", "ms=1", "--workers=2").returncode, 2)

    ALL = ["u=0x10", "i=-5", "f=1.5", "b=true", "s=two words", "us=1,2,3", "is=-1,1", "fs=0.5",
           "bs=true,false", "ss=a,b"]

    def test_files_in_and_out(self):
        data = bytes(range(256))
        source, target, text = self.path("in", data), self.path("out"), self.path("text")
        r = self.d.ctl("call", "typed", "echo", *self.ALL, f"y=@{source}", "-o", f"y={target}", f"--output=s={text}")
        self.assertEqual((r.returncode, r.stderr), (0, ""))
        self.assertEqual(r.stdout, "u=16 i=-5 f=1.5 b=true us=1,2,3 is=-1,1 fs=0.5 bs=true,false ss=a,b\n")
        with open(target, "rb") as f:
            self.assertEqual(f.read(), data)
        with open(text, encoding="utf-8") as f:
            self.assertEqual(f.read(), "two words")
        number = self.submit("typed", "raw", "-i", source)
        self.assertEqual(self.d.ctl("wait", number).returncode, 0)
        self.assertEqual(self.d.ctl("result", number, "-o", f"payload={target}", "--json=short").returncode, 0)
        with open(target, "rb") as f:
            self.assertEqual(f.read(), data)

    def test_files_that_are_not_there_or_too_large(self):
        for words, code, text in (
                (["y=@/nonexistent/file"], 2, "/nonexistent/file"),
                ([f"y=@{self.path('large', bytes(1 << 24))}"], 2, "does not fit"),
                (["y=00", "-o", "z=/dev/null"], 2, "z"),
                (["y=00", "-o", "y"], 2, "FIELD=FILE"),
                (["y=00", "-o", "y=/nonexistent/file"], 5, "/nonexistent/file")):
            r = self.d.ctl("call", "typed", "echo", *self.ALL, *words)
            self.assertEqual((r.returncode, r.stdout), (code, ""), (words, r.stderr))
            self.assertIn(text, r.stderr)

    def test_a_line_of_input_reads_no_file(self):
        source = self.path("secret", b"secret")
        line = " ".join(f'"{word}"' if " " in word else word for word in self.ALL)
        r = self.d.ctl("map", "typed", "echo", input=f"{line} y=@{source}\n")
        self.assertEqual(r.returncode, 1)
        self.assertIn("is not bytes", r.stdout)

    def test_status_tells_the_last_job_of_each_worker(self):
        number = self.submit("cancellable", "work", "ms=50")
        self.assertEqual(self.d.ctl("wait", number).stdout, f"{number} done\n")
        workers = {w["Pool"]: w for w in json.loads(self.d.ctl("status", "--full", "--json=short").stdout)["Workers"]}
        last, = workers["cancellable"]["Tasks"]
        self.assertEqual((last["job"], last["type"], last["state"], last["attempt"]), (number, "work", "done", 1))
        self.assertGreaterEqual(last["finished-usec"] - last["since-usec"], 50000)
        self.assertEqual(workers["primes"]["Tasks"], [])
        table = self.d.ctl("status", "--full").stdout.split("\n\n")[2].splitlines()
        self.assertEqual(table[0].split()[5:10], ["JOB", "LAST", "RAN", "ENDED", "DONE"])
        rows = {line.split()[1]: line for line in table[1:]}
        self.assertRegex(rows["cancellable"], rf" - +{number} +[0-9.]+ m?s +done ")
        self.assertRegex(rows["primes"], " - +- +- +- +0 ")

    def test_list_jobs(self):
        numbers = [self.submit("typed", "raw", "payload=x") for _ in range(3)]
        numbers.append(self.submit("cancellable", "work", "ms=60000"))
        self.assertEqual(self.d.ctl("wait", *numbers[:3]).returncode, 0)
        rows = [line.split() for line in self.d.ctl("list-jobs", "typed", "-q").stdout.splitlines()]
        self.assertEqual([row[:4] for row in rows if int(row[0]) in numbers],
                         [[str(number), "typed", "raw", "done"] for number in numbers[:3]])
        self.assertEqual(len(self.d.ctl("list-jobs", "-q", "-n", "2").stdout.splitlines()), 2)
        wait_for(lambda: self.d.pool("cancellable")["Running"] == 1, 10, "it runs")
        r = self.d.ctl("list-jobs", "-q", "--state=running,queued")
        self.assertEqual(r.stdout.split()[:4], [str(numbers[3]), "cancellable", "work", "running"])
        self.assertEqual(self.d.ctl("cancel", numbers[3]).stdout, f"{numbers[3]} asked\n")
        self.assertEqual(self.d.ctl("list-jobs", "nopool").returncode, 4)
        r = self.d.ctl("list-jobs", "--state=happy")
        self.assertEqual(r.returncode, 2)
        self.assertIn("happy", r.stderr)

    def test_more_jobs_than_a_page(self):
        """Five channels with a full window each: 1280 jobs, and a page of the bus has at most a thousand."""
        self.assertEqual(self.d.ctl("pause", "typed").returncode, 0)
        lines = self.path("lines", b"x\n" * 300)
        feeders = [self.d.ctl_start("map", "typed", "raw", f"--input={lines}", stdout=subprocess.DEVNULL)
                   for _ in range(5)]
        count = ("list-jobs", "typed", "-q", "--state=queued")
        wait_for(lambda: len(self.d.ctl(*count).stdout.splitlines()) == 1280, 20, "all are listed")
        rows = self.d.ctl(*count).stdout.splitlines()
        self.assertEqual(len(set(rows)), 1280, "each once")
        self.assertEqual(len(self.d.ctl(*count, "-n", "1100").stdout.splitlines()), 1100)
        for feeder in feeders:
            feeder.terminate()
            self.assertEqual(feeder.wait(20), 130)
        self.assertEqual(self.d.ctl("resume", "typed").returncode, 0)

    def test_requeue(self):
        number = self.submit("cancellable", "work", "ms=20")
        self.assertEqual(self.d.ctl("wait", number).stdout, f"{number} done\n")
        self.assertEqual(self.d.ctl("requeue", "cancellable").stdout, "cancellable: 0 jobs are queued again\n")
        r = self.d.ctl("requeue", number)
        self.assertEqual(r.returncode, 2, "it is done")
        number = self.submit("cancellable", "work", "ms=60000")
        self.assertEqual(self.d.ctl("cancel", "--mode=queued", number).returncode, 0)
        self.d.ctl("cancel", number)
        self.assertEqual(self.d.ctl("wait", number).stdout, f"{number} cancelled\n")
        self.assertEqual(self.d.ctl("requeue", number).stdout, f"{number} queued\n")
        wait_for(lambda: self.d.job(f"/org/drover1/job/{number}")["State"] == "running", 10, "it runs once more")
        self.assertEqual(self.d.ctl("cancel", number).returncode, 0)

    def test_one_that_fails_hides_none_that_does_not(self):
        """With several operands all that can be done is, and the JSON tells of it."""
        def rows(*words):
            r = self.d.ctl(*words, "--json=short")
            self.assertEqual((r.returncode, len(r.stderr.splitlines())), (4, 1), r.stderr)
            return json.loads(r.stdout)
        first, second = (int(self.submit("cancellable", "work", "ms=60000", "--delay=1h")) for _ in range(2))
        self.assertEqual(self.d.ctl("cancel", first, second).stdout, f"{first} cancelled\n{second} cancelled\n")
        self.assertEqual(rows("requeue", first, "999999", second),
                         [{"id": first, "state": "queued"}, {"id": second, "state": "queued"}])
        self.d.ctl("cancel", first, second)
        workers = [row[0] for row in self.d.wait_workers("cancellable", 1) + self.d.wait_workers("typed", 1)]
        self.assertEqual(rows("kill", "-s", "CONT", workers[0], "999999", workers[1]),
                         [{"worker": f"/org/drover1/worker/{n}", "signal": 18} for n in workers])

    def test_numbers_that_are_none(self):
        for verb in ("wait", "result", "cancel", "why"):
            r = self.d.ctl(verb, "seven")
            self.assertEqual(r.returncode, 2, r.stderr)
            self.assertIn("seven", r.stderr)
            r = self.d.ctl(verb, "4711")
            self.assertEqual(r.returncode, 4, r.stderr)
            self.assertIn("4711", r.stderr)


class Pools(Test):
    def setUp(self):
        self.drover = Drover({"a": {"Plugin": "cancellable", "Workers": 2}, "b": {"Plugin": "primes", "Workers": 1}})
        self.d = self.drover.__enter__()

    def tearDown(self):
        self.drover.__exit__(None, None, None)

    def good(self, *words):
        r = self.d.ctl(*words)
        self.assertEqual((r.returncode, r.stderr), (0, ""), words)
        return r.stdout

    def test_stop_and_start_wait_until_it_is_so(self):
        self.assertEqual(self.good("stop", "a", "b"), "a is stopped\nb is stopped\n")
        self.assertEqual(self.d.list_workers(), [])
        self.assertEqual(self.good("start", "a", "b"), "a is running\nb is running\n")
        self.assertEqual(self.d.run("b", "is_prime", n=97), {"prime": True})
        self.assertEqual(self.good("pause", "b"), "b is paused\n")
        self.assertEqual(self.good("resume", "b", "-q"), "")
        self.assertEqual(self.d.pool("b")["State"], "running")

    def test_a_pool_that_takes_no_jobs_is_neither_paused_nor_resumed(self):
        self.d.write_pool("refused", Plugin="no-such-plugin")
        self.good("reload")
        self.good("stop", "b")
        for verb in ("pause", "resume"):
            for pool, state, name in (("b", "stopped", "PoolStopped"), ("refused", "no-such-plugin", "PoolRefused")):
                r = self.d.ctl(verb, pool)
                self.assertEqual((r.returncode, r.stdout), (4, ""))
                self.assertRegex(r.stderr, rf"pool {pool} is .*{state}.*\(org\.drover1\.Error\.{name}\)\n")
        self.assertEqual(self.good("start", "b"), "b is running\n")

    def test_drain_waits_for_the_jobs(self):
        _, path = self.d.submit("a", "work", ms=400)
        self.assertEqual(self.good("drain", "a", "--no-wait"), "a is draining\n")
        self.assertEqual(self.good("drain", "a"), "a is stopped\n")
        self.assertEqual(self.d.wait_job(path), "done")

    def test_restart_replaces_every_worker_after_its_job(self):
        _, path = self.d.submit("a", "work", ms=400)
        old = {row[0] for row in self.d.list_workers("a")}
        self.assertEqual(self.good("restart", "a"), "a is running\n")
        self.assertEqual(self.d.wait_job(path), "done")
        new = {row[0] for row in self.d.list_workers("a")}
        self.assertEqual(old & new, set())
        self.assertTrue(new)

    def test_a_start_that_fails_says_why(self):
        self.d.write_pool("c", Plugin="refuses-init")
        self.assertIn("c", self.good("reload"))
        wait_for(lambda: self.d.pool("c")["Problem"], 10, "a problem")
        self.d.ctl("stop", "c")
        self.d.write_pool("d", Plugin="no-such-plugin")
        self.good("reload")
        r = self.d.ctl("start", "d")
        self.assertEqual((r.returncode, r.stdout), (4, ""))
        self.assertIn("no-such-plugin", r.stderr)

    def install(self, name, source):
        path = os.path.join(self.d.plugin_dir, name + ".so")
        shutil.copy(os.path.join(self.d.plugin_dir, source + ".so"), path + ".new")
        os.rename(path + ".new", path)

    def test_start_and_restart_wait_for_a_worker(self):
        """Of the file that is there now, and whatever failed before."""
        for name in "mn":
            self.install(name, "primes")
            self.d.write_pool(name, Plugin=name, Workers=1)
        self.good("reload")
        old = self.d.wait_workers("m", 1)[0]
        self.d.wait_workers("n", 1)
        self.good("stop", "n")
        for name in "mn":
            self.install(name, "crash-in-init")
        for waiting in [self.d.ctl_start(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                        for words in (("restart", "m"), ("start", "n"))]:
            out, err = waiting.communicate(timeout=60 * PATIENCE)
            self.assertEqual((waiting.returncode, out), (4, ""))
            self.assertIn("a worker did not come up", err)
        kill(old[3])
        wait_for(lambda: old[0] not in {row[0] for row in self.d.list_workers("m")}, 10, "it is gone")
        for verb, name in (("restart", "m"), ("start", "n")):
            self.install(name, "primes")
            self.assertEqual(self.good(verb, name), f"{name} is running\n")
            self.d.wait_workers(name, 1, seconds=2)
            self.assertEqual(self.d.pool(name)["Problem"], "")

    def test_an_interrupt_ends_the_waiting_only(self):
        self.d.submit("a", "work", ms=1000)
        draining = self.d.ctl_start("drain", "a", stdout=subprocess.PIPE)
        wait_for(lambda: self.d.pool("a")["State"] == "draining", 10, "it drains")
        draining.send_signal(signal.SIGINT)
        self.assertEqual(draining.communicate()[0], "")
        self.assertEqual(draining.returncode, 130)
        self.d.wait_state("a", "stopped")

    def settings(self, pool):
        """{key: (value, where)}, and the files."""
        told = json.loads(self.good("cat", pool, "--json=short"))
        return {row["key"]: (row["value"], row["from"]) for row in told["settings"]}, told["files"]

    def test_cat(self):
        directory = os.path.join(self.d.dir, "config", "pools.d")
        file, drop_in = f"{directory}/own.pool", f"{directory}/own.pool.d/10-more.conf"
        conf = os.path.join(self.d.dir, "config", "drover.conf")
        os.makedirs(os.path.dirname(drop_in))
        for path, text in ((conf, "[Job]\nResultTTL=2min\nMaxAttempts=5\n"),
                           (file, "[Pool]\nPlugin=primes\nWorkers=1\nSlots=64\n[Job]\nMaxAttempts=\n"),
                           (drop_in, "# of the site\n[Pool]\nSlots=128\n[Worker]\nEnvironment=TOKEN=abc\n")):
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
        self.good("reload")
        self.d.wait_workers("own", 1)
        settings, files = self.settings("own")
        self.assertEqual(files, [conf, file, drop_in])
        for key, wanted in {"Plugin": ("primes", f"{file}:2"), "Workers": ("1", f"{file}:3"),
                            "MaxWorkers": ("1", "default"), "Slots": ("128", f"{drop_in}:3"),
                            "ResultTTL": ("2min", f"{conf}:2"), "MaxAttempts": ("5", f"{conf}:3"),
                            "Environment": ("TOKEN=abc", f"{drop_in}:5"), "StartMethod": ("forkserver", "default"),
                            "MemoryMax": ("", "default")}.items():
            self.assertEqual(settings[key], wanted, key)
        shown = self.good("cat", "own", "--full")
        self.assertTrue(shown.startswith(f"# {conf}\n# {file}\n# {drop_in}\n"), shown)
        self.assertRegex(shown, rf"(?m)^Pool +Slots=128 +{re.escape(drop_in)}:3$")
        self.good("resize", "own", "2")
        self.assertEqual(self.settings("own")[0]["Workers"], ("2", "bus"))
        with open(drop_in, "w", encoding="utf-8") as f:
            f.write("\n\n[Pool]\nSlots=128\n[Worker]\nEnvironment=TOKEN=abc\n")
        self.good("reload")
        settings = self.settings("own")[0]
        self.assertEqual((settings["Slots"], settings["Workers"]), (("128", f"{drop_in}:4"), ("2", "bus")),
                         "the same settings from other lines")
        with open(file, "a", encoding="utf-8") as f:
            f.write("MaxAttempts=none\n")
        self.d.ctl("reload")
        self.assertEqual(self.settings("own")[0]["MaxAttempts"], ("5", f"{conf}:3"), "the old settings go on")
        self.d.call("/org/drover1", "org.drover1.Manager", "CreatePool", "sa{sv}t", "made", 2,
                    "Plugin", "s", "primes", "Workers", "u", 1, 0)
        settings, files = self.settings("made")
        self.assertEqual((settings["Workers"], settings["Slots"], files), (("1", "bus"), ("1024", "default"), []))
        self.assertEqual(self.d.ctl("cat", "nopool").returncode, 4)
        if os.geteuid() == 0:
            os.chmod(self.d.dir, 0o711)
            told = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                                   "busctl", f"--address={self.d.bus.address}", "get-property",
                                   "org.drover1", "/org/drover1/pool/own", "org.drover1.Pool", "Settings"],
                                  capture_output=True, text=True, check=True).stdout
            self.assertIn('"Environment" "(hidden)"', told)
            self.assertNotIn("TOKEN", told)

    def test_cat_of_more_files_than_there_is_room_to_name(self):
        directory = os.path.join(self.d.dir, "config", "pools.d", "a.pool.d")
        os.makedirs(directory)
        names = [f"{directory}/{n:02}-{'x' * 200}.conf" for n in range(25)]
        for name in names:
            with open(name, "w", encoding="utf-8") as f:
                f.write("[Job]\nResultTTL=3min\n")
        self.good("reload")
        settings, files = self.settings("a")
        self.assertEqual(settings["ResultTTL"], ("3min", "(one of more files):2"))
        self.assertGreater(len(files), 10)
        self.assertEqual(files[1:], names[:len(files) - 1], "the first ones are named, each whole")
        with open(f"{SOURCE}/docs/droverctl.1.scd", encoding="utf-8") as f:
            self.assertIn("*(one of more files):*_LINE_", f.read())

    def test_resize(self):
        self.assertEqual(self.good("resize", "b", "3"), "b has 3 workers\n")
        self.d.wait_workers("b", 3)
        for n, code in (("many", 2), ("0", 2), ("257", 2)):
            self.assertEqual(self.d.ctl("resize", "b", n).returncode, code, n)

    def test_kill(self):
        number, _, _, pid, _ = self.d.list_workers("b")[0]
        self.assertEqual(self.good("kill", number), "")
        wait_for(lambda: len(self.d.deaths("b")) == 1, 10, "a death")
        self.d.wait_workers("b", 1)
        pid = self.d.list_workers("b")[0][3]
        self.assertEqual(self.good("kill", f"pid:{pid}", "--signal=SIGKILL"), "")
        wait_for(lambda: len(self.d.deaths("b")) == 2, 10, "a second death")
        self.assertEqual([(d["reason"], d["status"]) for d in self.d.deaths("b")], [("signal", 9), ("signal", 15)])
        for words, code in ((["x"], 2), (["1", "-s", "GENTLY"], 2), (["4711"], 4), (["pid:1"], 4)):
            r = self.d.ctl("kill", *words)
            self.assertEqual(r.returncode, code, (words, r.stderr))
        self.assertEqual(self.d.ctl("list-deaths", "b", "-q", "--lines=1").stdout.split()[5], "signal")

    def test_reload_tells_what_changed(self):
        self.assertEqual(self.good("reload"), "nothing changed\n")
        self.d.write_pool("b", Plugin="primes", Workers=2)
        self.assertIn("pool b: ", self.good("reload"))
        self.d.write_pool("bad name", Plugin="primes")
        self.assertRegex(self.good("reload"),
                         r'^pool bad name\.pool: refused: \S+/bad name\.pool: "bad name" is not a pool name')
        self.d.remove_pool_file("bad name")
        path = os.path.join(self.d.config_dir, "drover.conf")
        with open(path, "w", encoding="utf-8") as f:
            f.write("[Daemon\n")
        r = self.d.ctl("reload")
        self.assertEqual((r.returncode, r.stdout), (4, ""))
        self.assertIn(f"{path}:1: ", r.stderr)


class Output(Test):
    """What is printed is there, or the exit code says that it is not: never a success without the output."""

    @classmethod
    def setUpClass(cls):
        cls.drover = Drover({"primes": {"Plugin": "primes", "Workers": 1}})
        cls.d = cls.drover.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.drover.__exit__(None, None, None)

    def test_output_that_cannot_be_written(self):
        for command in ("status", "call primes is_prime n=97", "map primes is_prime --input=/dev/stdin", "--help"):
            for where in (">/dev/full", ">&-"):
                r = subprocess.run(["sh", "-c", f"echo 97 | '{DROVERCTL}' --user {command} {where}"], env=self.d.env(),
                                   capture_output=True, text=True, check=False)
                self.assertEqual((r.returncode, r.stdout), (5, ""), (command, where))
                self.assertIn("cannot write the output", r.stderr)

    def test_map_ends_when_nobody_takes_the_results(self):
        r = subprocess.run(["sh", "-c", f"yes 97 | '{DROVERCTL}' --user map primes is_prime >/dev/full"],
                           env=self.d.env(),
                           capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(r.returncode, 5)
        wait_for(lambda: self.d.pool("primes")["Queued"] == 0, 10, "what was queued is cancelled")

    def test_nothing_goes_to_the_bus_by_mistake(self):
        """With the standard streams closed the bus gets none of their numbers."""
        r = subprocess.run(["sh", "-c", f"'{DROVERCTL}' --user status <&- >&- 2>&-"], env=self.d.env(), check=False)
        self.assertEqual(r.returncode, 5)


if __name__ == "__main__":
    main()
