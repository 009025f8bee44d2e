"""Many callers, and callers that do much, on a bus with the limits of a system bus: droverd serves all of them, and lives."""

import json
import os
import unittest

import harness
from harness import MANAGER, BusError, Drover, Test, unwrap, wait_for
from sdbus import Connection, u64

# Whom Debian's passwd knows: dbus-daemon hangs up on others, and has 256 connections for each.
UIDS = (65534, 1, 2)


def rules_of(d):
    """How many match rules droverd has on dbus-daemon; dbus-broker does not tell."""
    r = d.busctl("--json=short", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus.Debug.Stats",
                 "GetConnectionStats", "s", "org.drover1", check=False)
    return unwrap(json.loads(r.stdout))[0]["MatchRules"] if r.returncode == 0 else None


class Floods(Test):
    def start(self, pools, **options):
        drover = Drover(pools, bus_rules=harness.SYSTEM_REPLIES + options.pop("limits", ""), **options)
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
        d = self.start({"p": {"Plugin": "sleep", "Workers": 1, "StartMethod": "fork"}})
        names = [self.connect(d, UIDS[i % 3]) for i in range(600)]
        for cookie, c in [(c.send(*MANAGER, "GetPool", "s", b"p"), c) for c in names]:
            self.assertEqual(c.reply(cookie).read("o"), ["/org/drover1/pool/p"])
        if (n := rules_of(d)) is not None:
            self.assertLessEqual(n, 129)
        d.pool_call("p", "Pause")
        for c in names:
            c.send(*MANAGER, "Run", "ssa{sv}a{sv}", b"p", b"sleep", 1, b"ms", b"t", u64(0), 0)
        wait_for(lambda: d.pool("p")["Queued"] == 600, 20, "the runs are there")
        for i, c in enumerate(names[:550]):
            c.close()
        wait_for(lambda: d.pool("p")["Cancelled"] == 550, 20, "who left has its run cancelled")
        if n is not None:
            wait_for(lambda: rules_of(d) <= 51, 10, "few callers have a rule each, and the wide one is gone")
            with open(f"/proc/{d.pid}/status", encoding="utf-8") as f:
                before = [line for line in f if line.startswith("voluntary_ctxt_switches")]
            for _ in range(3):
                Connection(d.bus.address).close()  # a stranger
            with open(f"/proc/{d.pid}/status", encoding="utf-8") as f:
                self.assertEqual([line for line in f if line.startswith("voluntary_ctxt_switches")], before)
        for c in names[550:]:
            c.close()
        wait_for(lambda: d.pool("p")["Cancelled"] == 600, 20, "who left has its run cancelled")
        if n is not None:
            wait_for(lambda: rules_of(d) <= 1, 10, "nothing is left of them")

    def check_limit(self, rules, n):
        """So many rules for a connection, n names: what each call got."""
        d = self.start({"p": {"Plugin": "sleep", "Workers": 1, "StartMethod": "fork"}}, wait=False,
                       limits=f'<limit name="max_match_rules_per_connection">{rules}</limit>')
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


if __name__ == "__main__":
    harness.main()
