"""Bad input gets one clear error that names the word, and for files the place; then a good job runs."""

import ctypes
import os
import shutil

from harness import BusError, Drover, MANAGER, Test, dict_words, main, wait_for
from sdbus import Connection

NS_INVALID = "InvalidArgs"


class Calls(Test):
    @classmethod
    def setUpClass(cls):
        cls.drover = Drover({"primes": {"Plugin": "primes", "Workers": 1, "SlotSize": 4096},
                             "typed": {"Plugin": "typed", "Workers": 1, "SlotSize": 4096}})
        cls.d = cls.drover.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.drover.__exit__(None, None, None)

    def tearDown(self):
        self.assertEqual(self.d.run("primes", "is_prime", n=97), {"prime": True}, "then one good job runs")

    def raw_call(self, member, signature, *words):
        return self.d.call(*MANAGER, member, signature, *words)

    def both(self, name, *words, pool="primes", job="is_prime", options=None, **args):
        """The same from Run and from Submit."""
        with self.assert_error(name, *words):
            self.d.run(pool, job, options, **args)
        with self.assert_error(name, *words):
            self.d.submit(pool, job, options, **args)

    def test_unknown_pool(self):
        self.both("NoSuchPool", "nopool", pool="nopool", n=1)
        for member in ("GetPool",):
            with self.assert_error("NoSuchPool", "nopool"):
                self.raw_call(member, "s", "nopool")
        with self.assert_error("NoSuchPool", "nopool"):
            self.raw_call("OpenChannel", "sa{sv}", "nopool", 0)
        with self.assert_error("NoSuchPool", "nopool"):
            self.raw_call("RemovePool", "st", "nopool", 0)
        with self.assert_error("NoSuchPool", "nopool"):
            self.raw_call("ListDeaths", "su", "nopool", 1)

    def test_unknown_job(self):
        self.both("NoSuchJobType", "nojob", job="nojob", n=1)

    def test_unknown_argument(self):
        self.both(NS_INVALID, "surplus", n=1, surplus=2)

    def test_missing_argument(self):
        self.both(NS_INVALID, "n")

    def test_argument_given_twice(self):
        with self.assert_error(NS_INVALID, "n"):
            self.raw_call("Run", "ssa{sv}a{sv}", "primes", "is_prime", 2, "n", "t", 1, "n", "t", 2, 0)

    def test_wrong_type(self):
        self.both(NS_INVALID, "n", n="97")
        self.both(NS_INVALID, "n", n=True)
        self.both(NS_INVALID, "n", n=[1, 2])

    def test_number_out_of_range(self):
        self.both(NS_INVALID, "n", n=-1)
        self.both(NS_INVALID, "n", n=("n", -7))

    def test_any_integer_type_that_fits_is_fine(self):
        for kind in "yqutnix":
            self.assertEqual(self.d.run("primes", "is_prime", n=(kind, 97)), {"prime": True})

    def test_unknown_option(self):
        self.both(NS_INVALID, "hurry", options={"hurry": True}, n=1)

    def test_options_out_of_range_or_of_another_type(self):
        for name, value in (("priority", ("u", 5)), ("max-attempts", ("u", 64)), ("soft-timeout", "soon"), ("not-before", "soon"),
                            ("idempotency-key", ""), ("detached", 1), ("after", "7")):
            self.both(NS_INVALID, name, options={name: value}, n=1)
        self.assertEqual(self.d.run("primes", "is_prime", {"max-attempts": ("u", 0)}, n=97), {"prime": True}, "the pool's own")

    def test_payload_too_large(self):
        self.both(NS_INVALID, "payload", pool="typed", job="raw", payload=bytes(5000))
        self.both(NS_INVALID, "s", pool="typed", job="echo", s="x" * 5000, u=1, i=1, f=1.0, b=True, y=b"", us=[1],
                  bs=[True], ss=["a"], fs=[1.0], **{"is": [1]})

    def test_raw_and_typed_are_not_mixed(self):
        self.both(NS_INVALID, "payload", payload=b"97")
        self.both(NS_INVALID, "n", pool="typed", job="raw", n=1)

    def test_bad_pool_name(self):
        for name in ("", "a b", "a/b", "ä", "x" * 65):
            with self.assert_error(NS_INVALID, name[:40]):
                self.raw_call("CreatePool", "sa{sv}t", name, *dict_words({"Plugin": "primes"}), 0)

    def test_bad_settings_over_the_bus(self):
        for settings, words in (
                ({"Plugin": "primes", "Wrokers": 2}, ("Wrokers", "Workers")),
                ({"Plugin": "primes", "Workers": "many"}, ("Workers", "many")),
                ({"Plugin": "primes", "Model": "fibers"}, ("fibers", "not built yet")),
                ({"Plugin": "primes", "SoftTimeout": "5s", "HardTimeout": "1s"}, ("SoftTimeout", "HardTimeout")),
                ({"Plugin": 7}, ("Plugin", '"t"')),
                ({"Plugin": "primes", "HardTimeout": 5}, ("HardTimeout", '"t"')),
                ({"Plugin": "primes", "StartMethod": True}, ("StartMethod", '"b"')),
                ({"Plugin": "primes", "Workers": True}, ("Workers", '"b"')),
                ({"Plugin": "primes", "Workers": ["1"]}, ("Workers", '"as"')),
                ({"Plugin": "primes", "Workers": 1.5}, ("Workers", '"d"')),
                ({"Workers": 1}, ("Plugin",))):
            with self.assert_error(NS_INVALID, *words):
                self.raw_call("CreatePool", "sa{sv}t", "new", *dict_words(settings), 0)
        with self.assert_error(NS_INVALID, "primes"):
            self.raw_call("CreatePool", "sa{sv}t", "primes", *dict_words({"Plugin": "primes"}), 0)
        with self.assert_error(NS_INVALID, "Workers is given twice"):
            self.raw_call("CreatePool", "sa{sv}t", "new", 3, "Workers", "u", 1, "Plugin", "s", "primes", "Workers", "s", "2", 0)
        with self.assert_error(NS_INVALID, "flags"):
            self.raw_call("CreatePool", "sa{sv}t", "new", *dict_words({"Plugin": "primes"}), 5)

    def test_unknown_objects(self):
        with self.assert_error("NoSuchJob", "4711"):
            self.raw_call("GetJob", "t", 4711)
        with self.assert_error("NoSuchWorker", "1"):
            self.raw_call("GetWorkerByPID", "u", 1)

    def test_an_object_that_is_not_there_has_one_error(self):
        """For a method, a property and all of them; of a caller that droverd knows, and of one that it does not."""
        for path, interface, method, name, words in (
                ("worker/999999", "Worker", ("Kill", "i", ctypes.c_int(9)), "NoSuchWorker", "999999"),
                ("worker/999999", "Worker", ("ListTasks", ""), "NoSuchWorker", "999999"),
                ("worker/0", "Worker", ("GetPidFD", ""), "NoSuchWorker", "0"),
                ("pool/nopool", "Pool", ("Stop", ""), "NoSuchPool", "nopool"),
                ("pool/nopool", "Pool", ("Schema", ""), "NoSuchPool", "primes"),
                ("job/999999", "Job", ("Wait", "t", ctypes.c_uint64(0)), "NoSuchJob", "999999")):
            path, interface = f"/org/drover1/{path}", f"org.drover1.{interface}"
            properties = "org.freedesktop.DBus.Properties"
            for call in ((interface, *method), (properties, "GetAll", "s", interface.encode()),
                         (properties, "Get", "ss", interface.encode(), b"State")):
                with self.subTest(path=path, call=call), Connection(self.d.bus.address) as c:
                    for _ in range(2):
                        with self.assert_error(name, words):
                            c.call(path, *call)
                        c.call(*MANAGER, "ListPools")
        tree = self.d.busctl("tree", "--list", "org.drover1").stdout.split()
        self.assertIn("/org/drover1/pool/primes", tree, "what only holds objects can be looked into")

    def test_result_not_finished(self):
        _, path = self.d.submit("primes", "is_prime", n=9999999999999937)
        with self.assert_error("NotFinished"):
            self.d.result(path)
        self.assertEqual(self.d.wait_job(path), "done")

    def test_bad_cancel_mode(self):
        _, path = self.d.submit("primes", "is_prime", n=2)
        self.d.wait_job(path)
        with self.assert_error(NS_INVALID, "gently"):
            self.d.call(path, "org.drover1.Job", "Cancel", "s", "gently")

    def test_bad_signal_and_bad_size(self):
        worker = self.d.list_workers("primes")[0][2]
        with self.assert_error(NS_INVALID, "99"):
            self.d.call(worker, "org.drover1.Worker", "Kill", "i", 99)
        for n in (0, 257):
            with self.assert_error(NS_INVALID, str(n)):
                self.d.pool_call("primes", "Resize", "u", n)


