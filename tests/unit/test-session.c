/* The session client against a stand-in for the daemon. */
#include "tests/unit/session-fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "ipc/bell.h"
#include "ipc/client/bus-call.h"
#include "ipc/event.h"
#include "ipc/packet.h"
#include "ipc/sealed.h"
#include "ipc/wire.h"

static uint32_t submit(struct session *s, uint32_t type, const char *payload, uint64_t user) {
        const struct session_job job = {
                .type = type, .priority = 1, .payload = payload, .bytes = strlen(payload), .user = user};
        uint32_t slot;
        assert_int_equal(session_submit(s, &job, &slot), 0);
        return slot;
}

/* Runs the next queued job as a worker would. */
static void work(struct daemon *d, enum slot_state verdict, int error, const void *data, size_t bytes) {
        uint32_t slot;
        uint64_t word = session_fixture_claim(d, &slot);
        memcpy(channel_result_data(&d->worker, slot), data, bytes);
        *channel_result(&d->worker, slot) = (struct layout_result){
                .bytes = (uint32_t)bytes, .error = error, .pid = 4711, .started_ns = 1, .finished_ns = 2};
        assert_int_equal(channel_finish(&d->worker, slot, word, verdict, d->done.ring_fd), 0);
}

static void test_opens_and_runs_a_job(void **state) {
        struct daemon *d = *state;
        d->fault = MORE_KEYS; /* of a later version: skipped */
        struct session *s = session_fixture_open(d);
        struct session_result r;
        assert_int_equal(session_slots(s), SLOTS);
        assert_int_equal(session_slot_bytes(s), BYTES);
        assert_string_equal(session_schema(s)->plugin, "test");
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 0); /* nothing in flight: nothing to wait for */

        uint32_t slot = submit(s, 0, "hello", 99);
        assert_true(bell_channel_has_work(d->bell, INDEX));
        assert_int_equal(session_in_flight(s), 1);
        assert_int_equal(session_next(s, &r, 0), 0);
        assert_int_equal(session_next(s, &r, event_now_ns() + 1000000), 0);
        work(d, SLOT_DONE, 0, "HELLO", 5);
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

static void finish_with_fds(struct daemon *d) {
        uint32_t slot;
        uint64_t word = session_fixture_claim(d, &slot);
        *channel_result(&d->worker, slot) = (struct layout_result){.has_fds = 1, .pid = 4711};
        assert_int_equal(channel_finish(&d->worker, slot, word, SLOT_DONE, d->done.ring_fd), 0);
}

/* The result line says that something belongs to it, and the daemon says why it is not to be had. */
static void test_what_belongs_to_a_result_is_not_to_be_had(void **state) {
        struct daemon *d = *state;
        struct session *s = session_fixture_open(d);
        struct session_result r;
        struct session_packet p;
        size_t bytes;
        submit(s, 0, "x", 0);
        finish_with_fds(d);
        assert_int_equal(session_next(s, &r, 0), 0);
        assert_int_equal(packet_receive(d->sockets[0], &p, sizeof p, &bytes, NULL, NULL), 0);
        assert_int_equal(p.type, SESSION_WANT);
        p.type = SESSION_RESULT;
        p.error = ETOOMANYREFS;
        assert_int_equal(packet_send(d->sockets[0], &p, sizeof p, NULL, 0), 0);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        assert_int_equal(r.state, SLOT_FAILED);
        assert_int_equal(r.error, ETOOMANYREFS);
        assert_null(r.fds);
        assert_non_null(strstr((const char *)r.data, "is not to be had"));
}

static bool hears(struct daemon *d, enum session_packet_type type, struct session_packet *ret) {
        size_t bytes;
        while (packet_receive(d->sockets[0], ret, sizeof *ret, &bytes, NULL, NULL) == 0)
                if (ret->type == type)
                        return true;
        return false;
}

