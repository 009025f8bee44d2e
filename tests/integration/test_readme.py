"""README.md tells what happens: its commands are run and their output compared, numbers masked; every promise, there and
in drover-guarantees(7), has its test."""

import os
import re
import subprocess

from harness import PATIENCE, SOURCE, Drover, Test, main
from named_tests import missing_test

TEST_FILE = r"test_\w+\.py|tests/(?:unit|model)/[\w-]+\.c|tests/torture/\w+"


def readme():
    with open(f"{SOURCE}/README.md", encoding="utf-8") as f:
        return f.read()


def commands():
    """[(command, the output shown below it)] of every $ line in a code block."""
    found = []
    for block in re.findall(r"^```\n(.*?)^```", readme(), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif found and block.startswith("$ "):
                found[-1][1].append(line)
    return [(command, "\n".join(lines)) for command, lines in found]


def mask(text):
    """Numbers and the width of columns are of the day; which time unit a duration is told in, too."""
    text = text.replace(",sanitizer", "")  # a build with sanitizers says so
    text = re.sub(r"\d+(\.\d+)?( (µs|ms|s)\b)?", lambda m: "T" if m.group(2) else "N", text.strip())
    return re.sub(r"[ ]+", " ", re.sub(r"^ +", "", text, flags=re.MULTILINE))


class Readme(Test):
    def test_commands(self):
        self.assertGreater(len(commands()), 5)
        with Drover({"crash": {"Plugin": "crash", "Workers": 1}}) as d:
            d.wait_workers("crash", 1)
            d.write_pool("primes", Plugin="primes", Workers=1)  # one after the other: workers are listed in that order
            d.reload()
            d.wait_workers("primes", 1)
            for command, shown in commands():
                r = subprocess.run(["sh", "-c", command + " 2>&1"], env=d.env(), cwd=SOURCE, capture_output=True,
                                   text=True,
                                   timeout=60 * PATIENCE, check=False)
                self.assertEqual(mask(r.stdout), mask(shown), command)

    def check_promise(self, promise, file, name):
        """Tests of models and torture have one name, their file's."""
        if file.startswith("tests/"):
            self.assertTrue(os.path.exists(f"{SOURCE}/{file}"), promise)
        else:
            self.assertIsNone(missing_test(f"tests/integration/{file}", name), promise)

    def test_every_promise_names_a_test_that_runs(self):
        part = readme().partition("## Ten promises")[2].partition("\n## ")[0]
        rows = re.findall(rf"^\| (.+) \| ({TEST_FILE})(?: `(\w+)`)? \|$", part, re.MULTILINE)
        self.assertEqual(len(rows), 10)
        self.assertEqual(len(rows), part.count("\n| ") - 1, "each row of the table names a test")
        for promise, file, name in rows:
            self.check_promise(promise, file, name)

    def test_every_promise_of_the_page_names_a_test_that_runs(self):
        with open(f"{SOURCE}/docs/drover-guarantees.7.scd", encoding="utf-8") as f:
            page = f.read().replace("\\_", "_")
        part = page.partition("\n# WHAT IS PROMISED\n")[2].partition("\n# ")[0]
        promises = re.findall(r"^\*(.+)\*\n((?:\t.*\n|\n)+)", part, re.MULTILINE)
        self.assertGreater(len(promises), 30)
        for promise, body in promises:
            test = re.search(rf"^\tTest: ({TEST_FILE})(?: (\w+))?$", body, re.MULTILINE)
            self.assertTrue(test, promise)
            self.check_promise(promise, test.group(1), test.group(2))

    def test_links_lead_somewhere(self):
        for target in re.findall(r"\]\(([^)#]+)\)", readme()):
            self.assertTrue(os.path.exists(f"{SOURCE}/{target}"), target)


if __name__ == "__main__":
    main()
