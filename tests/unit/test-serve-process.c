/* The claim loop of a real worker: order, cancel, soft limit, verdicts that came from elsewhere, the ways to end. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "host-fixture.h"
#include "ipc/args.h"
#include "ipc/event.h"
#include "ipc/packet.h"
#include "skip.h"

enum { SECONDS = 30 };

static uint64_t soon(void) { return event_now_ns() + SECONDS * UINT64_C(1000000000); }

/* Waits for `condition` to hold: what the worker does shows in memory, without an event. */
#define await(condition)                                                                                               \
        do {                                                                                                           \
                for (uint64_t deadline_ns = soon(); !(condition);) {                                                   \
                        if (event_now_ns() > deadline_ns)                                                              \
                                fail_msg("never came true: %s", #condition);                                           \
                        poll(NULL, 0, 1);                                                                              \
                }                                                                                                      \
        } while (0)

static pid_t start(struct trial *t, const char *plugin) {
        int control;
        pid_t pid = host_fixture_start("worker", plugin, &control);
        host_fixture_trial(t, control, false);
        return pid;
}

static void finish(struct trial *t, pid_t pid, int expected_status) {
        trial_retire(t);
        assert_int_equal(host_fixture_reap(pid), expected_status);
        trial_deinit(t);
}

/* Submits `job` with its one u64 argument. */
static void submit(struct trial *t, uint32_t slot, const char *job, const char *name, uint64_t value,
                   uint32_t priority) {
        uint32_t type;
        size_t bytes;
        struct args_writer w;
        assert_non_null(schema_find(t->schema, job, &type));
        assert_int_equal(trial_begin(t, slot), 0);
        args_writer_init(&w, channel_payload(&t->channel, slot), TRIAL_SLOT_BYTES);
        args_put(&w, name, &(struct args_value){.type = SCHEMA_U64, .u64 = value});
        assert_int_equal(args_finish(&w, &bytes), 0);
        assert_int_equal(trial_commit(t, slot, type, bytes, priority), 0);
}

static unsigned verdict(struct trial *t, uint32_t slot) {
        uint64_t word;
        assert_int_equal(trial_wait(t, slot, soon(), &word), 0);
        return slot_state(word);
}

static bool is_running(struct trial *t, uint32_t slot) {
        return slot_state(channel_word(&t->channel, slot)) == SLOT_RUNNING;
}

static const char *failure(struct trial *t, uint32_t slot) {
        static char text[512];
        const struct layout_result *r = channel_result(&t->channel, slot);
        snprintf(text, sizeof text, "%.*s", (int)r->bytes, (const char *)channel_result_data(&t->channel, slot));
        return text;
}

static void cancel_reaches_a_checkpoint(void **state) {
        struct trial t;
        pid_t pid = start(&t, "cancellable");
        submit(&t, 0, "work", "ms", 60000, 1);
        await(is_running(&t, 0) && atomic_load(&t.line->progress_done) > 2);
        assert_int_equal(atomic_load(&t.line->progress_total), 60000);
        assert_memory_equal(t.line->status, "working ", 8);
        assert_int_equal(strlen(t.line->status), 118); /* a whole character less than fits into 119 */
        assert_int_equal(atomic_load(&t.line->status_seq) % 2, 0);
        assert_int_equal(channel_cancel(&t.channel, 0), SLOT_RUNNING);
        assert_int_equal(verdict(&t, 0), SLOT_CANCELLED);
        assert_int_equal(atomic_load(&t.line->counts[SLOT_CANCELLED]), 1);
        assert_int_equal(atomic_load(&t.line->last_end), SLOT_CANCELLED | 1 << 8);

        /* The next one starts afresh. */
        submit(&t, 1, "work", "ms", 2, 1);
        assert_int_equal(verdict(&t, 1), SLOT_DONE);
        await(atomic_load(&t.line->progress_total) == 0);
        assert_int_equal(atomic_load(&t.line->claims), 2);
        finish(&t, pid, 0);
}

static void soft_limit_is_told_from_cancel(void **state) {
        struct trial t;
        pid_t pid = start(&t, "cancellable");
        submit(&t, 3, "work", "ms", 60000, 1);
        await(is_running(&t, 3));
        uint32_t generation = slot_generation(channel_word(&t.channel, 3));
        atomic_store(&t.line->soft_hit, (uint64_t)generation << 32 | (3 + 1));
        assert_true(channel_ask_cancel(&t.channel, 3, generation));
        assert_int_equal(verdict(&t, 3), SLOT_TIMED_OUT);
        finish(&t, pid, 0);
}

static void who_ignores_cancel_still_finishes(void **state) {
        struct trial t;
        struct args_value v;
        pid_t pid = start(&t, "ignorecancel");
        submit(&t, 0, "ignore", "ms", 50, 1);
        await(is_running(&t, 0));
        channel_cancel(&t.channel, 0);
        assert_int_equal(verdict(&t, 0), SLOT_DONE);
        assert_int_equal(args_get(channel_result_data(&t.channel, 0), channel_result(&t.channel, 0)->bytes, "refusals",
                                  SCHEMA_U64, &v),
                         0);
        assert_true(v.u64 > 0);
        finish(&t, pid, 0);
}

/* All queued before the first is claimed: the urgent first, but every 16th claim takes the least urgent. */
static void urgent_first_but_nobody_starves(void **state) {
        enum { URGENT = 40, LAST = 50 };
        struct trial t;
        pid_t pid = start(&t, "sleep");
        submit(&t, 63, "sleep", "ms", 200, 1); /* keeps it busy meanwhile: the first claim */
        await(is_running(&t, 63));
        for (uint32_t i = URGENT; i < LAST; i++)
                submit(&t, i, "sleep", "ms", 0, 0);
        for (uint32_t i = 0; i < URGENT; i++)
                submit(&t, i, "sleep", "ms", 0, 3);
        for (uint32_t i = 0; i < LAST; i++)
                assert_int_equal(verdict(&t, i), SLOT_DONE);

        uint64_t started_ns[LAST];
        for (uint32_t i = 0; i < LAST; i++)
                started_ns[i] = channel_result(&t.channel, i)->started_ns;
        for (uint32_t i = 1; i < URGENT; i++)
                assert_true(started_ns[i - 1] <= started_ns[i]); /* first in, first out */
        /* Claims 16 and 32 went to the least urgent: before the 16th and the 31st urgent one. */
        assert_true(started_ns[URGENT] >= started_ns[13] && started_ns[URGENT] <= started_ns[15]);
        assert_true(started_ns[URGENT + 1] >= started_ns[28] && started_ns[URGENT + 1] <= started_ns[30]);
        assert_true(started_ns[URGENT + 2] >= started_ns[URGENT - 1]);
        finish(&t, pid, 0);
}

/* Two jobs may have been worth one wake-up: whoever claims the first wakes somebody for the second. */
static void the_baton_is_passed_before_the_job_runs(void **state) {
        enum { SLEEPER = 200 };
        struct trial t;
        pid_t pid = start(&t, "sleep");
        submit(&t, 0, "sleep", "ms", 300, 1); /* keeps it busy meanwhile */
        await(is_running(&t, 0));
        submit(&t, 1, "sleep", "ms", 60000, 1);
        submit(&t, 2, "sleep", "ms", 0, 1);
        struct event_wait wait = bell_sleep_begin(t.bell, SLEEPER); /* after both rings: nobody else will wake it */
        await(is_running(&t, 1));
        await(atomic_load(wait.word) != wait.seen);
        assert_true(is_running(&t, 1));
        bell_sleep_end(t.bell, SLEEPER);
        assert_int_equal(slot_state(channel_word(&t.channel, 2)), SLOT_QUEUED);
        kill(pid, SIGKILL);
        host_fixture_reap(pid);
        trial_deinit(&t);
}

static void a_judged_worker_claims_nothing_more(void **state) {
        struct trial t;
        pid_t pid = start(&t, "sleep");
        submit(&t, 0, "sleep", "ms", 100, 1);
        await(is_running(&t, 0));
        submit(&t, 1, "sleep", "ms", 0, 1);
        const struct layout_verdict line = {.reason = REASON_TIME_LIMIT};
        uint64_t word = channel_word(&t.channel, 0);
        assert_true(channel_judge(&t.channel, 0, 0, slot_generation(word), SLOT_TIMED_OUT, SLOT_QUARANTINE, &line));
        int status = host_fixture_reap(pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 3);
        assert_int_equal(slot_state(channel_word(&t.channel, 0)), SLOT_TIMED_OUT);
        assert_int_equal(slot_state(channel_word(&t.channel, 1)), SLOT_QUEUED);
        assert_int_equal(atomic_load(&t.line->counts[SLOT_DONE]), 0);
        trial_deinit(&t);
}

static void assert_told_of_foul_play(struct trial *t, int error) {
        struct pollfd p = {.fd = t->control_fd, .events = POLLIN};
        struct worker_report report;
        size_t bytes;
        assert_int_equal(poll(&p, 1, SECONDS * 1000), 1);
        assert_int_equal(packet_receive(t->control_fd, &report, sizeof report, &bytes, NULL, NULL), 0);
        assert_int_equal(report.type, REPORT_FOUL);
        assert_int_equal(report.channel, 0);
        assert_int_equal(report.error, error);
}

static bool never_live(const void *user, uint32_t slot, uint16_t generation) { return false; }

static void nonsense_in_a_ring_is_told(void **state) {
        struct trial t;
        pid_t pid = start(&t, "sleep");
        assert_int_equal(ring_push(&t.channel.ring[1], TRIAL_SLOTS, 1, never_live, NULL), 0);
        bell_ring(t.bell, 0, t.doorbell.ring_fd);
        assert_told_of_foul_play(&t, EPROTO);
        finish(&t, pid, 0);
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
        pid_t pid = start(&t, "sleep");
        struct noise noise = {0};
        for (uint64_t end_ns = event_now_ns() + NOISE_SECONDS * UINT64_C(1000000000); report.type == 0;) {
                if (event_now_ns() > end_ns) {
                        finish(&t, pid, 0);
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
        submit(&t, 0, "sleep", "ms", 0, 1);
        for (unsigned i = 0; i < 200; i++) { /* it may look as often as it likes */
                bell_ring(t.bell, 0, t.doorbell.ring_fd);
                event_broadcast(&t.line->control);
                poll(NULL, 0, 1);
        }
        assert_int_equal(slot_state(channel_word(&t.channel, 0)), SLOT_QUEUED);
        atomic_store(&t.pool->muted[0], 0);
        event_broadcast(&t.line->control);
        assert_int_equal(verdict(&t, 0), SLOT_DONE);
        finish(&t, pid, 0);
}

/* ---- more bells than it can wait on ---- */

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
        pid_t pid = start(t, "sleep");
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
        finish(t, pid, 0);
}

/* It sleeps on those that have a place, looks at all when it is told to, and changes when they do. */
static void waits_on_those_that_have_a_place(void **state) {
        const uint64_t unplaced = (UINT64_C(1) << MANY_BELLS) - (UINT64_C(1) << LAYOUT_BELLS_PER_WORKER);
        struct trial t;
        struct layout_bell *bells[MANY_BELLS];
        pid_t pid = start_with_bells(&t, bells, unplaced);

        /* Rung, and nobody waits on it: the broker's business. */
        atomic_store(&bells[0]->mode, BELL_BROKER);
        submit(&t, 0, "sleep", "ms", 0, 1);
        bell_clear_work(bells[0], 0);
        bell_ring(bells[LAST], LAST, t.doorbell.ring_fd);
        event_broadcast(&t.line->control);
        assert_int_equal(verdict(&t, 0), SLOT_DONE);

        /* One loses its place to another one, while it has work that was rung for in the old mode. */
        await(sleeps_on(bells, 0, LAYOUT_BELLS_PER_WORKER));
        submit(&t, 1, "sleep", "ms", 0, 1);
        bell_clear_work(bells[0], 0);
        bell_mark_work(bells[FIRST], FIRST);
        atomic_fetch_or(&t.pool->placeless[0], UINT64_C(1) << FIRST);
        atomic_fetch_and(&t.pool->placeless[0], ~(UINT64_C(1) << LAST));
        event_broadcast(&t.line->control);
        assert_int_equal(verdict(&t, 1), SLOT_DONE);
        await(sleeps_on(bells, LAST, MANY_BELLS) && sleeps_on(bells, 0, FIRST));
        assert_true(leaves_alone(bells, FIRST, LAST));

        submit(&t, 2, "sleep", "ms", 0, 1);
        bell_clear_work(bells[0], 0);
        bell_ring(bells[LAST], LAST, t.doorbell.ring_fd); /* wakes it by itself */
        assert_int_equal(verdict(&t, 2), SLOT_DONE);
        finish_with_bells(&t, pid, bells);
}

/* It is busy; then there are a long job and one more, of which bell 0 does not tell. */
static void queue_behind_a_job(struct trial *t) {
        submit(t, 0, "sleep", "ms", 300, 1);
        await(is_running(t, 0));
        submit(t, 1, "sleep", "ms", 60000, 1);
        submit(t, 2, "sleep", "ms", 0, 1);
        bell_clear_work(t->bell, 0);
}

/* As the_baton_is_passed_before_the_job_runs, from a bell that nobody sleeps on: by way of one that all sleep on. */
static void the_baton_is_passed_for_all_bells(void **state) {
        enum { SLEEPER = 200 };
        struct trial t;
        pid_t pid = start(&t, "sleep");
        atomic_fetch_or(&t.pool->placeless[0], 1 << 1);
        struct layout_bell *other = add_bell(&t, 1);
        queue_behind_a_job(&t);
        bell_mark_work(other, 1);
        struct event_wait wait = bell_sleep_begin(t.bell, SLEEPER);
        await(is_running(&t, 1));
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
        pid_t pid = start(&t, "sleep");
        atomic_fetch_or(&t.pool->placeless[0], 1 << 2);
        struct layout_bell *placed = add_bell(&t, 1), *other = add_bell(&t, 2);
        queue_behind_a_job(&t);
        bell_mark_work(placed, 1);
        struct event_wait wait = bell_sleep_begin(t.bell, SLEEPER);
        await(is_running(&t, 1));
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
                submit(&t, slot, "sleep", "ms", 0, 1);
                assert_int_equal(verdict(&t, slot), SLOT_DONE);
        }
        finish_with_bells(&t, pid, bells);
}

/* What comes late is not noise: jobs make up for wake-ups. */
static void a_bell_with_jobs_is_not_told_of(void **state) {
        struct trial t;
        pid_t pid = start(&t, "sleep");
        for (unsigned i = 0; i < 3000; i++) {
                submit(&t, i % TRIAL_SLOTS, "sleep", "ms", 0, 1);
                bell_broadcast(t.bell);
                assert_int_equal(verdict(&t, i % TRIAL_SLOTS), SLOT_DONE);
                assert_int_equal(channel_free(&t.channel, i % TRIAL_SLOTS), 0);
        }
        struct pollfd p = {.fd = t.control_fd, .events = POLLIN};
        assert_int_equal(poll(&p, 1, 0), 0);
        finish(&t, pid, 0);
}

static void a_job_that_is_rewritten_while_it_runs_is_told(void **state) {
        struct trial t;
        pid_t pid = start(&t, "sleep");
        submit(&t, 0, "sleep", "ms", 50, 1);
        await(is_running(&t, 0));
        atomic_store(&t.channel.slots[0].word, 0);
        assert_told_of_foul_play(&t, ESTALE);
        int status = host_fixture_reap(pid);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 3);
        trial_deinit(&t);
}

