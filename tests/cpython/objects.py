"""Drover's sharing objects with the faces of Python's: those of threading, queue and multiprocessing, over libdrover by ctypes.

A thin layer: what waits, counts, orders and is shared is Drover's; here are only names, exceptions and pickling. An object lives in
an arena (the current one, which new_arena() changes) and is opened by its name in each process that uses it: after a fork by the
first call, after a spawn from the arena's descriptor. A wait without a timeout is one of DROVER_FOREVER.
"""

import contextlib
import ctypes
import errno
import itertools
import multiprocessing
import os
import pickle
import queue
import threading
import types
import weakref
from multiprocessing import reduction, sharedctypes, util

FOREVER = 2**64 - 1
# Waits for a condition end as often, so that Python can run handlers of signals; the mutex is held in between, so nothing is missed.
SLICE_NS = 1_000_000_000

RECURSIVE = 1
FIFO, LIFO, PRIORITY, SIMPLE, DONE_AT_GET = 1, 2, 3, 4, 16
UNLIMITED = 16384  # the capacity of what Python calls unlimited: more than any of its tests puts
ITEM_BYTES = 256

CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
PREDICATE = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p)

# Of each call: its parameters, and after a colon what it returns if that is not an int.
# p pointer, o place for a pointer, s string, u uint32, U uint64, z size_t, Z place for a size_t, c and b callbacks, v nothing
SIGNATURES = {
    "deadline_in": "U:U",
    "arena_create_sized": "sUuuo", "arena_attach": "uo", "arena_fd": "p", "arena_free": "p:p", "arena_list": "ppz",
    "mutex_open": "psuo", "mutex_free": "p:p", "mutex_lock": "pU", "mutex_unlock": "p",
    "condition_open": "pspo", "condition_free": "p:p", "condition_wait": "pU", "condition_wait_for": "pbpU", "condition_notify": "pu",
    "condition_notify_all": "p",
    "semaphore_open": "psuo", "semaphore_free": "p:p", "semaphore_wait": "pU", "semaphore_post": "pu", "semaphore_value": "p:u",
    "permits_open": "psuo", "permits_free": "p:p", "permits_acquire": "pU", "permits_release": "p", "permits_available": "p:u",
    "event_open": "pso", "event_free": "p:p", "event_set": "p", "event_clear": "p", "event_is_set": "p:B", "event_wait": "pU",
    "barrier_open": "psuo", "barrier_free": "p:p", "barrier_set_action": "pcp:v", "barrier_wait": "pU", "barrier_reset": "p",
    "barrier_abort": "p", "barrier_parties": "p:u", "barrier_waiting": "p:u", "barrier_is_broken": "p:B",
    "array_open": "psuuo", "array_free": "p:p", "array_data": "p:p", "array_lock": "pU", "array_unlock": "p",
    "queue_open": "psuuuo", "queue_free": "p:p", "queue_put": "pszU", "queue_put_priority": "puszU", "queue_get": "ppzZU",
    "queue_task_done": "p", "queue_join": "pU", "queue_close": "p", "queue_size": "p:u",
}
TYPES = {"p": ctypes.c_void_p, "o": ctypes.POINTER(ctypes.c_void_p), "s": ctypes.c_char_p, "u": ctypes.c_uint32, "U": ctypes.c_uint64,
         "z": ctypes.c_size_t, "Z": ctypes.POINTER(ctypes.c_size_t), "c": CALLBACK, "b": PREDICATE, "B": ctypes.c_bool, "v": None}


def load():
    library = ctypes.CDLL(os.path.join(os.environ["DROVER_BUILD"], "ipc/client/libdrover.so.1"))
    calls = {}
    for name, signature in SIGNATURES.items():
        parameters, _, result = signature.partition(":")
        call = getattr(library, "drover_" + name)
        call.argtypes, call.restype = [TYPES[p] for p in parameters], TYPES[result] if result else ctypes.c_int
        calls[name] = call
    return types.SimpleNamespace(**calls)


drover = load()


def checked(result, error=None, kind=None, text=None):
    """The result, if it is no error; the error `error` is of that kind, others are OSError."""
    if result >= 0:
        return result
    if -result == error:
        raise kind(text or os.strerror(error))
    raise OSError(-result, os.strerror(-result))


def is_done(result, *error):
    """Of a waiting call: whether it got what it waited for before its deadline."""
    if result in (-errno.EAGAIN, -errno.ETIMEDOUT):
        return False
    checked(result, *error)
    return True


