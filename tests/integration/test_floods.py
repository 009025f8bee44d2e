"""Many callers, and callers that do much, on a bus with the limits of a system bus: droverd serves all of them, and lives."""

import json
import os
import signal
import subprocess
import time
import unittest

import harness
from harness import BUILD, IS_SANITIZED, MANAGER, PATIENCE, BusError, Drover, Test, assert_in_time, pause, unwrap, wait_for
from sdbus import Connection, u64
from test_wild_writes import cpu_of

IS_BROKER = os.environ.get("DROVER_TEST_BUS") == "dbus-broker"
MANY_REPLIES = '<limit name="max_replies_per_connection">50000</limit>'
FLOODER = f"{BUILD}/tests/integration/flooder"
# Whom Debian's passwd knows: dbus-daemon hangs up on others, and has 256 connections for each.
NOBODY, HOSTILE, HONEST = UIDS = (65534, 1, 2)
POOL = {"Plugin": "sleep", "Workers": 2, "StartMethod": "fork"}


def sleep(member="Run", pool=b"p"):
    return *MANAGER, member, "ssa{sv}a{sv}", pool, b"sleep", 1, b"ms", b"t", u64(0), 0


def stats_of(d, name="org.drover1"):
    """What dbus-daemon tells of a connection; dbus-broker tells nothing."""
    r = d.busctl("--json=short", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus.Debug.Stats",
                 "GetConnectionStats", "s", name, check=False)
    return unwrap(json.loads(r.stdout))[0] if r.returncode == 0 else None