static void a_client_that_goes_on_writing_changes_no_argument(void **state) {
        struct trial t;
        pid_t pid = start(&t, "compromised");
        submit(&t, 0, "wait", "ms", 100, 1);
        await(atomic_load(&t.line->progress_total) == 1); /* the handler has begun */
        memset(channel_payload(&t.channel, 0), 0xff, 64);
        channel_job(&t.channel, 0)->bytes = UINT32_MAX;
        assert_int_equal(verdict(&t, 0), SLOT_DONE);
        assert_non_null(
                memmem(channel_result_data(&t.channel, 0), channel_result(&t.channel, 0)->bytes, "\xa2ms\x64", 4));
        finish(&t, pid, 0);
}

static void nonsense_in_a_job_fails_that_job(void **state) {
        struct trial t;
        pid_t pid = start(&t, "sleep");
        assert_int_equal(trial_begin(&t, 0), 0);
        assert_int_equal(trial_commit(&t, 0, 77, 0, 1), 0);
        assert_int_equal(verdict(&t, 0), SLOT_FAILED);
        assert_non_null(strstr(failure(&t, 0), "no such job type"));

        assert_int_equal(trial_begin(&t, 1), 0);
        assert_int_equal(trial_commit(&t, 1, 0, UINT32_MAX, 1), 0);
        assert_int_equal(verdict(&t, 1), SLOT_FAILED);
        assert_non_null(strstr(failure(&t, 1), "does not fit"));

        assert_int_equal(trial_begin(&t, 2), 0);
        memcpy(channel_payload(&t.channel, 2), "\xc1garbage", 8);
        assert_int_equal(trial_commit(&t, 2, 0, 8, 1), 0);
        assert_int_equal(verdict(&t, 2), SLOT_FAILED);
        assert_int_equal(channel_result(&t.channel, 2)->error, EINVAL);

        submit(&t, 3, "sleep", "ms", 0, 1);
        assert_int_equal(verdict(&t, 3), SLOT_DONE);
        finish(&t, pid, 0);
}

