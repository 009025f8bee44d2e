/* How long a job may wait, also for room, and how it was run in the end: the pool's QueueTimeout= and a job's own
 * deadline, attempts and times, for jobs of a channel and over the bus. */
#include <time.h>

#include "tests/library/cases.h"

static void expect_expired(drover_future *f, uint64_t from_ns) {
        EXPECT(0, drover_future_wait(f, drover_deadline_in(20 * SECOND)));
        EXPECT(DROVER_EXPIRED, drover_future_state(f));
        EXPECT_TRUE(now_ns() >= from_ns);
        drover_future_unref(f);
}

/* QueueTimeout=300ms of the pool counts from when a job of a channel may run; then, at a line on stdin, there is none.
 */
void case_queue_timeout(void) {
        drover_pool *p = pool("hasty"), *other = pool("squares");
        drover_future *blocker = submit_sleep(p, 60, NULL), *first;
        wait_running(blocker);
        first = submit_sleep(other, 0.5, NULL);
        uint64_t start_ns = now_ns(), id = drover_future_id(first);
        drover_future *plain = submit_sleep(p, 0, NULL);
        drover_future *longer =
                submit_sleep(p, 0, DROVER_OPTIONS(.queue_deadline_ns = drover_deadline_in(60 * SECOND)));
        drover_future *delayed = submit_sleep(p, 0, DROVER_OPTIONS(.not_before_ns = start_ns + 400 * MS));
        drover_future *held = submit_sleep(p, 0, DROVER_OPTIONS(.after = &id, .n_after = 1));
        expect_expired(plain, start_ns + 300 * MS);
        expect_expired(longer, start_ns + 300 * MS);
        expect_expired(delayed, start_ns + 700 * MS);
        expect_expired(held, start_ns + 800 * MS);
        drover_future_unref(first);

        puts("ready");
        fflush(stdout);
        EXPECT('\n', getchar());
        plain = submit_sleep(p, 0, NULL);
        EXPECT(-ETIMEDOUT, drover_future_wait(plain, drover_deadline_in(500 * MS)));
        EXPECT(DROVER_CANCEL_ASKED, drover_future_cancel(blocker, DROVER_CANCEL_ASK));
        EXPECT(0, drover_future_wait(plain, drover_deadline_in(20 * SECOND)));
        EXPECT(DROVER_DONE, drover_future_state(plain));
        drover_future_unref(plain);
        drover_future_unref(blocker);
        drover_pool_unref(other);
        drover_pool_unref(p);
}

/* A deadline is one whatever else the job waits for: a time, other jobs, both; also if it is over already. */
static void expect_deadlines(uint32_t flags) {
        drover_pool *p = pool("squares");
        drover_future *blocker = submit_sleep(p, 60, DROVER_OPTIONS(.flags = flags));
        wait_running(blocker);
        uint64_t id = drover_future_id(blocker), end_ns = drover_deadline_in(300 * MS);
        uint64_t late_ns = end_ns + 60 * SECOND;
        const struct drover_options options[] = {
                {.not_before_ns = late_ns, .queue_deadline_ns = end_ns},
                {.n_after = 1, .after = &id, .queue_deadline_ns = end_ns},
                {.n_after = 1, .after = &id, .not_before_ns = late_ns, .queue_deadline_ns = end_ns},
                {.n_after = 1, .after = &id, .not_before_ns = now_ns(), .queue_deadline_ns = end_ns},
                {.queue_deadline_ns = 1},
                {.not_before_ns = end_ns, .queue_deadline_ns = 1},
                {.not_before_ns = end_ns, .queue_deadline_ns = late_ns},
                {.queue_deadline_ns = late_ns},
        };
        enum { N = sizeof options / sizeof *options, N_EXPIRED = N - 2, N_AT_END = 4 };
        drover_future *f[N];
        for (int i = 0; i < N; i++) {
                struct drover_options o = options[i];
                o.struct_size = sizeof o;
                o.flags = flags;
                f[i] = submit_sleep(p, 0, &o);
        }
        for (int i = 0; i < N_EXPIRED; i++)
                expect_expired(f[i], i < N_AT_END ? end_ns : 0);
        for (int i = N_EXPIRED; i < N; i++) {
                EXPECT(0, drover_future_wait(f[i], drover_deadline_in(20 * SECOND)));
                EXPECT(DROVER_DONE, drover_future_state(f[i]));
                drover_future_unref(f[i]);
        }
        EXPECT(DROVER_CANCEL_ASKED, drover_future_cancel(blocker, DROVER_CANCEL_ASK));
        drover_future_unref(blocker);
        drover_pool_unref(p);
}

void case_queue_deadline(void) {
        expect_deadlines(0);
        expect_deadlines(DROVER_DETACHED);
}

/* ---- how it was run ---- */

