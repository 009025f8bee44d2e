"""droverd as the system's: droverd and its spawner as two users, a bus with a system bus's limits and policy, callers
of any uid.

    with System({"p": {"Plugin": "echo", "Workers": 2}}) as d:
        subprocess.Popen([...], env=d.env(), preexec_fn=…)     # as uid 23001: it is as if in group drover

Needs root. The stderr of both is a pipe that nobody reads before the end, if `is_log_read` is False.
"""

import array
import fcntl
import os
import re
import shutil
import socket
import subprocess
import sys
import termios
import threading

import harness
from harness import BUILD, SOURCE, Broken, Drover, kill

PIPE_BYTES = 4096
BROKER, SPAWNER = "daemon", "bin"  # users that every Debian has

# What /usr/share/dbus-1/system.conf says of limits and policy: no limit is set, so dbus-daemon's own hold.
BUS_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={path}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Introspectable"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Properties"/>
    <deny send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Debug.Stats"/>
    <!-- The one thing that others than droverd may be called for: how long a call and its answer take here. -->
    <allow send_interface="org.freedesktop.DBus.Peer" send_member="Ping"/>
  </policy>
  <policy user="root">
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Debug.Stats"/>
  </policy>
  {rules}
</busconfig>
"""


def drover_policy():
    """What is installed, for our broker's user, and as if everybody were in group drover."""
    with open(f"{SOURCE}/units/org.drover1.conf", encoding="utf-8") as f:
        policies = re.findall(r"<policy .*?</policy>", f.read(), re.DOTALL)
    return "\n".join(policies).replace('user="drover"', f'user="{BROKER}"').replace('group="drover"',
                                                                                    'context="default"')


def as_user(user):
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]


class System(Drover):
    bus_config = BUS_CONFIG

    def __init__(self, pools=None, is_log_read=True, **options):
        super().__init__(pools, bus_env={"LD_PRELOAD": f"{BUILD}/tests/integration/any-user.so"},
                         bus_rules=drover_policy(), **options)
        self.is_log_read = is_log_read
        self.spawn_process = self.log_pipe = None
        for name in os.listdir(f"{self.dir}/libexec"):  # the build may lie where only root may look
            self.copy(os.path.realpath(f"{self.dir}/libexec/{name}"), f"{self.dir}/libexec/{name}")
        self.copy(harness.DROVERD, f"{self.dir}/bin/droverd")
        for folder, _, _ in os.walk(self.dir):
            os.chmod(folder, 0o755)
        for name in ("runtime", "state"):
            shutil.chown(f"{self.dir}/{name}", BROKER, BROKER)

    @staticmethod
    def copy(source, target):
        os.unlink(target)
        shutil.copy(source, target)
        os.chmod(target, 0o755)

    def start_spawner(self):
        """As systemd does: descriptor 3 is the socket that it listens on."""
        path = f"{self.dir}/runtime/spawn"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(path)
            os.chmod(path, 0o600)
            shutil.chown(path, BROKER, BROKER)
            listener.listen(8)
            script = f'exec 3<&{listener.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
            words = as_user(SPAWNER) + ["sh", "-c", script, "sh", f"{self.dir}/libexec/drover-spawn",
                                        f"--broker-user={BROKER}",
                                        f"--plugin-dir={self.plugin_dir}", f"--worker={self.dir}/libexec/drover-worker"]
            with open(self.log_path, "a", encoding="utf-8") as log:
                self.spawn_process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log,
                                                      pass_fds=[listener.fileno()],
                                                      stderr=log if self.stderr is None else self.stderr,
                                                      start_new_session=True)

    def command(self):
        d = self.dir
        return as_user(BROKER) + [f"{d}/bin/droverd", "--system", f"--address={self.bus.address}",
                                  f"--config-dir={self.config_dir}",
                                  f"--plugin-dir={self.plugin_dir}", f"--libexec-dir={d}/libexec",
                                  f"--runtime-dir={d}/runtime",
                                  f"--state-dir={d}/state"] + self.args

    def start(self, wait=True):
        if not self.is_log_read:
            self.log_pipe, self.stderr = os.pipe()
            fcntl.fcntl(self.log_pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.start_spawner()
        super().start(wait)
        if self.log_pipe is not None:
            os.close(self.stderr)

    def unread_bytes(self):
        """Of the log that nobody reads: no more than PIPE_BYTES."""
        n = array.array("i", [0])
        fcntl.ioctl(self.log_pipe, termios.FIONREAD, n)
        return n[0]

    def spawner(self):
        return self.spawn_process.pid

    def pids(self):
        return {**harness.descendants(self.pid), **harness.descendants(self.spawner()), self.spawner(): "drover-spawn"}

    def read_log(self):
        """Somebody reads it again: until droverd ends, in a thread."""
        def read(fd):
            with os.fdopen(fd, "rb") as pipe, open(self.log_path, "ab") as log:
                while data := pipe.read1(65536):
                    log.write(data)
                    log.flush()
        if self.log_pipe is not None:
            threading.Thread(target=read, args=(self.log_pipe,), daemon=True).start()
            self.log_pipe = None

    def end_spawner(self):
        self.spawn_process.terminate()
        try:
            self.spawn_process.wait(10 * harness.PATIENCE)
        except subprocess.TimeoutExpired:
            kill(self.spawn_process.pid)
            self.spawn_process.wait()
            raise Broken("the spawner does not end on SIGTERM") from None
        os.unlink(f"{self.dir}/runtime/spawn")

    def __exit__(self, kind, value, traceback):
        if self.bus.process.returncode is None:
            super().__exit__(kind, value, traceback)

    def end(self):
        """While another one runs, which looks at its own end for what this one left, too."""
        self.read_log()
        code = self.stop()
        if code != 0:
            raise Broken(f"droverd exited {code} on SIGTERM:\n{self.log()}")
        self.end_spawner()
        self.bus.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    def print_log(self):
        """And who waits where: what was too late is seldom said in a log."""
        super().print_log()
        for pid, name in {self.pid: "droverd", **self.pids()}.items():
            try:
                with open(f"/proc/{pid}/wchan", encoding="ascii") as wchan, open(f"/proc/{pid}/syscall",
                                                                                 encoding="ascii") as call:
                    print(f"{name} {pid} {(harness.stat_of(pid) or '??')[1]}: {wchan.read() or '-'}, system call "
                          f"{call.read().strip()}", file=sys.stderr)
            except OSError:
                pass  # gone

    def tear_down(self, check=True):
        if not check and self.process:
            kill(self.pid)
            self.process.wait()
        self.read_log()
        code = self.stop() if check and self.process and self.process.poll() is None else 0
        if check and self.spawn_process:
            self.end_spawner()
        super().tear_down(check)
        if code != 0:
            raise Broken(f"droverd exited {code} on SIGTERM")
