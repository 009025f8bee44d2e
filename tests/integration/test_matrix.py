"""Each call of libdrover while something is missing or happens, as a table: tests/library/matrix. DROVER_TEST_SECONDS makes it longer."""

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections import Counter

from harness import BUILD, PATIENCE, Drover, Test, kill, main, wait_for

MATRIX = f"{BUILD}/tests/library/matrix"
POOLS = {"fds": {"Plugin": "fds", "Workers": 1}, "emits": {"Plugin": "emits", "Workers": 1}}
SECONDS = float(os.environ.get("DROVER_TEST_SECONDS", "0"))
LEFT_OUT = """left out: two things missing at once; in the column memory the allocations of libsystemd's own code: it asserts on some, and drops
a message on others, so that its call ends after 25 s."""


@unittest.skipUnless(os.path.exists(MATRIX), "ThreadSanitizer wants malloc for itself")
class Matrix(Test):
    is_about_losses = True

    def tell(self, d, program):
        """What the program prints, but for the lines that ask for the end of droverd."""
        for line in program.stdout:
            if line == "kill\n":
                kill(d.pid)
                d.process.wait()
                d.start(wait=False)
                program.stdin.write("\n")
                program.stdin.flush()
            else:
                yield line

    def run_matrix(self, d, name):
        with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
            program = subprocess.Popen([MATRIX, name], env=d.env(), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
            guard = threading.Timer(200 * PATIENCE, program.kill)
            guard.start()
            try:
                lines = list(self.tell(d, program))
                code = program.wait()
            finally:
                guard.cancel()
                program.kill()
                program.communicate()
            errors.seek(0)
            self.assertEqual(code, 0, errors.read()[-1000:])
        return lines

    def column(self, name):
        """Jobs that were said to be refused did not run, and no other ran more often than was said."""
        with Drover(POOLS) as d:
            until = time.monotonic() + SECONDS
            while True:
                before, since = d.pool("fds")["Submitted"], len(d.log())
                lines = self.run_matrix(d, name)
                rows = [line for line in lines if " right" in line]
                self.assertGreater(len(rows), 15)
                sys.stderr.write("\n" + "".join(rows))
                if name != "killed":  # which counts anew
                    self.assertEqual(d.pool("fds")["Submitted"] - before, int(lines[-1]))
                self.check_told(d, since, [line.split() for line in lines], name != "killed")
                if time.monotonic() >= until:
                    break
        print(LEFT_OUT, file=sys.stderr)

    def check_told(self, d, since, told, is_exact):
        def ran():
            return Counter(re.findall(r"ran #(\d+)", d.log()[since:]))

        done = {words[1]: int(words[2]) for words in told if words[0] == "done"}
        refused = [words[1] for words in told if words[0] == "refused"]
        self.assertTrue(done)
        if is_exact:
            wait_for(lambda: sum(ran()[n] for n in done) >= sum(done.values()), 20, "all that is done is in the log")
        counts = ran()
        for number, attempts in done.items():  # what a killed droverd had not logged is not there
            self.assertLessEqual(counts[number], attempts, f"job {number}")
        self.assertEqual([number for number in refused if counts[number]], [])

    def test_signals(self):
        self.column("signals")

    def test_descriptors(self):
        self.column("descriptors")

    def test_memory(self):
        self.column("memory")

    def test_fork(self):
        self.column("fork")

    def test_droverd_is_killed(self):
        self.column("killed")


if __name__ == "__main__":
    main()
