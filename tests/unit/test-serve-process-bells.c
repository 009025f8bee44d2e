/* The bells of a real worker: which ones it sleeps on, who is woken for a second job, what it tells of noise, and how
 * one is let go. */
#include "tests/unit/serve-fixture.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include "ipc/memory/event.h"
#include "ipc/memory/packet.h"
#include "tests/unit/host-fixture.h"
#include "tests/unit/skip.h"

/* Two jobs may have been worth one wake-up: whoever claims the first wakes somebody for the second. */
static void the_baton_is_passed_before_the_job_runs(void **state) {
        enum { SLEEPER = 200 };
        struct trial t;
        pid_t pid = serve_fixture_start(&t, "sleep");
        serve_fixture_submit(&t, 0, "sleep", "ms", 300, 1); /* keeps it busy meanwhile */
        await(serve_fixture_is_running(&t, 0));
        serve_fixture_submit(&t, 1, "sleep", "ms", 60000, 1);
        serve_fixture_submit(&t, 2, "sleep", "ms", 0, 1);
        struct event_wait wait = bell_sleep_begin(t.bell, SLEEPER); /* after both rings: nobody else will wake it */
        await(serve_fixture_is_running(&t, 1));
        await(atomic_load(wait.word) != wait.seen);
        assert_true(serve_fixture_is_running(&t, 1));
        bell_sleep_end(t.bell, SLEEPER);
        assert_int_equal(slot_state(channel_word(&t.channel, 2)), SLOT_QUEUED);
        kill(pid, SIGKILL);
        host_fixture_reap(pid);
        trial_deinit(&t);
}

/* Twice in a row a worker got up a thousand times in 100 ms: wherever it began to count, that was a thousand times in
 * 200 ms. A machine that is too busy for that has no noise to tell of. */
enum { NOISE_RISES = 1000, NOISE_SECONDS = 10 };
struct noise {
        uint32_t rises;
        uint64_t since_ns;
        bool was_fast, is_loud;
};

static void noise_count(struct noise *n, struct layout_bell *b) {
        uint32_t rises = atomic_load(&b->rises);
        uint64_t now_ns = event_now_ns();
        if (rises - n->rises < NOISE_RISES)
                return;
        bool is_fast = rises - n->rises < 2 * NOISE_RISES && now_ns < n->since_ns + 100000000;
        *n = (struct noise){rises, now_ns, is_fast, n->is_loud || (is_fast && n->was_fast)};
}

/* A bell that rings for nothing is told of, and left alone while the broker says so. */
static void a_bell_that_rings_for_nothing_is_told_and_muted(void **state) {
        struct trial t;
        struct worker_report report = {0};
        size_t bytes;
        pid_t pid = serve_fixture_start(&t, "sleep");
        struct noise noise = {0};
        for (uint64_t end_ns = event_now_ns() + NOISE_SECONDS * UINT64_C(1000000000); report.type == 0;) {
                if (event_now_ns() > end_ns) {
                        serve_fixture_finish(&t, pid, 0);
                        assert_false(noise.is_loud);
                        SKIP("this machine is too busy for a bell to be as noisy as that");
                }
                noise_count(&noise, t.bell);
                bell_broadcast(t.bell);
                struct pollfd p = {.fd = t.control_fd, .events = POLLIN};
                if (poll(&p, 1, 0) == 1)
                        assert_int_equal(packet_receive(t.control_fd, &report, sizeof report, &bytes, NULL, NULL), 0);
        }
        assert_int_equal(report.type, REPORT_VAIN);
        assert_int_equal(report.channel, 0); /* the bell's number */

        atomic_store(&t.pool->muted[0], 1);
        event_broadcast(&t.line->control);
        await(!bell_has_sleepers(t.bell));
        serve_fixture_submit(&t, 0, "sleep", "ms", 0, 1);
        for (unsigned i = 0; i < 200; i++) { /* it may look as often as it likes */
                bell_ring(t.bell, 0, t.doorbell.ring_fd);
                event_broadcast(&t.line->control);
                poll(NULL, 0, 1);
        }
        assert_int_equal(slot_state(channel_word(&t.channel, 0)), SLOT_QUEUED);
        atomic_store(&t.pool->muted[0], 0);
        event_broadcast(&t.line->control);
        assert_int_equal(serve_fixture_verdict(&t, 0), SLOT_DONE);
        serve_fixture_finish(&t, pid, 0);
}

enum { MANY_BELLS = LAYOUT_BELLS_PER_WORKER + 4, FIRST = LAYOUT_BELLS_PER_WORKER - 1, LAST = MANY_BELLS - 1 };

static void order(struct trial *t, const struct worker_order *order, const int *fds, unsigned n_fds) {
        assert_int_equal(packet_send(t->control_fd, order, sizeof *order, fds, n_fds), 0);
        event_broadcast(&t->line->control);
}

