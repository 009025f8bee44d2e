/* Jobs over the bus: slots that a worker scribbled over, records by expiry, and what is left when a pool goes. */
#include "tests/unit/supervise-fixture.h"

#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "daemon/supervise/jobs/job.h"
#include "ipc/memory/event.h"

static struct job *submit(struct pool *p, const struct job *after) {
        static const char nothing[] = {(char)0x80};
        struct job_request r = {.pool = p, .name = "work", .payload = nothing, .bytes = 1, .priority = 1};
        struct job *j;
        struct fault f;
        if (after) {
                r.after = &after->id;
                r.n_after = 1;
        }
        if (job_submit(&r, &j, &f) < 0)
                fail_msg("%s", f.text);
        return j;
}

/* Whatever stands in a slot that is free by the broker's books. */
static void test_scribbled_slots_take_jobs(void **state) {
        struct pool *p = add_pool(NULL);
        load();
        struct stand_in w = ready();
        struct channel *c = jobs_channel(p);
        static const uint64_t words[] = {
                SLOT_WORD(SLOT_RUNNING, 0, 1, SLOT_OWNER_WORKER0, 7),
                SLOT_WORD(SLOT_DONE, SLOT_QUARANTINE, 63, SLOT_OWNER_BROKER, UINT32_MAX),
                SLOT_WORD(SLOT_FILLING, 0, 0, SLOT_OWNER_CLIENT, 0),
                UINT64_MAX,
        };
        for (uint32_t slot = 0; slot < 4; slot++)
                atomic_store(&c->slots[slot].word, words[slot]);
        for (uint32_t slot = 0; slot < 4; slot++) {
                struct job *j = submit(p, NULL);
                assert_int_equal(job_live_state(j), SLOT_QUEUED);
                assert_int_equal(slot_state(channel_word(c, j->slot)), SLOT_QUEUED);
        }
        end(&w, CLD_EXITED, 0);
}

static void sixteen_slots(struct pool_config *c) { c->n_slots = 16; }

/* 64 descriptors of results at most, 32 for one uid: whose would find no room is not accepted. */
static void test_results_take_their_room_beforehand(void **state) {
        worker_schema = "fake\t1.0\nwork\t\ta:fd,b:fd,c:fd,d:fd,e:fd,f:fd,g:fd\t1\t0\t\n";
        struct pool *p = add_pool(sixteen_slots);
        static const char nothing[] = {(char)0x80};
        struct job_request r = {.pool = p, .name = "work", .payload = nothing, .bytes = 1, .priority = 1, .uid = 1};
        struct job *first = NULL, *j;
        struct fault f;
        load();
        struct stand_in w = ready();
        for (unsigned i = 0; i < 9; i++) {
                r.uid = i < 4 ? 1 : i < 8 ? 2 : 3;
                assert_int_equal(job_submit(&r, &j, &f), 0);
                first = first ? first : j;
                if (i != 3)
                        continue;
                assert_int_equal(job_submit(&r, &j, &f), -1);
                assert_int_equal(f.code, FAULT_QUEUE_FULL);
        }
        assert_int_equal(job_submit(&r, &j, &f), -1);
        assert_int_equal(f.code, FAULT_QUEUE_FULL);
        assert_non_null(strstr(f.text, "descriptors"));
        job_cancel(first, CANCEL_QUEUED, "a test");
        assert_int_equal(job_submit(&r, &j, &f), 0);
        assert_int_equal(p->n_result_fds, 63);
        end(&w, CLD_EXITED, 0);
}

