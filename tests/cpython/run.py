"""run.py GROUP [PART OF A NAME]: CPython's tests of one kind over Drover's objects, and which of them differ. Exit status 0: those
that differences.py lists."""

import faulthandler
import fnmatch
import gc
import importlib
import multiprocessing
import sys
import time
import unittest

import arenas
from differences import DIFFERENT, NOT_OURS

# Group: the module, which of its tests, how processes start, and which tests are left to the other group of the same ones: each
# of them starts a whole Python four times.
GROUPS = {
    "locks": ("locks", "*", None, ()),
    "queues": ("queues", "*", None, ()),
    "threads": ("processes", "Dummy*", "fork", ()),
    "fork": ("processes", "Process*", "fork", ()),
    "spawn": ("processes", "Process*", "spawn", ("ProcessBarrierTests.test_[!asw]*", "ProcessBarrierTests.test_ab*", "*.test_notify_all")),
}
SECONDS = 30  # a test, at most


class Result(unittest.TestResult):
    """name: "passed", "failed" or "skipped", and the words of a failure."""

    def __init__(self):
        super().__init__()
        self.outcomes, self.words, self.name = {}, {}, None

    def startTest(self, test):
        super().startTest(test)
        self.name = ".".join(test.id().rsplit(".", 2)[1:])
        self.outcomes[self.name] = "passed"
        self.started = time.monotonic()
        print(self.name, end=" ", flush=True)
        arenas.new_arena()
        faulthandler.dump_traceback_later(SECONDS, exit=True)

    def stopTest(self, test):
        gc.collect()  # what is left of it uses its arena, if anything
        faulthandler.cancel_dump_traceback_later()
        print(self.outcomes[self.name], f"{time.monotonic() - self.started:.1f} s", flush=True)
        super().stopTest(test)

    def fail(self, test, error):
        self.outcomes[self.name] = "failed"
        self.words[self.name] = self._exc_info_to_string(error, test)

    def addError(self, test, err):
        self.fail(test, err)

    def addFailure(self, test, err):
        self.fail(test, err)

    def addSubTest(self, test, subtest, err):
        if err:
            self.fail(test, err)

    def addSkip(self, test, reason):
        self.outcomes[self.name] = "skipped"
        self.words[self.name] = reason


def main():
    group, wanted = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""
    module, pattern, method, left = GROUPS[group]
    if method:
        multiprocessing.set_start_method(method)
    module = importlib.import_module(module)
    suite = unittest.TestSuite()
    for name, kind in vars(module).items():
        if isinstance(kind, type) and issubclass(kind, unittest.TestCase) and kind.__module__ == module.__name__ and fnmatch.fnmatchcase(name, pattern):
            for test in unittest.defaultTestLoader.loadTestsFromTestCase(kind):
                title = f"{name}.{test._testMethodName}"
                if wanted in title and not any(fnmatch.fnmatchcase(title, no) for no in (*NOT_OURS, *left)):
                    suite.addTest(test)
    result = Result()
    suite.run(result)

    wrong = []
    for name, outcome in result.outcomes.items():
        if outcome == "failed" and name not in DIFFERENT:
            wrong.append(f"{name} failed:\n{result.words[name]}")
        elif outcome == "passed" and name in DIFFERENT:
            wrong.append(f"{name} passed, but is listed as different: {DIFFERENT[name]}")
        elif outcome == "failed":
            print(f"differs  {name}: {DIFFERENT[name]}")
    outcomes = list(result.outcomes.values())
    print(f"{group}: {len(outcomes)} tests: {outcomes.count('passed')} passed, {outcomes.count('failed')} differ or failed, {outcomes.count('skipped')} skipped")
    print(*wrong, sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
