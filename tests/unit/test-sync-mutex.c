/* Mutexes, plain and recursive, conditions over them, guards (FEATURES 7, 8, 9, 26, 67, 68, 69). */
#include "tests/unit/sync-fixture.h"

#include "ipc/sync/arena/owner.h"

enum { DEPOSITORS = 4, DEPOSITS = 100 };

struct bank {
        _Atomic uint32_t n_ready;
        int64_t balance, initial;
        uint32_t n_lines;
        char lines[10][8];
};

static drover_mutex *mutex_open(drover_arena *a, const char *name, unsigned flags) {
        drover_mutex *m;
        CHECK(drover_mutex_open(a, name, flags, &m) == 0);
        OWN(mutex, m);
        return m;
}

static drover_condition *condition_open(drover_arena *a, const char *name, drover_mutex *m) {
        drover_condition *c;
        CHECK(drover_condition_open(a, name, m, &c) == 0);
        OWN(condition, c);
        return c;
}

/* Not atomic on purpose. */
static void deposit(drover_arena *a, void *user) {
        struct bank *bank = user;
        drover_mutex *m = mutex_open(a, "account", 0);
        for (int i = 0; i < DEPOSITS; i++) {
                CHECK(drover_mutex_lock(m, stuck()) == 0);
                int64_t balance = *(volatile int64_t *)&bank->balance;
                if (i % 16 == 0)
                        usleep(1);
                *(volatile int64_t *)&bank->balance = balance + 1;
                CHECK(drover_mutex_unlock(m) == 0);
        }
}

static void test_bank_account(void **state) {
        for (int processes = 0; processes < 2; processes++) {
                drover_arena *a = fixture_arena(4096);
                struct bank *bank = fixture_shared(sizeof *bank);
                fixture_run(a, &(struct fixture_crew){deposit, bank, DEPOSITORS, processes});
                assert_int_equal(bank->balance, DEPOSITORS * DEPOSITS);
                fixture_unshare(bank, sizeof *bank);
                fixture_free(a);
        }
}

static void print_line(drover_arena *a, void *user) {
        struct bank *bank = user;
        drover_mutex *m = mutex_open(a, "printer", 0);
        CHECK(drover_mutex_lock(m, stuck()) == 0);
        uint32_t i = bank->n_lines;
        for (int k = 0; k < 7; k++) {
                bank->lines[i][k] = (char)('a' + i);
                usleep(1);
        }
        bank->n_lines = i + 1;
        CHECK(drover_mutex_unlock(m) == 0);
}

static void test_ten_processes_print(void **state) {
        drover_arena *a = fixture_arena(4096);
        struct bank *bank = fixture_shared(sizeof *bank);
        fixture_run(a, &(struct fixture_crew){print_line, bank, 10, 1});
        assert_int_equal(bank->n_lines, 10);
        for (int i = 0; i < 10; i++)
                for (int k = 0; k < 7; k++)
                        assert_int_equal(bank->lines[i][k], 'a' + i);
        fixture_unshare(bank, sizeof *bank);
        fixture_free(a);
}

static void test_errors(void **state) {
        drover_arena *a = fixture_arena(4096);
        drover_mutex *m = mutex_open(a, "m", 0);
        assert_int_equal(drover_mutex_unlock(m), -EPERM);
        assert_int_equal(drover_mutex_consistent(m), -EPERM);
        assert_int_equal(drover_mutex_lock(m, 0), 0);
        assert_int_equal(drover_mutex_lock(m, DROVER_FOREVER), -EDEADLK);
        assert_int_equal(drover_mutex_lock(m, 0), -EAGAIN);
        assert_int_equal(drover_mutex_consistent(m), -EINVAL);
        assert_int_equal(drover_mutex_unlock(m), 0);
        assert_int_equal(drover_mutex_unlock(m), -EPERM);
        drover_mutex *other;
        assert_int_equal(drover_mutex_open(a, "m", DROVER_RECURSIVE, &other), -EEXIST);
        assert_int_equal(drover_mutex_open(a, "m", 6, &other), -EINVAL);
        assert_int_equal(drover_mutex_open(a, "", 0, &other), -EINVAL);
        assert_null(drover_mutex_free(NULL));
        fixture_free(a);
}

