"""More pools than there can be: the limit is told, once, and is final; below it all of them run."""

from collections import Counter

from harness import MANAGER, Drover, Test, main, wait_for

POOL = {"Plugin": "echo", "Workers": 1, "StartMethod": "fork"}


class ManyPools(Test):
    def test_the_limit(self):
        names = ["a", "b", "c", "d", "e"]
        with Drover({name: POOL for name in names}, config="[Daemon]\nMaxPools=3\n", wait=False) as d:
            for name in names[:3]:
                d.wait_state(name, "running")
            for name in names[3:]:
                self.assertEqual(d.pool(name)["State"], "refused")
                self.assertIn(f"pool {name} is one too many: there are 3 already (MaxPools= in drover.conf",
                              d.pool(name)["Problem"])
            with self.assert_error("LimitsExceeded", "MaxPools="):
                d.pool_call("d", "Start")
            with self.assert_error("LimitsExceeded", "MaxPools="):
                d.call(*MANAGER, "CreatePool", "sa{sv}t", "more", 1, "Plugin", "s", "echo", 0)
            self.assertEqual(d.log().count("pool d is one too many"), 1, d.log())
            d.remove_pool_file("b")
            d.reload()
            d.wait_state("d", "running")
            self.assertEqual(d.pool("e")["State"], "refused")

    def test_hundreds_of_one_plugin(self):
        n = 300
        with Drover({f"p{i}": POOL for i in range(n)}, wait=False) as d:
            def states():
                return Counter(row[3] for row in d.call(*MANAGER, "ListPools"))
            wait_for(lambda: states() == {"running": n}, 60, lambda: f"all of them run, not {states()}", step=0.5)
            self.assertEqual(d.run("p299", "echo", payload=b"x")["payload"], [120])
            self.assertNotIn("no room", d.log())


if __name__ == "__main__":
    main()
