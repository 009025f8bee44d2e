"""A plugin that opens a file, makes a socket or calls execve: stopped wherever it does it, the call named, the pool
goes on.

Runs once more with Landlock refused (refuse.py): nothing here may need it.
"""

import os
import re
import subprocess
import sys
import unittest

from harness import (
    BUILD, DROVERD, SOURCE, SPAWN, WORKER, Drover, Test, descendants, fds_of, kill, main, wait_for, wait_surely)

METHODS = ("fork", "spawn", "forkserver")
# What a test asks for, and the system calls that glibc may make of it.
CALLS = {"open": ("open", "openat"), "socket": ("socket",), "execve": ("execve",)}
MORE = {"fork": ("clone", "clone3", "fork", "vfork"), "code": ("mmap",)}


class Sandbox(Test):
    def assert_names(self, text, calls):
        self.assertTrue(any(f"system call {call}" in text for call in calls), f"{text}: one of {calls} is not named")

    def test_in_the_handler(self):
        for method in METHODS:
            with Drover({"opens": {"Plugin": "opens", "StartMethod": method, "Workers": 1}}) as d:
                for job, calls in {**CALLS, **MORE}.items():
                    with self.assert_error("Poisoned", job) as e:
                        d.run("opens", job)
                    self.assert_names(e.error.text, calls)
                    id_, path = d.submit("opens", job, options={"max-attempts": ("u", 1)})
                    self.assertEqual(d.wait_job(path), "poisoned")
                    result = d.result(path)
                    self.assertEqual((result["reason"], result["attempts"]), ("syscall", 1))
                    self.assertIn(result["syscall"], calls)
                    self.assert_names(d.ctl("why", id_).stdout, calls)
                deaths = d.deaths("opens")
                self.assertEqual({death["reason"] for death in deaths}, {"syscall"})
                self.assertEqual(len(deaths), 3 * len({**CALLS, **MORE}),
                                 "twice, and once where one attempt was asked for")
                # Probes that libraries make in passing are told no, and the pool goes on.
                errors = d.run("opens", "probe")["errors"]
                self.assertEqual(errors[:3], [13, 13, 13], "access, stat and readlink of a path: EACCES")
                self.assertEqual(d.pool("opens")["State"], "running")

    def test_in_the_constructor_and_in_preload(self):
        for method in METHODS:
            pools = {f"{call}-in-{place}": {"Plugin": f"{call}-in-{place}", "StartMethod": method, "Workers": 1,
                                            "RestartSec": "50ms"}
                     for call in CALLS for place in ("constructor", "preload")}
            with Drover({"primes": {"Plugin": "primes", "StartMethod": method}}) as d:
                for name, keys in pools.items():
                    d.write_pool(name, **keys)
                d.reload()
                for name in pools:
                    calls = CALLS[name.split("-")[0]]

                    def named(name=name, calls=calls):
                        return re.search(rf"(system call|preload:) ({'|'.join(calls)})\b", d.pool(name)["Problem"])
                    wait_for(named, 10,
                             lambda: f"{method}: the Problem of {name} names one of {calls}: {d.pool(name)['Problem']}")
                    self.assertNotEqual(d.pool(name)["State"], "running")
                self.assertEqual(d.run("primes", "is_prime", n=97), {"prime": True}, "the other pool goes on")

    def test_level_names_the_layers(self):
        for method in METHODS:
            with Drover({"primes": {"Plugin": "primes", "StartMethod": method, "Workers": 1}}) as d:
                d.wait_workers("primes", 1)
                worker = d.workers("primes")[0]
                layers = worker["SandboxLevel"]
                with open(f"/proc/{worker['Pid']}/status", encoding="utf-8") as f:
                    status = dict(line.split(":\t", 1) for line in f.read().splitlines() if ":\t" in line)
                self.assertIn("seccomp", layers)
                self.assertEqual(status["Seccomp"], "2")
                self.assertGreaterEqual(int(status.get("Seccomp_filters", 2)), 2, "two stages")
                self.assertNotIn(os.environ.get("DROVER_TEST_REFUSED", "none of them"), layers)
                self.assertIn("no-new-privs", layers)
                self.assertEqual(status["NoNewPrivs"], "1")
                self.assertIn("rlimits", layers)
                with open(f"/proc/{worker['Pid']}/limits", encoding="utf-8") as f:
                    self.assertRegex(f.read(), r"Max core file size\s+0")

    def test_where_somebody_listens_already(self):
        """A process can have one listener. No template without ours; the message says what to do."""
        launcher = [sys.executable, f"{SOURCE}/tests/integration/refuse.py", "listener"]
        with Drover({"spawn": {"Plugin": "primes", "StartMethod": "spawn"},
                     "fork": {"Plugin": "primes", "StartMethod": "fork"}}, launcher=launcher) as d:
            d.write_pool("forkserver", Plugin="primes")
            d.reload()
            wait_for(lambda: "use StartMethod=spawn" in d.pool("forkserver")["Problem"], 10,
                     lambda: d.pool("forkserver")["Problem"])
            self.assertIn("seccomp user notification", d.pool("forkserver")["Problem"])
            for method in ("spawn", "fork"):
                self.assertEqual(d.run(method, "is_prime", n=97), {"prime": True})

    @unittest.skipIf(os.geteuid() != 0, "the descriptors of a process that is not dumpable are seen by root only")
    def test_no_descriptor_of_others(self):
        for method in METHODS:
            with Drover({"primes": {"Plugin": "primes", "StartMethod": method, "Workers": 1}}) as d:
                d.wait_workers("primes", 1)
                fds = fds_of(d.list_workers("primes")[0][3])
                self.assertEqual(fds[0], "/dev/null")
                self.assertTrue(fds[1].startswith("socket:") and fds[2] == fds[1], fds)
                for fd, what in fds.items():
                    self.assertTrue(what.startswith(("/dev/null", "socket:", "/memfd:")), fds)
                # to the broker: control, output, the items that jobs hand out, a doorbell; and the one of the broker's
                # own channel
                self.assertLessEqual(len({what for what in fds.values() if what.startswith("socket:")}), 5, fds)


