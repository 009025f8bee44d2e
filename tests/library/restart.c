/* One droverd after another. Each case says "ready" and waits for a line, by when the test has done to the daemon what
 * the case is about. */
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
