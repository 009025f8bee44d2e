/* The supervisor with a stand-in spawner: the test answers its requests and plays the workers, so that every order of
 * events can be had, also those that need a race in life. Whatever is freed too early is found by the sanitizers. */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/supervise/jobs/jobs.h"
#include "daemon/supervise/pools/limits.h"
#include "ipc/channel/bell.h"
#include "ipc/memory/doorbell.h"
#include "ipc/memory/event.h"
#include "ipc/memory/packet.h"
#include "tests/unit/supervise-fixture.h"

/* ---- who frees what ---- */

static void test_removed_pool_whose_plugin_is_refused(void **state) {
        struct pool *p = add_pool(NULL);
        load();
        uint32_t id = expect(SPAWN_START).worker;
        supervisor_remove_pool(supervisor, p);
        answer(
                (struct spawn_event){
                        .type = SPAWN_FAILED, .worker = id, .error = EBUSY, .is_permanent = 1, .text = "no"},
                NULL, 0);
        UNTIL(!supervisor_find_worker(supervisor, id));
        assert_null(supervisor_next_pool(supervisor, NULL));
}

static void test_stopped_pool_stays_stopped(void **state) {
        struct fault f;
        struct pool *p = add_pool(NULL);
        load();
        uint32_t id = expect(SPAWN_START).worker;
        assert_int_equal(pool_stop(p, &f), 0);
        answer(
                (struct spawn_event){
                        .type = SPAWN_FAILED, .worker = id, .error = EBUSY, .is_permanent = 1, .text = "no"},
                NULL, 0);
        UNTIL(!supervisor_find_worker(supervisor, id));
        assert_int_equal(pool_get_state(p), POOL_STOPPED);
}

static void test_spawner_lost_under_a_removed_pool(void **state) {
        struct pool *p = add_pool(NULL);
        load();
        expect(SPAWN_START);
        supervisor_remove_pool(supervisor, p);
        shutdown(spawner, 2);
        UNTIL(supervisor_n_workers(supervisor) == 0);
        assert_null(supervisor_next_pool(supervisor, NULL));
}

static void test_spawner_lost_twice_before_a_worker_died(void **state) {
        add_pool(NULL);
        load();
        struct stand_in w = ready();
        struct worker *worker = supervisor_find_worker(supervisor, w.id);
        worker_on_spawner_lost(worker);
        worker_on_spawner_lost(worker);
        UNTIL(!supervisor_find_worker(supervisor, w.id));
        close(w.fd);
}

static struct session_owner client;

static int open_session(struct pool *p, struct session_offer *ret, struct fault *f) {
        const struct session_request q = {.pool = p, .uid = 1, .owner = &client};
        bool wait;
        int r = supervisor_open_session(supervisor, &q, ret, &wait, f);
        if (r == 0)
                channel_close(ret->memory_fds);
        return r;
}

/* A job in slot 0 of a channel, claimed by the worker of index 0. */
static void claim(struct pool *p, struct pool_channel *c) {
        uint32_t slot;
        uint64_t word;
        assert_int_equal(channel_claim(&c->channel, c->index, 0, false, event_now_ns(), &p->memory->worker[0].record,
                                       -1, &slot, &word),
                         CHANNEL_CLAIMED);
}

static void test_channel_dropped_under_a_quarantine(void **state) {
        struct session_offer offer;
        struct fault f;
        struct pool *p = add_pool(NULL);
        load();
        struct stand_in w = ready();
        assert_int_equal(open_session(p, &offer, &f), 0);
        struct pool_channel *c = pool_channel_at(p, offer.channel);
        assert_int_equal(channel_begin(&c->channel, 0), 0);
        assert_int_equal(channel_commit(&c->channel, 0, 1), 0);
        claim(p, c);
        session_offer_close(&offer); /* the client leaves */
        UNTIL(c->is_dead);
        struct worker *worker = supervisor_find_worker(supervisor, w.id);
        struct worker_job job;
        assert_true(worker_get_job(worker, &job));
        const uint64_t id = worker_job_id(&job);
        assert_true(worker_judge(worker, SLOT_TIMED_OUT, REASON_TIME_LIMIT));
        report(&w, REPORT_DROPPED, offer.channel);
        end(&w, CLD_KILLED, SIGKILL);
        assert_int_equal(p->n_deaths, 1); /* it had its verdict before the kill, and is told all the same */
        assert_int_equal(p->deaths[0].reason, REASON_TIME_LIMIT);
        assert_int_equal(p->deaths[0].job_id, id);
        assert_int_equal(p->deaths[0].job_uid, 1);
        assert_int_equal(p->deaths[0].attempt, 1);
        assert_null(pool_channel_at(p, offer.channel));
}

