"""Drover's sharing objects with the faces of Python's threading and queue, over libdrover by ctypes.

A thin layer: what waits, counts, orders and is shared is Drover's; here are only names, exceptions and pickling. An object lives in
the current arena, which arenas.new_arena() changes. A wait without a timeout is one of DROVER_FOREVER.
"""

import ctypes
import errno
import pickle
import queue
import threading
import types

from arenas import Shared
from binding import CALLBACK, FIFO, LIFO, PREDICATE, PRIORITY, RECURSIVE, SIMPLE, checked, deadline, drover, is_done, opened

# Waits for a condition end as often, so that Python can run handlers of signals; the mutex is held in between, so nothing is missed.
SLICE_NS = 1_000_000_000
UNLIMITED = 16384  # the capacity of what Python calls unlimited: more than any of its tests puts
ITEM_BYTES = 256


class Held:
    """with: taken and given back."""

    def __enter__(self):
        return self.acquire()

    def __exit__(self, *_):
        self.release()


def lock_timeout(blocking, timeout):
    """As threading checks what it is given: None is no timeout, 0 a try."""
    if not blocking:
        if timeout != -1:
            raise ValueError("can't specify a timeout for a non-blocking call")
        return 0
    if timeout == -1:
        return None
    if timeout < 0:
        raise ValueError("timeout value must be a non-negative number")
    if timeout > threading.TIMEOUT_MAX:
        raise OverflowError("timeout value is too large")
    return timeout


class AnyLock(Held, Shared):
    def acquire(self, blocking=True, timeout=-1):
        return self.take(lock_timeout(blocking, timeout))

    def __repr__(self):
        return f"<{'locked' if self.locked() else 'unlocked'} drover.{type(self).__name__} object at {id(self):#x}>"


class PermitLock(AnyLock):
    """A lock that another thread of the process may give back: one permit."""

    kind = "permits"

    def __init__(self):
        super().__init__(1)

    def take(self, timeout):
        return is_done(self.call("acquire", deadline(timeout)))

    def release(self):
        checked(self.call("release"), errno.EOVERFLOW, RuntimeError)

    def locked(self):
        return self.call("available") == 0


class Lock(AnyLock):
    """A mutex, which belongs to its thread."""

    kind = "mutex"
    flags = 0

    def __init__(self):
        super().__init__(self.flags)

    def take(self, timeout):
        r = self.call("lock", deadline(timeout))
        if r == -errno.EDEADLK and timeout == 0:
            return False  # who has it and only tries
        return is_done(r)

    def release(self):
        checked(self.call("unlock"), errno.EPERM, RuntimeError)

    def locked(self):
        return self.arena.info(self.name).owner_pid != 0


class RLock(Lock):
    flags = RECURSIVE


class Condition(Held, Shared):
    kind = "condition"

    def __init__(self, lock=None):
        self.lock = lock or RLock()
        self.acquire, self.release = self.lock.acquire, self.lock.release
        super().__init__(arena=self.lock.arena)

    def open(self):
        return opened(drover.condition_open, self.arena.handle, self.name, self.lock.handle)

    def wait(self, timeout=None):
        end = deadline(timeout)
        while True:
            until = min(end, drover.deadline_in(SLICE_NS))
            r = self.call("wait", until)
            if r != -errno.ETIMEDOUT or until == end:
                return is_done(r, errno.EPERM, RuntimeError)

    def wait_for(self, predicate, timeout=None):
        errors = []

        def ask(_):
            try:
                return bool(predicate())
            except BaseException as e:  # pylint: disable=broad-except
                errors.append(e)
                return True

        r = self.call("wait_for", PREDICATE(ask), None, deadline(timeout))
        if errors:
            raise errors[0]
        return is_done(r, errno.EPERM, RuntimeError)

    def notify(self, n=1):
        checked(self.call("notify", n), errno.EPERM, RuntimeError)

    def notify_all(self):
        checked(self.call("notify_all"), errno.EPERM, RuntimeError)

    # CPython's tests look at how many wait if an implementation tells it; an exception says that it does not.
    @property
    def _sleeping_count(self):
        raise NotImplementedError


class Semaphore(Held, Shared):
    kind = "semaphore"

    def __init__(self, value=1):
        if value < 0:
            raise ValueError("semaphore initial value must be >= 0")
        self.initial = value
        super().__init__(value)

    def take(self, timeout):
        return is_done(self.call("wait", deadline(timeout)))

    def acquire(self, blocking=True, timeout=None):
        if not blocking and timeout is not None:
            raise ValueError("can't specify timeout for non-blocking acquire")
        return self.take(timeout if blocking else 0)

    def release(self, n=1):
        checked(self.call("post", n))

    def get_value(self):
        return self.call("value")

    def words(self):
        return f"value={self.get_value()}"


