"""droverctl: tables, exit codes, options, and `run`, which leaves nothing behind however it ends."""

import json
import os
import shutil
import signal
import subprocess
import tempfile

from harness import BUILD, DROVERCTL, PATIENCE, Drover, Test, descendants, kill, main, reap_orphans, stat_of, wait_for

PRIMES = f"{BUILD}/plugins/primes/primes.so"


class Verbs(Test):
    @classmethod
    def setUpClass(cls):
        cls.drover = Drover({"primes": {"Plugin": "primes", "Workers": 2}, "second": {"Plugin": "primes", "Workers": 1},
                              "echo": {"Plugin": "echo", "Workers": 1}, "fails": {"Plugin": "fails", "Workers": 1},
                              "typed": {"Plugin": "typed", "Workers": 1}})
        cls.d = cls.drover.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.drover.__exit__(None, None, None)

    def test_call(self):
        r = self.d.ctl("call", "primes", "is_prime", "n=1099726899285419")
        self.assertEqual((r.returncode, r.stdout), (0, "prime=false\n"))
        r = self.d.ctl("call", "primes", "is_prime", "n=97", "--json=short")
        result = json.loads(r.stdout)
        self.assertEqual((result["state"], result["result"]), ("done", {"prime": True}))

    def test_what_is_no_number_is_null_in_json(self):
        words = ["call", "typed", "echo", "u=0", "i=0", "f=-inf", "b=true", "s=", "y=", "us=", "is=", "fs=nan,1.5,inf",
                 "bs=", "ss="]

        def refuse(word):
            self.fail(f"{word} is no JSON")

        result = json.loads(self.d.ctl(*words, "--json=short").stdout, parse_constant=refuse)["result"]
        self.assertEqual((result["f"], result["fs"]), (None, [None, 1.5, None]))
        r = self.d.ctl(*words)
        self.assertRegex(r.stdout, r"\bf=-inf\b.* fs=-?nan,1\.5,inf\b")
        self.assertRegex(self.d.ctl(*words, "-o", "f=-").stdout, "^-inf")

    def test_call_and_map_print_a_result_alike(self):
        words = ["u=0", "i=-5", "f=0.1", "b=true", "s=", "y=", "us=1,2", "is=-1", "fs=100,0.5,1e300,-0", "bs=",
                 'ss=a b,"\r']
        line = " ".join(f'"{word}"' if " " not in word else '"ss=a b,\\"\r"' for word in words)
        for mode in "--json=off", "--json=short":
            called, mapped = self.d.ctl("call", "typed", "echo", *words, mode), self.d.ctl("map", "typed", "echo", mode,
                                                                                           input=line)
            self.assertEqual((called.returncode, mapped.returncode), (0, 0), mapped.stdout)
            if mode == "--json=off":
                self.assertEqual(mapped.stdout.split("\t", 1)[1], called.stdout)
                self.assertIn(' f=0.1 b=true s="" y= us=1,2 is=-1 fs=100,0.5,1e+300,-0.0 bs= ss="a b",', called.stdout)
            else:
                self.assertEqual(called.stdout.partition('"result":')[2], mapped.stdout.partition('"result":')[2])

    def test_a_payload_is_given_once(self):
        r = self.d.ctl("call", "echo", "echo", "payload=a", "--input=-", input="b")
        self.assertEqual((r.returncode, r.stdout), (2, ""))
        self.assertIn("payload=a", r.stderr)
        self.assertEqual(self.d.ctl("call", "echo", "echo", "--input=-", input="b").stdout, "b")

    def test_tables_line_up(self):
        for verb in ("list-pools", "list-workers", "status"):
            r = self.d.ctl(verb)
            self.assertEqual(r.returncode, 0, r.stderr)
            rows = [line for line in r.stdout.splitlines() if line and not line.startswith("droverd ")]
            heading = rows[0]
            self.assertRegex(heading, r"^\s*(POOL|WORKER)\b")
            self.assertEqual(len(rows), 7 if verb == "list-workers" else 6)
            column = heading.index("STATE")
            for row in rows[1:]:
                self.assertIn(row[column - 1], " ", row)
                self.assertRegex(row[column:], r"^(running|idle)")

    def test_show(self):
        r = self.d.ctl("show", "primes")
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertIn("is_prime(n:u64) -> prime:bool", r.stdout)
        self.assertRegex(r.stdout, r"StartMethod:\s+forkserver")

    def test_what_a_job_says_gives_no_orders_to_a_terminal(self):
        order = "\x1b]0;title\x07\x9b2J"
        with self.assert_error("Failed", "ü" * 900):
            self.d.run("fails", "fail", error=5, text="ü" * 900)
        words = ["fails", "fail", "error=5", f"text={order}"]
        said = [self.d.ctl("call", *words)]
        number = self.d.ctl("submit", *words).stdout.strip()
        self.d.ctl("wait", number)
        said += [self.d.ctl("result", number), self.d.ctl("why", number)]
        said.append(self.d.ctl("map", "fails", "fail", input=f'error=5 text="{order}\0x"\n'))
        for r in said:
            text = r.stdout + r.stderr
            self.assertIn("?]0;title??2J", text)
            self.assertFalse([c for c in text if not c.isprintable() and c not in "\n\t"], text)
        self.assertIn("?x", said[-1].stdout)
        r = self.d.ctl("map", "fails", "fail", "--json=short", input=f'error=5 text="{order}\0x"\n')
        self.assertEqual(json.loads(r.stdout)["input"], f'error=5 text="{order}\0x"')
        self.assertIn("\\u009b", r.stdout)
        self.assertEqual(self.d.ctl("call", "echo", "echo", "--input=-", input=order).stdout, order, "a pipe gets all")

    def test_why_of_a_long_result_shows_its_beginning(self):
        number = self.d.ctl("submit", "echo", "echo", "--input=-", input="ab" * 3000).stdout.strip()
        self.d.ctl("wait", number)
        r = self.d.ctl("why", number)
        self.assertRegex(r.stdout,
                         rf"^Job {number} \(echo of pool echo\) is done: \S+… \(\d{{4}} bytes more\)\nIt waited ")
        self.assertLess(len(r.stdout), 600)

    def test_why_of_a_job_that_is_done(self):
        number, _ = self.d.submit("primes", "is_prime", n=97)
        wait_for(lambda: "is done" in self.d.ctl("why", number).stdout, 10, "done")
        r = self.d.ctl("why", number)
        self.assertIn(f"Job {number} (is_prime of pool primes) is done", r.stdout)
        self.assertIn("prime=true", r.stdout)
        self.assertEqual(self.d.ctl("why", "999999").returncode, 4)
        self.assertEqual(self.d.ctl("why", "nothing").returncode, 2)

    def test_why_a_job_is_queued(self):
        def submit(*words):
            number = self.d.ctl("submit", *words).stdout.strip()
            self.addCleanup(self.d.ctl, "cancel", "--mode=kill", number)
            return number

        delayed = submit("primes", "is_prime", "n=97", "--delay=1h")
        r = self.d.ctl("why", delayed)
        self.assertRegex(r.stdout,
                         rf"^Job {delayed} .* is queued, for .*\nPool primes has workers that are free: "
                         rf".*not-before.*after")
        long = submit("second", "is_prime", "n=18446744073709551557")
        self.d.ctl("pause", "second")
        paused = submit("second", "is_prime", "n=97")
        self.assertIn("Pool second is paused: droverctl resume second lets it go on.\n",
                      self.d.ctl("why", paused).stdout)
        self.d.ctl("resume", "second")
        self.assertIn("Pool second has 1 jobs running in 1 workers, and 1 queued", self.d.ctl("why", paused).stdout)
        self.assertEqual(self.d.get(f"/org/drover1/job/{long}", "org.drover1.Job", "State"), "running",
                         "it takes seconds")

    def test_why_of_jobs_of_a_channel(self):
        """Their results are their client's; where they are and what holds them back is not."""
        feeder = self.d.ctl_start("map", "second", "is_prime", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        self.addCleanup(feeder.kill)
        feeder.stdin.write("18446744073709551557\n" * 2)
        feeder.stdin.close()

        def jobs():
            rows = json.loads(self.d.ctl("list-jobs", "second", "--state=queued,running", "--json=short").stdout)
            return {row["state"]: row["id"] for row in rows}

        wait_for(lambda: len(jobs()) == 2, 10, "one runs, one is queued")
        for state, text in (("running", r"is running in attempt 1, .*in the worker with pid \d+\.\n$"),
                            ("queued", r"is queued.*\nPool second has 1 jobs running in 1 workers, and 1 queued\.\n$")):
            number = jobs()[state]
            r = self.d.ctl("why", number)
            self.assertEqual((r.returncode, r.stderr), (0, ""))
            self.assertRegex(r.stdout, rf"^Job {number} \(is_prime of pool second\) {text}")
            why = json.loads(self.d.ctl("why", number, "--json=short").stdout)
            self.assertEqual((why["State"], why["Result"]), (state, None))
        feeder.terminate()
        self.assertEqual(feeder.wait(20 * PATIENCE), 130)
        wait_for(lambda: self.d.pool("second")["Running"] == 0, 10, "they are cancelled")

    def test_exit_codes(self):
        for words, code, text in (
                ([], 2, "verb"),
                (["frobnicate"], 2, "frobnicate"),
                (["status", "--frobnicate"], 2, "--frobnicate"),
                (["status", "--json=yaml"], 2, "yaml"),
                (["status", "--plugin=x"], 2, "--plugin"),
                (["status", "superfluous"], 2, "superfluous"),
                (["call", "primes"], 2, "TYPE"),
                (["call", "primes", "is_prime", "n=many"], 2, "many"),
                (["call", "primes", "is_prime", "m=1"], 2, "m"),
                (["call", "primes", "is_prime"], 2, "n"),
                (["call", "primes", "is_prime", "97"], 2, "97"),
                (["call", "primes", "nojob"], 4, "nojob"),
                (["call", "nopool", "is_prime"], 4, "nopool"),
                (["show", "nopool"], 4, "nopool"),
                (["show", "7"], 4, "no pool is named 7"),
                (["show", "7"], 4, "job/7, a worker by worker/7"),
                (["show", "worker/999999"], 4, "no worker 999999"),
                (["kill", "999999"], 4, "no worker 999999"),
                (["status", "--address=unix:path=/nonexistent"], 3, "/nonexistent")):
            r = self.d.ctl(*words)
            self.assertEqual(r.returncode, code, (words, r.stderr))
            self.assertIn(text, r.stderr)
            self.assertEqual(len(r.stderr.splitlines()), 1, "one line")

    def test_help_names_every_verb_and_option_and_code(self):
        r = self.d.ctl("--help")
        self.assertEqual(r.returncode, 0)
        for word in ("status", "list-pools", "list-workers", "show", "call", "map", "why", "run", "--user", "--json",
                     "--input",
                     "125", "130"):
            self.assertIn(word, r.stdout)
        self.assertEqual(self.d.ctl("help").stdout, r.stdout)
        self.assertRegex(self.d.ctl("--version").stdout, r"^droverctl \d+\.\d+\.\d+\n$")

    def test_options_before_and_after_the_verb(self):
        for words in (["--json=short", "list-pools"], ["list-pools", "--json=short"]):
            self.assertEqual(len(json.loads(self.d.ctl(*words).stdout)), 5)
        r = self.d.ctl("list-pools", "-q")
        self.assertNotIn("POOL", r.stdout)

    def test_without_a_bus_option_the_one_with_a_daemon_is_taken(self):
        r = subprocess.run([DROVERCTL, "-q", "list-pools"], env=self.d.env(), capture_output=True, text=True,
                           check=False)
        self.assertEqual(r.returncode, 0, r.stderr)

    def test_interrupt_of_call_cancels(self):
        ctl = self.d.ctl_start("call", "second", "is_prime", "n=18446744073709551557", stderr=subprocess.PIPE)
        wait_for(lambda: self.d.pool("second")["Running"] == 1, 10, "it runs")
        ctl.send_signal(signal.SIGINT)
        self.assertEqual(ctl.wait(10 * PATIENCE), 130)
        ctl.stderr.close()
        wait_for(lambda: self.d.pool("second")["Running"] == 0, 10, "it is cancelled")


class Verify(Test):
    """droverctl verify: every problem of a file, as FILE:LINE, without a bus."""

    def setUp(self):
        self.tmp = tempfile.mkdtemp(prefix="drt-")

    def tearDown(self):
        shutil.rmtree(self.tmp)

    def write(self, name, text):
        path = os.path.join(self.tmp, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return path

    def verify(self, *words):
        env = dict(os.environ, DBUS_SESSION_BUS_ADDRESS="unix:path=/nonexistent",
                   DBUS_SYSTEM_BUS_ADDRESS="unix:path=/nonexistent")
        return subprocess.run([DROVERCTL, "verify", *words], env=env, capture_output=True, text=True, check=False)

    def test_good_files(self):
        pool = self.write("good.pool", "[Pool]\nPlugin=primes\nWorkers=2\n\n[Job]\nHardTimeout=5min\n")
        daemon = self.write("drover.conf", "[Daemon]\nLogLevel=debug\n[Pool]\nStartMethod=spawn\n")
        drop_in = self.write("good.pool.d/10-more.conf", "[Pool]\nWorkers=4\n")
        r = self.verify(pool, daemon, drop_in)
        self.assertEqual((r.returncode, r.stdout, r.stderr), (0, "", ""))

    def test_every_error_is_told_with_its_line(self):
        path = self.write("bad.pool",
                          "[Pool]\nPlugin=primes\nWorkers=many\nWrokers=3\n\n"
                          "[Job]\nSoftTimeout=5s\nHardTimeout=1s\nMaxAttempts=0\n")
        r = self.verify(path)
        self.assertEqual((r.returncode, r.stdout), (1, ""))
        lines = r.stderr.splitlines()
        self.assertEqual([line.split(": ")[0] for line in lines], [f"{path}:{n}" for n in (3, 4, 9, 1)])
        for line, words in zip(lines, (("Workers=many",), ("Wrokers=", "Workers=", "warning"), ("MaxAttempts=0",),
                                       ("SoftTimeout=", "HardTimeout="))):
            for word in words:
                self.assertIn(word, line)

    def test_a_warning_is_no_failure(self):
        r = self.verify(self.write("odd.pool", "[Pool]\nPlugin=primes\nColour=blue\n"))
        self.assertEqual(r.returncode, 0)
        self.assertIn("odd.pool:3: ", r.stderr)

    def test_other_kinds_of_wrong(self):
        for name, text, code, words in (
                ("x.pool", "Plugin primes\n", 1, ("x.pool:1: ",)),
                ("y.pool", "[Pool]\nWorkers=1\n", 1, ("y.pool:1: ", "Plugin= is missing")),
                ("no good name.pool", "[Pool]\nPlugin=primes\n", 1, ("not a pool name",)),
                ("drover.conf", "[Daemon]\nLogLevel=loud\n[Pool]\nPlugin=primes\n", 1,
                 ("drover.conf:2: ", "drover.conf:4: ")),
                ("notes.txt", "", 2, ("notes.txt", ".pool"))):
            r = self.verify(self.write(name, text))
            self.assertEqual(r.returncode, code, (name, r.stderr))
            for word in words:
                self.assertIn(word, r.stderr)
        r = self.verify(os.path.join(self.tmp, "missing.pool"))
        self.assertEqual(r.returncode, 1)
        self.assertIn("No such file", r.stderr)

    def test_it_says_what_droverd_says(self):
        """One reader for both: the daemon's own check of the same folder has the same lines."""
        path = self.write("pools.d/bad.pool", "[Pool]\nPlugin=primes\nStartMethod=teleport\n")
        r = subprocess.run([f"{BUILD}/daemon/droverd", "--check", f"--config-dir={self.tmp}"], capture_output=True,
                           text=True, check=False)
        self.assertEqual(r.returncode, 1)
        self.assertIn(self.verify(path).stderr.strip(), r.stderr)

    def test_json(self):
        path = self.write("bad.pool", "[Pool]\nPlugin=primes\nWorkers=many\nWrokers=3\n")
        r = self.verify(path, "--json=short")
        self.assertEqual((r.returncode, r.stderr), (1, ""))
        self.assertEqual([p["severity"] for p in json.loads(r.stdout)], ["error", "warning"])
        self.assertEqual(json.loads(self.verify(self.write("good.pool", "[Pool]\nPlugin=primes\n"),
                                                "--json=pretty").stdout), [])


class Run(Test):
    """droverctl run, without a harness around it: it is one itself."""

    def setUp(self):
        self.tmp = tempfile.mkdtemp(prefix="drt-")
        self.env = dict(os.environ, TMPDIR=self.tmp)

    def tearDown(self):
        shutil.rmtree(self.tmp)

    def run_ctl(self, *words):
        return subprocess.run([DROVERCTL, "run", "--plugin", PRIMES, *words], env=self.env, capture_output=True,
                              text=True,
                              timeout=60 * PATIENCE, check=False)

    def check_nothing_left(self):
        def clean():
            reap_orphans()
            return not descendants() and not os.listdir(self.tmp)
        wait_for(clean, 5, lambda: f"nothing is left of droverctl run: {descendants()}")

    def test_command_gets_bus_and_path_and_its_code_is_returned(self):
        r = self.run_ctl("--", "sh", "-c", "droverctl call primes is_prime n=97; "
                         "busctl --user call org.drover1 /org/drover1 org.drover1.Manager Run 'ssa{sv}a{sv}' "
                         "primes is_prime 1 n t 1099726899285419 0; exit 7")
        self.assertEqual(r.returncode, 7, r.stderr)
        self.assertEqual(r.stdout, 'prime=true\na{sv} 1 "prime" b false\n')
        self.assertEqual(r.stderr, "")
        self.check_nothing_left()

    def test_settings(self):
        r = self.run_ctl("--start-method=spawn", "--workers=3", "--max-attempts=2", "--", "droverctl", "--json=short",
                         "list-pools")
        pool = json.loads(r.stdout)[0]
        self.assertEqual((pool["StartMethod"], pool["Workers"]), ("spawn", 3))
        self.check_nothing_left()

    def test_failures_before_the_command(self):
        for words, code, text in (
                (["--start-method=teleport", "--", "true"], 125, "teleport"),
                (["--", "/nonexistent/command"], 127, "/nonexistent/command"),
                (["--plugin=/nonexistent.so", "--", "true"], 2, "/nonexistent.so"),
                (["--plugin=/etc/hostname", "--", "true"], 125, "hostname")):
            r = self.run_ctl(*words)
            self.assertEqual(r.returncode, code, (words, r.stderr))
            self.assertIn(text, r.stderr)
            self.check_nothing_left()

    def test_signal_of_the_command_is_its_code(self):
        self.assertEqual(self.run_ctl("--", "sh", "-c", "kill -SEGV $$").returncode, 128 + signal.SIGSEGV)
        self.check_nothing_left()

    def test_background_processes_of_the_command_are_killed(self):
        r = self.run_ctl("--", "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & true")
        self.assertEqual(r.returncode, 0)
        self.check_nothing_left()

    def start_sleeping(self):
        ctl = subprocess.Popen([DROVERCTL, "run", "--plugin", PRIMES, "--", "sleep", "1000"], env=self.env,
                               stdout=subprocess.DEVNULL)
        wait_for(lambda: "sleep" in descendants(ctl.pid).values(), 20, "COMMAND runs")
        return ctl

    def keeper_of(self, ctl):
        pids = [pid for pid in descendants(ctl.pid) if stat_of(pid) and stat_of(pid)[2] == ctl.pid]
        self.assertEqual(len(pids), 1)
        return pids[0]

    def test_sigterm_ends_command_and_everything(self):
        ctl = self.start_sleeping()
        ctl.terminate()
        self.assertEqual(ctl.wait(20 * PATIENCE), 128 + signal.SIGTERM)
        self.check_nothing_left()

    def test_sigkill_of_droverctl_leaves_nothing(self):
        ctl = self.start_sleeping()
        ctl.kill()
        ctl.wait()
        self.check_nothing_left()

    def test_sigkill_of_its_keeper_leaves_nothing(self):
        ctl = self.start_sleeping()
        kill(self.keeper_of(ctl))
        self.assertEqual(ctl.wait(20 * PATIENCE), 128 + signal.SIGKILL)
        self.check_nothing_left()


if __name__ == "__main__":
    main()
