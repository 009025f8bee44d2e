"""What a job emits with drover_emit, as whoever opened its stream reads it: in order, whole or cut off and told so, and
at nobody else's cost."""

import os
import socket
import subprocess

from harness import BUILD, MANAGER, WORKER, Drover, Test, main, wait_for
from sdbus import Connection, u64

NOBODY = 65534
JOB = "org.drover1.Job"
LARGEST = 65536


class Stream:
    """A stream's descriptor; `cut` once it was cut off."""

    def __init__(self, fd):
        self.socket = socket.socket(fileno=fd)
        self.socket.settimeout(20)
        self.cut = False

    def next(self):
        """An item; None at the end, whichever."""
        try:
            return self.socket.recv(LARGEST + 1) or None
        except ConnectionResetError:
            self.cut = True
            return None

    def all(self):
        return list(iter(self.next, None))

    def close(self):
        self.socket.close()


class Streams(Test):
    @classmethod
    def setUpClass(cls):
        one = {"Workers": 1, "StartMethod": "fork", "RestartSec": "10ms"}
        cls.drover = Drover({"sieve": {"Plugin": "sieve", **one},
                             "emits": {"Plugin": "emits", "ResultTTL": "30s", **one},
                             "foul": {"Plugin": "emits", **one, "MaxAttempts": 1}})
        cls.d = cls.drover.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.drover.__exit__(None, None, None)

    def setUp(self):
        self.c = self.connect()

    def connect(self, uid=None):
        c = Connection(self.d.bus.address, uid)
        self.addCleanup(c.close)
        return c

    def submit(self, pool, job, options=None, **args):
        return self.d.submit(pool, job, options, **args)[1]

    def open(self, path, connection=None):
        reply = (connection or self.c).call(path, JOB, "OpenStream")
        stream = Stream(os.dup(reply.read("h")[0]))
        self.addCleanup(stream.close)
        return stream

    def numbers(self, stream):
        items = [int(item.rstrip(b".")) for item in stream.all()]
        self.assertFalse(stream.cut)
        return items

    def numbers_of_a_part(self, stream):
        """It lacks the first ones and says so, wherever among the others it says it."""
        items = [int(item.rstrip(b".")) for item in stream.all()]
        self.assertTrue(stream.cut, "a part looks like the whole")
        return items + [int(item.rstrip(b".")) for item in stream.all()]

    def emit(self, n, size=0, pause_ms=0, options=None):
        return self.submit("emits", "count", options, n=n, bytes=size, pause_ms=pause_ms)

    # ---- the ordinary ----

    def test_row_43_a_job_streams_its_items(self):
        """The first ones are there long before the last."""
        job = self.submit("sieve", "primes", {"stream": True}, to=20000)
        stream = self.open(job)
        primes = [2]
        self.assertEqual(stream.next(), b"2")
        self.assertEqual(self.d.job(job)["State"], "running")  # it waits for its reader
        primes += self.numbers(stream)
        self.assertEqual((len(primes), primes[:5], primes[-1]), (2262, [2, 3, 5, 7, 11], 19997))
        self.assertEqual(self.d.wait_job(job), "done")
        self.assertEqual(self.d.result(job)["result"], {"count": 2262})

    def test_what_it_refuses(self):
        stream = self.open(job := self.submit("emits", "refused"))
        self.assertEqual(stream.all(), [bytes(LARGEST)])
        self.assertEqual(self.d.result(job)["result"], {"empty": -22, "largest": 0, "larger": -90})

    def test_run_without_a_daemon_prints_items(self):
        sieve = f"{BUILD}/plugins/sieve/sieve.so"
        out = subprocess.run([WORKER, "--run", sieve, "primes", "to=7"], capture_output=True, text=True,
                             check=True).stdout
        self.assertEqual(out, "item=2\nitem=3\nitem=5\nitem=7\ncount=4\n")

    # ---- who comes late ----

    def test_of_a_job_that_is_over_the_newest_items_are_kept_once(self):
        job = self.emit(5)
        self.d.wait_job(job)
        self.assertEqual(self.numbers(self.open(job)), [0, 1, 2, 3, 4])
        with self.assert_error("ResultExpired", "fetched"):
            self.open(job)
        job = self.emit(5000)
        self.assertEqual(self.d.wait_job(job), "done")  # nobody reads, and it does not wait
        items = self.numbers_of_a_part(self.open(job))
        self.assertEqual(items, list(range(5000 - len(items), 5000)))
        self.assertGreaterEqual(len(items), 256)

    def test_who_comes_after_items_that_went_to_another_is_told(self):
        job = self.emit(1000, options={"stream": True})
        first = self.open(job)
        self.assertEqual([int(first.next()) for _ in range(30)], list(range(30)))
        second = self.open(job)
        pid = os.fork()  # they go in step
        if pid == 0:
            os._exit(0 if [int(i) for i in first.all()] == list(range(30, 1000)) and not first.cut else 1)
        items = self.numbers_of_a_part(second)
        self.assertEqual(items, list(range(1000 - len(items), 1000)))
        self.assertEqual(os.waitpid(pid, 0)[1], 0)

    def test_of_a_job_that_emitted_nothing(self):
        job = self.emit(0)
        self.d.wait_job(job)
        self.assertEqual(self.open(job).all(), [])
        self.assertEqual(self.open(job).all(), [])

    def test_opened_before_it_runs_nothing_is_missing(self):
        first = self.emit(1, pause_ms=300)
        job = self.emit(3000)
        stream = self.open(job)
        self.assertEqual(self.numbers(stream), list(range(3000)))
        self.d.wait_job(first)

    def test_several_readers(self):
        first = self.emit(1, pause_ms=300)
        job = self.emit(1000)
        streams = [self.open(job) for _ in range(4)]
        with self.assert_error("LimitsExceeded", "4 of one job"):
            self.open(job)
        streams.pop().close()
        streams.append(self.open(job))
        children = []
        for stream in streams:  # each must be read at the same time: they go in step
            pid = os.fork()
            if pid == 0:
                os._exit(0 if [int(i) for i in stream.all()] == list(range(1000)) and not stream.cut else 1)
            children.append(pid)
        self.assertEqual([os.waitpid(pid, 0)[1] for pid in children], [0] * 4)
        self.d.wait_job(first)

    def test_kept_for_a_bounded_number_of_jobs(self):
        cookies = [self.c.send(*MANAGER, "Submit", "ssa{sv}a{sv}", b"emits", b"slowly", 1, b"n", b"t", u64(1), 0)
                   for _ in range(70)]
        jobs = [self.c.reply(cookie).read("to")[1] for cookie in cookies]
        self.d.wait_job(jobs[-1])
        with self.assert_error("ResultExpired", "make room"):
            self.open(jobs[0])
        self.assertEqual(self.numbers(self.open(jobs[-1])), [0])

    def test_a_job_that_is_queued_once_more_streams_anew(self):
        job = self.submit("foul", "twice", first=3, second=2, asks=False)
        self.assertEqual(self.d.wait_job(job), "poisoned")
        self.assertEqual(self.numbers(self.open(job)), [0, 1, 2])
        self.d.call(job, JOB, "Requeue")
        stream = self.open(job)
        self.assertEqual(self.numbers(stream), [0, 1, 2])
        self.d.wait_job(job)

    # ---- attempts ----

    def test_a_retry_is_another_stream(self):
        for asks in False, True:
            first = self.emit(1, pause_ms=300)
            job = self.submit("emits", "twice", first=3, second=2, asks=asks)
            stream = self.open(job)
            items = []
            for item in iter(stream.next, None):
                items.append(int(item))
            self.assertTrue(stream.cut, "the end of an attempt that is not the last is not the end")
            items += [int(item) for item in stream.all()]  # what was on its way is still there
            self.assertEqual(items, [0, 1, 2][:len(items)])
            self.assertEqual(self.numbers(self.open(job)), [100, 101])
            self.assertEqual((self.d.wait_job(job), self.d.job(job)["Attempt"]), ("done", 2))
            self.d.wait_job(first)

    def test_items_of_an_attempt_that_was_not_the_last_are_not_kept(self):
        for asks in False, True:
            job = self.submit("emits", "twice", first=3, second=0, asks=asks)
            self.assertEqual(self.d.wait_job(job), "done")
            self.assertEqual(self.open(job).all(), [])

    # ---- readers at fault ----

    def test_who_does_not_read_holds_up_one_job_and_is_cut_off(self):
        job = self.emit(5000, options={"stream": True})
        stream = self.open(job)
        wait_for(lambda: self.d.job(job)["State"] == "running", 10, "it runs")
        stamp = self.d.job(job)["StartedUSec"]
        self.assertEqual(len(self.d.run("sieve", "primes", to=100)), 1)  # others do not notice
        state = self.d.wait_job(job, 25)
        self.assertEqual(state, "done")
        took = (self.d.job(job)["FinishedUSec"] - stamp) / 1e6
        self.assertGreater(took, 4)
        self.assertIsNone(stream.next())
        self.assertTrue(stream.cut)

    def test_who_reads_slowly_gets_everything(self):
        job = self.emit(1000, options={"stream": True})
        stream = self.open(job)
        for i in range(20):
            self.assertEqual(stream.next(), str(i).encode())
            self.d.job(job)  # some milliseconds
        self.assertEqual(self.d.job(job)["State"], "running")
        self.assertEqual(self.numbers(stream), list(range(20, 1000)))

    def test_streams_to_be_opened_are_bounded_and_leave_some_to_others(self):
        far = u64(2 ** 60)
        jobs = []

        def reserve():
            reply = self.c.call(*MANAGER, "Submit", "ssa{sv}a{sv}", b"sieve", b"primes", 1, b"to", b"t", u64(7),
                                2, b"stream", b"b", 1, b"not-before", b"t", far)
            jobs.append(reply.read("to")[1])

        for _ in range(128):
            reserve()
        with self.assert_error("LimitsExceeded", "streams"):
            reserve()
        self.open(jobs[0])  # its place was reserved
        for job in jobs:
            self.c.call(job, JOB, "Cancel", "s", b"queued")
        self.assertEqual(self.numbers(self.open(self.emit(10, options={"stream": True}))), list(range(10)))

    def test_jobs_that_never_run_cost_a_slow_reader_nothing(self):
        job = self.emit(3000, size=1000, options={"stream": True})
        stream = self.open(job)
        self.assertEqual(stream.next().rstrip(b"."), b"0")
        for i in range(1, 13):
            queued = self.emit(1, options={"stream": True})
            self.assertEqual(self.d.call(queued, JOB, "Cancel", "s", "queued"), "cancelled")
            self.assertEqual((stream.next() or b"cut off").rstrip(b"."), str(i).encode())
        self.assertEqual(self.d.job(job)["State"], "running")
        self.assertEqual(self.numbers(stream), list(range(13, 3000)))

    def test_a_reader_that_dies_costs_nothing(self):
        job = self.emit(5000, options={"stream": True})
        stream = self.open(job)
        stream.next()
        stream.close()
        self.assertEqual(self.d.wait_job(job), "done")

    def test_the_last_items_of_a_job_wait_for_its_reader_and_not_the_next_job(self):
        job = self.emit(400, options={"stream": True})  # more than one socket holds, less than two
        stream = self.open(job)
        self.assertEqual(self.d.wait_job(job), "done")
        self.assertEqual(self.numbers(self.open(self.emit(10, options={"stream": True}))), list(range(10)))
        self.assertEqual(self.numbers(stream), list(range(400)))

    def test_who_waits_for_a_reader_can_be_cancelled(self):
        job = self.emit(5000, options={"stream": True})
        stream = self.open(job)
        wait_for(lambda: self.d.job(job)["State"] == "running", 10, "it runs")
        self.assertEqual(self.d.call(job, JOB, "Cancel", "s", "ask"), "asked")
        self.assertEqual(self.d.wait_job(job), "cancelled")
        items = self.numbers(stream)
        self.assertEqual(items, list(range(len(items))))

    def test_a_reader_cannot_send(self):
        job = self.emit(1000, options={"stream": True})
        stream = self.open(job)
        with self.assertRaises(BrokenPipeError):
            stream.socket.send(b"x")
        self.assertEqual(self.numbers(stream), list(range(1000)))

    # ---- others ----

    def test_a_foreign_job_is_an_unknown_one(self):
        if os.geteuid() != 0:
            self.skipTest("only root can be somebody else")
        os.chmod(self.d.dir, 0o711)
        job = self.emit(1)
        other = self.connect(NOBODY)
        for path in job, "/org/drover1/job/999999999":
            with self.assert_error("NoSuchJob"):
                self.open(path, other)
        self.d.wait_job(job)

    def test_the_job_of_a_session(self):
        client = self.d.ctl_start("map", "emits", "slowly", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        client.stdin.write("100\n")
        client.stdin.close()
        running = (*MANAGER, "ListJobs", "a{sv}su", 2, "pool", "s", "emits", "state", "as", 1, "running", "", 100)
        row = wait_for(lambda: [r for r in self.d.call(*running)[0] if r[0] >> 40], 10, "the session's job")[0]
        items = self.numbers(self.open(row[1]))
        self.assertEqual(items, list(range(100 - len(items), 100)))
        self.assertGreater(len(items), 10)
        self.assertEqual(client.wait(20), 0)
        client.stdout.close()

    # ---- workers at fault ----

    def test_packets_that_make_no_sense_cost_the_worker(self):
        for kind in "short", "empty", "length", "version", "large":
            job = self.submit("foul", "garbage", kind=kind, n=1)
            self.assertEqual(self.d.wait_job(job), "poisoned", kind)
        self.assertEqual(self.d.run("foul", "count", n=1, bytes=0, pause_ms=0), {"n": 1})

    def test_packets_for_other_jobs_and_floods_harm_nobody(self):
        victim = self.emit(40, pause_ms=20, options={"stream": True})
        stream = self.open(victim)
        job = self.submit("foul", "garbage", {"soft-timeout": ("t", 1000000)}, kind="foreign", n=0)
        self.assertEqual(self.numbers(stream), list(range(40)))
        self.assertEqual(len(self.d.run("sieve", "primes", to=100)), 1)
        self.d.call(job, JOB, "Cancel", "s", "ask")
        self.assertIn(self.d.wait_job(job), ("cancelled", "timed-out", "failed"))


class Ends(Test):
    def test_a_stream_that_the_daemon_did_not_end_is_cut_off(self):
        with Drover({"emits": {"Plugin": "emits", "Workers": 1, "StartMethod": "fork"}}) as d:
            job = d.submit("emits", "count", {"stream": True}, n=100000, bytes=0, pause_ms=1)[1]
            c = Connection(d.bus.address)
            reply = c.call(job, JOB, "OpenStream")
            stream = Stream(os.dup(reply.read("h")[0]))
            self.assertEqual(stream.next(), b"0")
            os.kill(d.pid, 9)
            d.process.wait()
            stream.all()
            self.assertTrue(stream.cut)
            stream.close()
            c.close()
            wait_for(lambda: not d.has_name(), 10, "the bus knows")
            d.start()


if __name__ == "__main__":
    main()
