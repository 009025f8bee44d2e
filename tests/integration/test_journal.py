"""What the journal is told, and how urgent it says that is."""

import os
import signal
import unittest

from harness import IS_SANITIZED, Drover, Test, main, wait_for

ERROR, WARNING = "<3>", "<4>"


class Journal(Test):
    def daemon(self, pools):
        d = Drover(pools)
        with open(d.log_path, "a", encoding="utf-8") as log:  # as journald tells that it reads
            where = os.fstat(log.fileno())
        d.extra_env["JOURNAL_STREAM"] = f"{where.st_dev}:{where.st_ino}"
        return d

    def assert_line(self, d, level, *words):
        def lines():
            return [line for line in d.log().splitlines() if all(word in line for word in words)]
        wait_for(lines, 10, f"a line with {words}")
        self.assertTrue(lines()[0].startswith(level), lines()[0])

    def test_deaths_are_warnings_and_jobs_that_are_given_up_are_errors(self):
        with self.daemon({"crash": {"Plugin": "crash", "Workers": 1},
                          "once": {"Plugin": "crash", "Workers": 1, "Guarantee": "at-most-once"},
                          "sleep": {"Plugin": "sleep", "Workers": 1, "HardTimeout": "100ms"}}) as d:
            id_, path = d.submit("crash", "segfault")
            self.assertEqual(d.wait_job(path), "poisoned")
            self.assert_line(d, WARNING, "pool crash: worker ", " died: signal 11 (SIGSEGV)")
            self.assert_line(d, ERROR,
                             f"pool crash: job {id_} is poisoned after 3 attempts: its worker died: signal 11 "
                             f"(SIGSEGV)")
            id_, path = d.submit("once", "segfault")
            self.assertEqual(d.wait_job(path), "lost")
            self.assert_line(d, ERROR, f"pool once: job {id_} is lost after 1 attempt: ")
            id_, path = d.submit("sleep", "sleep", ms=60000)
            self.assertEqual(d.wait_job(path), "timed-out")
            self.assert_line(d, ERROR, f"pool sleep: job {id_} is timed-out at attempt 1: its worker ")
            d.write_pool("none", Plugin="there-is-none")
            d.write_pool("sleep", Plugin="sleep", Workers="many")
            d.reload()
            self.assert_line(d, ERROR, "pool none: ", "no such file")
            self.assert_line(d, ERROR, "pool sleep keeps its old settings: ", "Workers=")

    @unittest.skipIf(IS_SANITIZED, "its runtime handles signals in its own way")
    def test_real_time_signals_have_names(self):
        with self.daemon({"sleep": {"Plugin": "sleep", "Workers": 1}}) as d:
            d.wait_workers("sleep", 1)
            os.kill(d.list_workers("sleep")[0][3], signal.SIGRTMIN + 2)
            self.assert_line(d, WARNING, " died: signal 36 (SIGRTMIN+2)")


if __name__ == "__main__":
    main()
