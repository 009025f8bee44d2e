/* What only the broker can do: jobs that go over the bus by the same calls and futures, and what is asked of it about
 * jobs of a channel. */
#include <signal.h>
#include <time.h>

#include "tests/library/cases.h"

static drover_future *submit(drover_pool *p, const char *job, drover_args *a, const struct drover_options *o) {
        drover_future *f;
        EXPECT(0, drover_submit(p, job, a, o, &f));
        return f;
}

static drover_args *seconds(double value) {
        drover_args *a;
        EXPECT(0, drover_args_new(&a));
        EXPECT(0, drover_args_f64(a, "seconds", value));
        return a;
}

/* Results and errors look as those of a channel do. */
void case_bus_jobs(void) {
        drover_pool *typed = pool("typed"), *fails = pool("fails"), *crash = pool("crash");
        const struct drover_options *detached = DROVER_OPTIONS(.flags = DROVER_DETACHED, .priority = DROVER_HIGH);
        const void *data;
        size_t bytes;
        drover_args *a = all_types("abc");
        drover_future *f = submit(typed, "echo", a, detached);
        EXPECT(1, drover_pool_in_flight(typed));
        EXPECT(0, drover_future_wait(f, DROVER_FOREVER));
        EXPECT(0, drover_pool_in_flight(typed));
        check_types(f, "abc");
        drover_future_unref(f);
        drover_args_free(a);
        a = all_types(NULL); /* "a\0b" */
        EXPECT(-EINVAL, drover_submit(typed, "echo", a, detached, &f));
        EXPECT_TEXT("\"s\" holds a zero byte", drover_error_text(d));
        drover_args_free(a);
        EXPECT(0, drover_submit_raw(typed, "raw", "\0x", 2, detached, &f));
        EXPECT(0, drover_future_wait(f, DROVER_FOREVER));
        EXPECT(0, drover_future_result(f, &data, &bytes));
        EXPECT_TRUE(bytes == 2 && memcmp(data, "\0x", 2) == 0);
        drover_future_unref(f);

        EXPECT(0, drover_args_new(&a));
        EXPECT(0, drover_args_i64(a, "error", ENOSPC));
        EXPECT(0, drover_args_str(a, "text", "the disk is full"));
        f = submit(fails, "fail", a, detached);
        EXPECT(0, drover_future_wait(f, drover_deadline_in(10 * SECOND)));
        EXPECT(-ENOSPC, drover_future_error(f)->code);
        EXPECT_TEXT("the disk is full", drover_future_error(f)->message);
        drover_future_unref(f);
        drover_args_free(a);
        f = submit(crash, "segfault", NULL, detached);
        EXPECT(0, drover_future_wait(f, drover_deadline_in(10 * SECOND)));
        const drover_error *e = drover_future_error(f);
        EXPECT(DROVER_POISONED, e->state);
        EXPECT(2, e->attempt);
        EXPECT(11, e->signal);
        EXPECT_TEXT("signal", e->reason);
        drover_future_unref(f);
        drover_pool_unref(typed);
        drover_pool_unref(fails);
        drover_pool_unref(crash);
}

static void count(drover_future *f, void *user) { ++*(unsigned *)user; }

/* Both kinds in one wait, one iterator, one loop; a drain waits for both. */
void case_bus_and_channel(void) {
        drover_pool *p = pool("squares");
        drover_args *a = seconds(0.2);
        drover_future *f[] = {submit(p, "sleep", a, DROVER_OPTIONS(.flags = DROVER_DETACHED)), sleeper("squares", 0.1),
                              sleeper("squares", 0.3)},
                      *next;
        drover_iterator *it;
        static const int order[] = {1, 0, 2};
        unsigned n = 0;
        EXPECT(0, drover_as_completed(f, 3, &it));
        for (int i = 0; i < 3; i++)
                EXPECT(0, drover_future_on_done(f[i], count, &n));
        for (int i = 0; i < 3; i++) {
                EXPECT(1, drover_iterator_next(it, &next, drover_deadline_in(10 * SECOND)));
                EXPECT_TRUE(next == f[order[i]]);
                drover_future_unref(next);
        }
        drover_iterator_free(it);
        while (drover_process(d) > 0)
                ;
        EXPECT(3, n);
        for (int i = 0; i < 3; i++)
                drover_future_unref(f[i]);
        EXPECT(0, drover_submit(p, "sleep", a, DROVER_OPTIONS(.flags = DROVER_DETACHED), NULL));
        f[0] = submit(p, "sleep", a, DROVER_OPTIONS(.flags = DROVER_DETACHED));
        EXPECT(2, drover_pool_in_flight(p));
        EXPECT(0, drover_pool_drain(p, drover_deadline_in(10 * SECOND)));
        EXPECT(DROVER_DONE, drover_future_state(f[0]));
        drover_future_unref(f[0]);
        drover_args_free(a);
        drover_pool_unref(p);
}