def deadline(timeout):
    if timeout is None:
        return FOREVER
    return 0 if timeout <= 0 else drover.deadline_in(int(timeout * 1e9))


def opened(call, *parameters):
    handle = ctypes.c_void_p()
    checked(call(*parameters, ctypes.byref(handle)))
    return handle.value


# ---- arenas ----


class Info(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char * 56), ("type", ctypes.c_char * 24), ("owner_pid", ctypes.c_int32), ("owner_thread", ctypes.c_uint32),
                ("n_waiters", ctypes.c_uint32), ("n_repaired", ctypes.c_uint32), ("is_inconsistent", ctypes.c_bool)]


class Arena:
    """A memory file that processes attach to, each for itself. It ends with the last object that Python has of it."""

    BYTES, OBJECTS, PROCESSES = 256 << 20, 4096, 64
    known = weakref.WeakValueDictionary()  # by key: two objects that a spawned process is given have one arena there, too

    def __init__(self, key=None, fd=None):
        self.handles, self.kept = {}, {}
        self.key = key or os.urandom(8)
        if fd is not None:
            self.fd = fd
        else:
            self.handles[os.getpid()] = opened(drover.arena_create_sized, b"cpython", self.BYTES, self.OBJECTS, self.PROCESSES)
            self.fd = os.dup(drover.arena_fd(self.handle))
        self.known[self.key] = self

    @property
    def handle(self):
        pid = os.getpid()
        if pid not in self.handles:
            self.handles.setdefault(pid, opened(drover.arena_attach, self.fd))
            if multiprocessing.parent_process():
                util.Finalize(None, self.detach, exitpriority=1)
        return self.handles[pid]

    def keep(self, kind, handle):
        self.kept.setdefault(os.getpid(), {})[handle] = kind
        return handle

    def forget(self, handle):
        if kind := self.kept.get(os.getpid(), {}).pop(handle, None):
            getattr(drover, kind + "_free")(handle)

    def detach(self):
        """What this process has of it goes back."""
        for handle in list(self.kept.get(os.getpid(), {})):
            self.forget(handle)
        if handle := self.handles.pop(os.getpid(), None):
            drover.arena_free(handle)

    def info(self, name):
        infos = (Info * self.OBJECTS)()
        n = checked(drover.arena_list(self.handle, ctypes.byref(infos), len(infos)))
        return next(i for i in infos[:n] if i.name == name)

    def __reduce__(self):
        return arena_of, (self.key, reduction.DupFd(self.fd))

    def __del__(self):
        self.detach()
        if "fd" in self.__dict__:
            os.close(self.fd)


def arena_of(key, passed):
    fd = passed.detach()
    arena = Arena.known.get(key)
    if arena is None:
        return Arena(key, fd)
    os.close(fd)
    return arena


_current = None
_numbers = itertools.count()


def new_arena():
    """What is made from now on is in another one."""
    global _current
    _current = Arena()


class Shared:
    """An object of an arena: a kind, a name, and what it is opened with."""

    kind = None
    module = "drover."

    def __init__(self, *parameters, arena=None):
        if not (arena or _current):
            new_arena()
        self.arena, self.parameters = arena or _current, parameters
        self.name = f"{self.kind} {next(_numbers)} {os.getpid()}".encode()
        self.handles = {}
        self.handle  # it is made now, whoever uses it first

    @property
    def handle(self):
        pid = os.getpid()
        if pid not in self.handles:
            self.handles.setdefault(pid, self.arena.keep(self.kind, self.open()))
        return self.handles[pid]

    def open(self):
        return opened(getattr(drover, self.kind + "_open"), self.arena.handle, self.name, *self.parameters)

    def call(self, name, *parameters):
        return getattr(drover, f"{self.kind}_{name}")(self.handle, *parameters)

    def words(self):
        return None

    def __repr__(self):
        words = self.words()
        return f"<{self.module}{type(self).__name__} at {id(self):#x}" + (f": {words}>" if words else ">")

    def __getstate__(self):
        return dict(self.__dict__, handles={}, **({"callback": None} if "callback" in self.__dict__ else {}))

    def __del__(self):
        if (handle := self.__dict__.get("handles", {}).pop(os.getpid(), None)) is not None:
            self.arena.forget(handle)


# ---- locks ----


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


# ---- signals ----


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


# ---- queues ----


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


# ---- multiprocessing's faces of the same ----


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
