/* Removing objects: SIGKILL at each step, of who removes and of who repairs after it, and many at once. */
#include "tests/unit/unlink-fixture.h"

#include <sys/wait.h>

#include "ipc/memory/kill-point.h"
#include "ipc/sync/arena/arena.h"
#include "tests/unit/sync-kill-fixture.h"

enum { CHURNERS = 4, CHURN_ROUNDS = 3000, CHURN_WORDS = 64 };

static void unlink_and_die(drover_arena *a, void *user) {
        sync_kill_plan.name = user;
        drover_arena_unlink(a, "x");
        _exit(1); /* it did not come by */
}

static void test_killed_at_each_step(void **state) {
        static const char *const points[] = {"lock-taken",        "unlink-removed", "unlink-told", "unlink-left",
                                             "object-taken-back", "unlink-vacant",  "lock-given"};
        for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
                for (size_t k = 0; k < UNLINK_N_KINDS; k++) {
                        bool has_users = strcmp(points[i], "object-taken-back") != 0;
                        drover_arena *a;
                        union unlink_handle mine;
                        assert_int_equal(drover_arena_create_sized("small", 8448, 4, 4, &a), 0);
                        assert_int_equal(unlink_kinds[k].open(a, &mine), 0);
                        pid_t waiter = 0;
                        if (has_users) {
                                if (unlink_kinds[k].hold)
                                        assert_int_equal(unlink_kinds[k].hold(mine), 0);
                                waiter = fixture_fork(a, unlink_fixture_wait, (void *)&unlink_kinds[k]);
                                fixture_await_waiters(a, "x", 1);
                        } else
                                unlink_kinds[k].free(mine);
                        assert_int_equal(fixture_reap(a, fixture_fork(a, unlink_and_die, (void *)points[i])), -SIGKILL);
                        if (i == 0)
                                assert_int_equal(drover_arena_unlink(a, "x"), 0);
                        if (has_users) {
                                assert_int_equal(fixture_reap(a, waiter), 0);
                                unlink_kinds[k].free(mine);
                        }
                        assert_int_equal(drover_arena_unlink(a, "x"), -ENOENT);
                        unlink_fixture_check_whole(a);
                        drover_arena_free(a);
                }
        }
}

static void repair_and_die(drover_arena *a, void *user) {
        pid_t dead = *(pid_t *)user;
        sync_kill_plan.name = "repair-removals";
        drover_arena_repair_pid(a, dead);
        _exit(1);
}

/* Who repairs dies, too, before it has told anybody; the next goes on with both. */
static void test_the_repairer_is_killed(void **state) {
        for (size_t k = 0; k < UNLINK_N_KINDS; k++) {
                drover_arena *a;
                union unlink_handle mine;
                int status;
                assert_int_equal(drover_arena_create_sized("small", 8448, 4, 5, &a), 0);
                assert_int_equal(unlink_kinds[k].open(a, &mine), 0);
                if (unlink_kinds[k].hold)
                        assert_int_equal(unlink_kinds[k].hold(mine), 0);
                pid_t waiter = fixture_fork(a, unlink_fixture_wait, (void *)&unlink_kinds[k]);
                fixture_await_waiters(a, "x", 1);
                pid_t first = fixture_fork(a, unlink_and_die, "unlink-removed");
                assert_int_equal(waitpid(first, &status, 0), first);
                pid_t second = fixture_fork(a, repair_and_die, &first);
                assert_int_equal(fixture_reap(a, second), -SIGKILL);
                drover_arena_repair_pid(a, first);
                assert_int_equal(fixture_reap(a, waiter), 0);
                unlink_kinds[k].free(mine);
                unlink_fixture_check_whole(a);
                drover_arena_free(a);
        }
}

struct churn {
        const char *dies_at; /* NULL: nobody dies */
        _Atomic uint32_t *n_done;
};