static void hold(drover_arena *a, void *user) {
        drover_mutex *m = mutex_open(a, "m", 0);
        CHECK(drover_mutex_lock(m, stuck()) == 0);
        atomic_store((_Atomic uint32_t *)user, 1);
        for (;;)
                pause();
}

static void await_word(_Atomic uint32_t *word, uint32_t value) {
        uint64_t deadline = stuck();
        while (atomic_load(word) != value)
                CHECK(event_now_ns() < deadline);
}

static void test_foreign_and_timed(void **state) {
        drover_arena *a = fixture_arena(4096);
        drover_mutex *m = mutex_open(a, "m", 0);
        _Atomic uint32_t *held = fixture_shared(4096);
        pid_t pid = fixture_fork(a, hold, held);
        await_word(held, 1);
        assert_int_equal(drover_mutex_unlock(m), -EPERM);
        assert_int_equal(drover_mutex_lock(m, 0), -EAGAIN);
        assert_int_equal(drover_mutex_lock(m, 1), -ETIMEDOUT); /* the past */
        uint64_t before = event_now_ns();
        assert_int_equal(drover_mutex_lock(m, in_ms(30)), -ETIMEDOUT);
        assert_true(event_now_ns() - before >= 30 * MS);
        struct drover_object_info info = fixture_info(a, "m");
        assert_int_equal(info.owner_pid, pid);
        assert_string_equal(info.type, "mutex");
        fixture_kill(a, pid);
        fixture_unshare(held, 4096);
        fixture_free(a);
}

static void wait_for_dead_owner(drover_arena *a, void *user) {
        drover_mutex *m = mutex_open(a, "m", 0);
        CHECK(drover_mutex_lock(m, UINT64_MAX - 1) == -EOWNERDEAD);
        *(uint64_t *)user = event_now_ns();
        CHECK(drover_mutex_unlock(m) == 0);
        /* nobody said consistent */
        CHECK(drover_mutex_lock(m, stuck()) == -EOWNERDEAD);
        CHECK(drover_mutex_consistent(m) == 0);
        CHECK(drover_mutex_unlock(m) == 0);
        CHECK(drover_mutex_lock(m, stuck()) == 0);
        CHECK(drover_mutex_unlock(m) == 0);
}

static void test_kill_the_holder(void **state) {
        drover_arena *a = fixture_arena(4096);
        struct {
                _Atomic uint32_t held;
                uint64_t told_ns;
        } *shared = fixture_shared(4096);
        pid_t holder = fixture_fork(a, hold, &shared->held);
        await_word(&shared->held, 1);
        pid_t waiter = fixture_fork(a, wait_for_dead_owner, &shared->told_ns);
        fixture_await_waiters(a, "m", 1);
        uint64_t killed = event_now_ns();
        fixture_kill(a, holder);
        assert_int_equal(fixture_reap(a, waiter), 0);
        assert_in_range(shared->told_ns - killed, 0, 100 * MS);
        assert_int_equal(fixture_info(a, "m").n_repaired, 1);
        assert_int_equal(fixture_info(a, "m").n_waiters, 0);
        fixture_unshare(shared, 4096);
        fixture_free(a);
}

static void recursive(drover_arena *a, void *user) {
        struct bank *bank = user;
        drover_mutex *m = mutex_open(a, "r", DROVER_RECURSIVE);
        for (int i = 0; i < DEPOSITS; i++) {
                for (int k = 0; k < 3; k++)
                        CHECK(drover_mutex_lock(m, stuck()) == 0);
                int64_t balance = *(volatile int64_t *)&bank->balance;
                for (int k = 0; k < 2; k++)
                        CHECK(drover_mutex_unlock(m) == 0);
                if (i % 16 == 0)
                        usleep(1);
                *(volatile int64_t *)&bank->balance = balance + 1;
                CHECK(drover_mutex_unlock(m) == 0);
                CHECK(i > 0 || drover_mutex_unlock(m) == -EPERM);
        }
}

