"""What code in a worker can do to other jobs of its pool, and what not: each sentence of PROTOCOL.md's section 7 about
it."""

import os
import select
import unittest

from harness import MANAGER, PATIENCE, Drover, Test, main, wait_for
from sdbus import Connection
from test_peers import Offer

POOL = {"Plugin": "compromised", "Workers": 1, "Slots": 8, "RestartSec": "50ms"}
PARTS = ("channel", "jobs", "results", "verdicts")


def memories(pid):
    """Names of the memory files that a process has mapped, and of those it has open."""
    with open(f"/proc/{pid}/maps", encoding="utf-8") as f:
        mapped = {line.split("/memfd:")[1].split()[0] for line in f if "/memfd:" in line}
    links = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    return mapped, {link.partition("/memfd:")[2].split()[0] for link in links if link.startswith("/memfd:")}


class Compromised(Test):
    def setUp(self):
        self.drover = Drover({"p": POOL})
        self.d = self.drover.__enter__()

    def tearDown(self):
        self.drover.__exit__(None, None, None)

    def beside(self, job, **args):
        """The attack, and an honest job that is queued meanwhile: (what the attack got, path of the honest one)."""
        self.d.call(self.d.pool_path("p"), "org.drover1.Pool", "Pause")
        attack = self.d.submit("p", job, **args)[1]
        honest = self.d.submit("p", "echo", text="honest")[1]
        self.d.call(self.d.pool_path("p"), "org.drover1.Pool", "Resume")
        state = self.d.wait_job(attack)
        return self.d.result(attack)["result"]["n"] if state == "done" else state, honest

    def assert_honest(self, path):
        self.assertEqual(self.d.wait_job(path), "done")
        self.assertEqual(self.d.result(path)["result"], {"text": "honest"})

    def test_it_cannot_write_what_others_asked_for(self):
        """mprotect, a second mapping by mremap: the job area of a queued job stays what its client wrote."""
        n, honest = self.beside("overwrite", word="honest", by="forged")
        self.assert_honest(honest)
        self.assertEqual(n, 0)

    def test_no_verdict_lines_lie_behind_the_results(self):
        """The mapping grows (mremap), and there is nothing."""
        n, honest = self.beside("grow")
        self.assert_honest(honest)
        self.assertEqual(n, 0)

    def test_it_can_end_a_job_but_not_in_the_brokers_name(self):
        n, honest = self.beside("lose")
        self.assertEqual(n, 1)
        self.assertEqual(self.d.wait_job(honest), "failed")
        self.assertIn("a verdict that only droverd can give", self.d.result(honest)["error"])
        self.assertEqual(self.d.run("p", "echo", text="next"), {"text": "next"})

    def resize(self, n):
        self.d.write_pool("p", **{**POOL, "Workers": n})
        self.d.reload()
        wait_for(lambda: [row[4] for row in self.d.list_workers("p")] == ["idle"] * n, 10, f"there are {n}")

    def running(self, job):
        """The pid that runs it."""
        wait_for(lambda: self.d.job(job)["State"] == "running", 10, "it runs")
        return self.d.job(job)["WorkerPid"]

    def test_it_has_nothing_of_another_pool_nor_any_verdict(self):
        """What it has mapped: what its own pool shares, of a channel three memories of four, and no descriptor of
        one."""
        if os.geteuid() != 0:
            raise unittest.SkipTest("only root looks into a worker")
        self.d.write_pool("q", **POOL)
        self.d.reload()
        self.d.wait_state("q", "running")
        connections = [Connection(self.d.bus.address) for _ in "pq"]
        offers = [Offer(c.call(*MANAGER, "OpenChannel", "sa{sv}", pool, 0)) for c,
                  pool in zip(connections, (b"p", b"q"))]
        numbers = {}
        for pool, offer in zip("pq", offers):
            numbers[pool] = os.readlink(f"/proc/self/fd/{offer['channel']}").partition("channel:")[2].split()[0]
            self.assertEqual(self.d.run(pool, "echo", text="here"), {"text": "here"}, "it has read its orders")
        for pool, other in ("pq", "qp"):
            mapped, is_open = memories(self.d.list_workers(pool)[0][3])
            self.assertEqual({name for name in mapped if name.endswith(f":{numbers[pool]}")},
                             {f"drover-{part}:{numbers[pool]}" for part in PARTS[:3]})
            self.assertFalse([name for name in mapped if name.endswith(f":{numbers[other]}") or "verdicts" in name],
                             mapped)
            self.assertFalse([name for name in is_open if name.partition(":")[0][7:] in PARTS], is_open)
        for held in (*offers, *connections):
            held.close()

    def test_it_shares_arenas_with_workers_of_other_pools(self):
        arenas = {"Plugin": "arenas", "Workers": 1}
        for pool in "ab":
            self.d.write_pool(pool, **arenas)
        self.d.reload()
        for pool in "ab":
            self.d.wait_state(pool, "running")
        self.assertEqual(self.d.run("a", "put", arena="shared", name="q"), {"outcome": "0"})
        self.assertEqual(self.d.run("b", "take", arena="shared", kind="queue", name="q", hold_ms=0), {"outcome": "0"})

    def test_it_can_read_what_others_asked_for(self):
        self.assertEqual(self.beside("peek", word="honest")[0], 1)

    def test_it_can_make_a_job_run_twice(self):
        self.resize(2)
        job = self.d.submit("p", "wait", ms=int(500 * PATIENCE))[1]
        first = self.running(job)
        self.assertEqual(self.d.run("p", "again"), {"n": 1})
        self.assertEqual(self.d.wait_job(job), "done")
        self.assertNotEqual(self.d.result(job)["result"]["pid"], first, "whoever ran it first was not asked")

    def test_it_can_have_another_killed_for_a_job_that_it_does_not_run(self):
        """In its own time, though: the job's limits stand where no worker writes."""
        self.resize(2)
        busy = self.d.submit("p", "wait", ms=int(2000 * PATIENCE))[1]
        victim = self.running(busy)
        self.d.call(self.d.pool_path("p"), "org.drover1.Pool", "Pause")
        attack = self.d.submit("p", "frame")[1]
        never = self.d.submit("p", "echo", options={"hard-timeout": ("t", 300000)}, text="never run")[1]
        self.d.call(self.d.pool_path("p"), "org.drover1.Pool", "Resume")
        self.assertEqual(self.d.wait_job(attack), "done")
        self.assertEqual(self.d.wait_job(never), "timed-out")
        wait_for(lambda: victim in [death["pid"] for death in self.d.deaths("p")], 10, "it is dead")
        self.assertEqual(self.d.wait_job(busy), "done")
        self.assertEqual(self.d.result(busy)["attempts"], 2)

    def test_it_can_end_sessions_of_its_pool(self):
        with Connection(self.d.bus.address) as c:
            offer = Offer(c.call(*MANAGER, "OpenChannel", "sa{sv}", b"p", 0))
            self.assertEqual(self.d.run("p", "echo", text="here"), {"text": "here"}, "it has the channel")
            self.d.run("p", "foul")
            self.assertEqual(select.select([offer["session"]], [], [], 10)[0], [offer["session"]])
            self.assertEqual(os.read(offer["session"], 1), b"")
            offer.close()
            self.assertEqual(self.d.run("p", "echo", text="next"), {"text": "next"})

    def test_it_can_answer_for_another(self):
        n, honest = self.beside("answer")
        self.assertEqual(n, 1)
        self.assertEqual(self.d.wait_job(honest), "done")
        self.assertEqual(self.d.result(honest)["result"], {"text": "forged"})

    def test_it_can_drag_jobs_with_it_and_the_verdict_says_so(self):
        """Poisoned, truly: by a death that is told, or because droverd found that it cannot run two at once."""
        state, honest = self.beside("drag")
        self.assertEqual(state, "poisoned")
        self.assertEqual(self.d.wait_job(honest), "poisoned")
        result = self.d.result(honest)
        deaths = self.d.deaths("p")
        if "wrote over its slot" not in result["error"]:  # that depends on what the broker has seen before the death
            self.assertIn(result["worker-pid"], [death["pid"] for death in deaths])
        self.assertIn("signal", [death["reason"] for death in deaths])
        wait_for(lambda: self.d.run("p", "echo", text="next") == {"text": "next"}, 10, "the pool goes on")


if __name__ == "__main__":
    main()
