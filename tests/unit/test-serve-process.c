/* The claim loop of a real worker: order, cancel, soft limit, verdicts that came from elsewhere, the ways to end. */
#include "tests/unit/serve-fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ipc/memory/event.h"
#include "ipc/memory/packet.h"
#include "ipc/values/args.h"
#include "tests/unit/host-fixture.h"

static const char *failure(struct trial *t, uint32_t slot) {
        static char text[512];
        const struct layout_result *r = channel_result(&t->channel, slot);
        snprintf(text, sizeof text, "%.*s", (int)r->bytes, (const char *)channel_result_data(&t->channel, slot));
        return text;
}

static void cancel_reaches_a_checkpoint(void **state) {
        struct trial t;
        pid_t pid = serve_fixture_start(&t, "cancellable");
        serve_fixture_submit(&t, 0, "work", "ms", 60000, 1);
        await(serve_fixture_is_running(&t, 0) && atomic_load(&t.line->progress_done) > 2);
        assert_int_equal(atomic_load(&t.line->progress_total), 60000);
        assert_memory_equal(t.line->status, "working ", 8);
        assert_int_equal(strlen(t.line->status), 118); /* a whole character less than fits into 119 */
        assert_int_equal(atomic_load(&t.line->status_seq) % 2, 0);
        assert_int_equal(channel_cancel(&t.channel, 0), SLOT_RUNNING);
        assert_int_equal(serve_fixture_verdict(&t, 0), SLOT_CANCELLED);
        assert_int_equal(atomic_load(&t.line->counts[SLOT_CANCELLED]), 1);
        assert_int_equal(atomic_load(&t.line->last_end), SLOT_CANCELLED | 1 << 8);

        /* The next one starts afresh. */
        serve_fixture_submit(&t, 1, "work", "ms", 2, 1);
        assert_int_equal(serve_fixture_verdict(&t, 1), SLOT_DONE);
        await(atomic_load(&t.line->progress_total) == 0);
        assert_int_equal(atomic_load(&t.line->claims), 2);
        serve_fixture_finish(&t, pid, 0);
}

static void soft_limit_is_told_from_cancel(void **state) {
        struct trial t;
        pid_t pid = serve_fixture_start(&t, "cancellable");
        serve_fixture_submit(&t, 3, "work", "ms", 60000, 1);
        await(serve_fixture_is_running(&t, 3));
        uint32_t generation = slot_generation(channel_word(&t.channel, 3));
        atomic_store(&t.line->soft_hit, (uint64_t)generation << 32 | (3 + 1));
        assert_true(channel_ask_cancel(&t.channel, 3, generation));
        assert_int_equal(serve_fixture_verdict(&t, 3), SLOT_TIMED_OUT);
        serve_fixture_finish(&t, pid, 0);
}

static void who_ignores_cancel_still_finishes(void **state) {
        struct trial t;
        struct args_value v;
        pid_t pid = serve_fixture_start(&t, "ignorecancel");
        serve_fixture_submit(&t, 0, "ignore", "ms", 50, 1);
        await(serve_fixture_is_running(&t, 0));
        channel_cancel(&t.channel, 0);
        assert_int_equal(serve_fixture_verdict(&t, 0), SLOT_DONE);
        assert_int_equal(args_get(channel_result_data(&t.channel, 0), channel_result(&t.channel, 0)->bytes, "refusals",
                                  SCHEMA_U64, &v),
                         0);
        assert_true(v.u64 > 0);
        serve_fixture_finish(&t, pid, 0);
}

/* All queued before the first is claimed: the urgent first, but every 16th claim takes the least urgent. */
static void urgent_first_but_nobody_starves(void **state) {
        enum { URGENT = 40, LAST = 50 };
        struct trial t;
        pid_t pid = serve_fixture_start(&t, "sleep");
        serve_fixture_submit(&t, 63, "sleep", "ms", 200, 1); /* keeps it busy meanwhile: the first claim */
        await(serve_fixture_is_running(&t, 63));
        for (uint32_t i = URGENT; i < LAST; i++)
                serve_fixture_submit(&t, i, "sleep", "ms", 0, 0);
        for (uint32_t i = 0; i < URGENT; i++)
                serve_fixture_submit(&t, i, "sleep", "ms", 0, 3);
        for (uint32_t i = 0; i < LAST; i++)
                assert_int_equal(serve_fixture_verdict(&t, i), SLOT_DONE);

        uint64_t started_ns[LAST];
        for (uint32_t i = 0; i < LAST; i++)
                started_ns[i] = channel_result(&t.channel, i)->started_ns;
        for (uint32_t i = 1; i < URGENT; i++)
                assert_true(started_ns[i - 1] <= started_ns[i]); /* first in, first out */
        /* Claims 16 and 32 went to the least urgent: before the 16th and the 31st urgent one. */
        assert_true(started_ns[URGENT] >= started_ns[13] && started_ns[URGENT] <= started_ns[15]);
        assert_true(started_ns[URGENT + 1] >= started_ns[28] && started_ns[URGENT + 1] <= started_ns[30]);
        assert_true(started_ns[URGENT + 2] >= started_ns[URGENT - 1]);
        serve_fixture_finish(&t, pid, 0);
}

