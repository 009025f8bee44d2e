"""What /proc says of processes: who runs below whom, their descriptors and memory.

Tests import all this from harness.py.
"""

import os
import signal


def stat_of(pid):
    """(name, state, ppid) or None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
            text = f.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    name = text[text.index("(") + 1:text.rindex(")")]
    rest = text[text.rindex(")") + 2:].split()
    return name, rest[0], int(rest[1])


def is_alive(pid):
    """Runs or could run: a zombie does not."""
    stat = stat_of(pid)
    return stat is not None and stat[1] not in "ZX"


def descendants(root=None):
    """pid -> name of everything below `root` (this process), zombies left out."""
    parent, names = {}, {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        stat = stat_of(entry)
        if stat and stat[1] not in "ZX":
            names[int(entry)], parent[int(entry)] = stat[0], stat[2]
    root = root or os.getpid()
    found = {}
    for pid in parent:
        at, seen = pid, set()
        while at in parent and at not in seen and at != root:
            seen.add(at)
            at = parent[at]
        if at == root and pid != root:
            found[pid] = names[pid]
    return found


def children():
    """Pids of our own."""
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="utf-8") as f:
        return f.read().split()


def reap_orphans(known=()):
    """Collects zombies that became ours, without taking those that a Popen waits for."""
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) not in known:
            stat = stat_of(entry)
            if stat and stat[1] == "Z" and stat[2] == os.getpid():
                try:
                    os.waitpid(int(entry), os.WNOHANG)
                except ChildProcessError:
                    pass


def fds_of(pid):
    """fd -> what it is, sorted names without numbers."""
    found = {}
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                found[int(fd)] = os.readlink(f"/proc/{pid}/fd/{fd}")
            except FileNotFoundError:
                pass
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def memfds_of(pid):
    """Names of the memfds that a process holds or maps."""
    held = [name for name in fds_of(pid).values() if name.startswith("/memfd:")]
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8") as f:
            held += sorted({line.split(None, 5)[5].strip() for line in f if "/memfd:" in line})
    except (FileNotFoundError, ProcessLookupError):
        pass
    return held


def rss_kib(pid, field="VmHWM"):
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        for line in f:
            if line.startswith(field + ":"):
                return int(line.split()[1])
    return 0


def kill(pid, number=signal.SIGKILL):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