static void retire_waits_for_the_job_in_hand(void **state) {
        struct trial t;
        pid_t pid = start(&t, "sleep");
        submit(&t, 0, "sleep", "ms", 50, 1);
        await(is_running(&t, 0));
        submit(&t, 1, "sleep", "ms", 0, 1);
        trial_retire(&t);
        assert_int_equal(host_fixture_reap(pid), 0);
        assert_int_equal(slot_state(channel_word(&t.channel, 0)), SLOT_DONE);
        assert_int_equal(slot_state(channel_word(&t.channel, 1)), SLOT_QUEUED);
        trial_deinit(&t);
}

static void wait_for_dropped(struct trial *t) {
        struct pollfd p = {.fd = t->control_fd, .events = POLLIN};
        assert_int_equal(poll(&p, 1, SECONDS * 1000), 1);
        struct worker_report report;
        size_t bytes;
        assert_int_equal(packet_receive(t->control_fd, &report, sizeof report, &bytes, NULL, NULL), 0);
        assert_int_equal(report.type, REPORT_DROPPED);
        assert_int_equal(report.channel, 0);
}

static void a_dropped_channel_is_left_alone(void **state) {
        struct trial t;
        pid_t pid = start(&t, "sleep");
        submit(&t, 0, "sleep", "ms", 0, 1);
        assert_int_equal(verdict(&t, 0), SLOT_DONE);
        const struct worker_order drop = {.type = ORDER_DROP, .version = WIRE_VERSION};
        assert_int_equal(packet_send(t.control_fd, &drop, sizeof drop, NULL, 0), 0);
        event_broadcast(&t.line->control);
        wait_for_dropped(&t);
        finish(&t, pid, 0);
}

