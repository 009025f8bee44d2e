"""./demo tells the whole story, needs no network the second time, and leaves nothing."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

from harness import IS_SANITIZED, PATIENCE, SOURCE, Test, descendants, main, reap_orphans, wait_for
from test_readme import readme
from test_start_methods import PRIMES


def without_network():
    """Words that run a command in an empty network namespace, if this machine lets us."""
    words = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-current-user", "--net"]
    works = shutil.which("unshare") and subprocess.run([*words, "true"], capture_output=True,
                                                       check=False).returncode == 0
    return words if works else []


@unittest.skipIf(IS_SANITIZED, "the demo makes a build of its own, without sanitizers")
class Demo(Test):
    def run_demo(self, *words, **options):
        """Its output; the first run builds and may install."""
        r = subprocess.run([*options.pop("prefix", []), f"{SOURCE}/demo", *words], stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT,
                           text=True, timeout=600 * PATIENCE, check=False, **options)
        self.assertEqual(r.returncode, 0, r.stdout)
        return r.stdout

    def check_nothing_left(self):
        def clean():
            reap_orphans()
            return not descendants()
        wait_for(clean, 2, lambda: f"no process is left: {descendants()}")

    def test_story(self):
        self.run_demo()
        out = self.run_demo(prefix=without_network(), stdin=subprocess.DEVNULL)
        self.check_nothing_left()

        self.assertIn("$ busctl --user call org.drover1 /org/drover1 org.drover1.Manager Run 'ssa{sv}a{sv}' primes "
                      "is_prime 1 n t "
                      "1099726899285419 0\na{sv} 1 \"prime\" b false\n", out)
        answers = re.findall(r"^(\d+)\tprime=(true|false)$", out, re.MULTILINE)
        self.assertEqual([int(n) for n, _ in answers], PRIMES * 5)
        self.assertEqual([n for n, answer in answers if answer == "false"], ["1099726899285419"] * 5)
        self.assertEqual(len(re.findall(r"\d+\.\d\d s, CPU \d+\.\d\d s", out)), 2,
                         "wall and CPU time for one and two workers")
        self.assertRegex(out, r'\{"input":"\d+","state":"done","attempt":2,"result":\{"prime":(true|false)\}\}')
        self.assertRegex(out, r"65 answers, all the same as before; [12] job took a second attempt")
        if shutil.which("python3"):
            self.assertRegex(out, r"BrokenProcessPool after \d+ answers")
        self.assertRegex(out, r"poisoned after 3 attempts: .*SIGSEGV")
        self.assertIn("# the next job\nprime=true\n", out)
        for method in ("fork", "forkserver", "spawn"):
            self.assertRegex(out, rf"(?m)^{method} +\d+\.\d\d ms +\w.* \d+\.\d\d ms")
        self.assertTrue(out.rstrip().splitlines()[-1].strip().startswith("build/"), "the next commands")
        self.assertIn("No process, socket or memfd of it is left.", out)

        def table(text):
            return [re.sub(r"\d+(\.\d+)?", "N", re.sub(r" +", " ", row))
                    for row in re.findall(r"^\| .*\d.*\|$", text, re.MULTILINE)
                    if re.match(r"\| (the list|drover,|ProcessPool)", row)]
        self.assertEqual(table(readme()), table(out), "README's table is the demo's own")

    def test_it_is_built_without_the_packages_of_the_suite(self):
        """What ./check installs beyond ./demo must not be needed to build: here cmocka is hidden from meson."""
        paths = subprocess.run(["pkg-config", "--variable=pc_path", "pkg-config"], capture_output=True, text=True,
                               check=True).stdout
        with tempfile.TemporaryDirectory() as scratch:
            os.mkdir(f"{scratch}/pc")
            for path in reversed(paths.strip().split(":")):
                for name in os.listdir(path) if os.path.isdir(path) else []:
                    if name != "cmocka.pc":
                        os.path.lexists(f"{scratch}/pc/{name}") or os.symlink(f"{path}/{name}", f"{scratch}/pc/{name}")
            r = subprocess.run(["meson", "setup", f"{scratch}/build", SOURCE],
                               env=dict(os.environ, PKG_CONFIG_LIBDIR=f"{scratch}/pc"),
                               capture_output=True, text=True, timeout=60 * PATIENCE, check=False)
            self.assertEqual(r.returncode, 0, r.stdout)
            self.assertRegex(r.stdout, "dependency cmocka found: NO")

    def test_io_uring_refused_is_told_before_anything_else(self):
        r = subprocess.run([sys.executable, f"{SOURCE}/tests/integration/refuse.py", "io_uring", f"{SOURCE}/demo"],
                           capture_output=True,
                           text=True, timeout=60 * PATIENCE, check=False)
        self.assertEqual(r.returncode, 1, r.stdout)
        self.assertIn("io_uring", r.stdout)
        self.assertIn("seccomp", r.stdout)
        self.assertNotIn("Installing", r.stdout)
        self.assertNotIn("meson", r.stdout)

    def test_keep_gives_a_shell_with_the_daemon_and_path(self):
        script = ("droverctl call primes is_prime n=97 && echo KEPT\n"
                  "echo DIRECTORY $DROVER_DEMO_DIR; grep -c $DROVER_DEMO_DIR /proc/net/unix\nexit\n")
        out = self.run_demo("--keep", input=script, env=dict(os.environ, SHELL="/bin/sh"))
        self.assertIn("prime=true\nKEPT\n", out)
        directory, n_sockets = re.search(r"^DIRECTORY (/\S+)\n(\d+)$", out, re.MULTILINE).groups()
        self.assertGreater(int(n_sockets), 0, "what is looked for below was there")
        self.check_nothing_left()
        self.assertFalse(os.path.exists(directory))
        with open("/proc/net/unix", encoding="utf-8") as f:
            self.assertNotIn(directory, f.read())


if __name__ == "__main__":
    main()
