/* The session client against a stand-in for the daemon: opening, submitting, waiting, the next daemon, closing. */
#include "tests/unit/session-fixture.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "ipc/channel/bell.h"
#include "ipc/client/bus/bus-call.h"
#include "ipc/memory/event.h"
#include "ipc/memory/packet.h"
#include "ipc/memory/sealed.h"

static void test_opens_and_runs_a_job(void **state) {
        struct daemon *d = *state;
        d->fault = MORE_KEYS; /* of a later version: skipped */
        struct session *s = session_fixture_open(d);
        struct session_result r;
        assert_int_equal(session_slots(s), SLOTS);
        assert_int_equal(session_slot_bytes(s), BYTES);
        assert_string_equal(session_schema(s)->plugin, "test");
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 0); /* nothing in flight: nothing to wait for */

        uint32_t slot = session_fixture_submit(s, 0, "hello", 99);
        assert_true(bell_channel_has_work(d->bell, INDEX));
        assert_int_equal(session_in_flight(s), 1);
        assert_int_equal(session_next(s, &r, 0), 0);
        assert_int_equal(session_next(s, &r, event_now_ns() + 1000000), 0);
        session_fixture_work(d, SLOT_DONE, 0, "HELLO", 5);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        assert_int_equal(r.state, SLOT_DONE);
        assert_int_equal(r.slot, slot);
        assert_int_equal(r.user, 99);
        assert_true(r.id == ID_BASE + 1);
        assert_int_equal(r.worker_pid, 4711);
        assert_int_equal(r.attempt, 1);
        assert_memory_equal(r.data, "HELLO", 5);
        assert_int_equal(session_in_flight(s), 0);
        assert_int_equal(slot_state(channel_word(&d->broker, slot)), SLOT_FREE);
}

static bool is_rung(int fd) {
        char rings[64];
        return read(fd, rings, sizeof rings) > 0;
}

static int on_ping(sd_bus_message *m, void *user, sd_bus_error *e) { return 1; }

/* A second without room for what the bus has is counted from its beginning, not from that of one before. */
static void test_a_shortage_that_ended_counts_no_more(void **state) {
        struct daemon *d = *state;
        uint64_t since_ns = 1;
        sd_bus_slot *slot = NULL;
        int r = sd_bus_call_method_async(d->bus, &slot, NULL, "/", "org.freedesktop.DBus.Peer", "Ping", on_ping, NULL,
                                         NULL);
        assert_true(r >= 0);
        assert_int_equal(bus_call_step(d->bus, &since_ns), 0);
        assert_int_equal(since_ns, 0);
        sd_bus_slot_unref(slot);
}

static void test_a_held_job_starts_when_it_is_let_go(void **state) {
        struct daemon *d = *state;
        struct session *s = session_fixture_open(d);
        struct session_job job = {.priority = 1, .payload = "x", .bytes = 1, .is_held = true};
        struct session_result r;
        uint32_t now, later, never, got;
        uint64_t word, due_ns = event_now_ns() + UINT64_C(3600000000000);
        assert_int_equal(session_submit(s, &job, &now), 0);
        assert_int_equal(session_submit(s, &job, &later), 0);
        assert_int_equal(session_submit(s, &job, &never), 0);
        assert_false(is_rung(d->doorbell.hear_fd)); /* nobody is told */
        assert_int_equal(channel_claim(&d->worker, INDEX, WORKER, false, event_now_ns(), &d->record, d->done.ring_fd,
                                       &got, &word),
                         CHANNEL_EMPTY);
        assert_true(session_cancel_queued(s, never));
        session_let_go(s, never, 0); /* too late, and no harm */
        session_let_go(s, SLOTS, 0);
        assert_int_equal(session_next(s, &r, 0), 1);
        assert_int_equal(r.state, SLOT_CANCELLED);

        session_let_go(s, later, due_ns);
        assert_true(is_rung(d->doorbell.hear_fd));
        assert_int_equal(slot_state(channel_word(&d->broker, later)), SLOT_DELAYED);
        assert_true(channel_job(&d->broker, later)->not_before_ns == due_ns);
        session_let_go(s, now, 1);
        assert_true(bell_channel_has_work(d->bell, INDEX));
        session_let_go(s, now, 0); /* once */
        session_fixture_work(d, SLOT_DONE, 0, "", 0);
        assert_int_equal(session_wait(s, now, &r, EVENT_FOREVER), 1);
        assert_int_equal(r.attempt, 1);
        assert_int_equal(session_in_flight(s), 1);
}