static void a_judged_worker_claims_nothing_more(void **state) {
        struct trial t;
        pid_t pid = serve_fixture_start(&t, "sleep");
        serve_fixture_submit(&t, 0, "sleep", "ms", 100, 1);
        await(serve_fixture_is_running(&t, 0));
        serve_fixture_submit(&t, 1, "sleep", "ms", 0, 1);
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
        pid_t pid = serve_fixture_start(&t, "sleep");
        assert_int_equal(ring_push(&t.channel.ring[1], TRIAL_SLOTS, 1, never_live, NULL), 0);
        bell_ring(t.bell, 0, t.doorbell.ring_fd);
        assert_told_of_foul_play(&t, EPROTO);
        serve_fixture_finish(&t, pid, 0);
}

static void a_job_that_is_rewritten_while_it_runs_is_told(void **state) {
        struct trial t;
        pid_t pid = serve_fixture_start(&t, "sleep");
        serve_fixture_submit(&t, 0, "sleep", "ms", 50, 1);
        await(serve_fixture_is_running(&t, 0));
        atomic_store(&t.channel.slots[0].word, 0);
        assert_told_of_foul_play(&t, ESTALE);
        int status = host_fixture_reap(pid);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 3);
        trial_deinit(&t);
}

static void a_client_that_goes_on_writing_changes_no_argument(void **state) {
        struct trial t;
        pid_t pid = serve_fixture_start(&t, "compromised");
        serve_fixture_submit(&t, 0, "wait", "ms", 100, 1);
        await(atomic_load(&t.line->progress_total) == 1); /* the handler has begun */
        memset(channel_payload(&t.channel, 0), 0xff, 64);
        channel_job(&t.channel, 0)->bytes = UINT32_MAX;
        assert_int_equal(serve_fixture_verdict(&t, 0), SLOT_DONE);
        assert_non_null(
                memmem(channel_result_data(&t.channel, 0), channel_result(&t.channel, 0)->bytes, "\xa2ms\x64", 4));
        serve_fixture_finish(&t, pid, 0);
}

static void nonsense_in_a_job_fails_that_job(void **state) {
        struct trial t;
        pid_t pid = serve_fixture_start(&t, "sleep");
        assert_int_equal(trial_begin(&t, 0), 0);
        assert_int_equal(trial_commit(&t, 0, 77, 0, 1), 0);
        assert_int_equal(serve_fixture_verdict(&t, 0), SLOT_FAILED);
        assert_non_null(strstr(failure(&t, 0), "no such job type"));

        assert_int_equal(trial_begin(&t, 1), 0);
        assert_int_equal(trial_commit(&t, 1, 0, UINT32_MAX, 1), 0);
        assert_int_equal(serve_fixture_verdict(&t, 1), SLOT_FAILED);
        assert_non_null(strstr(failure(&t, 1), "does not fit"));

        assert_int_equal(trial_begin(&t, 2), 0);
        memcpy(channel_payload(&t.channel, 2), "\xc1garbage", 8);
        assert_int_equal(trial_commit(&t, 2, 0, 8, 1), 0);
        assert_int_equal(serve_fixture_verdict(&t, 2), SLOT_FAILED);
        assert_int_equal(channel_result(&t.channel, 2)->error, EINVAL);

        serve_fixture_submit(&t, 3, "sleep", "ms", 0, 1);
        assert_int_equal(serve_fixture_verdict(&t, 3), SLOT_DONE);
        serve_fixture_finish(&t, pid, 0);
}

static void retire_waits_for_the_job_in_hand(void **state) {
        struct trial t;
        pid_t pid = serve_fixture_start(&t, "sleep");
        serve_fixture_submit(&t, 0, "sleep", "ms", 50, 1);
        await(serve_fixture_is_running(&t, 0));
        serve_fixture_submit(&t, 1, "sleep", "ms", 0, 1);
        trial_retire(&t);
        assert_int_equal(host_fixture_reap(pid), 0);
        assert_int_equal(slot_state(channel_word(&t.channel, 0)), SLOT_DONE);
        assert_int_equal(slot_state(channel_word(&t.channel, 1)), SLOT_QUEUED);
        trial_deinit(&t);
}

