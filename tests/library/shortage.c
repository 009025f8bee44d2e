/* A table of descriptors that is full, or nearly. Pools fds and more of plugin fds. */
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/library/cases.h"

static int is_short_of(int r) {
        if (r == -EMFILE)
                EXPECT_TEXT("descriptors", drover_error_text(d));
        return r == -EMFILE;
}

/* A loop of the program's own for half a second: it sleeps. */
static void loop_a_while(void) {
        uint64_t end_ns = now_ns() + 500 * MS;
        double cpu = cpu_seconds();
        for (unsigned n = 0; now_ns() < end_ns; n++) {
                uint64_t until_ns;
                int r;
                while ((r = drover_process(d)) > 0)
                        EXPECT_TRUE(n++ < 1000);
                EXPECT_TRUE(r == 0 || is_short_of(r));
                EXPECT(0, drover_get_timeout(d, &until_ns));
                until_ns = until_ns < end_ns ? until_ns : end_ns;
                int left_ms = now_ns() < until_ns ? (int)((until_ns - now_ns()) / MS) + 1 : 0;
                poll(&(struct pollfd){.fd = drover_get_fd(d), .events = POLLIN}, 1, left_ms);
                EXPECT_TRUE(n < 1000);
        }
        EXPECT_TRUE(cpu_seconds() - cpu < 0.25);
}

static void check_made(drover_future *f) {
        char text[8] = "";
        int fd;
        EXPECT(0, drover_future_wait(f, drover_deadline_in(20 * SECOND)));
        EXPECT(0, drover_future_get_fd(f, "pipe", &fd));
        EXPECT(1, poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 10000));
        EXPECT(1, read(fd, text, sizeof text));
        EXPECT_TEXT("x", text);
        drover_future_unref(f);
}

/* With `n` free ones: calls fail by name or do what they should, jobs that ran are as they were, and with room again
 * all is well. */
static void check_room(drover_pool *p, unsigned n) {
        drover_future *made[2] = {NULL, NULL}, *plain = NULL;
        drover_arena *arena;
        drover_pool *more;
        drover_args *a;
        const void *data;
        size_t bytes;
        int fd = memfd_create("test", MFD_CLOEXEC);
        EXPECT(0, drover_args_new(&a));
        EXPECT(0, drover_args_fd(a, "in", fd));
        EXPECT(0, drover_args_str(a, "text", "x"));
        EXPECT(0, drover_submit(p, "make", a, NULL, &made[0]));
        EXPECT(0, drover_submit(p, "make", a, DROVER_OPTIONS(.flags = DROVER_DETACHED), &made[1]));
        drover_args_free(a);
        close(fd);

        leave_free(n);
        int opened = drover_pool_open(d, "more", &more), made_arena = drover_arena_open(d, "room", 4096, &arena);
        /* -ETIMEDOUT: the result of made[1] came first, and took the room that there was for the answer. */
        EXPECT_TRUE(opened == 0 || opened == -ETIMEDOUT || is_short_of(opened));
        EXPECT_TRUE(made_arena == 0 || made_arena == -ETIMEDOUT || is_short_of(made_arena));
        if (n == 0)
                EXPECT_TRUE(opened < 0 && made_arena < 0);
        if (n == 40)
                EXPECT_TRUE(opened == 0 && made_arena == 0);
        int r = drover_submit_raw(p, "raw", "plain", 5, DROVER_OPTIONS(.flags = DROVER_DETACHED), &plain);
        EXPECT_TRUE(r == 0 || is_short_of(r));
        for (int i = 0; i < 2; i++) {
                r = drover_future_wait(made[i], drover_deadline_in(100 * MS));
                EXPECT_TRUE(r == 0 || r == -ETIMEDOUT || is_short_of(r));
        }
        loop_a_while();
        if (n == 0)
                for (int i = 0; i < 2; i++) {
                        EXPECT_TRUE(is_short_of(drover_future_wait(made[i], DROVER_FOREVER)));
                        EXPECT_TRUE(drover_future_state(made[i]) < DROVER_DONE);
                }

        leave_all_free();
        for (int i = 0; i < 2; i++)
                check_made(made[i]);
        if (plain) {
                EXPECT(0, drover_future_wait(plain, drover_deadline_in(20 * SECOND)));
                EXPECT(0, drover_future_result(plain, &data, &bytes));
                EXPECT_TRUE(bytes == 5 && memcmp(data, "plain", 5) == 0);
                drover_future_unref(plain);
        }
        if (opened < 0)
                EXPECT(0, drover_pool_open(d, "more", &more));
        if (made_arena < 0)
                EXPECT(0, drover_arena_open(d, "room", 4096, &arena));
        drover_pool_unref(more);
        drover_arena_free(arena);
}

void case_no_descriptors(void) {
        static const unsigned n_free[] = {0, 1, 2, 3, 7, 8, 9, 14, 15, 16, 17, 18, 23, 24, 25, 40};
        drover_pool *p = pool("fds");
        for (unsigned i = 0; i < sizeof n_free / sizeof *n_free; i++)
                check_room(p, n_free[i]);
        drover_pool_unref(p);
}