/* not-before is a moment of the wall clock, and its deadline goes along. Instead of the clock the moment is moved. */
static void test_a_moment_follows_the_wall_clock(void **state) {
        const uint64_t hour_us = 3600000000, minute_ns = 60000 * MS;
        static const char nothing[] = {(char)0x80};
        struct pool *p = add_pool(sixteen_slots);
        struct job *soon, *later, *after;
        struct fault f;
        struct timespec now;
        load();
        struct stand_in w = ready();
        struct channel *c = jobs_channel(p);
        clock_gettime(CLOCK_REALTIME, &now);
        struct job_request r = {.pool = p,
                                .name = "work",
                                .payload = nothing,
                                .bytes = 1,
                                .priority = 1,
                                .queue_timeout_ns = minute_ns,
                                .not_before_us = (uint64_t)now.tv_sec * 1000000 + hour_us};
        assert_int_equal(job_submit(&r, &soon, &f), 0);
        assert_int_equal(job_submit(&r, &later, &f), 0);
        r.after = &later->id;
        r.n_after = 1;
        assert_int_equal(job_submit(&r, &after, &f), 0);
        assert_int_equal(slot_state(channel_word(c, soon->slot)), SLOT_DELAYED);
        soon->not_before_us -= hour_us;
        after->not_before_us -= hour_us;
        later->not_before_us += hour_us;
        jobs_clock_was_set(soon->jobs);
        uint64_t now_ns = event_now_ns();
        assert_int_equal(slot_state(channel_word(c, soon->slot)), SLOT_QUEUED);
        assert_true(*job_deadline(soon) <= now_ns + minute_ns && *job_deadline(soon) > now_ns);
        assert_int_equal(slot_state(channel_word(c, after->slot)), SLOT_DELAYED); /* for another reason by now */
        assert_int_equal(slot_state(channel_word(c, later->slot)), SLOT_DELAYED);
        assert_true(channel_job(c, later->slot)->not_before_ns > now_ns + 7100 * UINT64_C(1000000000));
        assert_true(*job_deadline(later) > channel_job(c, later->slot)->not_before_ns);
        uint64_t deadline_ns = *job_deadline(after);
        turn();
        jobs_clock_was_set(soon->jobs); /* again: its moment is over, and its time runs */
        assert_int_equal(*job_deadline(after), deadline_ns);
        end(&w, CLD_EXITED, 0);
}

static enum slot_state told[3];

struct wait {
        struct job_waiter waiter;
        enum slot_state *told;
};

static void on_told(struct job_waiter *w, struct job *j) { *((struct wait *)w)->told = j->state; }

/* One that comes after a lost one is cancelled, whichever slot it has. */
static void test_who_waits_for_the_lost(void **state) {
        struct pool *p = add_pool(NULL);
        static struct wait waits[3];
        load();
        struct stand_in w = ready();
        struct job *first = submit(p, NULL), *a = submit(p, NULL);
        job_cancel(first, CANCEL_QUEUED, "a test"); /* the next gets its slot, before that of what it waits for */
        struct job *b = submit(p, a), *c = submit(p, b);
        assert_true(b->slot < a->slot);
        struct job *const jobs[] = {a, b, c};
        for (unsigned i = 0; i < 3; i++) {
                waits[i].told = &told[i];
                job_wait(jobs[i], &waits[i].waiter, on_told);
        }
        close(w.fd);
        teardown(NULL);
        assert_int_equal(told[0], SLOT_LOST);
        assert_int_equal(told[1], SLOT_CANCELLED);
        assert_int_equal(told[2], SLOT_CANCELLED);
        setup(NULL);
}

static void for_an_hour(struct pool_config *c) { c->result_ttl_ns = 3600 * 1000 * MS; }

static uint64_t end_many(struct pool *p, unsigned n) {
        uint64_t begun_ns = event_now_ns();
        while (n--)
                job_cancel(submit(p, NULL), CANCEL_QUEUED, "a test");
        return event_now_ns() - begun_ns;
}

/* What expires soon does not look through all that expires later. */
static void test_records_by_expiry(void **state) {
        enum { N = 20000 };
        struct pool *p = add_pool(for_an_hour);
        load();
        struct stand_in w = ready();
        struct job *later = submit(p, NULL), *released = submit(p, NULL);
        job_cancel(later, CANCEL_QUEUED, "a test");
        uint64_t long_ns = end_many(p, N);
        p->config.result_ttl_ns = 1800 * 1000 * MS;
        uint64_t short_ns = end_many(p, N);
        assert_true(short_ns < long_ns * 5);

        p->config.result_ttl_ns = MS;
        struct job *sooner = submit(p, NULL);
        uint64_t id = sooner->id, later_id = later->id, released_id = released->id;
        job_cancel(sooner, CANCEL_QUEUED, "a test");
        p->config.result_ttl_ns = 3600 * 1000 * MS;
        job_cancel(released, CANCEL_QUEUED, "a test");
        job_release(released);
        UNTIL(!supervisor_find_job(supervisor, id));
        UNTIL(!supervisor_find_job(supervisor, released_id));
        assert_non_null(supervisor_find_job(supervisor, later_id));
        assert_int_equal(supervisor->jobs->n_finished, 2 * N + 1);
        end(&w, CLD_EXITED, 0);
}

