"""An idle Drover does nothing: no CPU time, no context switch, no system call, in any thread of any of its
processes."""

import os
import re
import shutil
import subprocess
import tempfile
import unittest

from harness import IS_SANITIZED, Drover, Test, main, pause, wait_for

QUIET_AFTER, WINDOW = 3, 10


def thread_counters(pid):
    """tid -> (utime, stime, voluntary switches, involuntary switches) of every thread; CPU time in ns where told."""
    found = {}
    for tid in os.listdir(f"/proc/{pid}/task"):
        base = f"/proc/{pid}/task/{tid}"
        with open(f"{base}/stat", encoding="utf-8", errors="replace") as f:
            rest = f.read().rpartition(")")[2].split()
        with open(f"{base}/status", encoding="utf-8", errors="replace") as f:
            switches = re.findall(r"ctxt_switches:\s+(\d+)", f.read())
        try:
            with open(f"{base}/schedstat", encoding="utf-8") as f:
                ns = f.read().split()[0]
        except OSError:
            ns = ""
        found[tid] = (rest[11], rest[12], *switches, ns)
    return found


def counters(pids):
    return {(name, pid): thread_counters(pid) for pid, name in pids.items()}


class Idle(Test):
    @unittest.skipIf(IS_SANITIZED, "sanitizers have threads and work of their own")
    def test_no_wake_up_and_no_system_call(self):
        pools = {"one": {"Plugin": "primes", "Workers": 4},
                 "two": {"Plugin": "primes", "Workers": 4, "StartMethod": "spawn"}}
        with Drover(pools) as d:
            for pool in pools:
                d.wait_workers(pool, 4)
                self.assertEqual(d.run(pool, "is_prime", n=97), {"prime": True})
                r = d.ctl("map", pool, "is_prime", input="\n".join(str(n) for n in range(1000)))
                self.assertEqual(r.returncode, 0)
            wait_for(lambda: d.get("/org/drover1", "org.drover1.Manager", "NSessions") == 0, 10,
                     "the sessions are gone")
            pause(QUIET_AFTER)

            pids = {d.pid: "droverd", **d.pids()}
            self.assertGreaterEqual(len(pids), 1 + 1 + 1 + 8, pids)
            before = counters(pids)
            pause(WINDOW)
            self.assertEqual(counters(pids), before)

            if not shutil.which("strace"):
                self.skipTest("strace is not installed: system calls were not counted")
            # A template sits in the one call that the spawner answers, and a tracer could not let go of it there; its
            # counters stood still, and each call would have been a switch to the spawner, which is traced.
            templates = d.templates()
            self.assertEqual(len(templates), 1)
            traced = {pid: name for pid, name in pids.items() if pid not in templates}
            self.assertEqual(self.calls_of(traced, lambda: pause(WINDOW)), "")
            self.assertRegex(self.calls_of(traced, lambda: d.run("two", "is_prime", n=97)), r"\bio_uring_enter\b")

    def calls_of(self, pids, during):
        """strace's table of calls that they make meanwhile: empty when there was none."""
        with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as said:
            command = ["strace", "-f", "-c", "-o", out.name]
            for pid in pids:
                command += ["-p", str(pid)]
            with open(said.name, "w", encoding="utf-8") as err:
                tracer = subprocess.Popen(command, stderr=err)
            if not self.is_attached(tracer, pids):
                self.skipTest("strace may not attach here: system calls were not counted")
            during()
            tracer.send_signal(2)
            tracer.wait(20)
            return "".join(line for line in out.read().splitlines(keepends=True)
                           if re.search(r"^\s*\d", line) and " total" not in line)

    def is_attached(self, tracer, pids):
        def traced():
            if tracer.poll() is not None:
                return "ended"
            for pid in pids:
                with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as f:
                    if f"TracerPid:\t{tracer.pid}\n" not in f.read():
                        return ""
            return "all"
        return wait_for(traced, 10, "strace is attached to all") == "all"


if __name__ == "__main__":
    main()
