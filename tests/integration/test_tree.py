"""The rules of the tree that a reader relies on: who includes whom, who alone uses a facility, how large things are."""

import os
import pwd
import re
import shutil
import subprocess
import tempfile
import unittest

from harness import SOURCE, Test, main
from named_tests import missing_test

# What one kernel facility or library looks like in the source, and the files that may use it.
ALONE = {
    "liburing": (r"#include <liburing", {"daemon/loop/loop.c"}),
    "SCM_RIGHTS": (r"\bSCM_RIGHTS\b", {"ipc/memory/packet.c"}),
    "dlopen": (r"\bdlopen\(", {"plugins/host/load/load.c"}),
    "the seccomp listener": (r"\bSECCOMP_IOCTL_", {"ipc/memory/notified.c"}),
    "an array of JSON whose type nobody knows": (r"\bjson_object_(array_length|array_get_idx|object_length)\(",
                                                 {"daemon/ctl/show/json.c"}),
    "libinih": (r"#include <ini\.h>", {"daemon/config/config-file.c"}),
    "signalfd": (r"\bsignalfd\(", {"daemon/daemon.c", "daemon/spawn/main.c"}),
}
CODE = ("ipc/", "daemon/", "plugins/")
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_COLUMNS = 600, 80, 120


def tracked():
    """Files of the tree; without git (a tarball) this test has nothing to say."""
    r = subprocess.run(["git", "-C", SOURCE, "-c", f"safe.directory={SOURCE}", "ls-files"], capture_output=True,
                       text=True, check=False)
    if r.returncode != 0:
        raise unittest.SkipTest("this is no git work tree")
    return [name for name in r.stdout.splitlines() if os.path.exists(f"{SOURCE}/{name}")]


def read(name):
    with open(f"{SOURCE}/{name}", encoding="utf-8") as f:
        return f.read()


def sources(suffixes=(".c", ".h"), folders=CODE):
    return [name for name in tracked() if name.endswith(suffixes) and name.startswith(folders)]


def without_comments(text):
    return re.sub(r"//[^\n]*", "", re.sub(r"/\*.*?\*/", lambda m: "\n" * m.group().count("\n"), text, flags=re.DOTALL))


def functions(lines):
    """(line, number of lines) of each function but those of one line: it begins at the margin, and ends there."""
    start = None
    for number, line in enumerate(lines, 1):
        if re.match(r"[A-Za-z_]", line):
            start = number
        elif line == "}" and start:
            yield start, number - start + 1
            start = None