/* All words of an object are one number, whoever wrote it: memory that is two objects' would be told by that. */
static int churn_one(drover_arena *a, unsigned random) {
        char name[16];
        drover_array *array;
        uint32_t n = CHURN_WORDS << (random % 3);
        snprintf(name, sizeof name, "array %u", random % 3);
        int r = drover_array_open(a, name, 8, n, &array);
        if (r == -ENOSPC)
                return 0;
        CHECK(r == 0);
        r = drover_array_lock(array, stuck());
        if (r == -EOWNERDEAD) {
                memset(drover_array_data(array), 0, n * 8);
                CHECK(drover_array_consistent(array) == 0);
                r = 0;
        }
        CHECK(r == 0 || r == -EIDRM);
        if (r == 0) {
                uint64_t *words = drover_array_data(array);
                for (uint32_t i = 1; i < n; i++)
                        CHECK(words[i] == words[0]);
                for (uint32_t i = 0; i < n; i++)
                        words[i] = random;
                KILL_POINT("churned");
                CHECK(drover_array_unlock(array) == 0);
        }
        drover_array_free(array);
        return r;
}

static void churn(drover_arena *a, void *user) {
        struct churn *c = user;
        unsigned seed = atomic_fetch_add(c->n_done, 1);
        uint32_t rounds = CHURN_ROUNDS / SLOWER;
        for (uint32_t i = 0; i < rounds; i++) {
                unsigned random = (unsigned)rand_r(&seed);
                if (c->dies_at && i == rounds / 2 + random % 8)
                        sync_kill_plan.name = c->dies_at;
                if (random % 4 != 0) {
                        churn_one(a, random >> 4);
                        continue;
                }
                char name[16];
                snprintf(name, sizeof name, "array %u", (random >> 4) % 3);
                int r = drover_arena_unlink(a, name);
                CHECK(r == 0 || r == -ENOENT);
        }
}

static void test_many_at_once(void **state) {
        for (int processes = 0; processes < 2; processes++) {
                drover_arena *a;
                struct churn c = {.n_done = fixture_shared(4096)};
                assert_int_equal(drover_arena_create_sized("churn", 8192, 8, 64, &a), 0);
                fixture_run(a, &(struct fixture_crew){churn, &c, CHURNERS, processes});
                for (int i = 0; i < 3; i++)
                        drover_arena_unlink(a, (const char *[]){"array 0", "array 1", "array 2"}[i]);
                assert_int_equal(drover_arena_list(a, NULL, 0), 0);
                unlink_fixture_check_whole(a);
                drover_arena_free(a);
                fixture_unshare((void *)c.n_done, 4096);
        }
}

static void test_many_at_once_and_deaths(void **state) {
        static const char *const points[] = {"churned",     "object-zeroed", "object-filled",
                                             "object-made", "room-found",    "unlink-removed",
                                             "unlink-told", "unlink-left",   "object-taken-back"};
        for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
                drover_arena *a;
                struct churn dying = {points[i], fixture_shared(4096)}, c = {NULL, dying.n_done};
                pid_t pids[CHURNERS];
                assert_int_equal(drover_arena_create_sized("churn", 8448, 4, 64, &a), 0);
                for (int k = 0; k < CHURNERS; k++)
                        pids[k] = fixture_fork(a, churn, k < 2 ? &dying : &c);
                for (int k = 0; k < CHURNERS; k++) {
                        int status;
                        pid_t pid = waitpid(-1, &status, 0);
                        assert_true(pid > 0);
                        drover_arena_repair_pid(a, pid);
                        for (int m = 0; m < CHURNERS; m++)
                                if (pids[m] == pid)
                                        assert_true(m < 2 ? WIFSIGNALED(status) || WEXITSTATUS(status) == 0
                                                          : WIFEXITED(status) && WEXITSTATUS(status) == 0);
                }
                for (int k = 0; k < 3; k++)
                        drover_arena_unlink(a, (const char *[]){"array 0", "array 1", "array 2"}[k]);
                assert_int_equal(drover_arena_list(a, NULL, 0), 0);
                unlink_fixture_check_whole(a);
                drover_arena_free(a);
                fixture_unshare((void *)dying.n_done, 4096);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_killed_at_each_step),
                cmocka_unit_test(test_the_repairer_is_killed),
                cmocka_unit_test(test_many_at_once),
                cmocka_unit_test(test_many_at_once_and_deaths),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
