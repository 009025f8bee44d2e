"""The same objects with the faces of multiprocessing's, and values and arrays."""

import contextlib
import ctypes
import errno
from multiprocessing import sharedctypes

from arenas import Shared
from binding import DONE_AT_GET, FIFO, RECURSIVE, checked, deadline, is_done
from objects import AnyQueue, BoundedSemaphore, Condition, Event, Held, Joinable, Lock, Semaphore


def mp_timeout(block, timeout):
    return None if block and timeout is None else max(timeout, 0) if block else 0


class ProcessLock(Lock):
    def acquire(self, block=True, timeout=None):
        return self.take(mp_timeout(block, timeout))


class ProcessRLock(ProcessLock):
    flags = RECURSIVE


class ProcessSemaphore(Semaphore):
    acquire = ProcessLock.acquire


class ProcessBoundedSemaphore(BoundedSemaphore):
    acquire = ProcessLock.acquire


class ProcessCondition(Condition):
    def __init__(self, lock=None):
        super().__init__(lock or ProcessRLock())


class ProcessEvent(Event):
    def __repr__(self):
        return f"<Event at {id(self):#x} {self.words()}>"


class ProcessQueue(AnyQueue):
    """multiprocessing.Queue has no task_done: what is got is done."""

    order = FIFO | DONE_AT_GET


class ProcessJoinableQueue(Joinable, AnyQueue):
    pass


class ArrayLock(Held):
    """The lock beside an array."""

    def __init__(self, shared):
        self.shared = shared

    def acquire(self, block=True, timeout=None):
        return is_done(self.shared.call("lock", deadline(mp_timeout(block, timeout))))

    def release(self):
        checked(self.shared.call("unlock"), errno.EPERM, RuntimeError)


class Raw(Shared):
    """A ctypes object in shared memory, without a lock: RawValue, RawArray."""

    kind = "array"
    own = ("arena", "parameters", "name", "handles", "type", "length", "lock")

    def __init__(self, kind, length, initial):
        self.type, self.length = kind, length  # which are pickled where an array's type cannot be
        super().__init__(ctypes.sizeof(kind), length or 1)
        if initial is not None:
            ctypes.memmove(self.call("data"), ctypes.byref(initial), ctypes.sizeof(initial))

    def here(self):
        """It, at this process's address."""
        kind = self.type if self.length is None else self.type * self.length
        return kind.from_address(self.call("data"))

    guard = contextlib.nullcontext

    def __getattr__(self, name):
        if name.startswith("_") or name in self.own:
            raise AttributeError(name)
        with self.guard():
            return getattr(self.here(), name)

    def __setattr__(self, name, value):
        if name in self.own:
            self.__dict__[name] = value
        else:
            with self.guard():
                setattr(self.here(), name, value)

    def __getitem__(self, i):
        with self.guard():
            return self.here()[i]

    def __setitem__(self, i, value):
        with self.guard():
            self.here()[i] = value

    def __len__(self):
        return len(self.here())


class Locked(Held, Raw):
    """The same with a lock: its own, or one that is given."""

    def __init__(self, kind, length, initial, lock):
        super().__init__(kind, length, initial)
        self.lock = ArrayLock(self) if lock in (True, None) else lock
        self.lock.acquire  # AttributeError for what is no lock

    def get_lock(self):
        return self.lock

    def get_obj(self):
        return self.here()

    def acquire(self, *parameters):
        return self.lock.acquire(*parameters)

    def release(self):
        self.lock.release()

    def guard(self):
        return self.lock

    def __getstate__(self):
        state = super().__getstate__()
        return dict(state, lock=None) if isinstance(self.lock, ArrayLock) else state

    def __setstate__(self, state):
        self.__dict__.update(state)
        if self.lock is None:
            self.lock = ArrayLock(self)


def type_of(typecode_or_type):
    return sharedctypes.typecode_to_type.get(typecode_or_type, typecode_or_type)


def RawValue(typecode_or_type, *args):
    return Raw(type_of(typecode_or_type), None, type_of(typecode_or_type)(*args))


def Value(typecode_or_type, *args, lock=True):
    if lock is False:
        return RawValue(typecode_or_type, *args)
    return Locked(type_of(typecode_or_type), None, type_of(typecode_or_type)(*args), lock)


def array_of(typecode_or_type, size_or_initializer):
    kind = type_of(typecode_or_type)
    if isinstance(size_or_initializer, int):
        return kind, size_or_initializer, None
    n = len(size_or_initializer)
    return kind, n, (kind * n)(*size_or_initializer)


def RawArray(typecode_or_type, size_or_initializer):
    return Raw(*array_of(typecode_or_type, size_or_initializer))


def Array(typecode_or_type, size_or_initializer, *, lock=True):
    if lock is False:
        return RawArray(typecode_or_type, size_or_initializer)
    return Locked(*array_of(typecode_or_type, size_or_initializer), lock)