def switches_of(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        return [line for line in f if line.startswith("voluntary_ctxt_switches")]


class Flood:
    """Processes that call until the end of the block."""

    def __init__(self, d, what, processes=1, connections=1, window=128, uid=HOSTILE):
        words = [FLOODER, what, str(uid), str(connections), str(window)]
        self.processes = [subprocess.Popen(words, env=d.env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(processes)]

    def __enter__(self):
        for p in self.processes:
            assert p.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_):
        for p in self.processes:
            p.kill()
            p.stdin.close()
            p.stdout.close()
            p.wait()

    def end(self):
        """Calls sent, answered, and refused among these."""
        return [sum(numbers) for numbers in zip(*(map(int, p.communicate("")[0].split()) for p in self.processes))]


class Floods(Test):
    def start(self, pools=None, limits="", **options):
        drover = Drover(pools or {"p": POOL, "q": POOL}, bus_rules=harness.SYSTEM_REPLIES + limits, **options)
        d = drover.__enter__()
        self.addCleanup(drover.__exit__, None, None, None)
        os.chmod(d.dir, 0o711)  # to the bus
        return d

    def connect(self, d, uid=None):
        c = Connection(d.bus.address, uid)
        self.addCleanup(c.close)
        return c

    # ---- names ----

    @unittest.skipUnless(os.geteuid() == 0, "needs root: dbus-daemon has 256 connections for one user")
    def test_more_callers_than_match_rules(self):
        """600 names call and stay: all are answered, the rules are bounded, and the end of each is heard of."""
        d = self.start()
        names = [self.connect(d, UIDS[i % 3]) for i in range(600)]
        for cookie, c in [(c.send(*MANAGER, "GetPool", "s", b"p"), c) for c in names]:
            self.assertEqual(c.reply(cookie).read("o"), ["/org/drover1/pool/p"])
        has_stats = stats_of(d) is not None
        if has_stats:
            self.assertLessEqual(stats_of(d)["MatchRules"], 129)
        d.pool_call("p", "Pause")
        for c in names:
            c.send(*sleep())
        wait_for(lambda: d.pool("p")["Queued"] == 600, 20, "the runs are there")
        for c in names[:550]:
            c.close()
        wait_for(lambda: d.pool("p")["Cancelled"] == 550, 20, "who left has its run cancelled")
        if has_stats:
            wait_for(lambda: stats_of(d)["MatchRules"] <= 51, 10, "few callers have a rule each, and the wide one is gone")
            before = switches_of(d.pid)
            for _ in range(3):
                Connection(d.bus.address).close()  # a stranger
            self.assertEqual(switches_of(d.pid), before)
        for c in names[550:]:
            c.close()
        wait_for(lambda: d.pool("p")["Cancelled"] == 600, 20, "who left has its run cancelled")
        if has_stats:
            wait_for(lambda: stats_of(d)["MatchRules"] <= 1, 10, "nothing is left of them")

    def check_limit(self, rules, n):
        """So many rules for a connection, n names: what each call got."""
        d = self.start(wait=False, limits=f'<limit name="max_match_rules_per_connection">{rules}</limit>')
        got = []
        names = [self.connect(d) for _ in range(n)]
        for c in names:
            try:
                got.append(c.call(*MANAGER, "GetPool", "s", b"p").read("o")[0])
            except BusError as error:
                got.append(error.name)
        self.assertTrue(d.has_name())
        return got

    def test_fewer_rules_than_we_think(self):
        self.assertEqual(set(self.check_limit(20, 60)), {"/org/drover1/pool/p"})

    def test_no_rule_at_all(self):
        self.assertEqual(set(self.check_limit(0, 3)), {"org.freedesktop.DBus.Error.LimitsExceeded"})

    # ---- what workers print ----

    def check_crumbs(self, what):
        """Four workers print that as fast as it is read: what droverd spends meanwhile, and how much it logs."""
        n = 4
        with Drover({"f": {"Plugin": "flood", "Workers": n}}) as d, Connection(d.bus.address) as c:
            for _ in range(n):
                d.submit("f", "crumbs", what=what, ms=int(3000 * PATIENCE))
            wait_for(lambda: d.pool("f")["Running"] == n, 20, "all run")
            spent, since = cpu_of([d.pid]), time.monotonic()
            for _ in range(20):
                c.call(*MANAGER, "ListPools", "")
                pause(0.1)
            spent, took = cpu_of([d.pid]) - spent, time.monotonic() - since
            lines = d.log().count(", worker ")
            print(f"{what!r}: {spent:.2f} s of CPU in {took:.1f} s, {lines} lines", flush=True)
            self.assertLess(spent, 0.1 * took * PATIENCE)
            self.assertGreater(lines, n)
            self.assertLess(lines, n * 257 * (took + 5), "256 lines a second, and what is lost")

    def test_crumbs_of_workers(self):
        """Lines of one byte, blank ones, zero bytes, where a mark may begin: each costs far more than a byte."""
        for what in "a\n", "a" + 7 * "\n", "0":
            self.check_crumbs(what)

    def test_no_orders_to_a_terminal(self):
        """ESC [ in one character and in two, and DEL: what a plugin prints is shown by journalctl as it stands."""
        with Drover({"f": {"Plugin": "flood", "Workers": 1}}) as d:
            path = d.submit("f", "crumbs", what="\x9b31m|\x1b[31m|\x7f\t\xe9\n", ms=1)[1]
            self.assertEqual(d.wait_job(path), "done")
            wait_for(lambda: ": ?31m|?[31m|?" in d.log(), 10, "it is logged")
            self.assertEqual(set("\x1b\x7f\x9b") & set(d.log()), set())
            self.assertIn("\xe9", d.log())

    # ---- quick callers ----

    @unittest.skipUnless(os.geteuid() == 0, "needs root, to call as somebody else")
    def test_who_is_only_quick_is_not_refused(self):
        """Submits on a new connection, before the bus has told who calls; then more than are waited for at once."""
        d = self.start(limits=MANY_REPLIES)
        c = self.connect(d, HONEST)
        cookies = [c.send(*sleep("Submit")) for _ in range(400)]
        ids = [c.reply(cookie).read("t")[0] for cookie in cookies]
        self.assertEqual(ids, list(range(ids[0], ids[0] + 400)))
        cookies = [c.send(*MANAGER, "ListWorkers") for _ in range(800)]
        for cookie in cookies:
            c.reply(cookie)

    @unittest.skipUnless(os.geteuid() == 0, "needs root, to call as somebody else")
    def test_who_looks_at_everything_is_not_refused(self):
        """All objects, read and described over and over, without waiting for an answer: each call is answered, and in order."""
        d = self.start({"p": dict(POOL, Workers=64)}, limits=MANY_REPLIES)
        faces = {"/org/drover1": "Manager", "/org/drover1/pool/p": "Pool"} | {w[2]: "Worker" for w in d.wait_workers("p", 64)}
        c = self.connect(d, HONEST)
        for who in "a stranger", "one who is known":
            cookies = []
            for _ in range(7):
                for path, face in faces.items():
                    cookies.append(c.send(path, "org.freedesktop.DBus.Properties", "GetAll", "s", f"org.drover1.{face}".encode()))
                    cookies.append(c.send(path, "org.freedesktop.DBus.Introspectable", "Introspect"))
            with self.subTest(who):
                answers = [c.wait(lambda m: m.reply_cookie) for _ in cookies]
                self.assertEqual([m.error for m in answers if m.error], [])
                self.assertEqual([m.reply_cookie for m in answers], cookies)

    # ---- floods ----

    def took(self, d, seconds):
        """Seconds that an honest user's Run took, and a ping between two others on the same bus: both sorted."""
        c = self.connect(d, HONEST)
        echo = subprocess.Popen([FLOODER, "echo"], env=d.env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        name = echo.stdout.readline().strip()
        runs, pings, end = [], [], time.monotonic() + seconds
        try:
            while time.monotonic() < end or len(runs) < 5:
                began = time.monotonic()
                c.reply(c.send("/", "org.freedesktop.DBus.Peer", "Ping", to=name), 60)
                pinged = time.monotonic()
                try:
                    c.reply(c.send(*sleep(pool=b"q")), 60)
                except BusError as e:  # a sanitized droverd reads more slowly than others write: the bus has no more room for it
                    if not IS_SANITIZED or "destination has a full message queue" not in str(e):
                        raise
                runs.append(time.monotonic() - pinged)
                pings.append(pinged - began)
        finally:
            echo.communicate("")
        return sorted(runs), sorted(pings)

    @unittest.skipUnless(os.geteuid() == 0, "needs root, to be two users")
    def test_more_looks_than_may_wait_are_refused(self):
        d = self.start(limits=MANY_REPLIES)
        for what in "get-all", "introspect", "ping":
            with self.subTest(what=what), Flood(d, what, window=2000) as flood:  # 1024 of one program may wait
                runs, _ = self.took(d, 1)
                sent, answered, refused = flood.end()
                print(f"{what}: {sent} sent, {answered} answered, {refused} of these refused; Run p50 {1000 * runs[len(runs) // 2]:.1f} ms", flush=True)
                self.assertGreater(refused, 0)
                if not IS_SANITIZED:
                    assert_in_time(runs[len(runs) // 2], 0.1, what)

    def check_flood(self, d, seconds, **flood):
        def q(times, part):
            return times[int(len(times) * part)]
        with Flood(d, **flood):
            runs, pings = self.took(d, seconds)
        print(f"{flood}: Run p50 {1000 * q(runs, .5):.1f} ms, p99 {1000 * q(runs, .99):.1f} ms; the bus itself p50 {1000 * q(pings, .5):.1f} ms, "
              f"p99 {1000 * q(pings, .99):.1f} ms ({len(runs)})", flush=True)
        # A Run wakes the bus, the daemon and a worker, and a ping two processes less.
        if not IS_SANITIZED:  # which reads more slowly than others write
            assert_in_time(q(runs, .5), max(0.1, 3 * q(pings, .5)), flood)
            assert_in_time(q(runs, .9), max(0.3, 5 * q(pings, .9)), flood)

    @unittest.skipUnless(os.geteuid() == 0, "needs root, to be two users")
    def test_one_users_flood_leaves_others_their_calls(self):
        d = self.start()
        for what, processes, connections, window in (
                ("rubbish", 12, 1, 128),  # twelve processes that read
                ("rubbish", 12, 1, 0),  # that do not
                ("rubbish", 8, 1, -1),  # that want no answer
                ("managed", 1, 8, 0), ("introspect", 1, 8, 128), ("ping", 2, 8, 128),  # what libsystemd answers by itself
                ("open", 8, 1, 128), ("list-jobs", 2, 8, 128), ("submit", 2, 8, 128), ("run", 2, 8, 128), ("big", 2, 1, 0), ("arena", 4, 1, 128)):
            if window <= 0 and IS_BROKER:
                print(f"{what}, window {window}: left out. dbus-broker keeps what its clients write, to 256 MiB, and delivers it by and by: "
                      "a service that only answers is called in 20 s, too")
                continue
            with self.subTest(what=what, window=window):
                self.check_flood(d, 1.5, what=what, processes=processes, connections=connections, window=window)
        denied = [line for line in d.log().splitlines() if "denied" in line]
        self.assertLessEqual(len(denied), 12)  # two in 10 s
        wait_for(lambda: d.get(*MANAGER, "NSessions") == 0, 10, "nothing is left of their sessions")
        self.assertTrue(d.has_name())

    @unittest.skipUnless(os.geteuid() == 0, "needs root, to be two users")
    def test_who_does_not_read_cuts_nobody_off(self):
        """dbus-daemon reads nothing from whose messages hold 64 descriptors, or 127 MiB, that somebody did not take."""
        d = self.start({"p": POOL, "q": POOL, "fds": dict(POOL, Plugin="fds")})
        honest = self.connect(d, HONEST)
        with Flood(d, "open", 8, 1, 0):
            if not IS_BROKER:  # which keeps what its clients write, to 256 MiB, and delivers it by and by: nobody is called in time meanwhile
                self.check_beside_open_channels(d, honest)
        if IS_BROKER:
            self.check_beside_open_channels(d, honest)
        hostile = self.connect(d, HOSTILE)
        path = hostile.call(*MANAGER, "Submit", "ssa{sv}a{sv}", b"fds", b"large", 1, b"n", b"t", u64(15 << 20), 0).read("to")[1]
        self.assertEqual(hostile.call(path, "org.drover1.Job", "Wait", "t", u64(10 * 1000000)).read("s"), ["done"])
        for _ in range(12):
            hostile.send(path, "org.drover1.Job", "GetResult")
        hostile.send(*MANAGER, "ListPools")
        wait_for(lambda: (stats := stats_of(d)) is None or stats["IncomingBytes"] > 10 << 20, 10, "the first results are with the bus")
        for _ in range(20):
            honest.call(*MANAGER, "ListPools")
        if stats := stats_of(d):
            self.assertLess(stats["PeakIncomingBytes"], 100 << 20)
        runs, _ = self.took(d, 0.5)
        assert_in_time(runs[-1], 10 * PATIENCE, "a Run beside results that nobody takes")

    @unittest.skipIf(IS_BROKER, "dbus-broker counts against who does not read")
    @unittest.skipUnless(os.geteuid() == 0, "needs root, to be two users")
    def test_who_does_not_read_what_libsystemd_answers_cuts_nobody_off(self):
        """Descriptions of objects, and errors that quote a long path or name: more than a user may leave unread."""
        for path, face, member, n, *args in (("/org/drover1", "org.freedesktop.DBus.Introspectable", "Introspect", 900),
                                             ("/" + 60000 * "x", "org.drover1.Job", "Wait", 150),
                                             ("/org/drover1/pool/p", "org.freedesktop.DBus.Properties", "Get", 6, "ss", b"org.drover1.Pool", (1 << 20) * b"x")):
            with self.subTest(member=member):
                d = self.start(limits=MANY_REPLIES)
                hostile, honest = self.connect(d, HOSTILE), self.connect(d, HONEST)
                hostile.call(*MANAGER, "ListPools")
                for _ in range(16):
                    for _ in range(n):
                        hostile.send(path, face, member, *args)
                    hostile.flush()
                    honest.call(*MANAGER, "ListPools")
                    pause(0.25)  # for as many answers as droverd gives
                if stats := stats_of(d):
                    print(f"{member}: {stats['PeakIncomingBytes'] >> 20} MiB at most", flush=True)
                    self.assertGreater(stats["PeakIncomingBytes"], 10 << 20)
                    self.assertLess(stats["PeakIncomingBytes"], 40 << 20, "half of 64 MiB, as the bus counts them")
                self.doCleanups()

    def check_beside_open_channels(self, d, honest):
        runs, _ = self.took(d, 1)
        assert_in_time(runs[-1], 10 * PATIENCE, "a Run beside descriptors that nobody takes")
        for _ in range(3):
            honest.call(*MANAGER, "OpenChannel", "sa{sv}", b"p", 0)
        if stats := stats_of(d):
            self.assertLess(stats["PeakIncomingFDs"], 64)

    @unittest.skipUnless(os.geteuid() == 0, "needs root, to call as somebody else")
    def test_what_comes_in_pieces_is_bounded_all_the_same(self):
        """Calls larger than a socket holds, for a pool that has no worker yet: 64 MiB of them wait, what is more is refused."""
        d = self.start({"p": POOL})
        spawner = d.spawner()
        os.kill(spawner, signal.SIGSTOP)
        self.addCleanup(os.kill, spawner, signal.SIGCONT)
        d.call(*MANAGER, "CreatePool", "sa{sv}t", "late", "1", "Plugin", "s", "sleep", "0")
        c = self.connect(d, HOSTILE)
        c.call(*MANAGER, "ListPools")
        cookies = [c.send(*MANAGER, "Run", "ssa{sv}a{sv}", b"late", b"sleep", 1, b"ms", b"s", b"x" * (4 << 20), 0) for _ in range(24)]
        with self.assert_error("LimitsExceeded", f"the calls of uid {HOSTILE} that wait have too many bytes"):
            c.reply(cookies[-1])
        os.kill(spawner, signal.SIGCONT)
        errors = [self.error_of(c, cookie) for cookie in cookies[:-1]]
        self.assertEqual(errors.count("org.freedesktop.DBus.Error.InvalidArgs"), 15)

    def error_of(self, c, cookie):
        with self.assertRaises(BusError) as caught:
            c.reply(cookie)
        return caught.exception.name

    @unittest.skipUnless(os.geteuid() == 0, "needs root, to be two users")
    def test_nobody_subscribes_too_often(self):
        d = self.start()
        many = [self.connect(d, HOSTILE) for _ in range(65)]
        for c in many[:64]:
            c.call(*MANAGER, "Subscribe")
        with self.assert_error("LimitsExceeded", f"uid {HOSTILE} has 64 subscribers already"):
            many[64].call(*MANAGER, "Subscribe")
        many[0].close()
        wait_for(lambda: self.subscribes(many[64]), 10, "one may in its place")
        self.connect(d, HONEST).call(*MANAGER, "Subscribe")

    def subscribes(self, c):
        try:
            c.call(*MANAGER, "Subscribe")
        except BusError:
            return False
        return True


if __name__ == "__main__":
    harness.main()