static void test_recursive(void **state) {
        for (int processes = 0; processes < 2; processes++) {
                drover_arena *a = fixture_arena(4096);
                struct bank *bank = fixture_shared(sizeof *bank);
                fixture_run(a, &(struct fixture_crew){recursive, bank, DEPOSITORS, processes});
                assert_int_equal(bank->balance, DEPOSITORS * DEPOSITS);
                fixture_unshare(bank, sizeof *bank);
                fixture_free(a);
        }
}

static void test_two_fibers_of_one_thread(void **state) {
        drover_arena *a = fixture_arena(4096);
        drover_mutex *m = mutex_open(a, "r", DROVER_RECURSIVE);
        uint32_t thread = owner_sub_self(), fibers[2] = {owner_sub_new(), owner_sub_new()};
        owner_sub_set(fibers[0]);
        assert_int_equal(drover_mutex_lock(m, 0), 0);
        assert_int_equal(drover_mutex_lock(m, 0), 0);
        owner_sub_set(fibers[1]);
        assert_int_equal(drover_mutex_lock(m, 0), -EAGAIN);
        assert_int_equal(drover_mutex_unlock(m), -EPERM);
        owner_sub_set(fibers[0]);
        assert_int_equal(drover_mutex_unlock(m), 0);
        assert_int_equal(drover_mutex_unlock(m), 0);
        owner_sub_set(fibers[1]);
        assert_int_equal(drover_mutex_lock(m, 0), 0);
        assert_int_equal(drover_mutex_unlock(m), 0);
        owner_sub_set(thread);
        fixture_free(a);
}

/* ---- conditions ---- */

static bool is_positive(void *user) { return *(volatile int64_t *)user > 0; }

static void withdraw(drover_arena *a, struct bank *bank, int n) {
        drover_mutex *m = mutex_open(a, "account", DROVER_RECURSIVE);
        drover_condition *c = condition_open(a, "money", m);
        for (int i = 0; i < n; i++) {
                CHECK(drover_mutex_lock(m, stuck()) == 0);
                CHECK(drover_condition_wait_for(c, is_positive, &bank->balance, stuck()) == 0);
                bank->balance--;
                CHECK(bank->balance >= 0);
                CHECK(drover_mutex_unlock(m) == 0);
        }
}

static void put_in(drover_arena *a, struct bank *bank, int n) {
        drover_mutex *m = mutex_open(a, "account", DROVER_RECURSIVE);
        drover_condition *c = condition_open(a, "money", m);
        for (int i = 0; i < n; i++) {
                CHECK(drover_mutex_lock(m, stuck()) == 0);
                bank->balance++;
                CHECK(drover_condition_notify(c, 1) == 0);
                CHECK(drover_mutex_unlock(m) == 0);
        }
}

enum { OPERATIONS = 10000 / SLOWER };

static void bank_job(drover_arena *a, void *user) {
        struct bank *bank = user;
        if (atomic_fetch_add(&bank->n_ready, 1) % 2)
                put_in(a, bank, OPERATIONS);
        else
                withdraw(a, bank, OPERATIONS);
}

static void test_bank_with_withdrawals(void **state) {
        for (int processes = 0; processes < 2; processes++) {
                drover_arena *a = fixture_arena(4096);
                struct bank *bank = fixture_shared(sizeof *bank);
                fixture_run(a, &(struct fixture_crew){bank_job, bank, 10, processes});
                assert_int_equal(bank->balance, 0);
                fixture_unshare(bank, sizeof *bank);
                fixture_free(a);
        }
}

static void wait_three_deep(drover_arena *a, void *user) {
        struct bank *bank = user;
        drover_mutex *m = mutex_open(a, "account", DROVER_RECURSIVE);
        drover_condition *c = condition_open(a, "money", m);
        for (int i = 0; i < 3; i++)
                CHECK(drover_mutex_lock(m, stuck()) == 0);
        CHECK(drover_condition_wait_for(c, is_positive, &bank->balance, stuck()) == 0);
        for (int i = 0; i < 3; i++)
                CHECK(drover_mutex_unlock(m) == 0);
        CHECK(drover_mutex_unlock(m) == -EPERM);
        for (int i = 0; i < 2; i++)
                CHECK(drover_mutex_lock(m, stuck()) == 0);
        CHECK(drover_condition_wait(c, in_ms(5)) == -ETIMEDOUT); /* and it is ours again, two deep */
        for (int i = 0; i < 2; i++)
                CHECK(drover_mutex_unlock(m) == 0);
        CHECK(drover_mutex_unlock(m) == -EPERM);
}

