"""The installed service under a real systemd: a Debian in a container of systemd-nspawn.

The tree is made once by debootstrap and cached (debian.py); each run installs the build into a copy of it, boots that
copy, and lets a unit inside go through one script, whose output is judged here. Skipped in words where containers
cannot run.
"""

import os
import shutil
import subprocess
import tempfile
import unittest

import debian
import harness
from debian import run
from harness import PATIENCE

# nspawn's own filter knows neither Landlock nor, everywhere, io_uring.
CALLS = "landlock_create_ruleset landlock_add_rule landlock_restrict_self io_uring_setup io_uring_enter io_uring_register"

RUN = "busctl call org.drover1 /org/drover1 org.drover1.Manager Run 'ssa{sv}a{sv}' primes is_prime 1 n t 1099726899285419 0"
NOBODY = "setpriv --reuid=65534 --regid=65534"
# By name or by user: workers are named after their pool.
PROCESSES = ("for p in /proc/[0-9]*; do { read -r name <$p/comm && user=$(stat -c %U $p); } 2>/dev/null || continue; "
             "case $name:$user in drover*|*:drover*) echo $name $user;; esac; done; true")

# systemctl waits for droverd; its spawner, stopped along with it, may take a moment more.
LEFT = f"for try in $(seq {50 * PATIENCE}); do left=$({PROCESSES}); [ -z \"$left\" ] && break; sleep 0.1; done; echo \"$left\""

# A client in the middle of its jobs when droverd is killed; TRY bounds each wait.
TRY = f"for try in $(seq {300 * PATIENCE:.0f}); do"
COMPLETED = "busctl get-property org.drover1 /org/drover1/pool/primes org.drover1.Pool Completed"
N_NUMBERS = 2000
MAP = f"""for i in $(seq {N_NUMBERS}); do echo 999999000001; done >/numbers
droverctl --system map primes is_prime </numbers >/answers & map=$!
{TRY} set -- $({COMPLETED}); [ "${{2:-0}}" -gt 20 ] && break; sleep 0.05; done
kill -0 $map && echo "it maps" && systemctl kill --signal=KILL --kill-who=main drover
wait $map; echo map: $?; uniq -c /answers"""
RESTARTS = "systemctl show -P NRestarts drover"
FUTURE = f"""mkfifo /go; ldconfig
DBUS_SESSION_BUS_ADDRESS=unix:path=/run/dbus/system_bus_socket /drover-library daemon-returns </go >/ready & client=$!
exec 3>/go; {TRY} [ -s /ready ] && break; sleep 0.05; done; cat /ready
systemctl kill --signal=KILL --kill-who=main drover
{TRY} [ "$({RESTARTS})" = 2 ] && systemctl is-active --quiet drover && echo active && break; sleep 0.05; done
echo >&3; wait $client; echo client: $?"""

STATES = "systemctl is-active drover drover-spawn.socket drover-spawn.service"
TWENTY_KILLS = f"""before=$({RESTARTS})
for i in $(seq 20); do systemctl kill --signal=KILL --kill-who=main drover
{TRY} [ "$({RESTARTS})" = $((before + i)) ] && systemctl is-active --quiet drover && break; sleep 0.05; done; done
{TRY} systemctl is-active --quiet drover-spawn.service && break; sleep 0.05; done
echo $(($({RESTARTS}) - before)) restarts; {STATES}; {RUN}"""


def drop_in(unit, text):
    """For as long as the system runs."""
    return f"mkdir -p /run/systemd/system/{unit}.d; printf '{text}' >/run/systemd/system/{unit}.d/test.conf; systemctl daemon-reload"


def no_drop_in(unit):
    return f"rm /run/systemd/system/{unit}.d/test.conf; systemctl daemon-reload; systemctl reset-failed"


FALSE = r"[Unit]\nStartLimitBurst=3\n[Service]\nExecStart=\nExecStart=/bin/false\n"
GIVES_UP = f"""{drop_in('drover.service', FALSE)}; systemctl reset-failed; systemctl restart drover
{TRY} systemctl is-failed --quiet drover && break; sleep 0.05; done; systemctl is-failed drover
{no_drop_in('drover.service')}; systemctl start drover; {RUN}"""

# A job of some seconds: is killed with its spawner while it runs.
LONG = "busctl call org.drover1 /org/drover1 org.drover1.Manager Submit 'ssa{sv}a{sv}' primes is_prime 1 n t 999999999999999989 0"
PIDS = "d=$(systemctl show -P MainPID drover) s=$(systemctl show -P MainPID drover-spawn)"
SAME = ('[ $d = $(systemctl show -P MainPID drover) ] && echo the same droverd; '
        'now=$(systemctl show -P MainPID drover-spawn); [ $s != $now ] && [ $now != 0 ] && echo another spawner')