void case_bus_cancel(void) {
        drover_pool *p = pool("single");
        drover_args *a = seconds(30);
        drover_future *running = submit(p, "sleep", a, DROVER_OPTIONS(.flags = DROVER_DETACHED));
        wait_running(running);
        drover_future *queued = submit(p, "sleep", a, DROVER_OPTIONS(.flags = DROVER_DETACHED));
        EXPECT(DROVER_QUEUED, drover_future_state(queued));
        EXPECT(-EBUSY, drover_future_cancel(running, DROVER_CANCEL_QUEUED));
        EXPECT(DROVER_CANCEL_DONE, drover_future_cancel(queued, DROVER_CANCEL_QUEUED));
        EXPECT(0, drover_future_wait(queued, drover_deadline_in(10 * SECOND)));
        EXPECT(DROVER_CANCELLED, drover_future_state(queued));
        EXPECT(DROVER_CANCEL_ASKED, drover_future_cancel(running, DROVER_CANCEL_ASK));
        EXPECT(0, drover_future_wait(running, drover_deadline_in(10 * SECOND)));
        EXPECT(DROVER_CANCELLED, drover_future_state(running));
        EXPECT(DROVER_CANCEL_TOO_LATE, drover_future_cancel(running, DROVER_CANCEL_KILL));
        drover_future_unref(running);
        drover_future_unref(queued);
        drover_args_free(a);
        drover_pool_unref(p);
}

/* A job that is over is joined by its key, for nobody: JobRemoved comes no more, and yet the pool is idle again. */
void case_key_for_nobody(void) {
        drover_pool *p = pool("squares");
        drover_args *a = seconds(0.01);
        const struct drover_options *keyed = DROVER_OPTIONS(.idempotency_key = "key-for-nobody");
        drover_future *f = submit(p, "sleep", a, keyed);
        EXPECT(0, drover_future_wait(f, drover_deadline_in(10 * SECOND)));
        EXPECT(DROVER_DONE, drover_future_state(f));
        drover_future_unref(f);
        EXPECT(0, drover_submit(p, "sleep", a, keyed, NULL));
        EXPECT(1, drover_pool_in_flight(p));
        EXPECT(0, drover_pool_drain(p, drover_deadline_in(10 * SECOND)));
        EXPECT(0, drover_pool_in_flight(p));
        drover_args_free(a);
        drover_pool_unref(p);
}

/* FEATURES 15: what never asks may be killed; the job in the queue behind it runs. */
void case_kill(void) {
        drover_pool *p = pool("hang");
        drover_future *f, *next;
        EXPECT(0, drover_submitf(p, &f, "hang", NULL));
        wait_running(f);
        EXPECT(DROVER_CANCEL_ASKED, drover_future_cancel(f, DROVER_CANCEL_ASK));
        EXPECT(-ETIMEDOUT, drover_future_wait(f, drover_deadline_in(100 * MS)));
        uint64_t start_ns = now_ns();
        EXPECT(DROVER_CANCEL_KILLED, drover_future_cancel(f, DROVER_CANCEL_KILL));
        EXPECT(0, drover_future_wait(f, drover_deadline_in(10 * SECOND)));
        EXPECT(DROVER_CANCELLED, drover_future_state(f));
        EXPECT_TEXT("operator", drover_future_error(f)->reason);
        /* The verdict comes first; the process that ran it is gone, too, when the grace is over: KillGraceSec=1s. */
        EXPECT_TRUE(drover_future_error(f)->worker_pid > 0);
        while (kill(drover_future_error(f)->worker_pid, 0) == 0) {
                EXPECT_TRUE(now_ns() - start_ns < 1200 * MS);
                nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        }
        EXPECT(ESRCH, errno);
        drover_future_unref(f);
        EXPECT(0, drover_submitf(p, &f, "hang", NULL)); /* the worker's successor takes it */
        EXPECT(0, drover_submitf(p, &next, "hang", NULL));
        wait_running(f);
        EXPECT(DROVER_CANCEL_DONE, drover_future_cancel(next, DROVER_CANCEL_KILL));
        EXPECT(DROVER_CANCEL_KILLED, drover_future_cancel(f, DROVER_CANCEL_KILL));
        EXPECT(0, drover_wait((drover_future *[]){f, next}, 2, DROVER_ALL_COMPLETED, drover_deadline_in(10 * SECOND),
                              NULL));
        drover_future_unref(f);
        drover_future_unref(next);
        drover_pool_unref(p);
}

