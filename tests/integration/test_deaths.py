"""Who holds an object of an arena is killed while another waits for it: what the other is told, and what the lists
show."""

import json
import os
import subprocess

import harness
from harness import Drover, Test, kill, wait_for, worker_of


class Deaths(Test):
    """Who holds something is killed while another waits for it."""

    is_about_losses = True

    # The kind of the holder, of who waits, what the object's type is called; how the other's wait ends; has the object
    # an owner (who is named); how many deaths took something from it; does the holder wait, too; what ends the wait, if
    # it is not the death. (The ends of a pipe are sockets, in no arena: tests/unit/test-sync-pipe.c
    # test_pipe_kill_one_side kills one of them.)
    CASES = (
        ("mutex", "mutex", "mutex", "EOWNERDEAD", True, 1, False, None),
        ("recursive", "recursive", "recursive mutex", "EOWNERDEAD", True, 1, False, None),
        ("rwlock-write", "rwlock-write", "rwlock", "EOWNERDEAD", True, 1, False, None),
        ("rwlock-read", "rwlock-write", "rwlock", "0", None, 1, False, None),  # the waiting writer owns the word
        ("value", "value", "array", "EOWNERDEAD", True, 1, False, None),
        ("array", "array", "array", "EOWNERDEAD", True, 1, False, None),
        ("dictionary", "dictionary", "dictionary", "EOWNERDEAD", True, 1, False, None),
        ("permits", "permits", "permits", "0", False, 1, False, None),
        ("queue", "queue", "queue", "0", False, 1, False, None),
        ("barrier", "barrier", "barrier", "EPIPE", False, 1, True, None),
        ("condition", "condition", "condition", "0", False, 0, True, None),
        ("event", "event", "event", "0", False, 0, True, "set-event"),
        ("semaphore", "semaphore", "semaphore", "0", False, 0, False, "post-semaphore"),  # a dead one's unit is gone
        ("simple", "simple", "queue", "0", False, 0, True, "put-simple"),  # an item that was got is done
    )

    def object(self, name):
        """As droverctl shows it; nobody waits for what is not there yet."""
        r = self.d.ctl("list-objects", "--json=short", "deaths")
        objects = json.loads(r.stdout) if r.returncode == 0 else []
        return {o["name"]: o for o in objects}.get(name, {"waiters": -1})

    def take(self, kind, name, hold_ms):
        return self.d.submit("w", "take", arena="deaths", kind=kind, name=name, hold_ms=hold_ms)

    def wait_waiters(self, name, n):
        return wait_for(lambda: (o := self.object(name))["waiters"] == n and o, 10, f"{n} wait for {name}")

    def check_death(self, kind, waiting_kind, type_name, outcome, has_owner, n_deaths, waits_itself, release):
        d, name = self.d, f"the-{kind}"
        if kind == "queue":
            d.run("w", "put", arena="deaths", name=name)
        holder_id, holder = self.take(kind, name, 60000)
        if waits_itself:
            self.wait_waiters(name, 1)
        else:
            wait_for(lambda: d.job(holder)["Progress"][0] == 1, 10, "it is held")
        waiter_id, waiter = self.take(waiting_kind, name, 0)
        before = self.wait_waiters(name, 2 if waits_itself else 1)
        pid = worker_of(d, holder)
        worker = next(row[0] for row in d.list_workers("w") if row[3] == pid)
        self.assertEqual((before["type"], before["deaths-repaired"], before["inconsistent"]), (type_name, 0, False))
        if has_owner is not None:
            self.assertEqual((before["owner-pid"], before["owner-worker"], before["owner-job"]),
                             (pid, worker, holder_id) if has_owner else (0, 0, 0))
        why = d.ctl("why", waiter_id).stdout
        self.assertRegex(why, rf"It waits for {type_name} deaths/{name}.* for \d+\.\d s")
        if has_owner:
            self.assertIn(f"held by worker {worker} (job {holder_id})", why)
        kill(pid)
        self.assertEqual(d.wait_job(holder), "poisoned")
        if release:
            self.wait_waiters(name, 1)  # the dead one's wait is gone, the other's is not
            d.wait_workers("w", 2)
            self.assertEqual(d.run("w", "take", arena="deaths", kind=release, name=name, hold_ms=0), {"outcome": "0"})
        self.assertEqual(d.wait_job(waiter), "done")
        self.assertEqual(d.result(waiter)["result"], {"outcome": outcome})
        after = self.wait_waiters(name, 0)
        self.assertEqual((after["type"], after["owner-pid"], after["owner-worker"], after["owner-job"],
                          after["inconsistent"]),
                         (type_name, 0, 0, 0, False))
        self.assertEqual(after["deaths-repaired"], n_deaths)
        self.assertRegex(d.ctl("list-objects", "deaths").stdout, rf"(?m)^{name} +{type_name}\b.*\b{n_deaths}\b")
        d.wait_workers("w", 2)

    def check_all(self, method):
        with Drover({"w": {"Plugin": "arenas", "Workers": 2, "StartMethod": method, "MaxAttempts": 1}}) as self.d:
            for case in self.CASES:
                with self.subTest(case[0]):
                    self.check_death(*case)

    def test_by_start_method_forkserver(self):
        self.check_all("forkserver")

    def test_by_start_method_spawn(self):
        self.check_all("spawn")

    def test_by_start_method_fork(self):
        self.check_all("fork")

    def test_a_program_on_the_bus_is_repaired_too(self):
        """It opens the arena, says who it is in a place of it, and is killed while it holds the mutex."""
        with Drover({"w": {"Plugin": "arenas", "Workers": 1, "MaxAttempts": 1}}) as self.d:
            r = subprocess.Popen([f"{harness.BUILD}/tests/integration/arena-holder", "deaths", "mutex"],
                                 env=self.d.env(),
                                 stdout=subprocess.PIPE, text=True)
            self.assertEqual(r.stdout.readline(), "held\n")
            _, waiter = self.take("mutex", "mutex", 0)
            self.assertEqual(self.wait_waiters("mutex", 1)["owner-pid"], r.pid)
            self.assertIn(f"held by process {r.pid}", self.d.workers("w")[0]["WaitingFor"])
            r.kill()
            self.assertEqual(self.d.wait_job(waiter), "done")
            self.assertEqual(self.d.result(waiter)["result"], {"outcome": "EOWNERDEAD"})
            r.wait()
            r.stdout.close()

    def test_a_program_in_another_pid_namespace_is_repaired_too(self):
        """It calls itself 1; the daemon knows better."""
        with Drover({"w": {"Plugin": "arenas", "Workers": 1, "MaxAttempts": 1}}) as self.d:
            r = subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child",
                                  f"{harness.BUILD}/tests/integration/arena-holder",
                                  "deaths", "mutex"], env=self.d.env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                 text=True)
            self.addCleanup(lambda: (r.kill(), r.communicate()))
            told = r.stdout.readline()
            if told != "held\n" and "unshare failed" in (error := r.stderr.read()):
                self.skipTest(error.strip())
            self.assertEqual(told, "held\n")
            _, waiter = self.take("mutex", "mutex", 0)
            pid = self.wait_waiters("mutex", 1)["owner-pid"]
            with open(f"/proc/{pid}/status") as f:
                self.assertRegex(f.read(), rf"NSpid:.*\b{pid}\t1\n")
            self.assertIn(f"held by process {pid}", self.d.workers("w")[0]["WaitingFor"])
            os.kill(pid, 9)
            self.assertEqual(self.d.wait_job(waiter), "done")
            self.assertEqual(self.d.result(waiter)["result"], {"outcome": "EOWNERDEAD"})


if __name__ == "__main__":
    harness.main()
