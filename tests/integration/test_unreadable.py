"""What is there and cannot be read is not missing: a reload is refused and everything stays, a start ends and says
why."""

import os
import signal
import subprocess

from harness import Drover, Test, main, wait_for

# Root reads everything; without these two it is an owner like any other.
WITHOUT = "-dac_override,-dac_read_search"
UNPRIVILEGED = () if os.geteuid() else ("setpriv", f"--bounding-set={WITHOUT}", f"--inh-caps={WITHOUT}", "--")
NUMBERS_CLOCK = 1000000


class Unreadable(Test):
    def start(self, launcher=()):
        d = Drover({"primes": {"Plugin": "primes", "Workers": 1}, "fds": {"Plugin": "fds", "Workers": 1}},
                   launcher=launcher)
        d.__enter__()
        self.addCleanup(d.__exit__, None, None, None)
        return d

    def at(self, d, name):
        return os.path.join(d.config_dir, name)

    def check_refused(self, d, path, why):
        """The caller hears of it, droverctl's exit status and the log say so; both pools are as they were."""
        before = d.log()
        pids = sorted(w["Pid"] for w in d.workers())
        with self.assert_error("Failed", path + ": ", why):
            d.reload()
        r = d.ctl("reload")
        self.assertNotEqual(r.returncode, 0, r.stdout)
        self.assertIn(path + ": ", r.stderr)
        os.kill(d.pid, signal.SIGHUP)
        wait_for(lambda: d.log()[len(before):].count("reload refused, everything stays as it is: " + path) == 3, 10,
                 "the log says so, too")
        self.assertEqual(sorted(row[0] for row in d.call("/org/drover1", "org.drover1.Manager", "ListPools")),
                         ["fds", "primes"])
        self.assertEqual(d.run("primes", "is_prime", n=97), {"prime": True})
        self.assertEqual(sorted(w["Pid"] for w in d.workers()), pids)

    def check_pools_d(self, d, spoil, mend, why):
        path = self.at(d, "pools.d")
        spoil(path)
        self.check_refused(d, path, why)
        d.stop()
        d.start(wait=False)
        self.assertEqual(d.process.wait(20), 1)
        self.assertIn(f"{path}: {why}", d.log().splitlines()[-1])
        check = subprocess.run(d.command() + ["--check"], env=d.env(), capture_output=True, text=True, check=False)
        self.assertEqual((check.returncode, check.stderr), (1, f"droverd: {path}: {why}\n"))
        mend(path)
        d.start()
        self.assertIsNone(d.reload() or None)
        d.wait_state("primes", "running")

    def test_a_folder_that_may_not_be_read(self):
        self.check_pools_d(self.start(UNPRIVILEGED), lambda path: os.chmod(path, 0), lambda path: os.chmod(path, 0o700),
                           "Permission denied")

    def test_a_folder_that_is_a_link_to_itself(self):
        def spoil(path):
            os.rename(path, path + ".away")
            os.symlink("pools.d", path)

        def mend(path):
            os.unlink(path)
            os.rename(path + ".away", path)

        self.check_pools_d(self.start(), spoil, mend, "Too many levels of symbolic links")

    def test_a_folder_whose_disk_is_not_there(self):
        """The link to it is, and leads nowhere."""
        d = self.start()
        path = self.at(d, "pools.d")
        os.rename(path, path + ".away")
        os.symlink("/nonexistent/pools.d", path)
        self.check_refused(d, path, "a link that leads nowhere")

    def test_a_folder_that_is_not_there(self):
        """That is known, and said: there are no pools."""
        d = self.start()
        os.rename(self.at(d, "pools.d"), self.at(d, "away"))
        self.assertEqual(d.reload(), [["pool", "fds", "removed"], ["pool", "primes", "removed"]])

    def test_drover_conf(self):
        d = self.start(UNPRIVILEGED)
        for name in ("drover.conf", "drover.conf.d"):
            path = self.at(d, name)
            if name.endswith(".d"):
                os.mkdir(path, 0)
            else:
                os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0))
            self.check_refused(d, path, "Permission denied")
            os.chmod(path, 0o700)
            self.assertIsNone(d.reload() or None)

    def check_pool(self, d, path):
        """Only that pool is refused: it goes on as it was, at the next start it is not there."""
        row = ["pool", "primes", f"refused: {path}: Permission denied"]
        self.assertEqual(d.reload(), [row])
        self.assertIn(path, d.pool("primes")["Problem"])
        self.assertEqual(d.run("primes", "is_prime", n=97), {"prime": True})
        self.assertEqual(d.workers("primes")[0]["Pool"], "primes")
        d.stop()
        d.start()
        self.assertEqual(d.pool("primes")["State"], "refused")
        self.assertIn(path, d.pool("primes")["Problem"])
        d.wait_state("fds", "running")

    def test_a_pool_file(self):
        d = self.start(UNPRIVILEGED)
        path = self.at(d, "pools.d/primes.pool")
        os.chmod(path, 0)
        self.check_pool(d, path)

    def test_the_folder_of_a_pool_s_drop_ins(self):
        """Without them it would be another pool: Workers=3 stands there."""
        d = self.start(UNPRIVILEGED)
        path = self.at(d, "pools.d/primes.pool.d")
        os.mkdir(path)
        with open(path + "/more.conf", "w", encoding="utf-8") as f:
            f.write("[Pool]\nWorkers=3\n")
        d.reload()
        d.wait_workers("primes", 3)
        os.chmod(path, 0)
        self.check_pool(d, path)
        os.chmod(path, 0o700)
        self.assertEqual(d.reload(), [["pool", "primes", "changed: Workers"]])
        d.wait_workers("primes", 3)

    def test_the_numbers(self):
        d = self.start(UNPRIVILEGED)
        last = d.submit("primes", "is_prime", n=97)[0]
        d.stop()
        os.chmod(d.dir + "/state/numbers", 0)
        d.start()
        d.wait_state("primes", "running")
        self.assertIn("state/numbers cannot be read: Permission denied", d.log())
        self.assertGreater(d.submit("primes", "is_prime", n=97)[0], last + NUMBERS_CLOCK)

    def test_the_capsules(self):
        """Which numbers jobs had is not known then: the file is not there to say it."""
        d = self.start(UNPRIVILEGED)
        d.stop()
        os.unlink(d.dir + "/state/numbers")
        os.chmod(d.dir + "/state/capsules", 0o300)
        d.start()
        d.wait_state("primes", "running")
        self.assertIn("state/capsules: Permission denied", d.log())
        self.assertGreater(d.submit("primes", "is_prime", n=97)[0], NUMBERS_CLOCK)

    def test_a_capsule(self):
        d = self.start(UNPRIVILEGED)
        d.write_pool("killers", Plugin="crash", Workers=1, MaxAttempts=1)
        d.reload()
        d.wait_state("killers", "running")
        job, path = d.submit("killers", "segfault")
        d.wait_job(path)
        file = f"{d.dir}/state/capsules/killers.{job}"
        wait_for(lambda: os.path.exists(file), 10, "it is kept")
        os.chmod(file, 0)
        with self.assert_error("Failed", f"the capsule of job {job} cannot be read: Permission denied"):
            d.call(path, "org.drover1.Job", "GetCapsule")


if __name__ == "__main__":
    main()
