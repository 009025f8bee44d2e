"""droverctl map: a whole list through one channel, compared with coreutils' factor; memory, order, failures, Ctrl-C."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import tempfile

from harness import DROVERCTL, IS_SANITIZED, PATIENCE, Drover, Test, main, rss_kib, wait_for

N = 20000 if IS_SANITIZED else 200000
LIMIT_KIB = 64 * 1024

# Takes seconds: a prime near 2^64.
LONG = "18446744073709551557"


def factor_says(last):
    """What factor makes of 0…last: number -> is it prime. factor prints 'n: p' for a prime and nothing after 0: and
    1:."""
    numbers = "\n".join(str(n) for n in range(last + 1))
    out = subprocess.run(["factor"], input=numbers, capture_output=True, text=True, check=True).stdout
    rows = [line.split(":") for line in out.splitlines()]
    return {int(n): factors.split() == [n] for n, factors in rows}


class Restart(Test):
    def test_a_pool_that_is_stopped_is_said_as_call_says_it(self):
        with Drover({"primes": {"Plugin": "primes", "Workers": 1}}) as d:
            self.assertEqual(d.ctl("stop", "primes").returncode, 0)
            said = [d.ctl(verb, "primes", "is_prime", *words, input="97\n")
                    for verb, words in (("call", ["n=97"]), ("map", []))]
            for r in said:
                self.assertEqual((r.returncode, r.stdout), (4, ""))
                self.assertRegex(r.stderr, r"\Adroverctl: pool primes .*stopped.* "
                                           r"\(org\.drover1\.Error\.PoolStopped\)\n\Z")

    def test_map_goes_on_with_the_next_daemon(self):
        """As after a crash: droverd drains and ends, and the rest of the input waits for the next one."""
        with Drover({"primes": {"Plugin": "primes", "Workers": 2}}) as d:
            ctl = d.ctl_start("map", "primes", "is_prime", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE)
            self.addCleanup(ctl.kill)
            ctl.stdin.write("9999999999999937\n" * 4)
            ctl.stdin.flush()
            wait_for(lambda: (p := d.pool("primes"))["Running"] + p["Queued"] == 4, 10, "four jobs are accepted")
            d.process.send_signal(signal.SIGTERM)
            wait_for(lambda: "draining" in d.log(), 10, "droverd ends")
            ctl.stdin.write("97\n" * 3)
            ctl.stdin.flush()
            self.assertEqual(d.process.wait(40 * PATIENCE), 0)
            d.start()
            out, err = ctl.communicate("98\n", timeout=60 * PATIENCE)
        self.assertEqual((ctl.returncode, err), (0, ""))
        self.assertEqual([line.split("=")[1] for line in out.splitlines()], ["true"] * 7 + ["false"])


class Map(Test):
    @classmethod
    def setUpClass(cls):
        cls.drover = Drover({"primes": {"Plugin": "primes", "Workers": 2}})
        cls.d = cls.drover.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.drover.__exit__(None, None, None)

    def test_every_number_is_what_factor_says_and_memory_stays_small(self):
        with tempfile.TemporaryFile("w+") as numbers, tempfile.TemporaryFile("w+") as answers:
            subprocess.run(["seq", "0", str(N)], stdout=numbers, check=True)
            numbers.seek(0)
            ctl = self.d.ctl_start("map", "primes", "is_prime", "--arg", "n", stdin=numbers, stdout=answers)
            peak = 0
            while ctl.poll() is None:
                try:
                    peak = max(peak, rss_kib(ctl.pid))
                except FileNotFoundError:
                    break
            self.assertEqual(ctl.wait(), 0)
            answers.seek(0)
            expected = factor_says(N)
            n = 0
            for n, line in enumerate(answers):
                self.assertEqual(line, f"{n}\tprime={'true' if expected[n] else 'false'}\n")
            self.assertEqual(n, N)
        if not IS_SANITIZED:
            self.assertGreater(peak, 0)
            self.assertLess(peak, LIMIT_KIB, "droverctl")
            self.assertLess(rss_kib(self.d.pid), LIMIT_KIB, "droverd")

    def test_results_come_in_input_order_whatever_takes_long(self):
        lines = ["1099726899285419", "1", "2", "115797848077099", "4"]
        r = self.d.ctl("map", "primes", "is_prime", input="\n".join(lines))
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertEqual([row.split("\t")[0] for row in r.stdout.splitlines()], lines)
        self.assertEqual(r.stderr, "", "no progress bar in a pipe")

    def test_json_form(self):
        r = self.d.ctl("--json=short", "map", "primes", "is_prime", "--arg=n", input="97\n98\n")
        self.assertEqual(r.stdout, '{"input":"97","state":"done","attempt":1,"result":{"prime":true}}\n'
                                   '{"input":"98","state":"done","attempt":1,"result":{"prime":false}}\n')
        self.assertEqual(r.returncode, 0)

    def test_a_bad_line_is_a_failed_job_and_the_rest_goes_on(self):
        r = self.d.ctl("map", "primes", "is_prime", input="97\nninety-eight\n18446744073709551616\n7\n")
        rows = r.stdout.splitlines()
        self.assertEqual(r.returncode, 1)
        self.assertEqual(rows[0], "97\tprime=true")
        self.assertIn("line 2", rows[1])
        self.assertIn("ninety-eight", rows[1])
        self.assertIn("line 3", rows[2])
        self.assertEqual(rows[3], "7\tprime=true")
        r = self.d.ctl("map", "primes", "is_prime", "--json=short", input="x\n")
        row = json.loads(r.stdout)
        self.assertEqual((row["input"], row["state"], row["attempt"]), ("x", "failed", 0))
        self.assertIn("x", row["error"])

    def test_a_line_that_is_too_long_fails_alone(self):
        r = self.d.ctl("map", "primes", "is_prime", input=f"97\n{'9é' * (1 << 20)}\n7\n")
        self.assertEqual((r.returncode, r.stderr), (1, ""))
        rows = r.stdout.splitlines()
        self.assertEqual((rows[0], rows[2:]), ("97\tprime=true", ["7\tprime=true"]))
        self.assertRegex(rows[1], r"^(9é){20}…\tline 2: longer than 1048576 bytes$")

    def test_long_lines_behind_a_slow_job_are_not_all_held(self):
        self.assertEqual(self.d.ctl("pause", "primes").returncode, 0)
        with tempfile.TemporaryFile("w+") as lines:
            lines.write("97\n" + ("x" * (1 << 20) + "\n") * 100)
            lines.seek(0)
            ctl = self.d.ctl_start("map", "primes", "is_prime", stdin=lines, stdout=subprocess.DEVNULL)
            self.addCleanup(ctl.kill)
            seen = [0]

            def stands():
                seen.append(os.lseek(lines.fileno(), 0, os.SEEK_CUR))
                return seen[-1] > 8 << 20 and len(seen) > 10 and len(set(seen[-10:])) == 1

            wait_for(stands, 20, "no more is read")
            held = rss_kib(ctl.pid)
            self.assertEqual(self.d.ctl("resume", "primes").returncode, 0)
            self.assertEqual(ctl.wait(20 * PATIENCE), 1)
        if not IS_SANITIZED:
            self.assertLess(held, LIMIT_KIB)

    def test_input_that_cannot_be_read(self):
        for words, end, text in (("--input=.", "", "--input=.: Is a directory"),
                                 ("-i /nonexistent", "", "/nonexistent: No such file"),
                                 ("", "<.", "--input=-: Is a directory"),
                                 ("", "<&-", "--input=-: Bad file descriptor")):
            r = subprocess.run(["sh", "-c", f"'{DROVERCTL}' --user map primes is_prime {words} {end}"],
                               env=self.d.env(),
                               capture_output=True, text=True, check=False)
            self.assertEqual((r.returncode, r.stdout), (2, ""), (words, r.stderr))
            self.assertIn(text, r.stderr)

    def test_words_as_input_and_an_empty_input(self):
        self.assertEqual(self.d.ctl("map", "primes", "is_prime", input="").stdout, "")
        r = self.d.ctl("map", "primes", "is_prime", input="7")
        self.assertEqual(r.stdout, "7\tprime=true\n", "a last line without its end counts")

    def test_a_result_is_printed_while_the_input_is_still_open(self):
        ctl = self.d.ctl_start("map", "primes", "is_prime", stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=1)
        for number, answer in (("97", "true"), ("98", "false")):
            ctl.stdin.write(number + "\n")
            ctl.stdin.flush()
            self.assertEqual(ctl.stdout.readline(), f"{number}\tprime={answer}\n")
        ctl.stdin.close()
        self.assertEqual(ctl.wait(10 * PATIENCE), 0)
        ctl.stdout.close()

    def test_progress_bar_on_a_terminal(self):
        master, slave = pty.openpty()
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as f:
            f.write("112272535095293\n" * 24)
            f.flush()
            ctl = self.d.ctl_start("map", "primes", "is_prime", "--input", f.name, stdout=subprocess.DEVNULL,
                                   stderr=slave)
            os.close(slave)
            shown = b""
            while True:
                try:
                    piece = os.read(master, 4096)
                except OSError:
                    break
                if not piece:
                    break
                shown += piece
            self.assertEqual(ctl.wait(10 * PATIENCE), 0)
        os.close(master)
        text = shown.decode()
        self.assertIn("/s", text)
        self.assertIn("%", text)
        self.assertIn("left", text)
        self.assertTrue(text.endswith("\033[K"), "the bar is taken away at the end")

    def test_interrupt_cancels_and_exits_130(self):
        ctl = self.d.ctl_start("map", "primes", "is_prime", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        ctl.stdin.write((LONG + "\n") * 8)
        ctl.stdin.flush()
        wait_for(lambda: self.d.pool("primes")["Running"] == 2, 10, "both workers run a job")
        before = self.d.pool("primes")
        ctl.send_signal(signal.SIGINT)
        self.assertEqual(ctl.wait(10 * PATIENCE), 130)
        ctl.stdin.close()
        ctl.stdout.close()

        def quiet():
            p = self.d.pool("primes")
            ends = sum(p[name]
                       for name in ("Completed", "Failed", "Cancelled", "Expired", "TimedOut", "Poisoned", "Lost"))
            is_idle = p["Running"] == 0 and p["Queued"] == 0
            return is_idle and p["Cancelled"] == before["Cancelled"] + 8 and p["Submitted"] == ends
        wait_for(quiet, 10, "what ran and what waited is cancelled, and every job counts once")
        self.assertEqual(self.d.run("primes", "is_prime", n=97), {"prime": True})

    def test_a_pool_that_stops_gives_what_it_owes_then_refuses(self):
        """Accepted jobs get their verdict and are printed; the rest of the input is told to be refused."""
        ctl = self.d.ctl_start("map", "primes", "is_prime", "--json=short", stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
        ctl.stdin.write("9999999999999937\n" * 6)
        ctl.stdin.flush()
        wait_for(lambda: (p := self.d.pool("primes"))["Running"] + p["Queued"] == 6, 10, "six jobs are accepted")
        self.d.pool_call("primes", "Drain")
        ctl.stdin.write("97\n" * 3)
        out, err = ctl.communicate(timeout=60 * PATIENCE)
        self.assertEqual(ctl.returncode, 4, err)
        self.assertEqual([json.loads(row)["result"] for row in out.splitlines()], [{"prime": True}] * 6)
        self.assertIn("6 lines are answered", err)
        self.d.pool_call("primes", "Start")
        self.d.wait_state("primes", "running")

    def test_a_pool_that_is_removed_gives_what_it_owes_and_is_named(self):
        d = self.d
        d.write_pool("gone", Plugin="primes", Workers=2)
        d.reload()
        d.wait_workers("gone", 2)
        ctl = d.ctl_start("map", "gone", "is_prime", "--json=short", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)
        ctl.stdin.write("9999999999999937\n" * 20)
        ctl.stdin.flush()
        wait_for(lambda: (p := d.pool("gone"))["Running"] + p["Queued"] == 20, 10, "twenty jobs are accepted")
        d.remove_pool_file("gone")
        d.reload()
        with contextlib.suppress(BrokenPipeError):
            ctl.stdin.write("97\n" * 3)
        out, err = ctl.communicate(timeout=60 * PATIENCE)
        rows = [json.loads(row) for row in out.splitlines()]
        self.assertEqual(len(rows), 20, "every accepted job has its verdict")
        self.assertLessEqual({row["state"] for row in rows}, {"done", "cancelled"})
        self.assertIn("pool gone was removed; 20 lines are answered", err)
        self.assertEqual(ctl.returncode, 4)

    def test_json_of_lines_that_are_not_utf8(self):
        r = subprocess.run([DROVERCTL, "--user", "map", "primes", "is_prime", "--json=short"], env=self.d.env(),
                           input=b"\xff7\xc3\n7\n", capture_output=True, timeout=60, check=False)
        rows = [json.loads(row) for row in r.stdout.decode().splitlines()]
        self.assertEqual([row["input"] for row in rows], ["\ufffd7\ufffd", "7"])
        self.assertEqual([row["state"] for row in rows], ["failed", "done"])

    def test_usage(self):
        for words, code, text in (
                (["map", "primes"], 2, "TYPE"),
                (["map", "primes", "is_prime", "--arg=m"], 2, "'m'"),
                (["map", "primes", "is_prime", "--input=/nonexistent"], 2, "/nonexistent"),
                (["map", "nopool", "is_prime"], 4, "nopool"),
                (["map", "primes", "nojob"], 4, "nojob")):
            r = self.d.ctl(*words, input="1\n")
            self.assertEqual(r.returncode, code, r.stderr)
            self.assertIn(text, r.stderr)


if __name__ == "__main__":
    main()
