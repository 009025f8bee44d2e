"""A private bus, a droverd and pools from the build tree, for integration tests.

    with Drover({"primes": {"Plugin": "primes", "Workers": 2}}) as d:
        d.run("primes", "is_prime", n=97)            -> {"prime": True}

Everything runs below the test process, which is a subreaper: whatever is left behind becomes its child, so the checks
at the end (no process, no socket, no memfd) miss nothing. Nothing here sleeps for a fixed time: wait_for polls a
condition until a deadline. A failure is Late (a time bound was missed), Broken (something was lost, doubled or left
over) or just a failure; main() marks the broken ones, and ./check runs nothing a second time that is marked. Needs
DROVER_BUILD (meson test sets it) and Debian's busctl and dbus-daemon. stdlib only.
"""

import atexit
import ctypes
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

# Some of these are here for the tests, which import from this file whatever they need.
from busctl_values import dict_words, unwrap
from deadlines import PATIENCE, Broken, Late, assert_in_time, pause, say_broken, wait_for, wait_surely  # noqa: F401
from processes import (  # noqa: F401
    children, descendants, fds_of, is_alive, kill, memfds_of, reap_orphans, rss_kib, stat_of)

BUILD = os.environ.get("DROVER_BUILD", os.path.join(os.path.dirname(__file__), "..", "..", "build"))
BUILD = os.path.abspath(BUILD)
SOURCE = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))

DROVERD = f"{BUILD}/daemon/droverd"
DROVERCTL = f"{BUILD}/daemon/ctl/droverctl"
SPAWN = f"{BUILD}/daemon/spawn/drover-spawn"
WORKER = f"{BUILD}/plugins/host/drover-worker"


def leave_home():
    """Whoever runs the tests may use Drover: none of his files, of his daemons and of the system's are theirs. Here and
    in all that is started from here, home is a directory that goes with this process, and without an address of its own
    no bus is found."""
    home, pid = tempfile.mkdtemp(prefix="drover-home-"), os.getpid()
    for name in [n for n in os.environ if n.startswith(("XDG_", "DBUS_", "JOURNAL_STREAM", "NOTIFY_SOCKET"))]:
        del os.environ[name]
    for name, place in {"HOME": "", "XDG_CONFIG_HOME": "/.config", "XDG_STATE_HOME": "/.local/state",
                        "XDG_DATA_HOME": "/.local/share", "XDG_CACHE_HOME": "/.cache", "XDG_RUNTIME_DIR": "/run",
                        "XDG_CONFIG_DIRS": "/xdg"}.items():
        os.makedirs(home + place, mode=0o700, exist_ok=True)
        os.environ[name] = home + place
    for name in ("DBUS_SESSION_BUS_ADDRESS", "DBUS_SYSTEM_BUS_ADDRESS"):
        os.environ[name] = f"unix:path={home}/no-bus"
    atexit.register(lambda: os.getpid() == pid and shutil.rmtree(home, ignore_errors=True))


leave_home()

IS_SANITIZED = os.environ.get("DROVER_TEST_SANITIZED") == "1"

MANAGER = ("/org/drover1", "org.drover1.Manager")

SECTIONS = {
    "Pool": "Plugin StartMethod Model Workers Slots SlotSize Overflow Threads Fibers Hooks MinWorkers MaxWorkers "
            "PluginSHA256 RateLimit Capsules Durable AutoReload",
    "Job": "MaxAttempts Guarantee QueueTimeout SoftTimeout HardTimeout RetryDelay RetryBackoff RetryMaxDelay ResultTTL",
    "Worker": "MaxJobs RecycleMemory MaxAge RestartSec RestartMaxDelaySec StartLimitBurst StartLimitIntervalSec "
              "TimeoutStartSec WatchdogSec TimeoutStopSec KillGraceSec Environment Host Nice CPUAffinity MemoryMax "
              "MemoryHigh TasksMax CPUWeight CPUQuota IOWeight",
    "Sandbox": "Profile SystemCallFilter MemoryDenyWriteExecute ReadOnlyPaths ReadWritePaths Require",
}
SECTION_OF = {key: section for section, keys in SECTIONS.items() for key in keys.split()}