/* The next bell of that number is another memory. */
static void a_bell_is_let_go_and_its_number_given_again(void **state) {
        struct trial t;
        pid_t pid = start(&t, "sleep");
        const struct worker_order drop = {.type = ORDER_DROP, .version = WIRE_VERSION};
        const struct worker_order drop_bell = {.type = ORDER_DROP_BELL, .version = WIRE_VERSION};
        for (uint32_t slot = 0; slot < 3; slot++) {
                submit(&t, slot, "sleep", "ms", 0, 1);
                assert_int_equal(verdict(&t, slot), SLOT_DONE);
                assert_int_equal(packet_send(t.control_fd, &drop, sizeof drop, NULL, 0), 0);
                event_broadcast(&t.line->control);
                wait_for_dropped(&t);
                assert_int_equal(packet_send(t.control_fd, &drop_bell, sizeof drop_bell, NULL, 0), 0);
                bell_unmap(t.bell);
                close(t.bell_fd);
                assert_int_equal(bell_create("bell", &t.bell, &t.bell_fd), 0);
                bell_set_mode(t.bell, BELL_FUTEX);
                assert_int_equal(trial_open(&t), 0);
        }
        submit(&t, 3, "sleep", "ms", 0, 1);
        assert_int_equal(verdict(&t, 3), SLOT_DONE);
        finish(&t, pid, 0);
}

