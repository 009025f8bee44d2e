/* Waiting for several futures, map, and the end of a pool's work. */
#include "tests/library/cases.h"

static void unref_all(drover_future **f, size_t n) {
        for (size_t i = 0; i < n; i++)
                drover_future_unref(f[i]);
}

/* FEATURES 42: wait for the first, the first error, all. */
void case_first(void) {
        drover_pool *fails = pool("fails");
        drover_future *f[] = {sleeper("squares", 0.6), sleeper("squares", 0.2), sleeper("squares", 0.4)}, *bad;
        size_t n = 99;
        EXPECT(-EAGAIN, drover_wait(f, 3, DROVER_FIRST_COMPLETED, 0, &n));
        EXPECT(0, n);
        EXPECT(0, drover_wait(f, 3, DROVER_FIRST_COMPLETED, DROVER_FOREVER, &n));
        EXPECT(1, n);
        EXPECT(DROVER_DONE, drover_future_state(f[1]));
        EXPECT(-ETIMEDOUT, drover_wait(f, 3, DROVER_ALL_COMPLETED, drover_deadline_in(10 * MS), &n));
        EXPECT(1, n);
        EXPECT(0, drover_wait(f, 3, DROVER_ALL_COMPLETED, DROVER_FOREVER, &n));
        EXPECT(3, n);
        EXPECT(0, drover_wait(f, 3, DROVER_FIRST_ERROR, DROVER_FOREVER, &n)); /* no error, but all have ended */
        EXPECT(3, n);
        EXPECT(0, drover_wait(NULL, 0, DROVER_ALL_COMPLETED, DROVER_FOREVER, NULL));
        EXPECT(-EINVAL, drover_wait(f, 3, (enum drover_wait_for)7, 0, &n));
        EXPECT_TEXT("7 is nothing", drover_error_text(d));
        EXPECT(-EINVAL, drover_wait(NULL, 0, (enum drover_wait_for)7, 0, NULL));
        unref_all(f, 3);

        f[0] = sleeper("squares", 0.5);
        f[1] = sleeper("squares", 0);
        EXPECT(0, drover_submitf(fails, &bad, "fail", "error:i64,text:str", (int64_t)EIO, "x"));
        f[2] = bad;
        EXPECT(0, drover_wait(f, 3, DROVER_FIRST_ERROR, DROVER_FOREVER, &n));
        EXPECT_TRUE(n < 3);
        EXPECT(DROVER_FAILED, drover_future_state(bad));
        EXPECT_TRUE(drover_future_state(f[0]) < DROVER_DONE);
        unref_all(f, 3);
        drover_pool_unref(fails);
}

static int next_sleep(void *user, uint64_t index, drover_args *args) {
        if (index == 4)
                return 0;
        drover_args_f64(args, "seconds", 0.4 - 0.1 * (double)index);
        return 1;
}

static uint64_t last_end_ns;
static unsigned n_called;

static void expect_later(drover_future *f, void *user) {
        struct drover_run run;
        EXPECT(0, drover_future_get_run(f, &run, sizeof run));
        EXPECT_TRUE(run.finished_ns >= last_end_ns);
        last_end_ns = run.finished_ns;
        n_called++;
}

/* Who looks only when all have ended is told their order all the same: by an iterator, by callbacks. */
void case_late_look(void) {
        static const double seconds[] = {0.4, 0.1, 0.3, 0.2, 0.4, 0.1, 0.3, 0.2};
        enum { N = sizeof seconds / sizeof *seconds };
        drover_future *f[N], *next;
        drover_iterator *it;
        for (int i = 0; i < N; i++)
                f[i] = sleeper("squares", seconds[i]);
        for (int i = N / 2; i < N; i++)
                EXPECT(0, drover_future_on_done(f[i], expect_later, NULL));
        EXPECT(0, drover_as_completed(f, N / 2, &it));
        drover_iterator *map;
        drover_pool *p = pool("wide");
        EXPECT(0, drover_map(p, "sleep", next_sleep, NULL, DROVER_MAP_OPTIONS(.order = DROVER_UNORDERED), &map));
        puts("ready");
        fflush(stdout);
        EXPECT('\n', getchar());
        for (int i = 0; i < N / 2; i++) {
                EXPECT(1, drover_iterator_next(it, &next, DROVER_FOREVER));
                expect_later(next, NULL);
                drover_future_unref(next);
        }
        drover_iterator_free(it);
        EXPECT(N / 2, n_called);
        last_end_ns = 0;
        while (drover_process(d) > 0)
                ;
        EXPECT(N, n_called);
        unref_all(f, N);
        last_end_ns = 0;
        while (drover_iterator_next(map, &next, DROVER_FOREVER) == 1) { /* 0.4 s was the first input */
                expect_later(next, NULL);
                drover_future_unref(next);
        }
        EXPECT(N + 4, n_called);
        drover_iterator_free(map);
        drover_pool_unref(p);
}