/* Bell `number`, whose only channel is the trial's once more. */
static struct layout_bell *add_bell(struct trial *t, uint32_t number) {
        struct layout_bell *bell;
        int fd;
        assert_int_equal(bell_create("drover-test-bell", &bell, &fd), 0);
        bell_set_mode(bell, BELL_FUTEX);
        order(t, &(struct worker_order){.type = ORDER_BELL, .version = WIRE_VERSION, .bell = number}, &fd, 1);
        close(fd);
        const struct worker_order channel = {.type = ORDER_CHANNEL,
                                             .version = WIRE_VERSION,
                                             .bell = number,
                                             .channel = number,
                                             .n_slots = TRIAL_SLOTS,
                                             .slot_bytes = TRIAL_SLOT_BYTES};
        order(t, &channel, (const int[]){t->channel_fds[0], t->channel_fds[1], t->channel_fds[2], t->done.ring_fd}, 4);
        return bell;
}

static bool sleeps_on(struct layout_bell *const bells[MANY_BELLS], uint32_t from, uint32_t to) {
        for (uint32_t i = from; i < to; i++)
                if (!bell_has_sleepers(bells[i]))
                        return false;
        return true;
}

static bool leaves_alone(struct layout_bell *const bells[MANY_BELLS], uint32_t from, uint32_t to) {
        for (uint32_t i = from; i < to; i++)
                if (bell_has_sleepers(bells[i]))
                        return false;
        return true;
}

/* A worker that sleeps on the first of them. */
static pid_t start_with_bells(struct trial *t, struct layout_bell *bells[MANY_BELLS], uint64_t placeless) {
        pid_t pid = serve_fixture_start(t, "sleep");
        atomic_fetch_or(&t->pool->placeless[0], placeless);
        bells[0] = t->bell;
        for (uint32_t i = 1; i < MANY_BELLS; i++)
                bells[i] = add_bell(t, i);
        await(sleeps_on(bells, 0, LAYOUT_BELLS_PER_WORKER));
        assert_true(leaves_alone(bells, LAYOUT_BELLS_PER_WORKER, MANY_BELLS));
        return pid;
}

static void finish_with_bells(struct trial *t, pid_t pid, struct layout_bell *bells[MANY_BELLS]) {
        for (uint32_t i = 1; i < MANY_BELLS; i++)
                bell_unmap(bells[i]);
        serve_fixture_finish(t, pid, 0);
}

/* It sleeps on those that have a place, looks at all when it is told to, and changes when they do. */
static void waits_on_those_that_have_a_place(void **state) {
        const uint64_t unplaced = (UINT64_C(1) << MANY_BELLS) - (UINT64_C(1) << LAYOUT_BELLS_PER_WORKER);
        struct trial t;
        struct layout_bell *bells[MANY_BELLS];
        pid_t pid = start_with_bells(&t, bells, unplaced);

        /* Rung, and nobody waits on it: the broker's business. */
        atomic_store(&bells[0]->mode, BELL_BROKER);
        serve_fixture_submit(&t, 0, "sleep", "ms", 0, 1);
        bell_clear_work(bells[0], 0);
        bell_ring(bells[LAST], LAST, t.doorbell.ring_fd);
        event_broadcast(&t.line->control);
        assert_int_equal(serve_fixture_verdict(&t, 0), SLOT_DONE);

        /* One loses its place to another one, while it has work that was rung for in the old mode. */
        await(sleeps_on(bells, 0, LAYOUT_BELLS_PER_WORKER));
        serve_fixture_submit(&t, 1, "sleep", "ms", 0, 1);
        bell_clear_work(bells[0], 0);
        bell_mark_work(bells[FIRST], FIRST);
        atomic_fetch_or(&t.pool->placeless[0], UINT64_C(1) << FIRST);
        atomic_fetch_and(&t.pool->placeless[0], ~(UINT64_C(1) << LAST));
        event_broadcast(&t.line->control);
        assert_int_equal(serve_fixture_verdict(&t, 1), SLOT_DONE);
        await(sleeps_on(bells, LAST, MANY_BELLS) && sleeps_on(bells, 0, FIRST));
        assert_true(leaves_alone(bells, FIRST, LAST));

        serve_fixture_submit(&t, 2, "sleep", "ms", 0, 1);
        bell_clear_work(bells[0], 0);
        bell_ring(bells[LAST], LAST, t.doorbell.ring_fd); /* wakes it by itself */
        assert_int_equal(serve_fixture_verdict(&t, 2), SLOT_DONE);
        finish_with_bells(&t, pid, bells);
}

/* It is busy; then there are a long job and one more, of which bell 0 does not tell. */
static void queue_behind_a_job(struct trial *t) {
        serve_fixture_submit(t, 0, "sleep", "ms", 300, 1);
        await(serve_fixture_is_running(t, 0));
        serve_fixture_submit(t, 1, "sleep", "ms", 60000, 1);
        serve_fixture_submit(t, 2, "sleep", "ms", 0, 1);
        bell_clear_work(t->bell, 0);
}

