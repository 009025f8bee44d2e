"""Who gets a second try in ./check: what was only late, never what was lost, doubled or left over.

Argument: the source tree."""

import json
import os
import subprocess
import sys
import tempfile
import unittest

SOURCE = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 else os.getcwd()

# One run of each kind of failure, as a test of harness.py makes them.
FAILURES = """
import subprocess, time
from harness import Broken, Drover, Late, Test, assert_in_time, assert_log_is_clean, main, wait_for, wait_surely

class Losses(Test):
    is_about_losses = True

    def test_is_late(self):
        wait_for(lambda: False, 0, "a moment")

    def test_takes_long(self):
        assert_in_time(2, 1, "seconds")

    def test_runs_out_of_time(self):
        subprocess.run(["sleep", "60"], timeout=0.01)

    def test_comes_late(self):
        end = time.monotonic() + 0.05
        wait_surely(lambda: time.monotonic() > end, 0, "a moment")

    def test_never_comes(self):
        wait_surely(lambda: False, 0, "never")

    def test_loses_a_job(self):
        self.assertEqual(1, 2, "jobs")

    def test_loses_a_job_in_a_part(self):
        with self.subTest("part"):
            self.assertEqual(1, 2, "jobs")

    def test_crashes(self):
        {}["no such key"]

class Others(Test):
    def test_fails(self):
        self.assertEqual(1, 2)

    def test_leaks(self):
        raise Broken("files are left")

    def test_dies(self):
        assert_log_is_clean("Assertion `false' failed")

main()
"""

# What a torture run's record says at once.
RECORD = """
import time
from parts import Record
record = Record(time.monotonic_ns)
record.late("3 ms")
record.rescued.append(("bell", 1, 2, "client 1", {"none"}))
if %d:
    record.judge_rescued()
    record.fail("a job has no verdict")
for when, text in record.failures:
    print(text)
"""


def run_python(text, *names):
    """What it said on its standard error."""
    path = os.pathsep.join(f"{SOURCE}/tests/{folder}" for folder in ("integration", "torture"))
    with tempfile.TemporaryDirectory() as directory:
        script = f"{directory}/failures.py"
        with open(script, "w", encoding="utf-8") as f:
            f.write(text)
        r = subprocess.run([sys.executable, script, *names],
                           env=dict(os.environ, PYTHONPATH=path, PYTHONDONTWRITEBYTECODE="1",
                                    DROVER_TEST_PATIENCE="0.01"),
                           capture_output=True, text=True, check=False)
    return r.stderr


def second_try(*tests):
    """(names, what is said) for a log with these tests, each a dictionary of what differs from a failed integration
    test."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
        for test in tests:
            row = {"name": "drover:torture / drover / torture", "result": "FAIL", "stdout": "", "stderr": "", **test}
            f.write(json.dumps(row) + "\n")
        f.flush()
        r = subprocess.run([f"{SOURCE}/tests/second-try", f.name], capture_output=True, text=True, check=True)
    return r.stdout.split(), r.stderr


class Log(unittest.TestCase):
    def test_two_that_were_late(self):
        self.assertEqual(second_try({"name": "drover:unit / words", "result": "OK"}, {},
                                    {"name": "drover:integration / kills", "result": "TIMEOUT"}),
                         (["torture", "kills"], ""))

    def test_three(self):
        self.assertEqual(second_try({}, {}, {}), ([], "== no second try: 3 tests failed\n"))

    def test_a_unit_test(self):
        self.assertEqual(second_try({"name": "drover:unit / words"})[0], [])

    def test_a_sanitizer(self):
        self.assertEqual(second_try({"stderr": "x.c:3: runtime error: shift"})[0], [])
        self.assertEqual(second_try({"stdout": "==1==ERROR: AddressSanitizer: heap-use-after-free"})[0], [])

    def test_a_broken_promise(self):
        for result in ("FAIL", "TIMEOUT"):
            for stream in ("stdout", "stderr"):
                names, said = second_try({}, {"result": result,
                                              stream: "so far\nBROKEN PROMISE: a job has no verdict\nmore"})
                self.assertEqual(names, [])
                self.assertIn("a job has no verdict", said)

    def test_one_that_passed_does_not_count(self):
        self.assertEqual(second_try({"result": "OK", "stderr": "BROKEN PROMISE: in a test of this line"}, {})[0],
                         ["torture"])


class Marks(unittest.TestCase):
    def broken(self, name):
        said = run_python(FAILURES, name)
        self.assertRegex(said, r"(?m)^FAILED \(")
        return [line for line in said.splitlines() if line.startswith("BROKEN PROMISE: ")]

    def test_late_is_not_broken(self):
        for name in ("Losses.test_is_late", "Losses.test_takes_long", "Losses.test_runs_out_of_time",
                     "Losses.test_comes_late",
                     "Others.test_fails"):
            self.assertEqual(self.broken(name), [], name)

    def test_everything_else_is(self):
        for name in ("Losses.test_loses_a_job", "Losses.test_loses_a_job_in_a_part", "Losses.test_crashes",
                     "Losses.test_never_comes",
                     "Others.test_leaks", "Others.test_dies"):
            self.assertEqual(len(self.broken(name)), 1, name)

    def test_of_a_torture_run(self):
        self.assertEqual(run_python(RECORD % 0), "")
        said = run_python(RECORD % 1)
        self.assertEqual(said.count("BROKEN PROMISE: "), 2, said)
        self.assertIn("a wake-up was lost", said)
        self.assertIn("a job has no verdict", said)


if __name__ == "__main__":
    unittest.main(verbosity=2)
