"""What a call of Run costs droverd: system calls, which are counted, and so are the same on a busy machine."""

import os
import re
import shutil
import subprocess
import tempfile
import unittest

from harness import IS_SANITIZED, MANAGER, Drover, Test, main, wait_for
from sdbus import Connection, u64

CALLS = 400
RUN = (*MANAGER, "Run", "ssa{sv}a{sv}", b"p", b"is_prime", 1, b"n", b"t", u64(97), 0)


def window(c, n):
    """CALLS calls, n of them under way."""
    cookies = [c.send(*RUN) for _ in range(n)]
    for i in range(CALLS):
        c.reply(cookies[i])
        if len(cookies) < CALLS:
            cookies.append(c.send(*RUN))


@unittest.skipIf(IS_SANITIZED, "sanitizers make calls of their own")
@unittest.skipUnless(shutil.which("strace"), "strace is not installed")
class Costs(Test):
    def calls_of(self, pid, fn, *args):
        """System calls that it makes meanwhile, for each Run: by name. Not its clock's, of which there are more the
        longer it takes."""
        with tempfile.NamedTemporaryFile("r") as out:
            tracer = subprocess.Popen(["strace", "-f", "-c", "-o", out.name, "-p", str(pid)], stderr=subprocess.DEVNULL)
            wait_for(lambda: tracer.poll() is not None or self.is_traced(pid), 10, "strace is attached, or may not")
            if tracer.poll() is not None:
                self.skipTest("strace may not attach here")
            fn(*args)
            tracer.send_signal(2)
            tracer.wait(20)
            rows = re.findall(r"^ *[0-9.]+ +[0-9.]+ +\d+ +(\d+) +(?:\d+ +)?(\w+)$", out.read(), re.M)
        return {name: int(n) / CALLS for n, name in rows if name not in ("clock_gettime", "total")}

    def is_traced(self, pid):
        with open(f"/proc/{pid}/status", encoding="utf-8") as f:
            return "TracerPid:\t0\n" not in f.read()

    def test_system_calls_of_a_run(self):
        with Drover({"p": {"Plugin": "primes", "Workers": 1}}) as d:
            os.chmod(d.dir, 0o711)  # to the bus
            for uid in (None, 2) if os.geteuid() == 0 else (None,):
                with Connection(d.bus.address, uid) as c:
                    window(c, 64)
                    for n, most in (1, 10), (64, 9):
                        calls = self.calls_of(d.pid, window, c, n)
                        print(f"uid {uid or os.getuid()}, {n} at a time: {sum(calls.values()):.1f} a Run "
                              f"({', '.join(f'{k} {v:.1f}' for k, v in sorted(calls.items()) if v >= .1)})", flush=True)
                        self.assertGreaterEqual(sum(calls.values()), 1, "strace counted, and its table was read")
                        self.assertLessEqual(sum(calls.values()), most, calls)


if __name__ == "__main__":
    main()
