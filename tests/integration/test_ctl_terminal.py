"""What a person sees: droverctl in a terminal (tmux), its screen captured. Without a terminal the same is plain
lines."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest

from harness import DROVERCTL, PATIENCE, Drover, Test, main, wait_for


class Screen:
    """A terminal of a given size with one command in it. When that has ended, the last line says "ended N"."""

    def __init__(self, env, command, columns=100, rows=30):
        self.dir = tempfile.mkdtemp(prefix="drt-")
        self.socket = os.path.join(self.dir, "s")
        shell = f"trap : INT; {command}; echo ended $?; exec cat"
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(rows), "sh", "-c", shell,
                  env=env)

    def tmux(self, *words, env=None):
        return subprocess.run(["tmux", "-S", self.socket, *words], env=env, capture_output=True, text=True,
                              timeout=20 * PATIENCE,
                              check=True).stdout

    def text(self, with_colours=False):
        return self.tmux("capture-pane", "-p", *(["-e"] if with_colours else []))

    def wait(self, pattern, seconds=20):
        """The first screen that holds it."""
        seen = [""]

        def look():
            seen[0] = self.text()
            return seen[0] if re.search(pattern, seen[0], re.MULTILINE) else None
        try:
            return wait_for(look, seconds, pattern, step=0.05)
        except AssertionError:
            raise AssertionError(f"no {pattern!r} on the screen:\n{seen[0]}") from None

    def keys(self, *keys):
        self.tmux("send-keys", *keys)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        subprocess.run(["tmux", "-S", self.socket, "kill-server"], capture_output=True, check=False)
        shutil.rmtree(self.dir, ignore_errors=True)


@unittest.skipUnless(shutil.which("tmux"), "tmux is not installed")
class Terminal(Test):
    @classmethod
    def setUpClass(cls):
        cls.drover = Drover({"work": {"Plugin": "cancellable", "Workers": 2},
                             "a-pool-with-a-rather-long-name": {"Plugin": "primes", "Workers": 1}})
        cls.d = cls.drover.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.drover.__exit__(None, None, None)

    def screen(self, words, columns=100, rows=30):
        return Screen(self.d.env(), f"'{DROVERCTL}' --user {words}", columns, rows)

    def submit(self, ms):
        return self.d.submit("work", "work", ms=ms)

    def cancel(self, *paths):
        for path in paths:
            self.d.call(path, "org.drover1.Job", "Cancel", "s", "ask")
            self.d.wait_job(path)

    def test_top(self):
        number, path = self.submit(60000)
        with self.screen("top --interval=200ms") as screen:
            text = screen.wait(rf"^ +\d+  work .* {number}  work +\d")
            self.assertRegex(text, r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  droverd \S+: 2 pools, 3 workers")
            self.assertRegex(text, r"(?m)^POOL .*STATE .*QUEUED .*DONE/S .*P99")
            self.assertRegex(text, r"(?m)^WORKER  POOL .*JOB .*AGE .*CPU +MEMORY")
            self.assertRegex(text, r"(?m)^work +running +2 +0 +1 ")
            screen.wait(rf" {number}  work +[1-9][\d.]* s ")  # its age grows
            for _ in range(3):
                self.d.run("work", "work", ms=1)
            screen.wait(r"^work +running +2 +0 +1 +(\d\.\d|[1-9]\d*) ")  # a rate
            screen.wait(r"^work .*( ms| µs| s) ")  # a quantile
            screen.keys("q")
            text = screen.wait("^ended 0")
            self.assertNotIn("WORKER", text, "the screen is the one from before")
        self.cancel(path)

    def test_top_follows_the_size_and_ends_at_ctrl_c(self):
        with self.screen("top --interval=10s") as screen:
            screen.wait("^WORKER .*SAYS")
            screen.tmux("resize-window", "-x", "60", "-y", "8")
            text = screen.wait(r"^\d{4}-.*\n\nPOOL +STATE +WORKERS", 5)  # at once, not after ten seconds
            self.assertLessEqual(max(len(line) for line in text.splitlines()), 60)
            screen.keys("C-c")
            screen.wait("^ended 0")

    def test_top_says_what_a_small_terminal_does_not_show(self):
        """2 pools and 3 workers among the lines around them: all of them need ten."""
        with self.screen("top --interval=10s", rows=10) as screen:
            self.assertNotIn("not shown", screen.wait(r"^WORKER .*SAYS\n(.*\n){3}"))
            for rows, pools, workers, hidden in ((9, 2, 1, "0 pools and 2 workers"), (8, 1, 1, "1 pool and 2 workers"),
                                                 (6, 0, 0, "2 pools and 3 workers"),
                                                 (2, 0, 0, "2 pools and 3 workers")):
                screen.tmux("resize-window", "-x", "100", "-y", str(rows))
                text = screen.wait(rf"^not shown: {hidden}, ", 5)
                self.assertEqual(len(re.findall(r"(?m)^(?:work|a-pool-\S+) +running", text)), pools, text)
                self.assertEqual(len(re.findall(r"(?m)^ +\d+  (?:work|a-pool-\S+) ", text)), workers, text)
            screen.keys("q")
            screen.wait("^ended 0")
        self.assertNotIn("not shown", self.d.ctl("top", "--once", "--interval=100ms").stdout)

    def test_top_without_a_terminal_prints_blocks(self):
        r = self.d.ctl("top", "--once", "--interval=100ms")
        self.assertEqual((r.returncode, r.stderr), (0, ""))
        self.assertNotIn("\033", r.stdout)
        self.assertRegex(r.stdout, r"(?m)^work +running +2 +0 +0 +0 ")
        top = self.d.ctl_start("top", "--interval=100ms", stdout=subprocess.PIPE)
        for _ in range(2):
            lines = [top.stdout.readline() for _ in range(10)]
            self.assertRegex(lines[0], r"^\d{4}-.* droverd ")
            self.assertRegex(lines[2], r"^POOL ")
            self.assertRegex(lines[6], r"^WORKER ")
            self.assertEqual(top.stdout.readline(), "\n")
        top.terminate()
        top.communicate()
        self.assertEqual(top.returncode, 0)
        r = self.d.ctl("top", "--once", "--json=short", "--interval=100ms")
        look = json.loads(r.stdout)
        self.assertIn("done-per-second", look["Pools"][0])
        self.assertIn("memory-bytes", look["Workers"][0])

    def test_the_bar_of_wait_shows_the_jobs_own_progress(self):
        number, path = self.submit(60000)
        with self.screen(f"wait {number}") as screen:
            text = screen.wait(r"\[#*\.+\] +\d+%  [1-9]\d* steps +[1-9]\d*/s +\d\d:\d\d left")
            self.assertNotIn("done", text)
            self.cancel(path)
            text = screen.wait(f"^{number} cancelled\nended 1")
            self.assertNotIn("steps", text, "the bar is taken away")

    def test_a_bar_on_a_narrow_terminal_is_cut_and_taken_away(self):
        number, path = self.submit(60000)
        with self.screen(f"wait {number}", columns=24) as screen:
            screen.wait(r"%  [1-9]\d* steps")
            rows = screen.text().split("\n")
            self.cancel(path)
            self.assertLessEqual(len(rows[0]), 23)
            self.assertEqual("".join(rows[1:]).strip(), "", "nothing of it is on another line")
            text = screen.wait(f"^{number} cancelled\nended 1")
            self.assertEqual(text.split(), [str(number), "cancelled", "ended", "1"], "nothing of the bar is left")

    def test_the_bar_of_drain_and_restart(self):
        jobs = [self.submit(1500)[1] for _ in range(4)]
        with self.screen("drain work") as screen:
            screen.wait(r"\] +\d+%  [0-3] jobs ")
            screen.wait(r"\[#+\.+\] +(25|50|75)%  [1-3] jobs .* left")
            screen.wait("^work is stopped\nended 0")
        for path in jobs:
            self.assertEqual(self.d.wait_job(path), "done")
        self.assertEqual(self.d.ctl("start", "work").returncode, 0)
        self.d.wait_workers("work", 2)
        _, path = self.submit(1500)
        wait_for(lambda: self.d.pool("work")["Running"] == 1, 10, "it runs")
        with self.screen("restart work") as screen:
            screen.wait(r"\[[#.]+\] +\d+%  [01] workers")
            screen.wait("^work is running\nended 0")
        self.assertEqual(self.d.wait_job(path), "done")

    def test_without_a_terminal_there_is_no_bar(self):
        number, _ = self.submit(500)
        r = self.d.ctl("wait", number)
        self.assertEqual((r.stdout, r.stderr), (f"{number} done\n", ""))

    def test_tables_fit(self):
        whole = self.d.ctl("list-pools").stdout
        self.assertIn("a-pool-with-a-rather-long-name  primes", whole)
        for columns in (40, 60, 80, 100):
            with self.screen("list-pools", columns=columns) as screen:
                rows = screen.wait("^ended 0").splitlines()
            heading, names = rows[0], [row.split()[0] for row in rows[1:3]]
            self.assertTrue(heading.startswith("POOL") and "STATE" in heading, rows)
            self.assertEqual(names[1], "work", f"{columns}: no row is wrapped")
            self.assertIn("…", names[0]) if columns < 100 else None
            self.assertEqual("POISONED" in heading, columns >= 100, heading)
        with self.screen("list-pools --full", columns=60) as screen:
            self.assertIn("a-pool-with-a-rather-long-name", screen.wait("^ended 0"))

    def test_colours_on_a_terminal_only(self):
        with self.screen("list-pools") as screen:
            screen.wait("^ended 0")
            self.assertIn("\033[32mrunning", screen.text(with_colours=True))
        for setting in ("NO_COLOR=1", "TERM=dumb"):  # tmux sets TERM itself
            with Screen(self.d.env(), f"{setting} '{DROVERCTL}' --user list-pools") as screen:
                screen.wait("^ended 0")
                self.assertNotIn("\033[32m", screen.text(with_colours=True), setting)
        self.assertNotIn("\033", self.d.ctl("list-pools").stdout)


if __name__ == "__main__":
    main()
