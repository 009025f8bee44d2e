/* What happens beside a program: one droverd after another, pools that come and go, jobs of others. Each case says
 * "ready" and waits for a line, by when the test has done to the daemon what the case is about. */
#include <poll.h>

#include "tests/library/cases.h"

static void let_it_happen(void) {
        puts("ready");
        fflush(stdout);
        EXPECT_TRUE(getchar() == '\n');
}

static drover_future *detached_sleeper(drover_pool *p, double seconds) {
        drover_args *a;
        drover_future *f;
        EXPECT(0, drover_args_new(&a));
        EXPECT(0, drover_args_f64(a, "seconds", seconds));
        EXPECT(0, drover_submit(p, "sleep", a, DROVER_OPTIONS(.flags = DROVER_DETACHED), &f));
        drover_args_free(a);
        return f;
}

static void expect_done(drover_future *f) {
        EXPECT(0, drover_future_wait(f, drover_deadline_in(30 * SECOND)));
        EXPECT(DROVER_DONE, drover_future_state(f));
        EXPECT_TRUE(!drover_future_error(f));
        drover_future_unref(f);
}

/* That the first daemon went is read only after the second one took a job: which is none of its business. */
void case_bus_job_after_a_restart(void) {
        drover_pool *p = pool("single");
        expect_done(detached_sleeper(p, 0));
        drover_future *old = detached_sleeper(p, 30);
        let_it_happen();
        drover_future *f = detached_sleeper(p, 0.3);
        expect_done(f);
        EXPECT(0, drover_future_wait(old, 0)); /* the same news ended those of the first one */
        EXPECT(DROVER_LOST, drover_future_state(old));
        EXPECT(-EPIPE, drover_future_error(old)->code);
        drover_future_unref(old);
        expect_done(detached_sleeper(p, 0));
        drover_pool_unref(p);
}

static void use(drover_pool *p) {
        drover_future *f;
        EXPECT(0, drover_submitf(p, &f, "getpid", NULL));
        expect_done(f);
}

/* However a pool went, a handle of it that is still held is not handed out again. */
void case_pool_opens_again(void) {
        drover_pool *first = pool("single"), *second, *third, *none;
        drover_future *f;
        use(first);
        let_it_happen(); /* droverd ended as it should, and another one runs */
        second = pool("single");
        EXPECT_TRUE(second != first);
        use(second);
        EXPECT(-EPIPE, drover_submitf(first, &f, "getpid", NULL));
        drover_pool_unref(first);
        let_it_happen(); /* the pool was removed */
        EXPECT(-ENOENT, drover_pool_open(d, "single", &none));
        let_it_happen(); /* another one of its name was made */
        third = pool("single");
        EXPECT_TRUE(third != second);
        use(third);
        EXPECT_TRUE(pool("single") == third);
        drover_pool_unref(third);
        drover_pool_unref(third);
        drover_pool_unref(second);
}

/* ResultTTL=0. Who waits gets the result; who comes late knows at least that there was one. */
void case_result_not_kept(void) {
        drover_pool *p = pool("single");
        const void *data;
        size_t bytes;
        expect_done(detached_sleeper(p, 0));
        drover_future *f = detached_sleeper(p, 0.1);
        let_it_happen(); /* the job is over and forgotten */
        EXPECT(0, drover_future_wait(f, drover_deadline_in(30 * SECOND)));
        EXPECT(DROVER_DONE, drover_future_state(f));
        EXPECT(-ENODATA, drover_future_result(f, &data, &bytes));
        EXPECT(-ENODATA, drover_future_error(f)->code);
        EXPECT(DROVER_DONE, drover_future_error(f)->state);
        EXPECT_TEXT("ended as done", drover_future_error(f)->message);
        drover_future_unref(f);
        drover_pool_unref(p);
}

/* Without jobs on the bus we are told of nobody's: it would stay in the bus's memory for as long as we do other things.
 */
void case_no_news_without_jobs(void) {
        drover_pool *p = pool("single");
        struct pollfd fd = {.fd = drover_get_fd(d), .events = POLLIN};
        expect_done(detached_sleeper(p, 0));
        while (drover_process(d) > 0)
                ;
        EXPECT(0, poll(&fd, 1, 0));
        let_it_happen(); /* other jobs of this user ended */
        EXPECT(0, poll(&fd, 1, 0));
        expect_done(detached_sleeper(p, 0.1)); /* and of ours we are told again */
        drover_pool_unref(p);
}
