/* After a worker wrote over what it shares with its pool: limits, jobs that may run once only, what operators ask for,
 * clients that write, figures. */
#include "tests/unit/heal-fixture.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

/* A worker whose record says nothing of its job is killed when that job's time is over. */
static void test_limits_hold(void **state) {
        begin_with(two_workers);
        for (unsigned i = 0; i < 6; i++) {
                struct job *j = submit(60000, 0, 50 * MS);
                _Atomic uint64_t *record = &worker_line(supervisor_find_worker(supervisor, honest.id))->record;
                what = "record, and a limit";
                WITHIN_A_SECOND(info_of(j).state == SLOT_RUNNING);
                const uint64_t values[] = {0,
                                           UINT64_MAX,
                                           some(),
                                           atomic_load(record) + 1,
                                           atomic_load(record) ^ 1u << 16,
                                           atomic_load(record) + (UINT64_C(1) << 32)};
                value = values[i];
                atomic_store(record, value);
                end(&wild, CLD_KILLED, SIGSEGV);
                WITHIN_A_SECOND(j->is_finished);
                EXPECT(info_of(j).state == SLOT_TIMED_OUT);
                kill(honest.pid, SIGKILL); /* what the broker asks the spawner to do */
                uint32_t killed = honest.id;
                WITHIN_A_SECOND(honest.id != killed);
                serves();
                wild = ready();
        }
        /* Nobody ticks, and the first claim finds that somebody does. */
        WITHIN_A_SECOND(pool->tick_timer.heap_index == 0);
        atomic_store(&pool->memory->armed, 1);
        end(&wild, CLD_KILLED, SIGSEGV);
        struct job *j = submit(60000, 0, 50 * MS);
        what = "armed";
        WITHIN_A_SECOND(j->is_finished);
        EXPECT(info_of(j).state == SLOT_TIMED_OUT);
        kill(honest.pid, SIGKILL);
        uint32_t killed = honest.id;
        WITHIN_A_SECOND(honest.id != killed);
        wild = ready();
        n_late = 0; /* the tick ends after a second */
        finish();
}

static bool is_doomed(void) {
        const struct worker *w = supervisor_find_worker(supervisor, honest.id);
        return w && w->doom == REASON_TIME_LIMIT;
}

/* A worker that runs what its slot says nothing of any more has no more time than it had: whether somebody died of it,
 * or lives. */
static void test_limits_of_what_nobody_knows(void **state) {
        plugin = "ignorecancel"; /* others end at their next checkpoint */
        job_type = "ignore";
        begin_with(two_workers);
        for (unsigned i = 0; i < 6; i++) {
                struct job *j = submit(60000, 0, 100 * MS);
                what = "what nobody knows";
                value = i;
                WITHIN_A_SECOND(info_of(j).state == SLOT_RUNNING);
                WITHIN_A_SECOND(supervisor_find_worker(supervisor, honest.id)->stamp_ns != 0);
                atomic_store(&own()->slots[j->slot].word, i % 3 == 0 ? 0 : i % 3 == 1 ? UINT64_MAX : some());
                if (i < 3)
                        end(&wild, CLD_KILLED, SIGSEGV);
                WITHIN_A_SECOND(is_doomed());
                EXPECT(!j->is_finished);
                uint32_t killed = honest.id;
                kill(honest.pid, SIGKILL);
                WITHIN_A_SECOND(honest.id != killed);
                WITHIN_A_SECOND(j->is_finished); /* it ran once more, and its time was over again */
                EXPECT(info_of(j).state == SLOT_TIMED_OUT);
                killed = honest.id;
                kill(honest.pid, SIGKILL);
                WITHIN_A_SECOND(honest.id != killed);
                serves();
                if (i < 3)
                        wild = ready();
        }
        finish();
        plugin = "cancellable";
        job_type = "work";
}

static void once(struct pool_config *c) {
        two_workers(c);
        c->guarantee = GUARANTEE_AT_MOST_ONCE;
}

/* What may have run does not run again; what cannot have does, and what must wait waits. */
static void test_once(void **state) {
        begin_with(once);
        what = "once";
        struct job *first = submit(RUN_MS, 0, 0), *waits = submit(0, 100, 0);
        WITHIN_A_SECOND(info_of(first).state == SLOT_RUNNING || first->is_finished);
        struct job *second = submit(0, 0, 0);
        atomic_store(&own()->slots[second->slot].word, 0);
        atomic_store(&own()->slots[waits->slot].word, 0);
        uint64_t due_ns = job_due_ns(waits);
        end(&wild, CLD_KILLED, SIGSEGV);
        WITHIN_A_SECOND(second->is_finished && waits->is_finished);
        EXPECT(info_of(second).state == SLOT_LOST);
        EXPECT(strstr(info_of(second).error, "wrote over its slot"));
        EXPECT(info_of(waits).state == SLOT_DONE);
        EXPECT(event_now_ns() >= due_ns);
        wild = ready();
        finish();
}

