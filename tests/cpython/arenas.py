"""Arenas, and what an object in one is: opened by its name in each process that uses it, after a fork by the first call,
after a spawn from the arena's descriptor."""

import ctypes
import itertools
import multiprocessing
import os
import weakref
from multiprocessing import reduction, util

from binding import checked, drover, opened


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