static void two_workers(struct pool_config *c) { c->n_workers = 2; }

/* What stands in a worker's run record is not believed of a channel that it said it had left, also while another worker
 * keeps that channel: it is gone as soon as that one has left, too. */
static void test_record_that_names_a_left_channel(void **state) {
        struct session_offer offer;
        struct fault f;
        struct pool *p = add_pool(two_workers);
        struct worker_job job;
        load();
        struct stand_in w = ready(), other = ready();
        const struct worker *worker = supervisor_find_worker(supervisor, w.id);
        assert_int_equal(worker->index, 0);
        assert_int_equal(open_session(p, &offer, &f), 0);
        struct pool_channel *c = pool_channel_at(p, offer.channel);
        assert_int_equal(channel_begin(&c->channel, 0), 0);
        assert_int_equal(channel_commit(&c->channel, 0, 1), 0);
        claim(p, c);
        assert_true(worker_get_job(worker, &job));
        session_offer_close(&offer); /* the client leaves */
        UNTIL(c->is_dead);
        report(&w, REPORT_DROPPED, offer.channel);
        UNTIL(!(c->attached[0] & 1));
        assert_ptr_equal(pool_channel_at(p, offer.channel), c);
        assert_false(worker_get_job(worker, &job));
        report(&other, REPORT_DROPPED, offer.channel);
        UNTIL(!pool_channel_at(p, offer.channel));
        end(&w, CLD_KILLED, SIGKILL);
        end(&other, CLD_KILLED, SIGKILL);
}

static void test_schema_out_of_turn(void **state) {
        struct pool *p = add_pool(NULL);
        load();
        struct stand_in w = ready();
        count(SPAWN_KILL);
        const struct schema *before = p->schema;
        p->schema_bytes--; /* whatever it says now is news */
        report(&w, REPORT_READY, 0);
        assert_int_equal(expect(SPAWN_KILL).worker, w.id);
        assert_ptr_equal(p->schema, before);
        end(&w, CLD_KILLED, SIGKILL);
}

/* One false report is enough: what a flood of them holds is never read. */
static void test_flood_of_reports(void **state) {
        add_pool(NULL);
        load();
        struct stand_in w = ready();
        count(SPAWN_KILL);
        for (unsigned i = 0; i < 5; i++)
                report(&w, REPORT_DROPPED, 200);
        for (unsigned i = 0; i < 5; i++)
                report(&w, REPORT_READY, 0);
        assert_int_equal(count(SPAWN_KILL), 1);
        end(&w, CLD_KILLED, SIGKILL);
}

/* ---- jobs ---- */

static struct job *submit(struct pool *p, uint64_t queue_timeout_ns) {
        struct job_request q = {
                .pool = p, .name = "work", .payload = "", .priority = 1, .queue_timeout_ns = queue_timeout_ns};
        struct fault f;
        struct job *j;
        assert_int_equal(job_submit(&q, &j, &f), 0);
        return j;
}

static enum slot_state state_of(struct job *j) {
        struct job_info info;
        job_get_info(j, &info);
        return info.state;
}

static void test_timeout_of_ages(void **state) {
        struct pool *p = add_pool(NULL);
        load();
        struct stand_in w = ready();
        struct job *j = submit(p, UINT64_MAX / 1000 * 1000);
        turns(5);
        assert_int_equal(state_of(j), SLOT_QUEUED);
        claim(p, p->channels[0]);
        end(&w, CLD_KILLED, SIGSEGV);
}

