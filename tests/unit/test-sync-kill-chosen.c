/* A death at one chosen place: of a party of a barrier, of who closes a queue, of who repairs after another death; and
 * a producer that is stopped half way. */
#include "tests/unit/sync-kill-fixture.h"

#include <sys/wait.h>

enum { PARTIES = 3 };

struct shared {
        _Atomic uint32_t stop, n_deaths;
        _Atomic uint64_t n_operations;
        uint32_t dead; /* the participant to repair after */
};

static struct shared *shared;

static void meet(drover_arena *a, void *user) {
        static const char *const places[] = {"barrier-arrived", "barrier-acted", "barrier-ended", "wait-published",
                                             "wait-awake"};
        const struct sync_kill_order *order = user;
        drover_barrier *b;
        unsigned seed = order->seed;
        CHECK(drover_barrier_open(a, "barrier", PARTIES, &b) == 0);
        if (order->point >= 0) {
                sync_kill_plan.n_deaths = &shared->n_deaths;
                sync_kill_plan.n_left = 1 + (unsigned)rand_r(&seed) % 5;
                sync_kill_plan.name = places[(unsigned)order->point % (sizeof places / sizeof *places)];
        }
        while (!atomic_load(&shared->stop)) {
                int r = drover_barrier_wait(b, stuck());
                CHECK(r == -EPIPE || (r >= 0 && r < PARTIES));
                atomic_fetch_add(&shared->n_operations, r >= 0);
                if (r == -EPIPE)
                        usleep(20);
        }
        drover_barrier_free(b);
        fixture_free(a);
}

static void test_barriers(void **state) {
        drover_arena *arena = fixture_arena(4096);
        drover_barrier *b;
        pid_t pids[PARTIES];
        struct sync_kill_order order = {0};
        unsigned n_wanted = 5 * sync_kill_seeds();
        shared = fixture_shared(sizeof *shared);
        assert_int_equal(drover_barrier_open(arena, "barrier", PARTIES, &b), 0);
        for (int i = 0; i < PARTIES; i++, order.seed++) {
                order.point = i == 0 ? -1 : (int)order.seed;
                pids[i] = fixture_fork(arena, meet, &order);
        }
        for (unsigned n = 0; n < n_wanted; n++) {
                int status;
                pid_t pid = waitpid(-1, &status, 0);
                assert_true(pid > 0 && WIFSIGNALED(status));
                drover_arena_repair_pid(arena, pid);
                /* it may have died before it was a member: the others wait for it, and its successor comes */
                order.point = (int)++order.seed;
                for (int i = 0; i < PARTIES; i++)
                        if (pids[i] == pid)
                                pids[i] = fixture_fork(arena, meet, &order);
                if (drover_barrier_is_broken(b))
                        assert_int_equal(drover_barrier_reset(b), 0);
        }
        atomic_store(&shared->stop, 1);
        drover_barrier_abort(b);
        for (int i = 0; i < PARTIES; i++)
                sync_kill_reap_any(arena);
        assert_true(atomic_load(&shared->n_operations) > 0);
        drover_barrier_free(b);
        fixture_unshare(shared, sizeof *shared);
        fixture_free(arena);
}

static void put_slowly(drover_arena *a, void *user) {
        drover_queue *q;
        CHECK(drover_queue_open(a, "two", 0, 0, 0, &q) == 0);
        if (user) {
                sync_kill_plan.n_deaths = &shared->n_deaths;
                sync_kill_plan.n_left = 1;
                sync_kill_plan.signal = SIGSTOP;
                sync_kill_plan.name = "queue-claimed";
        }
        CHECK(drover_queue_put(q, "item", 4, stuck()) == 0);
}

static void test_two_rooms_at_once(void **state) {
        drover_arena *arena = fixture_arena(1 << 16);
        drover_queue *q;
        char item[8];
        size_t bytes;
        int status;
        shared = fixture_shared(sizeof *shared);
        assert_int_equal(drover_queue_open(arena, "two", 2, 8, DROVER_QUEUE_FIFO, &q), 0);
        pid_t slow = fixture_fork(arena, put_slowly, q);
        assert_int_equal(waitpid(slow, &status, WUNTRACED), slow);
        assert_true(WIFSTOPPED(status));
        assert_int_equal(drover_queue_put(q, "item", 4, 0), 0);
        pid_t waiters[2] = {fixture_fork(arena, put_slowly, NULL), fixture_fork(arena, put_slowly, NULL)};
        fixture_await_waiters(arena, "two", 2);
        /* past the stopped one's cell: no room yet, though a wake-up was spent */
        assert_int_equal(drover_queue_get(q, item, sizeof item, &bytes, 0), 0);
        kill(slow, SIGCONT);
        assert_int_equal(fixture_reap(arena, slow), 0);
        fixture_await_waiters(arena, "two", 2);
        /* one get, room for both */
        assert_int_equal(drover_queue_get(q, item, sizeof item, &bytes, 0), 0);
        for (uint64_t deadline = in_ms(5000); drover_queue_size(q) < 2;) { /* before a repair wakes all */
                assert_true(event_now_ns() < deadline);
                usleep(100);
        }
        for (int i = 0; i < 2; i++)
                assert_int_equal(fixture_reap(arena, waiters[i]), 0);
        drover_queue_free(q);
        fixture_unshare(shared, sizeof *shared);
        drover_arena_free(arena);
}