static void expect_run(drover_future *f, enum drover_state state, uint32_t n_attempts, uint64_t least_ns) {
        struct drover_run run;
        EXPECT(0, drover_future_wait(f, drover_deadline_in(20 * SECOND)));
        EXPECT(state, drover_future_state(f));
        EXPECT(0, drover_future_get_run(f, &run, sizeof run));
        EXPECT(n_attempts, run.attempt);
        if (state != DROVER_DONE)
                EXPECT(n_attempts, drover_future_error(f)->attempt);
        EXPECT_TRUE(run.submitted_ns > 0 && run.submitted_ns <= now_ns());
        EXPECT(n_attempts > 0, run.worker_pid > 0);
        EXPECT(n_attempts > 0, run.started_ns > 0);
        EXPECT(n_attempts > 0, run.finished_ns > 0);
        if (n_attempts > 0) {
                EXPECT_TRUE(run.submitted_ns <= run.started_ns && run.started_ns <= run.finished_ns);
                EXPECT_TRUE(run.finished_ns <= now_ns() && run.finished_ns - run.started_ns >= least_ns);
        }
        drover_future_unref(f);
}

static void expect_runs(uint32_t flags) {
        drover_pool *p = pool("fork-squares"), *crash = pool("crash");
        const uint64_t never_ns = drover_deadline_in(3600 * SECOND);
        expect_run(submit_sleep(p, 0.1, DROVER_OPTIONS(.flags = flags)), DROVER_DONE, 1, 99 * MS);
        drover_future *f = submit_sleep(p, 60, DROVER_OPTIONS(.flags = flags, .soft_limit_ns = 100 * MS));
        EXPECT(0, drover_future_wait(f, drover_deadline_in(20 * SECOND)));
        EXPECT_TEXT("soft limit", drover_future_error(f)->message);
        expect_run(f, DROVER_TIMED_OUT, 1, 99 * MS);
        expect_run(submit_sleep(p, 60, DROVER_OPTIONS(.flags = flags, .hard_limit_ns = 100 * MS)), DROVER_TIMED_OUT, 1,
                   0);
        f = submit_sleep(p, 60, DROVER_OPTIONS(.flags = flags));
        wait_running(f);
        EXPECT(DROVER_CANCEL_ASKED, drover_future_cancel(f, DROVER_CANCEL_ASK));
        expect_run(f, DROVER_CANCELLED, 1, 0);
        EXPECT(0, drover_submit(crash, "segfault", NULL, DROVER_OPTIONS(.flags = flags), &f));
        expect_run(f, DROVER_POISONED, 2, 0);

        f = submit_sleep(p, 0, DROVER_OPTIONS(.flags = flags, .not_before_ns = never_ns));
        EXPECT(DROVER_CANCEL_DONE, drover_future_cancel(f, DROVER_CANCEL_QUEUED));
        expect_run(f, DROVER_CANCELLED, 0, 0);
        f = submit_sleep(p, 0, DROVER_OPTIONS(.flags = flags, .not_before_ns = never_ns, .queue_deadline_ns = 1));
        expect_run(f, DROVER_EXPIRED, 0, 0);
        drover_pool_unref(crash);
        drover_pool_unref(p);
}

void case_runs(void) {
        expect_runs(0);
        expect_runs(DROVER_DETACHED);
}

/* ---- no room ---- */

enum { N_SLEEPS = 8 };

static int next_sleep(void *user, uint64_t index, drover_args *a) {
        drover_args_f64(a, "seconds", 0.001);
        return index < N_SLEEPS;
}

/* Others fill the slots for jobs over the bus, and make room again, while nothing of ours is under way. */
void case_full_bus(void) {
        static const double lengths[] = {0.4, 0.8, 60, 60}; /* the first two make room by their end */
        enum { N = sizeof lengths / sizeof *lengths };
        const struct drover_options *detached = DROVER_OPTIONS(.flags = DROVER_DETACHED);
        drover *ours = d, *theirs;
        drover_future *other[N], *f[2];
        drover_iterator *it;
        drover_args *a;
        drover_pool *p = pool("single"), *p_theirs;
        EXPECT(0, drover_args_new(&a));
        EXPECT(0, drover_args_f64(a, "seconds", 0));
        EXPECT(0, drover_open(NULL, &theirs));
        d = theirs;
        p_theirs = pool("single");
        for (int i = 0; i < N; i++)
                other[i] = submit_sleep(p_theirs, lengths[i], detached);
        d = ours;
        EXPECT(-EAGAIN, drover_submit(p, "sleep", a, detached, &f[0]));
        EXPECT_TEXT("slots", drover_error_text(d));
        EXPECT(-ETIMEDOUT, drover_submit(p, "sleep", a,
                                         DROVER_OPTIONS(.flags = DROVER_DETACHED,
                                                        .submit_deadline_ns = drover_deadline_in(50 * MS)),
                                         &f[0]));
        EXPECT_TEXT("no room", drover_error_text(d));
        EXPECT(0, drover_map(p, "sleep", next_sleep, NULL, DROVER_MAP_OPTIONS(.job = detached), &it));
        EXPECT(-EAGAIN, drover_iterator_next(it, &f[0], 0));
        EXPECT(-ETIMEDOUT, drover_iterator_next(it, &f[0], drover_deadline_in(50 * MS)));
        for (int i = 0; i < 2; i++)
                EXPECT(0, drover_submit(p, "sleep", a,
                                        DROVER_OPTIONS(.flags = DROVER_DETACHED,
                                                       .submit_deadline_ns = drover_deadline_in(20 * SECOND)),
                                        &f[i]));
        for (int i = 0; i < N; i++) {
                drover_future_cancel(other[i], DROVER_CANCEL_ASK);
                drover_future_unref(other[i]);
        }
        expect_run(f[0], DROVER_DONE, 1, 0);
        expect_run(f[1], DROVER_DONE, 1, 0);
        for (int i = 0; i < N_SLEEPS; i++) {
                EXPECT(1, drover_iterator_next(it, &f[0], drover_deadline_in(20 * SECOND)));
                expect_run(f[0], DROVER_DONE, 1, 0);
        }
        EXPECT(0, drover_iterator_next(it, &f[0], 0));
        drover_iterator_free(it);
        drover_args_free(a);
        drover_pool_unref(p_theirs);
        drover_close(theirs);
        drover_pool_unref(p);
}