/* Killed at about its end, a job was killed or was over: the broker, who knows no more of it then, is no excuse. */
void case_kill_at_the_end(void) {
        drover_pool *p = pool("squares");
        for (int i = 0; i < 100; i++) {
                drover_future *f;
                EXPECT(0, drover_submitf(p, &f, "sleep", "seconds:f64", 0.001));
                nanosleep(&(struct timespec){.tv_nsec = 1000000 + i % 40 * 20000}, NULL);
                EXPECT_TRUE(drover_future_cancel(f, DROVER_CANCEL_KILL) >= 0);
                EXPECT(0, drover_future_wait(f, drover_deadline_in(20 * SECOND)));
                drover_future_unref(f);
        }
        drover_pool_unref(p);
}

void case_progress(void) {
        drover_pool *p = pool("cancellable");
        drover_future *f;
        struct drover_progress progress = {0};
        EXPECT(0, drover_submitf(p, &f, "work", "ms:u64", UINT64_C(30000)));
        for (uint64_t end_ns = now_ns() + 10 * SECOND; progress.done < 3;) {
                EXPECT_TRUE(now_ns() < end_ns);
                EXPECT(0, drover_future_get_progress(f, &progress, sizeof progress));
        }
        EXPECT(30000, progress.total);
        EXPECT_TEXT("working", progress.note);
        EXPECT(DROVER_CANCEL_ASKED, drover_future_cancel(f, DROVER_CANCEL_ASK));
        EXPECT(0, drover_future_wait(f, drover_deadline_in(10 * SECOND)));
        EXPECT(-ENOENT, drover_future_get_progress(f, &progress, sizeof progress));
        drover_future_unref(f);
        drover_pool_unref(p);
}

/* FEATURES 12: half a second, within 10 ms; cancelled before it fires: no side effect. */
void case_timer(void) {
        drover_pool *p = pool("timers");
        drover_args *a = seconds(0);
        struct drover_run run;
        uint64_t best_ns = 0;
        for (int i = 0; i < 8 && (i == 0 || best_ns >= 10 * MS); i++) {
                uint64_t due_ns = drover_deadline_in(500 * MS);
                drover_future *f = submit(p, "sleep", a, DROVER_OPTIONS(.not_before_ns = due_ns));
                EXPECT(DROVER_QUEUED, drover_future_state(f));
                EXPECT(0, drover_future_wait(f, drover_deadline_in(10 * SECOND)));
                EXPECT(0, drover_future_get_run(f, &run, sizeof run));
                EXPECT_TRUE(run.started_ns >= due_ns);
                if (i == 0 || run.started_ns - due_ns < best_ns)
                        best_ns = run.started_ns - due_ns;
                drover_future_unref(f);
        }
        EXPECT_TRUE(best_ns < 10 * MS); /* the best of some: other programs have the CPU, too */
        uint64_t due_ns = drover_deadline_in(200 * MS);
        drover_future *f = submit(p, "sleep", a, DROVER_OPTIONS(.not_before_ns = due_ns));
        EXPECT(DROVER_CANCEL_DONE, drover_future_cancel(f, DROVER_CANCEL_QUEUED));
        EXPECT(0, drover_future_wait(f, 0));
        EXPECT(0, drover_future_get_run(f, &run, sizeof run));
        EXPECT(0, run.started_ns);
        EXPECT(DROVER_CANCELLED, drover_future_state(f));
        drover_future_unref(f);
        drover_args_free(a);
        drover_pool_unref(p);
}

