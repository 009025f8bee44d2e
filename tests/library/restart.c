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
        return submit_sleep(p, seconds, DROVER_OPTIONS(.flags = DROVER_DETACHED));
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
        EXPECT_TRUE(second == first); /* the next one has its channel */
        use(first);
        drover_pool_unref(first);
        let_it_happen(); /* the pool was removed */
        EXPECT(-ENOENT, drover_pool_open(d, "single", &none));
        let_it_happen(); /* another one of its name was made */
        third = pool("single");
        EXPECT_TRUE(third != second);
        use(third);
        EXPECT(-EPIPE, drover_submitf(second, &f, "getpid", NULL));
        EXPECT_TRUE(pool("single") == third);
        drover_pool_unref(third);
        drover_pool_unref(third);
        drover_pool_unref(second);
}

/* drover_drain as Python's shutdown(wait=True), drover_close as shutdown(wait=False): it says how many jobs it dropped.
 */
void case_drain_all(void) {
        drover_pool *p = pool("single"), *other = pool("other");
        drover_future *f[3], *late;
        uint32_t n = 7;
        f[0] = submit_sleep(p, 0.2, NULL);
        f[1] = detached_sleeper(other, 0.2);
        const uint64_t ids[] = {drover_future_id(f[0])};
        f[2] = submit_sleep(other, 0.2, DROVER_OPTIONS(.after = ids, .n_after = 1));
        EXPECT(-EAGAIN, drover_drain(d, 0));
        EXPECT(-ESHUTDOWN, drover_submitf(p, &late, "getpid", NULL));
        EXPECT(-ESHUTDOWN, drover_submitf(other, &late, "getpid", NULL));
        EXPECT(0, drover_drain(d, drover_deadline_in(30 * SECOND)));
        for (unsigned i = 0; i < 3; i++) {
                EXPECT(DROVER_DONE, drover_future_state(f[i]));
                drover_future_unref(f[i]);
        }
        drover_pool_unref(p);
        p = pool("single"); /* another handle */
        for (unsigned i = 0; i < 3; i++)
                f[i] = submit_sleep(p, 30, NULL);
        d = drover_close_counted(d, &n);
        EXPECT(3, n);
        EXPECT(DROVER_LOST, drover_future_state(f[1]));
        EXPECT_TEXT("3 jobs", drover_future_error(f[1])->message);
        for (unsigned i = 0; i < 3; i++)
                drover_future_unref(f[i]);
        drover_pool_unref(p);
        drover_pool_unref(other);
        let_it_happen();
}

/* droverd ends as it should while a job runs: what comes meanwhile waits for the next one, as after a crash. */
void case_ending(void) {
        drover_pool *p = pool("single"), *other;
        drover_future *running = submit_sleep(p, 1.5, NULL), *f;
        wait_running(running);
        let_it_happen(); /* it drains */
        EXPECT(-EAGAIN, drover_submitf(p, &f, "getpid", NULL));
        EXPECT_TEXT("droverd ends", drover_error_text(d));
        EXPECT(0, drover_pool_open(d, "other", &other)); /* of the next one */
        f = submit_sleep(p, 0, DROVER_OPTIONS(.submit_deadline_ns = drover_deadline_in(20 * SECOND)));
        expect_done(running);
        expect_done(f);
        use(other);
        drover_pool_unref(other);
        drover_pool_unref(p);
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

static void set(drover_future *f, void *user) { *(bool *)user = true; }

/* The bus lets no JobRemoved pass: futures end by asking, in a loop of the program's own, without many questions. Of a
 * job that is not even kept any more only that is known. */
void case_unheard(void) {
        drover_pool *p = pool("single");
        drover_future *forgotten = detached_sleeper(p, 0.3), *f;
        uint64_t end_ns, deadline_ns;
        unsigned n_rounds = 0;
        bool is_done = false;
        let_it_happen(); /* it ended, and its ResultTTL= is over */
        f = detached_sleeper(p, 0.1);
        EXPECT(0, drover_future_on_done(f, set, &is_done));
        for (end_ns = now_ns() + 30 * SECOND; now_ns() < end_ns && !is_done; n_rounds++) {
                if (drover_process(d) > 0)
                        continue;
                EXPECT(0, drover_get_timeout(d, &deadline_ns));
                EXPECT_TRUE(deadline_ns != DROVER_FOREVER);
                poll(&(struct pollfd){.fd = drover_get_fd(d), .events = POLLIN}, 1,
                     deadline_ns > now_ns() ? (int)((deadline_ns - now_ns()) / MS) + 1 : 0);
        }
        EXPECT_TRUE(is_done && n_rounds < 20);
        expect_done(f);
        EXPECT(0, drover_future_wait(forgotten, drover_deadline_in(30 * SECOND)));
        EXPECT(DROVER_LOST, drover_future_state(forgotten));
        EXPECT(-ENODATA, drover_future_error(forgotten)->code);
        drover_future_unref(forgotten);
        drover_pool_unref(p);
}

/* The bus kept for this program what it could while it did other things, and dropped the rest; then droverd is too
 * slow for one question. */
void case_unread(void) {
        drover_pool *p = pool("single");
        drover_future *f = detached_sleeper(p, 60);
        const void *data;
        size_t bytes;
        printf("/org/drover1/job/%llu\n", (unsigned long long)drover_future_id(f));
        fflush(stdout);
        EXPECT_TRUE(getchar() ==
                    '\n'); /* the bus is full of others' ends, this job was cancelled, droverd is stopped */
        EXPECT(-ETIMEDOUT, drover_future_wait(f, drover_deadline_in(2 * SECOND)));
        EXPECT(-EINPROGRESS, drover_future_result(f, &data, &bytes));
        puts("not yet");
        fflush(stdout);
        EXPECT_TRUE(getchar() == '\n'); /* droverd goes on */
        EXPECT(0, drover_future_wait(f, drover_deadline_in(30 * SECOND)));
        EXPECT(DROVER_CANCELLED, drover_future_state(f));
        EXPECT(-ECANCELED, drover_future_error(f)->code);
        drover_future_unref(f);
        drover_pool_unref(p);
}