static int submit_large(drover_pool *p, uint64_t deadline_ns, drover_future **ret) {
        static const char large[100000];
        return drover_submit_raw(p, "raw", large, sizeof large, DROVER_OPTIONS(.submit_deadline_ns = deadline_ns), ret);
}

/* What needs a daemon cannot be handed over while there is none, and is taken by the next one. */
void case_no_daemon(void) {
        drover_pool *p = pool("typed");
        drover_future *f;
        puts("ready");
        fflush(stdout);
        EXPECT('\n', getchar()); /* it was killed; its sockets live until the kernel is done with its io_uring */
        int r = 0;
        for (uint64_t end_ns = now_ns() + 10 * SECOND; r == 0 && now_ns() < end_ns;) {
                r = submit_large(p, 0, NULL);
                nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        }
        EXPECT(-EAGAIN, r);
        EXPECT_TEXT("droverd is away", drover_error_text(d));
        EXPECT(-ETIMEDOUT, submit_large(p, drover_deadline_in(50 * MS), &f));
        EXPECT_TEXT("no droverd", drover_error_text(d));
        puts("away");
        fflush(stdout);
        EXPECT(0, submit_large(p, drover_deadline_in(20 * SECOND), &f));
        expect_run(f, DROVER_DONE, 1, 0);
        drover_pool_unref(p);
}

/* ---- too large ---- */

enum { N_FAILS = 5, TOO_LARGE = 2 };

static drover_args *fail_args(drover_args *a, size_t n_text) {
        char *text = malloc(n_text + 1);
        memset(text, 'x', n_text);
        text[n_text] = 0;
        EXPECT(0, drover_args_i64(a, "error", ENOSPC));
        EXPECT(0, drover_args_str(a, "text", text));
        free(text);
        return a;
}

static int next_fail(void *user, uint64_t index, drover_args *a) {
        fail_args(a, index == TOO_LARGE ? 5000 : 5);
        return index < N_FAILS;
}

/* Typed arguments over the bus that no slot holds: the submission's error, and of a map one future's. */
void case_too_large(void) {
        const struct drover_options *detached = DROVER_OPTIONS(.flags = DROVER_DETACHED);
        static const size_t lengths[] = {5000, 3 << 20};
        drover_pool *p = pool("fails");
        drover_iterator *it;
        drover_future *f;
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
                drover_args *a;
                EXPECT(0, drover_args_new(&a));
                EXPECT(-EMSGSIZE, drover_submit(p, "fail", fail_args(a, lengths[i]), detached, &f));
                EXPECT_TEXT("SlotSize=4096", drover_error_text(d));
                EXPECT_TEXT("through the channel", drover_error_text(d));
                EXPECT(0, drover_submit(p, "fail", a, NULL, NULL)); /* a channel takes it */
                drover_args_free(a);
        }
        EXPECT(0, drover_map(p, "fail", next_fail, NULL, DROVER_MAP_OPTIONS(.job = detached), &it));
        for (int i = 0; i < N_FAILS; i++) {
                EXPECT(1, drover_iterator_next(it, &f, drover_deadline_in(20 * SECOND)));
                EXPECT(DROVER_FAILED, drover_future_state(f));
                EXPECT(i == TOO_LARGE ? -EMSGSIZE : -ENOSPC, drover_future_error(f)->code);
                drover_future_unref(f);
        }
        EXPECT(0, drover_iterator_next(it, &f, 0));
        drover_iterator_free(it);
        EXPECT(0, drover_pool_drain(p, drover_deadline_in(20 * SECOND)));
        drover_pool_unref(p);
}