# The limits are those of a system bus, but for one: a session bus lets a caller have more calls under way than droverd
# does.
BUS_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={path}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
  <limit name="max_replies_per_connection">50000</limit>
  {rules}
</busconfig>
"""

# For `bus_rules`: also this one as on a system bus.
SYSTEM_REPLIES = '<limit name="max_replies_per_connection">128</limit>'

PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)
if _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
    raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")


class BusError(Exception):
    """A call was answered by an error: .name is the D-Bus name, .text the message."""

    def __init__(self, name, text):
        super().__init__(f"{name}: {text}")
        self.name, self.text = name, text


# ---- the bus and the daemon ----


class Bus:
    """A private dbus-daemon, or with DROVER_TEST_BUS=dbus-broker that one."""

    def __init__(self, directory, env=None, rules="", template=BUS_CONFIG):
        self.path = os.path.join(directory, "bus")
        self.address = "unix:path=" + self.path
        config = os.path.join(directory, "bus.conf")
        with open(config, "w", encoding="utf-8") as f:
            f.write(template.format(path=self.path, rules=rules))
        self.config, self.env = config, env
        self.start()

    def start(self):
        """Also once more, under the same address."""
        config = self.config
        if os.path.exists(self.path):
            os.unlink(self.path)
        if os.environ.get("DROVER_TEST_BUS") == "dbus-broker":
            launcher = os.path.join(os.path.dirname(__file__), "broker_bus.py")
            self.process = subprocess.Popen([sys.executable, launcher, self.path, config], stdin=subprocess.DEVNULL,
                                            start_new_session=True)
            command = ["busctl", f"--address={self.address}", "list"]
            wait_for(lambda: subprocess.run(command, capture_output=True, check=False).returncode == 0, 10,
                     "dbus-broker answers")
            return
        reader, writer = os.pipe()
        self.process = subprocess.Popen(
            ["dbus-daemon", "--nofork", "--nopidfile", "--nosyslog", f"--config-file={config}",
             f"--print-address={writer}"],
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=[writer], start_new_session=True,
            env=dict(os.environ, **(self.env or {})))
        os.close(writer)
        with os.fdopen(reader) as f:
            if not f.readline():
                raise AssertionError("dbus-daemon did not start")

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


def worker_of(d, job):
    """The pid that runs it, as soon as one does."""
    return wait_for(lambda: (p := d.job(job))["State"] == "running" and p["WorkerPid"], 10, f"{job} runs")


def plugin_files():
    return sorted(glob.glob(f"{BUILD}/plugins/*/*.so") + glob.glob(f"{BUILD}/tests/plugins/*.so"))


class Drover:
    """droverd --user on a private bus. Pools are written before the start; write_pool and reload() later."""

    bus_config = BUS_CONFIG

    def __init__(self, pools=None, args=(), env=None, launcher=(), wait=True, config=None, bus_env=None, bus_rules="",
                 stderr=None):
        self.dir = tempfile.mkdtemp(prefix="drover-test-")
        self.log_path = os.path.join(self.dir, "log")
        self.config_dir = os.path.join(self.dir, "config")
        self.plugin_dir = os.path.join(self.dir, "plugins")
        for name in ("config/pools.d", "plugins", "libexec", "bin", "runtime", "state"):
            os.makedirs(os.path.join(self.dir, name), mode=0o700)
        for program in (SPAWN, WORKER):
            os.symlink(program, os.path.join(self.dir, "libexec", os.path.basename(program)))
        for program in (DROVERD, DROVERCTL):
            os.symlink(program, os.path.join(self.dir, "bin", os.path.basename(program)))
        for plugin in plugin_files():
            target = os.path.join(self.plugin_dir, os.path.basename(plugin))
            shutil.copy(plugin, target)
            os.chmod(target, 0o755)
        self.args, self.launcher = list(args), list(launcher)
        self.bus = None
        self.process = None
        self.extra_env, self.bus_env, self.bus_rules = dict(env or {}), bus_env, bus_rules
        self.pools = dict(pools or {})
        if config:
            with open(os.path.join(self.config_dir, "drover.conf"), "w", encoding="utf-8") as f:
                f.write(config)
        for name, keys in self.pools.items():
            self.write_pool(name, **keys)
        self.wait = wait
        self.stderr = stderr  # instead of the log

    def __enter__(self):
        try:
            self.bus = Bus(self.dir, self.bus_env, self.bus_rules, self.bus_config)
            self.start()
            if self.wait:
                for name in self.pools:
                    self.wait_state(name, "running")
        except BaseException:
            self.print_log()
            self.tear_down()
            raise
        return self

    def __exit__(self, kind, value, traceback):
        if kind:
            self.print_log()
        self.tear_down(check=kind is None)

    # ---- processes ----

    def env(self):
        e = dict(os.environ, DBUS_SESSION_BUS_ADDRESS=self.bus.address if self.bus else "unix:path=/nonexistent")
        e.pop("DBUS_STARTER_ADDRESS", None)
        e["PATH"] = os.path.join(self.dir, "bin") + ":" + e["PATH"]
        e.update(self.extra_env)
        return e

    def command(self):
        d = self.dir
        return [*self.launcher, DROVERD, "--user", f"--config-dir={self.config_dir}", f"--plugin-dir={self.plugin_dir}",
                f"--libexec-dir={d}/libexec", f"--runtime-dir={d}/runtime", f"--state-dir={d}/state", *self.args]

    def start(self, wait=True):
        if self.process and self.process.poll() is not None:
            wait_for(lambda: not self.has_name(), 10, "the bus knows that the one before is gone")
        with open(self.log_path, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(self.command(), env=self.env(), stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log if self.stderr is None else self.stderr, start_new_session=True)
        if wait:
            wait_for(lambda: self.process.poll() is not None or self.has_name(), 20, "droverd owns org.drover1")
            if self.process.poll() is not None:
                raise AssertionError(f"droverd ended with {self.process.returncode}:\n{self.log()}")

    def has_name(self):
        r = subprocess.run(["busctl", "--user", "--json=short", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus",
                            "org.freedesktop.DBus", "NameHasOwner", "s", "org.drover1"],
                           env=self.env(), capture_output=True, text=True, check=False)
        return r.returncode == 0 and unwrap(json.loads(r.stdout))[0]

    def stop(self, seconds=40):
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds * PATIENCE)

    @property
    def pid(self):
        return self.process.pid

    def spawner(self):
        """The spawner's pid: droverd's only child."""
        pids = [pid for pid, name in descendants(self.pid).items() if name.startswith("drover-spawn")
                and stat_of(pid) and stat_of(pid)[2] == self.pid]
        return pids[0] if pids else 0

    def pids(self):
        """Everything that belongs to this daemon, by name."""
        return descendants(self.pid)

    def templates(self):
        """Pids of the templates: children of the spawner that are no worker of the bus."""
        spawner, workers = self.spawner(), {w["Pid"] for w in self.workers()}
        return sorted(pid for pid in descendants(spawner) if pid not in workers) if spawner else []

    def log(self):
        """What it said until now: the process that writes it has nothing left."""
        if not os.path.exists(self.log_path):
            return ""
        def is_writing():
            return any(s and s[0] == "drover-log" and s[1] in "RD" for s in map(stat_of, children()))
        deadline = time.monotonic() + 5
        while is_writing() and time.monotonic() < deadline:
            time.sleep(0.001)
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def print_log(self):
        sys.stderr.write("---- droverd's log ----\n" + "".join(self.log().splitlines(keepends=True)[-80:]) + "----\n")

    def tear_down(self, check=True):
        known = [p.pid for p in (self.process, self.bus and self.bus.process) if p]
        code = 0
        try:
            if self.process and self.process.poll() is None:
                code = self.stop()
            if self.bus:
                self.bus.stop()
            if check:
                self.check_nothing_left(known)
                if code != 0:
                    raise Broken(f"droverd exited {code} on SIGTERM:\n{self.log()}")
                assert_log_is_clean(self.log())
        finally:
            for pid in descendants():
                kill(pid)
            if self.process:
                self.process.wait()
            reap_orphans()
            shutil.rmtree(self.dir, ignore_errors=True)

    def check_nothing_left(self, known=()):
        """A second after the end: no process below this one, no socket file, no memfd here."""
        def left():
            reap_orphans(known)
            return descendants()
        wait_surely(lambda: not left(), 1, "no process is left of droverd")
        sockets = [f for f in glob.glob(f"{self.dir}/runtime/**", recursive=True) if not os.path.isdir(f)]
        if sockets:
            raise Broken(f"files are left in the runtime directory: {sockets}")
        if memfds_of(os.getpid()):
            raise Broken(f"memory files are left: {memfds_of(os.getpid())}")

    # ---- configuration ----

    def write_pool(self, name, **keys):
        self.pools[name] = keys
        lines = {}
        for key, value in keys.items():
            for v in value if isinstance(value, list) else [value]:
                lines.setdefault(SECTION_OF.get(key, "Pool"), []).append(f"{key}={v}")
        text = "".join(f"[{section}]\n" + "\n".join(rows) + "\n" for section, rows in lines.items())
        return self.write_pool_text(name, text)

    def write_pool_text(self, name, text):
        path = os.path.join(self.config_dir, "pools.d", name + ".pool")
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return path

    def remove_pool_file(self, name):
        os.unlink(os.path.join(self.config_dir, "pools.d", name + ".pool"))
        self.pools.pop(name, None)

    def reload(self):
        return self.call(*MANAGER, "Reload", "t", 0)

    # ---- the bus ----

    def busctl(self, *words, check=True, timeout=60):
        r = subprocess.run(["busctl", "--user", *map(str, words)], env=self.env(), capture_output=True, text=True,
                           timeout=timeout * PATIENCE, check=False)
        if check and r.returncode != 0:
            raise AssertionError(f"busctl {' '.join(map(str, words))}: {r.stderr}")
        return r

    def call(self, path, interface, member, signature="", *words, timeout=30):
        """The reply's only value, or a list of them. Raises BusError."""
        command = ["busctl", "--user", "--json=short", f"--timeout={int(timeout * PATIENCE)}", "--", "call",
                   "org.drover1", path, interface, member]
        if signature:
            command += [signature, *map(str, words)]
        # busctl prints only an error's message; its name stands in the trace of messages.
        env = dict(self.env(), SYSTEMD_LOG_LEVEL="debug")
        r = subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout * PATIENCE + 10,
                           check=False)
        if r.returncode != 0:
            name = re.findall(r" error-name=(\S+) ", r.stderr)
            text = re.findall(r"^Call failed: (.*?)(?=\nBus busctl|\Z)", r.stderr, re.MULTILINE | re.DOTALL)
            raise BusError(name[-1] if name else "", text[-1].strip() if text else r.stderr[-500:])
        if not r.stdout.strip():
            return None
        values = unwrap(json.loads(r.stdout))
        return values[0] if isinstance(values, list) and len(values) == 1 else values

    def get(self, path, interface, name):
        r = self.busctl("--json=short", "get-property", "org.drover1", path, interface, name)
        return unwrap(json.loads(r.stdout))

    def get_all(self, path, interface):
        """All properties; {} when the object is gone."""
        r = self.busctl("--json=short", "call", "org.drover1", path, "org.freedesktop.DBus.Properties", "GetAll", "s",
                        interface, check=False)
        return unwrap(json.loads(r.stdout))[0] if r.returncode == 0 else {}

    def run(self, pool, job, options=None, timeout=30, **args):
        return self.call(*MANAGER, "Run", "ssa{sv}a{sv}", pool, job, *dict_words(args), *dict_words(options or {}),
                         timeout=timeout)

    def submit(self, pool, job, options=None, **args):
        """(id, path)"""
        return self.call(*MANAGER, "Submit", "ssa{sv}a{sv}", pool, job, *dict_words(args), *dict_words(options or {}))

    def wait_job(self, path, seconds=20):
        """The job's state once it has a verdict."""
        return self.call(path, "org.drover1.Job", "Wait", "t", int(seconds * PATIENCE * 1000000), timeout=seconds + 5)

    def result(self, path):
        return self.call(path, "org.drover1.Job", "GetResult")

    def job(self, path):
        return self.get_all(path, "org.drover1.Job")

    def pool_path(self, name):
        return self.call(*MANAGER, "GetPool", "s", name)

    def pool(self, name):
        return self.get_all(self.pool_path(name), "org.drover1.Pool")

    def pool_call(self, name, member, signature="", *words):
        return self.call(self.pool_path(name), "org.drover1.Pool", member, signature, *words)

    def wait_state(self, name, state, seconds=20):
        def look():
            properties = self.pool(name)
            if properties.get("State") == "refused" and state != "refused":
                raise AssertionError(f"pool {name} is refused: {properties['Problem']}")
            return properties if properties.get("State") == state else None
        return wait_for(look, seconds, f"pool {name} is {state}")

    def list_workers(self, pool=None):
        """[(id, pool, path, pid, state)]"""
        rows = self.call(*MANAGER, "ListWorkers") or []
        return [row for row in rows if pool is None or row[1] == pool]

    def workers(self, pool=None):
        """Properties of all workers; those that go meanwhile are left out."""
        found = [self.get_all(row[2], "org.drover1.Worker") for row in self.list_workers(pool)]
        return [w for w in found if w]

    def wait_workers(self, pool, n, states=("idle", "running"), seconds=20):
        def look():
            rows = [row for row in self.list_workers(pool) if row[4] in states]
            return rows if len(rows) == n else None
        return wait_for(look, seconds, f"pool {pool} has {n} workers")

    def deaths(self, pool="", n=1000):
        return self.call(*MANAGER, "ListDeaths", "su", pool, n)

    # ---- droverctl ----

    def ctl(self, *words, input=None, timeout=120):
        return subprocess.run([DROVERCTL, "--user", *map(str, words)], env=self.env(), input=input, capture_output=True,
                              text=True, timeout=timeout * PATIENCE, check=False)

    def ctl_start(self, *words, **popen):
        return subprocess.Popen([DROVERCTL, "--user", *map(str, words)], env=self.env(), text=True, **popen)