/* The worker of a pool may write any slot word of it: the broker counts its free slots by its own books. */
static void test_slot_freed_twice(void **state) {
        struct pool *p = add_pool(NULL);
        load();
        struct stand_in w = ready();
        struct channel *c = &p->channels[0]->channel;
        struct job *j = submit(p, 0);
        claim(p, p->channels[0]);
        uint32_t slot = p->memory->worker[0].record & 0xffff;
        assert_true(worker_judge(supervisor_find_worker(supervisor, w.id), SLOT_TIMED_OUT, REASON_TIME_LIMIT));
        channel_end_quarantine(c, slot); /* not the worker's to do */
        UNTIL(state_of(j) == SLOT_TIMED_OUT);
        assert_int_equal(p->n_free_slots, 4);
        atomic_store(&c->slots[slot].word, SLOT_WORD(SLOT_TIMED_OUT, 0, 1, 1, 1));
        end(&w, CLD_KILLED, SIGKILL);
        assert_int_equal(p->n_free_slots, 4);
}

/* A job that kills its worker each time, and whose slot word says each time that this was the first attempt. */
static void test_attempts_wound_back(void **state) {
        struct pool *p = add_pool(NULL);
        load();
        struct job *j = NULL;
        for (unsigned i = 0; i < 3; i++) {
                struct stand_in w = ready();
                j = j ? j : submit(p, 0);
                struct channel *c = &p->channels[0]->channel;
                claim(p, p->channels[0]);
                uint32_t slot = p->memory->worker[0].record & 0xffff;
                uint64_t word = channel_word(c, slot);
                atomic_store(&c->slots[slot].word,
                             SLOT_WORD(SLOT_RUNNING, 0, 1, slot_owner(word), slot_generation(word)));
                end(&w, CLD_KILLED, SIGSEGV);
        }
        UNTIL(state_of(j) == SLOT_POISONED);
}

/* The same, and it says that its slot has the next job by now, of which there is none. */
static void test_attempts_of_another_generation(void **state) {
        struct pool *p = add_pool(NULL);
        load();
        struct job *j = NULL;
        for (unsigned i = 0; i < 3; i++) {
                struct stand_in w = ready();
                j = j ? j : submit(p, 0);
                struct channel *c = &p->channels[0]->channel;
                UNTIL(channel_has_work(c));
                claim(p, p->channels[0]);
                uint64_t record = p->memory->worker[0].record;
                uint32_t slot = record & 0xffff, next = (uint32_t)(record >> 32) + 1;
                atomic_store(&c->slots[slot].word, SLOT_WORD(SLOT_RUNNING, 0, 1, SLOT_OWNER_WORKER0, next));
                p->memory->worker[0].record = (uint64_t)next << 32 | slot;
                end(&w, CLD_KILLED, SIGSEGV);
        }
        UNTIL(state_of(j) == SLOT_POISONED);
}

static void limit_of_50_ms(struct pool_config *c) { c->hard_timeout_ns = 50 * MS; }

/* It says so again and again, so that each of them is new. */
static void test_a_limit_of_ever_another_generation(void **state) {
        struct pool *p = add_pool(limit_of_50_ms);
        load();
        struct stand_in w = ready();
        submit(p, 0);
        claim(p, p->channels[0]);
        limits_wake(p);
        const struct worker *worker = supervisor_find_worker(supervisor, w.id);
        _Atomic uint64_t *record = &p->memory->worker[0].record;
        uint64_t slot = *record & 0xffff, next = *record >> 32;
        for (unsigned i = 0; i < PATIENCE_TURNS && worker->doom == REASON_NONE; i++) {
                turn();
                next++;
                atomic_store(&p->channels[0]->channel.slots[slot].word,
                             SLOT_WORD(SLOT_RUNNING, 0, 1, SLOT_OWNER_WORKER0, (uint32_t)next));
                atomic_store(record, next << 32 | slot);
        }
        assert_int_equal(worker->doom, REASON_TIME_LIMIT);
        end(&w, CLD_KILLED, SIGKILL);
}

