/* How long a job may wait: the pool's QueueTimeout= and a job's own deadline, for jobs of a channel and over the bus. */
#include "tests/library/cases.h"

static drover_future *submit(drover_pool *p, double seconds, const struct drover_options *o) {
        drover_future *f;
        drover_args *a;
        EXPECT(0, drover_args_new(&a));
        EXPECT(0, drover_args_f64(a, "seconds", seconds));
        EXPECT(0, drover_submit(p, "sleep", a, o, &f));
        drover_args_free(a);
        return f;
}

static void expect_expired(drover_future *f, uint64_t from_ns) {
        EXPECT(0, drover_future_wait(f, drover_deadline_in(20 * SECOND)));
        EXPECT(DROVER_EXPIRED, drover_future_state(f));
        EXPECT_TRUE(now_ns() >= from_ns);
        drover_future_unref(f);
}

/* QueueTimeout=300ms of the pool counts from when a job of a channel may run; then, at a line on stdin, there is none. */
void case_queue_timeout(void) {
        drover_pool *p = pool("hasty"), *other = pool("squares");
        drover_future *blocker = submit(p, 60, NULL), *first;
        wait_running(blocker);
        first = submit(other, 0.5, NULL);
        uint64_t start_ns = now_ns(), id = drover_future_id(first);
        drover_future *plain = submit(p, 0, NULL);
        drover_future *longer = submit(p, 0, DROVER_OPTIONS(.queue_deadline_ns = drover_deadline_in(60 * SECOND)));
        drover_future *delayed = submit(p, 0, DROVER_OPTIONS(.not_before_ns = start_ns + 400 * MS));
        drover_future *held = submit(p, 0, DROVER_OPTIONS(.after = &id, .n_after = 1));
        expect_expired(plain, start_ns + 300 * MS);
        expect_expired(longer, start_ns + 300 * MS);
        expect_expired(delayed, start_ns + 700 * MS);
        expect_expired(held, start_ns + 800 * MS);
        drover_future_unref(first);

        puts("ready");
        fflush(stdout);
        EXPECT('\n', getchar());
        plain = submit(p, 0, NULL);
        EXPECT(-ETIMEDOUT, drover_future_wait(plain, drover_deadline_in(500 * MS)));
        EXPECT(DROVER_CANCEL_ASKED, drover_future_cancel(blocker, DROVER_CANCEL_ASK));
        EXPECT(0, drover_future_wait(plain, drover_deadline_in(20 * SECOND)));
        EXPECT(DROVER_DONE, drover_future_state(plain));
        drover_future_unref(plain);
        drover_future_unref(blocker);
        drover_pool_unref(other);
        drover_pool_unref(p);
}
