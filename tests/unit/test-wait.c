/* A client goes to sleep while the announcer of a verdict it has already found is still at work. At each place inside
 * channel_wait_begin the announcer runs to its end; the client must then still be known as a waiter, or its sleep must
 * end at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "ipc/channel/channel.h"
#include "ipc/memory/event.h"
#include "ipc/memory/kill-point.h"

#define DEADLINE_NS UINT64_C(1000000000)

static struct {
        const char *place;
        const struct channel *channel;
        unsigned n_visits;
} plan;

/* The library calls this between every two atomic operations. */
void kill_point(const char *name) {
        if (!plan.place || strcmp(plan.place, name) != 0)
                return;
        plan.place = NULL; /* what it does has such places too */
        plan.n_visits++;
        channel_announce(plan.channel, 0, -1);
}

static void test_an_announcer_in_between(void **state) {
        static const char *const places[] = {"wait-seen", "wait-set"};
        for (unsigned i = 0; i < 2; i++) {
                struct channel_geometry g;
                struct channel c;
                int fds[CHANNEL_PARTS];
                assert_int_equal(channel_geometry_init(&g, 4, 64), 0);
                assert_int_equal(channel_create(&c, &g, "test-wait", fds), 0);
                plan.place = places[i];
                plan.channel = &c;
                plan.n_visits = 0;

                uint32_t seen = channel_wait_begin(&c, DONE_FUTEX);
                assert_int_equal(plan.n_visits, 1);
                assert_int_equal(channel_take_done(&c, 0), 1); /* of the verdict it knows */
                if (atomic_load(&c.head->done_wait) == DONE_NOBODY)
                        assert_int_equal(event_wait(&c.head->done_seq, seen, event_now_ns() + DEADLINE_NS), 0);
                channel_unmap(&c);
                channel_close(fds);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_an_announcer_in_between),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
