"""Jobs as a caller and an operator see them: listed, cancelled in three ways, kept, queued once more, judged when their
pool goes."""

import os
import subprocess
import time
import unittest

from harness import DROVERCTL, MANAGER, PATIENCE, BusError, Drover, Test, is_alive, main, wait_for
from sdbus import Connection, u64

NOBODY = 65534
JOB = "org.drover1.Job"


class Jobs(Test):
    @classmethod
    def setUpClass(cls):
        cls.drover = Drover({"tell": {"Plugin": "jobs", "Workers": 1, "StartMethod": "fork"},
                             "work": {"Plugin": "cancellable", "Workers": 1, "StartMethod": "fork"},
                             "hang": {"Plugin": "hang", "Workers": 1, "StartMethod": "fork"},
                             "crash": {"Plugin": "jobs", "Workers": 1, "StartMethod": "fork", "MaxAttempts": 2,
                                       "RestartSec": "10ms"},
                             "big": {"Plugin": "jobs", "Workers": 1, "StartMethod": "fork", "SlotSize": "1M",
                                     "Slots": 4},
                             "second": {"Plugin": "jobs", "Workers": 1, "StartMethod": "fork", "ResultTTL": "1s"}})
        cls.d = cls.drover.__enter__()
        for pool in cls.drover.pools:
            cls.d.wait_state(pool, "running")

    @classmethod
    def tearDownClass(cls):
        cls.drover.__exit__(None, None, None)

    def connect(self, uid=None):
        c = Connection(self.d.bus.address, uid)
        self.addCleanup(c.close)
        return c

    def list(self, cursor="", limit=0, **conditions):
        words = [len(conditions)]
        for key, value in conditions.items():
            if key == "state":
                words += [key, "as", len(value), *value]
            else:
                words += [key, "s" if isinstance(value, str) else "t", value]
        return self.d.call(*MANAGER, "ListJobs", "a{sv}su", *words, cursor, limit)

    def pages(self, limit, **conditions):
        rows, cursor, n_pages = [], "", 0
        while True:
            page, cursor = self.list(cursor, limit, **conditions)
            self.assertLessEqual(len(page), limit)
            rows += page
            n_pages += 1
            if not cursor:
                return rows, n_pages

    def state(self, job):
        return self.d.get(job, JOB, "State")

    # ---- ListJobs ----

    def test_pages_show_every_job_once(self):
        c = self.connect()
        cookies = [c.send(*MANAGER, "Submit", "ssa{sv}a{sv}", b"tell", b"tell", 1, b"n", b"t", u64(i), 0)
                   for i in range(25)]
        ids = [c.reply(cookie).read("t")[0] for cookie in cookies]
        for job_id in ids:
            self.d.wait_job(f"/org/drover1/job/{job_id}")
        rows, n_pages = self.pages(7, pool="tell", job="tell")
        mine = [row for row in rows if row[0] in ids]
        self.assertEqual([row[0] for row in mine], ids)
        self.assertEqual(mine[0], [ids[0], f"/org/drover1/job/{ids[0]}", "tell", "tell", "done"])
        self.assertGreaterEqual(n_pages, 4)
        self.assertEqual([row[0] for row in self.list(str(ids[9]), 3, pool="tell", job="tell")[0]], ids[10:13])
        since = self.d.get(f"/org/drover1/job/{ids[20]}", JOB, "SubmittedUSec")
        self.assertLessEqual(len([row for row in self.pages(100, pool="tell", since=since)[0] if row[0] in ids]),
                             25 - 1)
        self.assertIn(ids[20], [row[0] for row in self.pages(100, pool="tell", since=since)[0]])
        self.assertEqual(self.pages(100, pool="tell", since=2 ** 62)[0], [])

    def test_filters(self):
        running = self.d.submit("work", "work", ms=60000)
        queued = self.d.submit("work", "work", ms=60000)
        wait_for(lambda: self.state(running[1]) == "running", 10, "it runs")
        self.assertEqual(self.list(pool="work", state=["running"])[0], [[*running, "work", "work", "running"]])
        self.assertEqual(self.list(pool="work", state=["queued", "lost"])[0], [[*queued, "work", "work", "queued"]])
        self.assertEqual(self.list(pool="work", state=["queued"], uid=os.getuid())[0],
                         [[*queued, "work", "work", "queued"]])
        self.assertEqual(self.list(pool="work", uid=4711)[0], [])
        self.assertEqual(self.list(pool="nowhere")[0], [])
        for name, words in (("asleep", {"state": ["asleep"]}), ("colour", {"colour": "red"}), ("uid", {"uid": "root"})):
            with self.assert_error("InvalidArgs", name):
                self.list(**words)
        with self.assert_error("InvalidArgs", "cursor"):
            self.list("x1")
        for _, job in (running, queued):
            self.d.call(job, JOB, "Cancel", "s", "kill")
            self.d.wait_job(job)

    def test_tasks_of_a_worker(self):
        worker = wait_for(lambda: self.d.list_workers("work"), 10, "its worker")[0][2]

        def rows():
            return self.d.call(worker, "org.drover1.Worker", "ListTasks") or []

        def tasks():
            return [row for row in rows() if "finished-usec" not in row]

        def check_as_nobody():
            if os.geteuid() == 0:
                m = self.connect(NOBODY).call(worker, "org.drover1.Worker", "ListTasks")
                m.enter("a", "a{sv}")
                self.assertFalse(m.more("a", "{sv}"), "another's job is nobody's business")

        wait_for(lambda: not tasks(), 10, "it is idle")
        before = time.time()
        job_id, job = self.d.submit("work", "work", ms=60000)
        task = wait_for(tasks, 10, "it runs")[0]
        since = task.pop("since-usec") / 1e6
        self.assertEqual(task, {"job": job_id, "type": "work", "attempt": 1, "state": "running", "waiting-for": ""})
        self.assertGreater(since, before - 0.1)
        self.assertLess(since, time.time() + 0.1)
        if os.geteuid() == 0:
            os.chmod(self.d.dir, 0o711)
        check_as_nobody()
        self.d.call(job, JOB, "Cancel", "s", "ask")
        self.assertEqual(self.d.wait_job(job), "cancelled")
        last, = rows()
        self.assertAlmostEqual(last.pop("since-usec") / 1e6, since, delta=0.1)
        self.assertGreater(last.pop("finished-usec") / 1e6, since)
        self.assertEqual(last, {**task, "state": "cancelled"})
        check_as_nobody()
        client = self.d.ctl_start("map", "work", "work", "--arg=ms", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        client.stdin.write("500\n")
        client.stdin.close()
        task = wait_for(tasks, 10, "the session's job runs")[0]
        self.assertEqual((task["job"] >> 40 > 0, task["type"]), (True, "work"))
        self.assertEqual([row["job"] for row in rows()], [task["job"], job_id], "what it runs is first")
        self.assertEqual(client.wait(20 * PATIENCE), 0)
        client.stdout.close()
        last, = wait_for(lambda: not tasks() and rows(), 10, "it is over")
        self.assertEqual((last["job"], last["type"], last["state"]), (task["job"], "work", "done"))
        self.assertGreater(last["finished-usec"] - last["since-usec"], 450000)
        check_as_nobody()

    def test_the_jobs_of_a_session_are_listed_and_can_be_cancelled(self):
        client = subprocess.Popen([DROVERCTL, "--user", "map", "work", "work", "--arg=ms"], env=self.d.env(), text=True,
                                  stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            client.stdin.write("60000\n" * 5)
            client.stdin.close()
            rows = wait_for(lambda: (lambda r: r if len(r) == 5 and any(x[4] == "running" for x in r) else None)(
                [row for row in self.list(pool="work")[0] if row[0] >> 40]), 10, "five jobs, one runs")
            self.assertEqual([row[0] for row in rows], sorted(row[0] for row in rows))
            self.assertEqual([row[0] for row in self.pages(2, pool="work", state=["queued", "running"])[0]
                              if row[0] >> 40], [row[0] for row in rows])
            running = next(row for row in rows if row[4] == "running")
            waiting = next(row for row in rows if row[4] == "queued")
            properties = self.d.job(running[1])
            self.assertEqual((properties["Id"], properties["Pool"], properties["Name"], properties["State"]),
                             (running[0], "work", "work", "running"))
            # of 56, for a note has 119 bytes
            self.assertEqual(properties["Progress"][1:], [60000, "working " + "é" * 55])
            self.assertEqual(self.d.call(*MANAGER, "GetJob", "t", running[0]), running[1])
            with self.assert_error("InvalidArgs", "channel", "GetResult"):
                self.d.result(running[1])
            self.assertEqual(self.d.call(waiting[1], JOB, "Cancel", "s", "queued"), "cancelled")
            self.assertEqual(self.d.call(running[1], JOB, "Cancel", "s", "queued"), "running")
            self.assertEqual(self.d.call(running[1], JOB, "Cancel", "s", "ask"), "asked")
            wait_for(lambda: len([row for row in self.list(pool="work")[0] if row[0] >> 40]) == 3, 10, "two are gone")
            if os.geteuid() == 0:
                with self.assertRaises(BusError) as caught:
                    os.chmod(self.d.dir, 0o711)
                    self.connect(NOBODY).call(rows[-1][1], JOB, "Cancel", "s", b"ask")
                self.assertEqual(caught.exception.name, "org.drover1.Error.NoSuchJob")
        finally:
            client.kill()
            client.wait()
            client.stdout.close()
            client.stderr.close()
        wait_for(lambda: not [row for row in self.list(pool="work")[0] if row[0] >> 40], 10,
                 "they went with their client")

    @unittest.skipUnless(os.geteuid() == 0, "needs root, to call as somebody else")
    def test_a_foreign_job_is_not_listed(self):
        self.d.wait_job(self.d.submit("tell", "tell", n=1)[1])
        os.chmod(self.d.dir, 0o711)
        c = self.connect(NOBODY)
        own = c.call(*MANAGER, "Submit", "ssa{sv}a{sv}", b"tell", b"tell", 1, b"n", b"t", u64(7), 0).read("t")[0]
        self.assertIn(own, [row[0] for row in self.pages(100, uid=NOBODY)[0]])
        listed = subprocess.run(["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "busctl",
                                 f"--address={self.d.bus.address}", "call",
                                 "org.drover1", *MANAGER, "ListJobs", "a{sv}su", "0", "", "0"], capture_output=True,
                                text=True, check=True).stdout
        self.assertTrue(listed.startswith("a(tosss)s 1 " + str(own)), listed)

    # ---- whose ----

    TYPES = {"id": "t", "path": "o", "pool": "s", "job": "s", "state": "s", "uid": "u", "pid": "u", "connection": "s",
             "submitted-usec": "t"}

    def described_to(self, c):
        """{id: its row}, as this caller sees them."""
        m = c.call(*MANAGER, "DescribeJobs", "a{sv}su", 0, b"", 0)
        rows = {}
        m.enter("a", "a{sv}")
        while m.more("a", "{sv}"):
            row = {}
            while m.more("e", "sv"):
                key = m.read("s")[0]
                m.enter("v", self.TYPES[key])
                row[key] = m.read(self.TYPES[key])[0]
                m.exit()
                m.exit()
            m.exit()
            rows[row["id"]] = row
        return rows

    def test_whose_a_job_is(self):
        c = self.connect()
        before = time.time()
        m = c.call(*MANAGER, "Submit", "ssa{sv}a{sv}", b"work", b"work", 1, b"ms", b"t", u64(60000), 0)
        job_id, job = m.read("to")
        client = self.d.ctl_start("map", "work", "work", "--arg=ms", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(client.communicate)
        client.stdin.write("60000\n")
        client.stdin.flush()
        row = self.described_to(c)[job_id]
        self.assertEqual((row["uid"], row["pid"], row["connection"]), (os.getuid(), os.getpid(), c.name))
        self.assertAlmostEqual(row["submitted-usec"] / 1e6, before, delta=10)
        properties = self.d.job(job)
        self.assertEqual((properties["Uid"], properties["Pid"], properties["Connection"]),
                         (os.getuid(), os.getpid(), c.name))
        of_channel = wait_for(lambda: [row for row in self.described_to(c).values() if row["id"] >> 40], 10,
                              "the channel's job")[0]
        self.assertEqual((of_channel["uid"], of_channel["pid"]), (os.getuid(), client.pid))
        self.assertRegex(of_channel["connection"], r"^:\d+\.\d+$")
        properties = self.d.job(of_channel["path"])
        self.assertEqual((properties["Uid"], properties["Pid"], properties["Connection"]),
                         (os.getuid(), client.pid, of_channel["connection"]))
        shown = self.d.ctl("list-jobs", "work", "-q").stdout
        self.assertRegex(shown,
                         rf"(?m)^ *{job_id}  work  work  running  +{os.getuid()}  +{os.getpid()}  {c.name} +20\d\d-")
        self.assertRegex(shown,
                         rf"(?m)^ *{of_channel['id']}  work  work  queued  +{os.getuid()}  +{client.pid}  "
                         rf"{of_channel['connection']} +20\d\d-")
        self.assertRegex(self.d.ctl("show", f"job/{job_id}").stdout,
                         rf"(?s) Pid: +{os.getpid()}\n.* Connection: +{c.name}\n")
        session, = self.d.call(*MANAGER, "ListSessions")
        self.assertAlmostEqual(session.pop("opened-usec") / 1e6, before, delta=10)
        self.assertEqual(session.pop("id-base"), of_channel["id"] >> 40 << 40)
        self.assertEqual(session,
                         {"pool": "work", "uid": os.getuid(), "pid": client.pid, "connection": of_channel["connection"],
                                   "slots": 1024, "queued": 1, "running": 0})
        shown = self.d.ctl("list-sessions", "work", "-q").stdout
        self.assertRegex(shown, rf"^work +{os.getuid()} +{client.pid} +{of_channel['connection']} +20.* 1024 +1 +0\n$")
        self.assertEqual(self.d.ctl("list-sessions", "tell", "-q").stdout, "")
        self.assertEqual(self.d.ctl("list-sessions", "nopool").returncode, 4)
        if os.geteuid() == 0:
            os.chmod(self.d.dir, 0o711)
            nobody = self.connect(NOBODY)
            m = nobody.call(*MANAGER, "ListSessions")
            m.enter("a", "a{sv}")
            self.assertFalse(m.more("a", "{sv}"), "others' sessions are nobody's business")
            own = nobody.call(*MANAGER, "Submit", "ssa{sv}a{sv}", b"second", b"tell", 1, b"n", b"t", u64(7),
                              0).read("t")[0]
            self.assertEqual([(row["uid"], row["connection"]) for row in self.described_to(nobody).values()
                              if row["id"] == own], [(NOBODY, nobody.name)])
            self.assertEqual({row["uid"] for row in self.described_to(nobody).values()}, {NOBODY},
                             "others' are nobody's business")
            with self.assert_error("NoSuchJob"):
                nobody.call(job, "org.freedesktop.DBus.Properties", "Get", "ss", b"org.drover1.Job", b"Pid")
            wait_for(lambda: own not in self.described_to(nobody), 20, "it is forgotten")
        client.terminate()
        self.d.call(job, JOB, "Cancel", "s", "ask")
        self.d.wait_job(job)
        self.assertEqual(self.d.get(job, JOB, "Pid"), os.getpid(), "also of one that is over")
        wait_for(lambda: not self.d.call(*MANAGER, "ListSessions"), 10, "the session ends with its client")

    # ---- Cancel ----

    def test_cancel_says_what_happened(self):
        def cancel(job, mode):
            return self.d.call(job, JOB, "Cancel", "s", mode)
        for mode in ("queued", "ask", "kill"):
            first, second = self.d.submit("work", "work", ms=60000)[1], self.d.submit("work", "work", ms=60000)[1]
            wait_for(lambda job=first: self.state(job) == "running", 10, "it runs")
            self.assertEqual(cancel(second, mode), "cancelled")
            self.assertEqual(self.d.result(second)["state"], "cancelled")
            self.assertIn("before it ran", self.d.result(second)["error"])
            pid = self.d.get(first, JOB, "WorkerPid")
            self.assertEqual(cancel(first, mode), {"queued": "running", "ask": "asked", "kill": "killed"}[mode])
            if mode == "queued":
                self.assertEqual(cancel(first, "ask"), "asked")
            self.assertEqual(self.d.wait_job(first), "cancelled")
            wait_for(lambda p=pid: is_alive(p) == (mode != "kill"), 10, "the worker lives unless it was killed")
            self.assertEqual(cancel(first, mode), "finished")
            done = self.d.submit("work", "work", ms=1)[1]
            self.assertEqual(self.d.wait_job(done), "done")
            self.assertEqual(cancel(done, mode), "finished")

    def test_only_kill_ends_a_stubborn_job(self):
        job = self.d.submit("hang", "hang")[1]
        wait_for(lambda: self.state(job) == "running", 10, "it runs")
        self.assertEqual(self.d.call(job, JOB, "Cancel", "s", "ask"), "asked")
        self.assertEqual(self.d.call(job, JOB, "Wait", "t", 200000), "running")
        pid = self.d.get(job, JOB, "WorkerPid")
        self.assertEqual(self.d.call(job, JOB, "Cancel", "s", "kill"), "killed")
        self.assertEqual(self.state(job), "cancelled")  # the verdict first
        result = self.d.result(job)
        self.assertEqual((result["reason"], result["worker-pid"] if "worker-pid" in result else pid), ("operator", pid))
        wait_for(lambda: not is_alive(pid), 10, "then the kill")
        self.d.wait_workers("hang", 1)

    # ---- results ----

    def test_results_are_kept_within_a_budget(self):
        first = self.d.submit("tell", "tell", n=1)[1]
        self.d.wait_job(first)
        million = (1 << 20) - 100
        for _ in range(36):  # a megabyte each: over the half of 64 MiB that one uid may keep
            last = self.d.submit("big", "big", bytes=million)[1]
            self.assertEqual(self.d.wait_job(last), "done")
        with self.assert_error("ResultExpired", first.rpartition("/")[2], "ResultTTL="):
            self.d.result(first)
        self.assertEqual(len(self.d.result(last)["result"]["data"]), million)
        self.assertLess(len(self.list(pool="big")[0]), 36)
        with self.assert_error("NoSuchJob", "999999"):
            self.d.result("/org/drover1/job/999999")

    def test_a_result_goes_in_time_beside_one_that_stays(self):
        stays = self.d.submit("tell", "tell", n=1)[1]
        self.d.wait_job(stays)
        goes = self.d.submit("second", "tell", n=1)[1]
        self.assertEqual(self.d.wait_job(goes), "done")

        def is_gone():
            try:
                self.d.result(goes)
            except BusError as e:
                return "NoSuchJob" in e.name
        wait_for(is_gone, 20, "the result of a pool with ResultTTL=1s goes")
        self.assertEqual(self.d.result(stays)["result"]["n"], 1)

    # ---- once more ----

    def test_requeue(self):
        d = self.d
        done = d.submit("tell", "tell", n=5)[1]
        d.wait_job(done)
        with self.assert_error("InvalidArgs", "is done"):
            d.call(done, JOB, "Requeue")
        d.pool_call("tell", "Pause")
        job_id, job = d.submit("tell", "tell", n=6)
        with self.assert_error("NotFinished"):
            d.call(job, JOB, "Requeue")
        self.assertEqual(d.call(job, JOB, "Cancel", "s", "queued"), "cancelled")
        c = self.connect()
        c.call(*MANAGER, "Subscribe")
        d.call(job, JOB, "Requeue")
        self.assertEqual(self.state(job), "queued")
        d.pool_call("tell", "Resume")
        self.assertEqual(d.wait_job(job), "done")
        self.assertEqual((d.result(job)["result"]["n"], d.result(job)["attempts"]), (6, 1))
        self.assertEqual(c.wait(lambda m: m.member == "JobRemoved").read("toss"), [job_id, job, "tell", "done"])

    def test_requeue_poisoned(self):
        d = self.d
        jobs = [d.submit("crash", "die")[1] for _ in range(3)]
        for job in jobs:
            self.assertEqual(d.wait_job(job), "poisoned")
        fine = d.submit("crash", "tell", n=1)[1]
        d.wait_job(fine)
        d.pool_call("crash", "Pause")
        self.assertEqual(d.pool_call("crash", "RequeuePoisoned"), 3)
        self.assertEqual(d.pool_call("crash", "RequeuePoisoned"), 0)
        self.assertEqual([self.state(job) for job in jobs], ["queued"] * 3)
        d.pool_call("crash", "Resume")
        for job in jobs:
            self.assertEqual(d.wait_job(job), "poisoned")
            self.assertEqual(d.result(job)["attempts"], 2)

    # ---- the pool goes ----

    def test_queued_jobs_get_a_verdict_when_their_pool_goes(self):
        d = self.d
        for ending in ("Stop", "RemovePool"):
            d.call(*MANAGER, "CreatePool", "sa{sv}t", "brief", 3, "Plugin", "s", "cancellable", "Workers", "u", 1,
                   "StartMethod", "s", "fork", 0)
            d.wait_state("brief", "running")
            running, queued = d.submit("brief", "work", ms=60000)[1], d.submit("brief", "work", ms=60000)[1]
            wait_for(lambda job=running: self.state(job) == "running", 10, "it runs")
            if ending == "Stop":
                d.pool_call("brief", "Stop")
            else:
                d.call(*MANAGER, "RemovePool", "st", "brief", 0)
            self.assertEqual([d.wait_job(queued), d.wait_job(running)], ["cancelled", "cancelled"])
            if ending == "Stop":
                with self.assert_error("PoolStopped", "brief"):
                    d.call(queued, JOB, "Requeue")
                d.call(*MANAGER, "RemovePool", "st", "brief", 0)
            wait_for(lambda: "brief" not in [row[0] for row in d.call(*MANAGER, "ListPools")], 10, "the pool is gone")
            self.assertEqual(d.result(queued)["state"], "cancelled")
            with self.assert_error("NoSuchPool", "brief"):
                d.call(queued, JOB, "Requeue")


if __name__ == "__main__":
    main()
