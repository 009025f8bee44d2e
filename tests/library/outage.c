/* outage POOL: droverd is killed and does not come back while its client has patience, which is 10 s, and short here.
 * Says "ready", "gone" once every future ended, and waits for a line each time. */
#include <poll.h>

#include "ipc/client/library.h"
#include "ipc/client/session/session-internal.h"
#include "tests/library/cases.h"

#define PATIENCE_NS (300 * MS)

static void say(const char *word) {
        puts(word);
        fflush(stdout);
        EXPECT('\n', getchar());
}

static void expect_lost(drover_future *f) {
        EXPECT(DROVER_LOST, drover_future_state(f));
        EXPECT(-EPIPE, drover_future_error(f)->code);
        EXPECT_TEXT("droverd went away", drover_future_error(f)->message);
        drover_future_unref(f);
}

int main(int argc, char *argv[]) {
        drover_future *running, *f[3];
        drover_args *a;
        EXPECT(2, argc);
        EXPECT(0, drover_open(NULL, &d));
        drover_pool *p = pool(argv[1]), *next;
        EXPECT(10 * SECOND, p->session->patience_ns);
        session_set_patience(p->session, PATIENCE_NS);
        f[0] = running = sleeper(argv[1], 30);
        wait_running(running);
        f[1] = sleeper(argv[1], 30);
        EXPECT(0, drover_args_new(&a));
        EXPECT(0, drover_args_f64(a, "seconds", 30));
        EXPECT(0, drover_submit(p, "sleep", a, DROVER_OPTIONS(.flags = DROVER_DETACHED), &f[2]));
        drover_args_free(a);

        say("ready");
        uint64_t start_ns = now_ns();
        EXPECT(0, drover_wait(f, 3, DROVER_ALL_COMPLETED, drover_deadline_in(30 * SECOND), NULL));
        EXPECT_TRUE(now_ns() - start_ns >= PATIENCE_NS);
        EXPECT_TRUE(now_ns() - start_ns < PATIENCE_NS + 5 * SECOND);
        for (int i = 0; i < 3; i++)
                expect_lost(f[i]);
        for (int i = 0; i < 2; i++) {
                EXPECT(-EPIPE, drover_submitf(p, &f[0], "getpid", NULL));
                EXPECT_TEXT("droverd", drover_error_text(d));
        }
        EXPECT(-EHOSTUNREACH, drover_pool_open(d, argv[1], &next));
        while (drover_process(d) > 0) /* it does not stay readable for ever */
                ;
        uint64_t deadline_ns;
        EXPECT(0, drover_get_timeout(d, &deadline_ns));
        EXPECT_TRUE(deadline_ns > now_ns());
        EXPECT(0, poll(&(struct pollfd){.fd = drover_get_fd(d), .events = POLLIN}, 1, 0));

        say("gone");
        next = pool(argv[1]);
        EXPECT_TRUE(next != p);
        EXPECT(-EPIPE, drover_submitf(p, &f[0], "getpid", NULL));
        EXPECT(0, drover_submitf(next, &f[0], "getpid", NULL));
        EXPECT(0, drover_future_wait(f[0], drover_deadline_in(30 * SECOND)));
        EXPECT(DROVER_DONE, drover_future_state(f[0]));
        drover_future_unref(f[0]);
        drover_pool_unref(p);
        drover_pool_unref(next);
        d = drover_close(d);
        return 0;
}
