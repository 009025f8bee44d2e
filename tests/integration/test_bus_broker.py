"""The same through dbus-broker, where it can be started."""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest

os.environ["DROVER_TEST_BUS"] = "dbus-broker"

import harness  # noqa: E402
import test_bus  # noqa: E402
import test_floods  # noqa: E402


def why_not():
    if harness.IS_SANITIZED:
        return "bus and floods have shown this build all of its own code"
    if not shutil.which("dbus-broker-launch"):
        return "dbus-broker is not installed"
    with tempfile.TemporaryDirectory() as directory:
        try:
            harness.Bus(directory).stop()
        except (AssertionError, subprocess.TimeoutExpired) as error:
            return f"dbus-broker cannot be started here (it needs root and a mount namespace): {error}"
    return None


class Broker:
    @classmethod
    def setUpClass(cls):
        why = why_not()
        if why:
            raise unittest.SkipTest(why)
        super().setUpClass()


class BusThroughBroker(Broker, test_bus.Bus):
    pass


class FloodsThroughBroker(Broker, test_floods.Floods):
    pass


def load_tests(loader, tests, pattern):
    return unittest.TestSuite(loader.loadTestsFromTestCase(c) for c in (BusThroughBroker, FloodsThroughBroker))


if __name__ == "__main__":
    sys.exit(harness.main())
