/* More uids than workers wait on: who has a place, who gives it up, who is woken instead. */
#include "tests/unit/supervise-fixture.h"

#include <sys/wait.h>
#include <unistd.h>

#include "daemon/supervise/facts/places.h"
#include "ipc/channel/bell.h"
#include "ipc/memory/event.h"

enum { UID = 12345, PLACES = LAYOUT_BELLS_PER_WORKER - 1 /* besides the broker's own */, MANY = PLACES + 4 };

struct client {
        struct session_owner owner;
        struct session_offer offer;
        struct pool_channel *channel;
        struct pool_bell *bell;
        uint32_t n_jobs;
};

static struct client clients[MANY];
static struct pool *pool;
static struct stand_in worker;

static uint32_t control(void) { return atomic_load(&pool->memory->worker[0].control); }

static bool waits_on(const struct client *c) {
        uint32_t bell = (uint32_t)(c->bell - pool->bells);
        bool is_placeless = atomic_load(&pool->memory->placeless[bell / 64]) >> bell % 64 & 1;
        assert_int_equal(c->bell->has_place, !is_placeless);
        assert_int_equal(atomic_load(&c->bell->memory->mode), is_placeless ? BELL_BROKER : BELL_FUTEX);
        return !is_placeless;
}

static void push(struct client *c) {
        struct channel *ch = &c->channel->channel;
        uint32_t slot = c->n_jobs++;
        assert_int_equal(channel_begin(ch, slot), 0);
        *channel_job(ch, slot) = (struct layout_job){.priority = LAYOUT_PRIORITY_DEFAULT};
        assert_int_equal(channel_commit(ch, slot, LAYOUT_PRIORITY_DEFAULT), 0);
}

static void ring(struct client *c) { bell_ring(c->bell->memory, c->channel->index, c->offer.doorbell_fd); }

static void submit(struct client *c) {
        push(c);
        ring(c);
}

/* What is queued is cancelled: it is idle again. */
static void settle(struct client *c) {
        for (uint32_t slot = 0; slot < c->n_jobs; slot++) {
                uint64_t word = channel_word(&c->channel->channel, slot);
                channel_judge_queued(&c->channel->channel, slot, slot_generation(word), SLOT_CANCELLED);
        }
        struct channel *ch = &c->channel->channel;
        uint64_t record;
        uint32_t slot;
        uint64_t word;
        assert_int_equal(channel_claim(ch, 0, 0, false, 0, (_Atomic uint64_t *)&record, -1, &slot, &word),
                         CHANNEL_EMPTY);
        bell_clear_work(c->bell->memory, c->channel->index);
}

static int begin(void **state) {
        setup(state);
        pool = add_pool(NULL);
        load();
        worker = ready();
        for (unsigned i = 0; i < MANY; i++) {
                struct fault f;
                bool wait;
                struct client *c = &clients[i];
                *c = (struct client){0};
                const struct session_request q = {.pool = pool, .uid = UID + i, .owner = &c->owner};
                assert_int_equal(supervisor_open_session(supervisor, &q, &c->offer, &wait, &f), 0);
                channel_close(c->offer.memory_fds);
                c->channel = pool->channels[c->offer.channel];
                c->bell = &pool->bells[c->channel->bell];
        }
        return 0;
}

static int finish(void **state) {
        for (unsigned i = 0; i < MANY; i++) {
                supervisor_end_sessions(&clients[i].owner);
                session_offer_close(&clients[i].offer);
        }
        end(&worker, CLD_EXITED, 0);
        return teardown(state);
}

static unsigned count_waits(void) {
        unsigned n = 0;
        for (unsigned i = 0; i < MANY; i++)
                n += waits_on(&clients[i]);
        return n;
}

static void test_first_come(void **state) {
        for (unsigned i = 0; i < MANY; i++)
                assert_int_equal(waits_on(&clients[i]), i < PLACES);
        assert_true(pool->bells[0].has_place);
}

static void test_who_rings_gets_it_of_the_longest_idle(void **state) {
        for (unsigned i = 0; i < 3; i++) /* seen to have work by the look that the next ring leads to */
                push(&clients[i]);
        uint32_t seen = control();
        submit(&clients[PLACES]);
        UNTIL(waits_on(&clients[PLACES]));
        assert_false(waits_on(&clients[3])); /* the first that never had a job */
        assert_int_equal(count_waits(), PLACES);
        assert_int_not_equal(control(), seen); /* the worker is told, and looks at everything */

        for (unsigned i = 0; i < 3; i++)
                settle(&clients[i]);
        for (unsigned i = 4; i < PLACES; i++) { /* the last thing that these have done is newer now */
                clients[i].bell->active_ns = event_now_ns();
        }
        submit(&clients[3]);
        UNTIL(waits_on(&clients[3]));
        assert_false(waits_on(&clients[0]) && waits_on(&clients[1]) && waits_on(&clients[2]));
        assert_int_equal(count_waits(), PLACES);
}