static void test_limits_after_a_death_before_the_doorbell(void **state) {
        struct pool *p = add_pool(NULL);
        load();
        struct stand_in w = ready();
        atomic_store(&p->memory->armed, 1); /* its first claim, and it died before it rang */
        end(&w, CLD_KILLED, SIGSEGV);
        assert_int_not_equal(p->tick_timer.heap_index, 0);
}

static void test_drain_keeps_accepted_jobs(void **state) {
        struct pool *p = add_pool(NULL);
        struct fault f;
        load();
        struct stand_in w = ready();
        struct job *j = submit(p, 0);
        assert_int_equal(pool_drain(p, &f), 0);
        end(&w, CLD_EXITED, 1); /* no worker until RestartSec= is over */
        assert_int_equal(pool_count_workers(p), 0);
        doorbell_ring(p->doorbell.ring_fd);
        turns(5);
        assert_int_equal(state_of(j), SLOT_QUEUED);
}

/* As a library does that closes every descriptor it does not know. */
static void test_deaf_worker_is_replaced(void **state) {
        add_pool(NULL);
        load();
        struct stand_in w = ready();
        shutdown(w.fd, SHUT_RDWR);
        assert_int_equal(expect(SPAWN_KILL).worker, w.id);
        end(&w, CLD_KILLED, SIGKILL);
}

static void little_grace(struct pool_config *c) { c->kill_grace_ns = 0; }

static void test_retired_worker_that_stays(void **state) {
        struct pool *p = add_pool(little_grace);
        struct fault f;
        load();
        struct stand_in old = ready();
        struct job *j = submit(p, 0);
        claim(p, p->channels[0]);
        assert_int_equal(pool_restart(p, &f), 0);
        load();
        struct stand_in new = ready();
        UNTIL(supervisor_find_worker(supervisor, old.id)->phase == PHASE_STOPPING);
        turns(1500);
        assert_int_equal(count(SPAWN_KILL), 0); /* not in the middle of its job */
        uint32_t slot = p->memory->worker[0].record & 0xffff;
        struct channel *c = &p->channels[0]->channel;
        assert_int_equal(channel_finish(c, slot, channel_word(c, slot), SLOT_CANCELLED, p->channels[0]->done.ring_fd),
                         0);
        assert_int_equal(expect(SPAWN_KILL).worker, old.id);
        assert_int_equal(state_of(j), SLOT_CANCELLED);
        end(&old, CLD_KILLED, SIGKILL);
        end(&new, CLD_EXITED, 0);
}

static void short_interval(struct pool_config *c) {
        c->restart_ns = c->restart_max_ns = MS;
        c->start_limit_burst = 1;
        c->start_limit_interval_ns = 400 * MS;
}

static void test_degraded_pool_recovers(void **state) {
        struct pool *p = add_pool(short_interval);
        load();
        for (unsigned i = 0; i < 2; i++) {
                struct stand_in w = ready();
                end(&w, CLD_EXITED, 1);
        }
        assert_int_equal(pool_get_state(p), POOL_DEGRADED);
        struct stand_in w = ready();
        UNTIL(!p->restart.is_degraded);
        assert_int_equal(p->restart_timer.heap_index, 0); /* and nothing ticks on */
        end(&w, CLD_EXITED, 1);
        assert_int_not_equal(pool_get_state(p), POOL_DEGRADED);
}

static void test_sessions_leave_descriptors_for_workers(void **state) {
        struct session_offer offer;
        struct fault f;
        struct rlimit before, small;
        struct pool *p = add_pool(NULL);
        load();
        struct stand_in w = ready();
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
        small = (struct rlimit){200, before.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &small), 0);
        assert_int_equal(open_session(p, &offer, &f), -1);
        assert_int_equal(f.code, FAULT_LIMITS_EXCEEDED);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
        end(&w, CLD_EXITED, 0);
}

static void test_sessions_end_with_their_owner(void **state) {
        struct session_offer offers[3];
        struct fault f;
        struct pool *p = add_pool(NULL);
        load();
        struct stand_in w = ready();
        for (unsigned i = 0; i < 3; i++)
                assert_int_equal(open_session(p, &offers[i], &f), 0);
        session_offer_close(&offers[1]); /* the one in the middle goes by itself */
        UNTIL(supervisor_n_sessions(supervisor) == 2);
        supervisor_end_sessions(&client);
        assert_int_equal(supervisor_n_sessions(supervisor), 0);
        supervisor_end_sessions(&client);
        assert_null(client.first);
        session_offer_close(&offers[0]);
        session_offer_close(&offers[2]);
        end(&w, CLD_EXITED, 0);
}