/* FEATURES 32 and 42: reversed sleeps come in the order in which they end; one future may be watched twice. */
void case_completion_order(void) {
        drover_pool *p = pool("squares");
        drover_iterator *it;
        drover_future *f, *twice[3];
        double seconds, last = 0;
        EXPECT(0, drover_map(p, "sleep", next_sleep, NULL, DROVER_MAP_OPTIONS(.order = DROVER_UNORDERED), &it));
        for (int i = 0; i < 4; i++) {
                EXPECT(1, drover_iterator_next(it, &f, DROVER_FOREVER));
                EXPECT(0, drover_future_get_f64(f, "seconds", &seconds));
                EXPECT_TRUE(seconds > last);
                last = seconds;
                drover_future_unref(f);
        }
        EXPECT(0, drover_iterator_next(it, &f, DROVER_FOREVER));
        EXPECT(4, drover_iterator_pulled(it));
        drover_iterator_free(it);

        twice[0] = sleeper("squares", 0.2);
        twice[1] = sleeper("squares", 0.1);
        twice[2] = drover_future_ref(twice[0]);
        EXPECT(0, drover_as_completed(twice, 3, &it));
        EXPECT(-EAGAIN, drover_iterator_next(it, &f, 0));
        EXPECT(-ETIMEDOUT, drover_iterator_next(it, &f, drover_deadline_in(MS)));
        EXPECT(1, drover_iterator_next(it, &f, DROVER_FOREVER));
        EXPECT_TRUE(f == twice[1]);
        drover_future_unref(f);
        EXPECT(1, drover_iterator_next(it, &f, DROVER_FOREVER));
        EXPECT_TRUE(f == twice[0]);
        drover_future_unref(f);
        EXPECT(0, drover_iterator_next(it, &f, DROVER_FOREVER));
        drover_iterator_free(it);
        unref_all(twice, 3);
        drover_pool_unref(p);
}

/* Jobs of several pools are waited for at once, whichever ends first. */
void case_several_pools(void) {
        drover_future *f[] = {sleeper("squares", 0.3), sleeper("single", 0.1), sleeper("squares", 0.2)};
        drover_iterator *it;
        drover_future *next;
        static const int order[] = {1, 2, 0};
        EXPECT(0, drover_as_completed(f, 3, &it));
        for (int i = 0; i < 3; i++) {
                EXPECT(1, drover_iterator_next(it, &next, drover_deadline_in(10 * SECOND)));
                EXPECT_TRUE(next == f[order[i]]);
                drover_future_unref(next);
        }
        drover_iterator_free(it);
        unref_all(f, 3);

        drover *other;
        EXPECT(0, drover_open(NULL, &other));
        drover_pool *p;
        EXPECT(0, drover_pool_open(other, "squares", &p));
        f[0] = sleeper("squares", 0);
        EXPECT(0, drover_submitf(p, &f[1], "getpid", NULL));
        EXPECT(-EINVAL, drover_wait(f, 2, DROVER_ALL_COMPLETED, DROVER_FOREVER, NULL));
        unref_all(f, 2);
        drover_pool_unref(p);
        drover_close(other);
}

/* ---- map ---- */

static int next_text(void *user, uint64_t index, drover_args *args) {
        if (index == 30)
                return 0;
        if (index % 3 == 1) { /* does not fit the signature */
                drover_args_str(args, "wrong", "argument");
                return 1;
        }
        drover_args_i64(args, "error", index % 3 == 2 ? ENOSPC : 0);
        drover_args_str(args, "text", index % 3 == 2 ? "full" : "");
        return 1;
}

/* FEATURES 32: one error does not end it. */
void case_map_of_failures(void) {
        drover_pool *p = pool("fails");
        drover_iterator *it;
        drover_future *f;
        EXPECT(-ENXIO, drover_map(p, "nope", next_text, NULL, NULL, &it));
        EXPECT(0, drover_map(p, "fail", next_text, NULL, DROVER_MAP_OPTIONS(.window = 5, .chunk = 2), &it));
        for (int i = 0; i < 30; i++) {
                EXPECT(1, drover_iterator_next(it, &f, DROVER_FOREVER));
                const drover_error *e = drover_future_error(f);
                EXPECT(i % 3 == 0 ? DROVER_DONE : DROVER_FAILED, drover_future_state(f));
                if (i % 3 == 1)
                        EXPECT_TEXT("wrong", e->message);
                if (i % 3 == 2)
                        EXPECT(-ENOSPC, e->code);
                drover_future_unref(f);
        }
        EXPECT(0, drover_iterator_next(it, &f, DROVER_FOREVER));
        EXPECT(0, drover_iterator_next(it, &f, DROVER_FOREVER));
        drover_iterator_free(it);
        drover_pool_unref(p);
}

