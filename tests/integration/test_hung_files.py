"""Files whose reads hang (FUSE here, a dead NFS server elsewhere): they stop nobody but who wants them, and nobody is told
what has not happened."""

import os
import time
import unittest

import fuse
from harness import BUILD, Drover, Test, assert_in_time, descendants, is_alive, kill, main, stat_of, wait_for, wait_surely

PATIENCE_S = 10  # of drover-spawn, for one copy


@unittest.skipUnless(os.geteuid() == 0 and fuse.is_there(), "needs root and FUSE")
class HungPlugin(Test):
    def drover(self):
        d = Drover({"a": {"Plugin": "sleep", "Workers": 2}})
        d.__enter__()
        self.addCleanup(d.__exit__, None, None, None)
        return d

    def hang(self, d, name="hung"):
        f = fuse.HungFile(f"{d.plugin_dir}/{name}.so", f"{BUILD}/plugins/primes/primes.so")
        f.__enter__()
        self.addCleanup(f.__exit__)
        return f

    def check_goes_on(self, d):
        """Workers of others are killed, reaped and started, by limits and by hand."""
        for method in ("forkserver", "spawn", "fork"):
            d.write_pool("c", Plugin="sleep", Workers=1, StartMethod=method)
            d.reload()
            d.wait_state("c", "running", 5)
            worker = d.wait_workers("c", 1, seconds=5)[0]
            job, path = d.submit("c", "sleep", {"hard-timeout": ("t", 100000)}, ms=60000)
            self.assertEqual(d.wait_job(path, 5), "timed-out")
            wait_for(lambda: not is_alive(worker[3]), 5, "its worker is dead")
            worker = d.wait_workers("c", 1, ("idle",), 5)[0]
            kill(worker[3])
            wait_for(lambda: [w for w in d.wait_workers("c", 1, ("idle",), 5) if w[0] != worker[0]], 5, "it is replaced")
            self.assertEqual(d.run("c", "sleep", ms=1), {"ms": 1})
            d.remove_pool_file("c")
            d.reload()

    def copiers(self):
        return [pid for pid, name in descendants().items() if name == "drover-copy"]

    def test_costs_its_own_pools_only(self):
        d = self.drover()
        hung = self.hang(d)
        d.write_pool("b", Plugin="hung", Workers=1, RestartSec="10ms", RestartMaxDelaySec="1s")
        begun = time.monotonic()
        d.reload()
        self.assertTrue(hung.is_read())
        self.check_goes_on(d)
        problem = wait_for(lambda: d.pool("b")["Problem"], PATIENCE_S + 5, "its pool says why")
        self.assertEqual(problem, f"plugin {hung.path}: it was not read within {PATIENCE_S} s: the disk or server that it lies on "
                                  "does not answer: mend that, or copy the file to a disk of this machine")
        self.assertGreater(time.monotonic() - begun, PATIENCE_S - 1)
        # Who reads it cannot even be killed: one such process, whoever else asks for the file.
        wait_for(lambda: "hangs in the kernel, since" in d.pool("b")["Problem"], 5, "the next try is told at once")
        d.write_pool("b2", Plugin="hung.so", Workers=1)
        d.reload()
        wait_for(lambda: "hangs in the kernel, since" in d.pool("b2")["Problem"], 2, "and so is another pool")
        self.assertEqual(len(self.copiers()), 1)
        self.check_goes_on(d)
        self.assertNotIn("escaped", d.log())
        hung.let_go()
        wait_for(lambda: not self.copiers(), 5, "the process that hung is gone")
        d.wait_state("b", "running", 5)
        self.assertEqual(d.run("b", "is_prime", n=97), {"prime": True})
        d.pool_call("b2", "Start")
        d.wait_state("b2", "running", 5)
        self.assertNotIn("escaped", d.log())
        self.assertEqual(d.stop(), 0)

    def stop_in_time(self, d):
        begun = time.monotonic()
        self.assertEqual(d.stop(), 0)
        assert_in_time(time.monotonic() - begun, 2, "the service ends as if nothing hung")
        self.assertEqual([name for name in descendants().values() if name.startswith("dr") and name != "drover-copy"], [])

    def test_does_not_hold_up_the_end(self):
        d = self.drover()
        hung = self.hang(d)
        d.write_pool("b", Plugin="hung", Workers=1)
        d.reload()
        self.assertTrue(hung.is_read())
        self.stop_in_time(d)
        self.assertEqual(len(self.copiers()), 1)  # the kernel has it
        hung.let_go()
        wait_surely(lambda: not self.copiers(), 2, "it is gone, too")

    def test_that_its_pool_gives_up(self):
        """RETIRE while it is being read: the pool ends, another file is taken."""
        d = self.drover()
        hung = self.hang(d)
        d.write_pool("b", Plugin="hung", Workers=1)
        d.reload()
        self.assertTrue(hung.is_read())
        d.write_pool("b", Plugin="primes", Workers=1)
        d.reload()
        d.wait_state("b", "running", 5)
        d.pool_call("b", "Stop")
        d.wait_state("b", "stopped", 5)
        hung.let_go()
        wait_for(lambda: not self.copiers(), 5, "it is gone")
        self.stop_in_time(d)

    def test_many_at_once(self):
        """More than the copiers that there may be: the rest is told so, and what does not hang is loaded before and after."""
        d = self.drover()
        files = [self.hang(d, f"hung{i}") for i in range(17)]
        for i in range(17):
            d.write_pool(f"b{i}", Plugin=f"hung{i}", Workers=1)
        d.reload()
        wait_for(lambda: len(self.copiers()) == 16, 5, "sixteen are being read")
        d.write_pool("later", Plugin="primes", Workers=1)
        d.reload()
        wait_for(lambda: d.pool("later")["Problem"], PATIENCE_S + 5, "the others are told")
        self.assertIn("so many other files hang that it is not tried", d.pool("later")["Problem"])
        for f in files:
            f.let_go()
        wait_for(lambda: not self.copiers(), 5, "all are gone")
        d.pool_call("later", "Start")
        d.wait_state("later", "running", 5)
        self.stop_in_time(d)


if __name__ == "__main__":
    main()
