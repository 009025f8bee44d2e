/* One future: waiting, cancelling, callbacks, letting go. */
#include <pthread.h>
#include <time.h>

#include "tests/library/cases.h"

/* FEATURES 1 and 34: a wait that times out leaves the job running. */
void case_wait(void) {
        drover_future *f = sleeper("squares", 0.5);
        EXPECT(-EAGAIN, drover_future_wait(f, 0));
        wait_running(f);
        uint64_t start_ns = now_ns();
        EXPECT(-ETIMEDOUT, drover_future_wait(f, drover_deadline_in(100 * MS)));
        EXPECT_TRUE(now_ns() - start_ns >= 100 * MS);
        EXPECT(DROVER_RUNNING, drover_future_state(f));
        EXPECT(0, drover_future_wait(f, DROVER_FOREVER));
        EXPECT(DROVER_DONE, drover_future_state(f));
        struct drover_run run;
        EXPECT(0, drover_future_get_run(f, &run, sizeof run));
        EXPECT_TRUE(run.attempt == 1 && run.worker_pid > 0 && run.submitted_ns >= start_ns - SECOND);
        EXPECT_TRUE(run.submitted_ns <= run.started_ns && run.finished_ns - run.started_ns >= 500 * MS);
        EXPECT_TRUE(drover_future_id(f) > 0);
        drover_future_unref(f);
}

/* FEATURES 68: 0, the past, UINT64_MAX - 1. */
void case_deadlines(void) {
        drover_future *f = sleeper("squares", 0.2);
        EXPECT(-EAGAIN, drover_future_wait(f, 0));
        EXPECT(-ETIMEDOUT, drover_future_wait(f, 1));
        EXPECT(-ETIMEDOUT, drover_future_wait(f, now_ns() - 1));
        EXPECT(0, drover_future_wait(f, UINT64_MAX - 1));
        EXPECT(0, drover_future_wait(f, 0)); /* it has ended: no deadline matters */
        EXPECT(0, drover_future_wait(f, 1));
        drover_future_unref(f);

        f = sleeper("squares", 0.1);
        EXPECT(0, drover_wait(&f, 1, DROVER_ALL_COMPLETED, drover_deadline_in(UINT64_MAX), NULL));
        drover_future_unref(f);

        drover_pool *p = pool("single");
        drover_future *blocker = sleeper("single", 30);
        wait_running(blocker);
        drover_args *a;
        EXPECT(0, drover_args_new(&a));
        EXPECT(0, drover_args_f64(a, "seconds", 0));
        /* Nobody takes it: expires at its deadline, and is told so in a wait and in a loop. */
        EXPECT(0, drover_submit(p, "sleep", a, DROVER_OPTIONS(.queue_deadline_ns = drover_deadline_in(100 * MS)), &f));
        EXPECT(0, drover_future_wait(f, drover_deadline_in(5 * SECOND)));
        EXPECT(DROVER_EXPIRED, drover_future_state(f));
        EXPECT(-ETIME, drover_future_error(f)->code);
        drover_future_unref(f);
        EXPECT(0, drover_submit(p, "sleep", a, DROVER_OPTIONS(.queue_deadline_ns = UINT64_MAX - 1), &f));
        EXPECT(DROVER_CANCEL_DONE, drover_future_cancel(f, DROVER_CANCEL_QUEUED));
        drover_future_unref(f);
        EXPECT(DROVER_CANCEL_ASKED, drover_future_cancel(blocker, DROVER_CANCEL_ASK));
        EXPECT(0, drover_future_wait(blocker, drover_deadline_in(5 * SECOND)));
        drover_future_unref(blocker);
        drover_args_free(a);
        drover_pool_unref(p);
}

