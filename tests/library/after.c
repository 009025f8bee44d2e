/* Jobs of a channel that come after others (the option `after`): no broker on the path. */
#include "tests/library/cases.h"

static drover_future *after(drover_pool *p, const uint64_t *ids, size_t n) {
        return submit_sleep(p, 0, DROVER_OPTIONS(.after = ids, .n_after = n));
}

static struct drover_run run_of(drover_future *f) {
        struct drover_run run;
        EXPECT(0, drover_future_wait(f, drover_deadline_in(20 * SECOND)));
        EXPECT(DROVER_DONE, drover_future_state(f));
        EXPECT(0, drover_future_get_run(f, &run, sizeof run));
        return run;
}

static void expect_cancelled(drover_future *f, uint64_t id, const char *word) {
        char text[80];
        snprintf(text, sizeof text, "job %llu, which it comes after, ended as %s", (unsigned long long)id, word);
        EXPECT(0, drover_future_wait(f, drover_deadline_in(20 * SECOND)));
        EXPECT(DROVER_CANCELLED, drover_future_state(f));
        EXPECT(-ECANCELED, drover_future_error(f)->code);
        EXPECT_TEXT(text, drover_future_error(f)->message);
        drover_future_unref(f);
}

/* It waits for all of them, whatever pool they are in and whether they have ended or not; its own time counts, too. */
void case_after(void) {
        drover_pool *p = pool("squares"), *other = pool("single");
        drover_future *one = submit_sleep(p, 0.3, NULL), *two = submit_sleep(other, 0.1, NULL);
        const uint64_t ids[] = {drover_future_id(one), drover_future_id(two), drover_future_id(one)};
        drover_future *both = after(other, ids, 3);
        const uint64_t last[] = {drover_future_id(both)};
        drover_future *chain = after(p, last, 1);
        EXPECT_TRUE(drover_future_id(chain) > 0);
        EXPECT(DROVER_QUEUED, drover_future_state(both));
        EXPECT(2, drover_pool_in_flight(p)); /* it has its slot */
        EXPECT(0, drover_future_wait(two, drover_deadline_in(20 * SECOND)));
        EXPECT(-ETIMEDOUT, drover_future_wait(both, drover_deadline_in(20 * MS)));
        struct drover_run run = run_of(both);
        EXPECT_TRUE(run.started_ns >= run_of(one).finished_ns && run.started_ns >= run_of(two).finished_ns);
        EXPECT_TRUE(run_of(chain).started_ns >= run.finished_ns);
        drover_future_unref(chain);
        drover_future_unref(both);

        both = after(p, ids, 2); /* all are done already */
        run_of(both);
        drover_future_unref(both);
        drover_future_unref(one);
        one = submit_sleep(p, 0.3, NULL);
        uint64_t due_ns = drover_deadline_in(600 * MS), id = drover_future_id(one);
        both = submit_sleep(p, 0, DROVER_OPTIONS(.after = &id, .n_after = 1, .not_before_ns = due_ns));
        drover_future *timer = submit_sleep(p, 0, DROVER_OPTIONS(.not_before_ns = drover_deadline_in(MS)));
        run_of(timer); /* the broker has looked at what is delayed, and took the held one for one of never */
        drover_future_unref(timer);
        EXPECT(0, drover_future_wait(one, drover_deadline_in(20 * SECOND)));
        EXPECT_TRUE(run_of(both).started_ns >= due_ns);
        drover_future_unref(both);
        drover_future_unref(one);
        drover_future_unref(two);
        drover_pool_unref(p);
        drover_pool_unref(other);
}

static int next_square(void *user, uint64_t index, drover_args *args) {
        if (index == 300)
                return 0;
        drover_args_i64(args, "x", (int64_t)index);
        return 1;
}

/* FEATURES 80: a chord fires once, when the last of many is done. Taking futures out of the map, a drain waits for it.
 */
