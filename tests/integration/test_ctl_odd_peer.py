"""droverctl and whoever owns org.drover1 but is no droverd, or one of another release; terminals, outputs and signals that are odd."""

import json
import os
import signal
import subprocess
import tempfile

from harness import BUILD, DROVERCTL, IS_SANITIZED, PATIENCE, Bus, Drover, Test, main, wait_for, wait_surely
from test_ctl_verbs import verbs

ODD_PEER = f"{BUILD}/tests/integration/odd-peer"
ROUNDS = int(os.environ.get("DROVER_ODD_ROUNDS", "6" if IS_SANITIZED else "24"))
SEED = int(os.environ.get("DROVER_TEST_SEED", "1"))

# Every verb, with operands: test_every_verb_is_here holds it against --help.
VERBS = {
    "status": [["--full"]], "list-pools": [[]], "list-workers": [[], ["x"]], "list-jobs": [[], ["x", "--state=done"]],
    "list-objects": [["a"]], "list-sessions": [[], ["x"]], "list-arenas": [[]], "remove-arena": [["a"]], "list-deaths": [[]], "show": [["x"], ["worker/7"], ["job/7"]], "cat": [["x"]], "schema": [["x"]], "why": [["7"]],
    "list-capsules": [[]], "show-capsule": [["7"]], "top": [["--once", "-d", "100ms"]], "call": [["x", "x"], ["x", "x", "n=1"]],
    "submit": [["x", "x"]], "wait": [["7", "8"]], "result": [["7"], ["7", "-o", "n=/dev/null"]], "cancel": [["7"]],
    "requeue": [["7"], ["x"]], "resubmit": [["7"], ["/nonexistent"]], "map": [["x", "x"]], "start": [["x"]], "stop": [["x"]], "restart": [["x"]], "drain": [["x"]],
    "pause": [["x"]], "resume": [["x"]], "resize": [["x", "2"]], "reset-failed": [["x"]], "kill": [["7"], ["pid:7"]], "reload": [[]],
    "verify": [["/nonexistent/x.pool"]], "complete": [["--", "call", "x", "x", ""], ["--", "show", ""], ["--", "wait", ""]],
    "run": [["--plugin=/nonexistent.so", "--", "true"]], "help": [[]],
}


class OddPeer(Test):
    """Whatever comes back: an exit code of droverctl's own, and if it is a failure a line that says why."""

    def setUp(self):
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.bus = Bus(directory.name)
        self.addCleanup(self.bus.stop)

    def start_peer(self, seed, *missing):
        peer = subprocess.Popen([ODD_PEER, self.bus.address, str(seed), *missing], stdout=subprocess.PIPE)
        self.assertEqual(peer.stdout.readline(), b"ready\n")

        def end():
            peer.kill()
            peer.wait()
            peer.stdout.close()
        return end

    def ctl(self, *words, timeout=30, **options):
        env = dict(os.environ, **options.pop("env", {}))
        return subprocess.run([DROVERCTL, f"--address={self.bus.address}", *words], env=env, stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=timeout * PATIENCE, check=False, **options)

    def test_every_verb_is_here(self):
        self.assertEqual(set(verbs()) - set(VERBS), set())

    def test_what_is_missing_ends_a_list_and_is_named(self):
        for missing, said, lines in (("State", b"without the property State", (["list-pools"], ["list-workers"], ["status"], ["status", "--full"])),
                                     ("ListTasks", b'ListTasks is answered by "" in place of', (["status", "--full"],))):
            end = self.start_peer(SEED, missing)
            try:
                for words in lines:
                    r = self.ctl(*words)
                    self.assertEqual((r.returncode, r.stdout), (4, b""), (missing, words, r))
                    self.assertIn(said, r.stderr, (missing, words))
            finally:
                end()

    def test_every_verb_survives_every_answer(self):
        n_said = 0
        for round_ in range(ROUNDS):
            end = self.start_peer(SEED * 1000 + round_)
            try:
                for verb, lines in VERBS.items():
                    for words in lines:
                        json_mode = ("off", "short", "pretty")[round_ % 3]
                        r = self.ctl(f"--json={json_mode}", verb, *words)
                        where = (SEED * 1000 + round_, verb, words, r)
                        self.assertIn(r.returncode, (0, 1, 2, 3, 4, 125), where)
                        if r.returncode and verb not in ("run", "verify"):
                            lines_said = r.stderr.decode().splitlines()
                            self.assertTrue(lines_said or r.stdout, where)
                            self.assertTrue(all(line.startswith("droverctl: ") for line in lines_said), where)
                        self.assertNotIn(b"\x1b", r.stdout + r.stderr, where)
                        n_said += b"another release than this droverctl" in r.stderr
            finally:
                end()
        self.assertGreater(n_said, ROUNDS)

    def test_libdrover_survives_every_answer(self):
        for round_ in range(ROUNDS):
            end = self.start_peer(SEED * 1000 + round_)
            try:
                env = dict(os.environ, DBUS_SESSION_BUS_ADDRESS=self.bus.address)
                r = subprocess.run([f"{BUILD}/ipc/client/examples/example-map"], env=env, stdin=subprocess.DEVNULL, capture_output=True,
                                   timeout=30 * PATIENCE, check=False)
                self.assertEqual((r.returncode, r.stderr.count(b"\n")), (1, 1), (SEED * 1000 + round_, r))
            finally:
                end()


