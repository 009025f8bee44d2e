"""Completion in bash: verbs, options and values of droverctl's own tables, names from the live bus."""

import os
import re
import shutil
import subprocess
import unittest

from harness import DROVERCTL, SOURCE, Drover, Test, main
from test_ctl_terminal import Screen

SCRIPT = f"{SOURCE}/daemon/ctl/droverctl.bash"


class Completion(Test):
    @classmethod
    def setUpClass(cls):
        cls.drover = Drover({"primes": {"Plugin": "primes", "Workers": 1}, "typed": {"Plugin": "typed", "Workers": 1},
                             "tasks": {"Plugin": "cancellable", "Workers": 1}})
        cls.d = cls.drover.__enter__()
        for pool in ("primes", "typed", "tasks"):
            cls.d.wait_workers(pool, 1)

    @classmethod
    def tearDownClass(cls):
        cls.drover.__exit__(None, None, None)

    def complete(self, line):
        """What bash would offer at the end of the line: the function is called with the words as bash cuts them."""
        words = [piece for word in line.split(" ") for piece in (re.findall(r"[=:]+|[^=:]+", word) or [""])]
        if line.endswith(("=", ":")):
            words.append("")
        script = (f"source '{SCRIPT}'; COMP_WORDS=({' '.join(repr(w) for w in words)}); COMP_CWORD={len(words) - 1}; "
                  "_droverctl; printf '%s\\n' \"${COMPREPLY[@]}\"")
        r = subprocess.run(["bash", "--norc", "-u", "-c", script], env=self.d.env(), capture_output=True, text=True,
                           check=False)
        self.assertEqual((r.returncode, r.stderr), (0, ""), line)
        return r.stdout.split()

    def test_verbs(self):
        offered = self.complete("droverctl ")
        text = subprocess.run([DROVERCTL, "--help"], capture_output=True, text=True, check=True).stdout
        self.assertEqual(offered, re.findall(r"^  ([a-z][a-z-]*) ", text.partition("\nOptions")[0], re.MULTILINE))
        self.assertEqual(self.complete("droverctl re"), ["result", "requeue", "resubmit", "restart", "resume", "resize",
                                                         "reset-failed", "remove-arena", "reload"])
        self.assertEqual(self.complete("droverctl --user -q resi"), ["resize"])
        self.assertEqual(self.complete("droverctl frob"), [])

    def test_options_of_the_verb(self):
        self.assertIn("--mode=", self.complete("droverctl cancel --"))
        self.assertNotIn("--mode=", self.complete("droverctl status --"))
        self.assertEqual(self.complete("droverctl status --fu"), ["--full"])
        self.assertEqual(self.complete("droverctl status --json="), ["pretty", "short", "off"])
        self.assertEqual(self.complete("droverctl --json=s"), ["short"])
        self.assertEqual(self.complete("droverctl --json p"), ["pretty"])
        self.assertEqual(self.complete("droverctl kill -s SE"), ["SEGV"])
        self.assertEqual(self.complete("droverctl list-jobs --state=can"), ["cancelled"])
        self.assertEqual(self.complete("droverctl list-jobs --state=done,f"), ["done,failed"])
        self.assertIn("running,lost", self.complete("droverctl list-jobs --state running,"))
        self.assertEqual(self.complete("droverctl run --start-method=fork"), ["fork", "forkserver"])

    def test_pools_types_and_arguments(self):
        self.assertEqual(self.complete("droverctl drain "), ["primes", "tasks", "typed"])
        self.assertEqual(self.complete("droverctl drain primes t"), ["tasks", "typed"])
        self.assertEqual(self.complete("droverctl resize primes "), [])
        self.assertEqual(self.complete("droverctl call t"), ["tasks", "typed"])
        self.assertEqual(self.complete("droverctl call typed "), ["echo", "raw", "reserve", "self"])
        self.assertEqual(self.complete("droverctl call primes is_prime "), ["n="])
        self.assertEqual(self.complete("droverctl call typed echo u=1 i=2 f"), ["f=", "fs="])
        self.assertEqual(self.complete("droverctl call typed echo b="), ["true", "false"])
        self.assertEqual(self.complete("droverctl call typed echo b=t"), ["true"])
        self.assertEqual(self.complete("droverctl submit typed raw "), ["payload="])
        self.assertEqual(self.complete("droverctl call nopool "), [])
        self.assertEqual(self.complete("droverctl map primes is_prime -a "), ["n"])
        self.assertEqual(self.complete("droverctl map typed echo --arg=f"), ["f", "fs"])
        self.assertEqual(self.complete("droverctl map typed raw --arg="), [])
        self.assertEqual(self.complete("droverctl call primes is_prime n=97 -o "), ["prime="])
        self.assertEqual(self.complete("droverctl call typed raw --output="), ["payload="])
        self.assertEqual(self.complete("droverctl result 7 -o "), [])

    def test_jobs_and_workers(self):
        number, path = self.d.submit("tasks", "work", ms=60000)
        self.assertIn(str(number), self.complete("droverctl wait "))
        self.assertIn(f"7,{number}", self.complete("droverctl submit tasks work ms=1 --after=7,"))
        self.assertIn(f"job/{number}", self.complete("droverctl show job/"))
        self.assertEqual(set(self.complete("droverctl requeue ")) & {str(number), "primes"}, {str(number), "primes"})
        workers = [str(row[0]) for row in self.d.list_workers()]
        self.assertEqual(self.complete("droverctl kill "), workers)
        self.assertEqual(self.complete("droverctl show worker/"), [f"worker/{worker}" for worker in workers])
        self.d.call(path, "org.drover1.Job", "Cancel", "s", "ask")
        self.d.wait_job(path)

    def test_without_a_daemon_nothing_is_said(self):
        env = dict(self.d.env(), DBUS_SESSION_BUS_ADDRESS="unix:path=/nonexistent",
                   DBUS_SYSTEM_BUS_ADDRESS="unix:path=/nonexistent")
        r = subprocess.run([DROVERCTL, "complete", "--", "drain", ""], env=env, capture_output=True, text=True,
                           check=False)
        self.assertEqual((r.returncode, r.stdout), (0, ""))
        r = subprocess.run([DROVERCTL, "complete", "--", "drai"], env=env, capture_output=True, text=True, check=False)
        self.assertEqual(r.stdout, "drain\n")

    @unittest.skipUnless(shutil.which("tmux"), "tmux is not installed")
    def test_at_the_keyboard(self):
        env = dict(self.d.env(), INPUTRC="/dev/null")
        with Screen(env, f"bash --init-file '{SCRIPT}' -i") as screen:
            screen.wait(r"[$#] *$")
            for typed, tabs, seen in (("droverctl sta", 2, "start +status"),
                                      ("droverctl list-p", 1, r"droverctl list-pools *$")):
                screen.keys("-l", typed)
                screen.keys(*["Tab"] * tabs)
                screen.wait(seen)
                screen.keys("C-u")
            screen.keys("-l", "droverctl call primes is_prime ")
            screen.keys("Tab")
            screen.wait("is_prime n=$")  # and no blank: the value follows
            screen.keys("-l", "97 --json=sh")
            screen.keys("Tab", "Enter")
            screen.wait(r'"prime":true')

    def test_the_script_is_installed(self):
        with open(f"{SOURCE}/daemon/ctl/meson.build", encoding="utf-8") as f:
            self.assertIn("install_data('droverctl.bash', rename: 'droverctl', install_dir: bash_completion_dir)",
                          f.read())
        self.assertTrue(os.path.exists(SCRIPT))


if __name__ == "__main__":
    main()