static void test_condition(void **state) {
        drover_arena *a = fixture_arena(4096);
        struct bank *bank = fixture_shared(sizeof *bank);
        drover_mutex *m = mutex_open(a, "account", DROVER_RECURSIVE), *other = mutex_open(a, "other", 0);
        drover_condition *c = condition_open(a, "money", m), *wrong;
        assert_int_equal(drover_condition_open(a, "money", other, &wrong), -EEXIST);
        assert_int_equal(drover_condition_wait(c, stuck()), -EPERM);
        assert_int_equal(drover_condition_wait_for(c, is_positive, &bank->balance, stuck()), -EPERM);
        assert_int_equal(drover_condition_notify_all(c), -EPERM);
        pid_t pid = fixture_fork(a, wait_three_deep, bank);
        fixture_await_waiters(a, "money", 1);
        assert_int_equal(drover_mutex_lock(m, stuck()), 0);  /* it gave up all three */
        assert_int_equal(drover_condition_notify_all(c), 0); /* for nothing: the predicate says no */
        assert_int_equal(drover_mutex_unlock(m), 0);
        assert_int_equal(drover_mutex_lock(m, stuck()), 0);
        bank->balance = 1;
        assert_int_equal(drover_condition_notify(c, 1), 0);
        assert_int_equal(drover_mutex_unlock(m), 0);
        assert_int_equal(fixture_reap(a, pid), 0);
        fixture_unshare(bank, sizeof *bank);
        fixture_free(a);
}

static void wait_in_vain(drover_arena *a, void *user) {
        (void)user;
        drover_mutex *m = mutex_open(a, "account", DROVER_RECURSIVE);
        drover_condition *c = condition_open(a, "money", m);
        CHECK(drover_mutex_lock(m, stuck()) == 0);
        CHECK(drover_condition_wait(c, in_ms(300)) == -ETIMEDOUT);
        CHECK(drover_mutex_unlock(m) == 0);
}

static void wait_for_the_owner(drover_arena *a, void *user) {
        (void)user;
        drover_mutex *m = mutex_open(a, "account", DROVER_RECURSIVE);
        drover_condition *c = condition_open(a, "money", m);
        CHECK(drover_mutex_lock(m, stuck()) == 0);
        CHECK(drover_condition_wait(c, stuck()) == -EOWNERDEAD);
}

static void detach(drover_arena *a, void *user) {
        (void)user;
        drover_arena_free(a);
        _exit(0);
}

static void detach_with_the_mutex(drover_arena *a, void *user) {
        CHECK(drover_mutex_lock(mutex_open(a, "account", DROVER_RECURSIVE), stuck()) == 0);
        detach(a, user);
}

static void test_nobody_is_woken_when_others_detach(void **state) {
        drover_arena *a = fixture_arena(4096);
        condition_open(a, "money", mutex_open(a, "account", DROVER_RECURSIVE));
        pid_t pid = fixture_fork(a, wait_in_vain, NULL);
        fixture_await_waiters(a, "money", 1);
        assert_int_equal(fixture_reap(a, fixture_fork(a, detach, NULL)), 0);
        assert_int_equal(fixture_reap(a, pid), 0);

        pid = fixture_fork(a, wait_for_the_owner, NULL);
        fixture_await_waiters(a, "money", 1);
        assert_int_equal(fixture_reap(a, fixture_fork(a, detach_with_the_mutex, NULL)), 0);
        assert_int_equal(fixture_reap(a, pid), 0);
        fixture_free(a);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_errors),
                cmocka_unit_test(test_bank_account),
                cmocka_unit_test(test_ten_processes_print),
                cmocka_unit_test(test_foreign_and_timed),
                cmocka_unit_test(test_kill_the_holder),
                cmocka_unit_test(test_recursive),
                cmocka_unit_test(test_two_fibers_of_one_thread),
                cmocka_unit_test(test_condition),
                cmocka_unit_test(test_nobody_is_woken_when_others_detach),
                cmocka_unit_test(test_bank_with_withdrawals),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
