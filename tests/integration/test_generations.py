"""Plugin files that change: a sealed copy of each, kept as long as a worker may come of it and no longer."""

import errno
import os
import shutil
import subprocess

from harness import MANAGER, Drover, Test, fds_of, main, wait_for
from sdbus import Connection, u64


def copies(d):
    """The copies of plugin files that the spawner keeps."""
    return sorted(name for name in fds_of(d.spawner()).values() if name.startswith("/memfd:"))


def install(d, source, name):
    """As an installer does it: a new file under the old name."""
    path = os.path.join(d.plugin_dir, name + ".so")
    shutil.copy(os.path.join(d.plugin_dir, source + ".so"), path + ".new")
    os.rename(path + ".new", path)


class Generations(Test):
    def test_nothing_is_kept_of_pools_that_go_while_they_load(self):
        with Drover({"primes": {"Plugin": "primes", "Workers": 1}}) as d, Connection(d.bus.address) as c:
            before = copies(d)
            for i in range(300):  # more than the spawner has room for
                name = b"p%d" % (i % 3)
                c.send(*MANAGER, "CreatePool", "sa{sv}t", name, 1, b"Plugin", b"s", b"echo", u64(0))
                c.call(*MANAGER, "RemovePool", "st", name, u64(0))
            wait_for(lambda: copies(d) == before, 10, "no copy is left")
            self.assertEqual(d.run("primes", "is_prime", n=97), {"prime": True})

    def test_nothing_is_kept_of_restarts_in_a_row(self):
        for method in ("fork", "spawn", "forkserver"):
            with Drover({"primes": {"Plugin": "primes", "Workers": 2,
                                    "StartMethod": method}}) as d, Connection(d.bus.address) as c:
                before, path = copies(d), d.pool_path("primes")
                for _ in range(300):
                    c.call(path, "org.drover1.Pool", "Restart")
                wait_for(lambda d=d, before=before: copies(d) == before, 10, f"{method}: one copy is left")
                wait_for(lambda d=d: len(d.list_workers("primes")) == 2, 10, f"{method}: the old workers are gone")
                self.assertEqual(d.pool("primes")["Problem"], "")
                self.assertEqual(d.deaths("primes"), [])
                self.assertEqual(d.run("primes", "is_prime", n=97), {"prime": True})

    def test_a_refused_pool_is_tried_with_the_new_file(self):
        for member in ("Start", "Restart", "ResetFailed", "Reload"):
            with Drover({"p": {"Plugin": "mine", "Workers": 1}}, wait=False) as d:
                install(d, "nometa", "mine")
                d.reload()
                d.wait_state("p", "refused")
                install(d, "primes", "mine")
                if member == "Reload":
                    d.reload()
                else:
                    d.pool_call("p", member)
                wait_for(lambda d=d: d.pool("p")["State"] == "running", 10, f"{member} takes the new file")
                self.assertEqual(d.run("p", "is_prime", n=97), {"prime": True})

    def test_a_bad_file_and_a_good_one_in_a_row(self):
        """What is gone back to is the file that ran last, not the one that was loaded last."""
        with Drover({"p": {"Plugin": "mine", "Workers": 2}}, wait=False) as d, Connection(d.bus.address) as c:
            install(d, "primes", "mine")
            d.pool_call("p", "Start")
            d.wait_workers("p", 2)
            path, before = d.pool_path("p"), copies(d)
            for good in ("sleep", "echo") * 10:
                install(d, "nometa", "mine")
                c.call(path, "org.drover1.Pool", "Restart")
                install(d, good, "mine")
                c.call(path, "org.drover1.Pool", "Restart")
                wait_for(lambda good=good: f'"{good}"' in d.pool_call("p", "Schema"), 10, f"{good} is taken")
                install(d, "nometa", "mine")
                c.call(path, "org.drover1.Pool", "Restart")
                wait_for(lambda: "not used" in d.pool("p")["Problem"], 10, "the bad file is told")
                self.assertIn(f'"{good}"', d.pool_call("p", "Schema"))
                d.wait_workers("p", 2)
            install(d, "typed", "mine")
            self.assertEqual(d.reload(), [["pool", "p", "tried again"]])
            wait_for(lambda: '"typed"' in d.pool_call("p", "Schema"), 10, "Reload tries the file that was bad")
            wait_for(lambda: len(copies(d)) == len(before), 10, "nothing is left of the others")

    def test_job_types_go_by_name_not_by_place(self):
        """What was accepted for a job type runs that type's handler in whatever file comes next, or fails and says
        why."""
        with Drover({"p": {"Plugin": "mine", "Workers": 2}}, wait=False) as d:
            install(d, "kinds-1", "mine")
            d.pool_call("p", "Start")
            d.wait_workers("p", 2)
            red, other = (d.ctl_start("map", "p", job, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE)
                          for job in ("red", "other"))  # sessions that know the old list
            for ctl in red, other:
                ctl.stdin.write("1\n")
                ctl.stdin.flush()
            self.assertEqual(red.stdout.readline(), "1\tname=red\n")
            self.assertEqual(other.stdout.readline(), "1\tname=other\n")
            d.pool_call("p", "Pause")
            jobs = {job: d.submit("p", job, n=1)[1] for job in ("red", "blue", "gone", "other")}
            install(d, "kinds-2", "mine")
            d.pool_call("p", "Restart")
            wait_for(lambda: '"new"' in d.pool_call("p", "Schema"), 10, "the new list")
            d.pool_call("p", "Resume")
            for job in "red", "blue":
                self.assertEqual(d.wait_job(jobs[job]), "done")
                self.assertEqual(d.result(jobs[job])["result"], {"name": job})
            for job in "gone", "other":
                self.assertEqual(d.wait_job(jobs[job]), "failed")
                r = d.result(jobs[job])
                self.assertIn(f"({job} of pool p)", r["error"])
                self.assertIn("has no such job type", r["error"])
                self.assertEqual(r["errno"], errno.EOPNOTSUPP)
                with self.assert_error("NoSuchJobType" if job == "gone" else "InvalidArgs"):
                    d.call(jobs[job], "org.drover1.Job", "Requeue")
            self.assertEqual(d.run("p", "new", n=1), {"name": "new"})
            out, _ = red.communicate("2\n")
            self.assertEqual((red.returncode, out), (0, "2\tname=red\n"))
            out, err = other.communicate("2\n")
            self.assertNotEqual(other.returncode, 0)
            self.assertIn("has no such job type", out + err)


if __name__ == "__main__":
    main()
