"""What droverd is started with: descriptors and their limit."""

import os
import subprocess
import unittest

from harness import DROVERD, Drover, PATIENCE, Test, descendants, fds_of, main


def run(command, **options):
    """droverd, to its end: there is no bus for it."""
    line = f"{command} {DROVERD} --user --address=unix:path=/nowhere"
    return subprocess.run(["sh", "-c", line + options.pop("redirections", "")], capture_output=True, text=True,
                          timeout=20 * PATIENCE, check=False,
                          **options)


class Inherited(Test):
    def test_other_descriptors_are_closed(self):
        with open(__file__, encoding="utf-8") as inherited, Drover({"p": {"Plugin": "echo", "Workers": 1}}, launcher=[
                "sh", "-c", f'exec 7<{__file__}; exec "$@"', "sh"]) as d:
            name = os.path.realpath(inherited.name)
            for pid, program in {**descendants(), d.pid: "droverd"}.items():
                self.assertNotIn(name, fds_of(pid).values(), program)

    def test_a_limit_below_what_it_needs_is_named(self):
        r = run("ulimit -n 64; exec")
        self.assertEqual(r.returncode, 1)
        self.assertIn("the hard limit of open files is 64: droverd needs 512 at least (LimitNOFILE= of its unit, "
                      "ulimit -Hn)", r.stderr)

    @unittest.skipIf(os.path.exists("/run/systemd/journal/stdout"),
                     "there is a journal, which test_systemd.py looks into")
    def test_without_a_stderr_and_a_journal_it_does_not_start(self):
        with Drover(wait=False) as d:
            d.stop()
            with subprocess.Popen(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *d.command()], env=d.env()) as p:
                self.addCleanup(p.kill)
                self.assertEqual(p.wait(20 * PATIENCE), 1)


if __name__ == "__main__":
    main()
