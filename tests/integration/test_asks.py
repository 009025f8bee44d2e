"""Jobs that are asked to stop and do not: who asked is told, and what nobody is there to kill ends all the same."""

import subprocess

from harness import MANAGER, PATIENCE, Drover, Test, kill, main, wait_for, worker_of

GRACE = 2 * PATIENCE
POOL = {"Plugin": "hang", "Workers": 1, "KillGraceSec": GRACE}


class Asks(Test):
    def running(self, d):
        return wait_for(lambda: next((w for w in d.workers("p") if w["CurrentJob"]), None), 10, "a job runs")

    def check_told(self, d, job, by):
        asked = wait_for(lambda: (p := d.job(f"/org/drover1/job/{job}")).get("CancelAskedUSec") and p, 10,
                         "that it was asked is told")
        self.assertRegex(asked["CancelAskedBy"], by)
        self.assertRegex(d.ctl("why", job).stdout, rf"It was asked to stop at .* ago, by {by}")
        self.assertRegex(d.ctl("show", f"job/{job}").stdout, rf"CancelAskedBy: +{by}")
        self.assertRegex(d.ctl("status", "--full").stdout, rf"asked to stop .* ago by {by}")

    def check_ended(self, d, worker):
        """Its worker was killed, and another one works."""
        wait_for(lambda: [row[0] for row in d.wait_workers("p", 1, ("idle",))] != [worker["Id"]], 10 * GRACE,
                 "its worker is replaced")
        self.assertEqual(d.pool("p")["Cancelled"], 1)

    def test_a_caller_that_left(self):
        with Drover({"p": POOL}) as d:
            caller = subprocess.Popen(["busctl", "--user", "--", "call", "org.drover1", *MANAGER, "Run", "ssa{sv}a{sv}",
                                       "p", "hang", "0", "0"],
                                      env=d.env(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            worker = self.running(d)
            kill(caller.pid)
            caller.wait()
            self.check_told(d, worker["CurrentJob"], "its caller, who has left")
            self.check_ended(d, worker)

    def test_a_client_that_left(self):
        with Drover({"p": POOL}) as d:
            client = d.ctl_start("map", "p", "hang", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
            client.stdin.write("\n")
            client.stdin.flush()
            worker = self.running(d)
            kill(client.pid)
            client.communicate()
            self.check_ended(d, worker)

    def test_who_asks_may_ask_for_more(self):
        with Drover({"p": dict(POOL, KillGraceSec="100ms")}) as d:
            job, path = d.submit("p", "hang")
            worker_of(d, path)
            self.assertEqual(d.call(path, "org.drover1.Job", "Cancel", "s", "ask"), "asked")
            self.check_told(d, job, r"uid \d+ \(:1\.\d+\)")
            self.assertEqual(d.job(path)["State"], "running")
            self.assertEqual(d.call(path, "org.drover1.Job", "Cancel", "s", "kill"), "killed")

    def test_stop_during_a_restart(self):
        """The restart says for which job it waits; and what Stop ends then was not recycled."""
        with Drover({"p": dict(POOL, KillGraceSec="300ms")}) as d:
            job, path = d.submit("p", "hang")
            worker = self.running(d)
            restart = d.ctl_start("restart", "p", stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
            self.assertEqual(restart.stderr.readline(),
                             f"p: worker {worker['Id']} has job {job} in hand, which is waited for\n")
            d.pool_call("p", "Stop")
            self.assertEqual(d.wait_job(path), "cancelled")
            self.assertEqual(d.result(path)["reason"], "operator")
            restart.communicate(timeout=30 * PATIENCE)


if __name__ == "__main__":
    main()