/* FEATURES 62: they fire in time order, equal times by priority; a cancelled one never runs. */
void case_schedule(void) {
        enum { N = 5 };
        static const struct {
                unsigned ms;
                int priority, place;
        } events[N] = {{500, DROVER_LOW, 3},
                       {400, DROVER_LOW, 2},
                       {600, DROVER_URGENT, 4},
                       {400, DROVER_URGENT, 0},
                       {400, DROVER_HIGH, 1}};
        drover_pool *p = pool("timers");
        drover_args *a = seconds(0.01);
        drover_future *f[N + 1];
        uint64_t start_ns = now_ns();
        for (int i = 0; i < N; i++)
                f[i] = submit(
                        p, "sleep", a,
                        DROVER_OPTIONS(.not_before_ns = start_ns + events[i].ms * MS, .priority = events[i].priority));
        f[N] = submit(p, "sleep", a, DROVER_OPTIONS(.not_before_ns = start_ns + 450 * MS));
        EXPECT(DROVER_CANCEL_DONE, drover_future_cancel(f[N], DROVER_CANCEL_ASK));
        EXPECT(0, drover_wait(f, N + 1, DROVER_ALL_COMPLETED, drover_deadline_in(10 * SECOND), NULL));
        uint64_t started_ns[N];
        for (int i = 0; i < N; i++) {
                struct drover_run run;
                EXPECT(DROVER_DONE, drover_future_state(f[i]));
                EXPECT(0, drover_future_get_run(f[i], &run, sizeof run));
                started_ns[events[i].place] = run.started_ns;
        }
        for (int i = 1; i < N; i++)
                EXPECT_TRUE(started_ns[i - 1] < started_ns[i]);
        EXPECT(DROVER_CANCELLED, drover_future_state(f[N]));
        for (int i = 0; i <= N; i++)
                drover_future_unref(f[i]);
        drover_args_free(a);
        drover_pool_unref(p);
}

/* A key submits a job once, also when it is over; a job after others starts when all are done, or is cancelled. */
void case_key_and_after(void) {
        drover_pool *p = pool("squares"), *fails = pool("fails");
        drover_args *a = seconds(0.2);
        const struct drover_options *key = DROVER_OPTIONS(.idempotency_key = "library-once");
        drover_future *first = submit(p, "sleep", a, key), *joined = submit(p, "sleep", a, key);
        EXPECT(drover_future_id(first), drover_future_id(joined));
        const uint64_t ids[] = {drover_future_id(first)};
        drover_future *after = submit(p, "sleep", a, DROVER_OPTIONS(.after = ids, .n_after = 1));
        EXPECT(DROVER_QUEUED, drover_future_state(after));
        EXPECT(0, drover_wait((drover_future *[]){first, joined}, 2, DROVER_ALL_COMPLETED,
                              drover_deadline_in(10 * SECOND), NULL));
        EXPECT(-EAGAIN, drover_future_wait(after, 0));
        EXPECT(0, drover_future_wait(after, drover_deadline_in(10 * SECOND)));
        EXPECT(DROVER_DONE, drover_future_state(after));
        drover_future_unref(joined);
        joined = submit(p, "sleep", a, key); /* over by now */
        EXPECT(0, drover_future_wait(joined, drover_deadline_in(10 * SECOND)));
        EXPECT(DROVER_DONE, drover_future_state(joined));
        EXPECT(drover_future_id(first), drover_future_id(joined));
        drover_future_unref(first);
        drover_future_unref(joined);
        drover_future_unref(after);

        drover_args *fail;
        EXPECT(0, drover_args_new(&fail));
        EXPECT(0, drover_args_i64(fail, "error", EIO));
        EXPECT(0, drover_args_str(fail, "text", "no"));
        first = submit(fails, "fail", fail, DROVER_OPTIONS(.flags = DROVER_DETACHED));
        const uint64_t bad[] = {drover_future_id(first)};
        after = submit(p, "sleep", a, DROVER_OPTIONS(.after = bad, .n_after = 1));
        EXPECT(0, drover_future_wait(after, drover_deadline_in(10 * SECOND)));
        EXPECT(DROVER_CANCELLED, drover_future_state(after));
        EXPECT_TEXT("comes after", drover_future_error(after)->message);
        EXPECT(-ENOENT, drover_submit(p, "sleep", a, DROVER_OPTIONS(.after = (const uint64_t[]){1000000}, .n_after = 1),
                                      &joined));
        EXPECT_TEXT("1000000", drover_error_text(d));
        drover_future_unref(first);
        drover_future_unref(after);
        drover_args_free(fail);
        drover_args_free(a);
        drover_pool_unref(p);
        drover_pool_unref(fails);
}
