"""drover-worker on the command line: what plugin authors see, and that the sandbox holds there as it does in
service."""

import json
import platform
import re
import shutil
import signal
import subprocess
import tempfile
import unittest

from harness import BUILD, IS_SANITIZED, PATIENCE, SOURCE, WORKER, is_alive, main, wait_for

PLUGINS = f"{BUILD}/tests/plugins"
PRIMES = f"{BUILD}/plugins/primes/primes.so"
FROZEN = f"{SOURCE}/tests/plugins/frozen/hello-1.0.so"
DONE, FAILED, USAGE, REFUSED, DIED = range(5)


def worker(*words):
    return subprocess.run([WORKER, *words], text=True, capture_output=True, timeout=60 * PATIENCE)


class Host(unittest.TestCase):
    maxDiff = None

    def run_job(self, plugin, job, *words, code=DONE):
        path = plugin if plugin.startswith("/") else f"{PLUGINS}/{plugin}.so"
        p = worker("--run", path, job, *words)
        self.assertEqual(p.returncode, code, f"{plugin} {job}: {p.stdout}{p.stderr}")
        return p

    def assert_says(self, p, *words):
        for word in words:
            self.assertIn(word, p.stderr)

    # -- the ordinary --

    def test_check_shows_what_a_plugin_offers(self):
        p = worker("--check", PRIMES)
        self.assertEqual(p.returncode, DONE, p.stderr)
        self.assertRegex(p.stdout,
                         r"^primes 1\.0\.0: fine \(sandbox: "
                         r"seccomp,(landlock:\d+,)?no-new-privs,rlimits(,sanitizer)?\)\n")
        self.assertIn("is_prime(n:u64) -> prime:bool", p.stdout)
        self.assertEqual("sanitizer" in p.stdout, IS_SANITIZED)
        schema = json.loads(worker("--check", PRIMES, "--json").stdout)
        self.assertEqual(schema["jobs"][0]["args"], {"n": "u64"})

    def test_primes_are_right(self):
        table = {0: "false", 1: "false", 2: "true", 3: "true", 4: "false", 9: "false", 25: "false", 97: "true",
                 4294967291: "true",
                 4294967297: "false", 18446744073709551615: "false", 18446744073709551614: "false",
                 115280095190773: "true"}
        for n, answer in table.items():
            self.assertEqual(self.run_job(PRIMES, "is_prime", f"n={n}").stdout, f"prime={answer}\n", n)
        self.assertEqual(json.loads(self.run_job(PRIMES, "is_prime", "n=0x61", "--json").stdout), {"prime": True})

    def test_every_type_goes_through(self):
        words = ["u=18446744073709551615", "i=-5", "f=1.5", "b=true", "s=h\u00e9llo", "y=00ff", "us=1,2,3", "is=-1,2",
                 "fs=1.5,2",
                 "bs=true,false", "ss=a,b"]
        self.assertEqual(self.run_job("typed", "echo", *words).stdout.split(), words)
        self.assertEqual(self.run_job("typed", "raw", "payload=abc").stdout, "payload=616263\n")
        self.assertEqual(self.run_job("typed", "reserve", "payload=abc").stdout, "payload=636261\n")

    def test_callbacks_run_in_order(self):
        p = self.run_job("typed", "self")
        self.assertIn('life="preload open init thread"', p.stdout)
        self.assertIn("attempt=1 cancelled=false name=self", p.stdout)
        self.assert_says(p, "<6>thread_fini\n<6>worker_fini\n")

    def test_threads_work_and_libraries_may_probe(self):
        self.assertIn("threads=4", self.run_job("threads", "run").stdout)
        self.assertEqual(self.run_job("opens", "probe").stdout, "errors=13,13,13,0,0\n")
        self.assertIn(f"exe={WORKER}", self.run_job("probe", "probe").stdout)

    def test_output_reaches_stderr_and_a_flood_does_no_harm(self):
        self.assert_says(self.run_job("flood", "log", "n=2"), "<5>job 1: line 1 of 2\n<5>job 1: line 2 of 2\n")
        self.run_job("flood", "flood", "bytes=1000000")

    def test_the_first_plugin_ever_built_still_runs(self):
        if platform.machine() != "x86_64":
            self.skipTest("the frozen plugin is an x86-64 binary")
        self.assertEqual(self.run_job(FROZEN, "hello", "who=you").stdout, 'greeting="Hello, you!"\n')
        self.assert_says(self.run_job(FROZEN, "hello", "who=", code=FAILED), "attempt 1 of hello greets nobody",
                         "EINVAL")
        self.assertEqual(self.run_job(FROZEN, "sum", "values=1,2,3").stdout, "total=6\n")
        self.assertEqual(self.run_job(FROZEN, "echo", "payload=abc").stdout, "payload=616263\n")
        self.assertEqual(self.run_job(FROZEN, "callbacks").stdout,
                         'shared="of preload" state="of worker_init" thread="of thread_init"\n')

    def test_json_and_terminals_of_what_goes_wrong(self):
        order = "\x1b]0;title\x07\u009b2J\nx"
        for words, code, state, text in ((["fails", "fail", "error=5", f"text={order}"], FAILED, "failed", order),
                                         (["crash", "segfault"], DIED, "died", "SIGSEGV"),
                                         (["primes", "none"], USAGE, "usage", "none"),
                                         ([f"{PLUGINS}/nometa.so", "none"], REFUSED, "refused", "DROVER_REGISTER")):
            plugin, *rest = words
            p = self.run_job(PRIMES if plugin == "primes" else plugin, *rest, "--json", code=code)
            answer = json.loads(p.stdout)
            self.assertEqual((set(answer), answer["state"]), ({"state", "error"}, state))
            self.assertIn(text, answer["error"])
            self.assertFalse([c for c in p.stdout + p.stderr if not c.isprintable() and c not in "\n\t"], p.stderr)
        p = worker("--replay", "7", "--json")
        self.assertEqual(p.returncode, USAGE)
        self.assert_says(p, "--json is for")

    # -- the author's first hour --

    def compile(self, source, *flags):
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        path = f"{directory}/plugin.c"
        with open(path, "w") as f:
            f.write(source)
        subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{SOURCE}/plugins/include",
                        *flags, "-o",
                        f"{directory}/plugin.so", path], check=True)
        return f"{directory}/plugin.so"

    def test_the_guide_is_right(self):
        with open(f"{SOURCE}/plugins/GUIDE.md") as f:
            guide = f.read()
        plugin = self.compile(re.search(r"```c\n(.*?)```", guide, re.S).group(1))
        shown = re.search(r"drover-worker --check wc.so\n(.*?)\n    \$ ", guide, re.S).group(1)
        mask = re.compile(r"\(sandbox: .*\)")
        self.assertEqual(mask.sub("", worker("--check", plugin).stdout).split(), mask.sub("", shown).split())
        self.assertEqual(self.run_job(plugin, "count", "text=to be or not").stdout, "bytes=12 words=4\n")
        self.assertIn("bytes=12 words=4", guide)

    def test_the_headers_example_is_c_and_cxx(self):
        with open(f"{SOURCE}/plugins/include/drover/plugin.h", encoding="utf-8") as f:
            code = re.search(r" \*     (#include.*?DROVER_REGISTER.*?\n)", f.read(),
                             re.S).group(1).replace("\n * ", "\n").replace("\n *\n", "\n")
        plugin = self.compile(code)
        self.assertEqual(self.run_job(plugin, "hello", "who=world").stdout, "greeting=world\n")
        for compiler in ("g++", "clang++"):
            for standard in ("c++11", "c++20"):
                if shutil.which(compiler):
                    subprocess.run([compiler, "-xc++", f"-std={standard}", "-Wall", "-Werror", "-fsyntax-only",
                                    f"-I{SOURCE}/plugins/include", "-"],
                                   input=code, text=True, check=True)

    def test_the_header_is_plain_c_and_cxx(self):
        code = '#include <drover/plugin.h>\nint main() { return 0; }\n'
        for command in (["cc", "-xc", "-std=c11", "-pedantic"], ["c++", "-xc++", "-std=c++11"]):
            if not shutil.which(command[0]):
                continue
            subprocess.run([*command, "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{SOURCE}/plugins/include",
                            "-"], input=code,
                           text=True, check=True)

    # -- what goes wrong --

    def test_bad_use_is_told_apart(self):
        for words, said in ((["is_prime", "n=x"], '"n"'), (["is_prime"], '"n"'), (["is_prime", "m=1"], '"m"'),
                            (["is_prime", "n"], '"n"'),
                            (["is_prime", "n=18446744073709551616"], "range"), (["is_prime", "n=-1"], "range"),
                            (["nope"], "nope")):
            self.assert_says(self.run_job(PRIMES, *words, code=USAGE), said)
        self.assert_says(self.run_job("typed", "raw", "u=1", code=USAGE), "payload=")
        self.assertEqual(worker("--nonsense").returncode, USAGE)
        self.assertEqual(worker().returncode, USAGE)
        self.assertEqual(worker("--role=worker").returncode, USAGE)

    def test_failures_say_why(self):
        self.assert_says(self.run_job("fails", "fail", "error=5", "text=no luck", code=FAILED), "no luck", "EIO")
        self.assert_says(self.run_job("fails", "fail", "error=5", "text=", code=FAILED), "Input/output error")
        self.assert_says(self.run_job("fails", "retry", code=FAILED), "not yet")

    def test_garbage_is_refused_by_name(self):
        said = {"missing": '"value"', "unknown": '"surprise"', "type": "expected u64, got str", "twice": '"value"',
                "utf8": "UTF-8",
                "positive": "returned 7", "errno": "unknown error", "message": "not ? text ?",
                "raw": "EOPNOTSUPP"}
        for job, words in said.items():
            self.assert_says(self.run_job("garbage", job, code=FAILED), words)

    def test_a_result_of_two_mebibytes(self):
        out = self.run_job("garbage", "huge")
        self.assertEqual(out.stdout, "text=" + "x" * ((2 << 20) - 1) + "\n")

    def test_deaths_are_named(self):
        for plugin, job, said in (("crash", "segfault", "SIGSEGV at address 0x10"), ("crash", "abort", "SIGABRT"),
                                  ("crash", "kill", "SIGKILL"),
                                  ("crash", "stack", "SIGSEGV"), ("exit", "exit", "exit code 7"),
                                  ("exit", "_exit", "exit code 7"),
                                  ("exit", "exit0", "exit code 0"),
                                  ("crash-in-init", "run", "while the plugin was loaded: SIGSEGV"),
                                  ("crash-in-preload", "run", "while the plugin was loaded: SIGSEGV")):
            self.assert_says(self.run_job(plugin, job, code=DIED), said)
        self.assert_says(self.run_job("scribble", "scribble", "payload=abc", code=DIED), "SIGSEGV")

    def test_what_the_sandbox_stops_is_named(self):
        for job, call in (("open", "openat"), ("socket", "socket"), ("execve", "execve"), ("fork", "clone"),
                          ("code", "mmap")):
            self.assert_says(self.run_job("opens", job, code=DIED), f"the system call {call}", "in the handler",
                             "in the job")
        self.assert_says(self.run_job("doublefork", "escape", code=DIED), "the system call clone at")
        for call, name in (("open", "openat"), ("socket", "socket"), ("execve", "execve")):
            for place in ("constructor", "preload"):
                self.assert_says(self.run_job(f"{call}-in-{place}", "run", code=DIED), f"the system call {name}",
                                 "was loaded")

    def test_what_is_no_plugin_is_refused_in_a_sentence(self):
        cases = {f"{PLUGINS}/nometa.so": ".drover.info", f"{PLUGINS}/badabi.so": "99.0",
                 f"{PLUGINS}/refuses-init.so": "worker_init",
                 "/etc/passwd": "not an ELF file", "/nowhere.so": "No such file", "/etc": "", "/dev/null": "",
                 WORKER: ".drover.info"}
        for path, said in cases.items():
            p = worker("--check", path)
            self.assertEqual(p.returncode, REFUSED, path)
            self.assert_says(p, said)
            self.assertEqual(len(p.stderr.splitlines()), 1, p.stderr)
        self.assert_says(worker("--check", f"{PLUGINS}/badabi.so"), "99.0", "1.1")

    def test_a_foreign_sanitizer_is_refused_before_it_is_loaded(self):
        if IS_SANITIZED:
            self.skipTest("this host has one itself")
        with open(f"{SOURCE}/tests/plugins/sleep.c") as f:
            plugin = self.compile(f.read(), "-Wno-unused-parameter", "-fsanitize=address")
        p = worker("--check", plugin)
        self.assertEqual(p.returncode, REFUSED, p.stderr)
        self.assert_says(p, "sanitizer")
        self.assertNotIn("runtime", p.stderr)

    def test_a_worker_dies_with_whoever_started_it(self):
        p = subprocess.Popen([WORKER, "--run", f"{PLUGINS}/hang.so", "hang"], stderr=subprocess.PIPE)
        children = f"/proc/{p.pid}/task/{p.pid}/children"

        def child():
            with open(children) as f:
                return f.read().split()

        wait_for(child, 20)
        pid = int(child()[0])
        p.send_signal(signal.SIGKILL)
        p.wait()
        p.stderr.close()
        wait_for(lambda: not is_alive(pid), 20)


if __name__ == "__main__":
    main()