class Surroundings(Test):
    """Terminals without abilities, no columns, any locale, closed and full outputs, signals."""

    @classmethod
    def setUpClass(cls):
        cls.drover = Drover({"slow": {"Plugin": "cancellable", "Workers": 1}, "-x": {"Plugin": "primes", "Workers": 1, "ResultTTL": "1h"},
                             "1": {"Plugin": "primes", "Workers": 1}})
        cls.d = cls.drover.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.drover.__exit__(None, None, None)

    def shell(self, script, **env):
        return subprocess.run(["sh", "-c", script], env=dict(self.d.env(), CTL=f"{DROVERCTL} --user", **env), stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=60 * PATIENCE, check=False)

    def lines(self):
        number, path = self.d.submit("-x", "is_prime", n=97)
        self.d.wait_job(path)
        return [["status", "--full"], ["list-pools"], ["list-workers"], ["list-jobs"], ["list-deaths"], ["list-capsules"], ["show", "1"],
                ["show", "--", "-x"], ["show", f"job/{number}"], ["schema", "1"], ["why", str(number)], ["top", "--once", "-d", "100ms"],
                ["call", "1", "is_prime", "n=97"], ["submit", "1", "is_prime", "n=97"], ["wait", str(number)], ["result", str(number)],
                ["cancel", str(number)], ["pause", "1"], ["resume", "1"], ["resize", "1", "1"], ["reset-failed", "1"], ["reload"], ["help"],
                ["restart", "1"], ["requeue", "--", "-x"]]

    def test_terminals_and_locales(self):
        for locale in ("C", "C.UTF-8"):
            for words in self.lines():
                r = self.shell("exec $CTL " + " ".join(words), TERM="dumb", COLUMNS="0", LC_ALL=locale)
                self.assertEqual((r.returncode, r.stderr), (0, b""), (locale, words, r))
                self.assertNotIn(b"\x1b", r.stdout, words)

    def test_outputs(self):
        for words in self.lines():
            line = " ".join(words)
            for output, codes in ((">/dev/full", (5,)), (">&-", (5,)), ("2>/dev/full", (0,)), (">/dev/null 2>&-", (0,)), ("| true", (0,))):
                r = self.shell(f"$CTL {line} {output}")
                if codes == (5,) and not self.shell(f"$CTL {line}").stdout:
                    codes = (0,)  # nothing to say
                self.assertIn(r.returncode, codes, (words, output, r))

    def test_signals_cancel_what_call_has_begun(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            p = self.d.ctl_start("call", "slow", "work", "ms=60000", stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                 preexec_fn=lambda n=number: signal.signal(n, signal.SIG_DFL))  # nohup and & ignore some
            jobs = wait_for(lambda: [j for j in json.loads(self.d.ctl("list-jobs", "slow", "--state=running", "--json=short").stdout)], 10, "it runs")
            p.send_signal(number)
            self.assertEqual(p.wait(20 * PATIENCE), 130, number)
            p.communicate()
            wait_surely(lambda: self.d.job(jobs[0]["path"])["State"] not in ("queued", "running"), 10, f"signal {number} cancels the job")

    def test_what_is_ignored_stays_ignored(self):
        p = self.d.ctl_start("call", "slow", "work", "ms=1000", stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        wait_for(lambda: json.loads(self.d.ctl("list-jobs", "slow", "--state=running", "--json=short").stdout), 10, "it runs")
        p.send_signal(signal.SIGHUP)
        self.assertEqual((p.wait(20 * PATIENCE), p.communicate()[1]), (0, ""))

    def test_names_that_look_like_something_else(self):
        ctl = self.d.ctl
        number, path = self.d.submit("1", "is_prime", n=97)
        self.d.wait_job(path)
        r = ctl("requeue", "1")
        self.assertEqual(r.returncode, 2, r)
        self.assertIn("there is a pool 1, too: say job/1 or pool/1", r.stderr)
        self.assertIn("0 jobs", ctl("requeue", "pool/1").stdout)
        self.assertEqual(ctl("requeue", "worker/1").returncode, 4)  # neither a job nor a pool
        self.assertEqual(ctl("wait", "worker/1").returncode, 2)
        r = ctl("show", "-x")
        self.assertEqual((r.returncode, "stands behind --" in r.stderr), (2, True), r)
        self.assertIn("Name:", ctl("show", "--", "-x").stdout)
        self.assertNotIn("-x", ctl("complete", "--", "--user", "show", "").stdout.split())
        self.assertIn("-x", ctl("complete", "--", "--user", "show", "--", "").stdout.split())
        ctl("pause", "--", "-x")
        number, path = self.d.submit("-x", "is_prime", n=97)
        self.assertIn("droverctl resume -- -x lets it go on", ctl("why", number).stdout)
        ctl("resume", "--", "-x")
        self.d.wait_job(path)


if __name__ == "__main__":
    main()