/* Before the verdict, with the number that the bus knows it by: of what a client writes the channel's part counts. */
static void the_last_job_is_told(void **state) {
        const uint64_t base = UINT64_C(7) << 40;
        const struct worker_order drop = {.type = ORDER_DROP, .version = WIRE_VERSION};
        const struct worker_order channel = {.type = ORDER_CHANNEL,
                                             .version = WIRE_VERSION,
                                             .n_slots = TRIAL_SLOTS,
                                             .slot_bytes = TRIAL_SLOT_BYTES,
                                             .id = base};
        struct trial t;
        pid_t pid = start(&t, "sleep");
        assert_int_equal(atomic_load(&t.line->last_job), 0);
        submit(&t, 4, "sleep", "ms", 3, 1);
        assert_int_equal(verdict(&t, 4), SLOT_DONE);
        assert_int_equal(atomic_load(&t.line->last_job), 5);
        assert_int_equal(atomic_load(&t.line->last_end), SLOT_DONE | 1 << 8);
        assert_int_equal(atomic_load(&t.line->last_type), channel_job(&t.channel, 4)->type);
        assert_int_equal(atomic_load(&t.line->last_started_ns), channel_result(&t.channel, 4)->started_ns);
        assert_int_equal(atomic_load(&t.line->last_finished_ns), channel_result(&t.channel, 4)->finished_ns);
        assert_true(t.line->last_finished_ns - t.line->last_started_ns >= 3000000);

        assert_int_equal(packet_send(t.control_fd, &drop, sizeof drop, NULL, 0), 0);
        event_broadcast(&t.line->control);
        wait_for_dropped(&t);
        submit(&t, 5, "sleep", "ms", 0, 1);
        channel_job(&t.channel, 5)->id |= UINT64_C(9) << 40;
        const int fds[] = {t.channel_fds[0], t.channel_fds[1], t.channel_fds[2], t.done.ring_fd};
        assert_int_equal(packet_send(t.control_fd, &channel, sizeof channel, fds, 4), 0);
        event_broadcast(&t.line->control);
        assert_int_equal(verdict(&t, 5), SLOT_DONE);
        assert_int_equal(atomic_load(&t.line->last_job), base | 6);
        finish(&t, pid, 0);
}