/* One descriptor for a result; *ret_fd is readable for as long as anybody holds it. */
static void answer_with_a_descriptor(struct daemon *d, int *ret_fd) {
        struct session_packet p;
        int ends[2];
        assert_true(hears(d, SESSION_WANT, &p));
        p.type = SESSION_RESULT;
        assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
        assert_int_equal(packet_send(d->sockets[0], &p, sizeof p, &ends[1], 1), 0);
        close(ends[1]);
        *ret_fd = ends[0];
}

static bool is_held_by_anybody(int fd) {
        char byte;
        return read(fd, &byte, 1) < 0 && errno == EAGAIN;
}

/* What came for a verdict that is another one when it is fetched, or makes no sense then, is closed: no later job has
 * it. */
static void test_what_came_for_a_verdict_that_changed(void **state) {
        struct daemon *d = *state;
        struct session *s = session_fixture_open(d);
        struct session_result r;
        uint64_t deadline_ns;
        int fd;
        for (unsigned round = 0; round < 3; round++) {
                uint32_t slot = submit(s, 0, "x", 1);
                finish_with_fds(d);
                assert_int_equal(session_next(s, &r, 0), 0);
                answer_with_a_descriptor(d, &fd);
                assert_true(session_arm(s, &deadline_ns));
                uint64_t word = channel_word(&d->worker, slot);
                if (round == 0)
                        atomic_store(&d->worker.slots[slot].word, (word & ~UINT64_C(0xf)) | SLOT_FAILED);
                else if (round == 1)
                        atomic_store(&d->worker.slots[slot].word, (word & ~UINT64_C(0xf)) | SLOT_CANCELLED);
                else
                        channel_result(&d->worker, slot)->bytes = BYTES + 1;
                assert_int_equal(session_next(s, &r, 0), 1);
                assert_true(r.state != SLOT_DONE);
                assert_null(r.fds);
                assert_null(session_take_fds(s));
                assert_false(is_held_by_anybody(fd));
                close(fd);

                assert_int_equal(submit(s, 0, "y", 2), slot);
                work(d, SLOT_DONE, 0, "Y", 1);
                assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
                assert_int_equal(r.state, SLOT_DONE);
                assert_null(r.fds);
                assert_int_equal(r.bytes, 1);
        }
        submit(s, 0, "z", 3); /* a result that a later one follows, of whatever kind */
        finish_with_fds(d);
        assert_int_equal(session_next(s, &r, 0), 0);
        answer_with_a_descriptor(d, &fd);
        submit(s, 0, "f", 4);
        work(d, SLOT_FAILED, EIO, "no", 2);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        assert_false(is_held_by_anybody(fd));
        close(fd);
}

