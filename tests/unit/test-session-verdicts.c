/* What a session's client is told of a job's end: each verdict, and what it believes of one that a worker wrote who
 * does not run the job, or of a channel that somebody wrote over. */
#include "tests/unit/session-fixture.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "ipc/memory/event.h"

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

        session_fixture_submit(s, 0, "", 1);
        session_fixture_work(d, SLOT_FAILED, ENOENT, "no such thing", 13);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        assert_int_equal(r.state, SLOT_FAILED);
        assert_int_equal(r.error, ENOENT);
        describe(&r, "failed: no such thing");

        session_fixture_submit(s, 0, "", 2);
        uint64_t word = session_fixture_claim(d, &slot);
        assert_true(channel_judge(&d->broker, slot, WORKER, slot_generation(word), SLOT_POISONED, 0, &line));
        channel_announce(&d->broker, slot, d->done.ring_fd);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        assert_int_equal(r.worker_pid, 42);
        describe(&r, "poisoned after 3 attempts: signal SIGSEGV");

        session_fixture_submit(s, 0, "", 3);
        word = session_fixture_claim(d, &slot);
        line.reason = REASON_TIME_LIMIT;
        line.attempts = 1;
        assert_true(channel_judge(&d->broker, slot, WORKER, slot_generation(word), SLOT_TIMED_OUT, 0, &line));
        channel_announce(&d->broker, slot, d->done.ring_fd);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        describe(&r, "timed-out in attempt 1: time-limit");

        /* The line is of the job before: not believed. */
        slot = session_fixture_submit(s, 0, "", 4);
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
                        slot = session_fixture_submit(s, 0, "", 1);
                        session_fixture_claim(d, &same);
                        forge(d, slot, brokers[i], owners[k]);
                        expect_disbelief(s, "only droverd can give");

                        slot = session_fixture_submit(s, 0, "", 1); /* the broker gives it, and it is fetched */
                        uint64_t word = session_fixture_claim(d, &same);
                        assert_true(
                                channel_judge(&d->broker, slot, WORKER, slot_generation(word), brokers[i], 0, &line));
                        channel_announce(&d->broker, slot, d->done.ring_fd);
                        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
                        assert_int_equal(r.state, brokers[i]);
                        assert_int_equal(r.verdict.signal, 11);

                        slot = session_fixture_submit(s, 0, "", 1); /* the line is not of this job */
                        session_fixture_claim(d, &same);
                        forge(d, slot, brokers[i], owners[k]);
                        expect_disbelief(s, "only droverd can give");
                        slot = session_fixture_submit(s, 0, "", 1); /* nor of this verdict */
                        word = session_fixture_claim(d, &same);
                        assert_true(channel_judge(&d->broker, slot, WORKER, slot_generation(word), SLOT_TIMED_OUT, 0,
                                                  &line));
                        forge(d, slot, brokers[i], owners[k]);
                        expect_disbelief(s, "only droverd can give");
                }

        slot = session_fixture_submit(s, 0, "", 1);
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
                uint32_t slot = session_fixture_submit(s, 0, "", 1), same;
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
        uint32_t slot = session_fixture_submit(s, 0, "", 1), other = session_fixture_submit(s, 0, "", 2);
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
        session_fixture_submit(s, 0, "", 1);
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

static void test_a_hostile_result(void **state) {
        struct daemon *d = *state;
        struct session *s = session_fixture_open(d);
        struct session_result r;
        uint32_t slot;
        session_fixture_submit(s, 0, "", 1);
        uint64_t word = session_fixture_claim(d, &slot);
        channel_result(&d->worker, slot)->bytes = BYTES + 1;
        assert_int_equal(channel_finish(&d->worker, slot, word, SLOT_DONE, d->done.ring_fd), 0);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        assert_int_equal(r.state, SLOT_FAILED);
        assert_int_equal(r.error, EBADMSG);

        session_fixture_submit(s, 1, "\x81\xa1n\x01", 2);
        session_fixture_work(d, SLOT_DONE, 0, "\x81\xa1s\xa1\xff", 5);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        assert_int_equal(r.error, EBADMSG);
        assert_string_equal(r.data, "result \"s\": not valid UTF-8");

        /* Done bits for slots nobody submitted, and words from nowhere. */
        atomic_store(&d->worker.done[0], UINT64_MAX);
        atomic_store(&d->worker.slots[3].word, SLOT_WORD(SLOT_DONE, 63, 63, 7, 99));
        slot = session_fixture_submit(s, 0, "", 3);
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
                session_fixture_work(d, SLOT_DONE, 0, "", 0);
        for (unsigned i = 0; i < SLOTS; i++)
                assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);

        /* A verdict that is another one when it is fetched; its slot is not lost. */
        assert_int_equal(session_submit(s, &job, &slots[0]), 0);
        session_fixture_work(d, SLOT_DONE, 0, "", 0);
        assert_true(session_arm(s, &(uint64_t){0}));
        atomic_store(&d->worker.slots[slots[0]].word, SLOT_WORD(SLOT_DONE, SLOT_QUARANTINE, 1, 1, 77));
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        assert_int_equal(r.error, EBADMSG);
        for (unsigned i = 0; i < SLOTS; i++)
                assert_int_equal(session_submit(s, &job, &slots[i]), 0);
        for (unsigned i = 0; i < SLOTS; i++)
                session_fixture_work(d, SLOT_DONE, 0, "", 0);
        for (unsigned i = 0; i < SLOTS; i++)
                assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);

        /* Rings that take nothing: mended meanwhile; and not. */
        atomic_store(&d->worker.ring[LAYOUT_PRIORITY_DEFAULT].shared->tail, UINT64_MAX / 2);
        pthread_t mender;
        assert_int_equal(pthread_create(&mender, NULL, mend_a_moment_after_it_is_queued, d), 0);
        const struct session_job hinted = {.user = 9, .priority = LAYOUT_PRIORITY_DEFAULT};
        assert_int_equal(session_submit(s, &hinted, &slots[0]), 0);
        pthread_join(mender, NULL);
        session_fixture_work(d, SLOT_DONE, 0, "", 0);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        assert_int_equal(r.user, 9);
        atomic_store(&d->worker.ring[LAYOUT_PRIORITY_DEFAULT].shared->tail, UINT64_MAX / 3);
        assert_int_equal(session_submit(s, &hinted, &slots[0]), 0);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), -EPIPE);
        assert_true(session_is_foul(s));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                SESSION_TEST(test_every_verdict),
                SESSION_TEST(test_verdicts_that_no_worker_can_give),
                SESSION_TEST(test_verdicts_that_any_worker_can_give),
                SESSION_TEST(test_words_of_the_head_are_any_workers),
                SESSION_TEST(test_a_queue_deadline_needs_no_worker),
                SESSION_TEST(test_a_channel_written_over),
                SESSION_TEST(test_a_hostile_result),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