/* It lives, and an operator asks: before a worker is replaced, and where none is. */
static void test_operators_heal_it(void **state) {
        struct fault f;
        begin_with(two_workers);
        what = "resume";
        for (unsigned i = 0; i < LAYOUT_BELL_WORDS; i++)
                atomic_store(&pool->memory->muted[i], UINT64_MAX);
        pool_poke(pool);
        struct job *j = submit(0, 0, 0);
        turns(20);
        EXPECT(!j->is_finished);
        EXPECT(pool_resume(pool, &f) == 0);
        WITHIN_A_SECOND(j->is_finished);
        EXPECT(info_of(j).state == SLOT_DONE);
        what = "drain";
        for (uint32_t slot = 0; slot < own()->geometry.n_slots; slot++)
                atomic_store(&own()->slots[slot].word, SLOT_WORD(SLOT_RUNNING, 0, 1, 77, 5));
        EXPECT(pool_drain(pool, &f) == 0);
        UNTIL(!pool->is_draining); /* its workers end, and none is to follow */
        close_session();
        end(&wild, CLD_KILLED, SIGKILL);
        end(&honest, CLD_KILLED, SIGKILL);
}

/* A client may write into its channel and its uid's bell. */
static void test_a_clients_last_words(void **state) {
        begin_with(two_workers);
        for (unsigned i = 0; i < 24; i++) {
                struct session_owner hostile = {0};
                struct session_offer its;
                struct fault f;
                bool wait;
                const struct session_request q = {.pool = pool, .uid = CLIENT_UID, .owner = &hostile};
                what = "a client";
                value = i;
                client_submit();
                WITHIN_A_SECOND(client_is_done());
                channel_free(clients(), client_slot);
                EXPECT(supervisor_open_session(supervisor, &q, &its, &wait, &f) == 0);
                value = i % 4;
                if (i % 2)
                        fill(in_clients_bell(), LAYOUT_PAGE);
                else
                        scribble_some_bytes(in_clients_bell());
                spoilt = &pool->channels[its.channel]->channel;
                scribble_common(NULL);
                turns(i % 3);
                supervisor_end_sessions(&hostile);
                channel_close(its.memory_fds);
                close(its.socket_fd);
                serves();
        }
        finish();
}

/* What people read may be wrong, but not without bounds. */
static void test_counts_have_bounds(void **state) {
        struct pool_info info;
        struct pool_latency latency;
        begin_with(two_workers);
        memset((void *)pool->memory->worker[0].counts, 0xff, sizeof(pool->memory->worker[0].counts));
        memset((void *)pool->memory->worker[1].counts, 0x7f, sizeof(pool->memory->worker[1].counts));
        memset((void *)pool->memory->latency[0], 0xff, sizeof(pool->memory->latency[0]));
        memset((void *)pool->memory->latency[1], 0x3f, sizeof(pool->memory->latency[1]));
        atomic_store(&clients()->head->submitted, UINT64_MAX);
        atomic_store(&clients()->head->cancelled, UINT64_MAX / 3);
        for (unsigned i = 0; i < 2; i++) {
                pool_get_info(pool, &info);
                EXPECT(info.counters.completed < 1000 && info.counters.failed < 1000 && info.counters.lost < 1000);
                EXPECT(info.counters.submitted < 1000 && info.counters.cancelled < 1000);
                pool_get_latency(pool, 0, 1, &latency);
                EXPECT(latency.n_jobs < 1000);
                if (i == 0)
                        end(&wild, CLD_KILLED, SIGSEGV);
        }
        serves();
        wild = ready();
        finish();
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_limits_hold, setup, teardown),
                cmocka_unit_test_setup_teardown(test_limits_of_what_nobody_knows, setup, teardown),
                cmocka_unit_test_setup_teardown(test_once, setup, teardown),
                cmocka_unit_test_setup_teardown(test_operators_heal_it, setup, teardown),
                cmocka_unit_test_setup_teardown(test_a_clients_last_words, setup, teardown),
                cmocka_unit_test_setup_teardown(test_counts_have_bounds, setup, teardown),
        };
        return heal_main(tests, COUNT(tests));
}