class Tree(Test):
    def test_who_includes_whom(self):
        for name in sources():
            for header in re.findall(r'^\s*#include "([^"]+)"', read(name), re.MULTILINE):
                self.assertTrue(os.path.exists(f"{SOURCE}/{header}"),
                                f"{name}: {header} stands with its path from the root")
                if name.startswith("ipc/"):
                    self.assertTrue(header.startswith("ipc/"), f"{name} includes {header}")
                elif name.startswith("plugins/"):
                    self.assertFalse(header.startswith("daemon/"), f"{name} includes {header}")
                # a client, but for how settings are spelt: one reader of them for both
                elif name.startswith("daemon/ctl/"):
                    self.assertTrue(header.startswith(("daemon/ctl/", "ipc/", "daemon/config")),
                                    f"{name} includes {header}")
                elif header.startswith("plugins/"):
                    self.assertTrue(name.startswith("daemon/spawn/") and header == "plugins/host/host.h",
                                    f"{name} includes {header}")
                if name.startswith("daemon/supervise/"):
                    self.assertFalse(header.startswith("daemon/bus/"), f"{name} includes {header}")

    def test_supervision_knows_no_bus(self):
        for name in sources(folders=("daemon/supervise/",)):
            self.assertNotIn("sd-bus", without_comments(read(name)), name)

    def test_one_user_of_each_facility(self):
        for what, (pattern, files) in ALONE.items():
            users = {name for name in sources() if re.search(pattern, without_comments(read(name)))}
            self.assertLessEqual(users, files, f"who uses {what}")

    def test_sizes(self):
        self.assertLess(read("meson.build").count("\n"), 100)
        for name in tracked():
            if name.endswith((".c", ".h", ".py")):
                lines = read(name).splitlines()
                self.assertLessEqual(len(lines), MAX_FILE_LINES, f"{name} has two subjects")
            if name.endswith((".c", ".h")):
                for number, line in enumerate(lines, 1):
                    self.assertLessEqual(len(line), MAX_COLUMNS, f"{name}:{number}")
                for start, n in functions(lines):
                    self.assertLessEqual(n, MAX_FUNCTION_LINES, f"{name}:{start}")

    def test_what_a_function_is(self):
        lines = ["struct x {", "        int a;", "};", "", "static int f(int a,", "             int b) {", "        {",
                 "        }", "}", "static int g(void) { return 0; }", "int h(void) {", "}"]
        self.assertEqual(list(functions(lines)), [(5, 5), (11, 2)])

    def test_layout_is_what_clang_format_makes_of_it(self):
        """Of version 14: each has an opinion of its own."""
        said = {}
        for program in filter(shutil.which, ("clang-format-14", "clang-format")):
            said[program] = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
        program = next((name for name, words in said.items() if " version 14." in words), None)
        if program is None:
            self.skipTest(f"clang-format 14 has the last word on layout; here is {list(said.values()) or 'none'}")
        names = [name for name in tracked() if name.endswith((".c", ".h"))]
        r = subprocess.run([program, "--dry-run", "-Werror", "--ferror-limit=1", *names], cwd=SOURCE,
                           capture_output=True, text=True, check=False)
        wrong = sorted(set(re.findall(r"^(\S+?):\d+:\d+: error", r.stderr, re.MULTILINE)))
        self.assertEqual((r.returncode, wrong), (0, []), "clang-format -i mends it")

    def test_each_source_file_says_what_it_is(self):
        for name in sources((".c",)):
            self.assertTrue(read(name).startswith("/*"), f"{name} has no head comment")

    def test_each_feature_names_a_test_that_runs(self):
        rows = re.findall(r"^\| (\d+) \|.*\| `([^`]+)` (\w+) \|", read("tests/FEATURES.md"), re.MULTILINE)
        self.assertEqual(len(rows), len(re.findall(r"^\| \d", read("tests/FEATURES.md"), re.MULTILINE)))
        self.assertGreater(len(rows), 40)
        for number, path, name in rows:
            self.assertIsNone(missing_test(path, name), f"row {number}")
        self.assertTrue(missing_test("tests/unit/test-none.c", "test_none"))
        self.assertTrue(missing_test("tests/unit/test-sync-mutex.c", "test_none"))
        self.assertTrue(missing_test("tests/integration/test_tree.py", "test_none"))

    def test_each_situation_names_where_it_was_reported_and_a_test_that_runs(self):
        text = read("tests/SITUATIONS.md")
        rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| `([^`]+)` (\w+) \|$", text, re.MULTILINE)
        self.assertEqual(len(rows), len(re.findall(r"^\| (?!situation)", text, re.MULTILINE)))
        self.assertGreaterEqual(len(rows), 40)
        for situation, reports, path, name in rows:
            for report in reports.split(", "):
                self.assertRegex(report, r"^[\w.-]+/[\w.-]+#\d+$", situation)
            self.assertIsNone(missing_test(path, name), situation)
        self.assertEqual(len({name for _, _, _, name in rows}), len(rows), "each has a test of its own")

    def test_each_row_of_who_can_do_what_names_a_test_that_runs(self):
        page = read("ipc/PROTOCOL.md").partition("\n## 11. ")[2]
        rows = re.findall(r"^\| (?:can|cannot) \| .*\| `([^`]+)` (\w+) \|$", page, re.MULTILINE)
        self.assertEqual(len(rows), len(re.findall(r"^\| (?:can|cannot) ", page, re.MULTILINE)))
        self.assertGreater(len(rows), 30)
        for path, name in rows:
            self.assertIsNone(missing_test(path, name), name)

    def test_no_test_is_at_home(self):
        home = pwd.getpwuid(os.getuid()).pw_dir.rstrip("/") + "/"
        kept = {name: value for name,
                value in os.environ.items() if name == "HOME" or name.startswith(("XDG_", "DBUS_"))}
        self.assertLess({"HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS",
                         "DBUS_SYSTEM_BUS_ADDRESS"}, set(kept))
        for name, value in kept.items():
            self.assertRegex(value, r"^(unix:path=)?" + re.escape(tempfile.gettempdir()), name)
            self.assertFalse((value + "/").startswith(home), name)

    def test_nothing_names_a_workplace(self):
        for name in tracked():
            if name.endswith((".c", ".h", ".py", ".md", ".build", ".in", ".scd", ".conf", ".xml")) or "." not in name:
                text = read(name)
                for word in ("/work" + "/", "/tmp" + "/b-"):
                    self.assertNotIn(word, text, name)


if __name__ == "__main__":
    main()
