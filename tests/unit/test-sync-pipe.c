/* Pipes between two who share an arena, also when one of them is killed (FEATURES 22). */
#include "tests/unit/sync-fixture.h"

#include <sched.h>

#include "ipc/memory/segment.h"

static void test_pipe(void **state) {
        drover_pipe *a, *b, *none;
        char buffer[64];
        size_t bytes;
        int fd, passed;
        unsigned n = 1;
        assert_int_equal(drover_pipe_new(&a, &b), 0);
        assert_int_equal(drover_pipe_receive(b, buffer, sizeof buffer, &bytes, NULL, NULL, 0), -EAGAIN);
        assert_int_equal(drover_pipe_receive(b, buffer, sizeof buffer, &bytes, NULL, NULL, in_ms(5)), -ETIMEDOUT);
        assert_int_equal(segment_create("passed", 4096, &fd), 0);
        assert_int_equal(drover_pipe_send(a, "hello", 5, NULL, 0, 0), 0);
        assert_int_equal(drover_pipe_send(a, "memfd", 5, &fd, 1, 0), 0);
        assert_int_equal(drover_pipe_receive(b, buffer, sizeof buffer, &bytes, NULL, NULL, stuck()), 0);
        assert_int_equal(bytes, 5); /* boundaries are kept */
        assert_memory_equal(buffer, "hello", 5);
        assert_int_equal(drover_pipe_receive(b, buffer, sizeof buffer, &bytes, &passed, &n, stuck()), 0);
        assert_int_equal(n, 1);
        assert_int_equal(segment_check(passed, 4096), 0);
        close(passed);
        assert_int_equal(drover_pipe_send(b, "x", 1, NULL, 0, 0), 0); /* duplex */
        int r = 0;
        while (r == 0)
                r = drover_pipe_send(a, buffer, sizeof buffer, NULL, 0, 0);
        assert_int_equal(r, -EAGAIN);
        drover_pipe_free(a);
        while ((r = drover_pipe_receive(b, buffer, sizeof buffer, &bytes, NULL, NULL, stuck())) == 0)
                ;
        assert_int_equal(r, -EPIPE);
        assert_int_equal(drover_pipe_send(b, "x", 1, NULL, 0, 0), -EPIPE);
        drover_pipe_free(b);
        assert_int_equal(drover_pipe_new_from_fd(fd, &none), -ENOTSOCK);
}

struct pipe_side {
        drover_pipe *mine, *other;
        _Atomic uint32_t *stage;
};

/* Has its end, and does nothing with it. */
static void hold_pipe(drover_arena *a, void *user) {
        struct pipe_side *side = user;
        drover_pipe_free(side->other);
        atomic_store(side->stage, 1);
        for (;;)
                pause();
}

struct pipe_waiter {
        drover_pipe *pipe;
        bool is_sender;
        _Atomic int result;
        _Atomic uint32_t tid;
        uint64_t told_ns;
};

static void *wait_for_end(void *user) {
        struct pipe_waiter *w = user;
        char buffer[64] = {0};
        size_t bytes;
        int r = 0;
        while (w->is_sender && r == 0)
                r = drover_pipe_send(w->pipe, buffer, sizeof buffer, NULL, 0, 0);
        atomic_store(&w->tid, (uint32_t)gettid());
        r = w->is_sender ? drover_pipe_send(w->pipe, buffer, sizeof buffer, NULL, 0, stuck())
                         : drover_pipe_receive(w->pipe, buffer, sizeof buffer, &bytes, NULL, NULL, stuck());
        w->told_ns = event_now_ns();
        atomic_store(&w->result, r);
        return NULL;
}

/* Asleep in the kernel: its last step before the pipe's was to say its tid. */
static void await_sleep(const struct pipe_waiter *w) {
        uint64_t deadline = stuck();
        char path[64], line[256] = "";
        while (!strstr(line, ") S")) {
                assert_true(event_now_ns() < deadline);
                sched_yield();
                uint32_t tid = atomic_load(&w->tid);
                snprintf(path, sizeof path, "/proc/self/task/%u/stat", tid);
                FILE *f = tid ? fopen(path, "re") : NULL;
                if (f && !fgets(line, sizeof line, f))
                        line[0] = 0;
                if (f)
                        fclose(f);
        }
}

/* FEATURES 22: one side is killed while the other waits for room, or for a message. */
static void test_pipe_kill_one_side(void **state) {
        drover_arena *arena = fixture_arena(4096);
        _Atomic uint32_t *stage = fixture_shared(4096);
        for (int is_sender = 0; is_sender < 2; is_sender++) {
                struct pipe_side side = {.stage = stage};
                struct pipe_waiter waiter = {.is_sender = is_sender, .result = 1};
                pthread_t id;
                atomic_store(stage, 0);
                assert_int_equal(drover_pipe_new(&side.mine, &side.other), 0);
                pid_t pid = fixture_fork(arena, hold_pipe, &side);
                drover_pipe_free(side.mine);
                waiter.pipe = side.other;
                uint64_t deadline = stuck();
                while (atomic_load(stage) == 0)
                        assert_true(event_now_ns() < deadline);
                assert_int_equal(pthread_create(&id, NULL, wait_for_end, &waiter), 0);
                await_sleep(&waiter);
                assert_int_equal(atomic_load(&waiter.result), 1);
                uint64_t killed = event_now_ns();
                fixture_kill(arena, pid);
                pthread_join(id, NULL);
                assert_int_equal(atomic_load(&waiter.result), -EPIPE);
                assert_in_range(waiter.told_ns - killed, 0, 500 * MS);
                drover_pipe_free(side.other);
        }
        fixture_unshare(stage, 4096);
        fixture_free(arena);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_pipe),
                cmocka_unit_test(test_pipe_kill_one_side),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
