"""Each call of libdrover while something is missing, as a table: tests/library/matrix. DROVER_TEST_SECONDS makes it longer."""

import os
import subprocess
import sys
import time
import unittest

from harness import BUILD, IS_SANITIZED, PATIENCE, Drover, Test, main

MATRIX = f"{BUILD}/tests/library/matrix"
POOLS = {"fds": {"Plugin": "fds", "Workers": 1}, "emits": {"Plugin": "emits", "Workers": 1}}
SECONDS = float(os.environ.get("DROVER_TEST_SECONDS", "0"))
LEFT_OUT = """left out: drover_pool_drain, _cancel and drover_submit's `after`; two things missing at once; droverd killed in the middle of a call
(test_library has it for waits); in the column memory the allocations of libsystemd's own code: it asserts on some, and drops a message on others,
so that its call ends after 25 s."""


@unittest.skipIf(IS_SANITIZED, "the program has a malloc of its own")
class Matrix(Test):
    is_about_losses = True

    def column(self, name):
        """Jobs that were said to be refused did not run: the pool has as many as the program was told of."""
        with Drover(POOLS) as d:
            until = time.monotonic() + SECONDS
            while True:
                before = d.pool("fds")["Submitted"]
                r = subprocess.run([MATRIX, name], env=d.env(), capture_output=True, text=True, timeout=120 * PATIENCE, check=False)
                print(r.stdout, file=sys.stderr)
                self.assertEqual(r.returncode, 0, r.stderr[-1000:])
                self.assertEqual(d.pool("fds")["Submitted"] - before, int(r.stdout.splitlines()[-1]))
                if time.monotonic() >= until:
                    break
        print(LEFT_OUT, file=sys.stderr)

    def test_signals(self):
        self.column("signals")

    def test_descriptors(self):
        self.column("descriptors")

    def test_memory(self):
        self.column("memory")

    def test_fork(self):
        self.column("fork")


if __name__ == "__main__":
    main()
