"""droverctl's verbs for pools: the switches and what they wait for, settings, and who is killed."""

import json
import os
import re
import shutil
import signal
import subprocess

from harness import PATIENCE, SOURCE, Drover, Test, kill, main, wait_for


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


if __name__ == "__main__":
    main()
