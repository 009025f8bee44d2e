"""fork, spawn and forkserver: the same answers, and each is what its name says."""

import os
import signal
import subprocess

from harness import Drover, Test, main, stat_of, wait_for

METHODS = ("fork", "spawn", "forkserver")
PRIMES = [1116281, 1297337, 104395303, 472882027, 533000389, 817504243, 982451653, 112272535095293, 112582705942171,
          112272535095293, 115280095190773, 115797848077099, 1099726899285419]


def pools(plugin, **keys):
    return {f"{plugin}-{method}": {"Plugin": plugin, "StartMethod": method, "Workers": 2, **keys} for method in METHODS}


def random_of(pid):
    """AT_RANDOM's 16 bytes of another process, as the probe gives them; "" if it may not be read."""
    try:
        with open(f"/proc/{pid}/auxv", "rb") as f:
            words = f.read()
        pairs = [(int.from_bytes(words[i:i + 8], "little"), int.from_bytes(words[i + 8:i + 16], "little"))
                 for i in range(0, len(words) - 15, 16)]
        address = dict(pairs)[25]
        with open(f"/proc/{pid}/mem", "rb") as f:
            f.seek(address)
            return f.read(16).hex()
    except (OSError, KeyError):
        return ""


class StartMethods(Test):
    def test_same_jobs_same_output_in_three_pools_at_once(self):
        numbers = "\n".join(str(n) for n in PRIMES)
        with Drover(pools("primes")) as d:
            maps = [d.ctl_start("map", f"primes-{method}", "is_prime", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                    for method in METHODS]
            for ctl in maps:
                ctl.stdin.write(numbers)
                ctl.stdin.close()
            outputs = []
            for ctl in maps:
                outputs.append(ctl.stdout.read())
                ctl.stdout.close()
                self.assertEqual(ctl.wait(30), 0)
            self.assertEqual(outputs[0].count("prime=true"), 12)
            self.assertTrue(outputs[0].endswith("1099726899285419\tprime=false\n"))
            self.assertEqual(outputs[1], outputs[0])
            self.assertEqual(outputs[2], outputs[0])
            for method in METHODS:
                self.assertEqual(d.pool(f"primes-{method}")["StartMethod"], method)
                self.assertEqual(d.run(f"primes-{method}", "is_prime", n=1099726899285419), {"prime": False})

    def probe_all(self, d, pool):
        """What each of the pool's two workers says of itself: each is asked while the other is stopped."""
        found = []
        for row in d.wait_workers(pool, 2):
            os.kill(row[3], signal.SIGSTOP)
            try:
                wait_for(lambda pid=row[3]: stat_of(pid)[1] == "T", 5, "it is stopped")
                found.append(d.run(pool, "probe"))
                self.assertNotEqual(found[-1]["pid"], row[3])
            finally:
                os.kill(row[3], signal.SIGCONT)
        return found

    def test_probe(self):
        with Drover(pools("probe")) as d:
            spawner = d.spawner()
            self.assertTrue(spawner)
            spawner_random = random_of(spawner)
            if os.geteuid() == 0:
                self.assertTrue(spawner_random, "root reads it, and what is said of it below says something")

            spawned = self.probe_all(d, "probe-spawn")
            for key in ("random", "plugin_address", "libc_address"):
                self.assertEqual(len({w[key] for w in spawned}), 2, f"spawn: {key} of two workers differ")
            for w in spawned:
                self.assertTrue(w["exe"].endswith("/drover-worker"), w)
                self.assertNotEqual(w["random"], spawner_random)
                self.assertEqual(w["preloads"], 1)

            forked = self.probe_all(d, "probe-forkserver")
            for key in ("random", "plugin_address", "libc_address"):
                self.assertEqual(len({w[key] for w in forked}), 1, f"forkserver: {key} of two workers is one")
            for w in forked:
                self.assertTrue(w["exe"].endswith("/drover-worker"), w)
                self.assertEqual(w["preloads"], 1, "preload ran once, in the template")
                self.assertNotEqual(w["random"], spawner_random)
                self.assertEqual(w["ppid"], spawner, "the spawner reaps it")
            templates = [random_of(pid) for pid in d.templates()]
            if spawner_random:
                self.assertIn(forked[0]["random"], templates, "the workers are forks of the template")
            self.assertNotIn(forked[0]["random"], [w["random"] for w in spawned])

            same = self.probe_all(d, "probe-fork")
            self.assertEqual(len({w["random"] for w in same}), 1)
            self.assertEqual(len({w["libc_address"] for w in same}), 1)
            for w in same:
                self.assertTrue(w["exe"].endswith("/drover-spawn"), w)
                if spawner_random:
                    self.assertEqual(w["random"], spawner_random, "fork: the image is the spawner's")
                self.assertEqual(w["ppid"], spawner)

    def test_every_type_in_every_method(self):
        with Drover(pools("typed")) as d:
            args = {"u": 2 ** 64 - 1, "i": -2 ** 63, "f": 2.5, "b": True, "s": "grüße", "y": b"\x00\xff\x01",
                    "us": [1, 2 ** 63],
                    "is": ("ax", "2 -1 1"), "fs": [0.5, 1.5], "bs": [True, False], "ss": ["a", ""]}
            for method in METHODS:
                result = d.run(f"typed-{method}", "echo", **args)
                self.assertEqual(result["u"], args["u"])
                self.assertEqual(result["i"], args["i"])
                self.assertEqual(result["is"], [-1, 1])
                self.assertEqual((result["s"], bytes(result["y"]), result["ss"]), (args["s"], args["y"], args["ss"]))
                payload = os.urandom(1000)
                raw = d.run(f"typed-{method}", "raw", payload=payload)
                self.assertEqual(bytes(raw["payload"]), payload)
                self.assertEqual(d.run(f"typed-{method}", "self")["life"], "preload open init thread")


if __name__ == "__main__":
    main()
