"""libdrover's sharing objects as ctypes calls them: signatures, errors, deadlines."""

import ctypes
import errno
import os
import types

FOREVER = 2**64 - 1
RECURSIVE = 1
FIFO, LIFO, PRIORITY, SIMPLE, DONE_AT_GET = 1, 2, 3, 4, 16

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