/* A page that ends among thousands of others' jobs would tell their ids by its cursor. */
static void test_pages_of_one_uid(void **state) {
        enum { UID = 12345, N = 21000 };
        static struct job_row rows[2];
        const struct job_filter f = {.viewer = UID};
        struct pool *p = add_pool(for_an_hour);
        struct fault fault;
        uint64_t next;
        load();
        struct stand_in w = ready();
        uint64_t ids[3];
        for (unsigned i = 0; i < 3; i++) {
                static const char nothing[] = {(char)0x80};
                struct job_request r = {
                        .pool = p, .name = "work", .uid = UID, .payload = nothing, .bytes = 1, .priority = 1};
                struct job *j;
                assert_int_equal(job_submit(&r, &j, &fault), 0);
                ids[i] = j->id;
                job_cancel(j, CANCEL_QUEUED, "a test");
                end_many(p, N);
        }
        assert_int_equal(supervisor_list_jobs(supervisor, &f, 0, rows, 2, &next), 2);
        assert_int_equal(rows[1].id, ids[1]);
        assert_int_equal(next, ids[1]);
        assert_int_equal(supervisor_list_jobs(supervisor, &f, next, rows, 2, &next), 1);
        assert_int_equal(rows[0].id, ids[2]);
        assert_int_equal(next, 0);
        assert_int_equal(supervisor_list_jobs(supervisor, &f, ids[0] + 7, rows, 2, &next),
                         2); /* a cursor that is made up */
        assert_int_equal(rows[0].id, ids[1]);
        end(&w, CLD_EXITED, 0);
}

/* Any worker can write any word; but not that the broker gave a verdict, nor the deadline. */
static void test_verdicts_that_no_worker_can_give(void **state) {
        static const struct {
                enum slot_state state, seen;
                const char *text;
        } cases[] = {
                {SLOT_POISONED, SLOT_FAILED, "only droverd can give"},
                {SLOT_LOST, SLOT_FAILED, "only droverd can give"},
                {SLOT_EXPIRED, SLOT_FAILED, "before its queue deadline"},
                {SLOT_TIMED_OUT, SLOT_TIMED_OUT, "its soft limit passed"},
                {SLOT_CANCELLED, SLOT_CANCELLED, "was cancelled"},
        };
        struct pool *p = add_pool(NULL);
        load();
        struct stand_in w = ready();
        struct channel *c = &p->channels[0]->channel;
        for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
                struct job *j = submit(p, NULL);
                uint32_t slot = j->slot;
                uint64_t word = channel_word(c, slot);
                atomic_store(&c->slots[slot].word, SLOT_WORD(cases[i].state, 0, 1, 1, slot_generation(word)));
                channel_announce(c, slot, p->channels[0]->done.ring_fd);
                UNTIL(j->is_finished);
                assert_int_equal(j->state, cases[i].seen);
                assert_non_null(strstr(j->error, cases[i].text));
                assert_int_equal(j->death.reason, REASON_NONE);
        }
        end(&w, CLD_KILLED, SIGKILL);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_scribbled_slots_take_jobs, setup, teardown),
                cmocka_unit_test_setup_teardown(test_results_take_their_room_beforehand, setup, teardown),
                cmocka_unit_test_setup_teardown(test_a_moment_follows_the_wall_clock, setup, teardown),
                cmocka_unit_test_setup_teardown(test_who_waits_for_the_lost, setup, teardown),
                cmocka_unit_test_setup_teardown(test_records_by_expiry, setup, teardown),
                cmocka_unit_test_setup_teardown(test_pages_of_one_uid, setup, teardown),
                cmocka_unit_test_setup_teardown(test_verdicts_that_no_worker_can_give, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
