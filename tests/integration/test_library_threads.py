"""libdrover from several threads, as its header allows them. In a build with -Db_sanitize=thread what they share by
mistake is found."""

import subprocess

from harness import BUILD, PATIENCE, Drover, Test, main


class Threads(Test):
    def test_threads_as_documented(self):
        """Four threads with a connection each, and four that take turns with one."""
        with Drover({"squares": {"Plugin": "squares", "Workers": 4}}) as d:
            r = subprocess.run([f"{BUILD}/tests/library/library", "threads"], env=d.env(), capture_output=True,
                               text=True,
                               timeout=60 * PATIENCE, check=False)
            self.assertEqual((r.returncode, r.stderr), (0, ""))


if __name__ == "__main__":
    main()
