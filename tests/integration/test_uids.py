"""More uids at once on one pool than its workers can wait on: all are served, in turn, and nobody is woken for
nothing."""

import os
import signal
import statistics
import subprocess
import time
import unittest

from harness import BUILD, IS_SANITIZED, PATIENCE, Drover, Test, kill, main, pause, wait_for
from test_idle import QUIET_AFTER, counters

CLIENT = f"{BUILD}/tests/integration/uids-client"
N_UIDS = 24  # 15 besides root have a place at a time
WORKERS = 3
FIRST_UID = 23000


class Client:
    """A process of another uid with a session on pool p."""

    def __init__(self, d, uid):
        self.process = subprocess.Popen([CLIENT, "p", str(uid)], env=d.env(), text=True, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)
        self.uid = uid

    def await_ready(self):
        assert self.process.stdout.readline() == "ready\n", f"uid {self.uid} got no session"

    def tell(self, n, ms, one_by_one=False):
        self.n = n
        self.process.stdin.write(f"{n} {ms} {int(one_by_one)}\n")
        self.process.stdin.flush()

    def heard(self):
        """When it had half of its verdicts and when all, in s. All must be DONE: exactly one for each job."""
        words = self.process.stdout.readline().split()
        assert len(words) == 4, f"uid {self.uid} ended without its verdicts"
        done, other, half, last = map(int, words)
        assert (done, other) == (self.n, 0), f"uid {self.uid}: {done} of {self.n} are done, {other} are not"
        return half / 1e9, last / 1e9

    def run(self, n, ms, one_by_one=False):
        """How long it took."""
        started = time.monotonic()
        self.tell(n, ms, one_by_one)
        return self.heard()[1] - started

    def end(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(20)


@unittest.skipUnless(os.geteuid() == 0, "needs root, to be many users")
class Uids(Test):
    @classmethod
    def setUpClass(cls):
        cls.drover = Drover({"p": {"Plugin": "sleep", "Workers": WORKERS, "StartMethod": "fork", "RestartSec": "10ms",
                                   "MaxAttempts": 9}},
                            bus_env={"LD_PRELOAD": f"{BUILD}/tests/integration/any-user.so"})
        cls.d = cls.drover.__enter__()
        cls.addClassCleanup(cls.drover.__exit__, None, None, None)
        cls.clients = []
        cls.addClassCleanup(lambda: [client.end() for client in cls.clients])
        os.chmod(cls.d.dir, 0o711)  # to the bus
        cls.d.wait_workers("p", WORKERS)
        for i in range(N_UIDS):
            cls.clients.append(Client(cls.d, FIRST_UID + i))
        for client in cls.clients:
            client.await_ready()

    def test_one_after_the_other(self):
        """In a quiet pool, a uid that workers do not wait on is heard promptly, each time: nothing else would wake
        anybody."""
        took = [client.run(1, 0) for _ in range(3) for client in self.clients]
        took += [client.run(1, 0) for client in reversed(self.clients)]
        self.assertLess(statistics.median(took), 0.1 * PATIENCE)
        self.assertLess(max(took), 10 * PATIENCE)

    def test_all_at_once_and_in_turn(self):
        """Each has the same to do and begins at the same time, so all are half way and at the end together."""
        n, ms = 100, 2
        started = time.monotonic()
        for client in self.clients:
            client.tell(n, ms)
        heard = [client.heard() for client in self.clients]
        for what, times in (("half", [half - started for half, _ in heard]),
                            ("the end", [last - started for _, last in heard])):
            self.assertGreater(min(times), 0.6 * max(times), f"{what}: {sorted(round(t, 3) for t in times)}")

    def test_all_at_once_one_by_one(self):
        """Everybody comes and goes all the time, and so do their places."""
        for client in self.clients:
            client.tell(200, 0, True)
        for client in self.clients:
            client.heard()
        for client in self.clients:
            self.assertLess(client.run(1, 0), 10 * PATIENCE)

    def test_who_works_has_a_place(self):
        """After the first job the broker is out of the way: it is not woken for each of the others."""
        def wakes():
            with open(f"/proc/{self.d.pid}/status", encoding="utf-8") as f:
                return sum(int(line.split()[1]) for line in f if line.startswith("voluntary_ctxt_switches"))
        for client in self.clients:
            client.run(1, 0)
            before = wakes()
            client.run(500, 0, True)
            self.assertLess(wakes() - before, 250, f"uid {client.uid}")

    def test_workers_that_die(self):
        """Also the jobs of those that have no place are given back, and somebody is woken for them."""
        for client in self.clients:
            client.tell(30, 10)
        for _ in range(4):
            rows = wait_for(lambda: [w for w in self.d.workers("p") if w["State"] == "running"], 20,
                            "a worker runs a job")
            kill(rows[0]["Pid"], signal.SIGKILL)
        for client in self.clients:
            client.heard()

    def test_more_come_while_others_go(self):
        for i in range(6):
            self.clients[i].end()
            self.clients[i] = Client(self.d, FIRST_UID + 1000 + i)
            self.clients[i].await_ready()
            self.assertLess(self.clients[i].run(1, 0), 10 * PATIENCE)
        self.assertEqual(self.d.get("/org/drover1", "org.drover1.Manager", "NSessions"), N_UIDS)

    @unittest.skipIf(IS_SANITIZED, "sanitizers have threads and work of their own")
    def test_no_wake_up_when_idle(self):
        for client in self.clients:
            client.run(1, 0)
        pause(QUIET_AFTER)
        pids = {self.d.pid: "droverd", **self.d.pids()}
        before = counters(pids)
        pause(3)
        self.assertEqual(counters(pids), before)


if __name__ == "__main__":
    main()