/* As the_baton_is_passed_before_the_job_runs, from a bell that nobody sleeps on: by way of one that all sleep on. */
static void the_baton_is_passed_for_all_bells(void **state) {
        enum { SLEEPER = 200 };
        struct trial t;
        pid_t pid = serve_fixture_start(&t, "sleep");
        atomic_fetch_or(&t.pool->placeless[0], 1 << 1);
        struct layout_bell *other = add_bell(&t, 1);
        queue_behind_a_job(&t);
        bell_mark_work(other, 1);
        struct event_wait wait = bell_sleep_begin(t.bell, SLEEPER);
        await(serve_fixture_is_running(&t, 1));
        await(atomic_load(wait.word) != wait.seen);
        assert_int_equal(slot_state(channel_word(&t.channel, 2)), SLOT_QUEUED);
        kill(pid, SIGKILL);
        host_fixture_reap(pid);
        bell_unmap(other);
        trial_deinit(&t);
}

/* It waits on bell 1, and who sleeps does not any more: that one has read the table since. */
static void the_baton_does_not_go_by_an_old_list(void **state) {
        enum { SLEEPER = 200 };
        struct trial t;
        pid_t pid = serve_fixture_start(&t, "sleep");
        atomic_fetch_or(&t.pool->placeless[0], 1 << 2);
        struct layout_bell *placed = add_bell(&t, 1), *other = add_bell(&t, 2);
        queue_behind_a_job(&t);
        bell_mark_work(placed, 1);
        struct event_wait wait = bell_sleep_begin(t.bell, SLEEPER);
        await(serve_fixture_is_running(&t, 1));
        await(atomic_load(wait.word) != wait.seen);
        kill(pid, SIGKILL);
        host_fixture_reap(pid);
        bell_unmap(placed);
        bell_unmap(other);
        trial_deinit(&t);
}

/* While places change it may see too many: it never waits on more, and looks at all. */
static void too_many_places_are_no_harm(void **state) {
        struct trial t;
        struct layout_bell *bells[MANY_BELLS];
        pid_t pid = start_with_bells(&t, bells, 0);
        for (uint32_t slot = 0; slot < 20; slot++) {
                serve_fixture_submit(&t, slot, "sleep", "ms", 0, 1);
                assert_int_equal(serve_fixture_verdict(&t, slot), SLOT_DONE);
        }
        finish_with_bells(&t, pid, bells);
}

/* What comes late is not noise: jobs make up for wake-ups. */
static void a_bell_with_jobs_is_not_told_of(void **state) {
        struct trial t;
        pid_t pid = serve_fixture_start(&t, "sleep");
        for (unsigned i = 0; i < 3000; i++) {
                serve_fixture_submit(&t, i % TRIAL_SLOTS, "sleep", "ms", 0, 1);
                bell_broadcast(t.bell);
                assert_int_equal(serve_fixture_verdict(&t, i % TRIAL_SLOTS), SLOT_DONE);
                assert_int_equal(channel_free(&t.channel, i % TRIAL_SLOTS), 0);
        }
        struct pollfd p = {.fd = t.control_fd, .events = POLLIN};
        assert_int_equal(poll(&p, 1, 0), 0);
        serve_fixture_finish(&t, pid, 0);
}

/* The next bell of that number is another memory. */
static void a_bell_is_let_go_and_its_number_given_again(void **state) {
        struct trial t;
        pid_t pid = serve_fixture_start(&t, "sleep");
        const struct worker_order drop = {.type = ORDER_DROP, .version = WIRE_VERSION};
        const struct worker_order drop_bell = {.type = ORDER_DROP_BELL, .version = WIRE_VERSION};
        for (uint32_t slot = 0; slot < 3; slot++) {
                serve_fixture_submit(&t, slot, "sleep", "ms", 0, 1);
                assert_int_equal(serve_fixture_verdict(&t, slot), SLOT_DONE);
                assert_int_equal(packet_send(t.control_fd, &drop, sizeof drop, NULL, 0), 0);
                event_broadcast(&t.line->control);
                serve_fixture_await_dropped(&t);
                assert_int_equal(packet_send(t.control_fd, &drop_bell, sizeof drop_bell, NULL, 0), 0);
                bell_unmap(t.bell);
                close(t.bell_fd);
                assert_int_equal(bell_create("bell", &t.bell, &t.bell_fd), 0);
                bell_set_mode(t.bell, BELL_FUTEX);
                assert_int_equal(trial_open(&t), 0);
        }
        serve_fixture_submit(&t, 3, "sleep", "ms", 0, 1);
        assert_int_equal(serve_fixture_verdict(&t, 3), SLOT_DONE);
        serve_fixture_finish(&t, pid, 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(the_baton_is_passed_before_the_job_runs),
                cmocka_unit_test(a_bell_that_rings_for_nothing_is_told_and_muted),
                cmocka_unit_test(waits_on_those_that_have_a_place),
                cmocka_unit_test(the_baton_is_passed_for_all_bells),
                cmocka_unit_test(the_baton_does_not_go_by_an_old_list),
                cmocka_unit_test(too_many_places_are_no_harm),
                cmocka_unit_test(a_bell_with_jobs_is_not_told_of),
                cmocka_unit_test(a_bell_is_let_go_and_its_number_given_again),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
