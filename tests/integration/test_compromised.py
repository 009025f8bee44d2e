"""What code in a worker can do to other jobs of its pool, and what not: each sentence of PROTOCOL.md's section 7 about it."""

from harness import Drover, Test, main, wait_for

POOL = {"Plugin": "compromised", "Workers": 1, "Slots": 8, "RestartSec": "50ms"}


class Compromised(Test):
    def setUp(self):
        self.drover = Drover({"p": POOL})
        self.d = self.drover.__enter__()

    def tearDown(self):
        self.drover.__exit__(None, None, None)

    def beside(self, job, **args):
        """The attack, and an honest job that is queued meanwhile: (what the attack got, path of the honest one)."""
        self.d.call(self.d.pool_path("p"), "org.drover1.Pool", "Pause")
        attack = self.d.submit("p", job, **args)[1]
        honest = self.d.submit("p", "echo", text="honest")[1]
        self.d.call(self.d.pool_path("p"), "org.drover1.Pool", "Resume")
        state = self.d.wait_job(attack)
        return self.d.result(attack)["result"]["n"] if state == "done" else state, honest

    def assert_honest(self, path):
        self.assertEqual(self.d.wait_job(path), "done")
        self.assertEqual(self.d.result(path)["result"], {"text": "honest"})

    def test_it_cannot_write_what_others_asked_for(self):
        """mprotect, a second mapping by mremap: the job area of a queued job stays what its client wrote."""
        n, honest = self.beside("overwrite", word="honest", by="forged")
        self.assert_honest(honest)
        self.assertEqual(n, 0)

    def test_no_verdict_lines_lie_behind_the_results(self):
        """The mapping grows (mremap), and there is nothing."""
        n, honest = self.beside("grow")
        self.assert_honest(honest)
        self.assertEqual(n, 0)

    def test_it_can_end_a_job_but_not_in_the_brokers_name(self):
        n, honest = self.beside("lose")
        self.assertEqual(n, 1)
        self.assertEqual(self.d.wait_job(honest), "failed")
        self.assertIn("a verdict that only droverd can give", self.d.result(honest)["error"])
        self.assertEqual(self.d.run("p", "echo", text="next"), {"text": "next"})

    def test_it_can_answer_for_another(self):
        n, honest = self.beside("answer")
        self.assertEqual(n, 1)
        self.assertEqual(self.d.wait_job(honest), "done")
        self.assertEqual(self.d.result(honest)["result"], {"text": "forged"})

    def test_it_can_drag_jobs_with_it_at_the_price_of_its_life(self):
        """Poisoned, truly: by a death that is counted and told, and names the worker."""
        state, honest = self.beside("drag")
        self.assertEqual(state, "poisoned")
        self.assertEqual(self.d.wait_job(honest), "poisoned")
        result = self.d.result(honest)
        deaths = self.d.deaths("p")
        self.assertIn(result["worker-pid"], [death["pid"] for death in deaths])
        wait_for(lambda: self.d.run("p", "echo", text="next") == {"text": "next"}, 10, "the pool goes on")


if __name__ == "__main__":
    main()