class Files(Test):
    """A bad pool file refuses that pool, and Problem says FILE:LINE and the word."""

    def setUp(self):
        self.drover = Drover({"primes": {"Plugin": "primes", "Workers": 1}})
        self.d = self.drover.__enter__()

    def tearDown(self):
        self.assertEqual(self.d.run("primes", "is_prime", n=97), {"prime": True}, "then one good job runs")
        self.drover.__exit__(None, None, None)

    def refuse(self, name, text, line, *words):
        """Pool `name` from a file with `text` is refused; its Problem holds FILE:LINE and the words."""
        path = self.d.write_pool_text(name, text)
        self.d.reload()

        def refused():
            p = self.d.pool(name)
            return p if p["State"] == "refused" else None
        problem = wait_for(refused, 10, f"{name} is refused")["Problem"]
        if line:
            self.assertIn(f"{path}:{line}", problem)
        for word in words:
            self.assertIn(word, problem)
        with self.assert_error("PoolRefused", name):
            self.d.run(name, "is_prime", n=97)
        return problem

    def test_typo_is_a_warning_with_place_and_nearest_name(self):
        path = self.d.write_pool_text("typo", "[Pool]\nPlugin=primes\nWrokers=1\n")
        self.d.reload()
        self.d.wait_state("typo", "running")
        self.assertEqual(self.d.run("typo", "is_prime", n=97), {"prime": True})
        log = self.d.log()
        self.assertIn(f"{path}:3", log)
        self.assertIn("Wrokers", log)
        self.assertIn("Workers", log)

    def test_bad_values(self):
        self.refuse("value", "[Pool]\nPlugin=primes\nWorkers=many\n", 3, "Workers", "many")
        self.refuse("method", "[Pool]\nPlugin=primes\n\nStartMethod=teleport\n", 4, "StartMethod", "teleport")
        self.refuse("time", "[Pool]\nPlugin=primes\n[Job]\nHardTimeout=soonish\n", 4, "HardTimeout", "soonish")
        self.refuse("later", "[Pool]\nPlugin=primes\nModel=fibers\n", 3, "Model", "fibers", "not built yet")
        self.refuse("noplugin", "[Pool]\nWorkers=1\n", 0, "Plugin")

    def test_lines(self):
        problem = self.refuse("long", "[Pool]\nPlugin=primes\n[Worker]\nEnvironment=A=" + "y" * 5000 + "\n", 4)
        self.assertRegex(problem, r"\b(bytes|longer|long)\b")
        self.refuse("noequals", "[Pool]\nPlugin=primes\nthis is no setting\n", 3, "KEY=VALUE")
        self.refuse("nosection", "[Pool]\nPlugin=primes\n[Pool\n", 3)

    def test_a_bad_file_keeps_the_old_pool_running_at_reload(self):
        path = self.d.write_pool_text("primes", "[Pool]\nPlugin=primes\nWorkers=several\n")
        self.d.reload()
        properties = self.d.pool("primes")
        self.assertEqual(properties["State"], "running")
        self.assertIn(f"{path}:3", properties["Problem"])
        self.assertIn("several", properties["Problem"])

    def plugin(self, name, source=None):
        """A file in the plugin directory, a copy of `source`."""
        path = os.path.join(self.d.plugin_dir, name + ".so")
        if source:
            shutil.copy(source, path)
        return path

    def test_plugins(self):
        pool = "[Pool]\nWorkers=1\nPlugin={}\n"
        self.refuse("unknown", pool.format("no-such-plugin"), 3, "no-such-plugin")
        with open(self.plugin("text"), "w", encoding="utf-8") as f:
            f.write("this is no ELF file\n" * 100)
        os.chmod(self.plugin("text"), 0o755)
        self.refuse("text", pool.format("text"), 3, "text", "ELF")
        self.refuse("badabi", pool.format("badabi"), 3, "badabi", "ABI")
        self.refuse("nometa", pool.format("nometa"), 3, "nometa")
        os.chmod(self.plugin("writable", self.plugin("primes")), 0o777)
        self.refuse("writable", pool.format("writable"), 3, "writable")
        outside = os.path.join(self.d.dir, "outside.so")
        shutil.copy(self.plugin("primes"), outside)
        os.symlink(outside, self.plugin("link"))
        self.refuse("link", pool.format("link"), 3, "link")
        self.refuse("escape", pool.format("../outside"), 3, "../outside")

    def test_threads_after_preload_end_with_the_fix(self):
        problem = self.refuse("threads", "[Pool]\nWorkers=1\nPlugin=threads-in-preload\n", 3, "thread")
        self.assertRegex(problem, r"StartMethod=spawn\)?\.?$")
        self.d.write_pool("threads", Plugin="threads-in-preload", Workers=1, StartMethod="spawn")
        self.d.reload()
        self.d.wait_state("threads", "running")
        self.assertEqual(self.d.run("threads", "run"), {"shared": True}, "the fix is one")


class PluginDirectory(Test):
    def test_one_that_is_missing_is_told_once_and_waited_for(self):
        d = Drover({"p": {"Plugin": "echo", "Workers": 1, "RestartSec": "1ms", "RestartMaxDelaySec": "100ms"}}, wait=False)
        os.rename(d.plugin_dir, d.plugin_dir + ".away")
        with d:
            properties = d.wait_state("p", "degraded")  # after StartLimitBurst= tries
            self.assertIn("the plugin directory cannot be opened: No such file or directory: create it, or correct --plugin-dir=",
                          properties["Problem"])
            self.assertEqual(d.log().count("the plugin directory cannot be opened"), 1, d.log())
            spawner = d.spawner()
            os.rename(d.plugin_dir + ".away", d.plugin_dir)
            d.wait_state("p", "running")  # a try finds it
            self.assertEqual(d.run("p", "echo", payload=b"x")["payload"], [120])
            self.assertEqual(d.spawner(), spawner, "it did not end for it")


if __name__ == "__main__":
    main()