static int next_until_error(void *user, uint64_t index, drover_args *args) {
        if (index == 7)
                return -ENODATA;
        drover_args_f64(args, "seconds", 0.01);
        return 1;
}

static int next_for_ever(void *user, uint64_t index, drover_args *args) {
        drover_args_f64(args, "seconds", 0.01);
        return 1;
}

static int next_of_hundred(void *user, uint64_t index, drover_args *args) {
        if (index == 100)
                return 0;
        drover_args_f64(args, "seconds", 0.05);
        return 1;
}

/* FEATURES 36: says "ready" when every worker sleeps, goes on when one was killed. All hundred are done, one at its
 * second attempt. */
void case_killed_worker(void) {
        drover_pool *p = pool("squares");
        drover_iterator *it;
        drover_future *f;
        unsigned n = 0, n_retried = 0;
        EXPECT(0, drover_map(p, "sleep", next_of_hundred, NULL, NULL, &it));
        for (int r; (r = drover_iterator_next(it, &f, DROVER_FOREVER)) != 0; n++) {
                struct drover_run run;
                EXPECT(1, r);
                EXPECT(DROVER_DONE, drover_future_state(f));
                EXPECT(0, drover_future_get_run(f, &run, sizeof run));
                n_retried += run.attempt == 2;
                EXPECT_TRUE(run.attempt <= 2);
                drover_future_unref(f);
                if (n == 20) {
                        puts("ready");
                        fflush(stdout);
                        EXPECT('\n', getchar());
                }
        }
        EXPECT(100, n);
        EXPECT(1, n_retried);
        drover_iterator_free(it);
        drover_pool_unref(p);
}

/* What ends a map early comes after the results of what it had taken. */
void case_map_stops(void) {
        drover_pool *p = pool("single");
        drover_iterator *it;
        drover_future *f, *other;
        EXPECT(0, drover_map(p, "sleep", next_until_error, NULL, NULL, &it));
        for (int i = 0; i < 7; i++) {
                EXPECT(1, drover_iterator_next(it, &f, DROVER_FOREVER));
                drover_future_unref(f);
        }
        EXPECT(-ENODATA, drover_iterator_next(it, &f, DROVER_FOREVER));
        EXPECT(0, drover_iterator_next(it, &f, DROVER_FOREVER));
        drover_iterator_free(it);

        EXPECT(0, drover_map(p, "sleep", next_for_ever, NULL, NULL, &it));
        EXPECT_TRUE(drover_iterator_pulled(it) <= drover_pool_slots(p));
        EXPECT(1, drover_iterator_next(it, &f, DROVER_FOREVER));
        drover_future_unref(f);
        drover_iterator_free(it); /* the rest goes on */

        /* Other jobs of this program take all the room there is: the map waits for it. */
        EXPECT(0, drover_pool_drain(p, DROVER_FOREVER));
        drover_pool_unref(p);
        p = pool("single");
        for (uint32_t i = 0; i < drover_pool_slots(p); i++)
                EXPECT(0, drover_submitf(p, i == 0 ? &other : NULL, "sleep", "seconds:f64", 0.05));
        EXPECT(0, drover_map(p, "sleep", next_until_error, NULL, NULL, &it));
        EXPECT(-EAGAIN, drover_iterator_next(it, &f, 0));
        for (int i = 0; i < 7; i++) {
                EXPECT(1, drover_iterator_next(it, &f, DROVER_FOREVER));
                drover_future_unref(f);
        }
        drover_future_unref(other);
        drover_iterator_free(it);
        drover_pool_unref(p);
}

struct first_n {
        uint64_t n;
};

static int next_of_n(void *user, uint64_t index, drover_args *args) {
        if (index == ((struct first_n *)user)->n)
                return 0;
        drover_args_i64(args, "x", (int64_t)index);
        return 1;
}

