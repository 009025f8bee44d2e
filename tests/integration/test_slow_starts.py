"""A plugin that hangs at the start of its worker: TimeoutStartSec= ends it, and the pool says what it hung in."""

import subprocess
import time

from harness import BUILD, PATIENCE, WORKER, Drover, Test, assert_in_time, descendants, main, wait_for

LIMIT = 1 * PATIENCE
STUCK = f"{BUILD}/tests/plugins/stuck-start.so"
STEPS = {"constructor": "a constructor", "preload": "preload", "worker_open": "worker_open",
         "worker_init": "worker_init",
         "thread_init": "thread_init"}


class SlowStarts(Test):
    def check_degraded(self, d, pool, step):
        problem = wait_for(lambda: (p := d.pool(pool))["State"] == "degraded" and p["Problem"], 10,
                           f"{pool} is degraded")
        self.assertIn("(TimeoutStartSec=): it hung in " + STEPS[step], problem)
        death = d.deaths(pool)[0]
        self.assertEqual(death["reason"], "preload" if step == "preload" else "init", death)
        self.assertIn("it hung in " + STEPS[step], death["text"])

    def check(self, method):
        names = {step: step.replace("_", "-") for step in STEPS}
        pools = {name: {"Plugin": "stuck-start", "StartMethod": method, "Workers": 2, "TimeoutStartSec": LIMIT,
                        "Environment": f"STUCK_IN={step}"} for step, name in names.items()}
        with Drover(pools, wait=False) as d:
            def hung():
                """Workers, and the templates that hang."""
                return [name for name in descendants(d.spawner()).values()
                        if name.startswith("drw:") or name in ("drt:constructor", "drt:preload")]
            wait_for(hung, 10, "there is one that hangs")
            for step, name in names.items():
                self.check_degraded(d, name, step)
            wait_for(lambda: not d.list_workers(), 10, "those that hung are gone")
            self.assertEqual(hung(), [], "their processes, and the templates that hung, are gone, too")

    def test_spawn(self):
        self.check("spawn")

    def test_fork(self):
        self.check("fork")

    def test_forkserver(self):
        self.check("forkserver")

    def test_start_ends(self):
        """droverctl start and restart tell it, and so does a worker that comes up in the end."""
        settings = {"Plugin": "stuck-start", "Workers": 1, "TimeoutStartSec": LIMIT}
        with Drover({"stuck": dict(settings, Environment="STUCK_IN=preload")}, wait=False) as d:
            for verb in ("start", "restart"):
                begin = time.monotonic()
                r = d.ctl(verb, "stuck")
                self.assertEqual(r.returncode, 4, r)
                self.assertIn("it hung in preload", r.stderr)
                assert_in_time(time.monotonic() - begin, 10 * PATIENCE, f"droverctl {verb}")
            self.assertIn("it hung in preload", d.ctl("status", "--full").stdout)
            d.write_pool("stuck", **settings)
            d.reload()
            self.assertEqual(d.ctl("start", "stuck").returncode, 0)
            self.assertEqual((d.pool("stuck")["State"], d.pool("stuck")["Problem"]), ("running", ""))

    def test_it_is_the_pools(self):
        """No limit is one, too; over the bus as in a file."""
        with Drover() as d:
            for name, limit in (("none", "infinity"), ("short", f"{LIMIT}")):
                d.call("/org/drover1", "org.drover1.Manager", "CreatePool", "sa{sv}t", name, 4, "Plugin", "s",
                       "stuck-start", "Workers", "t",
                       1, "TimeoutStartSec", "s", limit, "Environment", "s", "STUCK_IN=worker_init", 0)
            self.check_degraded(d, "short", "worker_init")
            wait_for(lambda: "it is in worker_init" in d.pool("none")["Problem"], 10, "the other tells where it is")
            self.assertEqual((d.pool("none")["State"], len(d.list_workers("none"))), ("starting", 1))

    def test_without_a_daemon(self):
        for step, words in dict(STEPS, fini="").items():
            begin = time.monotonic()
            r = subprocess.run([WORKER, "--check", STUCK, f"--timeout-start={max(1, int(LIMIT))}"],
                               env={"STUCK_IN": step},
                               capture_output=True, text=True, timeout=30 * PATIENCE, check=False)
            assert_in_time(time.monotonic() - begin, 15 * PATIENCE, f"--check of what hangs in {step}")
            self.assertEqual(r.returncode, 3 if words else 0, r)
            self.assertIn(f"it hangs in {words}" if words else "it hangs in thread_fini, worker_fini or a destructor",
                          r.stderr)

    def test_what_is_no_limit(self):
        for word in ("", "5s", "-1", "1000000000"):
            r = subprocess.run([WORKER, "--check", STUCK, f"--timeout-start={word}"], capture_output=True, text=True, timeout=30 * PATIENCE)
            self.assertEqual((r.returncode, "a whole number of seconds, 999999999 at most" in r.stderr), (2, True), r)


if __name__ == "__main__":
    main()