/* Somebody closed all descriptors: their numbers are others' by now, also that of one that came for a verdict. */
static void test_what_came_before_all_descriptors_were_closed(void **state) {
        struct daemon *d = *state;
        struct session *s = session_fixture_open(d);
        struct session_result r;
        uint64_t deadline_ns;
        int fd;
        submit(s, 0, "x", 1);
        finish_with_fds(d);
        assert_int_equal(session_next(s, &r, 0), 0);
        answer_with_a_descriptor(d, &fd);
        int number = dup(fd);
        close(number);
        assert_true(session_arm(s, &deadline_ns)); /* it came as that number */
        assert_true(is_held_by_anybody(fd));
        assert_int_equal(dup2(STDIN_FILENO, number), number);
        assert_false(is_held_by_anybody(fd));
        session_lose_fds(s);
        d->session = session_free(s);
        assert_int_not_equal(fcntl(number, F_GETFD), -1);
        close(number);
        close(fd);
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

/* A daemon that reads what was sent a moment late, and answers. */
static void *answer_late(void *user) {
        struct daemon *d = user;
        struct session_packet p;
        for (unsigned i = 0; i < 200; i++) {
                poll(NULL, 0, 50);
                if (!hears(d, SESSION_WANT, &p))
                        continue;
                p.type = SESSION_RESULT;
                p.error = EIO;
                packet_send(d->sockets[0], &p, sizeof p, NULL, 0);
                return user;
        }
        return NULL;
}

static void fill_socket(struct session *s) {
        const struct session_packet other = {.type = SESSION_ENDED, .version = WIRE_VERSION};
        while (packet_send(session_fd(s), &other, sizeof other, NULL, 0) == 0)
                ;
}

/* Its socket is full when it wants to ask: it asks when there is room, and nothing else has to happen. */
static void test_asks_when_there_is_room(void **state) {
        struct daemon *d = *state;
        struct session *s = session_fixture_open(d);
        struct session_packet p;
        struct session_result r;
        pthread_t thread;
        uint64_t deadline_ns;
        void *answered;
        fcntl(d->sockets[0], F_SETFL, O_NONBLOCK);
        submit(s, 0, "x", 0);
        fill_socket(s);
        finish_with_fds(d);
        assert_int_equal(session_next(s, &r, 0), 0);
        pthread_create(&thread, NULL, answer_late, d);
        assert_int_equal(session_next(s, &r, event_now_ns() + UINT64_C(10000000000)), 1);
        assert_int_equal(r.error, EIO);
        pthread_join(thread, &answered);
        assert_non_null(answered);

        submit(s, 0, "y", 0); /* the same in a loop of the caller's own */
        fill_socket(s);
        finish_with_fds(d);
        assert_false(session_arm(s, &deadline_ns));
        assert_true(deadline_ns != EVENT_FOREVER);
        assert_false(hears(d, SESSION_WANT, &p));
        session_woken(s);
        assert_true(hears(d, SESSION_WANT, &p));
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
        work(d, SLOT_DONE, 0, "", 0);
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
        work(d, SLOT_DONE, 0, "", 0); /* a pool that drains still answers */
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        atomic_store(&d->broker.head->closed, CHANNEL_DEAD);
        assert_int_equal(session_submit(s, &small, &slot), -EPIPE);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), -EPIPE);
}

static void describe(const struct session_result *r, const char *expected) {
        char text[200];
        session_describe(r, text, sizeof text);
        assert_string_equal(text, expected);
}

static void test_every_verdict(void **state) {
        struct daemon *d = *state;
        struct session *s = session_fixture_open(d);
        struct session_result r;
        uint32_t slot;
        struct layout_verdict line = {.reason = REASON_SIGNAL,
                                      .signal = 11,
                                      .pid = 42,
                                      .attempts = 3,
                                      .when_ns = event_now_ns() + 1000000000};

        submit(s, 0, "", 1);
        work(d, SLOT_FAILED, ENOENT, "no such thing", 13);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        assert_int_equal(r.state, SLOT_FAILED);
        assert_int_equal(r.error, ENOENT);
        describe(&r, "failed: no such thing");

        submit(s, 0, "", 2);
        uint64_t word = session_fixture_claim(d, &slot);
        assert_true(channel_judge(&d->broker, slot, WORKER, slot_generation(word), SLOT_POISONED, 0, &line));
        channel_announce(&d->broker, slot, d->done.ring_fd);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        assert_int_equal(r.worker_pid, 42);
        describe(&r, "poisoned after 3 attempts: signal SIGSEGV");

        submit(s, 0, "", 3);
        word = session_fixture_claim(d, &slot);
        line.reason = REASON_TIME_LIMIT;
        line.attempts = 1;
        assert_true(channel_judge(&d->broker, slot, WORKER, slot_generation(word), SLOT_TIMED_OUT, 0, &line));
        channel_announce(&d->broker, slot, d->done.ring_fd);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        describe(&r, "timed-out in attempt 1: time-limit");

        /* The line is of the job before: not believed. */
        slot = submit(s, 0, "", 4);
        assert_int_equal(session_cancel(s, slot), SLOT_QUEUED);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        assert_int_equal(r.verdict.reason, REASON_NONE);
        describe(&r, "cancelled");
        assert_int_equal(session_cancel(s, slot), -EINVAL);
}