class Named(Test):
    """What died of a forbidden call is told well enough to mend it: the call, its path, the place in the plugin, and
    when. In a sanitized build the place is the sanitizer's wrapper of the call."""
    OPENS = (r'system call open(at)?\("/etc/hostname"\) at (?:{}|libasan\.so\.\d+)\+0x[0-9a-f]+, {} '
             r"\(its sandbox forbids it\)")

    def test_before_any_job(self):
        for method in METHODS:
            places = {"constructor": "in a constructor", "preload": "in preload", "worker_init": "in worker_init"}
            pools = {f"open-in-{place}": {"Plugin": f"open-in-{place}", "StartMethod": method, "Workers": 1}
                     for place in places}
            with Drover({"primes": {"Plugin": "primes", "StartMethod": method}}) as d:
                for name, keys in pools.items():
                    d.write_pool(name, **keys)
                d.reload()
                for place, words in places.items():
                    name = f"open-in-{place}"
                    text = self.OPENS.format(name, words)
                    wait_for(lambda: re.search(text, d.pool(name)["Problem"]), 10,
                             lambda: f"{method}: {d.pool(name)['Problem']}")
                    wait_for(lambda: re.search(text, d.log()), 10, d.log)
                    death = d.deaths(name)[0]
                    self.assertEqual((death["phase"], death["path"]), (words, "/etc/hostname"))

    def test_in_a_job_it_is_tried_once_more(self):
        for method in METHODS:
            with Drover({"opens": {"Plugin": "opens", "StartMethod": method, "Workers": 1, "MaxAttempts": 5},
                         "forbidden": {"Plugin": "forbidden", "StartMethod": method, "Workers": 1,
                                       "MaxAttempts": 5}}) as d:
                for pool, job in (("opens", "open"), ("forbidden", "then-crashes")):
                    text = self.OPENS.format(pool, "in the handler")
                    id_, path = d.submit(pool, job)
                    self.assertEqual(d.wait_job(path), "poisoned")
                    result = d.result(path)
                    self.assertEqual((result["reason"], result["attempts"]), ("syscall", 2))
                    self.assertRegex(result["error"], text)
                    self.assertRegex(d.ctl("why", id_).stdout, text)
                    self.assertRegex(d.deaths(pool)[-1]["text"], f"{text} while running job {id_} \\(attempt 1\\)")
                    wait_for(lambda: re.search(rf"job {id_} is poisoned after 2 attempts: its worker died: {text}",
                                               d.log()), 10, d.log)
                self.assertEqual([death["reason"] for death in d.deaths("forbidden")], ["signal", "syscall"],
                                 "newest first")

    def test_paths_that_are_none_and_threads(self):
        with Drover({"forbidden": {"Plugin": "forbidden", "Workers": 1, "MaxAttempts": 1}}) as d:
            for job, text in (("to-nowhere", r"system call mkdir at forbidden\+0x"),
                              ("far-away", r'system call mkdirat\("/xxxx\?x+\.\.\."\) at forbidden\+0x'),
                              ("at-its-end", r"system call socket at forbidden\+0x[0-9a-f]+, in the handler"),
                              ("in-a-thread",
                               r'open(at)?\("/etc/hostname"\) at (?:forbidden|libasan\.so\.\d+)\+0x[0-9a-f]+, in a '
                               r'thread of the plugin\'s own')):
                with self.assert_error("Poisoned") as e:
                    d.run("forbidden", job)
                self.assertRegex(e.error.text, text)

    def test_off_the_stack(self):
        """The walk over a stack that is none crashes: the call is named all the same, with its path."""
        with Drover({"forbidden": {"Plugin": "forbidden", "Workers": 1, "MaxAttempts": 1}}) as d:
            with self.assert_error("Poisoned") as e:
                d.run("forbidden", "off-the-stack")
            self.assertRegex(e.error.text,
                             r'system call mkdirat\("/tmp/x"\) at libc\.so\.6\+0x[0-9a-f]+, in the handler')

    def test_on_the_command_line(self):
        for words, text in ((["--check", "open-in-constructor"], "in a constructor"),
                            (["--check", "open-in-preload"], "in preload"),
                            (["--check", "open-in-worker_init"], "in worker_init"),
                            (["--run", "opens", "open"], "in the handler")):
            with self.subTest(words=words):
                end = subprocess.run([WORKER, words[0], f"{BUILD}/tests/plugins/{words[1]}.so", *words[2:]],
                                     capture_output=True, text=True, timeout=60)
                self.assertEqual(end.returncode, 4, end.stderr)
                self.assertRegex(end.stderr,
                                 rf'system call open(at)?\("/etc/hostname"\) at '
                                 rf'(?:{words[1]}|libasan\.so\.\d+)\+0x[0-9a-f]+, {text}')


