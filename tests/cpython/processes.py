"""CPython's tests of multiprocessing's objects (test._test_multiprocessing) over Drover's: between processes, and with threads in
their place. The start method is the runner's to set. A process that is spawned imports this, too."""

import multiprocessing
import multiprocessing.queues
import unittest
from test import _test_multiprocessing as tests

import objects
import process_objects

# What the tests take from a class, or from the module.
FACES = {
    "Lock": process_objects.ProcessLock, "RLock": process_objects.ProcessRLock,
    "Semaphore": process_objects.ProcessSemaphore, "BoundedSemaphore": process_objects.ProcessBoundedSemaphore,
    "Condition": process_objects.ProcessCondition, "Event": process_objects.ProcessEvent, "Barrier": objects.Barrier,
    "Queue": process_objects.ProcessQueue, "JoinableQueue": process_objects.ProcessJoinableQueue,
    "Value": process_objects.Value, "Array": process_objects.Array, "RawValue": process_objects.RawValue,
    "RawArray": process_objects.RawArray,
}
for name, face in FACES.items():
    setattr(multiprocessing, name, face)
multiprocessing.SimpleQueue = objects.SimpleQueue
multiprocessing.queues.Queue = process_objects.ProcessQueue
tests.Value = process_objects.Value

# So long the tests wait for what needs a moment elsewhere: twice as long, for machines that are busy.
tests.DELTA = 0.2


def over_drover(mixin):
    return type(mixin.__name__, (mixin,), {name: staticmethod(face) for name, face in FACES.items()})


def make(base, kind, mixin):
    """The test class of one of CPython's, where a process finds it by name."""
    title = f"{kind}{base.__name__.removeprefix('_Test')}Tests"
    globals()[title] = type(title, (base, *mixin, unittest.TestCase), {"__module__": __name__})


for tested in (tests._TestLock, tests._TestSemaphore, tests._TestCondition, tests._TestEvent, tests._TestBarrier, tests._TestQueue, tests._TestValue,
               tests._TestArray, tests._TestSharedCTypes):
    make(tested, "Process", [over_drover(tests.ProcessesMixin)])
    if "threads" in tested.ALLOWED_TYPES:
        make(tested, "Dummy", [over_drover(tests.ThreadsMixin)])


class ProcessSimpleQueueTests(tests.TestSimpleQueue):
    pass
