"""droverctl's verbs: the JSON of each is a contract, and output that cannot be written."""

import json
import os
import re
import subprocess

from harness import DROVERCTL, Drover, Test, main, wait_for


def verbs():
    """Every verb of --help."""
    text = subprocess.run([DROVERCTL, "--help"], capture_output=True, text=True, check=True).stdout
    return re.findall(r"^  ([a-z][a-z-]*) ", text.partition("\nOptions")[0], re.MULTILINE)


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