/* FEATURES 14 and 41: a queued one at once, a running one by its next checkpoint. */
void case_cancel(void) {
        const void *data;
        size_t bytes;
        drover_future *running = sleeper("single", 30), *queued = sleeper("single", 30);
        wait_running(running);
        EXPECT(DROVER_QUEUED, drover_future_state(queued));
        EXPECT(-EBUSY, drover_future_cancel(running, DROVER_CANCEL_QUEUED));
        EXPECT(DROVER_RUNNING, drover_future_state(running));
        EXPECT(DROVER_CANCEL_DONE, drover_future_cancel(queued, DROVER_CANCEL_ASK));
        EXPECT(0, drover_future_wait(queued, 0));
        EXPECT(DROVER_CANCELLED, drover_future_state(queued));
        EXPECT(-ECANCELED, drover_future_result(queued, &data, &bytes));
        EXPECT(DROVER_CANCEL_TOO_LATE, drover_future_cancel(queued, DROVER_CANCEL_ASK));
        uint64_t start_ns = now_ns();
        EXPECT(DROVER_CANCEL_ASKED, drover_future_cancel(running, DROVER_CANCEL_ASK));
        EXPECT(0, drover_future_wait(running, drover_deadline_in(5 * SECOND)));
        EXPECT(DROVER_CANCELLED, drover_future_state(running));
        EXPECT_TRUE(now_ns() - start_ns < 2 * SECOND);
        drover_future_unref(running);
        drover_future_unref(queued);
}

/* ---- callbacks ---- */

struct called {
        unsigned n;
        pthread_t thread;
        enum drover_state state;
        drover_error error;
};

static void on_done(drover_future *f, void *user) {
        struct called *c = user;
        c->n++;
        c->thread = pthread_self();
        c->state = drover_future_state(f);
        if (drover_future_error(f))
                c->error = *drover_future_error(f);
        EXPECT(-EBUSY, drover_process(d));
}

/* A job fails with `n` characters of two bytes each: so many of them are told, each a whole one. */
static void check_long_failure(drover_pool *fails, size_t n, size_t n_told, uint32_t flags) {
        drover_future *f;
        drover_args *args;
        const void *data;
        size_t bytes;
        char *text = calloc(n, 2), *told;
        for (size_t i = 0; i < n; i++)
                memcpy(text + 2 * i, "\xc3\xa9", 2);
        EXPECT(0, drover_args_new(&args));
        drover_args_i64(args, "error", EIO);
        drover_args_str_sized(args, "text", text, 2 * n);
        EXPECT(0, drover_submit(fails, "fail", args, DROVER_OPTIONS(.flags = flags), &f));
        drover_args_free(args);
        EXPECT(0, drover_future_wait(f, DROVER_FOREVER));
        EXPECT(-EIO, drover_future_result(f, &data, &bytes));
        const char *message = drover_future_error(f)->message, *error = drover_error_text(d);
        told = strchr(message, '\xc3');
        EXPECT(1, told && strlen(told) == 2 * n_told && memcmp(told, text, 2 * n_told) == 0);
        EXPECT(1, strlen(error) > 500 && memcmp(error + strlen(error) - 2, text, 2) == 0);
        drover_future_unref(f);
        free(text);
}

/* Each call that fails says why in words: none leaves those of another one there. */
void case_error_texts(void) {
        drover_pool *squares = pool("squares"), *fails = pool("fails");
        drover_future *f, *none;
        const void *data;
        const uint64_t *numbers;
        size_t bytes;
        uint64_t u;
        int64_t i;
        struct drover_run run;
        EXPECT(0, drover_submitf(squares, &f, "sleep", "seconds:f64", 0.5));
        EXPECT(-ENXIO, drover_submitf(squares, &none, "other", NULL));
        EXPECT_TEXT("other", drover_error_text(d));
        EXPECT(-EAGAIN, drover_future_wait(f, 0));
        EXPECT_TEXT("not yet", drover_error_text(d));
        EXPECT(-EINPROGRESS, drover_future_get_u64(f, "x", &u));
        EXPECT_TEXT("has no verdict", drover_error_text(d));
        EXPECT(-ETIMEDOUT, drover_wait(&f, 1, DROVER_ALL_COMPLETED, drover_deadline_in(MS), NULL));
        EXPECT_TEXT("deadline", drover_error_text(d));
        EXPECT(-EINPROGRESS, drover_future_get_run(f, &run, sizeof run));
        EXPECT_TEXT("has no verdict", drover_error_text(d));
        EXPECT(-ETIMEDOUT, drover_pool_drain(squares, drover_deadline_in(MS)));
        EXPECT_TEXT("deadline", drover_error_text(d));
        EXPECT(0, drover_future_wait(f, DROVER_FOREVER));
        drover_future_unref(f);

        drover_pool_unref(squares);
        squares = pool("narrow");
        EXPECT(0, drover_submitf(squares, &f, "square", "x:i64", INT64_C(3)));
        EXPECT(0, drover_future_wait(f, DROVER_FOREVER));
        EXPECT(-ENOENT, drover_future_get_i64(f, "cube", &i));
        EXPECT_TEXT("no field \"cube\"", drover_error_text(d));
        EXPECT(-EINVAL, drover_future_get_u64_array(f, "square", &numbers, &bytes));
        EXPECT_TEXT("\"square\" of its result is not of type u64[]", drover_error_text(d));
        EXPECT(-EINVAL, drover_future_get_i64(f, NULL, &i));
        EXPECT_TEXT("NULL", drover_error_text(d));
        drover_future_unref(f);

        EXPECT(0, drover_submitf(fails, &f, "fail", "error:i64,text:str", (int64_t)EIO, "a reason"));
        EXPECT(0, drover_future_wait(f, DROVER_FOREVER));
        EXPECT(-EIO, drover_future_result(f, &data, &bytes));
        EXPECT_TEXT("failed: a reason", drover_error_text(d));
        drover_future_unref(f);
        check_long_failure(fails, 2100, 2047, 0); /* a byte of the next one would fit */
        check_long_failure(fails, 1500, 1500, DROVER_DETACHED);
        drover_pool_unref(squares);
        drover_pool_unref(fails);
}