static void end_of_the_socket_is_the_end(void **state) {
        struct trial t;
        pid_t pid = start(&t, "sleep");
        close(t.control_fd);
        t.control_fd = -1;
        event_broadcast(&t.line->control);
        assert_int_equal(host_fixture_reap(pid), 0);
        trial_deinit(&t);
}

/* `print`, up to where it waits for its descriptor. */
static void print(struct trial *t, uint32_t slot) {
        struct worker_report report = {0};
        struct pollfd p = {.fd = t->control_fd, .events = POLLIN};
        struct args_writer w;
        uint32_t type;
        size_t bytes;
        assert_non_null(schema_find(t->schema, "print", &type));
        assert_int_equal(trial_begin(t, slot), 0);
        assert_int_equal(channel_mark_fds(&t->channel, slot), 0);
        args_writer_init(&w, channel_payload(&t->channel, slot), TRIAL_SLOT_BYTES);
        args_put(&w, "text", &(struct args_value){.type = SCHEMA_STR, .data = "x", .bytes = 1});
        args_put(&w, "out", &(struct args_value){.type = SCHEMA_FD});
        args_put(&w, "waits", &(struct args_value){.type = SCHEMA_BOOL});
        assert_int_equal(args_finish(&w, &bytes), 0);
        assert_int_equal(trial_commit(t, slot, type, bytes, 1), 0);
        while (report.type != REPORT_FDS) {
                assert_int_equal(poll(&p, 1, 10000), 1);
                assert_int_equal(packet_receive(t->control_fd, &report, sizeof report, &bytes, NULL, NULL), 0);
        }
}

/* As the broker would. */
static void give_descriptor(struct trial *t, int fd) {
        const struct worker_order order = {.type = ORDER_FDS, .version = WIRE_VERSION};
        assert_int_equal(packet_send(t->control_fd, &order, sizeof order, &fd, 1), 0);
}

/* Often, because a worker that closed them behind the verdict would be quick, too. */
static void what_came_with_a_job_is_closed_before_its_verdict(void **state) {
        struct trial t;
        pid_t pid = start(&t, "fds");
        for (unsigned i = 0; i < 200; i++) {
                int pair[2];
                assert_int_equal(pipe2(pair, O_CLOEXEC | O_NONBLOCK), 0);
                print(&t, 0);
                give_descriptor(&t, pair[1]);
                close(pair[1]);
                for (uint64_t deadline_ns = soon(); !slot_is_verdict(channel_word(&t.channel, 0));)
                        assert_true(event_now_ns() < deadline_ns);
                struct pollfd p = {.fd = pair[0]};
                assert_int_equal(poll(&p, 1, 0), 1);
                assert_int_equal(p.revents, POLLHUP); /* nobody else has it open */
                assert_int_equal(slot_state(channel_word(&t.channel, 0)), SLOT_DONE);
                assert_int_equal(channel_free(&t.channel, 0), 0);
                close(pair[0]);
        }
        finish(&t, pid, 0);
}