def assert_log_is_clean(log):
    """No sanitizer said anything, no assertion failed."""
    for word in ("ERROR: AddressSanitizer", "runtime error:", "ERROR: LeakSanitizer", "WARNING: ThreadSanitizer",
                 "Assertion"):
        if word in log:
            raise Broken(f"{word} in the log:\n{log}")


class Test(unittest.TestCase):
    """For tests that share nothing: each starts its own Drover."""

    maxDiff = None
    # What fails here for another reason than time is something lost, doubled or left over.
    is_about_losses = False

    def assert_error(self, name, *words):
        """Context manager: the block must raise BusError `name` (its last part) whose text holds the words."""
        return _ErrorCheck(self, name, words)


class _ErrorCheck:
    def __init__(self, test, name, words):
        self.test, self.name, self.words = test, name, words

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        self.test.assertIsNotNone(kind, f"no error, {self.name} expected")
        if not issubclass(kind, BusError):
            return False
        self.error = value
        self.test.assertEqual(value.name.rpartition(".")[2], self.name, value)
        for word in self.words:
            self.test.assertIn(word, value.text)
        return True


class _Result(unittest.TextTestResult):
    """Says which failures are broken promises."""

    def judge(self, test, error):
        is_late = isinstance(error, (Late, subprocess.TimeoutExpired))
        if isinstance(error, Broken) or (getattr(test, "is_about_losses", False) and not is_late):
            say_broken(f"{test.id()}: {error}")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.judge(test, err[1])

    def addError(self, test, err):
        super().addError(test, err)
        self.judge(test, err[1])

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err:
            self.judge(test, err[1])


def main():
    """As unittest.main, but broken promises are marked, and a run that skipped every test says so to meson (77)."""
    runner = unittest.TextTestRunner(verbosity=2, resultclass=_Result)
    result = unittest.main(testRunner=runner, exit=False).result
    is_skipped = result.wasSuccessful() and result.skipped and len(result.skipped) >= result.testsRun
    sys.exit(77 if is_skipped else not result.wasSuccessful())
