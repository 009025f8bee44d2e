"""CPython's tests of threading's objects (test.lock_tests) over Drover's."""

import threading
import types
from test import lock_tests

import objects

# A test of conditions makes a lock of the module's, which must be one that our condition can be of.
lock_tests.threading = types.SimpleNamespace(**dict(vars(threading), Lock=objects.Lock))


class LockTests(lock_tests.LockTests):
    locktype = objects.PermitLock


class MutexTests(lock_tests.LockTests):
    locktype = objects.Lock


class RLockTests(lock_tests.RLockTests):
    locktype = objects.RLock


class EventTests(lock_tests.EventTests):
    eventtype = objects.Event


class ConditionTests(lock_tests.ConditionTests):
    condtype = objects.Condition


class SemaphoreTests(lock_tests.SemaphoreTests):
    semtype = objects.Semaphore


class BoundedSemaphoreTests(lock_tests.BoundedSemaphoreTests):
    semtype = objects.BoundedSemaphore


class BarrierTests(lock_tests.BarrierTests):
    barriertype = objects.Barrier
