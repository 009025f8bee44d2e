"""libdrover from another process: tests/library case by case, the examples, what is installed. FEATURES.md rows by
number."""

import glob
import json
import os
import re
import signal
import subprocess
import tempfile
import unittest

from harness import (
    BUILD, IS_SANITIZED, MANAGER, PATIENCE, SOURCE, Drover, Test, kill, main, unwrap, wait_for, wait_surely)
from sdbus import Connection, u64

LIBRARY = f"{BUILD}/tests/library/library"
EXAMPLES = f"{BUILD}/ipc/client/examples"
START_METHODS = ("fork", "spawn", "forkserver")
POOLS = {
    "squares": {"Plugin": "squares", "Workers": 4},
    "single": {"Plugin": "squares", "Workers": 1, "Slots": 4},
    "timers": {"Plugin": "squares", "Workers": 1},
    "wide": {"Plugin": "squares", "Workers": 10},
    "narrow": {"Plugin": "squares", "Workers": 1},
    "typed": {"Plugin": "typed", "Workers": 1},
    "fails": {"Plugin": "fails", "Workers": 1},
    "crash": {"Plugin": "crash", "Workers": 1, "MaxAttempts": 2},
    "hang": {"Plugin": "hang", "Workers": 1, "KillGraceSec": "1s"},
    "cancellable": {"Plugin": "cancellable", "Workers": 1},
    "pipes": {"Plugin": "pipes", "Workers": 1},
    "spawn-pipes": {"Plugin": "pipes", "Workers": 1, "StartMethod": "spawn"},
    "hasty": {"Plugin": "squares", "Workers": 1, "QueueTimeout": "300ms"},
    "emits": {"Plugin": "emits", "Workers": 3, "RestartSec": "10ms"},
} | {f"{method}-squares": {"Plugin": "squares", "Workers": 2, "StartMethod": method} for method in START_METHODS}

# Of programs that fork, call closefrom() or leave by longjmp: what cannot be given back safely then stays allocated.
MAY_LEAK = {"ASAN_OPTIONS": "detect_leaks=0"}


class Case:
    """A program that runs one case of tests/library. It says when something is due beside it, and goes on after a
    line."""

    def __init__(self, test, d, *words, program=LIBRARY):
        self.test = test
        self.process = subprocess.Popen([program, *words], env=d.env(), text=True, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)
        test.addCleanup(self.process.kill)

    def line(self):
        """What it says next."""
        line = self.process.stdout.readline()
        self.test.assertTrue(line, line or self.process.communicate()[1])
        return line.rstrip("\n")

    def tell(self, line=""):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self, text=""):
        """Tells it `text`, and it must end well."""
        _, err = self.process.communicate(text, timeout=60 * PATIENCE)
        self.test.assertEqual(self.process.returncode, 0, err)


class Beside(Test):
    """Cases with something that happens beside them."""

    def around(self, d, name, *happens):
        """Runs a case that says when the next of `happens` is due, and goes on after it."""
        program = Case(self, d, name)
        for i, happen in enumerate(happens):
            self.assertEqual(program.line(), "ready")
            happen(d)
            if i < len(happens) - 1:
                program.tell()
        program.end("\n")