/* Asks for itself once more. */
static void on_done_again(drover_future *f, void *user) {
        unsigned *n = user;
        if (++*n < 1000)
                EXPECT(0, drover_future_on_done(f, on_done_again, n));
}

static void on_done_close(drover_future *f, void *user) {
        on_done_again(f, user);
        d = drover_close(d);
}

/* One that asks for itself for ever leaves the program its loop; none is called after the end. */
void case_callbacks_that_ask(void) {
        drover_pool *p = pool("squares");
        drover_future *f;
        unsigned n = 0, n_other = 0;
        EXPECT(0, drover_submitf(p, &f, "square", "x:i64", INT64_C(3)));
        EXPECT(0, drover_future_wait(f, DROVER_FOREVER));
        EXPECT(0, drover_future_on_done(f, on_done_again, &n));
        EXPECT(0, drover_future_on_done(f, on_done_again, &n_other));
        for (unsigned i = 1; i < 4; i++) {
                EXPECT(1, drover_process(d));
                EXPECT(i, n);
                EXPECT(i, n_other);
        }
        while (drover_process(d) > 0)
                ;
        EXPECT(1000, n);
        EXPECT(1000, n_other);
        n = n_other = 0;
        EXPECT(0, drover_future_on_done(f, on_done_close, &n));
        EXPECT(0, drover_future_on_done(f, on_done_again, &n_other));
        drover_pool_unref(p);
        EXPECT(-ECONNABORTED, drover_process(d));
        EXPECT(1, n);
        EXPECT(0, n_other);
        drover_future_unref(f);
}

/* FEATURES 30: once, in the caller's thread, also if registered after the end; the error one gets attempt, pid, signal.
 */
void case_callbacks(void) {
        drover_pool *squares = pool("squares"), *crash = pool("crash");
        drover_future *good, *bad;
        struct called after_good = {0}, after_bad = {0}, late = {0};
        EXPECT(0, drover_submitf(squares, &good, "square", "x:i64", INT64_C(3)));
        EXPECT(0, drover_submitf(crash, &bad, "segfault", NULL));
        EXPECT(0, drover_future_on_done(good, on_done, &after_good));
        EXPECT(0, drover_future_on_done(bad, on_done, &after_bad));
        EXPECT(0, drover_wait((drover_future *[]){good, bad}, 2, DROVER_ALL_COMPLETED, DROVER_FOREVER, NULL));
        EXPECT(0, after_good.n + after_bad.n); /* not from a wait */
        EXPECT(0, drover_future_on_done(good, on_done, &late));
        bad = drover_future_unref(bad); /* nobody holds it any more, it is called all the same */
        while (drover_process(d) > 0)
                ;
        EXPECT(1, after_good.n);
        EXPECT(1, after_bad.n);
        EXPECT(1, late.n);
        EXPECT(DROVER_DONE, after_good.state);
        EXPECT(DROVER_POISONED, after_bad.state);
        EXPECT(2, after_bad.error.attempt);
        EXPECT(11, after_bad.error.signal);
        EXPECT_TRUE(after_bad.error.worker_pid > 0 && pthread_equal(after_good.thread, pthread_self()));
        EXPECT(0, drover_future_on_done(good, on_done, &late));
        while (drover_process(d) > 0)
                ;
        EXPECT(2, late.n);
        drover_future_unref(good);
        drover_pool_unref(squares);
        drover_pool_unref(crash);
}

