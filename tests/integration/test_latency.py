"""The Latency property: waits in the queue and run times, by job type, for as long as the pool lives."""

import os
import shutil

from harness import Drover, Test, kill, main, wait_for

FIGURES = ["jobs", "queue-max-usec", "queue-p50-usec", "queue-p90-usec", "queue-p99-usec",
           "run-max-usec", "run-p50-usec", "run-p90-usec", "run-p99-usec"]


def latency(d, pool):
    return d.get(d.pool_path(pool), "org.drover1.Pool", "Latency")


class Latency(Test):
    def test_figures_are_those_of_the_jobs(self):
        with Drover({"s": {"Plugin": "sleep", "Workers": 1}}) as d:
            nothing = latency(d, "s")
            self.assertEqual(nothing["all"], {name: 0 for name in FIGURES})
            self.assertEqual(nothing["types"], {})
            for _ in range(9):
                d.run("s", "sleep", ms=5)
            jobs = [d.submit("s", "sleep", ms=200)[1], d.submit("s", "sleep", ms=5)[1]]
            for path in jobs:
                self.assertEqual(d.wait_job(path), "done")
            told = latency(d, "s")
            self.assertEqual(sorted(told["all"]), FIGURES)
            self.assertEqual(told["types"], {"sleep": told["all"]})
            figures = told["all"]
            self.assertEqual(figures["jobs"], 11)
            self.assertGreaterEqual(figures["run-p50-usec"], 5000)
            self.assertLess(figures["run-p50-usec"], 200000)
            self.assertGreaterEqual(figures["run-p99-usec"], 200000)
            self.assertEqual(figures["run-max-usec"], figures["run-p99-usec"])
            self.assertLess(figures["queue-p50-usec"], 100000)
            self.assertGreaterEqual(figures["queue-max-usec"], 100000)  # the last one waited for the long one
            longest = max(d.result(path)["run-usec"] for path in jobs)
            self.assertLessEqual(abs(figures["run-max-usec"] - longest), 1)

    def test_deaths_lose_nothing(self):
        with Drover({"p": {"Plugin": "primes", "Workers": 2}}) as d:
            for i in range(1, 13):
                d.run("p", "is_prime", n=97)
                self.assertEqual(latency(d, "p")["all"]["jobs"], i)
                if i % 4 == 0:
                    old = {w["Pid"] for w in d.workers("p")}
                    for pid in old:
                        kill(pid)
                    wait_for(lambda old=old: not old & {row[3] for row in d.list_workers("p")}, 10,
                             "the killed are gone")
                    d.wait_workers("p", 2)
            self.assertEqual(list(latency(d, "p")["types"]), ["is_prime"])

    def test_another_plugin_begins_anew(self):
        with Drover({"p": {"Plugin": "mine", "Workers": 1}}, wait=False) as d:
            def install(source):
                path = os.path.join(d.plugin_dir, "mine.so")
                shutil.copy(os.path.join(d.plugin_dir, source + ".so"), path + ".new")
                os.rename(path + ".new", path)
                d.pool_call("p", "Restart")
                wait_for(lambda: f'"{source}"' in d.pool_call("p", "Schema"), 10, f"{source} is taken")

            install("primes")
            d.wait_workers("p", 1)
            d.run("p", "is_prime", n=97)
            self.assertEqual(list(latency(d, "p")["types"]), ["is_prime"])
            install("sleep")
            self.assertEqual(latency(d, "p")["all"]["jobs"], 0)
            d.run("p", "sleep", ms=1)
            self.assertEqual(list(latency(d, "p")["types"]), ["sleep"])
            install("primes")
            wait_for(lambda: len(d.list_workers("p")) == 1, 10, "the old worker is gone")
            self.assertEqual(latency(d, "p")["all"]["jobs"], 0)


if __name__ == "__main__":
    main()