class Library(Test):
    @classmethod
    def setUpClass(cls):
        cls.drover = Drover(POOLS)
        cls.d = cls.drover.__enter__()
        # Ten seconds of sleep: beside the others.
        cls.widths = cls.start_case("widths")
        cls.lost = cls.start_case("items-lost")  # five

    @classmethod
    def tearDownClass(cls):
        for program in (cls.widths, cls.lost):
            program.communicate(timeout=60)
        cls.drover.__exit__(None, None, None)

    @classmethod
    def start_case(cls, name, **env):
        return subprocess.Popen([LIBRARY, name], env=dict(cls.d.env(), **env), text=True, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)

    def case(self, name, **env):
        program = self.start_case(name, **env)
        out, err = program.communicate(timeout=60 * PATIENCE)
        self.assertEqual(program.returncode, 0, err)
        return out

    def example(self, name, *words, pool="squares", timeout=60):
        program = f"{EXAMPLES}/example-{name}"
        r = subprocess.run([program, *map(str, words)], env=self.d.env(), capture_output=True, text=True,
                           timeout=timeout * PATIENCE, check=False)
        self.assertEqual(r.returncode, 0, r.stderr)
        return r.stdout.splitlines()

    # ---- values and errors ----

    def test_every_type_there_and_back(self):
        self.case("values")
        self.case("raw")

    def test_wrong_arguments_are_named_before_anything_is_submitted(self):
        self.case("wrong-arguments")
        self.case("no-such")

    def test_options_and_limits(self):
        self.case("options")

    def test_the_pools_queue_timeout_holds_in_channels_and_changes_while_they_are_open(self):
        program = Case(self, self.d, "queue-timeout")
        self.assertEqual(program.line(), "ready")
        self.d.write_pool("hasty", **POOLS["hasty"] | {"QueueTimeout": "0"})
        self.d.reload()
        program.end("\n")

    def test_a_queue_deadline_is_one_in_channels_and_over_the_bus(self):
        self.case("queue-deadline")

    def test_a_future_tells_how_its_job_was_run_and_that_it_was_not(self):
        self.case("runs")

    def test_errors_tell_attempt_pid_and_signal(self):
        self.case("errors")
        self.case("error-texts")

    def test_signals_end_no_call_and_no_job_runs_twice(self):
        before = self.d.pool("squares")["Submitted"]
        n = int(self.case("signals"))
        self.assertEqual(self.d.pool("squares")["Submitted"] - before, n + 2)

    # ---- rows ----

    def test_row_01_width_of_sleeps_and_a_wait_that_times_out(self):
        self.case("wait")
        out, err = self.widths.communicate(timeout=60 * PATIENCE)
        self.assertEqual(self.widths.returncode, 0, err)
        self.assertRegex(out, r"^[12]\.\d+ 1[01]\.\d+$")

    def test_row_12_timer(self):
        self.case("timer")

    def test_row_14_41_cancel(self):
        self.case("cancel")

    def test_row_15_kill(self):
        self.case("kill")

    def test_a_kill_that_comes_too_late_says_so(self):
        self.case("kill-at-the-end")

    def test_row_20_backpressure(self):
        self.case("full")

    def test_waiting_for_room_that_others_make(self):
        self.case("full-bus")

    def test_row_22_pipes_in_workers(self):
        self.case("pipes")

    def test_row_30_callbacks(self):
        self.case("callbacks")
        self.case("callbacks-that-ask")

    def test_row_31_map_of_a_million_in_constant_memory(self):
        n = 50000 if IS_SANITIZED else 1000000
        line = self.example("map", n)[0]
        done, total, kib = map(int, re.fullmatch(r"(\d+) squares, sum (\d+), (\d+) KiB", line).groups())
        self.assertEqual((done, total), (n, n * (n - 1) * (2 * n - 1) // 6))
        if not IS_SANITIZED:
            self.assertLess(kib, 64 * 1024)

    def test_row_32_unordered_and_one_error_does_not_end_it(self):
        self.case("completion-order")
        self.case("map-of-failures")
        self.case("map-stops")

    def test_row_33_shutdown(self):
        names = ("Submitted", "Completed", "Cancelled", "Failed", "Expired", "TimedOut", "Poisoned", "Lost")
        before = self.d.pool("single")
        self.case("shutdown")
        wait_for(lambda: self.d.get("/org/drover1", "org.drover1.Manager", "NSessions") <= 1, 10,
                 "its sessions are over")  # one may be that of `widths`
        after = self.d.pool("single")
        counts = {name: after[name] - before[name] for name in names}
        self.assertEqual(counts, dict.fromkeys(names, 0) | {"Submitted": 8, "Completed": 5, "Cancelled": 3})
        self.assertEqual((after["Queued"], after["Running"]), (0, 0))

    def test_row_40_one_source_and_three_pools(self):
        """The same program against a pool of each start method: the same output, line by line."""
        pools = {method: self.d.get(self.d.pool_path(f"{method}-squares"), "org.drover1.Pool", "StartMethod")
                 for method in START_METHODS}
        self.assertEqual(pools, {method: method for method in START_METHODS})
        outputs = [self.example("executor", f"{method}-squares") for method in START_METHODS]
        squares = [n * n for n in range(20)]
        self.assertEqual(outputs[0], ["map: " + " ".join(map(str, squares)),
                                      "exception: Numerical result out of range: the square of 9223372036854775807 "
                                      "needs more than 64 bits",
                                      f"callbacks: {sum(squares)}, completed: {sum(squares)}",
                                      "shutdown: the last job is done, another one: Cannot send after transport "
                                      "endpoint shutdown"])
        self.assertEqual(outputs[1:], outputs[:1] * 2)

    def test_row_31_32_34_squares(self):
        lines = dict(line.split(": ", 1) for line in self.example("squares"))
        squares = [n * n for n in range(10)]
        self.assertEqual(list(map(int, lines["map"].split())), squares)
        self.assertEqual(sorted(map(int, lines["unordered"].split())), squares)
        self.assertEqual(lines["async"], "400")
        pids = set(map(int, lines["pids"].split()))
        self.assertLessEqual(pids, {row[3] for row in self.d.list_workers("squares")})
        self.assertEqual(lines["10 s in 1 s"], "Connection timed out, the job is running")

    def test_row_42_as_completed(self):
        self.assertEqual(self.example("as-completed"), ["slept 1 s", "slept 2 s", "slept 3 s"])
        self.case("first")
        self.case("several-pools")

    def test_who_looks_late_is_told_the_order_all_the_same(self):
        def completed():
            return self.d.pool("squares")["Completed"] + self.d.pool("wide")["Completed"]
        self.widths.wait(30 * PATIENCE)  # it has jobs in these pools, too
        before = completed()
        program = Case(self, self.d, "late-look")
        self.assertEqual(program.line(), "ready")
        wait_for(lambda: completed() == before + 12, 20, "all have ended")
        program.end("\n")

    def test_row_62_schedule(self):
        self.case("schedule")

    def test_row_68_deadlines(self):
        self.case("deadlines")

    def test_row_77_automatic_chunk(self):
        self.case("automatic-chunk")

    def test_row_77_a_shared_array_is_summed_by_parts(self):
        n = 4 * (1 << 20) // 8
        self.assertEqual(self.example("array-sum", 4), [f"sum {n * (n - 1) // 2}, expected {n * (n - 1) // 2}"])

    def test_row_80_jobs_of_a_channel_after_others(self):
        self.case("after")
        self.case("chord")
        self.case("after-a-bad-end")

    # ---- by way of the broker ----

    def test_jobs_over_the_bus_are_as_those_of_a_channel(self):
        self.case("bus-jobs")
        self.case("too-large")
        self.case("bus-and-channel")
        self.case("bus-cancel")

    def test_keys_and_jobs_after_others(self):
        self.case("key-and-after")

    def test_a_pool_is_drained_of_jobs_that_were_over_when_they_came(self):
        self.case("key-for-nobody")

    def test_progress(self):
        self.case("progress")

    def test_row_43_items_one_by_one_and_by_callbacks(self):
        self.case("items")
        self.case("item-callbacks")

    def test_items_of_a_second_attempt_and_lost_ones_are_told(self):
        self.case("items-of-a-second-attempt")
        self.case("items-second-reader")
        self.assertEqual(self.lost.wait(30 * PATIENCE), 0, "see items-lost")

    def test_items_that_nobody_reads_any_more_hold_nothing_up(self):
        self.case("items-let-go")

    def test_items_that_there_were_no_descriptors_for_are_read_later(self):
        self.case("items-short")

    # ---- what it does to its process ----

    def test_letting_go_cancels_nothing(self):
        self.case("dropped")

    def test_a_fork(self):
        self.case("fork")

    def test_giving_back_in_children(self):
        self.case("ends-in-children", **MAY_LEAK)

    def test_giving_back_after_all_descriptors_were_closed(self):
        self.case("ends-without-descriptors", **MAY_LEAK)

    def test_giving_back_in_callbacks(self):
        self.case("ends-in-callbacks", **MAY_LEAK)

    def test_no_thread_no_signal_handler_and_every_descriptor_cloexec(self):
        self.case("descriptors")

    def test_a_loop_of_the_programs_own(self):
        self.case("loop")

    def test_what_outlives_the_connection(self):
        self.case("close")


class Kills(Beside):
    is_about_losses = True

    @staticmethod
    def stop_in_job(d):
        """The pid of a worker that is stopped in the middle of a job."""
        pid = d.list_workers("squares")[0][3]
        os.kill(pid, signal.SIGSTOP)
        if d.list_workers("squares")[0][4] == "running":
            return pid
        os.kill(pid, signal.SIGCONT)
        return None

    @staticmethod
    def end(d):
        kill(d.pid)
        d.process.wait()

    @classmethod
    def restart(cls, d):
        cls.end(d)
        d.start()

    def test_row_36_a_killed_worker_costs_one_attempt(self):
        def kill_worker(d):
            kill(wait_for(lambda: self.stop_in_job(d), 10, "a worker is in the middle of a job"))

        with Drover({"squares": {"Plugin": "squares", "Workers": 4}}) as d:
            self.around(d, "killed-worker", kill_worker)
            self.assertEqual(d.pool("squares")["Retried"], 1)

    def test_the_daemon_returns(self):
        with Drover({"single": {"Plugin": "squares", "Workers": 1}}) as d:
            self.around(d, "daemon-returns", self.restart)

    def test_what_needs_a_daemon_waits_for_the_next_one(self):
        with Drover({"typed": {"Plugin": "typed", "Workers": 1}}) as d:
            program = Case(self, d, "no-daemon")
            self.assertEqual(program.line(), "ready")
            self.end(d)
            program.tell()
            self.assertEqual(program.line(), "away")
            d.start()
            program.end()

    def test_the_daemon_goes(self):
        """For longer than libdrover is patient."""
        with Drover({"single": {"Plugin": "squares", "Workers": 1}}) as d:
            program = Case(self, d, "single", program=f"{BUILD}/tests/library/outage")
            self.assertEqual(program.line(), "ready")
            self.end(d)
            wait_for(lambda: not d.has_name(), 10, "the bus knows that it is dead")
            program.tell()
            self.assertEqual(program.line(), "gone")
            d.start()
            program.end("\n")

    def test_a_stopped_daemon_stops_no_wait(self):
        with Drover({"single": {"Plugin": "squares", "Workers": 1}}) as d:
            program = Case(self, d, "daemon-stopped")
            self.assertEqual(program.line(), "ready")
            self.restart(d)
            os.kill(d.pid, signal.SIGSTOP)
            program.tell()
            line = program.line()
            os.kill(d.pid, signal.SIGCONT)
            self.assertEqual(line, "waited")
            program.end("\n")

    def test_a_bus_job_belongs_to_the_daemon_that_took_it(self):
        with Drover({"single": {"Plugin": "squares", "Workers": 1}}) as d:
            self.around(d, "bus-job-after-a-restart", self.restart)

    def test_a_pool_is_opened_anew_when_its_channel_is_over(self):
        def end_and_start(d):
            d.stop()
            wait_for(lambda: not d.has_name(), 10, "the name is free")
            d.start()

        def remove(d):
            d.remove_pool_file("single")
            d.reload()

        def make(d):
            d.write_pool("single", Plugin="squares", Workers=1)
            d.reload()

        with Drover({"single": {"Plugin": "squares", "Workers": 1}}) as d:
            self.around(d, "pool-opens-again", end_and_start, remove, make)

    def test_what_comes_while_droverd_ends_waits_for_the_next_one(self):
        with Drover({name: {"Plugin": "squares", "Workers": 1} for name in ("single", "other")}) as d:
            program = Case(self, d, "ending")
            self.assertEqual(program.line(), "ready")
            d.process.send_signal(signal.SIGTERM)
            wait_for(lambda: "draining" in d.log(), 10, "droverd ends")
            program.tell()
            self.assertEqual(d.process.wait(20 * PATIENCE), 0)
            d.start()
            program.end()

    def test_shutdown_waits_and_close_says_what_it_dropped(self):
        with Drover({name: {"Plugin": "squares", "Workers": 1} for name in ("single", "other")}) as d:
            self.around(d, "drain-all", lambda d: None)

    def test_a_client_without_bus_jobs_is_told_nothing(self):
        def end_jobs(d):
            for _ in range(3):
                self.assertEqual(d.wait_job(d.submit("single", "sleep", seconds=0.0)[1]), "done")

        with Drover({"single": {"Plugin": "squares", "Workers": 1}}) as d:
            self.around(d, "no-news-without-jobs", end_jobs)

    def test_a_result_that_is_not_kept(self):
        def forget(d):
            wait_for(lambda: not d.call(*MANAGER, "ListJobs", "a{sv}su", 0, "", 10)[0], 10, "nothing is kept")

        with Drover({"single": {"Plugin": "squares", "Workers": 1, "ResultTTL": "0"}}) as d:
            called = d.ctl("call", "single", "square", "x=3")
            self.assertEqual((called.returncode, called.stderr), (0, ""))
            self.around(d, "result-not-kept", forget)

    @staticmethod
    def flood(d, pid, limit):
        """Jobs of the same user end until the bus keeps more than `limit` bytes for the program `pid`."""
        stats = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus.Debug.Stats",
                 "GetConnectionStats", "s")
        names = [row["name"] for row in json.loads(d.busctl("--json=short", "list").stdout) if row["pid"] == pid]
        with Connection(d.bus.address) as other:
            def is_full():
                cookies = [other.send(*MANAGER, "Run", "ssa{sv}a{sv}", b"squares", b"square", 1, b"x", b"x", u64(3), 0)
                           for _ in range(100)]
                for cookie in cookies:
                    other.reply(cookie)
                found = [unwrap(json.loads(d.busctl("--json=short", "call", *stats, name).stdout))[0] for name in names]
                return any(row["OutgoingBytes"] > limit for row in found)
            wait_for(is_full, 20, "the bus takes no more")

    def test_a_bus_that_lets_no_signal_pass_keeps_no_future_waiting(self):
        deny = """<policy context="default">
                    <deny receive_type="signal" receive_interface="org.drover1.Manager" receive_member="JobRemoved"/>
                  </policy>"""

        def forget(d):
            wait_for(lambda: not d.call(*MANAGER, "ListJobs", "a{sv}su", 0, "", 10)[0], 10, "nothing is kept")

        with Drover({"single": {"Plugin": "squares", "Workers": 1, "ResultTTL": "1s"}}, bus_rules=deny) as d:
            self.around(d, "unheard", forget)

    def test_a_program_that_does_not_read_for_long_is_told_all_the_same(self):
        limits = '<limit name="max_outgoing_bytes">20000</limit><limit name="reply_timeout">500</limit>'
        with Drover({name: {"Plugin": "squares", "Workers": 1} for name in ("single", "squares")},
                    bus_rules=limits) as d:
            program = Case(self, d, "unread")
            path = program.line()
            self.flood(d, program.process.pid, 20000)
            d.call(path, "org.drover1.Job", "Cancel", "s", "ask")
            self.assertEqual(d.wait_job(path), "cancelled")
            os.kill(d.pid, signal.SIGSTOP)
            program.tell()
            line = program.line()
            os.kill(d.pid, signal.SIGCONT)
            self.assertEqual(line, "not yet")
            program.end("\n")

    def test_numbers_stay_when_the_daemon_returns(self):
        """Two programs whose channels come back in the other order than they came: each job has its number, and only it
        is killed."""
        with Drover({pool: {"Plugin": "squares", "Workers": 1} for pool in ("first", "second")}) as d:
            programs = {pool: Case(self, d, "numbers-stay") for pool in ("first", "second")}
            ids = {}
            for pool, program in programs.items():
                program.tell(pool)
                ids[pool] = int(program.line())
            self.restart(d)
            for pool in ("second", "first"):
                programs[pool].tell()
                self.assertEqual(programs[pool].line(), "back")
            for pool, i in ids.items():
                self.assertEqual(d.get(f"/org/drover1/job/{i}", "org.drover1.Job", "Pool"), pool)
            for pool, word in (("first", "k"), ("second", "r")):
                programs[pool].end(word)

    def test_killed_clients_leave_nothing(self):
        with Drover({"squares": {"Plugin": "squares", "Workers": 2}}) as d:
            n_fds = len(os.listdir(f"/proc/{d.pid}/fd"))
            for i in range(20):
                program = subprocess.Popen([f"{EXAMPLES}/example-map"], env=d.env(), stdout=subprocess.DEVNULL)
                wait_for(lambda: d.pool("squares")["Running"] > 0 or program.poll() is not None, 20, "it runs jobs")
                program.kill()
                program.wait()
            wait_surely(lambda: d.pool("squares")["Queued"] + d.pool("squares")["Running"] == 0, 10, "no job is left")
            wait_surely(lambda: len(os.listdir(f"/proc/{d.pid}/fd")) <= n_fds, 10, "no descriptor is left")


def declared(*headers):
    """The calls of the public headers."""
    names = set()
    for header in headers:
        with open(f"{SOURCE}/{header}", encoding="utf-8") as f:
            text = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.DOTALL)
        text = re.sub(r"^#(?:[^\n]*\\\n)*[^\n]*", "", text, flags=re.MULTILINE)
        for statement in re.split(r"[;{}]", text):
            match = re.match(r"\s*(?!typedef)[a-z][^()=]*?\b(drover_[a-z0-9][a-z0-9_]*)\(", statement)
            if match:
                names.add(match.group(1))
    return names


