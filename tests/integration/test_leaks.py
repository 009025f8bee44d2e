"""A plugin that leaks descriptors: its worker says so, and nobody else pays for it."""

from harness import Drover, Test, main, wait_for

POOL = {"Plugin": "leak", "Workers": 1, "MaxAttempts": 1, "RestartSec": 0}


class Leaks(Test):
    is_about_losses = True

    def test_no_descriptor_left(self):
        """What is lost for want of one is not the broker's end: the worker's death has its name, and sessions go on."""
        with Drover({"p": POOL}) as d:
            for n in range(3):
                worker = d.wait_workers("p", 1)[0]
                self.assertGreater(d.run("p", "leak", bytes=0, fds=100000)["fds"], 100)
                # a new session: its channel comes with descriptors
                r = d.ctl("map", "p", "leak", input="bytes=0 fds=0\n" * 20)
                self.assertEqual((r.returncode, r.stdout.count("fds=0")), (0, 40), r)
                death = wait_for(lambda: (x := d.deaths("p")) and len(x) == n + 1 and x[0], 10, "its death is told")
                self.assertEqual(death["worker"], worker[0])
                self.assertIn("plugin leak has left no descriptor free in its worker", death["text"])
            self.assertEqual(d.pool("p")["Poisoned"], 0)
            self.assertEqual(d.pool("p")["State"], "running")


if __name__ == "__main__":
    main()