class Refused(Test):
    """Where a container's filter or an older kernel refuses a system call, who needs it says so at its start, with all
    names at once."""
    REFUSE = [sys.executable, f"{SOURCE}/tests/integration/refuse.py"]

    def run_refused(self, calls, *words):
        return subprocess.run([*self.REFUSE, calls, *words], capture_output=True, text=True, timeout=60)

    def test_a_worker_that_cannot_wait_is_refused_by_name(self):
        with Drover({}, launcher=[*self.REFUSE, "futex_waitv"]) as d:
            for method in METHODS:
                d.write_pool(method, Plugin="primes", StartMethod=method, Workers=1)
            d.reload()
            for method in METHODS:
                wait_for(lambda: d.pool(method)["State"] == "refused", 20, f"{method}: {d.pool(method)}")
                self.assertIn("system calls that a worker needs are refused: futex_waitv (ENOSYS): allow",
                              d.pool(method)["Problem"])

    def test_a_worker_by_hand(self):
        for calls, names in (("futex_waitv", "futex_waitv (ENOSYS)"),
                             ("futex_waitv,close_range", "futex_waitv (ENOSYS), close_range (ENOSYS)")):
            end = self.run_refused(calls, WORKER, "--check", f"{BUILD}/plugins/primes/primes.so")
            self.assertEqual(end.returncode, 3, end.stderr)
            self.assertIn(f"a worker needs are refused: {names}:", end.stderr)

    def test_daemon_and_spawner_name_all_at_once(self):
        for program, words in ((DROVERD, ["--user"]), (SPAWN, ["--fd=3"])):
            end = self.run_refused("pidfd_open,close_range,io_uring", program, *words)
            self.assertEqual(end.returncode, 1, end.stderr)
            self.assertIn("needs are refused: pidfd_open (EPERM), close_range (ENOSYS)", end.stderr)
            self.assertEqual(len(end.stderr.splitlines()), 1, end.stderr)