SPAWNER_KILLED = f"""{PIDS}; set -- $({LONG}); job=$(echo $3 | tr -d '"')
{TRY} busctl get-property org.drover1 $job org.drover1.Job State | grep -q running && break; sleep 0.05; done
systemctl kill --signal=KILL --kill-who=main drover-spawn
busctl --timeout=120 call org.drover1 $job org.drover1.Job Wait t 100000000; {SAME}"""
WATCHED = r"[Service]\nWatchdogSec=5s\n"
SPAWNER_HANGS = f"""{drop_in('drover-spawn.service', WATCHED)}; systemctl restart drover; {RUN}
{PIDS}; kill -STOP $s; {TRY} [ $s != $(systemctl show -P MainPID drover-spawn) ] && break; sleep 0.05; done
{TRY} systemctl is-active --quiet drover-spawn && break; sleep 0.05; done; {RUN}; {SAME}; {no_drop_in('drover-spawn.service')}"""
PROBLEM = "busctl get-property org.drover1 /org/drover1/pool/primes org.drover1.Pool Problem"
SPAWNER_GIVES_UP = f"""{drop_in('drover-spawn.service', FALSE)}; {PIDS}; systemctl kill --signal=KILL --kill-who=main drover-spawn
{TRY} systemctl is-failed --quiet drover-spawn.service && break; sleep 0.05; done; systemctl is-failed drover-spawn.service
{TRY} {PROBLEM} | grep -q answers && break; sleep 0.05; done; {PROBLEM}
{no_drop_in('drover-spawn.service')}; systemctl start drover-spawn.socket; {RUN}; {SAME}"""

# The unit's own limit is shorter than the job, the pool's longer: "stop" is not cut by it.
SHORT_STOP = r"[Service]\nTimeoutStopSec=1s\n"
SLOW_STOP = f"""{drop_in('drover.service', SHORT_STOP)}; systemctl start drover; {RUN}
busctl --timeout=120 call org.drover1 /org/drover1 org.drover1.Manager Run 'ssa{{sv}}a{{sv}}' primes is_prime 1 n t 999999999999999989 0 >/answer & client=$!
{TRY} busctl get-property org.drover1 /org/drover1/pool/primes org.drover1.Pool Running | grep -qv 'u 0' && break; sleep 0.05; done
systemctl stop drover; wait $client; cat /answer; systemctl show -P Result drover; {no_drop_in('drover.service')}; systemctl start drover"""
NO_STDERR = """droverd --user --address=unix:path=/nowhere <&- >&- 2>&-; echo $?; journalctl --sync; journalctl -q -o cat -t droverd | grep nowhere"""

STEPS = [
    ("start", "systemctl start drover"),
    ("active", "systemctl is-active drover drover-spawn.socket"),
    ("run", RUN),
    ("status", "systemctl --no-pager --lines=0 status drover"),
    ("spawner", "systemctl is-active drover-spawn.service"),
    ("processes", PROCESSES),
    ("sandbox", "busctl get-property org.drover1 /org/drover1/worker/1 org.drover1.Worker SandboxLevel"),
    ("may", "p=$(busctl get-property org.drover1 /org/drover1/worker/1 org.drover1.Worker Pid | cut -d' ' -f2); "
            "grep -E '^(Cap|Groups)' /proc/$p/status; cat /proc/$p/oom_score_adj; grep processes /proc/$p/limits"),
    ("member", f"{NOBODY} --groups=$(getent group drover | cut -d: -f3) {RUN}"),
    ("member-reload",
     f"{NOBODY} --groups=$(getent group drover | cut -d: -f3) busctl call org.drover1 /org/drover1 org.drover1.Manager "
     f"Reload t 0"),
    ("stranger", f"{NOBODY} --clear-groups {RUN}"),
    ("watchdog", "systemctl show -P WatchdogUSec drover"),
    ("bad-file",
     "printf '[Pool]\\nPlugin=primes\\nWorkers=lots\\n' >/etc/drover/pools.d/bad.pool; systemctl reload drover"),
    ("bad-problem", "busctl get-property org.drover1 /org/drover1/pool/bad org.drover1.Pool Problem"),
    ("journal", "journalctl --no-pager -q -o cat -u drover -p warning"),
    ("killed-map", MAP),
    ("killed-map-restarts", RESTARTS),
    ("killed-future", FUTURE),
    ("twenty-kills", TWENTY_KILLS),
    ("gives-up", GIVES_UP),
    ("spawner-killed", SPAWNER_KILLED),
    ("spawner-hangs", SPAWNER_HANGS),
    ("spawner-gives-up", SPAWNER_GIVES_UP),
    ("slow-stop", SLOW_STOP),
    ("no-stderr", NO_STDERR),
    ("stop", "systemctl stop drover"),
    ("result", "systemctl show -P Result -P ExecMainStatus drover"),
    ("left", LEFT),
    ("files-left", "ls /run/drover; true"),
    ("activated", RUN),
    ("stop-again", "systemctl stop drover"),
    ("left-again", LEFT),
]