/* As a worker of the pool can that does not run the job: any word, a result, a done bit. */
static void forge(struct daemon *d, uint32_t slot, enum slot_state state, unsigned owner) {
        uint64_t word = channel_word(&d->worker, slot);
        *channel_result(&d->worker, slot) = (struct layout_result){.bytes = 6, .error = EIO, .pid = 4711};
        memcpy(channel_result_data(&d->worker, slot), "forged", 6);
        atomic_store(&d->worker.slots[slot].word, SLOT_WORD(state, 0, 1, owner, slot_generation(word)));
        channel_announce(&d->worker, slot, d->done.ring_fd);
}

static void expect_disbelief(struct session *s, const char *text) {
        struct session_result r;
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        assert_int_equal(r.state, SLOT_FAILED);
        assert_int_equal(r.error, EBADMSG);
        assert_int_equal(r.verdict.reason, REASON_NONE);
        assert_non_null(strstr(r.data, text));
}

static void test_verdicts_that_no_worker_can_give(void **state) {
        static const enum slot_state brokers[] = {SLOT_POISONED, SLOT_LOST};
        static const unsigned owners[] = {SLOT_OWNER_NONE, SLOT_OWNER_WORKER0 + WORKER, SLOT_OWNER_BROKER};
        const struct layout_verdict line = {.reason = REASON_SIGNAL, .signal = 11, .pid = 42, .attempts = 1};
        struct daemon *d = *state;
        struct session *s = session_fixture_open(d);
        struct session_result r;
        uint32_t slot, same;
        for (unsigned i = 0; i < 2; i++)
                for (unsigned k = 0; k < 3; k++) {
                        slot = submit(s, 0, "", 1);
                        session_fixture_claim(d, &same);
                        forge(d, slot, brokers[i], owners[k]);
                        expect_disbelief(s, "only droverd can give");

                        slot = submit(s, 0, "", 1); /* the broker gives it, and it is fetched */
                        uint64_t word = session_fixture_claim(d, &same);
                        assert_true(
                                channel_judge(&d->broker, slot, WORKER, slot_generation(word), brokers[i], 0, &line));
                        channel_announce(&d->broker, slot, d->done.ring_fd);
                        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
                        assert_int_equal(r.state, brokers[i]);
                        assert_int_equal(r.verdict.signal, 11);

                        slot = submit(s, 0, "", 1); /* the line is not of this job */
                        session_fixture_claim(d, &same);
                        forge(d, slot, brokers[i], owners[k]);
                        expect_disbelief(s, "only droverd can give");
                        slot = submit(s, 0, "", 1); /* nor of this verdict */
                        word = session_fixture_claim(d, &same);
                        assert_true(channel_judge(&d->broker, slot, WORKER, slot_generation(word), SLOT_TIMED_OUT, 0,
                                                  &line));
                        forge(d, slot, brokers[i], owners[k]);
                        expect_disbelief(s, "only droverd can give");
                }

        slot = submit(s, 0, "", 1);
        forge(d, slot, SLOT_EXPIRED, SLOT_OWNER_WORKER0 + WORKER);
        expect_disbelief(s, "before its queue deadline");
        const struct session_job later = {.queue_deadline_ns = event_now_ns() + UINT64_C(3600000000000)};
        assert_int_equal(session_submit(s, &later, &slot), 0);
        forge(d, slot, SLOT_EXPIRED, SLOT_OWNER_WORKER0 + WORKER);
        expect_disbelief(s, "before its queue deadline");
}

