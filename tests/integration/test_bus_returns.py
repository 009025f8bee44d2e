"""libdrover when its connection to the bus breaks: the bus goes and comes back, hangs, or throws the program out."""

import os
import platform
import signal
import socket
import threading
import unittest

from harness import MANAGER, PATIENCE, Drover, main, wait_for
from test_library import MAY_LEAK, Beside, Case

POOLS = {name: {"Plugin": "squares", "Workers": 1} for name in ("single", "other")}
PPOLL = {"x86_64": 271, "aarch64": 73}.get(platform.machine())
CONNECTIONS = 7  # in a second: one in 200 ms, and one at either end


def goes(d):
    """It is killed, and droverd ends with it."""
    d.bus.process.kill()
    d.bus.process.wait()
    d.process.wait(20 * PATIENCE)


def comes(d):
    d.bus.start()
    d.start()


def is_restarted(d):
    """As it should be, this time."""
    d.bus.stop()
    d.process.wait(20 * PATIENCE)
    comes(d)


def waits_in_poll(pid):
    with open(f"/proc/{pid}/syscall", encoding="ascii") as f:
        return f.read().split()[0] == str(PPOLL)


class NoBus:
    """Somebody else at the bus's address."""

    def __init__(self, path):
        self.path, self.n_calls = path, 0
        if os.path.exists(path):
            os.unlink(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(path)
        self.socket.listen(100)

    def refuse(self):
        """From now on, each that calls; those that did before do not count."""
        self.socket.setblocking(False)
        try:
            while True:
                self.socket.accept()[0].close()
        except BlockingIOError:
            self.socket.setblocking(True)
        self.thread = threading.Thread(target=self.answer)
        self.thread.start()

    def answer(self):
        while True:
            try:
                self.socket.accept()[0].close()
            except OSError:
                return
            self.n_calls += 1

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.socket.close()


class BusReturns(Beside):
    is_about_losses = True

    def test_the_bus_is_started_again(self):
        with Drover(POOLS) as d:
            self.around(d, "bus-returns", goes, comes, is_restarted)

    @unittest.skipUnless(PPOLL, "the number of ppoll is not known here")
    def test_a_wait_goes_on_while_the_bus_is_started_again(self):
        with Drover(POOLS) as d:
            program = Case(self, d, "bus-returns-in-a-wait")
            self.assertEqual(program.line(), "ready")
            program.tell()
            wait_for(lambda: waits_in_poll(program.process.pid), 10, "it waits for the verdict")
            is_restarted(d)
            program.end()

    def test_a_bus_that_is_gone_makes_no_work(self):
        with Drover(POOLS) as d:
            d.extra_env = MAY_LEAK
            self.around(d, "bus-gone", goes, comes)

    def test_a_bus_that_does_not_answer_is_not_called_all_the_time(self):
        with Drover(POOLS) as d:
            program = Case(self, d, "bus-hangs")
            self.assertEqual(program.line(), "ready")
            goes(d)
            nobody = NoBus(d.bus.path)
            program.tell()
            self.assertEqual(program.line(), "ready")
            nobody.refuse()
            program.tell()
            self.assertEqual(program.line(), "ready")
            nobody.close()
            self.assertGreater(nobody.n_calls, 1)
            self.assertLessEqual(nobody.n_calls, CONNECTIONS)
            comes(d)
            program.end("\n")

    @unittest.skipUnless(PPOLL, "the number of ppoll is not known here")
    def test_a_call_that_waits_for_droverd_when_the_bus_goes(self):
        with Drover(POOLS) as d:
            program = Case(self, d, "bus-goes-in-a-call")
            for _ in range(4):
                self.assertEqual(program.line(), "ready")
                os.kill(d.pid, signal.SIGSTOP)
                program.tell()
                wait_for(lambda: waits_in_poll(program.process.pid), 10, "it waits for an answer")
                d.bus.process.kill()
                d.bus.process.wait()
                os.kill(d.pid, signal.SIGCONT)
                self.assertEqual(program.line(), "ready")
                d.process.wait(20 * PATIENCE)
                comes(d)
                program.tell()
            program.end()

    def test_a_program_that_the_bus_threw_out_opens_its_pool_again(self):
        def count(d):
            self.assertEqual(len(d.call(*MANAGER, "ListJobs", "a{sv}su", 0, "", 10)[0]), 3)

        with Drover(POOLS) as d:
            self.around(d, "thrown-out", count)


if __name__ == "__main__":
    main()