static void test_a_bad_reply_is_refused_in_words(void **state) {
        static const struct {
                enum fault fault;
                const char *word;
        } bad[] = {
                {BUS_ERROR, "org.drover1.Error.NoSuchPool: there is no pool pool"},
                {NO_BELL, "makes no sense"},
                {NO_JOBS, "makes no sense"},
                {BAD_SLOTS, "makes no sense"},
                {WRONG_SIZE, "makes no sense"},
                {BAD_SCHEMA, "\"u65\""},
        };
        struct daemon *d = *state;
        for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
                char error[256] = "";
                d->fault = bad[i].fault;
                assert_true(session_open(&d->session, d->bus, "pool", error, sizeof error) < 0);
                if (!strstr(error, bad[i].word))
                        fail_msg("\"%s\" does not say %s", error, bad[i].word);
        }
        d->session = NULL;
}

static void test_submit_says_why_not(void **state) {
        struct daemon *d = *state;
        struct session *s = session_fixture_open(d);
        struct session_result r;
        char large[BYTES + 1] = "";
        const struct session_job job = {.payload = large, .bytes = SEALED_MAX_BYTES + 1};
        const struct session_job unsealed = {.has_payload_fd = true, .payload_fd = STDIN_FILENO};
        const struct session_job many = {.n_fds = SCHEMA_MAX_FDS + 1};
        uint32_t slot;
        assert_int_equal(session_submit(s, &job, &slot), -EMSGSIZE);
        assert_int_equal(session_submit(s, &unsealed, &slot), -EPROTO);
        assert_int_equal(session_submit(s, &many, &slot), -E2BIG);
        const struct session_job small = {.payload = large, .bytes = BYTES};
        for (unsigned i = 0; i < SLOTS; i++)
                assert_int_equal(session_submit(s, &small, &slot), 0);
        assert_int_equal(session_submit(s, &small, &slot), -EAGAIN);
        atomic_store(&d->broker.head->closed, CHANNEL_CLOSED);
        assert_int_equal(session_submit(s, &small, &slot), -ESHUTDOWN);
        session_fixture_work(d, SLOT_DONE, 0, "", 0); /* a pool that drains still answers */
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        atomic_store(&d->broker.head->closed, CHANNEL_DEAD);
        assert_int_equal(session_submit(s, &small, &slot), -EPIPE);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), -EPIPE);
}

/* Another verdict lies there, unread: the wait ends in time all the same, and sleeps meanwhile. */
static void test_waiting_for_one_ends_at_its_deadline(void **state) {
        struct daemon *d = *state;
        struct session *s = session_fixture_open(d);
        struct session_result r;
        session_fixture_submit(s, 0, "", 0);
        session_fixture_work(d, SLOT_DONE, 0, "", 0);
        uint32_t never = session_fixture_submit(s, 0, "", 1);
        uint64_t deadline_ns = event_now_ns() + 100000000;
        clock_t cpu = clock();
        assert_int_equal(session_wait(s, never, &r, deadline_ns), 0);
        assert_true(event_now_ns() >= deadline_ns);
        assert_true(clock() - cpu < CLOCKS_PER_SEC / 20);
        assert_int_equal(session_next(s, &r, 0), 1);
        assert_int_equal(r.user, 0);
}

static void test_waiting_for_one_leaves_the_others(void **state) {
        struct daemon *d = *state;
        struct session *s = session_fixture_open(d);
        struct session_result r;
        uint32_t slots[3];
        for (uint64_t i = 0; i < 3; i++)
                slots[i] = session_fixture_submit(s, 0, "", i);
        for (unsigned i = 0; i < 3; i++)
                session_fixture_work(d, SLOT_DONE, 0, "", 0);
        assert_int_equal(session_wait(s, slots[1], &r, EVENT_FOREVER), 1);
        assert_int_equal(r.user, 1);
        assert_int_equal(session_wait(s, slots[1], &r, EVENT_FOREVER), -EINVAL);
        assert_int_equal(session_wait(s, SLOTS, &r, EVENT_FOREVER), -EINVAL);
        uint64_t sum = 0;
        for (unsigned i = 0; i < 2; i++) {
                assert_int_equal(session_next(s, &r, 0), 1);
                sum += r.user;
        }
        assert_int_equal(sum, 2);
        assert_int_equal(session_in_flight(s), 0);
}