/* What ipc/PROTOCOL.md says that it can: any other end, of a job that is queued or that another worker runs. */
static void test_verdicts_that_any_worker_can_give(void **state) {
        static const enum slot_state states[] = {SLOT_DONE, SLOT_FAILED, SLOT_CANCELLED, SLOT_TIMED_OUT};
        struct daemon *d = *state;
        struct session *s = session_fixture_open(d);
        struct session_result r;
        for (unsigned i = 0; i < 8; i++) {
                uint32_t slot = submit(s, 0, "", 1), same;
                uint64_t word = i % 2 ? session_fixture_claim(d, &same) : 0;
                forge(d, slot, states[i / 2], SLOT_OWNER_NONE);
                if (word)
                        assert_int_equal(channel_finish(&d->worker, slot, word, SLOT_DONE, d->done.ring_fd), -ESTALE);
                assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
                assert_int_equal(r.state, states[i / 2]);
                if (i < 4)
                        assert_memory_equal(r.data, "forged", 6);
        }
        /* A word that is no verdict any more when it is looked at again. */
        uint32_t slot = submit(s, 0, "", 1), other = submit(s, 0, "", 2);
        forge(d, slot, SLOT_DONE, SLOT_OWNER_NONE);
        forge(d, other, SLOT_DONE, SLOT_OWNER_NONE);
        assert_int_equal(session_wait(s, other, &r, EVENT_FOREVER), 1); /* both are found */
        atomic_store(&d->worker.slots[slot].word,
                     SLOT_WORD(SLOT_QUEUED, 0, 1, 0, slot_generation(channel_word(&d->worker, slot))));
        expect_disbelief(s, "wrote over its verdict");
}

static void test_words_of_the_head_are_any_workers(void **state) {
        struct daemon *d = *state;
        struct session *s = session_fixture_open(d);
        struct session_result r;
        atomic_store(&d->worker.head->queue_timeout_ns, 1);
        submit(s, 0, "", 1);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        assert_int_equal(r.state, SLOT_EXPIRED);
        const struct session_job job = {.user = 2};
        uint32_t slot;
        atomic_store(&d->worker.head->closed, CHANNEL_CLOSED);
        assert_int_equal(session_submit(s, &job, &slot), -ESHUTDOWN);
        atomic_store(&d->worker.head->closed, CHANNEL_DEAD);
        assert_int_equal(session_submit(s, &job, &slot), -EPIPE);
}

static void test_a_queue_deadline_needs_no_worker(void **state) {
        struct daemon *d = *state;
        struct session *s = session_fixture_open(d);
        struct session_result r;
        uint64_t now_ns = event_now_ns();
        const struct session_job late = {.queue_deadline_ns = now_ns + 5000000, .user = 2};
        const struct session_job soon = {.queue_deadline_ns = now_ns + 1000000, .user = 1};
        uint32_t slot;
        assert_int_equal(session_submit(s, &late, &slot), 0);
        assert_int_equal(session_submit(s, &soon, &slot), 0);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        uint64_t first = r.user;
        if (event_now_ns() < late.queue_deadline_ns) /* else both were over when we looked, and either came first */
                assert_int_equal(first, 1);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        assert_int_equal(r.user, 3 - first);
        assert_int_equal(r.state, SLOT_EXPIRED);
        assert_true(event_now_ns() >= late.queue_deadline_ns);
        describe(&r, "expired: no worker took it before its queue deadline");
}

