"""Calls every member of the bus interface by python3-dasbus, as a program of somebody else would; test_bus.py runs it
and has made the pools p and slow. Prints the members that it called, by which the test knows if one was forgotten."""

import os
import time

from dasbus.connection import AddressedMessageBus
from dasbus.typing import get_variant as v
from gi.repository import Gio, GLib

bus = AddressedMessageBus(os.environ["DBUS_SESSION_BUS_ADDRESS"])
called = set()


class At:
    def __init__(self, path, face):
        self.proxy, self.face = bus.get_proxy("org.drover1", path, "org.drover1." + face), face

    def __getattr__(self, member):
        called.add(self.face + "." + member)
        return getattr(self.proxy, member)


def with_fds(path, face, member, parameters):
    """A descriptor in the reply needs the connection's own call."""
    called.add(face + "." + member)
    return bus.connection.call_with_unix_fd_list_sync("org.drover1", path, "org.drover1." + face, member, parameters,
                                                      None, Gio.DBusCallFlags.NONE, 20000, None, None)


def capsule_of(path):
    """The first bytes of the job's capsule, as soon as there is one: the disk takes its time."""
    deadline = time.monotonic() + 30
    while True:
        try:
            reply, fds = with_fds(path, "Job", "GetCapsule", None)
            return os.pread(fds.get(reply.unpack()[0]), 8, 0)
        except GLib.Error:
            if time.monotonic() > deadline:
                raise
            GLib.usleep(10000)


m = At("/org/drover1", "Manager")

# jobs
n97 = {"n": v("t", 97)}
assert m.Run("p", "is_prime", n97, {})["prime"].unpack() is True
id_, path = m.Submit("p", "is_prime", n97, {"priority": v("i", 2)})
job = At(path, "Job")
assert job.Wait(10000000) == "done" and job.Pool == "p" and job.State == "done" and job.Progress == (0, 0, "")
assert job.GetResult()["result"].unpack()["prime"] is True
assert job.Cancel("kill") == "finished"
assert m.GetJob(id_) == path
assert m.ListJobs({"since": v("t", 0)}, str(id_ - 1), 1)[0] == [(id_, path, "p", "is_prime", "done")]
assert m.DescribeJobs({"since": v("t", 0)}, str(id_ - 1), 1)[0][0]["pid"].unpack() == job.Pid == os.getpid()
slow = At("/org/drover1/pool/slow", "Pool")
slow.Pause()
job = At(m.Submit("slow", "is_prime", n97, {})[1], "Job")
assert job.Cancel("ask") == "cancelled"
job.Requeue()
slow.Resume()
assert job.Wait(10000000) == "done"
assert [row[0] for row in m.ListPools()] == ["p", "slow"]
reply, fds = with_fds(path, "Job", "OpenStream", None)
assert os.read(fds.get(reply.unpack()[0]), 1) == b""

# workers
workers = [row for row in m.ListWorkers() if row[1] == "p"]
assert m.GetWorkerByPID(workers[0][3]) == workers[0][2]
worker = At(workers[0][2], "Worker")
assert all("finished-usec" in task for task in worker.ListTasks())
worker.Kill(18)
reply, fds = with_fds(workers[0][2], "Worker", "GetPidFD", None)
with open(f"/proc/self/fdinfo/{fds.get(reply.unpack()[0])}", encoding="ascii") as f:
    assert f"Pid:\t{workers[0][3]}\n" in f.read()
m.ListDeaths("p", 5)
m.ListCapsules("p", 5)
m.Subscribe()
m.Unsubscribe()
assert m.Reload(0) == []

# a channel, an arena
reply, fds = with_fds("/org/drover1", "Manager", "OpenChannel", GLib.Variant("(sa{sv})", ("p", {})))
assert fds.get_length() >= 5
assert [session["pid"].unpack() for session in m.ListSessions()] == [os.getpid()]
with_fds("/org/drover1", "Manager", "OpenArena", GLib.Variant("(sa{sv})", ("by-dasbus", {})))
m.ListObjects("by-dasbus")
m.ListObjectsFrom("by-dasbus", "", 10)
assert m.ListArenas()
m.RemoveArena("by-dasbus")

# pools
settings = {"Plugin": v("s", "primes"), "Workers": v("u", 1), "StartMethod": v("s", "fork")}
pool = At(m.CreatePool("das", settings, 0), "Pool")
assert m.GetPool("das") == "/org/drover1/pool/das"
for member in "Start Pause Resume Drain Stop Restart ResetFailed RequeuePoisoned".split():
    getattr(pool, member)()
pool.Resize(2)
At("/org/drover1/pool/p", "Pool").Schema()
m.RemovePool("das", 0)

# a job that dies, and its capsule
m.CreatePool("bad", {"Plugin": v("s", "crash"), "Workers": v("u", 1), "StartMethod": v("s", "fork")}, 0)
_, path = m.Submit("bad", "segfault", {}, {"max-attempts": v("u", 1)})
assert At(path, "Job").Wait(10000000) == "poisoned"
assert capsule_of(path) == b"DRCAPSUL"
m.RemovePool("bad", 0)

print(*sorted(called))