static void wait_for_the_end(drover_arena *a, void *user) {
        drover_queue *q;
        char item[8];
        size_t bytes;
        CHECK(drover_queue_open(a, "queue", 0, 0, 0, &q) == 0);
        if (user) /* no room: full when it began */
                CHECK(drover_queue_put(q, "item", 4, stuck()) == -ESHUTDOWN);
        else
                CHECK(drover_queue_get(q, item, sizeof item, &bytes, stuck()) == -ESHUTDOWN);
        drover_queue_free(q);
}

static void close_and_die(drover_arena *a, void *user) {
        drover_queue *q;
        CHECK(drover_queue_open(a, "queue", 0, 0, 0, &q) == 0);
        sync_kill_plan.n_deaths = &shared->n_deaths;
        sync_kill_plan.n_left = 1;
        sync_kill_plan.name = "queue-closed";
        drover_queue_close(q);
}

static void test_close(void **state) {
        shared = fixture_shared(sizeof *shared);
        for (unsigned i = 0; i < sync_kill_seeds(); i++) {
                drover_arena *arena = fixture_arena(1 << 16);
                drover_queue *q;
                bool is_full = i % 2;
                assert_int_equal(drover_queue_open(arena, "queue", 1, 8, DROVER_QUEUE_FIFO, &q), 0);
                OWN(queue, q);
                if (is_full)
                        assert_int_equal(drover_queue_put(q, "item", 4, 0), 0);
                pid_t waiter = fixture_fork(arena, wait_for_the_end, is_full ? q : NULL);
                fixture_await_waiters(arena, "queue", 1);
                assert_int_equal(fixture_reap(arena, fixture_fork(arena, close_and_die, NULL)), -SIGKILL);
                assert_int_equal(fixture_reap(arena, waiter), 0);
                fixture_free(arena);
        }
        assert_int_equal(shared->n_deaths, sync_kill_seeds());
        fixture_unshare(shared, sizeof *shared);
}

static void hold_everything(drover_arena *a, void *user) {
        struct sync_kill_objects o;
        uint64_t item[8] = {0};
        size_t bytes;
        sync_kill_open(a, &o);
        CHECK(drover_mutex_lock(o.mutex, stuck()) == 0);
        CHECK(drover_permits_acquire(o.permits, stuck()) == 0);
        CHECK(drover_rwlock_read(o.rwlock, stuck()) == 0);
        CHECK(drover_queue_put(o.queue, item, sizeof item, stuck()) == 0);
        CHECK(drover_queue_get(o.queue, item, sizeof item, &bytes, stuck()) == 0);
        kill(getpid(), SIGKILL);
}

static void die_repairing(drover_arena *a, void *user) {
        const struct sync_kill_order *order = user;
        sync_kill_plan.n_deaths = &shared->n_deaths;
        sync_kill_plan.n_left = order->seed + 1;
        sync_kill_plan.name = order->point == 0 ? "repair-object" : order->point == 1 ? "repair-begun" : "repair-done";
        drover_arena_repair(a, shared->dead);
        kill(getpid(), SIGKILL);
}

static void test_repair_begins_anew(void **state) {
        for (unsigned i = 0; i < 14; i++) {
                drover_arena *arena = fixture_arena(4 << 20);
                struct sync_kill_objects o;
                uint64_t item[8] = {1};
                const uint64_t held[8] = {0};
                size_t bytes;
                int status;
                shared = fixture_shared(sizeof *shared);
                sync_kill_open(arena, &o);
                pid_t pid = fixture_fork(arena, hold_everything, NULL);
                assert_int_equal(waitpid(pid, &status, 0), pid);
                shared->dead = 1; /* its participant: the first after ours */
                struct sync_kill_order order = {.seed = i < 12 ? i : 0, .point = i < 12 ? 0 : (int)i - 11};
                assert_int_equal(fixture_reap(arena, fixture_fork(arena, die_repairing, &order)), -SIGKILL);
                drover_arena_repair_pid(arena, pid);
                assert_int_equal(drover_mutex_lock(o.mutex, 0), -EOWNERDEAD);
                assert_int_equal(drover_permits_available(o.permits), PERMITS);
                assert_int_equal(drover_rwlock_write(o.rwlock, 0), 0);
                assert_int_equal(drover_queue_size(o.queue), 1);
                assert_int_equal(drover_queue_get(o.queue, item, sizeof item, &bytes, 0), 0);
                assert_int_equal(bytes, sizeof item);
                assert_memory_equal(item, held, sizeof item);
                assert_int_equal(drover_queue_task_done(o.queue), 0);
                fixture_unshare(shared, sizeof *shared);
                fixture_free(arena);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_two_rooms_at_once),
                cmocka_unit_test(test_repair_begins_anew),
                cmocka_unit_test(test_close),
                cmocka_unit_test(test_barriers),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