/* By the look itself: what settles the pool afterwards would be too late, the workers have looked by then. */
static void test_modes_change_before_workers_look(void **state) {
        push(&clients[PLACES]);
        pool_places_look(pool);
        assert_true(waits_on(&clients[PLACES]));
        assert_int_equal(count_waits(), PLACES);
}

static void test_a_place_that_is_free(void **state) {
        supervisor_end_sessions(&clients[5].owner);
        uint32_t channel = clients[5].offer.channel;
        report(&worker, REPORT_DROPPED, channel);
        UNTIL(!clients[5].bell->memory);
        submit(&clients[PLACES + 1]);
        UNTIL(waits_on(&clients[PLACES + 1]));
        for (unsigned i = 0; i < PLACES; i++)
                assert_true(i == 5 || waits_on(&clients[i]));
}

/* Nobody gives way: then it is enough that all who sleep look. */
static void test_all_are_busy(void **state) {
        for (unsigned i = 0; i < PLACES; i++) {
                push(&clients[i]);
                clients[i].bell->place_ns = event_now_ns() + 3600000 * MS; /* in an hour */
        }
        uint32_t seen = control();
        submit(&clients[PLACES]);
        turns(5);
        assert_false(waits_on(&clients[PLACES]));
        assert_int_equal(control(), seen); /* it is awake, and looks before it sleeps */

        bell_sleep_begin(pool->bells[0].memory, 0);
        ring(&clients[PLACES]);
        UNTIL(control() != seen);
        assert_false(waits_on(&clients[PLACES]));
        bell_sleep_end(pool->bells[0].memory, 0);
        seen = control();

        settle(&clients[PLACES]); /* rung for nothing: nobody is woken */
        bell_sleep_begin(pool->bells[0].memory, 0);
        ring(&clients[PLACES]);
        turns(5);
        assert_int_equal(control(), seen);
}

/* All have work all the time: each has its turn. */
static void test_busy_ones_take_turns(void **state) {
        enum { TURNS = 3 };
        unsigned n_turns[MANY] = {0}, n_most = 0, n_left = MANY;
        uint64_t since_ns[MANY] = {0};
        for (unsigned i = 0; i < MANY; i++)
                push(&clients[i]);
        for (unsigned n_rounds = 0; n_left > 0; n_rounds++, turn()) {
                assert_true(n_rounds < PATIENCE_TURNS);
                for (unsigned i = 0; i < MANY; i++) {
                        if (!waits_on(&clients[i])) {
                                ring(&clients[i]);
                        } else if (clients[i].bell->place_ns != since_ns[i]) {
                                since_ns[i] = clients[i].bell->place_ns;
                                n_most = ++n_turns[i] > n_most ? n_turns[i] : n_most;
                                n_left -= n_turns[i] == TURNS;
                        }
                }
        }
        assert_in_range(n_most, TURNS, 2 * TURNS);
        assert_int_equal(count_waits(), PLACES);
}

/* The broker's own bell is never the one to go: over the bus come jobs of all. */
static void test_our_own_stays(void **state) {
        for (unsigned round = 0; round < 3; round++)
                for (unsigned i = 0; i < MANY; i++)
                        if (!waits_on(&clients[i])) {
                                clients[i].n_jobs = round;
                                submit(&clients[i]);
                                UNTIL(waits_on(&clients[i]));
                                settle(&clients[i]);
                        }
        assert_true(pool->bells[0].has_place);
        assert_int_equal(atomic_load(&pool->bells[0].memory->mode), BELL_FUTEX);
}

/* While nobody serves all bells are alike, and afterwards they are not. */
static void test_a_pool_that_is_paused(void **state) {
        pool->is_paused = true;
        pool_settle(pool);
        submit(&clients[PLACES]);
        turns(5);
        assert_false(clients[PLACES].bell->has_place);
        uint32_t seen = control();
        pool->is_paused = false;
        pool_settle(pool);
        worker_command(pool->workers[0]);
        assert_int_equal(count_waits(), PLACES);
        ring(&clients[PLACES]);
        UNTIL(waits_on(&clients[PLACES]));
        assert_int_not_equal(control(), seen);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_first_come, begin, finish),
                cmocka_unit_test_setup_teardown(test_who_rings_gets_it_of_the_longest_idle, begin, finish),
                cmocka_unit_test_setup_teardown(test_modes_change_before_workers_look, begin, finish),
                cmocka_unit_test_setup_teardown(test_a_place_that_is_free, begin, finish),
                cmocka_unit_test_setup_teardown(test_all_are_busy, begin, finish),
                cmocka_unit_test_setup_teardown(test_busy_ones_take_turns, begin, finish),
                cmocka_unit_test_setup_teardown(test_our_own_stays, begin, finish),
                cmocka_unit_test_setup_teardown(test_a_pool_that_is_paused, begin, finish),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