static void no_ttl(struct pool_config *c) {
        c->n_slots = 4;
        c->result_ttl_ns = 0;
}

/* As a caller does that leaves: nobody asks for the verdict, and the record goes with it. */
static void test_released_and_cancelled(void **state) {
        struct pool *p = add_pool(no_ttl);
        load();
        struct stand_in w = ready();
        struct job *j = submit(p, 0);
        job_release(j);
        assert_string_equal(job_cancel(j, CANCEL_ASK, "a test"), "cancelled");
        assert_null(supervisor_find_job(supervisor, 1));
        assert_int_equal(p->n_free_slots, 4);
        end(&w, CLD_EXITED, 0);
}

/* Finished records are many (ResultTTL=): each must be small. */
static void test_finished_records_are_small(void **state) {
        struct pool *p = add_pool(NULL);

        load();
        struct stand_in w = ready();
        for (unsigned i = 0; i < 1000; i++)
                assert_string_equal(job_cancel(submit(p, 0), CANCEL_QUEUED, "a test"), "cancelled"); /* warm */
        size_t before = mallinfo2().uordblks;
        for (unsigned i = 0; i < 10000; i++)
                job_cancel(submit(p, 0), CANCEL_QUEUED, "a test");
        assert_true((mallinfo2().uordblks - before) / 10000 < 640);
        assert_non_null(supervisor_find_job(supervisor, 1));
        end(&w, CLD_EXITED, 0);
}

/* The worker's line says when it started and ended: nonsense stays inside the job's own time. */
static void test_times_of_a_liar(void **state) {
        struct pool *p = add_pool(NULL);
        struct job_info info;
        load();
        struct stand_in w = ready();
        struct channel *c = &p->channels[0]->channel;
        struct job *j = submit(p, 0);
        claim(p, p->channels[0]);
        uint32_t slot = p->memory->worker[0].record & 0xffff;
        uint64_t word = channel_word(c, slot);
        *channel_result(c, slot) =
                (struct layout_result){.generation = slot_generation(word), .started_ns = 1, .finished_ns = UINT64_MAX};
        assert_int_equal(channel_finish(c, slot, word, SLOT_DONE, p->channels[0]->done.ring_fd), 0);
        UNTIL(state_of(j) == SLOT_DONE);
        job_get_info(j, &info);
        assert_in_range(info.started_us, info.submitted_us, info.submitted_us + 10000000);
        assert_in_range(info.finished_us, info.started_us, info.submitted_us + 10000000);
        assert_true(info.run_us < 10000000 && info.queue_us < 10000000);
        end(&w, CLD_EXITED, 0);
}

static unsigned n_down;
/* Between a claim and the worker's first word, and after a word that makes no sense, a job that runs has a start. */
static void test_a_running_job_has_begun(void **state) {
        static const uint64_t words[] = {0, 1, UINT64_MAX};
        struct pool *p = add_pool(NULL);
        struct job_info info;
        load();
        struct stand_in w = ready();
        struct channel *c = &p->channels[0]->channel;
        struct job *j = submit(p, 0);
        job_get_info(j, &info);
        assert_int_equal(info.state, SLOT_QUEUED);
        assert_int_equal(info.started_us, 0);
        claim(p, p->channels[0]);
        uint32_t slot = p->memory->worker[0].record & 0xffff;
        for (unsigned i = 0; i < 3; i++) {
                *channel_result(c, slot) = (struct layout_result){
                        .generation = i ? slot_generation(channel_word(c, slot)) : 0, .started_ns = words[i]};
                job_get_info(j, &info);
                assert_int_equal(info.state, SLOT_RUNNING);
                assert_in_range(info.started_us, info.submitted_us, info.submitted_us + 60000000);
        }
        end(&w, CLD_KILLED, SIGSEGV);
}