static void test_a_slot_in_quarantine_comes_back_later(void **state) {
        struct daemon *d = *state;
        struct session *s = session_fixture_open(d);
        struct session_result r;
        const struct layout_verdict line = {.reason = REASON_TIME_LIMIT, .attempts = 1};
        const struct session_job job = {.user = 0};
        uint32_t slots[SLOTS], held;
        for (unsigned i = 0; i < SLOTS; i++)
                assert_int_equal(session_submit(s, &job, &slots[i]), 0);
        uint64_t word = session_fixture_claim(d, &held);
        assert_true(
                channel_judge(&d->broker, held, WORKER, slot_generation(word), SLOT_TIMED_OUT, SLOT_QUARANTINE, &line));
        channel_announce(&d->broker, held, d->done.ring_fd);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        assert_int_equal(r.state, SLOT_TIMED_OUT);
        assert_int_equal(session_submit(s, &job, &slots[0]), -EAGAIN);
        channel_end_quarantine(&d->broker, held);
        assert_int_equal(session_submit(s, &job, &slots[0]), 0);
        assert_int_equal(slots[0], held);
}

static void test_the_daemon_is_gone(void **state) {
        struct daemon *d = *state;
        struct session *s = session_fixture_open(d);
        struct session_result r;
        session_fixture_submit(s, 0, "", 1);
        session_fixture_submit(s, 0, "", 2);
        session_fixture_work(d, SLOT_DONE, 0, "", 0);
        session_set_patience(s, 0);
        close(d->sockets[0]);
        close(d->sockets[1]);
        d->sockets[0] = d->sockets[1] = -1;
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1); /* what is there is given out first */
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), -EPIPE);
        const struct session_job job = {.user = 3};
        uint32_t slot;
        assert_int_equal(session_submit(s, &job, &slot), -EPIPE);
}

/* The next daemon plays on the same stage: it is asked for the same channel, and a verdict given meanwhile is found. */
static void test_the_next_daemon_is_handed_the_channel(void **state) {
        struct daemon *d = *state;
        struct session *s = session_fixture_open(d);
        struct session_result r;
        struct stat st, back;
        session_fixture_submit(s, 0, "", 1);
        session_fixture_submit(s, 0, "", 2);
        int fd = session_fd(s);
        close(d->sockets[0]);
        close(d->sockets[1]);
        assert_int_equal(packet_pair(d->sockets), 0);
        assert_int_equal(d->n_back, 0);
        session_fixture_work(d, SLOT_DONE, 0, "", 0);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        assert_int_equal(r.user, 1);
        bell_clear_work(d->bell, INDEX);
        for (uint64_t deadline_ns = event_now_ns() + 10000000000u; d->n_back == 0 || session_is_away(s);) {
                assert_int_equal(session_process(s), 0); /* never waits for the answer */
                assert_true(event_now_ns() < deadline_ns);
        }
        assert_true(bell_channel_has_work(d->bell, INDEX)); /* who submits meanwhile does not have its bell yet */
        assert_int_equal(d->n_back, 1);
        for (unsigned i = 0; i < CHANNEL_PARTS; i++) {
                assert_int_equal(fstat(d->channel_fds[i], &st), 0);
                assert_int_equal(fstat(d->back_fds[i], &back), 0);
                assert_int_equal(st.st_ino, back.st_ino);
        }
        assert_int_equal(session_fd(s), fd); /* whoever polls it need not be told */
        assert_int_equal(session_process(s), 0);
        assert_int_equal(d->n_back, 1);
        session_fixture_work(d, SLOT_DONE, 0, "", 0);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        assert_int_equal(r.user, 2);

        uint64_t old_id = session_job_id(s, session_fixture_submit(s, 0, "", 3));
        assert_true(session_has_number(s, old_id));
        d->id_base = 9 * (LAYOUT_JOB_ID_MASK + 1); /* another one has its numbers there */
        close(d->sockets[0]);
        close(d->sockets[1]);
        assert_int_equal(packet_pair(d->sockets), 0);
        do
                assert_int_equal(session_process(s), 0);
        while (session_is_away(s)); /* it does not call at every look */
        assert_int_equal(d->n_back, 2);
        assert_false(session_has_number(s, old_id));
        assert_true(session_has_number(s, session_job_id(s, session_fixture_submit(s, 0, "", 4))));

        d->fault = BUS_ERROR; /* it has no such pool */
        close(d->sockets[0]);
        close(d->sockets[1]);
        d->sockets[0] = d->sockets[1] = -1;
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), -EPIPE);
}