void case_chord(void) {
        enum { N = 300 };
        static uint64_t ids[N];
        uint64_t last_ns = 0;
        drover_pool *p = pool("squares");
        drover_iterator *it;
        drover_future *f, *chord = NULL;
        EXPECT(0, drover_map(p, "square", next_square, NULL, NULL, &it));
        for (int i = 0; i < N; i++) {
                EXPECT(1, drover_iterator_next(it, &f, DROVER_FOREVER));
                ids[i] = drover_future_id(f);
                uint64_t finished_ns = run_of(f).finished_ns;
                last_ns = finished_ns > last_ns ? finished_ns : last_ns;
                drover_future_unref(f);
        }
        drover_iterator_free(it);
        f = submit_sleep(p, 0.2, NULL);
        ids[0] = drover_future_id(f);
        chord = after(p, ids, N);
        EXPECT(0, drover_pool_drain(p, drover_deadline_in(20 * SECOND)));
        struct drover_run run = run_of(chord);
        EXPECT_TRUE(run.attempt == 1 && run.started_ns >= last_ns && run.started_ns >= run_of(f).finished_ns);
        drover_future_unref(f);
        drover_future_unref(chord);
        drover_pool_unref(p);
}

/* One that does not end well takes those behind it along, and each names the one before it. */
void case_after_a_bad_end(void) {
        enum { N = 20 };
        drover_pool *p = pool("squares"), *single = pool("single");
        drover_future *bad = submit_sleep(single, 30, NULL), *good = submit_sleep(p, 0, NULL), *chain[N], *late;
        uint64_t ids[N + 1] = {drover_future_id(bad)};
        wait_running(bad);
        for (int i = 0; i < N; i++) {
                const uint64_t both[] = {drover_future_id(good), ids[i]};
                chain[i] = after(p, both, 2);
                ids[i + 1] = drover_future_id(chain[i]);
        }
        EXPECT(DROVER_CANCEL_ASKED, drover_future_cancel(bad, DROVER_CANCEL_ASK));
        for (int i = 0; i < N; i++)
                expect_cancelled(chain[i], ids[i], "cancelled");
        expect_cancelled(after(p, ids, 1), ids[0], "cancelled"); /* it is over by now */
        drover_future_unref(bad);

        /* What waits is cancelled like any queued job. */
        bad = submit_sleep(single, 0.2, NULL);
        ids[0] = drover_future_id(bad);
        late = after(p, ids, 1);
        EXPECT(DROVER_CANCEL_DONE, drover_future_cancel(late, DROVER_CANCEL_QUEUED));
        EXPECT(0, drover_future_wait(late, 0));
        EXPECT(DROVER_CANCELLED, drover_future_state(late));
        drover_future_unref(late);
        /* Its queue deadline holds. */
        late = submit_sleep(
                p, 0, DROVER_OPTIONS(.after = ids, .n_after = 1, .queue_deadline_ns = drover_deadline_in(50 * MS)));
        EXPECT(0, drover_future_wait(late, drover_deadline_in(20 * SECOND)));
        EXPECT(DROVER_EXPIRED, drover_future_state(late));
        drover_future_unref(late);

        drover_args *a;
        EXPECT(0, drover_args_new(&a));
        EXPECT(0, drover_args_f64(a, "seconds", 0));
        ids[1] = 1; /* of the bus, or of nobody */
        EXPECT(-EINVAL, drover_submit(p, "sleep", a, DROVER_OPTIONS(.after = ids, .n_after = 2), &late));
        EXPECT_TEXT("1 of 2", drover_error_text(d));
        EXPECT(-EINVAL, drover_submit(p, "sleep", a,
                                      DROVER_OPTIONS(.after = ids, .n_after = 1, .flags = DROVER_DETACHED), &late));
        EXPECT_TEXT("cannot come after", drover_error_text(d));
        EXPECT(0, drover_submit(p, "sleep", a, DROVER_OPTIONS(.after = ids, .n_after = 1), NULL)); /* nobody asks */
        EXPECT(0, drover_pool_drain(p, drover_deadline_in(20 * SECOND)));
        drover_args_free(a);
        drover_future_unref(bad);
        drover_future_unref(good);
        drover_pool_unref(p);
        drover_pool_unref(single);
}
