"""Calls most members of the bus interface by python3-dbus, as a program of somebody else would; test_bus.py runs it and
has made the pools p and slow. Prints "fine"."""

import os

import dbus

bus = dbus.bus.BusConnection(os.environ["DBUS_SESSION_BUS_ADDRESS"])
none = dbus.Dictionary({}, signature="sv")


def at(path, face):
    return dbus.Interface(bus.get_object("org.drover1", path), "org.drover1." + face)


m = at("/org/drover1", "Manager")

# jobs
assert m.Run("p", "is_prime", {"n": 97}, none) == {"prime": True}
id_, path = m.Submit("p", "is_prime", {"n": dbus.UInt64(1099726899285419)}, {"queue-timeout": 30000000})
job = at(path, "Job")
assert job.Wait(10000000) == "done"
assert job.GetResult()["result"] == {"prime": False}
assert job.Cancel("queued") == "finished"
assert m.GetJob(id_) == path
rows, _ = m.ListJobs({"pool": "p", "state": dbus.Array(["done"], signature="s")}, str(id_ - 1), 1)
assert rows[0] == (id_, path, "p", "is_prime", "done"), rows
rows, _ = m.DescribeJobs({"pool": "p"}, str(id_ - 1), 1)
assert (rows[0]["connection"], rows[0]["pid"], rows[0]["uid"]) == (bus.get_unique_name(), os.getpid(),
                                                                   os.getuid()), rows
slow = at("/org/drover1/pool/slow", "Pool")
slow.Pause()
job = at(m.Submit("slow", "is_prime", {"n": 7}, none)[1], "Job")
assert job.Cancel("ask") == "cancelled"
stream = job.OpenStream().take()
assert os.read(stream, 1) == b""
job.Requeue()
slow.Resume()
assert job.Wait(10000000) == "done"
assert slow.RequeuePoisoned() == 0
assert [row[0] for row in m.ListPools()] == ["p", "slow"], m.ListPools()

# workers
workers = [row for row in m.ListWorkers() if row[1] == "p"]
assert m.GetWorkerByPID(workers[0][3]) == workers[0][2]
worker = at(workers[0][2], "Worker")
with open(f"/proc/self/fdinfo/{worker.GetPidFD().take()}", encoding="ascii") as f:
    assert f"Pid:\t{workers[0][3]}\n" in f.read()
assert all("finished-usec" in task for task in worker.ListTasks())
worker.Kill(18)
m.ListDeaths("p", 5)
m.ListCapsules("p", 5)
m.Subscribe()
m.Unsubscribe()
assert m.Reload(0) == []

# a channel
channel = m.OpenChannel("p", none)
assert set(channel) == {"channel", "jobs", "results", "verdicts", "bell", "doorbell", "done", "session", "index",
                        "slots", "slot-size", "id-base", "clock", "schema"}, set(channel)
assert bytes(channel["schema"]).startswith(b"primes\t")
session, = m.ListSessions()
assert (session["pool"], session["pid"], session["connection"]) == ("p", os.getpid(), bus.get_unique_name()), session

# pools
m.CreatePool("py", {"Plugin": "primes", "Workers": 1, "StartMethod": "fork", "Environment": ["A=1", "B=2"]}, 0)
pool = at(m.GetPool("py"), "Pool")
for member in "Start Pause Resume Drain Stop Restart ResetFailed".split():
    getattr(pool, member)()
pool.Resize(2)
at("/org/drover1/pool/p", "Pool").Schema()
p = dbus.Interface(bus.get_object("org.drover1", "/org/drover1/pool/p"), "org.freedesktop.DBus.Properties")
properties = p.GetAll("org.drover1.Pool")
assert properties["Workers"] == 2
m.RemovePool("py", 0)
print("fine")