static void a_dropped_channel_is_left_alone(void **state) {
        struct trial t;
        pid_t pid = serve_fixture_start(&t, "sleep");
        serve_fixture_submit(&t, 0, "sleep", "ms", 0, 1);
        assert_int_equal(serve_fixture_verdict(&t, 0), SLOT_DONE);
        const struct worker_order drop = {.type = ORDER_DROP, .version = WIRE_VERSION};
        assert_int_equal(packet_send(t.control_fd, &drop, sizeof drop, NULL, 0), 0);
        event_broadcast(&t.line->control);
        serve_fixture_await_dropped(&t);
        serve_fixture_finish(&t, pid, 0);
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
        pid_t pid = serve_fixture_start(&t, "sleep");
        assert_int_equal(atomic_load(&t.line->last_job), 0);
        serve_fixture_submit(&t, 4, "sleep", "ms", 3, 1);
        assert_int_equal(serve_fixture_verdict(&t, 4), SLOT_DONE);
        assert_int_equal(atomic_load(&t.line->last_job), 5);
        assert_int_equal(atomic_load(&t.line->last_end), SLOT_DONE | 1 << 8);
        assert_int_equal(atomic_load(&t.line->last_type), channel_job(&t.channel, 4)->type);
        assert_int_equal(atomic_load(&t.line->last_started_ns), channel_result(&t.channel, 4)->started_ns);
        assert_int_equal(atomic_load(&t.line->last_finished_ns), channel_result(&t.channel, 4)->finished_ns);
        assert_true(t.line->last_finished_ns - t.line->last_started_ns >= 3000000);

        assert_int_equal(packet_send(t.control_fd, &drop, sizeof drop, NULL, 0), 0);
        event_broadcast(&t.line->control);
        serve_fixture_await_dropped(&t);
        serve_fixture_submit(&t, 5, "sleep", "ms", 0, 1);
        channel_job(&t.channel, 5)->id |= UINT64_C(9) << 40;
        const int fds[] = {t.channel_fds[0], t.channel_fds[1], t.channel_fds[2], t.done.ring_fd};
        assert_int_equal(packet_send(t.control_fd, &channel, sizeof channel, fds, 4), 0);
        event_broadcast(&t.line->control);
        assert_int_equal(serve_fixture_verdict(&t, 5), SLOT_DONE);
        assert_int_equal(atomic_load(&t.line->last_job), base | 6);
        serve_fixture_finish(&t, pid, 0);
}

static void end_of_the_socket_is_the_end(void **state) {
        struct trial t;
        pid_t pid = serve_fixture_start(&t, "sleep");
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
        pid_t pid = serve_fixture_start(&t, "fds");
        for (unsigned i = 0; i < 200; i++) {
                int pair[2];
                assert_int_equal(pipe2(pair, O_CLOEXEC | O_NONBLOCK), 0);
                print(&t, 0);
                give_descriptor(&t, pair[1]);
                close(pair[1]);
                for (uint64_t deadline_ns = serve_fixture_deadline(); !slot_is_verdict(channel_word(&t.channel, 0));)
                        assert_true(event_now_ns() < deadline_ns);
                struct pollfd p = {.fd = pair[0]};
                assert_int_equal(poll(&p, 1, 0), 1);
                assert_int_equal(p.revents, POLLHUP); /* nobody else has it open */
                assert_int_equal(slot_state(channel_word(&t.channel, 0)), SLOT_DONE);
                assert_int_equal(channel_free(&t.channel, 0), 0);
                close(pair[0]);
        }
        serve_fixture_finish(&t, pid, 0);
}

/* While it waits for something else, too: of each there are four descriptors, and it may have 1024 in all. */
static void as_many_channels_as_there_are(void **state) {
        struct trial t;
        struct worker_report report;
        size_t bytes;
        int r;
        pid_t pid = serve_fixture_start(&t, "fds");
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
        assert_int_equal(serve_fixture_verdict(&t, 0), SLOT_DONE);
        event_broadcast(&t.line->control);
        while (packet_receive(t.control_fd, &report, sizeof report, &bytes, NULL, NULL) == 0)
                assert_int_not_equal(report.type, REPORT_FOUL);

        assert_int_equal(trial_begin(&t, 1), 0); /* a job that only the last one tells of */
        *channel_job(&t.channel, 1) = (struct layout_job){.type = 77};
        assert_int_equal(channel_commit(&t.channel, 1, 1), 0);
        bell_ring(t.bell, LAYOUT_MAX_CHANNELS - 1, -1);
        await(slot_is_verdict(channel_word(&t.channel, 1)));
        serve_fixture_finish(&t, pid, 0);
}

static void an_order_without_sense_ends_the_worker(void **state) {
        struct trial t;
        pid_t pid = serve_fixture_start(&t, "sleep");
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
                cmocka_unit_test(a_judged_worker_claims_nothing_more),
                cmocka_unit_test(nonsense_in_a_ring_is_told),
                cmocka_unit_test(a_job_that_is_rewritten_while_it_runs_is_told),
                cmocka_unit_test(a_client_that_goes_on_writing_changes_no_argument),
                cmocka_unit_test(nonsense_in_a_job_fails_that_job),
                cmocka_unit_test(retire_waits_for_the_job_in_hand),
                cmocka_unit_test(a_dropped_channel_is_left_alone),
                cmocka_unit_test(the_last_job_is_told),
                cmocka_unit_test(end_of_the_socket_is_the_end),
                cmocka_unit_test(what_came_with_a_job_is_closed_before_its_verdict),
                cmocka_unit_test(as_many_channels_as_there_are),
                cmocka_unit_test(an_order_without_sense_ends_the_worker),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