class BoundedSemaphore(Semaphore):
    kind = "permits"

    def take(self, timeout):
        return is_done(self.call("acquire", deadline(timeout)))

    def release(self, n=1):
        for _ in range(n):
            checked(self.call("release"), errno.EOVERFLOW, ValueError)

    def get_value(self):
        return self.call("available")

    def words(self):
        return f"value={self.get_value()}/{self.initial}"


class Event(Shared):
    kind = "event"

    def is_set(self):
        return self.call("is_set")

    def set(self):
        checked(self.call("set"))

    def clear(self):
        checked(self.call("clear"))

    def wait(self, timeout=None):
        return is_done(self.call("wait", deadline(timeout)))

    def words(self):
        return "set" if self.is_set() else "unset"


class Barrier(Shared):
    kind = "barrier"

    def __init__(self, parties, action=None, timeout=None):
        if parties < 1:
            raise ValueError("parties must be > 0")
        self.action, self.timeout, self.callback = action, timeout, None
        super().__init__(parties)

    def open(self):
        handle = super().open()
        if self.action:
            self.callback = CALLBACK(self.act)
            drover.barrier_set_action(handle, self.callback, None)
        return handle

    def act(self, _):
        try:
            self.action()
            return 0
        except BaseException:  # pylint: disable=broad-except
            return -errno.ECANCELED

    def wait(self, timeout=None):
        r = self.call("wait", deadline(self.timeout if timeout is None else timeout))
        return checked(-errno.EPIPE if r == -errno.ETIMEDOUT else r, errno.EPIPE, threading.BrokenBarrierError)

    def reset(self):
        checked(self.call("reset"))

    def abort(self):
        checked(self.call("abort"))

    @property
    def parties(self):
        return self.call("parties")

    @property
    def n_waiting(self):
        return self.call("waiting")

    @property
    def broken(self):
        return self.call("is_broken")

    def words(self):
        return "broken" if self.broken else f"waiters={self.n_waiting}/{self.parties}"


class AnyQueue(Shared):
    kind = "queue"
    order = FIFO
    patience = None  # how long waits without a timeout last, of a queue whose tests are known to wait in vain

    def __init__(self, maxsize=0, *, ctx=None):
        del ctx  # of multiprocessing: how processes start, which is nothing to a queue
        self.maxsize = self.capacity = maxsize
        super().__init__(maxsize or UNLIMITED, ITEM_BYTES, self.order)

    def within(self, block, timeout):
        if not block:
            return 0
        if timeout is None:
            return deadline(self.patience)
        if timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        return deadline(timeout)

    def ended(self, result, timeout, block, error):
        """After a call that put or got nothing."""
        if self.patience and block and timeout is None:
            raise TimeoutError("nothing came of a wait without a timeout")
        is_done(result, errno.ESHUTDOWN, ValueError, "the queue is closed")
        raise error

    def put_bytes(self, item, data, until):
        del item
        return self.call("put", data, len(data), until)

    def put(self, item, block=True, timeout=None):
        r = self.put_bytes(item, pickle.dumps(item), self.within(block, timeout))
        if r < 0:
            self.ended(r, timeout, block, queue.Full)

    def get(self, block=True, timeout=None):
        room, n = ctypes.create_string_buffer(ITEM_BYTES), ctypes.c_size_t()
        r = self.call("get", room, ITEM_BYTES, ctypes.byref(n), self.within(block, timeout))
        if r < 0:
            self.ended(r, timeout, block, queue.Empty)
        return pickle.loads(room.raw[:n.value])

    def put_nowait(self, item):
        self.put(item, False)

    def get_nowait(self):
        return self.get(False)

    def qsize(self):
        return self.call("size")

    def empty(self):
        return self.qsize() == 0

    def full(self):
        return 0 < self.capacity <= self.qsize()

    def close(self):
        checked(self.call("close"))

    def join_thread(self):
        """multiprocessing's: there is no thread."""


class Joinable:
    def task_done(self):
        checked(self.call("task_done"), errno.EINVAL, ValueError)

    def join(self):
        if not is_done(self.call("join", deadline(self.patience))):
            raise TimeoutError("nothing came of a wait without a timeout")


def number_of(item):
    """A PriorityQueue's items in the order of unsigned numbers; of what is no number we have one at most."""
    return 2**31 + item if isinstance(item, int) else 0


def queues(flags, patience):
    """What the module queue has, over queues of this kind."""

    class Queue(Joinable, AnyQueue):
        pass

    class LifoQueue(Joinable, AnyQueue):
        pass

    class PriorityQueue(Joinable, AnyQueue):
        def put_bytes(self, item, data, until):
            return self.call("put_priority", number_of(item), data, len(data), until)

    for order, kind in ((FIFO, Queue), (LIFO, LifoQueue), (PRIORITY, PriorityQueue)):
        kind.order, kind.patience = order | flags, patience
    return types.SimpleNamespace(Queue=Queue, LifoQueue=LifoQueue, PriorityQueue=PriorityQueue, SimpleQueue=SimpleQueue, Empty=queue.Empty, Full=queue.Full)


class SimpleQueue(AnyQueue):
    order = SIMPLE