/* Another verdict lies there, unread: the wait ends in time all the same, and sleeps meanwhile. */
static void test_waiting_for_one_ends_at_its_deadline(void **state) {
        struct daemon *d = *state;
        struct session *s = session_fixture_open(d);
        struct session_result r;
        submit(s, 0, "", 0);
        work(d, SLOT_DONE, 0, "", 0);
        uint32_t never = submit(s, 0, "", 1);
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
                slots[i] = submit(s, 0, "", i);
        for (unsigned i = 0; i < 3; i++)
                work(d, SLOT_DONE, 0, "", 0);
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

static void test_a_hostile_result(void **state) {
        struct daemon *d = *state;
        struct session *s = session_fixture_open(d);
        struct session_result r;
        uint32_t slot;
        submit(s, 0, "", 1);
        uint64_t word = session_fixture_claim(d, &slot);
        channel_result(&d->worker, slot)->bytes = BYTES + 1;
        assert_int_equal(channel_finish(&d->worker, slot, word, SLOT_DONE, d->done.ring_fd), 0);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        assert_int_equal(r.state, SLOT_FAILED);
        assert_int_equal(r.error, EBADMSG);

        submit(s, 1, "\x81\xa1n\x01", 2);
        work(d, SLOT_DONE, 0, "\x81\xa1s\xa1\xff", 5);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        assert_int_equal(r.error, EBADMSG);
        assert_string_equal(r.data, "result \"s\": not valid UTF-8");

        /* Done bits for slots nobody submitted, and words from nowhere. */
        atomic_store(&d->worker.done[0], UINT64_MAX);
        atomic_store(&d->worker.slots[3].word, SLOT_WORD(SLOT_DONE, 63, 63, 7, 99));
        slot = submit(s, 0, "", 3);
        atomic_store(&d->worker.done[0], UINT64_MAX);
        assert_int_equal(session_next(s, &r, 0), 0);
        assert_false(session_is_foul(s));
        atomic_store(&d->worker.slots[slot].word, 0xf);
        atomic_store(&d->worker.done[0], UINT64_MAX);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), -EPIPE);
        assert_true(session_is_foul(s));
}

/* Some of its tries, which are a millisecond apart, have failed by then. */
static void *mend_a_moment_after_it_is_queued(void *user) {
        struct daemon *d = user;
        uint64_t deadline_ns = event_now_ns() + UINT64_C(20000000000);
        for (uint32_t slot = 0; slot_state(channel_word(&d->broker, slot)) != SLOT_QUEUED; slot = (slot + 1) % SLOTS)
                if (event_now_ns() > deadline_ns) /* then the submit fails, and says so */
                        return NULL;
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
        channel_mend_rings(&d->broker, 12345);
        return NULL;
}

/* A worker may write anything into the channel at any moment: the session says so and does not hang, nor lose a slot.
 */
static void test_a_channel_written_over(void **state) {
        struct daemon *d = *state;
        struct session *s = session_fixture_open(d);
        struct session_result r;
        const struct session_job job = {.user = 0};
        uint32_t slots[SLOTS];
        for (uint32_t slot = 0; slot < SLOTS; slot++) /* none is ours to lose: whatever stands there is nobody's */
                atomic_store(&d->worker.slots[slot].word, SLOT_WORD(slot, 63, slot, 7, UINT32_MAX - slot));
        for (unsigned i = 0; i < SLOTS; i++)
                assert_int_equal(session_submit(s, &job, &slots[i]), 0);
        for (unsigned i = 0; i < SLOTS; i++)
                work(d, SLOT_DONE, 0, "", 0);
        for (unsigned i = 0; i < SLOTS; i++)
                assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);

        /* A verdict that is another one when it is fetched; its slot is not lost. */
        assert_int_equal(session_submit(s, &job, &slots[0]), 0);
        work(d, SLOT_DONE, 0, "", 0);
        assert_true(session_arm(s, &(uint64_t){0}));
        atomic_store(&d->worker.slots[slots[0]].word, SLOT_WORD(SLOT_DONE, SLOT_QUARANTINE, 1, 1, 77));
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        assert_int_equal(r.error, EBADMSG);
        for (unsigned i = 0; i < SLOTS; i++)
                assert_int_equal(session_submit(s, &job, &slots[i]), 0);
        for (unsigned i = 0; i < SLOTS; i++)
                work(d, SLOT_DONE, 0, "", 0);
        for (unsigned i = 0; i < SLOTS; i++)
                assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);

        /* Rings that take nothing: mended meanwhile; and not. */
        atomic_store(&d->worker.ring[LAYOUT_PRIORITY_DEFAULT].shared->tail, UINT64_MAX / 2);
        pthread_t mender;
        assert_int_equal(pthread_create(&mender, NULL, mend_a_moment_after_it_is_queued, d), 0);
        const struct session_job hinted = {.user = 9, .priority = LAYOUT_PRIORITY_DEFAULT};
        assert_int_equal(session_submit(s, &hinted, &slots[0]), 0);
        pthread_join(mender, NULL);
        work(d, SLOT_DONE, 0, "", 0);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        assert_int_equal(r.user, 9);
        atomic_store(&d->worker.ring[LAYOUT_PRIORITY_DEFAULT].shared->tail, UINT64_MAX / 3);
        assert_int_equal(session_submit(s, &hinted, &slots[0]), 0);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), -EPIPE);
        assert_true(session_is_foul(s));
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
        submit(s, 0, "", 1);
        submit(s, 0, "", 2);
        work(d, SLOT_DONE, 0, "", 0);
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
        submit(s, 0, "", 1);
        submit(s, 0, "", 2);
        int fd = session_fd(s);
        close(d->sockets[0]);
        close(d->sockets[1]);
        assert_int_equal(packet_pair(d->sockets), 0);
        assert_int_equal(d->n_back, 0);
        work(d, SLOT_DONE, 0, "", 0);
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
        work(d, SLOT_DONE, 0, "", 0);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        assert_int_equal(r.user, 2);

        uint64_t old_id = session_job_id(s, submit(s, 0, "", 3));
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
        assert_true(session_has_number(s, session_job_id(s, submit(s, 0, "", 4))));

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
        work(d, SLOT_DONE, 0, "late", 4);
        return NULL;
}

