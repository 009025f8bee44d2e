"""README.md tells what happens: its commands are run and their output compared, numbers masked; every promise has its
test."""

import os
import re
import subprocess

from harness import PATIENCE, SOURCE, Drover, Test, main


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

    def test_every_promise_names_a_test_that_runs(self):
        rows = re.findall(r"^\| (.+) \| (test_\w+\.py|tests/(?:unit|model)/[\w-]+\.c|tests/torture/\w+)(?: `(\w+)`)? "
                          r"\|$", readme(), re.MULTILINE)
        promises = readme().partition("## What it promises")[2].partition("\n## ")[0]
        self.assertEqual(len(rows), promises.count("\n| ") - 1, "each row of the table names a test")
        with open(f"{SOURCE}/tests/integration/meson.build", encoding="utf-8") as f:
            suite = f.read()
        for _, file, name in rows:
            if file.startswith("tests/"):
                self.assertTrue(os.path.exists(f"{SOURCE}/{file}"), file)
                continue
            self.assertIn(f"'{file[5:-3]}':", suite, f"{file} is in the suite")
            with open(f"{SOURCE}/tests/integration/{file}", encoding="utf-8") as f:
                self.assertIn(f"    def {name}(", f.read(), f"{file} has {name}")

    def test_links_lead_somewhere(self):
        for target in re.findall(r"\]\(([^)#]+)\)", readme()):
            self.assertTrue(os.path.exists(f"{SOURCE}/{target}"), target)


if __name__ == "__main__":
    main()
