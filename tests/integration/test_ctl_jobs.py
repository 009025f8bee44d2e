"""droverctl's verbs for jobs by number: submit, wait, result, cancel, requeue, what goes in and out by files, lists."""

import json
import os
import signal
import subprocess
import tempfile

from harness import PATIENCE, Drover, Test, main, wait_for

# Takes seconds: a prime near 2^64.
LONG = "n=18446744073709551557"


def catches(pid, number):
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        return next(int(line.split()[1], 16) for line in f if line.startswith("SigCgt:")) >> number - 1 & 1


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
            self.assertEqual(feeder.wait(20 * PATIENCE), 130)
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


if __name__ == "__main__":
    main()