static void test_a_long_wait_ends_by_the_doorbell(void **state) {
        struct daemon *d = *state;
        struct session *s = session_fixture_open(d);
        struct session_result r;
        pthread_t thread;
        submit(s, 0, "", 1);
        assert_int_equal(pthread_create(&thread, NULL, finish_later, d), 0);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        assert_memory_equal(r.data, "late", 4);
        pthread_join(thread, NULL);
}

static void test_closing_drops_what_is_queued_and_asks_what_runs(void **state) {
        struct daemon *d = *state;
        struct session *s = session_fixture_open(d);
        uint32_t running, claimed, queued;
        running = submit(s, 0, "", 1);
        session_fixture_claim(d, &claimed);
        assert_int_equal(claimed, running);
        queued = submit(s, 0, "", 2);
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

#define SESSION_TEST(test) cmocka_unit_test_setup_teardown(test, session_setup, session_teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                SESSION_TEST(test_opens_and_runs_a_job),
                SESSION_TEST(test_what_belongs_to_a_result_is_not_to_be_had),
                SESSION_TEST(test_what_came_for_a_verdict_that_changed),
                SESSION_TEST(test_what_came_before_all_descriptors_were_closed),
                SESSION_TEST(test_a_shortage_that_ended_counts_no_more),
                SESSION_TEST(test_asks_when_there_is_room),
                SESSION_TEST(test_a_held_job_starts_when_it_is_let_go),
                SESSION_TEST(test_a_bad_reply_is_refused_in_words),
                SESSION_TEST(test_submit_says_why_not),
                SESSION_TEST(test_every_verdict),
                SESSION_TEST(test_verdicts_that_no_worker_can_give),
                SESSION_TEST(test_verdicts_that_any_worker_can_give),
                SESSION_TEST(test_words_of_the_head_are_any_workers),
                SESSION_TEST(test_a_queue_deadline_needs_no_worker),
                SESSION_TEST(test_waiting_for_one_ends_at_its_deadline),
                SESSION_TEST(test_waiting_for_one_leaves_the_others),
                SESSION_TEST(test_a_channel_written_over),
                SESSION_TEST(test_a_hostile_result),
                SESSION_TEST(test_a_slot_in_quarantine_comes_back_later),
                SESSION_TEST(test_the_daemon_is_gone),
                SESSION_TEST(test_the_next_daemon_is_handed_the_channel),
                SESSION_TEST(test_a_silent_daemon),
                SESSION_TEST(test_a_long_wait_ends_by_the_doorbell),
                SESSION_TEST(test_closing_drops_what_is_queued_and_asks_what_runs),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
