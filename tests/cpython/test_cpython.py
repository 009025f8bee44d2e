"""CPython's own tests of locks, queues and multiprocessing's objects (Debian's package libpython3.N-testsuite, as it is) pass over
Drover's, but for those that tests/cpython/differences.py lists by name, each with its reason."""

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "integration"))

from harness import BUILD, PATIENCE, SOURCE, Test, descendants, kill, main, reap_orphans  # noqa: E402

GROUPS = ("locks", "queues", "threads", "fork", "spawn")
SECONDS = 240  # all of them; a tenth of that where there is nothing else to do
VERSION = "{}.{}".format(*sys.version_info)


def has_tests():
    """Debian's Python comes without most of its tests."""
    try:
        return importlib.util.find_spec("test.lock_tests") is not None
    except ModuleNotFoundError:
        return False


class Adapter(Test):
    def test_calls_are_those_of_the_header(self):
        os.environ["DROVER_BUILD"] = BUILD
        sys.path.insert(0, HERE)
        from binding import SIGNATURES  # pylint: disable=import-outside-toplevel

        with open(f"{SOURCE}/ipc/sync/include/drover/sync.h", encoding="utf-8") as f:
            header = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.DOTALL)
        declared = {name: re.sub(r"\([^()]*\)", "", parameters).count(",") + 1
                    for name, parameters in re.findall(r"\bdrover_(\w+)\(((?:[^()]|\([^()]*\))*)\);", header)}
        for name, signature in SIGNATURES.items():
            self.assertEqual(len(signature.partition(":")[0]), declared[name], name)


@unittest.skipUnless(has_tests(), f"the package libpython{VERSION}-testsuite is not installed")
class Cpython(Test):
    """All groups at once: they wait more than they compute."""

    @classmethod
    def setUpClass(cls):
        environment = dict(os.environ, DROVER_BUILD=BUILD, PYTHONPATH=HERE)
        cls.ends, cls.running, cls.said = time.monotonic() + SECONDS * PATIENCE, {}, {}
        for group in GROUPS:
            cls.said[group] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
            cls.running[group] = subprocess.Popen([sys.executable, os.path.join(HERE, "run.py"), group], env=environment,
                                                  stdin=subprocess.DEVNULL, stdout=cls.said[group], stderr=subprocess.STDOUT)

    @classmethod
    def tearDownClass(cls):
        for pid in descendants():
            kill(pid)
        for group, process in cls.running.items():
            process.wait()
            cls.said[group].close()
        reap_orphans()

    def judge(self, group, at_least):
        process = self.running[group]
        try:
            process.wait(max(0, self.ends - time.monotonic()))
        finally:
            self.said[group].seek(0)
            said = self.said[group].read()
            if process.returncode != 0:
                sys.stderr.write(said)
        self.assertEqual(process.returncode, 0, f"{group}: see above")
        counts = re.search(rf"^{group}: .*", said, re.MULTILINE).group()
        print(counts, file=sys.stderr)
        self.assertGreaterEqual(int(re.search(r"(\d+) passed", counts).group(1)), at_least)

    def test_locks(self):
        self.judge("locks", 90)

    def test_queues(self):
        self.judge("queues", 35)

    def test_threads_as_processes(self):
        self.judge("threads", 30)

    def test_processes_that_fork(self):
        self.judge("fork", 40)

    def test_processes_that_spawn(self):
        self.judge("spawn", 35)


if __name__ == "__main__":
    main()