/* Nanoseconds that a map of n squares takes with this chunk; 0 = the library's own. */
static uint64_t map_squares(drover_pool *p, uint64_t n, uint32_t chunk) {
        drover_iterator *it;
        drover_future *f;
        uint64_t start_ns = now_ns();
        EXPECT(0, drover_map(p, "square", next_of_n, &(struct first_n){n}, DROVER_MAP_OPTIONS(.chunk = chunk), &it));
        for (uint64_t i = 0; i < n; i++) {
                int64_t square;
                EXPECT(1, drover_iterator_next(it, &f, DROVER_FOREVER));
                EXPECT(0, drover_future_get_i64(f, "square", &square));
                EXPECT(i * i, square);
                drover_future_unref(f);
        }
        EXPECT(0, drover_iterator_next(it, &f, DROVER_FOREVER));
        drover_iterator_free(it);
        return now_ns() - start_ns;
}

static int compare_ratios(const void *a, const void *b) {
        double x = *(const double *)a, y = *(const double *)b;
        return (x > y) - (x < y);
}

/* FEATURES 77: who says nothing about chunks gets 0.8 of the best one's rate at least. Each is measured beside the
 * library's own, the median of the pairs counts, and there are more of them as long as it does not hold: other programs
 * have the CPUs, too. */
void case_automatic_chunk(void) {
        enum { N_FIXED = 5, PAIRS = 9, MOST_PAIRS = 63, N = 4000 };
        static const uint32_t fixed[N_FIXED] = {1, 4, 16, 64, 256};
        static double ratios[N_FIXED][MOST_PAIRS];
        double least = 0;
        drover_pool *p = pool("squares");
        map_squares(p, N, 0); /* memory is touched, workers are awake */
        for (size_t n = 0; n < PAIRS || (n < MOST_PAIRS && least < 0.8);) {
                for (int i = 0; i < N_FIXED; i++) {
                        uint64_t fixed_ns = map_squares(p, N, fixed[i]);
                        ratios[i][n] = (double)fixed_ns / (double)map_squares(p, N, 0);
                }
                least = 1e9;
                n++;
                for (int i = 0; i < N_FIXED; i++) {
                        qsort(ratios[i], n, sizeof(double), compare_ratios);
                        if (ratios[i][n / 2] < least)
                                least = ratios[i][n / 2];
                }
        }
        printf("%.2f of the rate of the best fixed chunk\n", least);
        EXPECT_TRUE(least >= 0.8);
        drover_pool_unref(p);
}

/* FEATURES 33: drain lets all run, cancel the running ones only; then nothing more is taken, and counts add up. */
void case_shutdown(void) {
        drover_pool *p = pool("single");
        drover_future *f[4], *late;
        for (int i = 0; i < 4; i++)
                f[i] = sleeper("single", 0.1);
        EXPECT(-ETIMEDOUT, drover_pool_drain(p, drover_deadline_in(10 * MS)));
        EXPECT(-ESHUTDOWN, drover_submitf(p, &late, "getpid", NULL));
        EXPECT_TEXT("drain", drover_error_text(d));
        EXPECT(0, drover_pool_drain(p, DROVER_FOREVER));
        for (int i = 0; i < 4; i++)
                EXPECT(DROVER_DONE, drover_future_state(f[i]));
        unref_all(f, 4);
        drover_pool_unref(p);

        p = pool("single"); /* a new channel */
        for (int i = 0; i < 4; i++)
                f[i] = sleeper("single", 0.3);
        wait_running(f[0]);
        EXPECT(0, drover_pool_cancel(p, DROVER_FOREVER));
        EXPECT(DROVER_DONE, drover_future_state(f[0]));
        for (int i = 1; i < 4; i++)
                EXPECT(DROVER_CANCELLED, drover_future_state(f[i]));
        EXPECT(0, drover_pool_in_flight(p));
        EXPECT(-ESHUTDOWN, drover_submitf(p, &late, "getpid", NULL));
        unref_all(f, 4);
        drover_pool_unref(p);
}

static uint64_t ten_sleeps(const char *name) {
        drover_future *f[10];
        uint64_t start_ns = now_ns();
        for (int i = 0; i < 10; i++)
                f[i] = sleeper(name, 1);
        EXPECT(0, drover_wait(f, 10, DROVER_ALL_COMPLETED, DROVER_FOREVER, NULL));
        unref_all(f, 10);
        return now_ns() - start_ns;
}

/* FEATURES 1: ten sleeps of a second take one at width 10, ten at width 1. */
void case_widths(void) {
        uint64_t wide_ns = ten_sleeps("wide"), narrow_ns = ten_sleeps("narrow");
        printf("%.3f %.3f\n", (double)wide_ns / 1e9, (double)narrow_ns / 1e9);
        EXPECT_TRUE(wide_ns >= SECOND && wide_ns < 3 * SECOND);
        EXPECT_TRUE(narrow_ns >= 10 * SECOND && narrow_ns < 12 * SECOND);
}
