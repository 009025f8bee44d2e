"""What users of other job queues reported, tried with ours, where no other test has it: tests/SITUATIONS.md lists all."""

import time

from harness import PATIENCE, Drover, Test, main, pause, wait_for, worker_of

JOB = "org.drover1.Job"


class Situations(Test):
    @classmethod
    def setUpClass(cls):
        cls.drover = Drover({"limits": {"Plugin": "ignorecancel", "Workers": 1, "SoftTimeout": "100ms", "HardTimeout": "400ms"},
                             "rate": {"Plugin": "jobs", "Workers": 2, "StartMethod": "fork", "RateLimit": "20/s"},
                             "drained": {"Plugin": "hang", "Workers": 1},
                             "two": {"Plugin": "sleep", "Workers": 2}})
        cls.d = cls.drover.__enter__()
        for pool in cls.drover.pools:
            cls.d.wait_state(pool, "running")

    @classmethod
    def tearDownClass(cls):
        cls.drover.__exit__(None, None, None)

    def test_a_soft_limit_does_not_put_off_the_hard_one(self):
        _, path = self.d.submit("limits", "ignore", ms=60000)
        self.assertEqual(self.d.wait_job(path, 10), "timed-out")
        self.assertIn("time limit", self.d.ctl("why", path.rpartition("/")[2]).stdout)

    def test_what_is_due_later_runs_once(self):
        """By one of two idle workers, and not again when it is over."""
        before = self.d.pool("two")["Completed"]
        due = (time.time_ns() + 500_000_000) // 1000
        jobs = [self.d.submit("two", "sleep", {"not-before": due}, ms=1)[1] for _ in range(10)]
        for job in jobs:
            self.assertEqual(self.d.wait_job(job), "done")
            self.assertEqual(self.d.job(job)["Attempt"], 1)
        pause(1)
        self.assertEqual(self.d.pool("two")["Completed"], before + 10)

    def test_a_rate_keeps_the_order(self):
        self.d.pool_call("rate", "Pause")
        jobs = [self.d.submit("rate", "tell", n=i)[1] for i in range(12)]
        self.d.pool_call("rate", "Resume")
        for job in jobs:
            self.assertEqual(self.d.wait_job(job), "done")
        results = [self.d.result(job)["result"] for job in jobs]
        self.assertEqual([r["n"] for r in sorted(results, key=lambda r: r["usec"])], list(range(12)))

    def test_jobs_of_a_pool_that_drains_can_be_cancelled(self):
        running, queued = (self.d.submit("drained", "hang")[1] for _ in range(2))
        worker_of(self.d, running)
        self.assertEqual(self.d.ctl("drain", "drained", "--no-wait").returncode, 0)
        self.d.call(queued, JOB, "Cancel", "s", "ask")
        self.assertEqual(self.d.wait_job(queued, 5), "cancelled")
        self.assertEqual(self.d.job(running)["State"], "running")
        self.assertEqual(self.d.call(running, JOB, "Cancel", "s", "kill"), "killed")
        self.assertEqual(self.d.wait_job(running, 5), "cancelled")
        self.d.wait_state("drained", "stopped")

    def test_short_jobs_do_not_wait_behind_a_long_one(self):
        long = self.d.submit("two", "sleep", ms=int(60000 * PATIENCE))[1]
        worker_of(self.d, long)
        for _ in range(10):
            self.assertEqual(self.d.run("two", "sleep", ms=1), {"ms": 1})
        self.assertEqual(self.d.job(long)["State"], "running")
        self.assertEqual(self.d.call(long, JOB, "Cancel", "s", "kill"), "killed")
        wait_for(lambda: self.d.pool("two")["Running"] == 0, 10, "nothing runs")


if __name__ == "__main__":
    main()