CHECK_SERVICE = """[Unit]
Description=The test
After=multi-user.target dbus.service

[Service]
Type=oneshot
ExecStart=/bin/sh /drover-check
StandardOutput=file:/drover-check.out
StandardError=file:/drover-check.out
ExecStopPost=/bin/systemctl --no-block poweroff
TimeoutStartSec=800

[Install]
WantedBy=default.target
"""


class Systemd(harness.Test):
    @classmethod
    def setUpClass(cls):
        if os.geteuid() != 0:
            raise unittest.SkipTest("a container needs root")
        if harness.IS_SANITIZED:
            raise unittest.SkipTest("a sanitized build is not installed")
        if not shutil.which("systemd-nspawn"):
            raise unittest.SkipTest("systemd-nspawn is not installed (package systemd-container)")
        try:
            image = debian.image()
        except debian.Missing as why:
            raise unittest.SkipTest(str(why)) from None
        cls.root = tempfile.mkdtemp(prefix="root-", dir=debian.CACHE)
        cls.addClassCleanup(shutil.rmtree, cls.root, ignore_errors=True)
        r = run("cp", "-a", image + "/.", cls.root)
        assert r.returncode == 0, r.stdout
        cls.boot_alone()
        cls.install()
        cls.output = cls.boot()

    @classmethod
    def nspawn(cls, *words, timeout):
        return run("systemd-nspawn", "-q", "-D", cls.root, "--register=no", "--keep-unit", "--console=pipe",
                   f"--system-call-filter={CALLS}", *words, timeout=timeout)

    @classmethod
    def boot_alone(cls):
        """Whether containers run here at all has nothing to do with Drover: tried first, without it."""
        try:
            r = cls.nspawn("/bin/true", timeout=60)
        except subprocess.TimeoutExpired:
            raise unittest.SkipTest("systemd-nspawn hangs here") from None
        if r.returncode != 0:
            raise unittest.SkipTest("systemd-nspawn cannot run here: " + r.stdout[-300:])

    @classmethod
    def install(cls):
        r = run("meson", "install", "-C", harness.BUILD, "--no-rebuild", "--destdir", cls.root)
        assert r.returncode == 0, r.stdout
        r = run("systemd-sysusers", f"--root={cls.root}")
        assert r.returncode == 0, r.stdout
        cls.write("etc/drover/pools.d/primes.pool", "[Pool]\nPlugin=primes\nWorkers=2\n")
        cls.write("etc/drover/pools.d/single.pool", "[Pool]\nPlugin=squares\nWorkers=1\n")
        shutil.copy(f"{harness.BUILD}/tests/library/library", os.path.join(cls.root, "drover-library"))
        cls.write("etc/systemd/system/drover-check.service", CHECK_SERVICE)
        lines = [f"echo '== {name}'\n({command}) 2>&1\necho \"-- $?\"\n" for name, command in STEPS]
        cls.write("drover-check", "".join(lines))
        wants = os.path.join(cls.root, "etc/systemd/system/default.target.wants")
        os.makedirs(wants, exist_ok=True)
        os.symlink("../drover-check.service", os.path.join(wants, "drover-check.service"))

    @classmethod
    def write(cls, path, text):
        path = os.path.join(cls.root, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)

    @classmethod
    def boot(cls):
        r = cls.nspawn("--boot", timeout=800)
        path = os.path.join(cls.root, "drover-check.out")
        if not os.path.exists(path):
            raise AssertionError("the container did not come up:\n" + r.stdout[-3000:])
        with open(path, encoding="utf-8", errors="replace") as f:
            cls.text = f.read()
        found = {}
        for part in cls.text.split("== ")[1:]:
            name, _, rest = part.partition("\n")
            output, _, code = rest.rpartition("-- ")
            found[name] = (output.strip(), int(code.strip() or -1))
        return found

    def assert_step(self, name, *words, code=0):
        self.assertIn(name, self.output, self.text)
        output, got = self.output[name]
        self.assertEqual(got, code, f"{name}: {output}\n{self.text}")
        for word in words:
            self.assertIn(word, output, self.text)
        return output

    def test_start_and_run(self):
        self.assert_step("start")
        self.assertEqual(self.assert_step("active").split(), ["active", "active"])
        self.assertEqual(self.assert_step("run"), 'a{sv} 1 "prime" b false')

    def test_status_line_and_watchdog(self):
        self.assert_step("status", 'Status: "2 of 2 pools well, 3 workers')
        self.assertEqual(self.assert_step("watchdog"), "30s")

    def test_who_is_who(self):
        self.assertEqual(self.assert_step("spawner"), "active")
        lines = self.assert_step("processes").splitlines()
        self.assertIn("droverd drover", lines)
        self.assertIn("drover-spawn drover-spawn", lines)
        self.assertGreaterEqual(len(lines), 4)  # two workers at least
        self.assertEqual({line.split()[-1] for line in lines}, {"drover", "drover-spawn"})
        self.assert_step("sandbox", "seccomp")

    def test_what_a_worker_may(self):
        lines = [line.split() for line in self.assert_step("may").splitlines()]
        self.assertEqual([line for line in lines if line[0].startswith("Cap")],
                         [[f"Cap{name}:", "0" * 16] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")])
        self.assertEqual(lines[-2], ["200"])  # droverd has 0
        self.assertEqual(lines[-1][2:4], ["6144", "6144"])  # three quarters of the unit's LimitNPROC=

    def test_who_may_call(self):
        self.assertEqual(self.assert_step("member"), 'a{sv} 1 "prime" b false')
        self.assert_step("member-reload", "denied", code=1)
        self.assert_step("stranger", "denied", code=1)

    def test_reload_and_journal(self):
        self.assert_step("bad-file")
        self.assert_step("bad-problem", "/etc/drover/pools.d/bad.pool:3", "Workers=lots")
        self.assert_step("journal", "/etc/drover/pools.d/bad.pool:3")

    def test_clients_survive_that_droverd_is_killed(self):
        """systemd starts the next one, which adopts the channels: every job has its verdict, over droverctl's session
        and over libdrover's."""
        words = self.assert_step("killed-map", "it maps", "map: 0").splitlines()
        self.assertEqual(words[-1].split(), [str(N_NUMBERS), "999999000001", "prime=true"])
        self.assertEqual(self.assert_step("killed-map-restarts"), "1")
        self.assertEqual(self.assert_step("killed-future").splitlines(), ["ready", "active", "client: 0"])

    def test_twenty_kills_of_droverd_are_outlived(self):
        words = self.assert_step("twenty-kills").splitlines()
        self.assertEqual(words, ["20 restarts", "active", "active", "active", 'a{sv} 1 "prime" b false'], self.text)

    def test_what_gives_up_has_failed(self):
        self.assertEqual(self.assert_step("gives-up").splitlines()[-2:], ["failed", 'a{sv} 1 "prime" b false'])

    def test_a_killed_spawner_costs_no_job(self):
        """droverd waits for the next one, as in --user mode."""
        self.assertEqual(self.assert_step("spawner-killed").splitlines(),
                         ['s "done"', "the same droverd", "another spawner"])

    def test_a_spawner_that_hangs_is_ended_by_its_watchdog(self):
        self.assertEqual(self.assert_step("spawner-hangs").splitlines()[-3:],
                         ['a{sv} 1 "prime" b false', "the same droverd", "another spawner"])

    def test_a_spawner_that_gives_up_has_failed_and_may_come_back(self):
        words = self.assert_step("spawner-gives-up", "there is no drover-spawn that answers").splitlines()
        self.assertEqual(words[0], "failed")
        self.assertEqual(words[-3:], ['a{sv} 1 "prime" b false', "the same droverd", "another spawner"])

    def test_a_drain_is_not_cut_by_the_limit_of_the_unit(self):
        self.assertEqual(self.assert_step("slow-stop").splitlines()[-2:], ['a{sv} 1 "prime" b true', "success"])

    def test_without_a_stderr_it_logs_to_the_journal(self):
        self.assertEqual(self.assert_step("no-stderr", "cannot").splitlines()[0], "1")

    def test_stop_leaves_nothing(self):
        self.assert_step("stop")
        self.assertEqual(self.assert_step("result").split(), ["success", "0"])
        self.assertEqual(self.assert_step("left"), "")
        self.assertNotIn("spawn\n", self.assert_step("files-left") + "\n")

    def test_activation_by_the_bus(self):
        self.assertEqual(self.assert_step("activated"), 'a{sv} 1 "prime" b false')
        self.assert_step("stop-again")
        self.assertEqual(self.assert_step("left-again"), "")


if __name__ == "__main__":
    harness.main()
