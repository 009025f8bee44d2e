"""dbus-broker as a private bus: broker_bus.py SOCKET CONFIG, until SIGTERM.

dbus-broker-launch wants to be started by systemd and to log to the journal. Here it gets its listening socket the way
systemd passes it, and a journal socket that nobody reads, mounted where only it sees it: that needs root, or this ends
with status 77.
"""

import ctypes
import os
import signal
import socket
import sys
import threading

CLONE_NEWNS = 0x20000
MS_REC, MS_PRIVATE = 0x4000, 0x40000


def hide_journal():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) \
            or libc.mount(b"none", b"/run", b"tmpfs", 0, None):
        print("no private /run:", os.strerror(ctypes.get_errno()), file=sys.stderr)
        sys.exit(77)
    os.makedirs("/run/systemd/journal")
    journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    journal.bind("/run/systemd/journal/socket")

    def drain():
        while True:
            journal.recv(65536)

    threading.Thread(target=drain, daemon=True).start()


def main():
    path, config = sys.argv[1:]
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    os.chmod(path, 0o777)
    listener.listen(64)
    hide_journal()

    def become_listener():
        os.dup2(listener.fileno(), 3)
        os.set_inheritable(3, True)
        os.environ["LISTEN_PID"] = str(os.getpid())
        os.execvp("dbus-broker-launch", ["dbus-broker-launch", "--scope", "user", "--config-file", config])

    # The launcher is a client of its own bus.
    os.environ.update(LISTEN_FDS="1", LISTEN_FDNAMES="dbus.socket", DBUS_SESSION_BUS_ADDRESS="unix:path=" + path)
    pid = os.fork()
    if pid == 0:
        become_listener()
    signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
    os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
