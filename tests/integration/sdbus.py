"""sd-bus through ctypes, for what busctl cannot do: stay on the bus, have many calls waiting, leave in the middle.

    c = Connection(address)
    cookie = c.send("/org/drover1", "org.drover1.Manager", "Run", "ssa{sv}a{sv}", b"primes", b"is_prime", 1, b"n", b"t",
                    u64(97), 0)
    c.wait(lambda m: m.reply_cookie == cookie)

Arguments are C varargs: bytes for strings, ints for 32 bits, u64() for 64.
"""

import ctypes
import os
import time

from harness import PATIENCE, BusError

_lib = ctypes.CDLL("libsystemd.so.0", use_errno=True)
_lib.sd_bus_message_get_member.restype = ctypes.c_char_p
_lib.sd_bus_message_get_interface.restype = ctypes.c_char_p
_lib.sd_bus_message_get_path.restype = ctypes.c_char_p
_lib.sd_bus_message_get_error.restype = ctypes.POINTER(ctypes.c_char_p * 2)

u64 = ctypes.c_uint64
_TYPES = {"t": ctypes.c_uint64, "x": ctypes.c_int64, "u": ctypes.c_uint32, "i": ctypes.c_int32, "b": ctypes.c_int,
          "s": ctypes.c_char_p,
          "o": ctypes.c_char_p, "h": ctypes.c_int}


def _check(r):
    if r < 0:
        raise OSError(-r, os.strerror(-r))
    return r


class Message:
    def __init__(self, handle):
        self.handle = handle
        self.member = (_lib.sd_bus_message_get_member(handle) or b"").decode()
        self.interface = (_lib.sd_bus_message_get_interface(handle) or b"").decode()
        self.path = (_lib.sd_bus_message_get_path(handle) or b"").decode()
        cookie = u64()
        self.reply_cookie = cookie.value if _lib.sd_bus_message_get_reply_cookie(handle,
                                                                                 ctypes.byref(cookie)) >= 0 else 0
        error = _lib.sd_bus_message_get_error(handle)
        self.error = BusError((error.contents[0] or b"").decode(),
                              (error.contents[1] or b"").decode()) if error else None

    def __del__(self):
        _lib.sd_bus_message_unref(self.handle)

    def enter(self, kind, contents):
        _check(_lib.sd_bus_message_enter_container(self.handle, ctypes.c_char(kind.encode()), contents.encode()))

    def exit(self):
        _check(_lib.sd_bus_message_exit_container(self.handle))

    def read_bytes(self):
        data, size = ctypes.c_void_p(), ctypes.c_size_t()
        _check(_lib.sd_bus_message_read_array(self.handle, ctypes.c_char(b"y"), ctypes.byref(data), ctypes.byref(size)))
        return ctypes.string_at(data, size.value)

    def more(self, kind, contents):
        """enter(), or False at the end of the array."""
        return _check(_lib.sd_bus_message_enter_container(self.handle, ctypes.c_char(kind.encode()),
                                                          contents.encode())) > 0

    def read(self, types):
        """Descriptors are the message's."""
        values = []
        for t in types:
            value = _TYPES[t]()
            _check(_lib.sd_bus_message_read_basic(self.handle, ctypes.c_char(t.encode()), ctypes.byref(value)))
            values.append(value.value.decode() if t in "so" else value.value)
        return values


class Connection:
    def __init__(self, address, uid=None, fd=None):
        """`fd`: a socket that is connected to the bus already, which takes the place of an address."""
        self.bus = ctypes.c_void_p()
        _check(_lib.sd_bus_new(ctypes.byref(self.bus)))
        if fd is not None:
            _check(_lib.sd_bus_set_fd(self.bus, fd, fd))
        else:
            _check(_lib.sd_bus_set_address(self.bus, address.encode()))
        _check(_lib.sd_bus_set_bus_client(self.bus, 1))
        if uid is not None:
            os.seteuid(uid)
        try:
            _check(_lib.sd_bus_start(self.bus))
            name = ctypes.c_char_p()
            _check(_lib.sd_bus_get_unique_name(self.bus, ctypes.byref(name)))
            self.name = name.value.decode()
        finally:
            if uid is not None:
                os.seteuid(0)
        self.held = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self.bus:
            self.held = []
            _lib.sd_bus_flush(self.bus)
            _lib.sd_bus_close(self.bus)
            _lib.sd_bus_unref(self.bus)
            self.bus = None

    def match(self, rule):
        _check(_lib.sd_bus_add_match(self.bus, None, rule.encode(), None, None))

    def send(self, path, interface, member, types="", *args, to="org.drover1"):
        m = ctypes.c_void_p()
        _check(_lib.sd_bus_message_new_method_call(self.bus, ctypes.byref(m), to.encode(), path.encode(),
                                                   interface.encode(), member.encode()))
        if types:
            _check(_lib.sd_bus_message_append(m, types.encode(), *args))
        cookie = u64()
        r = _lib.sd_bus_send(self.bus, m, ctypes.byref(cookie))
        _lib.sd_bus_message_unref(m)
        _check(r)
        return cookie.value

    def flush(self):
        """Sends what waits to be sent, and reads nothing."""
        _check(_lib.sd_bus_flush(self.bus))

    def next(self, seconds):
        """The next message, or None."""
        deadline = time.monotonic() + seconds
        while True:
            m = ctypes.c_void_p()
            r = _check(_lib.sd_bus_process(self.bus, ctypes.byref(m)))
            if m:
                return Message(m)
            left = deadline - time.monotonic()
            if r == 0:
                if left <= 0:
                    return None
                _check(_lib.sd_bus_wait(self.bus, u64(int(left * 1000000))))

    def wait(self, condition, seconds=20, what="a message"):
        """The first message that fits; others are held for later calls of wait."""
        for m in self.held:
            if condition(m):
                self.held.remove(m)
                return m
        deadline = time.monotonic() + seconds * PATIENCE
        while True:
            m = self.next(max(deadline - time.monotonic(), 0))
            if m is None:
                raise AssertionError(f"after {seconds * PATIENCE:.0f} s no {what}")
            if condition(m):
                return m
            self.held.append(m)

    def reply(self, cookie, seconds=20):
        m = self.wait(lambda m: m.reply_cookie == cookie, seconds, "reply")
        if m.error:
            raise m.error
        return m

    def call(self, path, interface, member, types="", *args):
        return self.reply(self.send(path, interface, member, types, *args))
