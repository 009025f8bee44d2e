/* Whose job it is that is asked to stop, and whose time runs: a channel's index, slot and generation come again. */
#include "tests/unit/supervise-fixture.h"

#include <signal.h>
#include <sys/wait.h>

#include "daemon/supervise/workers/worker.h"
#include "ipc/memory/event.h"

enum { GRACE_MS = 100 };

struct client {
        struct session_owner owner;
        struct session_offer offer; /* its socket holds the session open */
        struct pool_channel *channel;
};

static struct pool *pool;
static struct stand_in stand_in;
static struct worker *worker;

static void short_grace(struct pool_config *c) {
        c->kill_grace_ns = GRACE_MS * MS;
        c->hard_timeout_ns = 1000 * 1000 * MS; /* looked at seldom, but looked at */
}

static void begin(void) {
        pool = add_pool(short_grace);
        load();
        stand_in = ready();
        worker = supervisor_find_worker(supervisor, stand_in.id);
}

static void come(struct client *c, uid_t uid) {
        struct fault f;
        bool wait;
        const struct session_request q = {.pool = pool, .uid = uid, .owner = &c->owner};
        assert_int_equal(supervisor_open_session(supervisor, &q, &c->offer, &wait, &f), 0);
        c->channel = pool->channels[c->offer.channel];
}

static void leave(struct client *c) {
        supervisor_end_sessions(&c->owner);
        session_offer_close(&c->offer);
}

/* Its slot 0 is run by the worker; the word of it. */
static uint64_t run(struct client *c) {
        struct channel *channel = &c->channel->channel;
        uint32_t slot;
        uint64_t word;
        assert_int_equal(channel_begin(channel, 0), 0);
        *channel_job(channel, 0) = (struct layout_job){.queued_ns = event_now_ns()};
        assert_int_equal(channel_commit(channel, 0, LAYOUT_PRIORITY_DEFAULT), 0);
        assert_int_equal(channel_claim(channel, c->channel->index, worker->index, false, event_now_ns(),
                                       &worker_line(worker)->record, -1, &slot, &word),
                         CHANNEL_CLAIMED);
        assert_int_equal(slot, 0);
        return word;
}

/* Done, and the client's channel is no more. */
static void finish(struct client *c, uint64_t word) {
        uint32_t index = c->channel->index;
        assert_int_equal(channel_finish(&c->channel->channel, 0, word, SLOT_DONE, -1), 0);
        report(&stand_in, REPORT_DROPPED, index);
        UNTIL(pool->channels[index] == NULL);
}

static bool is_asked(void) {
        uint64_t when_us;
        const char *by;
        return worker_get_ask(worker, &when_us, &by);
}

static void expect_left_alone(const struct client *c) {
        uint64_t until_ns = event_now_ns() + 2 * GRACE_MS * MS;
        assert_false(is_asked());
        while (event_now_ns() < until_ns) {
                turn();
                assert_int_equal(slot_state(channel_word(&c->channel->channel, 0)), SLOT_RUNNING);
        }
        assert_false(is_asked());
        assert_int_equal(worker->phase, PHASE_READY);
}

static void test_a_client_that_left_has_its_job_ended(void **state) {
        struct client a = {0};
        begin();
        come(&a, 1);
        run(&a);
        leave(&a);
        assert_true(is_asked());
        UNTIL(worker->phase == PHASE_STOPPING);
        assert_int_equal(slot_state(channel_word(&a.channel->channel, 0)), SLOT_CANCELLED);
        end(&stand_in, CLD_KILLED, SIGKILL);
}

static void test_the_next_client_of_an_index_is_left_alone(void **state) {
        struct client a = {0}, b = {0};
        begin();
        come(&a, 1);
        uint32_t index = a.channel->index, generation;
        uint64_t word = run(&a);
        generation = slot_generation(word);
        leave(&a);
        assert_true(is_asked());
        finish(&a, word);
        come(&b, 2);
        word = run(&b);
        assert_int_equal(b.channel->index, index);
        assert_int_equal(slot_generation(word), generation);
        expect_left_alone(&b);
        leave(&b);
        end(&stand_in, CLD_KILLED, SIGKILL);
}

/* A limit counts from the claim of this very job. */
static void test_the_next_client_of_an_index_has_its_own_time(void **state) {
        struct client a = {0}, b = {0};
        begin();
        come(&a, 1);
        uint64_t word = run(&a);
        atomic_store(&pool->memory->armed, 1);
        pool_on_rung(pool);
        UNTIL(worker->stamp_ns != 0);
        leave(&a);
        finish(&a, word);
        come(&b, 2);
        uint64_t since_ns = event_now_ns();
        run(&b);
        UNTIL(worker->stamp_ns >= since_ns);
        leave(&b);
        end(&stand_in, CLD_KILLED, SIGKILL);
}

/* A client can write its own slots, but not to whose job the worker has. */
static void test_a_client_asks_for_no_other(void **state) {
        struct client a = {0}, b = {0};
        begin();
        come(&a, 1);
        come(&b, 2);
        run(&b);
        atomic_store(&a.channel->channel.slots[0].word,
                     SLOT_WORD(SLOT_RUNNING, 0, 1, worker->index + SLOT_OWNER_WORKER0, 1));
        leave(&a);
        expect_left_alone(&b);
        leave(&b);
        end(&stand_in, CLD_KILLED, SIGKILL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_a_client_that_left_has_its_job_ended),
                TEST(test_the_next_client_of_an_index_is_left_alone),
                TEST(test_the_next_client_of_an_index_has_its_own_time),
                TEST(test_a_client_asks_for_no_other),
        };
        return cmocka_run_group_tests_name("jobs that are asked to stop", tests, NULL, NULL);
}