/* A daemon that is there and does not answer: nobody waits longer than until the deadline, and nothing is lost by it.
 */
static void test_a_silent_daemon(void **state) {
        struct daemon *d = *state;
        struct session *s = session_fixture_open(d), *other;
        char error[256] = "";
        d->fault = SILENT;
        assert_int_equal(session_open_until(&other, d->bus, "pool", event_now_ns() + 20000000, error, sizeof error),
                         -ETIMEDOUT);
        assert_non_null(strstr(error, "NoReply"));
        assert_int_equal(session_takes_jobs(s, 0), 1);
        close(d->sockets[0]);
        close(d->sockets[1]);
        assert_int_equal(packet_pair(d->sockets), 0);
        assert_int_equal(session_process(s), 0);
        uint64_t deadline_ns = event_now_ns() + 50000000;
        assert_int_equal(session_takes_jobs(s, deadline_ns), -ETIMEDOUT);
        assert_in_range(event_now_ns(), deadline_ns, deadline_ns + 10000000000u);
        assert_true(session_is_away(s));
        assert_int_equal(session_process(s), 0);
}

static void *finish_later(void *user) {
        struct daemon *d = user;
        struct timespec t = {.tv_nsec = 120000000}; /* past the time a client sleeps on its futex */
        nanosleep(&t, NULL);
        session_fixture_work(d, SLOT_DONE, 0, "late", 4);
        return NULL;
}

static void test_a_long_wait_ends_by_the_doorbell(void **state) {
        struct daemon *d = *state;
        struct session *s = session_fixture_open(d);
        struct session_result r;
        pthread_t thread;
        session_fixture_submit(s, 0, "", 1);
        assert_int_equal(pthread_create(&thread, NULL, finish_later, d), 0);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        assert_memory_equal(r.data, "late", 4);
        pthread_join(thread, NULL);
}

static void test_closing_drops_what_is_queued_and_asks_what_runs(void **state) {
        struct daemon *d = *state;
        struct session *s = session_fixture_open(d);
        uint32_t running, claimed, queued;
        running = session_fixture_submit(s, 0, "", 1);
        session_fixture_claim(d, &claimed);
        assert_int_equal(claimed, running);
        queued = session_fixture_submit(s, 0, "", 2);
        d->session = session_free(s);
        assert_int_equal(slot_state(channel_word(&d->broker, queued)), SLOT_CANCELLED);
        uint64_t word = channel_word(&d->broker, running);
        assert_int_equal(slot_state(word), SLOT_RUNNING);
        assert_true(slot_flags(word) & SLOT_CANCEL);
        close(d->sockets[1]);
        d->sockets[1] = -1;
        struct pollfd end = {.fd = d->sockets[0], .events = POLLIN};
        assert_int_equal(poll(&end, 1, 10000), 1); /* the peer's message holds a copy for a moment */
        char data[8];
        size_t bytes = 1;
        assert_int_equal(packet_receive(d->sockets[0], data, sizeof data, &bytes, NULL, NULL), 0);
        assert_int_equal(bytes, 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                SESSION_TEST(test_opens_and_runs_a_job),
                SESSION_TEST(test_a_shortage_that_ended_counts_no_more),
                SESSION_TEST(test_a_held_job_starts_when_it_is_let_go),
                SESSION_TEST(test_a_bad_reply_is_refused_in_words),
                SESSION_TEST(test_submit_says_why_not),
                SESSION_TEST(test_waiting_for_one_ends_at_its_deadline),
                SESSION_TEST(test_waiting_for_one_leaves_the_others),
                SESSION_TEST(test_a_slot_in_quarantine_comes_back_later),
                SESSION_TEST(test_the_daemon_is_gone),
                SESSION_TEST(test_the_next_daemon_is_handed_the_channel),
                SESSION_TEST(test_a_silent_daemon),
                SESSION_TEST(test_a_long_wait_ends_by_the_doorbell),
                SESSION_TEST(test_closing_drops_what_is_queued_and_asks_what_runs),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
