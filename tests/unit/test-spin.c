/* Spin or sleep: what a hit, a miss and a short sleep change, and that no wait burns more than it may. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sched.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ipc/memory/event.h"
#include "ipc/memory/spin.h"
#include "skip.h"

enum { MANY = 2000, ONE_IN = 64 };

static uint64_t cpu_ns(void) {
        struct timespec ts;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
        return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* One wait that finds something at look number `hit_at` (0: never). true if it spun. */
static bool wait_once(struct spin *s, unsigned hit_at, uint64_t deadline_ns) {
        struct spin_round round = spin_begin(s, deadline_ns);
        unsigned n = 1;
        while (n != hit_at && spin_step(&round))
                n++;
        spin_end(s, &round, n == hit_at);
        return round.n_steps > 0;
}

static void skip_on_one_cpu(void) {
        cpu_set_t set;
        if (sched_getaffinity(0, sizeof set, &set) < 0 || CPU_COUNT(&set) < 2)
                SKIP("there is one processor only, and nobody spins");
}

static void test_goes_on_while_it_pays(void **state) {
        skip_on_one_cpu();
        struct spin s = {0};
        for (unsigned i = 0; i < MANY; i++)
                assert_true(wait_once(&s, 3, EVENT_FOREVER));
}

static void test_notices_that_it_does_not_pay(void **state) {
        struct spin s = {0};
        unsigned n = 0;
        uint64_t start_ns = cpu_ns();
        for (unsigned i = 0; i < MANY; i++)
                n += wait_once(&s, 0, EVENT_FOREVER);
        assert_in_range(n, 0, MANY / ONE_IN + 16);
        /* 50 µs each at most; twice that is for machines under sanitizers */
        assert_in_range(cpu_ns() - start_ns, 0, (MANY / ONE_IN + 16) * UINT64_C(100000));
}

static void test_comes_back_when_it_pays_again(void **state) {
        skip_on_one_cpu();
        struct spin s = {0};
        for (unsigned i = 0; i < MANY; i++)
                wait_once(&s, 0, EVENT_FOREVER);
        for (unsigned i = 0; i < 2 * ONE_IN; i++)
                wait_once(&s, 2, EVENT_FOREVER);
        for (unsigned i = 0; i < ONE_IN; i++)
                assert_true(wait_once(&s, 2, EVENT_FOREVER));
}

static void test_spins_when_the_other_side_is_awake(void **state) {
        skip_on_one_cpu();
        struct spin s = {0};
        for (unsigned i = 0; i < MANY; i++)
                wait_once(&s, 0, EVENT_FOREVER);
        spin_expect(&s);
        assert_true(wait_once(&s, 2, EVENT_FOREVER));
}

/* After the first miss one try is as long as a wake-up: two that sleep for each other meet again. */
static void test_waits_longer_once_after_a_miss(void **state) {
        skip_on_one_cpu();
        struct spin s = {0};
        wait_once(&s, 0, EVENT_FOREVER);
        struct spin_round round = spin_begin(&s, EVENT_FOREVER);
        assert_in_range(round.end_ns - round.start_ns, 20000, 100000);
        while (event_now_ns() < round.start_ns + 10000)
                spin_step(&round);
        spin_end(&s, &round, true);
        assert_true(wait_once(&s, 2, EVENT_FOREVER)); /* it was late, but there was something */
}

static void test_yields_only_after_short_waits(void **state) {
        skip_on_one_cpu();
        struct spin s = {0};
        struct spin_round round = spin_begin(&s, EVENT_FOREVER);
        assert_int_equal(round.n_yields, 0);
        spin_slept(&s, event_now_ns() - 1000000000);
        assert_int_equal(s.credit, 0);
        for (unsigned i = 0; i < 100; i++)
                spin_slept(&s, event_now_ns());
        round = spin_begin(&s, EVENT_FOREVER);
        assert_in_range(round.n_yields, 1, 8);
        assert_false(spin_is_yielding(&round)); /* first it spins: whoever told others so has time to take it back */
        while (!spin_is_yielding(&round))
                assert_true(spin_step(&round));
        unsigned n_yields = 0;
        while (spin_step(&round))
                n_yields++;
        assert_in_range(n_yields, 0, 8);
        for (unsigned i = 0; i < 10; i++) /* in vain */
                spin_end(&s, &round, false);
        assert_int_equal(spin_begin(&s, EVENT_FOREVER).n_yields, 0);
}

static void test_does_not_give_its_cpu_away_before_a_deadline(void **state) {
        struct spin s = {0};
        for (unsigned i = 0; i < 100; i++)
                spin_slept(&s, event_now_ns());
        assert_int_equal(spin_begin(&s, event_now_ns() + 1000000).n_yields, 0);
        assert_int_equal(spin_begin(&s, 1).n_yields, 0);
}

/* The answer is kept, so only a new program can tell. */
static void test_never_spins_on_one_cpu(void **state) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                cpu_set_t set, one;
                int cpu = 0;
                sched_getaffinity(0, sizeof set, &set);
                while (!CPU_ISSET(cpu, &set))
                        cpu++;
                CPU_ZERO(&one);
                CPU_SET(cpu, &one);
                sched_setaffinity(0, sizeof one, &one);
                execl("/proc/self/exe", "test-spin", "one-cpu", (char *)NULL);
                _exit(3);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

static int one_cpu(void) {
        struct spin s = {0};
        for (unsigned i = 0; i < MANY; i++) {
                spin_slept(&s, event_now_ns());
                spin_expect(&s);
                struct spin_round round = spin_begin(&s, EVENT_FOREVER);
                if (spin_step(&round))
                        return 1;
                spin_end(&s, &round, false);
        }
        return 0;
}

int main(int argc, char *argv[]) {
        if (argc > 1)
                return one_cpu();
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_goes_on_while_it_pays),
                cmocka_unit_test(test_notices_that_it_does_not_pay),
                cmocka_unit_test(test_comes_back_when_it_pays_again),
                cmocka_unit_test(test_spins_when_the_other_side_is_awake),
                cmocka_unit_test(test_waits_longer_once_after_a_miss),
                cmocka_unit_test(test_yields_only_after_short_waits),
                cmocka_unit_test(test_does_not_give_its_cpu_away_before_a_deadline),
                cmocka_unit_test(test_never_spins_on_one_cpu),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