/* FEATURES 20: more than there are slots is refused at once; with a deadline it waits for room. */
void case_full(void) {
        drover_pool *p = pool("single");
        drover_future *f[64], *extra;
        drover_args *a;
        uint32_t n = drover_pool_slots(p);
        EXPECT(4, n);
        EXPECT(0, drover_args_new(&a));
        EXPECT(0, drover_args_f64(a, "seconds", 0.3));
        for (uint32_t i = 0; i < n; i++)
                EXPECT(0, drover_submit(p, "sleep", a, NULL, &f[i]));
        EXPECT(n, drover_pool_in_flight(p));
        EXPECT(-EAGAIN, drover_submit(p, "sleep", a, NULL, &extra));
        EXPECT_TEXT("4 slots", drover_error_text(d));
        uint64_t start_ns = now_ns();
        EXPECT(-ETIMEDOUT,
               drover_submit(p, "sleep", a, DROVER_OPTIONS(.submit_deadline_ns = drover_deadline_in(50 * MS)), &extra));
        EXPECT_TRUE(now_ns() - start_ns >= 50 * MS);
        EXPECT(0, drover_submit(p, "sleep", a, DROVER_OPTIONS(.submit_deadline_ns = drover_deadline_in(5 * SECOND)),
                                &extra));
        EXPECT(n, drover_pool_in_flight(p));
        EXPECT(0, drover_pool_drain(p, DROVER_FOREVER));
        for (uint32_t i = 0; i < n; i++) {
                EXPECT(DROVER_DONE, drover_future_state(f[i]));
                drover_future_unref(f[i]);
        }
        EXPECT(DROVER_DONE, drover_future_state(extra));
        drover_future_unref(extra);
        drover_args_free(a);
        drover_pool_unref(p);
}

/* Letting go of future and pool cancels nothing. */
void case_dropped(void) {
        drover_arena *arena;
        drover_pool *p = pool("squares");
        drover_future *f;
        EXPECT(0, drover_submitf(p, &f, "sleep", "seconds:f64", 0.3));
        drover_pool *again = pool("squares");
        EXPECT_TRUE(again == p); /* one channel for all handles */
        drover_pool_unref(again);
        drover_future_ref(f);
        drover_future_unref(f);
        drover_pool_unref(p);
        EXPECT(0, drover_future_wait(f, DROVER_FOREVER)); /* the pool's handle is gone, its channel is not */
        EXPECT(DROVER_DONE, drover_future_state(f));
        drover_future_unref(f);

        EXPECT(0, drover_arena_open(d, "library-dropped", 0, &arena));
        drover_semaphore *s;
        EXPECT(0, drover_semaphore_open(arena, "s", 0, &s));
        EXPECT(-EINVAL, drover_arena_open(d, "a/b", 0, &arena));
        EXPECT_TEXT("a/b", drover_error_text(d));
        drover_semaphore_free(s);
        drover_arena_free(arena);

        drover_arena *full;
        EXPECT(0, drover_arena_open_with(d, "library-full", DROVER_ARENA_OPTIONS(.max_processes = 1), &full));
        EXPECT(-EDQUOT, drover_arena_open(d, "library-full", 0, &arena));
        EXPECT_TEXT("1 processes are attached", drover_error_text(d));
        drover_arena_free(full);

        p = pool("single");
        EXPECT(0, drover_submitf(p, NULL, "sleep", "seconds:f64", 0.2));
        EXPECT(0, drover_submitf(p, &f, "getpid", NULL)); /* after it: one worker */
        EXPECT(1 + 1, drover_pool_in_flight(p));
        EXPECT(0, drover_future_wait(f, DROVER_FOREVER));
        EXPECT(0, drover_pool_in_flight(p));
        drover_future_unref(f);
        drover_pool_unref(p);
}
