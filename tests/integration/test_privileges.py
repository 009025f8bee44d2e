"""What a worker and a template may do and take, seen from outside: no capability, no group, a bounded share of the
machine."""

import glob
import os
import resource
import subprocess
import unittest

from harness import BUILD, IS_SANITIZED, WORKER, Drover, Test, descendants, kill, main, wait_for

METHODS = ("forkserver", "spawn", "fork")
IS_ROOT = os.geteuid() == 0
OTHER, TASKS = 29171, 200  # a uid that nobody has, and what it may have
# Root with groups, and with capabilities that outlive an exec by themselves.
LAUNCHER = ["setpriv", "--groups=4,24,27", "--inh-caps=+net_raw,+sys_admin",
            "--ambient-caps=+net_raw,+sys_admin"] if IS_ROOT else []


def status_of(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


def oom_score_adj_of(pid):
    with open(f"/proc/{pid}/oom_score_adj", encoding="utf-8") as f:
        return int(f.read())


def tasks_of_service():
    soft = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    return soft if soft != resource.RLIM_INFINITY else 32768


class Privileges(Test):
    def check(self, pid, broker, kept=4):
        s = status_of(pid)
        for name in ("CapInh", "CapPrm", "CapEff", "CapAmb") + (("CapBnd",) if IS_ROOT else ()):
            self.assertEqual(int(s[name], 16), 0, f"{name} of {s['Name']}")
        if IS_ROOT:
            self.assertEqual(s["Groups"].strip(), "", s["Name"])
        self.assertEqual(s["NoNewPrivs"].strip(), "1", s["Name"])
        self.assertEqual(oom_score_adj_of(pid), min(1000, oom_score_adj_of(broker) + 200), s["Name"])
        for what, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_MEMLOCK, 0), (resource.RLIMIT_MSGQUEUE, 0),
                           (resource.RLIMIT_NICE, 0), (resource.RLIMIT_RTPRIO, 0), (resource.RLIMIT_NOFILE, 1024)):
            self.assertEqual(resource.prlimit(pid, what), (most, most))
        tasks = tasks_of_service()
        self.assertEqual(resource.prlimit(pid, resource.RLIMIT_NPROC), (tasks - tasks // kept,) * 2)

    def check_memory(self, pid, wanted):
        if not IS_SANITIZED:
            self.assertEqual(resource.prlimit(pid, resource.RLIMIT_DATA), (wanted, wanted))

    def test_of_workers_and_templates(self):
        pools = {m: {"Plugin": "primes", "StartMethod": m, "Workers": 1} for m in METHODS}
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        with Drover(pools, launcher=LAUNCHER) as d:
            for m in METHODS:
                self.assertEqual(d.run(m, "is_prime", n=97), {"prime": True})
                pid = d.wait_workers(m, 1)[0][3]
                self.check(pid, d.pid)
                self.check_memory(pid, memory - memory // 4)
            templates = d.templates()
            self.assertEqual(len(templates), 1)
            self.check(templates[0], d.pid, kept=8)
            if IS_ROOT:  # the others keep what they need
                self.assertNotEqual(int(status_of(d.spawner())["CapEff"], 16), 0)

    def test_of_a_plugin_that_its_author_runs(self):
        with subprocess.Popen(LAUNCHER + [WORKER, "--run", f"{BUILD}/tests/plugins/sleep.so", "sleep",
                                          "ms=60000"]) as p:
            worker = wait_for(lambda: [pid for pid in descendants(p.pid) if status_of(pid)["Seccomp"].strip() == "2"],
                              10, "it runs")[0]
            self.check(worker, p.pid)
            p.kill()
        r = subprocess.run([WORKER, "--run", f"{BUILD}/tests/plugins/leak.so", "leak", f"bytes={100 << 20}", "fds=0",
                            f"--memory-max={64 << 20}"], capture_output=True, text=True, check=False)
        if not IS_SANITIZED:
            self.assertEqual((r.returncode, r.stdout), (1, ""))
            self.assertIn("no memory left to leak", r.stderr)

    def test_memory(self):
        """MemoryMax=: what a job takes beyond it, it does not get, and nobody dies of that."""
        with Drover({"m": {"Plugin": "leak", "Workers": 1, "MemoryMax": "64M"},
                     "any": {"Plugin": "leak", "Workers": 1, "MemoryMax": "infinity"}}) as d:
            worker = d.wait_workers("m", 1)[0]
            self.check_memory(worker[3], 64 << 20)
            self.check_memory(d.wait_workers("any", 1)[0][3], resource.RLIM_INFINITY)
            if not IS_SANITIZED:
                with self.assert_error("Failed", "no memory left to leak"):
                    d.run("m", "leak", bytes=100 << 20, fds=0)
            self.assertEqual(d.run("m", "leak", bytes=30 << 20, fds=0), {"fds": 0})
            self.assertEqual(d.run("any", "leak", bytes=100 << 20, fds=0), {"fds": 0})
            self.assertEqual(d.wait_workers("m", 1)[0][0], worker[0])
            # Another limit is for other workers.
            d.write_pool("m", Plugin="leak", Workers=1, MemoryMax="256M")
            d.reload()
            wait_for(lambda: (w := d.list_workers("m")) and len(w) == 1 and w[0][0] != worker[0] and w[0][4] == "idle",
                     10, "it is replaced")
            self.check_memory(d.wait_workers("m", 1)[0][3], 256 << 20)
            self.assertEqual(d.run("m", "leak", bytes=100 << 20, fds=0), {"fds": 0})

    @unittest.skipUnless(IS_ROOT, "only root can be another uid")
    def test_threads(self):
        """A worker that makes threads without end leaves the service enough to start others, in its own uid."""
        d = Drover({"many": {"Plugin": "many-threads", "Workers": 1}, "a": {"Plugin": "sleep", "Workers": 1}},
                   launcher=["setpriv", f"--reuid={OTHER}", f"--regid={OTHER}", "--clear-groups", "prlimit",
                             f"--nproc={TASKS}"],
                   bus_env={"LD_PRELOAD": f"{BUILD}/tests/integration/any-user.so"})
        for path in (d.dir, *glob.glob(f"{d.dir}/**", recursive=True)):
            os.chown(path, OTHER, OTHER, follow_symlinks=False)
        with d:
            path = d.submit("many", "make", ms=60000)[1]
            n = wait_for(lambda: d.job(path)["Progress"][0], 20, "it has all that it gets")
            self.assertGreater(n, 10)
            self.assertLess(n, TASKS - TASKS // 4)
            before = d.wait_workers("a", 1)[0]
            kill(before[3])
            wait_for(lambda: [w for w in d.list_workers("a") if w[0] != before[0] and w[4] == "idle"], 10,
                     "another one is started")
            self.assertEqual(d.run("a", "sleep", ms=1), {"ms": 1})
            d.call(path, "org.drover1.Job", "Cancel", "s", "kill")

    def test_the_broker_outlives_its_workers(self):
        """Also one that is expendable itself."""
        for own in (300, 900):
            with Drover({"primes": {"Plugin": "primes", "Workers": 1}}, launcher=["choom", "-n", str(own), "--"]) as d:
                self.assertEqual(oom_score_adj_of(d.pid), own)
                self.assertEqual(oom_score_adj_of(d.wait_workers("primes", 1)[0][3]), min(1000, own + 200))


if __name__ == "__main__":
    main()
