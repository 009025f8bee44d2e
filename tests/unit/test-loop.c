/* The event loop: level-triggered polls, timers in order, owners that free themselves or others inside callbacks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "daemon/loop/loop.h"
#include "ipc/memory/event.h"

#define MS UINT64_C(1000000)

static struct loop *loop;

static int setup(void **state) {
        const char *why = NULL;
        return loop_new(&loop, &why);
}

static int teardown(void **state) {
        loop = loop_free(loop);
        return 0;
}

static void on_exit_timer(struct loop_timer *t) { loop_exit(t->loop, 7); }

static void test_timer_ends_the_loop(void **state) {
        struct loop_timer t = {0};
        uint64_t before = event_now_ns();
        loop_timer_set(loop, &t, before + 5 * MS, on_exit_timer, NULL);
        assert_int_equal(loop_run(loop), 7);
        assert_true(event_now_ns() - before >= 5 * MS);
}

static unsigned n_seen;
static int order[64];

static void on_ordered(struct loop_timer *t) {
        order[n_seen++] = (int)(intptr_t)t->user;
        if (n_seen == 40)
                loop_exit(t->loop, 0);
}

static void test_timers_fire_in_order(void **state) {
        static struct loop_timer timers[64];
        uint64_t now = event_now_ns();
        unsigned random = 12345;
        n_seen = 0;
        for (int i = 0; i < 64; i++)
                loop_timer_set(loop, &timers[i], now + (uint64_t)(i + 1) * MS / 8, on_ordered, (void *)(intptr_t)i);
        for (int i = 0; i < 24; i++) { /* stop 24 of them, in a seeded order */
                random = random * 1103515245 + 12345;
                unsigned k = random / 65536 % 64;
                while (!timers[k].heap_index)
                        k = (k + 1) % 64;
                loop_timer_stop(&timers[k]);
        }
        assert_int_equal(loop_run(loop), 0);
        for (unsigned i = 1; i < n_seen; i++)
                assert_true(order[i - 1] < order[i]);
}

static void on_level(struct loop_poll *p, uint32_t revents) {
        uint64_t value;
        assert_true(revents & POLLIN);
        if (++n_seen == 3) { /* told again and again until it is read */
                assert_int_equal(read(p->fd, &value, sizeof(value)), sizeof(value));
                loop_exit(p->loop, 0);
        }
}

static void test_polls_are_level_triggered(void **state) {
        struct loop_poll p = {0};
        int fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
        n_seen = 0;
        assert_int_equal(loop_poll_start(loop, &p, fd, POLLIN, on_level, NULL), 0);
        assert_int_equal(loop_run(loop), 0);
        assert_int_equal(n_seen, 3);
        loop_poll_stop(&p);
        close(fd);
}

static void on_self_free(struct loop_poll *p, uint32_t revents) {
        int fd = p->fd;
        loop_poll_stop(p);
        free(p);
        close(fd);
        n_seen++;
}

static void test_owner_may_free_itself(void **state) {
        struct loop_timer t = {0};
        n_seen = 0;
        for (int i = 0; i < 200; i++) { /* more than the table's first size */
                struct loop_poll *p = calloc(1, sizeof(*p));
                assert_int_equal(loop_poll_start(loop, p, eventfd(1, EFD_CLOEXEC), POLLIN, on_self_free, NULL), 0);
        }
        loop_timer_set(loop, &t, event_now_ns() + 200 * MS, on_exit_timer, NULL);
        loop_run(loop);
        assert_int_equal(n_seen, 200);
}

static void on_never(struct loop_poll *p, uint32_t revents) { fail(); }

/* Both are ready; whichever comes first takes the other away: its completion is in flight already. */
static struct loop_poll *pair[2];

static void on_take_other(struct loop_poll *p, uint32_t revents) {
        struct loop_poll **other = p == pair[0] ? &pair[1] : &pair[0];
        if (*other) {
                loop_poll_stop(*other);
                free(*other);
                *other = NULL;
        }
        n_seen++;
        loop_poll_change(p, 0);
}

static void test_completion_of_the_gone_is_dropped(void **state) {
        struct loop_timer t = {0};
        int fd = eventfd(1, EFD_CLOEXEC);
        n_seen = 0;
        for (int i = 0; i < 2; i++) {
                pair[i] = calloc(1, sizeof(**pair));
                loop_poll_start(loop, pair[i], fd, POLLIN, on_take_other, NULL);
        }
        loop_timer_set(loop, &t, event_now_ns() + 20 * MS, on_exit_timer, NULL);
        loop_run(loop);
        assert_int_equal(n_seen, 1);
        for (int i = 0; i < 2; i++)
                if (pair[i]) {
                        loop_poll_stop(pair[i]);
                        free(pair[i]);
                }
        close(fd);
}

static void test_paused_poll_is_silent(void **state) {
        struct loop_poll p = {0};
        struct loop_timer t = {0};
        int fd = eventfd(1, EFD_CLOEXEC);
        loop_poll_start(loop, &p, fd, 0, on_never, NULL);
        loop_timer_set(loop, &t, event_now_ns() + 5 * MS, on_exit_timer, NULL);
        loop_run(loop);
        loop_poll_stop(&p);
        close(fd);
}

static void on_hook(void *user) {
        if (++*(unsigned *)user == 4)
                loop_exit(loop, 0);
}

static void on_tick(struct loop_timer *t) { loop_timer_set(loop, t, event_now_ns(), on_tick, NULL); }

static void test_hooks_run_before_every_sleep(void **state) {
        struct loop_timer t = {0};
        unsigned n = 0;
        assert_int_equal(loop_add_hook(loop, on_hook, &n), 0);
        loop_timer_set(loop, &t, event_now_ns(), on_tick, NULL);
        loop_run(loop);
        assert_int_equal(n, 4);
        loop_timer_stop(&t);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_timer_ends_the_loop, setup, teardown),
                cmocka_unit_test_setup_teardown(test_timers_fire_in_order, setup, teardown),
                cmocka_unit_test_setup_teardown(test_polls_are_level_triggered, setup, teardown),
                cmocka_unit_test_setup_teardown(test_owner_may_free_itself, setup, teardown),
                cmocka_unit_test_setup_teardown(test_completion_of_the_gone_is_dropped, setup, teardown),
                cmocka_unit_test_setup_teardown(test_paused_poll_is_silent, setup, teardown),
                cmocka_unit_test_setup_teardown(test_hooks_run_before_every_sleep, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
