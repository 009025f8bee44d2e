/* A program that gets signals all the time: no call ends because of one, and none is done twice. */
#include <signal.h>
#include <sys/time.h>

#include "tests/library/cases.h"

static volatile sig_atomic_t n_signals;

static void on_signal(int signal) { n_signals++; }

/* Twice a millisecond, as a parent whose children end. With SA_RESTART, which does not help poll(). */
static void start_signals(void) {
        struct sigaction a = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
        EXPECT(0, sigaction(SIGALRM, &a, NULL));
        EXPECT(0,
               setitimer(ITIMER_REAL, &(struct itimerval){.it_interval.tv_usec = 500, .it_value.tv_usec = 500}, NULL));
}

static void stop_signals(void) { setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL); }

/* Over the bus each submission is a call that waits. */
void case_signals(void) {
        enum { N = 200 };
        drover_future *f[N];
        struct drover_progress progress;
        drover_arena *arena;
        drover *other;
        start_signals();
        EXPECT(0, drover_open(NULL, &other));
        drover_close(other);
        drover_pool *p = pool("squares");
        EXPECT(0, drover_arena_open(d, "signals", 1 << 20, &arena));
        for (int i = 0; i < N; i++)
                EXPECT(0, drover_submit(p, "getpid", NULL, DROVER_OPTIONS(.flags = DROVER_DETACHED), &f[i]));
        EXPECT(0, drover_wait(f, N, DROVER_ALL_COMPLETED, DROVER_FOREVER, NULL));
        for (int i = 0; i < N; i++) {
                EXPECT(DROVER_DONE, drover_future_state(f[i]));
                drover_future_unref(f[i]);
        }
        f[0] = submit_sleep(p, 0.5, DROVER_OPTIONS(.flags = DROVER_DETACHED));
        wait_running(f[0]);
        EXPECT(0, drover_future_get_progress(f[0], &progress, sizeof progress));
        EXPECT(DROVER_CANCEL_KILLED, drover_future_cancel(f[0], DROVER_CANCEL_KILL));
        EXPECT(0, drover_future_wait(f[0], DROVER_FOREVER));
        drover_future_unref(f[0]);
        f[0] = submit_sleep(p, 0.3, NULL);
        EXPECT(-ETIMEDOUT, drover_future_wait(f[0], drover_deadline_in(50 * MS)));
        EXPECT(0, drover_future_wait(f[0], DROVER_FOREVER));
        drover_future_unref(f[0]);
        stop_signals();
        EXPECT_TRUE(n_signals > 100);
        printf("%d\n", N);
        drover_arena_free(arena);
        drover_pool_unref(p);
}