/* While it waits for something else, too: of each there are four descriptors, and it may have 1024 in all. */
static void as_many_channels_as_there_are(void **state) {
        struct trial t;
        struct worker_report report;
        size_t bytes;
        int r;
        pid_t pid = start(&t, "fds");
        print(&t, 0);
        for (uint32_t i = 1; i < LAYOUT_MAX_CHANNELS; i++) {
                const struct worker_order channel = {.type = ORDER_CHANNEL,
                                                     .version = WIRE_VERSION,
                                                     .channel = i,
                                                     .n_slots = TRIAL_SLOTS,
                                                     .slot_bytes = TRIAL_SLOT_BYTES};
                const int fds[] = {t.channel_fds[0], t.channel_fds[1], t.channel_fds[2], t.done.ring_fd};
                struct pollfd p = {.fd = t.control_fd, .events = POLLOUT};
                while ((r = packet_send(t.control_fd, &channel, sizeof channel, fds, 4)) == -EAGAIN)
                        assert_int_equal(poll(&p, 1, SECONDS * 1000), 1);
                assert_int_equal(r, 0);
        }
        give_descriptor(&t, STDERR_FILENO);
        assert_int_equal(verdict(&t, 0), SLOT_DONE);
        event_broadcast(&t.line->control);
        while (packet_receive(t.control_fd, &report, sizeof report, &bytes, NULL, NULL) == 0)
                assert_int_not_equal(report.type, REPORT_FOUL);

        assert_int_equal(trial_begin(&t, 1), 0); /* a job that only the last one tells of */
        *channel_job(&t.channel, 1) = (struct layout_job){.type = 77};
        assert_int_equal(channel_commit(&t.channel, 1, 1), 0);
        bell_ring(t.bell, LAYOUT_MAX_CHANNELS - 1, -1);
        await(slot_is_verdict(channel_word(&t.channel, 1)));
        finish(&t, pid, 0);
}

static void an_order_without_sense_ends_the_worker(void **state) {
        struct trial t;
        pid_t pid = start(&t, "sleep");
        const struct worker_order nonsense = {.type = 99, .version = WIRE_VERSION};
        assert_int_equal(packet_send(t.control_fd, &nonsense, sizeof nonsense, NULL, 0), 0);
        event_broadcast(&t.line->control);
        int status = host_fixture_reap(pid);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 3);
        trial_deinit(&t);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(cancel_reaches_a_checkpoint),
                cmocka_unit_test(soft_limit_is_told_from_cancel),
                cmocka_unit_test(who_ignores_cancel_still_finishes),
                cmocka_unit_test(urgent_first_but_nobody_starves),
                cmocka_unit_test(the_baton_is_passed_before_the_job_runs),
                cmocka_unit_test(a_judged_worker_claims_nothing_more),
                cmocka_unit_test(nonsense_in_a_ring_is_told),
                cmocka_unit_test(a_bell_that_rings_for_nothing_is_told_and_muted),
                cmocka_unit_test(waits_on_those_that_have_a_place),
                cmocka_unit_test(the_baton_is_passed_for_all_bells),
                cmocka_unit_test(the_baton_does_not_go_by_an_old_list),
                cmocka_unit_test(too_many_places_are_no_harm),
                cmocka_unit_test(a_bell_with_jobs_is_not_told_of),
                cmocka_unit_test(a_job_that_is_rewritten_while_it_runs_is_told),
                cmocka_unit_test(a_client_that_goes_on_writing_changes_no_argument),
                cmocka_unit_test(nonsense_in_a_job_fails_that_job),
                cmocka_unit_test(retire_waits_for_the_job_in_hand),
                cmocka_unit_test(a_dropped_channel_is_left_alone),
                cmocka_unit_test(a_bell_is_let_go_and_its_number_given_again),
                cmocka_unit_test(the_last_job_is_told),
                cmocka_unit_test(end_of_the_socket_is_the_end),
                cmocka_unit_test(what_came_with_a_job_is_closed_before_its_verdict),
                cmocka_unit_test(as_many_channels_as_there_are),
                cmocka_unit_test(an_order_without_sense_ends_the_worker),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
