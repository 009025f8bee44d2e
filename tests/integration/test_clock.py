"""Which clock counts: not-before follows the wall clock, deadlines in channels are droverd's CLOCK_MONOTONIC."""

import os
import shutil
import subprocess
import time
import unittest

import harness
from harness import BUILD, DROVERCTL, Drover, Test, main

HOUR = 3600


def in_time_namespace(*words):
    return ["unshare", "--time", "--monotonic", str(HOUR), "--boottime", str(HOUR), "--fork", "--", *words]


def has_time_namespaces():
    return shutil.which("unshare") and subprocess.run(in_time_namespace("true"), stderr=subprocess.DEVNULL,
                                                      check=False).returncode == 0


@unittest.skipIf(harness.IS_SANITIZED, "a preloaded library comes before the sanitizer's")
class WallClock(Test):
    def start(self):
        d = Drover({"p": {"Plugin": "echo", "Workers": 1, "TimeoutStopSec": "1s"}})
        self.path = f"{d.dir}/clock"
        d.extra_env = {"LD_PRELOAD": f"{BUILD}/tests/integration/wall-clock.so", "DROVER_TEST_CLOCK": self.path}
        self.set(0)
        return d

    def set(self, seconds):
        with open(f"{self.path}.new", "w", encoding="ascii") as f:
            f.write(str(seconds))
        os.rename(f"{self.path}.new", self.path)

    def later(self, d, seconds):
        return d.submit("p", "echo", {"not-before": int((time.time() + seconds) * 1000000)}, payload=b"x")[1]

    def test_a_clock_that_is_put_forward_takes_the_moment_along(self):
        with self.start() as d:
            soon, later = self.later(d, HOUR - 60), self.later(d, HOUR + 60)
            self.set(HOUR)
            self.assertEqual(d.wait_job(soon), "done")
            self.assertEqual(d.job(later)["State"], "queued")


@unittest.skipUnless(has_time_namespaces(), "no time namespaces here")
class TimeNamespace(Test):
    def test_another_one_is_refused_by_name_in_channels_and_does_not_matter_on_the_bus(self):
        with Drover({"p": {"Plugin": "primes", "Workers": 1}}) as d:
            def ctl(*words, **options):
                return subprocess.run(in_time_namespace(DROVERCTL, "--user", *words), env=d.env(), capture_output=True,
                                      text=True, check=False,
                                      timeout=60 * harness.PATIENCE, **options)
            r = ctl("map", "p", "is_prime", input="7\n8\n")
            self.assertNotEqual(r.returncode, 0, r.stdout)
            self.assertRegex(r.stderr,
                             r"different time namespaces \(its CLOCK_MONOTONIC is 3600 s ahead of droverd's\)")
            r = ctl("call", "p", "is_prime", "n=7", "--queue-timeout=20s")
            self.assertEqual((r.returncode, r.stderr), (0, ""))


if __name__ == "__main__":
    main()