class ThreadsAtLoad(Test):
    """A library of the plugin's that starts threads when it is loaded: they are there when the filters come, and nobody
    dies of it."""
    def worker(self, name):
        env = {**os.environ, "LD_LIBRARY_PATH": f"{BUILD}/tests/plugins"}
        return subprocess.run([WORKER, "--run", f"{BUILD}/tests/plugins/{name}.so", "run"], env=env,
                              capture_output=True, text=True, timeout=60)

    def test_it_runs_each_time(self):
        for name in ("threads-at-load", "masked-threads-at-load"):
            for n in range(40):
                end = self.worker(name)
                self.assertEqual(end.returncode, 0, f"{name}, run {n}: {end.stderr}")

    def test_who_blocks_the_trap_for_good_is_refused_in_words(self):
        end = self.worker("raw-threads-at-load")
        self.assertEqual(end.returncode, 3, end.stderr)
        self.assertRegex(end.stderr,
                         r"libraw-threads-at-load-lib\.so: a thread \(.*\) .* blocks SIGSYS for good: .*Environment=")

    def test_what_landlock_does_not_hold_is_told(self):
        with Drover({"threads": {"Plugin": "threads-at-load", "StartMethod": "fork", "Workers": 2}},
                    env={"LD_LIBRARY_PATH": f"{BUILD}/tests/plugins"}) as d:
            self.assertEqual(d.run("threads", "run"), {})
            if os.environ.get("DROVER_TEST_REFUSED") != "landlock":
                self.assertIn("no-landlock:threads", d.workers("threads")[0]["SandboxLevel"])
                self.assertIn("no-landlock:threads", d.ctl("list-workers", "threads").stdout)
                told = re.findall("pool threads: Landlock does not hold for all threads of its workers: "
                                  "libthreads-at-load-lib.so", d.log())
                self.assertEqual(len(told), 1, "once, not for each worker")


# What stops each of attacker.c's attacks: the name of the call that its process dies of, or an errno.
EPERM, EBADF = 1, 9
ATTACKS = {
    "own-filter": "seccomp", "own-filter-by-prctl": EPERM, "dispatch": EPERM, "handler": EPERM,
    "personality": "personality",
    "dumpable": EPERM, "limits": EPERM,
    "code": "mmap", "code-over-host": "mmap", "code-by-mprotect": "mprotect", "open": "open", "socket": "socket",
    "exec": "execve",
    "fork": "clone", "fork-as-host": {"forkserver": EPERM, "fork": "clone", "spawn": "clone"},
    "kill": EPERM, "tkill": "tkill", "tgkill": EPERM, "queue": "rt_sigqueueinfo",
    "queue-to-thread": "rt_tgsigqueueinfo",
    "pidfd": "pidfd_open", "pidfd-signal": "pidfd_send_signal", "owner": EPERM, "timer": "timer_create",
    "trace": "ptrace",
    "write-memory": "process_vm_writev", "session": "setsid", "group": "setpgid", "outlive": EPERM,
    "control-socket": EBADF, "control-socket-by-dup": "dup3",
}
SIGNALS = ("kill", "tkill", "tgkill", "queue", "queue-to-thread", "owner", "timer", "trace")
PLACES = ("constructor", "preload", "open", "init")