static enum slot_state told;
static void on_down(void *user) { n_down++; }
static void on_told(struct job_waiter *w, struct job *j) {
        assert_int_equal(n_down, 0);
        told = state_of(j);
}

static void no_time(struct pool_config *c) {
        c->timeout_stop_ns = 20 * MS;
        c->kill_grace_ns = 60000 * MS;
}

static void test_verdicts_are_told_before_the_end(void **state) {
        struct pool *p = add_pool(no_time);
        struct job_waiter waiter;
        load();
        struct stand_in w = ready();
        struct job *j = submit(p, 0);
        job_wait(j, &waiter, on_told);
        end(&w, CLD_EXITED, 1);
        n_down = 0;
        told = SLOT_FREE;
        supervisor_shut_down(supervisor, on_down, NULL);
        UNTIL(n_down == 1);
        assert_int_equal(told, SLOT_CANCELLED);
}

/* KillGraceSec= is longer than TimeoutStopSec=, and the worker does not end by itself. */
static void test_shut_down_in_time(void **state) {
        struct pool *p = add_pool(no_time);
        struct fault f;
        load();
        struct stand_in w = ready();
        assert_int_equal(pool_stop(p, &f), 0);
        n_down = 0;
        uint64_t before = event_now_ns();
        supervisor_shut_down(supervisor, on_down, NULL);
        assert_int_equal(expect(SPAWN_KILL).worker, w.id);
        assert_true(event_now_ns() - before < 5000 * MS);
        end(&w, CLD_KILLED, SIGKILL);
        assert_int_equal(n_down, 1);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_removed_pool_whose_plugin_is_refused, setup, teardown),
                cmocka_unit_test_setup_teardown(test_stopped_pool_stays_stopped, setup, teardown),
                cmocka_unit_test_setup_teardown(test_spawner_lost_under_a_removed_pool, setup, teardown),
                cmocka_unit_test_setup_teardown(test_spawner_lost_twice_before_a_worker_died, setup, teardown),
                cmocka_unit_test_setup_teardown(test_channel_dropped_under_a_quarantine, setup, teardown),
                cmocka_unit_test_setup_teardown(test_record_that_names_a_left_channel, setup, teardown),
                cmocka_unit_test_setup_teardown(test_schema_out_of_turn, setup, teardown),
                cmocka_unit_test_setup_teardown(test_flood_of_reports, setup, teardown),
                cmocka_unit_test_setup_teardown(test_timeout_of_ages, setup, teardown),
                cmocka_unit_test_setup_teardown(test_slot_freed_twice, setup, teardown),
                cmocka_unit_test_setup_teardown(test_attempts_wound_back, setup, teardown),
                cmocka_unit_test_setup_teardown(test_attempts_of_another_generation, setup, teardown),
                cmocka_unit_test_setup_teardown(test_a_limit_of_ever_another_generation, setup, teardown),
                cmocka_unit_test_setup_teardown(test_limits_after_a_death_before_the_doorbell, setup, teardown),
                cmocka_unit_test_setup_teardown(test_drain_keeps_accepted_jobs, setup, teardown),
                cmocka_unit_test_setup_teardown(test_deaf_worker_is_replaced, setup, teardown),
                cmocka_unit_test_setup_teardown(test_retired_worker_that_stays, setup, teardown),
                cmocka_unit_test_setup_teardown(test_degraded_pool_recovers, setup, teardown),
                cmocka_unit_test_setup_teardown(test_sessions_leave_descriptors_for_workers, setup, teardown),
                cmocka_unit_test_setup_teardown(test_sessions_end_with_their_owner, setup, teardown),
                cmocka_unit_test_setup_teardown(test_released_and_cancelled, setup, teardown),
                cmocka_unit_test_setup_teardown(test_finished_records_are_small, setup, teardown),
                cmocka_unit_test_setup_teardown(test_times_of_a_liar, setup, teardown),
                cmocka_unit_test_setup_teardown(test_verdicts_are_told_before_the_end, setup, teardown),
                cmocka_unit_test_setup_teardown(test_a_running_job_has_begun, setup, teardown),
                cmocka_unit_test_setup_teardown(test_shut_down_in_time, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
