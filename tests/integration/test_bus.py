"""The D-Bus face: every due member by three clients, the vocabularies, errors that name the culprit, who may see what."""

import json
import os
import re
import subprocess
import unittest
import xml.etree.ElementTree as ElementTree

import harness
from harness import MANAGER, PATIENCE, BusError, Drover, Test, wait_for
from sdbus import Connection, u64

# The largest prime below 2**64: trial division is busy with it for seconds, and looks at its checkpoint.
SLOW = 18446744073709551557
NOBODY = 65534
FACES = {"Manager": "/org/drover1", "Pool": "/org/drover1/pool/p", "Worker": None, "Job": None}
POOL_MEMBERS = "Start Pause Resume Drain Stop Restart ResetFailed".split()


class Bus(Test):
    @classmethod
    def setUpClass(cls):
        cls.d = Drover({"p": {"Plugin": "primes", "Workers": 2, "StartMethod": "fork"},
                        "slow": {"Plugin": "primes", "Workers": 1, "StartMethod": "fork"}})
        cls.d.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.d.__exit__(None, None, None)

    def connect(self, uid=None):
        c = Connection(self.d.bus.address, uid)
        self.addCleanup(c.close)
        return c

    def worker_path(self, pool="p"):
        return self.d.wait_workers(pool, 2 if pool == "p" else 1)[0][2]

    def objects(self):
        return dict(FACES, Worker=self.worker_path(), Job=self.d.submit("p", "is_prime", n=97)[1])

    # ---- shape ----

    def test_interfaces_are_the_installed_xml(self):
        for name, path in self.objects().items():
            live = ElementTree.fromstring(self.d.busctl("introspect", "--xml-interface", "org.drover1", path).stdout)
            file = ElementTree.parse(f"{harness.SOURCE}/units/org.drover1.{name}.xml").getroot()
            key = f"interface[@name='org.drover1.{name}']"
            texts = [re.sub(r"\s+<", "<", ElementTree.tostring(root.find(key), encoding="unicode")).strip() for root in (live, file)]
            self.assertEqual(*texts)

    def test_objects_of_the_tree(self):
        job = self.d.submit("p", "is_prime", n=97)[1]
        managed = self.d.call("/org/drover1", "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
        self.assertIn("/org/drover1/pool/p", managed)
        self.assertIn("/org/drover1/pool/slow", managed)
        self.assertEqual(managed["/org/drover1/pool/p"]["org.drover1.Pool"]["Name"], "p")
        self.assertEqual(len([path for path in managed if path.startswith("/org/drover1/worker/")]), 3)
        self.assertNotIn(job, managed)
        self.assertIn("/org/drover1/pool/slow", self.d.busctl("--list", "tree", "org.drover1").stdout)

    # ---- each due member, by three clients ----

    def test_members_by_busctl(self):
        d = self.d
        r = d.busctl("call", "org.drover1", *MANAGER, "Run", "ssa{sv}a{sv}", "p", "is_prime", 1, "n", "t", 1099726899285419, 0)
        self.assertEqual(r.stdout, 'a{sv} 1 "prime" b false\n')
        job_id, job = d.submit("p", "is_prime", {"priority": 4}, n=97)
        self.assertEqual(job, f"/org/drover1/job/{job_id}")
        self.assertEqual(d.call(*MANAGER, "GetJob", "t", job_id), job)
        self.assertEqual(d.wait_job(job), "done")
        result = d.result(job)
        self.assertEqual((result["state"], result["attempts"], result["result"]), ("done", 1, {"prime": True}))
        for key in ("queue-usec", "run-usec", "worker-pid", "cpu-usec"):
            self.assertIn(key, result)
        self.assertEqual(d.call(job, "org.drover1.Job", "Cancel", "s", "queued"), "finished")
        self.assertIn([job_id, job, "p", "is_prime", "done"], d.call(*MANAGER, "ListJobs", "a{sv}su", 1, "pool", "s", "p", job_id - 1, 5)[0])
        properties = d.job(job)
        self.assertEqual((properties["Id"], properties["Pool"], properties["Name"], properties["State"], properties["Attempt"]),
                         (job_id, "p", "is_prime", "done", 1))
        [row], _ = d.call(*MANAGER, "DescribeJobs", "a{sv}su", 1, "pool", "s", "p", job_id - 1, 1)
        self.assertEqual(row, {"id": job_id, "path": job, "pool": "p", "job": "is_prime", "state": "done", "uid": os.getuid(),
                               "pid": properties["Pid"], "connection": properties["Connection"], "submitted-usec": properties["SubmittedUSec"]})
        self.assertLessEqual(properties["SubmittedUSec"], properties["StartedUSec"])
        self.assertLessEqual(properties["StartedUSec"], properties["FinishedUSec"])

        self.assertEqual([[row[0], row[1], row[2], row[3]] for row in d.call(*MANAGER, "ListPools")],
                         [["p", "/org/drover1/pool/p", "primes", "running"], ["slow", "/org/drover1/pool/slow", "primes", "running"]])
        row = d.wait_workers("p", 2)[0]
        self.assertEqual(d.call(*MANAGER, "GetWorkerByPID", "u", row[3]), row[2])
        worker = d.get_all(row[2], "org.drover1.Worker")
        self.assertEqual((worker["Id"], worker["Pid"], worker["Pool"], worker["StartMethod"]), (row[0], row[3], "p", "fork"))
        self.assertIn("seccomp", worker["SandboxLevel"])
        self.assertEqual(d.deaths("p"), [])
        manager = d.get_all(*MANAGER)
        self.assertEqual((manager["NPools"], manager["NWorkers"], manager["NSessions"]), (2, 3, 0))
        self.assertEqual(sorted(manager["StartMethods"]), ["fork", "forkserver", "spawn"])
        self.assertEqual(manager["Models"], ["process"])
        self.assertEqual(sorted(manager["Features"]),
                         ["after", "arenas", "capsules", "channels", "delays", "fds", "forkserver", "idempotency-keys",
                          "list-objects-from", "list-sessions", "raw", "sandbox", "settings", "streams"])
        with open(f"{harness.SOURCE}/docs/org.drover1.5.scd", encoding="utf-8") as f:
            page = f.read().partition("\n*Features* as")[2].partition("```")[0]
        self.assertEqual([word for word in manager["Features"] if f"*{word}*" not in page], [], "the page has each")
        self.assertRegex(manager["Version"], r"^\d+\.\d+\.\d+$")
        pool = d.pool("p")
        self.assertEqual((pool["Name"], pool["Plugin"], pool["StartMethod"], pool["Model"], pool["State"], pool["Problem"]),
                         ("p", "primes", "fork", "process", "running", ""))
        self.assertGreaterEqual(pool["Completed"], 2)
        self.assertNotIn("Settings", pool)
        [file] = d.get("/org/drover1/pool/p", "org.drover1.Pool", "Files")
        self.assertIn(["Pool", "Workers", "2", f"{file}:3"], d.get("/org/drover1/pool/p", "org.drover1.Pool", "Settings"))
        self.assertIn('"is_prime"', d.pool_call("p", "Schema"))

    def test_pool_switches_and_worker_kill(self):
        d = self.d
        d.call(*MANAGER, "CreatePool", "sa{sv}t", "switched", 3, "Plugin", "s", "primes", "Workers", "u", 2, "StartMethod", "s", "fork", 0)
        self.addCleanup(lambda: d.call(*MANAGER, "RemovePool", "st", "switched", 0))
        d.wait_state("switched", "running")
        d.wait_workers("switched", 2)
        d.pool_call("switched", "Resize", "u", 1)
        d.wait_workers("switched", 1)
        d.pool_call("switched", "Pause")
        d.wait_state("switched", "paused")
        job = d.submit("switched", "is_prime", n=97)[1]
        self.assertEqual(d.call(job, "org.drover1.Job", "Wait", "t", 0), "queued")
        self.assertEqual(d.call(job, "org.drover1.Job", "Wait", "t", 50000), "queued")
        with self.assert_error("NotFinished", "queued"):
            d.result(job)
        self.assertEqual(d.call(job, "org.drover1.Job", "Cancel", "s", "queued"), "cancelled")
        self.assertEqual(d.result(job)["state"], "cancelled")
        d.pool_call("switched", "Resume")
        d.wait_state("switched", "running")
        old = d.wait_workers("switched", 1)[0][0]
        d.pool_call("switched", "Restart")
        wait_for(lambda: d.wait_workers("switched", 1)[0][0] != old, 10, "the worker was replaced")
        worker = d.wait_workers("switched", 1, states=("idle",))[0]
        d.call(worker[2], "org.drover1.Worker", "Kill", "i", 9)
        death = wait_for(lambda: [x for x in d.deaths("switched") if x["worker"] == worker[0]], 10, "the death is listed")[0]
        self.assertEqual((death["pool"], death["pid"]), ("switched", worker[3]))
        self.assertIn(death["reason"], ("signal", "operator"))
        d.pool_call("switched", "ResetFailed")
        d.wait_workers("switched", 1)
        d.pool_call("switched", "Drain")
        d.wait_state("switched", "stopped")
        with self.assert_error("PoolStopped", "switched"):
            d.run("switched", "is_prime", n=97)
        d.pool_call("switched", "Start")
        d.wait_state("switched", "running")
        self.assertEqual(d.run("switched", "is_prime", n=97), {"prime": True})
        d.pool_call("switched", "Stop")
        d.wait_state("switched", "stopped")

    def test_members_by_gdbus(self):
        def gdbus(path, member, *args):
            r = subprocess.run(["gdbus", "call", "--session", "--dest", "org.drover1", "--object-path", path, "--method",
                                f"org.drover1.{member}", *args], env=self.d.env(), capture_output=True, text=True, check=False)
            self.assertEqual(r.returncode, 0, r.stderr)
            return r.stdout.strip()

        self.assertEqual(gdbus("/org/drover1", "Manager.Run", "p", "is_prime", "{'n': <uint64 97>}", "{}"), "({'prime': <true>},)")
        text = gdbus("/org/drover1", "Manager.Submit", "p", "is_prime", "{'n': <97>}", "{'max-attempts': <uint32 2>}")
        job = re.search(r"objectpath '([^']+)'", text).group(1)
        self.assertEqual(gdbus(job, "Job.Wait", "10000000"), "('done',)")
        self.assertIn("'prime': <true>", gdbus(job, "Job.GetResult"))
        self.assertEqual(gdbus(job, "Job.Cancel", "queued"), "('finished',)")
        self.assertEqual(gdbus("/org/drover1", "Manager.GetJob", job.rpartition("/")[2]), f"(objectpath '{job}',)")
        self.assertIn(f"'{job}', 'p', 'is_prime', 'done')", gdbus("/org/drover1", "Manager.ListJobs", "{'state': <['done']>}", "", "1000"))
        self.d.pool_call("slow", "Pause")
        again = self.d.submit("slow", "is_prime", n=97)[1]
        self.assertEqual(gdbus(again, "Job.Cancel", "queued"), "('cancelled',)")
        self.assertEqual(gdbus(again, "Job.OpenStream"), "(handle 0,)")
        gdbus(again, "Job.Requeue")
        self.d.pool_call("slow", "Resume")
        self.assertEqual(gdbus("/org/drover1/pool/slow", "Pool.RequeuePoisoned"), "(uint32 0,)")
        self.assertIn("'slow'", gdbus("/org/drover1", "Manager.ListPools"))
        self.assertEqual(gdbus("/org/drover1", "Manager.GetPool", "p"), "(objectpath '/org/drover1/pool/p',)")
        self.assertIn("/org/drover1/worker/", gdbus("/org/drover1", "Manager.ListWorkers"))
        pid = self.d.wait_workers("p", 2)[0][3]
        worker = re.search(r"'([^']+)'", gdbus("/org/drover1", "Manager.GetWorkerByPID", str(pid))).group(1)
        self.assertIn("handle 0", gdbus(worker, "Worker.GetPidFD"))
        self.assertNotIn("'running'", gdbus(worker, "Worker.ListTasks"))
        self.assertIn("'pid': <uint32 ", gdbus("/org/drover1", "Manager.DescribeJobs", "{'state': <['done']>}", "", "1000"))
        self.assertEqual(gdbus("/org/drover1", "Manager.ListSessions"), "(@aa{sv} [],)")
        gdbus("/org/drover1", "Manager.ListDeaths", "", "10")
        gdbus("/org/drover1", "Manager.ListCapsules", "", "10")
        self.assertEqual(gdbus("/org/drover1", "Manager.Reload", "0"), "(@a(sss) [],)")
        gdbus("/org/drover1", "Manager.Subscribe")
        gdbus("/org/drover1", "Manager.Unsubscribe")
        self.assertIn("'channel': <handle", gdbus("/org/drover1", "Manager.OpenChannel", "p", "{}"))
        gdbus("/org/drover1", "Manager.CreatePool", "g", "{'Plugin': <'primes'>, 'Workers': <1>, 'StartMethod': <'fork'>}", "0")
        self.d.wait_state("g", "running")
        for member in POOL_MEMBERS:
            gdbus("/org/drover1/pool/g", f"Pool.{member}")
        gdbus("/org/drover1/pool/g", "Pool.Resize", "2")
        self.assertIn("is_prime", gdbus("/org/drover1/pool/p", "Pool.Schema"))
        gdbus(self.worker_path(), "Worker.Kill", "18")
        gdbus("/org/drover1", "Manager.RemovePool", "g", "0")
        self.d.wait_workers("p", 2)

    def run_program(self, name):
        """In Debian's Python, which has the modules if they are installed."""
        return subprocess.run(["/usr/bin/python3", os.path.join(os.path.dirname(__file__), name)], env=self.d.env(),
                              capture_output=True, text=True, timeout=60 * PATIENCE, check=False)

    def test_members_by_python_dbus(self):
        r = self.run_program("members_by_dbus.py")
        if "No module named 'dbus'" in r.stderr:
            self.skipTest("python3-dbus is not installed")
        self.assertEqual(r.stdout, "fine\n", r.stderr)

    def test_every_member_by_dasbus(self):
        r = self.run_program("members_by_dasbus.py")
        if "No module named 'dasbus'" in r.stderr:
            self.skipTest("python3-dasbus is not installed")
        self.assertEqual(r.returncode, 0, r.stderr)
        members = []
        for name in FACES:
            file = ElementTree.parse(f"{harness.SOURCE}/units/org.drover1.{name}.xml").getroot()
            members += [f"{name}.{method.get('name')}" for method in file.findall("interface/method")]
        self.assertEqual([member for member in members if member not in r.stdout.split()], [])

    # ---- errors: the name, the culprit in the text, and one good job after each ----

    def test_bad_input(self):
        def run(*words):
            return lambda: self.d.call(*MANAGER, "Run", "ssa{sv}a{sv}", *words)
        n97 = (1, "n", "t", 97)
        cases = [
            ("NoSuchPool", ("prims", "slow"), run("prims", "is_prime", *n97, 0)),
            ("NoSuchJobType", ("is_prme", "is_prime"), run("p", "is_prme", *n97, 0)),
            ("InvalidArgs", ("\"m\"", "n:u64"), run("p", "is_prime", 1, "m", "t", 97, 0)),
            ("InvalidArgs", ("\"n\"", "missing"), run("p", "is_prime", 0, 0)),
            ("InvalidArgs", ("\"n\"", "u64", "\"s\""), run("p", "is_prime", 1, "n", "s", "97", 0)),
            ("InvalidArgs", ("\"prio\"", "priority"), run("p", "is_prime", *n97, 1, "prio", "u", 1)),
            ("InvalidArgs", ("priority", "5"), run("p", "is_prime", *n97, 1, "priority", "u", 5)),
            ("InvalidArgs", ("hard-timeout",), run("p", "is_prime", *n97, 1, "hard-timeout", "s", "5")),
            ("InvalidArgs", ("detached", "\"s\""), run("p", "is_prime", *n97, 1, "detached", "s", "true")),
            ("InvalidArgs", ("stream", "\"b\"", "\"t\""), run("p", "is_prime", *n97, 1, "stream", "t", 1)),
            ("InvalidArgs", ("not-before",), run("p", "is_prime", *n97, 1, "not-before", "s", "soon")),
            ("InvalidArgs", ("idempotency-key", "128"), run("p", "is_prime", *n97, 1, "idempotency-key", "s", "k" * 129)),
            ("InvalidArgs", ("after", "\"at\""), run("p", "is_prime", *n97, 1, "after", "t", 1)),
            ("NoSuchJob", ("after", "4711"), run("p", "is_prime", *n97, 1, "after", "at", 1, 4711)),
            ("NoSuchPool", ("prims",), lambda: self.d.call(*MANAGER, "GetPool", "s", "prims")),
            ("NoSuchPool", ("prims",), lambda: self.d.call(*MANAGER, "RemovePool", "st", "prims", 0)),
            ("NoSuchPool", ("prims",), lambda: self.d.deaths("prims")),
            ("NoSuchWorker", ("4000000",), lambda: self.d.call(*MANAGER, "GetWorkerByPID", "u", 4000000)),
            ("NoSuchJob", ("4711",), lambda: self.d.call(*MANAGER, "GetJob", "t", 4711)),
            ("NoSuchJob", ("4711",), lambda: self.d.call("/org/drover1/job/4711", "org.drover1.Job", "GetResult")),
            ("InvalidArgs", ("a b",), lambda: self.d.call(*MANAGER, "CreatePool", "sa{sv}t", "a b", 0, 0)),
            ("InvalidArgs", ("already", "slow"), lambda: self.d.call(*MANAGER, "CreatePool", "sa{sv}t", "slow", 0, 0)),
            ("InvalidArgs", ("Plugin=",), lambda: self.d.call(*MANAGER, "CreatePool", "sa{sv}t", "new", 0, 0)),
            ("InvalidArgs", ("Wokers", "Workers="), lambda: self.d.call(*MANAGER, "CreatePool", "sa{sv}t", "new", 1, "Wokers", "u", 1, 0)),
            ("InvalidArgs", ("TasksMax", "not built yet"),
             lambda: self.d.call(*MANAGER, "CreatePool", "sa{sv}t", "new", 1, "TasksMax", "s", "9", 0)),
            ("InvalidArgs", ("flags=1",), lambda: self.d.call(*MANAGER, "Reload", "t", 1)),
            ("InvalidArgs", ("signal=99",), lambda: self.d.call(self.worker_path(), "org.drover1.Worker", "Kill", "i", 99)),
            ("InvalidArgs", ("workers=0",), lambda: self.d.pool_call("p", "Resize", "u", 0)),
            ("InvalidArgs", ("later",), lambda: self.d.call(self.d.submit("p", "is_prime", n=2)[1], "org.drover1.Job", "Cancel", "s", "later")),
        ]
        for name, words, call in cases:
            with self.subTest(name=name, words=words):
                with self.assert_error(name, *words):
                    call()
                self.assertEqual(self.d.run("p", "is_prime", n=97), {"prime": True})

    def test_numbers_of_any_type(self):
        for kind in "ynqiuxt":
            self.assertEqual(self.d.run("p", "is_prime", n=(kind, 97)), {"prime": True})
        c = self.connect()
        with self.assertRaises(BusError) as caught:
            c.call(*MANAGER, "Run", "ssa{sv}a{sv}", b"p", b"is_prime", 1, b"n", b"i", -7, 0)
        self.assertIn("-7", caught.exception.text)

    def test_a_descriptor_is_no_number(self):
        c = self.connect()
        with self.assertRaises(BusError) as caught:
            c.call(*MANAGER, "Run", "ssa{sv}a{sv}", b"p", b"is_prime", 1, b"n", b"h", 0, 0)
        self.assertEqual(caught.exception.name, "org.freedesktop.DBus.Error.InvalidArgs")
        self.assertIn("must be u64", caught.exception.text)

    # ---- signals ----

    def test_subscribers_hear_of_jobs_and_workers(self):
        d, c, silent = self.d, self.connect(), self.connect()
        c.call(*MANAGER, "Subscribe")
        silent.call(*MANAGER, "ListPools")
        job_id, job = d.submit("p", "is_prime", n=97)
        m = c.wait(lambda m: m.member == "JobRemoved" and m.path == "/org/drover1")
        self.assertEqual(m.read("toss"), [job_id, job, "p", "done"])
        worker = d.wait_workers("p", 2, states=("idle",))[0]
        d.call(worker[2], "org.drover1.Worker", "Kill", "i", 9)
        values = [0, ""]
        while values[1] != "p":  # workers of a pool that an earlier test removed may still be going
            values = c.wait(lambda m: m.member == "WorkerRemoved").read("tsusit")
        self.assertEqual(values[:3], [worker[0], "p", worker[3]])
        self.assertIn(values[3], ("signal", "operator"))
        self.assertEqual(values[5], 0)
        c.call(*MANAGER, "Unsubscribe")
        other = d.submit("p", "is_prime", n=97)[1]
        d.wait_job(other)
        c.call(*MANAGER, "ListPools")
        for connection in (c, silent):
            self.assertEqual([m.member for m in connection.held if m.member == "JobRemoved"], [])
        d.wait_workers("p", 2)

    def test_pools_are_announced(self):
        c = self.connect()
        c.match("type='signal',sender='org.drover1'")
        c.call("/org/drover1/pool/p", "org.freedesktop.DBus.Peer", "Ping")
        self.d.call(*MANAGER, "CreatePool", "sa{sv}t", "seen-1", 3, "Plugin", "s", "primes", "Workers", "u", 1, "StartMethod", "s", "fork", 0)
        m = c.wait(lambda m: m.member == "InterfacesAdded")
        self.assertEqual((m.path, m.read("o")), ("/org/drover1", ["/org/drover1/pool/seen_2d1"]))
        c.wait(lambda m: m.member == "PropertiesChanged" and m.path == "/org/drover1/pool/seen_2d1")
        m = c.wait(lambda m: m.member == "InterfacesAdded")
        self.assertRegex(m.read("o")[0], "^/org/drover1/worker/")
        self.d.wait_state("seen-1", "running")
        self.d.call(*MANAGER, "RemovePool", "st", "seen-1", 0)
        c.wait(lambda m: m.member == "InterfacesRemoved" and m.read("o") == ["/org/drover1/pool/seen_2d1"])

    # ---- callers ----

    def test_a_caller_that_leaves_cancels_its_run(self):
        before = self.d.pool("slow")["Cancelled"]
        c = self.connect()
        for _ in range(2):
            c.send(*MANAGER, "Run", "ssa{sv}a{sv}", b"slow", b"is_prime", 1, b"n", b"t", u64(SLOW), 0)
        wait_for(lambda: self.d.pool("slow")["Running"] == 1 and self.d.pool("slow")["Queued"] == 1, 10, "one runs and one is queued")
        c.close()
        wait_for(lambda: self.d.pool("slow")["Cancelled"] == before + 2, 3, "both were cancelled")
        self.assertEqual(self.d.run("slow", "is_prime", n=97), {"prime": True})

    def test_the_schema_of_a_pool_that_starts_is_waited_for(self):
        c = self.connect()
        c.call(*MANAGER, "ListPools")  # known from now on: what follows is not held back
        settings = (1, b"Plugin", b"s", b"primes")
        c.send(*MANAGER, "CreatePool", "sa{sv}t", b"fresh", *settings, u64(0))
        cookie = c.send("/org/drover1/pool/fresh", "org.drover1.Pool", "Schema")
        self.assertIn("is_prime", c.reply(cookie).read("s")[0])
        c.call(*MANAGER, "RemovePool", "st", b"fresh", u64(0))
        c.send(*MANAGER, "CreatePool", "sa{sv}t", b"fresh", *settings, u64(0))
        cookie = c.send("/org/drover1/pool/fresh", "org.drover1.Pool", "Schema")
        c.call(*MANAGER, "RemovePool", "st", b"fresh", u64(0))
        with self.assertRaises(BusError):
            c.reply(cookie)

    def test_calls_at_once_are_bounded(self):
        self.d.pool_call("slow", "Pause")
        self.addCleanup(lambda: self.d.pool_call("slow", "Resume"))
        c = self.connect()
        cookies = [c.send(*MANAGER, "Run", "ssa{sv}a{sv}", b"slow", b"is_prime", 1, b"n", b"t", u64(97), 0) for _ in range(129)]
        with self.assertRaises(BusError) as caught:
            c.reply(cookies[-1])
        self.assertEqual(caught.exception.name, "org.freedesktop.DBus.Error.LimitsExceeded")
        self.assertIn("has 128 calls waiting already; use Submit", str(caught.exception))
        self.d.pool_call("slow", "Resume")
        for cookie in cookies[:-1]:
            c.reply(cookie)

    @unittest.skipUnless(os.geteuid() == 0, "needs root to be two users")
    def test_calls_of_one_uid_at_once_are_bounded(self):
        self.d.pool_call("slow", "Pause")
        self.addCleanup(lambda: self.d.pool_call("slow", "Resume"))
        os.chmod(self.d.dir, 0o711)
        many = [self.connect(NOBODY) for _ in range(17)]  # 128 each, 2048 in all
        job = many[0].call(*MANAGER, "Submit", "ssa{sv}a{sv}", b"slow", b"is_prime", 1, b"n", b"t", u64(97), 0).read("to")[1]
        wait = (job, "org.drover1.Job", "Wait", "t", u64(2**64 - 1))
        cookies = [[c.send(*wait) for _ in range(128)] for c in many[:16]]
        for c in many[:16]:
            c.call(*MANAGER, "GetJob", "t", u64(int(job.rpartition("/")[2])))  # its calls were heard
        with self.assertRaises(BusError) as caught:
            many[16].call(*wait)
        self.assertEqual(caught.exception.name, "org.freedesktop.DBus.Error.LimitsExceeded")
        self.assertIn(f"uid {NOBODY} has 2048 calls", str(caught.exception))
        root = self.connect()
        cookie = root.send(*wait)  # others still may
        self.d.pool_call("slow", "Resume")
        self.assertEqual(root.reply(cookie).read("s"), ["done"])
        for c, sent in zip(many, cookies):
            self.assertEqual({c.reply(one).read("s")[0] for one in sent}, {"done"})

    def test_first_calls_of_a_name_keep_their_order(self):
        c = self.connect()
        cookies = [c.send(*MANAGER, "Submit", "ssa{sv}a{sv}", b"p", b"is_prime", 1, b"n", b"t", u64(97), 0) for _ in range(50)]
        ids = [c.reply(cookie).read("t")[0] for cookie in cookies]
        self.assertEqual(ids, list(range(ids[0], ids[0] + 50)))

    @unittest.skipUnless(os.geteuid() == 0, "needs root, to call as somebody else")
    def test_a_foreign_job_is_as_unknown_as_a_missing_one(self):
        d = self.d
        job_id, job = d.submit("p", "is_prime", n=97)
        os.chmod(d.dir, 0o711)
        c = self.connect(NOBODY)
        c.call(*MANAGER, "Subscribe")
        for path, face, member, types, args in (
                (*MANAGER, "GetJob", "t", [u64(job_id)]), (job, "org.drover1.Job", "GetResult", "", []), (job, "org.drover1.Job", "Wait", "t", [u64(0)]),
                (job, "org.drover1.Job", "OpenStream", "", []),
                (job, "org.drover1.Job", "Cancel", "s", [b"queued"]), (job, "org.freedesktop.DBus.Properties", "GetAll", "s", [b"org.drover1.Job"]),
                (job, "org.freedesktop.DBus.Properties", "Get", "ss", [b"org.drover1.Job", b"State"])):
            with self.subTest(member=member), self.assertRaises(BusError) as caught:
                c.call(path, face, member, types, *args)
            self.assertEqual(caught.exception.name, "org.drover1.Error.NoSuchJob")
        for path, face, member, types, args in (
                (*MANAGER, "Reload", "t", [u64(0)]), (*MANAGER, "RemovePool", "st", [b"p", u64(0)]), ("/org/drover1/pool/p", "org.drover1.Pool", "Stop", "", []),
                (self.worker_path(), "org.drover1.Worker", "Kill", "i", [9]), (self.worker_path(), "org.drover1.Worker", "GetPidFD", "", [])):
            with self.subTest(member=member), self.assertRaises(BusError) as caught:
                c.call(path, face, member, types, *args)
            self.assertEqual(caught.exception.name, "org.freedesktop.DBus.Error.AccessDenied")
        own_id, own = c.call(*MANAGER, "Submit", "ssa{sv}a{sv}", b"p", b"is_prime", 1, b"n", b"t", u64(97), 0).read("to")
        m = c.wait(lambda m: m.member == "JobRemoved")
        self.assertEqual(m.read("toss"), [own_id, own, "p", "done"])
        self.assertEqual(d.job(own)["State"], "done")  # root sees everybody's
        d.wait_job(d.submit("p", "is_prime", n=97)[1])
        c.call(*MANAGER, "ListPools")
        self.assertEqual([m.member for m in c.held if m.member == "JobRemoved"], [])
        fresh = self.connect(NOBODY)  # not known to the daemon when it asks for properties
        with self.assertRaises(BusError) as caught:
            fresh.call(job, "org.freedesktop.DBus.Properties", "Get", "ss", b"org.drover1.Job", b"State")
        self.assertEqual(caught.exception.name, "org.drover1.Error.NoSuchJob")
        fresh = self.connect(NOBODY)
        fresh.call(own, "org.freedesktop.DBus.Properties", "GetAll", "s", b"org.drover1.Job")

    @unittest.skipUnless(os.geteuid() == 0, "needs root, to call as somebody else")
    def test_what_workers_do_for_others_is_not_told(self):
        d = self.d
        os.chmod(d.dir, 0o711)
        worker = self.worker_path("slow")
        face = "org.drover1.Worker"

        def as_nobody(*words):  # a caller that the daemon has not heard of before
            r = subprocess.run(["setpriv", f"--reuid={NOBODY}", "--clear-groups", "busctl", f"--address={d.bus.address}", "--json=short", *words],
                               capture_output=True, text=True, check=True)
            return json.loads(r.stdout)

        def seen():
            every = as_nobody("call", "org.drover1", worker, "org.freedesktop.DBus.Properties", "GetAll", "s", face)["data"][0]
            return {name: every[name]["data"] for name in ("CurrentJob", "Status", "WaitingFor")}

        c = self.connect(NOBODY)
        c.call(*MANAGER, "Subscribe")
        foreign = d.submit("slow", "is_prime", n=SLOW)[0]
        wait_for(lambda: d.get(worker, face, "CurrentJob") == foreign, 10, "it runs")
        self.assertEqual(seen(), {"CurrentJob": 0, "Status": "", "WaitingFor": ""})
        self.assertEqual(as_nobody("get-property", "org.drover1", worker, face, "CurrentJob")["data"], 0)
        m = c.call(worker, "org.freedesktop.DBus.Properties", "Get", "ss", face.encode(), b"CurrentJob")  # known by now
        m.enter("v", "t")
        self.assertEqual(m.read("t"), [0])
        managed = as_nobody("call", "org.drover1", "/org/drover1", "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")["data"][0]
        self.assertEqual(managed[worker][face]["CurrentJob"]["data"], 0)

        d.call(worker, face, "Kill", "i", 9)
        m = c.wait(lambda m: m.member == "WorkerRemoved")
        self.assertEqual(m.read("tsusit")[5], 0)
        own = d.deaths("slow", 1)[0]
        self.assertEqual(own["job"], foreign)
        self.assertIn(f"while running job {foreign} ", own["text"])
        death = as_nobody("call", "org.drover1", "/org/drover1", "org.drover1.Manager", "ListDeaths", "su", "slow", "1")["data"][0][0]
        self.assertEqual(death["worker"]["data"], own["worker"])
        self.assertNotIn("job", death)
        self.assertNotIn("attempt", death)
        self.assertEqual(death["text"]["data"], "signal 9 (SIGKILL)")

        d.call(f"/org/drover1/job/{foreign}", "org.drover1.Job", "Cancel", "s", "kill")
        mine = c.call(*MANAGER, "Submit", "ssa{sv}a{sv}", b"slow", b"is_prime", 1, b"n", b"t", u64(SLOW), 0).read("to")
        worker = self.worker_path("slow")
        wait_for(lambda: d.get(self.worker_path("slow"), face, "CurrentJob") == mine[0], 10, "theirs runs")
        worker = self.worker_path("slow")
        self.assertEqual(seen()["CurrentJob"], mine[0])
        c.call(mine[1], "org.drover1.Job", "Cancel", "s", b"kill")

        def last_seen():
            rows = as_nobody("call", "org.drover1", self.worker_path("slow"), face, "ListTasks")["data"][0]
            return [(row["job"]["data"], row["state"]["data"]) for row in rows]

        mine = c.call(*MANAGER, "Submit", "ssa{sv}a{sv}", b"slow", b"is_prime", 1, b"n", b"t", u64(97), 0).read("to")
        d.wait_job(mine[1])
        self.assertEqual(last_seen(), [(mine[0], "done")])
        d.run("slow", "is_prime", n=97)
        self.assertEqual(last_seen(), [])

    # ---- files ----

    def test_reload(self):
        d = self.d
        self.assertIsNone(d.reload() or None)
        path = d.write_pool("file", Plugin="primes", Workers=1, StartMethod="fork")
        self.assertEqual(d.reload(), [["pool", "file", "added"]])
        d.wait_state("file", "running")
        d.write_pool("file", Plugin="primes", Workers=2, StartMethod="fork", HardTimeout="5min")
        self.assertEqual(d.reload(), [["pool", "file", "changed: Workers, HardTimeout"]])
        d.wait_workers("file", 2)
        d.write_pool("file", Plugin="primes", Workers="lots")
        rows = d.reload()
        self.assertEqual(rows[0][:2], ["pool", "file"])
        self.assertTrue(rows[0][2].startswith(f"refused: {path}:3: Workers=lots"), rows)
        self.assertEqual(d.run("file", "is_prime", n=97), {"prime": True})
        self.assertIn(f"{path}:3", d.pool("file")["Problem"])
        d.write_pool("file", Plugin="primes", Workers=2, StartMethod="fork", HardTimeout="5min")
        d.reload()
        wait_for(lambda: d.pool("file")["Problem"] == "", 5, "the problem is gone")
        d.call(*MANAGER, "CreatePool", "sa{sv}t", "made", 2, "Plugin", "s", "primes", "StartMethod", "s", "fork", 0)
        d.remove_pool_file("file")
        self.assertEqual(d.reload(), [["pool", "file", "removed"]])
        wait_for(lambda: [row[0] for row in d.call(*MANAGER, "ListPools")] == ["made", "p", "slow"], 10, "it is gone, the made one stays")
        d.call(*MANAGER, "RemovePool", "st", "made", 0)


class Policy(Test):
    def test_group_drover_may_call_what_is_not_for_root(self):
        """The bus policy against the daemon's own table: neither lets through what the other stops."""
        with open(f"{harness.SOURCE}/daemon/bus/authorize.c", encoding="utf-8") as f:
            rows = re.findall(r'\{"(org\.drover1\.\w+)", "(\w+)", (AUTHORIZE_\w+)\}', f.read())
        policy = ElementTree.parse(f"{harness.SOURCE}/units/org.drover1.conf").getroot().find("policy[@group='drover']")
        allowed = {(a.get("send_interface"), a.get("send_member")) for a in policy.findall("allow")}
        self.assertGreater(len(rows), 25)
        for interface, member, access in rows:
            may = (interface, member) in allowed or (interface, None) in allowed
            self.assertEqual(may, access != "AUTHORIZE_ROOT", f"{interface}.{member}")


if __name__ == "__main__":
    harness.main()