class Attacks(Test):
    """A plugin that is all bad, from its first instruction on: it knows the host, shares its memory, and gets nothing
    by it."""

    def victims(self, d):
        """Who runs as the same user: droverd, the spawner, and a worker beside it."""
        return {"droverd": d.pid, "spawner": d.spawner(), "worker": d.wait_workers("primes", 1)[0][3]}

    def assert_unharmed(self, d, victims):
        self.assertEqual(self.victims(d), victims)
        self.assertEqual(d.run("primes", "is_prime", n=97), {"prime": True})

    def test_in_the_handler(self):
        for method in METHODS:
            with Drover({"primes": {"Plugin": "primes", "StartMethod": method, "Workers": 1},
                         "attacker": {"Plugin": "attacker", "StartMethod": method, "Workers": 1}}) as d:
                victims = self.victims(d)
                for name, stopped_by in ATTACKS.items():
                    stopped_by = stopped_by[method] if isinstance(stopped_by, dict) else stopped_by
                    # whom it dies for makes no difference
                    by_call = name in SIGNALS and not isinstance(stopped_by, str)
                    for target in victims.values() if by_call else [victims["worker"]]:
                        with self.subTest(method=method, attack=name, target=target):
                            self.attack(d, name, target, stopped_by)
                self.assert_unharmed(d, victims)

    def attack(self, d, name, target, stopped_by):
        if isinstance(stopped_by, int):
            self.assertEqual(d.run("attacker", "attack", name=name, target=("x", target)), {"error": stopped_by})
        else:
            with self.assert_error("Poisoned", f"system call {stopped_by}"):
                d.run("attacker", "attack", name=name, target=("x", target), options={"max-attempts": ("u", 1)})

    def test_a_filter_of_its_own_first(self):
        """With it, every later call of seccomp would succeed and do nothing."""
        for method in METHODS:
            with Drover({"primes": {"Plugin": "primes", "StartMethod": method, "Workers": 1}}) as d:
                for place in PLACES:
                    d.write_pool(place, Plugin="attacker", StartMethod=method, Workers=1, RestartSec="50ms",
                                 Environment=["EARLY=own-filter", f"PLACE={place}"])
                d.reload()
                for place in PLACES:
                    wait_for(lambda place=place: "seccomp" in d.pool(place)["Problem"], 10,
                             lambda place=place: f"{method}: the Problem of {place} names seccomp: "
                                                 f"{d.pool(place)['Problem']}")
                    self.assertNotEqual(d.pool(place)["State"], "running")
                self.assert_unharmed(d, self.victims(d))

    def test_before_the_first_job(self):
        """Whatever is refused, and does not kill, all in one process, against each of the others."""
        refused = [name for name, stopped_by in ATTACKS.items() if isinstance(stopped_by, int)]
        for method in METHODS:
            with Drover({"primes": {"Plugin": "primes", "StartMethod": method, "Workers": 1}}) as d:
                victims = self.victims(d)
                pools = {f"{place}-{who}": (place, pid) for place in PLACES for who, pid in victims.items()}
                for name, (place, pid) in pools.items():
                    d.write_pool(name, Plugin="attacker", StartMethod=method, Workers=1,
                                 Environment=[f"EARLY={','.join(refused)}", f"PLACE={place}", f"TARGET={pid}"])
                d.reload()
                for name in pools:
                    d.wait_state(name, "running")
                    told = d.run(name, "told")["text"].split()
                    self.assertEqual(told, [f"{attack}={ATTACKS[attack]}" for attack in refused], f"{method}, {name}")
                self.assert_unharmed(d, victims)

    def test_no_signal_from_a_template(self):
        """Whose workers' numbers no filter knows: there it must be looked at call by call."""
        for who in ("droverd", "spawner", "worker"):
            with self.subTest(who=who), Drover({"primes": {"Plugin": "primes", "Workers": 1}}) as d:
                victims = self.victims(d)
                for place in ("constructor", "preload"):
                    d.write_pool(place, Plugin="attacker", Workers=1,
                                 Environment=["EARLY=tgkill", f"PLACE={place}", f"TARGET={victims[who]}"])
                    d.reload()
                    d.wait_state(place, "running")
                    self.assertEqual(d.run(place, "told")["text"], "tgkill=1 ")
                    self.assert_unharmed(d, victims)

    def test_nobody_is_forked_whom_nobody_asked_for(self):
        """A template forks, so its plugin has what that takes; and what it forks would live on when all others are
        killed."""
        with Drover({"primes": {"Plugin": "primes", "Workers": 1}}) as d:
            for place in PLACES:
                d.write_pool(place, Plugin="attacker", Workers=1, Environment=["EARLY=fork-as-host", f"PLACE={place}"])
            d.reload()
            for place in PLACES:
                d.wait_state(place, "running")
                self.assertEqual(d.run(place, "told")["text"], "fork-as-host=1 ", place)
            self.kill_all(d)

    def kill_all(self, d):
        """droverd and the spawner at once. Leaving `with` asserts that nothing of them is left."""
        pids = (d.spawner(), d.pid)
        for pid in pids:
            kill(pid)
        d.process.wait()
        wait_surely(lambda: not set(descendants()) - {d.bus.process.pid}, 1, "nothing of it runs")
        d.start()

    def be_host(self, place):
        """The plugin does the host's work itself, but that what it forks never says that it is there."""
        d = Drover({"primes": {"Plugin": "primes", "Workers": 1},
                    "attacker": {"Plugin": "attacker", "Workers": 1, "RestartSec": "50ms",
                                 "Environment": ["EARLY=be-host", f"PLACE={place}"]}},
                   wait=False)
        return d

    @staticmethod
    def forked(d):
        """The template, and what it forked: until that says that it is there, it goes by the same name."""
        return [pid for pid, name in d.pids().items() if name == "drt:attacker"]

    def test_whom_a_template_forked_must_come(self):
        for place in ("constructor", "preload"):
            with self.be_host(place) as d:
                d.wait_state("primes", "running")
                wait_for(lambda: "what it forked does not come" in d.pool("attacker")["Problem"], 10,
                         lambda: d.pool("attacker")["Problem"])
                self.assert_unharmed(d, self.victims(d))
                self.assertLessEqual(len(self.forked(d)), 2)
                d.pool_call("attacker", "Stop")
                wait_for(lambda: not self.forked(d), 10, "both go")

    def test_whom_a_template_forked_ends_with_all(self):
        """Before anybody noticed that it does not come: the spawner is killed in that moment."""
        for place in ("constructor", "preload"):
            with self.be_host(place) as d:
                d.wait_state("primes", "running")
                wait_for(lambda: len(self.forked(d)) == 2, 20, "it has forked")
                self.kill_all(d)


if __name__ == "__main__":
    main()