class Installed(Test):
    def test_the_library_exports_what_the_headers_declare(self):
        out = subprocess.run(["nm", "-D", "--defined-only", f"{BUILD}/ipc/client/libdrover.so"], capture_output=True,
                             text=True, check=True).stdout
        exported = {line.split()[-1].partition("@")[0] for line in out.splitlines()} - {"DROVER_1"}
        self.assertEqual(exported, declared("ipc/client/include/drover/drover.h", "ipc/sync/include/drover/sync.h"))
        self.assertIn("@@DROVER_1", out)

    def test_every_call_has_its_man_page(self):
        pages = ""
        for path in glob.glob(f"{SOURCE}/docs/*drover*.3.scd"):
            with open(path, encoding="utf-8") as f:
                pages += f.read()
        header = declared("ipc/client/include/drover/drover.h")
        self.assertEqual({name for name in header if not re.search(rf"\b{name}\b", pages)}, set())

    @unittest.skipIf(IS_SANITIZED, "a program without the sanitizer cannot link to it")
    def test_a_program_builds_with_pkg_config_shared_and_static(self):
        with tempfile.TemporaryDirectory() as there:
            subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", there], check=True,
                           capture_output=True)
            pc = glob.glob(f"{there}/**/drover.pc", recursive=True)[0]
            env = dict(os.environ, PKG_CONFIG_PATH=os.path.dirname(pc), PKG_CONFIG_SYSROOT_DIR=there)
            for static in ([], ["--static"]):
                flags = subprocess.run(["pkg-config", "--cflags", "--libs", *static, "drover"], env=env,
                                       capture_output=True, text=True, check=True)
                words = flags.stdout.split()
                if static:
                    words = [glob.glob(f"{there}/**/libdrover.a", recursive=True)[0] if word == "-ldrover" else word
                             for word in words]
                for compiler in ("gcc", "clang"):
                    subprocess.run([compiler, "-std=c11", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror", "-o",
                                    f"{there}/program",
                                    f"{SOURCE}/ipc/client/examples/map.c", *words], check=True)
            with Drover({"squares": {"Plugin": "squares", "Workers": 1}}) as d:
                out = subprocess.run([f"{there}/program", "10"], env=d.env(), capture_output=True, text=True,
                                     check=True).stdout
                self.assertTrue(out.startswith("10 squares, sum 285,"), out)

    @unittest.skipIf(IS_SANITIZED, "a program without the sanitizer cannot link to it")
    def test_all_headers_and_their_macros_in_one_cxx_program(self):
        include = [f"-I{SOURCE}/{place}/include" for place in ("ipc/client", "ipc/sync", "plugins")]
        env = dict(os.environ, LD_LIBRARY_PATH=f"{BUILD}/ipc/client", ASAN_OPTIONS="detect_leaks=0")
        with tempfile.TemporaryDirectory() as there:
            for compiler in ("g++", "clang++"):
                for standard in ("c++11", "c++14", "c++17", "c++20"):
                    command = [compiler, f"-std={standard}", "-Wall", "-Wextra", "-Wno-missing-field-initializers",
                               "-Werror", *include,
                               f"{SOURCE}/tests/library/headers.cc"]
                    if standard in ("c++14", "c++17"):
                        subprocess.run([*command, "-fsyntax-only"], check=True)
                        continue
                    sanitizer = ["-fsanitize=address"] if compiler == "g++" else []  # clang's is a package of its own
                    subprocess.run([*command, *sanitizer, "-o", f"{there}/program", f"-L{BUILD}/ipc/client",
                                    "-ldrover"], check=True)
                    r = subprocess.run([f"{there}/program"], env=env, capture_output=True, text=True, check=False)
                    self.assertEqual((r.returncode, r.stdout), (0, "fine\n"), f"{compiler} {standard}: {r.stderr}")
        both = "#include <drover/drover.h>\n#include <drover/plugin.h>\nint main(void) { return 0; }\n"
        for compiler in ("gcc", "clang"):
            subprocess.run([compiler, "-xc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", *include, "-"],
                           input=both, text=True, check=True)


if __name__ == "__main__":
    main()
